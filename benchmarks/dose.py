"""Dose: deposit of one exposure, dose-rate map, reservation on disk. Prints medians beside a plain SQLite commit of the same run."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xbat_live.dose import Beam, DoseAccount, DoseLimit, ExposureRequest, Ledger, dose_rate_report, presets
from xbat_live.dose.sample_map import SampleMap

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
    """Deposit as the account does: kernel at the place, then dose, largest rate and open time on the map."""
    rng = np.random.default_rng(1)
    measured = Beam.measured(1e10, rng.uniform(1, 2, (512, 512)), 0, pixel_size_um=1.0).profile
    at = rng.uniform(-50, 50, (REPEATS, 2))
    first, second = rng.random((512, 512)), rng.random((512, 512))
    line(
        "one addition of two 512 x 512 arrays in place (reference)",
        f"{median_ms(lambda n: first.__iadd__(second)):.2f} ms",
    )
    sample = SampleMap(1.0, None)

    def deposit(number: int) -> None:
        patch = sample.spread(measured, at[number, 0], at[number, 1], (1e-10,))
        sample.add(patch, 0.048)

    deposit(0)  # resamples the profile, once per profile
    line("deposit of one exposure, 512 x 512 profile, anywhere (<= 2 ms)", f"{median_ms(deposit):.2f} ms")
    patch = sample.spread(measured, 0.3, 0.2, (1e-10,))
    line(
        "  of which shifting the profile by parts of a pixel",
        f"{median_ms(lambda n: measured.kernel(1.0, (0.3, 0.1))):.2f} ms",
    )
    line("  of which adding to dose, rate and open time", f"{median_ms(lambda n: sample.add(patch, 0.048)):.2f} ms")
    small = Beam.gaussian(1e10, (30, 30), 8)
    line("kernel of a 30 um beam, 1 um map", f"{median_ms(lambda n: small.kernel(1.0, (0.3, 0.1))):.3f} ms")


def rate_maps() -> None:
    cube = np.broadcast_to(np.random.default_rng(2).integers(500, 1000, (748, 2048), dtype=np.uint16), (20, 748, 2048))
    beam = Beam.top_hat(1.041e12, (3280, 1210))
    energies_ev = np.linspace(8266.0, 8878.0, 20)
    start = time.perf_counter()
    dose_rate_report(cube, energies_ev, beam, presets.cell("lno_rock"), "cathode", "LiNiO2", 1.625, bin=4)
    line("dose-rate map, per image of 2048 x 748", f"{1e3 * (time.perf_counter() - start) / len(cube):.1f} ms")


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
    rate_maps()
    with tempfile.TemporaryDirectory() as name:
        reservations(Path(name))
