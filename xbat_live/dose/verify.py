"""A full check of a ledger: the file, the records, and that snapshots say what the records say."""

from __future__ import annotations

import math
import sqlite3
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xbat_live.dose.exposure import ExposureRequest
from xbat_live.dose.profiles import profile_from_record
from xbat_live.dose.records import KINDS, LedgerCorrupt
from xbat_live.dose.schema import check_pages

if TYPE_CHECKING:
    from xbat_live.dose.ledger import Ledger

_PROBLEMS_TOLD = 100
_EXPOSED = ("x_um", "y_um", "energy_ev", "open_time_s", "flux_ph_s", "run_uid", "label", "on_sample", "spot")
_COLUMNS = ("seq", "kind", "reservation", "prior_gy", "profile_id", "model_id", *_EXPOSED)


@dataclass(frozen=True)
class VerifyReport:
    """What a full check of a ledger found.

    Attributes
    ----------
    records
        Number of records.
    problems
        What is wrong, in words; empty when all is well. At most the first hundred.
    unsettled
        Record numbers of reservations that have not ended. No problem: they count in full.
    snapshots
        Number of snapshots that were compared with a full replay, bit by bit.
    schema_version
        Of the file.
    """

    records: int
    problems: tuple[str, ...]
    unsettled: tuple[int, ...]
    snapshots: int
    schema_version: int

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def verify(ledger: Ledger) -> VerifyReport:
    """Check every page, every record and every snapshot of a ledger.

    Checked are: SQLite's integrity and foreign keys; that record numbers have no gap; that kinds are known; that every
    end has its reservation, once and after it; that values are possible; that definitions exist and can be read; and
    that each snapshot equals the replay of all records up to it, bit by bit.

    Parameters
    ----------
    ledger
        An open ledger, for reading or writing.

    Returns
    -------
    VerifyReport
        Never raises for damage; it is in the report.
    """
    problems: list[str] = []
    records, compared = 0, 0
    unsettled: tuple[int, ...] = ()
    try:
        check_pages(ledger._connection, ledger.path, "integrity_check(1)")  # noqa: SLF001
        for table, row, parent, _ in ledger.query("PRAGMA foreign_key_check"):
            problems.append(f"{table} row {row} refers to a row of {parent} that does not exist")
        records, unsettled = _check_records(ledger, problems)
        compared = _check_snapshots(ledger, problems)
    except (LedgerCorrupt, sqlite3.DatabaseError) as error:
        problems.append(str(error))
    return VerifyReport(records, tuple(problems[:_PROBLEMS_TOLD]), unsettled, compared, ledger.schema_version)


def _check_records(ledger: Ledger, problems: list[str]) -> tuple[int, tuple[int, ...]]:
    definitions = {str(row[0]) for row in ledger.query("SELECT id FROM definitions")}
    open_numbers: dict[int, None] = {}
    count = 0
    for row in ledger.rows(_COLUMNS):
        seq, kind, reservation, prior_gy, profile_id, model_id = row[:6]
        count += 1
        if seq != count:
            problems.append(f"record {count} is missing; the next one is {seq}")
            count = seq
        if kind not in KINDS:
            problems.append(f"record {seq} is of unknown kind {kind!r}")
        if kind in ("settle", "void"):
            if reservation not in open_numbers:
                problems.append(f"record {seq} ({kind}) ends {reservation}, which is no open reservation")
            open_numbers.pop(reservation, None)
        if kind == "reserve":
            open_numbers[seq] = None
        if kind in ("reserve", "settle", "unreserved"):
            try:
                ExposureRequest(*row[6:])
            except (TypeError, ValueError) as error:
                problems.append(f"record {seq} ({kind}) holds impossible values: {error}")
        if kind == "prior" and not (isinstance(prior_gy, float) and 0 < prior_gy < math.inf):
            problems.append(f"record {seq} (prior) holds an impossible dose of {prior_gy} Gy")
        problems.extend(
            f"record {seq} refers to definition {name!r}, which is missing"
            for name in (profile_id, model_id)
            if name is not None and name not in definitions
        )
    for name, kind, content, data in ledger.query("SELECT id, kind, content, data FROM definitions"):
        if kind == "profile":
            try:
                profile_from_record(content, data)
            except Exception as error:
                problems.append(f"beam profile {name!r} cannot be read: {error}")
    return count, tuple(open_numbers)


def _check_snapshots(ledger: Ledger, problems: list[str]) -> int:
    from xbat_live.dose.replay import Reader
    from xbat_live.dose.snapshots import pack, settings_of, unpack

    compared = 0
    for key, seq, data in ledger.snapshots():
        if data is None:
            problems.append(f"the snapshot of record {seq} is damaged; it is not used and may be deleted")
            continue
        try:
            settings = settings_of(data)
            if settings.key != key:
                continue  # made with other cross sections than those of this installation; never used here
            reader = Reader(ledger, settings.tracks)
            replayed = settings.empty()
            reader.replay(replayed, up_to=seq)
            same = pack(settings, unpack(data, settings, reader)) == pack(settings, replayed)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            problems.append(f"the snapshot of record {seq} cannot be read: {error}")
            continue
        compared += 1
        if not same:
            problems.append(f"the snapshot of record {seq} is not what the records up to it add up to")
    return compared
