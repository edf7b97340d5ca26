"""Follows a ledger that another process writes, and tells whether that process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from xbat_live.dose import Ledger, LedgerError
from xbat_live.dose.limits import LimitChange, read_change
from xbat_live.watchdog.decide import Promise

_COLUMNS = ("seq", "kind", "reservation", "open_time_s", "counter_s", "process_id", "run_uid", "label")
_LOOKED_BACK = 2000


class LedgerTail:
    """Open reservations and the last counter of a ledger, as they are written. Reads only, takes no lock.

    Parameters
    ----------
    path
        The ledger; it may appear later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_counter_s: float | None = None
        """The shutter's counter in the last record that charges or reserves dose, s; None when that record has none."""
        self.foreign_records = 0
        """How many records of other processes were seen."""
        self.changed_limits: dict[str, LimitChange] = {}
        """Limits that the newest run has changed while it went on, by name."""
        self._run_uid = ""
        self._promises: dict[int, Promise] = {}
        self._seq = 0
        self._ledger: Ledger | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def promise(self) -> Promise | None:
        """The newest reservation that has not ended."""
        return self._promises[max(self._promises)] if self._promises else None

    @property
    def is_there(self) -> bool:
        """Whether there is a ledger."""
        return self._ledger is not None

    def poll(self) -> bool:
        """Take up new records; return True when there were some.

        Raises
        ------
        LedgerError
            There is a file that cannot be read. The next call tries again.
        """
        ledger = self._attach()
        if ledger is None:
            return False
        try:
            rows = list(ledger.rows(_COLUMNS, after=self._seq))
        except LedgerError:
            self.close()
            raise
        for row in rows:
            self._take(row)
        return bool(rows)

    def forget(self, number: int) -> None:
        """Leave a reservation out: it stands in full, and nothing more can be done about it."""
        self._promises.pop(number, None)

    def close(self) -> None:
        """Close the file."""
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None

    def _attach(self) -> Ledger | None:
        """Return the ledger, opened anew when it is another file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self.close()
            return None
        identity = (status.st_dev, status.st_ino)
        if self._ledger is not None and identity == self._identity:
            return self._ledger
        self.close()
        if status.st_size == 0:
            return None  # it is being made
        self._ledger = ledger = Ledger(self.path, read_only=True)
        if identity != self._identity:
            self._identity, self._promises, self.last_counter_s = identity, {}, None
            newest = next(ledger.rows_backwards(("seq",), chunk=1), (0,))[0]
            self._seq = max(newest - _LOOKED_BACK, 0)  # older ones are found when the account is opened
        return ledger

    def _take(self, row: tuple) -> None:
        seq, kind, reservation, open_time_s, counter_s, process_id, run_uid, label = row
        self._seq = seq
        if run_uid and run_uid != self._run_uid:
            self._run_uid, self.changed_limits = run_uid, {}
        if kind == "note" and (change := read_change(label or "")) is not None:
            self.changed_limits = self.changed_limits | {change.name: change}
        self.foreign_records += process_id != os.getpid()
        if kind == "reserve":
            self._promises[seq] = Promise(seq, float(open_time_s or 0.0), counter_s)
        elif kind in ("settle", "void") and reservation is not None:
            self._promises.pop(reservation, None)
        if kind in ("reserve", "settle", "unreserved"):
            self.last_counter_s = counter_s


def has_writer(ledger: Path) -> bool:
    """Tell whether a process holds the writer's lock of a ledger; it is touched for microseconds only."""
    try:
        descriptor = os.open(ledger.with_name(ledger.name + ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)  # gives the lock up
    return False


def writer_in(folder: Path) -> bool:
    """Tell whether a process writes any ledger in `folder`: the beam is that one's, whatever sample it is."""
    return any(has_writer(lock.with_name(lock.name.removesuffix(".lock"))) for lock in folder.glob("*.sqlite.lock"))
