"""The ledger: every photon a sample was promised or given, append-only, durable, one file per sample."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from xbat_live.dose import schema
from xbat_live.dose.records import (
    COLUMNS,
    ENTRY_COLUMNS,
    STAMP_COLUMNS,
    Entry,
    Kind,
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerTooNew,
    Record,
    entry_values,
    record_from_row,
)
from xbat_live.dose.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from xbat_live.dose.verify import VerifyReport

logger = logging.getLogger(__name__)

_WRITTEN = (*STAMP_COLUMNS, *ENTRY_COLUMNS)
_INSERT = f"INSERT INTO records ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"
_READ_CHUNK = 20_000
_LOCK_POLL_S = 0.02
_SNAPSHOTS_KEPT = 4
_SNAPSHOTS_SINCE = 2  # schema version


class Moment(NamedTuple):
    """Wall clock, s since 1970 (may step), and monotonic clock, s, of the machine's present boot."""

    wall_s: float
    monotonic_s: float


class Ledger:
    """One sample's ledger file (SQLite, write-ahead log, full sync). One writer at a time, any number of readers.

    A file of an older schema is brought up to date when it is opened for writing, after a copy was kept beside it
    (``NAME.sqlite.v1.bak``); opened for reading it stays as it is.

    Parameters
    ----------
    path
        The file; made, with its folder, when it does not exist (not for `read_only`).
    read_only
        Open for reading; allowed while another process writes.
    wait_s
        How long to wait for another writer to end, s.
    wall, monotonic
        Clocks, s.
    boot_id
        Name of the machine's present boot, within which `monotonic` is comparable.

    Raises
    ------
    LedgerLocked
        Another process, named with its pid, writes this ledger.
    LedgerCorrupt, LedgerTooNew
        The file is damaged, is no ledger, or is newer than this program.
    LedgerError
        The file cannot be opened or made.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        read_only: bool = False,
        wait_s: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        boot_id: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self.boot_id = _boot_id() if boot_id is None else boot_id
        self._wall, self._monotonic = wall, monotonic
        self._thread_lock = threading.RLock()
        self._lock_fd: int | None = None
        self._before_close: list[Callable[[], None]] = []
        try:
            if read_only:
                if not self.path.is_file():
                    raise LedgerError(f"{self.path}: no such ledger; it is made by the first run on this sample")
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock_fd = _lock(self.path.with_name(self.path.name + ".lock"), self.path, wait_s)
            self._connection, self.schema_version = schema.connect(self.path, read_only=read_only)
        except OSError as error:
            self._release()
            raise LedgerError(f"{self.path}: the ledger cannot be opened: {error}") from error
        except BaseException:
            self._release()
            raise

    @classmethod
    def for_sample(cls, directory: Path | str, sample: str, *, read_only: bool = False, wait_s: float = 0.0) -> Ledger:
        """Open the ledger of `sample` in a folder; the name is the file's name. For `wait_s` see `Ledger`."""
        if not sample or Path(sample).name != sample or sample.startswith("."):
            raise ValueError(f"sample name {sample!r} cannot be a file name; use letters, digits and _ . + -")
        return cls(Path(directory) / f"{sample}.sqlite", read_only=read_only, wait_s=wait_s)

    def now(self) -> Moment:
        """Return the time by the ledger's clocks."""
        return Moment(self._wall(), self._monotonic())

    def append(self, entry: Entry) -> Record:
        """Write one record; it is on disk when this returns.

        Raises
        ------
        LedgerError
            Not written (disk full, read-only, a reservation that is unknown or already ended).
        """
        self._check_writable()
        with self._thread_lock:
            stamp = (self._wall(), self._monotonic(), self.boot_id, os.getpid())
            try:
                cursor = self._connection.execute(_INSERT, (*stamp, *entry_values(entry)))
            except sqlite3.IntegrityError as error:
                raise LedgerError(
                    f"{self.path}: {entry.kind} of reservation {entry.reservation} refused: {error}"
                ) from error
            except sqlite3.Error as error:
                raise LedgerError(
                    f"{self.path}: {entry.kind} not written: {error}; free the disk before exposing"
                ) from error
            return Record(int(cursor.lastrowid or 0), *stamp, entry)

    def define(self, identifier: str, kind: str, content: str, data: bytes | None = None) -> None:
        """Keep a definition that records refer to (beam profile, dose model) once; a repeat is ignored."""
        self._check_writable()
        with self._thread_lock:
            try:
                self._connection.execute(
                    "INSERT OR IGNORE INTO definitions VALUES (?, ?, ?, ?)", (identifier, kind, content, data)
                )
            except sqlite3.Error as error:
                raise LedgerError(f"{self.path}: definition of {kind} not written: {error}") from error

    def definition(self, identifier: str) -> tuple[str, bytes | None]:
        """Return content and data of a definition.

        Raises
        ------
        LedgerCorrupt
            There is none of that name.
        """
        row = self.query("SELECT content, data FROM definitions WHERE id = ?", (identifier,))
        for content, data in row:
            return str(content), data
        raise LedgerCorrupt(f"{self.path}: definition {identifier!r} is missing; restore the file from a backup")

    def records(self, after: int = 0) -> Iterator[Record]:
        """Return all records with a number above `after`, in order."""
        for row in self.rows(COLUMNS, after=after):
            yield record_from_row(row)

    def rows(self, columns: tuple[str, ...], *, after: int = 0) -> Iterator[tuple]:
        """Return the values of some columns of all records with a number above `after`, in order."""
        select = schema.select(self.schema_version, ("seq", *columns))
        while rows := self.query(f"{select} WHERE seq > ? ORDER BY seq LIMIT {_READ_CHUNK}", (after,)):
            for row in rows:
                yield row[1:]
            after = rows[-1][0]

    def rows_backwards(self, columns: tuple[str, ...], *, chunk: int = 500) -> Iterator[tuple]:
        """Return the values of some columns of all records, the last one first."""
        select = schema.select(self.schema_version, ("seq", *columns))
        before = 2**63 - 1
        while rows := self.query(f"{select} WHERE seq < ? ORDER BY seq DESC LIMIT {chunk}", (before,)):
            for row in rows:
                yield row[1:]
            before = rows[-1][0]

    def verify(self) -> VerifyReport:
        """Check the whole file and everything in it; takes about as long as reading it all. See `verify.verify`."""
        from xbat_live.dose.verify import verify

        return verify(self)

    def save_snapshot(self, key: str, seq: int, data: bytes) -> None:
        """Keep a state of an account after record `seq`, in place of an older one; a cache, never needed.

        Raises
        ------
        LedgerError
            Not written.
        """
        self._check_writable()
        with self._thread_lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(
                    "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", (key, seq, _checksum(seq, data), data)
                )
                self._connection.execute(
                    "DELETE FROM snapshots WHERE key NOT IN (SELECT key FROM snapshots ORDER BY seq DESC, key = ? DESC "
                    f"LIMIT {_SNAPSHOTS_KEPT})",
                    (key,),
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise LedgerError(f"{self.path}: snapshot not written: {error}") from error

    def snapshot(self, key: str) -> tuple[int, bytes] | None:
        """Return record number and data of a snapshot; None when there is none that can be trusted."""
        for found, seq, data in self.snapshots(key):
            if found == key and data is not None:
                return seq, data
        return None

    def snapshots(self, key: str | None = None) -> list[tuple[str, int, bytes | None]]:
        """Return key, record number and data (None: damaged) of all snapshots, or of one."""
        if self.schema_version < _SNAPSHOTS_SINCE:
            return []
        try:
            rows = self.query("SELECT key, seq, checksum, data FROM snapshots WHERE ? IS NULL OR key = ?", (key, key))
        except LedgerCorrupt:
            logger.warning("%s: the snapshots cannot be read; the ledger is read in full", self.path, exc_info=True)
            return []
        return [
            (str(name), int(seq), data if checksum == _checksum(seq, data) else None)
            for name, seq, checksum, data in rows
        ]

    def before_close(self, action: Callable[[], None]) -> None:
        """Call `action` when the ledger is closed, while it can still be written."""
        self._before_close.append(action)

    def close(self) -> None:
        """Close the file and give up the writer's lock; closing twice is fine."""
        actions, self._before_close = self._before_close, []
        for action in actions:
            try:
                action()
            except Exception:  # what is done here is for comfort; all records are on disk
                logger.exception("%s: an action before closing failed", self.path)
        with self._thread_lock:
            if self._lock_fd is not None:
                try:  # so that a copy of the file alone has all records, even while a reader keeps the write-ahead log alive
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                except sqlite3.Error as error:
                    logger.debug("%s: write-ahead log not folded in: %s", self.path, error)
            self._connection.close()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple]:
        """Return the rows of a reading statement.

        Raises
        ------
        LedgerCorrupt
            The file cannot be read there.
        """
        with self._thread_lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise LedgerCorrupt(
                    f"{self.path}: the ledger cannot be read: {error}; restore it from a backup"
                ) from error

    def _check_writable(self) -> None:
        if self.read_only:
            raise LedgerError(f"{self.path}: opened for reading only")

    def _release(self) -> None:
        if self._lock_fd is not None:
            # Closing gives the lock up; the file stays, removing it would race with the next holder.
            os.close(self._lock_fd)
            self._lock_fd = None


def _checksum(seq: int, data: bytes) -> str:
    return hashlib.sha256(b"%d:" % seq + bytes(data)).hexdigest()


def _lock(lock_path: Path, ledger_path: Path, wait_s: float) -> int:
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(_LOCK_POLL_S)
                continue
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            waited = f" after {wait_s:g} s" if wait_s > 0 else ""
            raise LedgerLocked(
                f"{ledger_path}: another process writes this sample's dose ledger{waited} ({holder}); "
                "end it, or open the ledger for reading only"
            ) from error
        except OSError:
            os.close(descriptor)
            raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


__all__ = [
    "SCHEMA_VERSION",
    "Entry",
    "Kind",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerLocked",
    "LedgerTooNew",
    "Moment",
    "Record",
]
