"""The ledger: every photon a sample was promised or given, append-only, durable, one file per sample."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x58424154  # "XBAT": tells a ledger from any other SQLite file

Kind = Literal["reserve", "settle", "void", "note", "unreserved"]

_SCHEMA = """
CREATE TABLE definitions (id TEXT PRIMARY KEY, kind TEXT NOT NULL, content TEXT NOT NULL, data BLOB) WITHOUT ROWID;
CREATE TABLE records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time_unix_s REAL NOT NULL, time_monotonic_s REAL NOT NULL, boot_id TEXT NOT NULL, process_id INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'settle', 'void', 'note', 'unreserved')),
    reservation INTEGER REFERENCES records (seq),
    run_uid TEXT NOT NULL, label TEXT NOT NULL, note TEXT NOT NULL,
    x_um REAL, y_um REAL, energy_ev REAL, open_time_s REAL, flux_ph_s REAL, on_sample INTEGER,
    gy_cm2 REAL, profile_id TEXT REFERENCES definitions (id), model_id TEXT REFERENCES definitions (id)
);
CREATE UNIQUE INDEX one_end ON records (reservation) WHERE kind IN ('settle', 'void');
""" + "".join(
    f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;\n"
    for table in ("records", "definitions")
    for action in ("update", "delete")
)


class LedgerError(Exception):
    """The ledger cannot be read or written; no exposure may follow."""


class LedgerLocked(LedgerError):  # noqa: N818
    """Another process writes this sample's ledger."""


class LedgerCorrupt(LedgerError):  # noqa: N818
    """The file is damaged, or no ledger at all."""


class LedgerTooNew(LedgerError):  # noqa: N818
    """The file was written by a newer version of xbat_live."""


@dataclass(frozen=True)
class Entry:
    """What is written in one record; columns that a kind does not need stay None.

    Attributes
    ----------
    kind
        ``reserve`` before an exposure; ``settle`` and ``void`` end a reservation; ``unreserved`` dose given without
        one; ``note``.
    reservation
        Record number of the reservation that is ended.
    run_uid, label, note
        Run, what the exposure was for, and a reason in words.
    x_um, y_um
        Sample coordinate under the beam's centre, um.
    energy_ev, open_time_s, flux_ph_s
        Photon energy, eV; shutter-open time, s; flux on the sample, photons/s.
    on_sample
        False for exposures beside the sample.
    gy_cm2
        Dose per fluence used, Gy cm2 per photon.
    profile_id, model_id
        Definitions of beam profile and dose model (see `Ledger.define`).
    """

    kind: Kind
    reservation: int | None = None
    run_uid: str = ""
    label: str = ""
    note: str = ""
    x_um: float | None = None
    y_um: float | None = None
    energy_ev: float | None = None
    open_time_s: float | None = None
    flux_ph_s: float | None = None
    on_sample: bool | None = None
    gy_cm2: float | None = None
    profile_id: str | None = None
    model_id: str | None = None


@dataclass(frozen=True)
class Record:
    """An entry as it stands in the ledger.

    Attributes
    ----------
    seq
        Record number; the order of all deposits.
    time_unix_s
        Wall clock, s since 1970; may step.
    time_monotonic_s, boot_id
        Monotonic clock, s, comparable within one `boot_id`.
    process_id
        Process that wrote it.
    entry
        Its content.
    """

    seq: int
    time_unix_s: float
    time_monotonic_s: float
    boot_id: str
    process_id: int
    entry: Entry


_ENTRY_COLUMNS = tuple(field.name for field in fields(Entry))
_INSERT = (
    f"INSERT INTO records (time_unix_s, time_monotonic_s, boot_id, process_id, {', '.join(_ENTRY_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (4 + len(_ENTRY_COLUMNS)))})"
)
_READ_CHUNK = 20_000
_SELECT = f"SELECT seq, time_unix_s, time_monotonic_s, boot_id, process_id, {', '.join(_ENTRY_COLUMNS)} FROM records"


class Ledger:
    """One sample's ledger file (SQLite, write-ahead log, full sync). One writer at a time, any number of readers.

    Parameters
    ----------
    path
        The file; made, with its folder, when it does not exist (not for `read_only`).
    read_only
        Open for reading; allowed while another process writes.
    wall, monotonic
        Clocks, s.

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
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._wall, self._monotonic = wall, monotonic
        self._boot_id = _boot_id()
        self._thread_lock = threading.RLock()
        self._lock_fd: int | None = None
        try:
            if read_only:
                if not self.path.is_file():
                    raise LedgerError(f"{self.path}: no such ledger; it is made by the first run on this sample")
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock_fd = _lock(self.path.with_name(self.path.name + ".lock"), self.path)
            self._connection = self._connect()
        except OSError as error:
            self._release()
            raise LedgerError(f"{self.path}: the ledger cannot be opened: {error}") from error
        except BaseException:
            self._release()
            raise

    @classmethod
    def for_sample(cls, directory: Path | str, sample: str, *, read_only: bool = False) -> Ledger:
        """Open the ledger of `sample` in a folder; the name is the file's name."""
        if not sample or Path(sample).name != sample or sample.startswith("."):
            raise ValueError(f"sample name {sample!r} cannot be a file name; use letters, digits and _ . + -")
        return cls(Path(directory) / f"{sample}.sqlite", read_only=read_only)

    def append(self, entry: Entry) -> Record:
        """Write one record; it is on disk when this returns.

        Raises
        ------
        LedgerError
            Not written (disk full, read-only, a reservation that is unknown or already ended).
        """
        if self.read_only:
            raise LedgerError(f"{self.path}: opened for reading only")
        stamp = (self._wall(), self._monotonic(), self._boot_id, os.getpid())
        with self._thread_lock:
            try:
                cursor = self._connection.execute(_INSERT, (*stamp, *astuple(entry)))
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
        if self.read_only:
            raise LedgerError(f"{self.path}: opened for reading only")
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
        row = self._read("SELECT content, data FROM definitions WHERE id = ?", (identifier,))
        for content, data in row:
            return str(content), data
        raise LedgerCorrupt(f"{self.path}: definition {identifier!r} is missing; restore the file from a backup")

    def records(self, after: int = 0) -> Iterator[Record]:
        """Return all records with a number above `after`, in order."""
        while rows := self._read(f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT {_READ_CHUNK}", (after,)):
            for row in rows:
                columns = dict(zip(_ENTRY_COLUMNS, row[5:], strict=True))
                if columns["on_sample"] is not None:
                    columns["on_sample"] = bool(columns["on_sample"])
                yield Record(row[0], row[1], row[2], row[3], row[4], Entry(**columns))
            after = rows[-1][0]

    def close(self) -> None:
        """Close the file and give up the writer's lock; closing twice is fine."""
        with self._thread_lock:
            self._connection.close()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, statement: str, values: tuple[object, ...]) -> list[tuple]:
        with self._thread_lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise LedgerCorrupt(
                    f"{self.path}: the ledger cannot be read: {error}; restore it from a backup"
                ) from error

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode={'ro' if self.read_only else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if tables and application != _APPLICATION_ID:
                raise LedgerCorrupt(f"{self.path}: this SQLite file is not a dose ledger; choose another file")
            if version > SCHEMA_VERSION:
                raise LedgerTooNew(
                    f"{self.path}: written with schema version {version}, this program knows {SCHEMA_VERSION}; "
                    "use a newer xbat_live"
                )
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                if not tables:
                    _create(connection)
            elif not tables:
                raise LedgerCorrupt(f"{self.path}: the ledger is empty; it was never written")
            with closing(connection.execute("PRAGMA quick_check(1)")) as check:
                verdict = check.fetchone()[0]
            if verdict != "ok":
                raise LedgerCorrupt(f"{self.path}: the ledger is damaged ({verdict}); restore it from a backup")
        except sqlite3.OperationalError as error:
            connection.close()
            raise LedgerError(f"{self.path}: the ledger cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise LedgerCorrupt(f"{self.path}: not a readable ledger: {error}; restore it from a backup") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _release(self) -> None:
        if self._lock_fd is not None:
            os.close(
                self._lock_fd
            )  # closing gives the lock up; the file stays, removing it would race with the next holder
            self._lock_fd = None


def _create(connection: sqlite3.Connection) -> None:
    # One transaction: a process killed here leaves an empty file, which the next opening fills.
    pragmas = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {pragmas} COMMIT;")


def _lock(lock_path: Path, ledger_path: Path) -> int:
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise LedgerLocked(
            f"{ledger_path}: another process writes this sample's dose ledger ({holder}); "
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
