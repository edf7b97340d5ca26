"""Ledger: reservation and settlement on disk beside a plain SQLite commit, opening a ledger of 1,000,000 records, file size.

Records of the long ledger: frames of one spot after another, each displaced by its own jitter (no two alike, so that no
beam kernel can be used twice), reserved and settled.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseTarget, ExposureRequest, Ledger, presets
from xbat_live.dose.account import SNAPSHOT_EVERY
from xbat_live.dose.records import ENTRY_COLUMNS, STAMP_COLUMNS, entry_values

REPEATS = 300
ALSO = (DoseTarget("cathode", "electrolyte"),)
LIMITS = (
    DoseLimit("dose", "NMC622", limit_gy=1e12),
    DoseLimit("rate", "NMC622", rate_gy_s=1e9),
    DoseLimit("mean rate", "NMC622", rate_gy_s=1e9, window_s=60.0),
)


def line(what: str, value: str) -> None:
    sys.stdout.write(f"{what:<72} {value}\n")


@contextmanager
def account(folder: Path, name: str, *, read_only: bool = False, several: bool = False) -> Iterator[DoseAccount]:
    extra = (DoseLimit("electrolyte", "electrolyte", limit_gy=1e12),) if several else ()
    with Ledger.for_sample(folder, name, read_only=read_only) as ledger:
        yield DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, (30, 30), 8),
            limits=LIMITS + extra if several else LIMITS[:1],
            layer="cathode",
            material="NMC622",
            outline_um=(200, 200),
            also=ALSO if several else (),
        )


def reservations(folder: Path) -> None:
    plain = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    plain.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a REAL)")
    rng = np.random.default_rng(1)
    for several in (False, True):
        what = "two targets, three kinds of limits" if several else "one target, one limit"
        commit_s, reserve_s, settle_s = [], [], []
        with account(folder, f"benchmark{several:d}", several=several) as dose:
            for x_um, y_um in rng.uniform(-50, 50, (REPEATS, 2)):
                request = ExposureRequest(x_um, y_um, 8562.0, 0.048, 1e10)
                times = [time.perf_counter()]
                plain.execute("INSERT INTO t VALUES (1.0)")
                times.append(time.perf_counter())
                reservation = dose.reserve(request)
                times.append(time.perf_counter())
                dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
                times.append(time.perf_counter())
                for kept, took in zip((commit_s, reserve_s, settle_s), np.diff(times), strict=True):
                    kept.append(took)
        reference, reserve, settle = (1e3 * float(np.median(kept)) for kept in (commit_s, reserve_s, settle_s))
        line(f"durable reservation, {what} (plain commit)", f"{reserve:.2f} ms ({reference:.2f} ms)")
        line("  settlement", f"{settle:.2f} ms")


def write_records(folder: Path, name: str, count: int) -> None:
    """Add `count` records as an account writes them, but in one transaction."""
    with account(folder, name) as dose:
        reservation = dose.reserve(ExposureRequest(0.0, 0.0, 8562.0, 0.298, 1e10, run_uid="r", label="A spot 0"))
        dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
    with Ledger.for_sample(folder, name, read_only=True) as ledger:
        entries = list(islice((record.entry for record in ledger.records()), 2))
    rng = np.random.default_rng(2)
    x_um, y_um = rng.uniform(-0.5, 0.5, (2, count // 2))

    def rows(first: int) -> Iterator[tuple]:
        for number in range(count // 2):
            spot = number * 24 // (count // 2)
            at = {"x_um": 34.0 * (spot % 5 - 2) + x_um[number], "y_um": 34.0 * (spot // 5 - 2) + y_um[number]}
            time_s = -1e7 + number
            for reservation in (None, first + 2 * number):
                entry = entries[reservation is not None]
                told = replace(entry, **at, spot=spot, label=f"A spot {spot}", reservation=reservation)
                yield (1e9 + time_s, time_s, "an earlier boot", 1, *entry_values(told))

    columns = (*STAMP_COLUMNS, *ENTRY_COLUMNS)
    connection = sqlite3.connect(folder / f"{name}.sqlite")
    first = 1 + connection.execute("SELECT max(seq) FROM records").fetchone()[0]
    insert = f"INSERT INTO records ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    connection.executemany(insert, rows(first))
    connection.commit()
    connection.close()


def opening(folder: Path, count: int) -> None:
    name = "long"
    write_records(folder, name, count)
    size = (folder / f"{name}.sqlite").stat().st_size
    line(f"file of {count:,} records", f"{size / 2**20:.0f} MiB, {size / count:.0f} bytes per record")
    maps = []
    for what in ("first opening, full replay", "opening from a snapshot"):
        start = time.perf_counter()
        with account(folder, name) as dose:
            line(f"  {what}", f"{time.perf_counter() - start:.2f} s")
            maps.append(dose.dose_map().dose_gy)
            start = time.perf_counter()
        if "full" in what:
            line("  closing, with a snapshot", f"{1e3 * (time.perf_counter() - start):.0f} ms")
    line("  map bit-identical", str(bool(np.array_equal(*maps))))
    write_records(folder, name, SNAPSHOT_EVERY)
    start = time.perf_counter()
    with account(folder, name, read_only=True):
        line(
            f"  opening from a snapshot {SNAPSHOT_EVERY:,} records ago (the longest way)",
            f"{time.perf_counter() - start:.2f} s",
        )
    with Ledger.for_sample(folder, name, read_only=True) as ledger:
        start = time.perf_counter()
        report = ledger.verify()
        took = time.perf_counter() - start
        line(f"  verify, {report.snapshots} snapshot replayed, {len(report.problems)} problems", f"{took:.1f} s")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        reservations(Path(temporary))
        opening(Path(temporary), options.records)
