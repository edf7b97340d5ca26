"""Dose: deposit of one exposure, reservation on disk. Prints medians beside a plain SQLite commit of the same run."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xbat_live.dose import Beam, DoseAccount, DoseGrid, DoseLimit, ExposureRequest, Ledger, presets

REPEATS = 200


def median_ms(action: Callable[[int], object], repeats: int = REPEATS) -> float:
    times = []
    for number in range(repeats):
        start = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def line(what: str, value: str) -> None:
    sys.stdout.write(f"{what:<62} {value}\n")


def deposits() -> None:
    rng = np.random.default_rng(1)
    grid = DoseGrid(1.0)
    measured = Beam.measured(1e10, rng.uniform(1, 2, (512, 512)), 0, pixel_size_um=1.0).profile.kernel(1.0)
    at = rng.uniform(-50, 50, (REPEATS, 2))
    whole = median_ms(lambda n: grid.deposit(0.5, 0.5, measured, 1e-10))
    line(f"deposit {measured.shape} measured profile, on the pixel", f"{whole:.2f} ms")
    line("  same, between pixels", f"{median_ms(lambda n: grid.deposit(at[n, 0], at[n, 1], measured, 1e-10)):.2f} ms")
    small = Beam.gaussian(1e10, (30, 30), 8)
    line("kernel of a 30 um beam, 1 um map", f"{median_ms(lambda n: small.kernel(1.0, (0.3, 0.1))):.3f} ms")


def reservations(folder: Path) -> None:
    plain = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    plain.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a REAL)")
    reference = median_ms(lambda n: plain.execute("INSERT INTO t VALUES (1.0)"))
    plain.close()
    with Ledger.for_sample(folder, "benchmark") as ledger:
        account = DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, (30, 30), 8),
            limits=(DoseLimit("limit", "NMC622", limit_gy=1e9),),
            layer="cathode",
            material="NMC622",
            outline_um=(200, 200),
        )
        request = ExposureRequest(1.2, 3.4, 8562.0, 0.048, 1e10)
        ids: list[int] = []
        reserve_s, settle_s = [], []
        for _ in range(REPEATS):
            start = time.perf_counter()
            ids.append(account.reserve(request).id)
            middle = time.perf_counter()
            account.settle(ids[-1], open_time_s=0.048, flux_ph_s=1e10)
            reserve_s.append(middle - start)
            settle_s.append(time.perf_counter() - middle)
    line("plain SQLite commit, WAL and full sync (reference)", f"{reference:.2f} ms")
    line("durable reservation", f"{1e3 * np.median(reserve_s):.2f} ms")
    line("settlement", f"{1e3 * np.median(settle_s):.2f} ms")
    start = time.perf_counter()
    with Ledger.for_sample(folder, "benchmark") as ledger:
        sum(1 for _ in ledger.records())
    line(f"opening and reading a ledger of {2 * REPEATS} records", f"{1e3 * (time.perf_counter() - start):.1f} ms")


if __name__ == "__main__":
    deposits()
    with tempfile.TemporaryDirectory() as name:
        reservations(Path(name))
