"""The tables of a ledger: made, checked on opening, and brought up to date."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from xbat_live.dose.records import COLUMNS, KINDS, LedgerCorrupt, LedgerError, LedgerTooNew

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 3
_APPLICATION_ID = 0x58424154  # "XBAT": tells a ledger from any other SQLite file
_COLUMNS_V1 = COLUMNS[: COLUMNS.index("model_id") + 1]
_POSITION = ("drift_x_um", "drift_y_um", "position_sigma_um")
_COLUMNS_OF = {1: _COLUMNS_V1, 2: tuple(name for name in COLUMNS if name not in _POSITION)}
CHECK_ALL_BELOW_BYTES = 32 * 2**20
"""Up to this size every page is checked on opening; beyond it that takes seconds and is left to `Ledger.verify`."""


def _records_table(name: str) -> str:
    return f"""CREATE TABLE {name} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time_unix_s REAL NOT NULL, time_monotonic_s REAL NOT NULL, boot_id TEXT NOT NULL, process_id INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ({", ".join(f"'{kind}'" for kind in KINDS)})),
    reservation INTEGER REFERENCES records (seq),
    run_uid TEXT NOT NULL, label TEXT NOT NULL, note TEXT NOT NULL,
    x_um REAL, y_um REAL, energy_ev REAL, open_time_s REAL, flux_ph_s REAL, on_sample INTEGER,
    gy_cm2 REAL, profile_id TEXT REFERENCES definitions (id), model_id TEXT REFERENCES definitions (id),
    counter_s REAL, degraded TEXT, spot INTEGER, also_gy_cm2 TEXT,
    size_x_um REAL, size_y_um REAL, prior_gy REAL, layer TEXT, material TEXT,
    drift_x_um REAL, drift_y_um REAL, position_sigma_um REAL
)"""


def _append_only(table: str) -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        for action in ("update", "delete")
    )


_DEFINITIONS = (
    "CREATE TABLE definitions (id TEXT PRIMARY KEY, kind TEXT NOT NULL, content TEXT NOT NULL, data BLOB) WITHOUT ROWID"
)
_ONE_END = "CREATE UNIQUE INDEX one_end ON records (reservation) WHERE kind IN ('settle', 'void')"
# A cache: its rows may be replaced or lost, the records say the same.
_SNAPSHOTS = (
    "CREATE TABLE snapshots (key TEXT PRIMARY KEY, seq INTEGER NOT NULL, checksum TEXT NOT NULL, data BLOB NOT NULL)"
)
_CREATE = (
    _DEFINITIONS,
    _records_table("records"),
    _ONE_END,
    _SNAPSHOTS,
    *_append_only("records"),
    *_append_only("definitions"),
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_MIGRATE_FROM = {
    1: (
        # SQLite cannot widen a CHECK constraint, so the table is copied.
        _records_table("records_new"),
        f"INSERT INTO records_new ({', '.join(_COLUMNS_V1)}) SELECT {', '.join(_COLUMNS_V1)} FROM records ORDER BY seq",
        "DROP TABLE records",
        "ALTER TABLE records_new RENAME TO records",
        _ONE_END,
        *_append_only("records"),
        _SNAPSHOTS,
        f"PRAGMA user_version = {SCHEMA_VERSION}",
    ),
    2: (
        *(f"ALTER TABLE records ADD COLUMN {name} REAL" for name in _POSITION),
        f"PRAGMA user_version = {SCHEMA_VERSION}",
    ),
}


def select(version: int, columns: tuple[str, ...]) -> str:
    """Return ``SELECT columns FROM records`` for a file of a schema version; columns it does not have are NULL.

    Raises
    ------
    ValueError
        Unknown column.
    """
    if unknown := set(columns) - set(COLUMNS):
        raise ValueError(f"the ledger has no column {', '.join(sorted(unknown))}")
    present = _COLUMNS_OF.get(version, COLUMNS)
    return f"SELECT {', '.join(name if name in present else f'NULL AS {name}' for name in columns)} FROM records"


def connect(path: Path, *, read_only: bool) -> tuple[sqlite3.Connection, int]:
    """Open a ledger file; make or migrate it unless `read_only`. The caller holds the writer's lock.

    Returns
    -------
    tuple
        Connection, and the schema version of the file.

    Raises
    ------
    LedgerCorrupt, LedgerTooNew, LedgerError
        See `Ledger`.
    """
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        return connection, _prepare(connection, path, read_only=read_only)
    except sqlite3.OperationalError as error:
        connection.close()
        raise LedgerError(f"{path}: the ledger cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LedgerCorrupt(f"{path}: not a readable ledger: {error}; restore it from a backup") from error
    except BaseException:
        connection.close()
        raise


def check_pages(connection: sqlite3.Connection, path: Path, statement: str = "quick_check(1)") -> None:
    """Check the pages of the file.

    Raises
    ------
    LedgerCorrupt
        Damaged.
    """
    with closing(connection.execute(f"PRAGMA {statement}")) as check:
        verdict = check.fetchone()[0]
    if verdict != "ok":
        raise LedgerCorrupt(f"{path}: the ledger is damaged ({verdict}); restore it from a backup")


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> int:
    version = int(_pragma(connection, "user_version"))
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and _pragma(connection, "application_id") != _APPLICATION_ID:
        raise LedgerCorrupt(f"{path}: this SQLite file is not a dose ledger; choose another file")
    if version > SCHEMA_VERSION:
        raise LedgerTooNew(
            f"{path}: written with schema version {version}, this program knows {SCHEMA_VERSION}; use a newer xbat_live"
        )
    if read_only and not tables:
        raise LedgerCorrupt(f"{path}: the ledger is empty; it was never written")
    if _pragma(connection, "page_count") * _pragma(connection, "page_size") <= CHECK_ALL_BELOW_BYTES:
        check_pages(connection, path)
    if read_only:
        return version
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        # One transaction: a process killed here leaves an empty file, which the next opening fills.
        _run(connection, _CREATE)
    elif version < SCHEMA_VERSION:
        check_pages(connection, path)
        _keep_copy(connection, path.with_name(f"{path.name}.v{version}.bak"))
        _run(connection, _MIGRATE_FROM[version])
        logger.warning(
            "%s: brought from schema %d to %d; the old file is kept beside it", path, version, SCHEMA_VERSION
        )
    connection.execute("PRAGMA foreign_keys = ON")
    return SCHEMA_VERSION


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _run(connection: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _keep_copy(connection: sqlite3.Connection, target: Path) -> None:
    """Write a copy of the whole database beside it; it is on disk, complete, before this returns."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
    for path in (part, target.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path is part:
            part.replace(target)
