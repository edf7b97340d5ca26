"""A ledger written by the first release: read as it is, brought up to date with a copy kept, the map to the last bit."""

import hashlib
import json
import logging
import sqlite3

import numpy as np
import pytest

from xbat_live.dose import DoseGrid, DoseTarget, Entry, Ledger, LedgerError

SCHEMA_1 = """
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
CREATE TRIGGER records_no_update BEFORE update ON records BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER records_no_delete BEFORE delete ON records BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER definitions_no_update BEFORE update ON definitions
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER definitions_no_delete BEFORE delete ON definitions
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
PRAGMA application_id = 1480737108;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
GIVEN = [(0.0, 0.0, 0.048, 1e10), (3.3, -7.1, 0.048, 1.01e10), (-20.4, 11.9, 0.3, 0.7e10), (0.2, 0.1, 0.05, 1e10)]


@pytest.fixture
def old(tmp_path, cell):
    """Return the path of a ledger as the first release wrote it: four exposures, one void, one left open, a note."""
    path = tmp_path / "cell.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_1)
    definition = {
        "version": 1,
        "model": "attenuation",
        "layer": "cathode",
        "material": "NMC622",
        "stack": cell.stack.as_dict(),
    }
    content = json.dumps(definition, sort_keys=True)
    shape = json.dumps({"kind": "super_gaussian", "fwhm_um": [30.0, 30.0], "order": 8.0})
    model, profile = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (content, shape))
    connection.execute("INSERT INTO definitions VALUES (?, 'model', ?, NULL)", (model, content))
    connection.execute("INSERT INTO definitions VALUES (?, 'profile', ?, NULL)", (profile, shape))
    gy_cm2 = cell.stack.dose_per_fluence(8562.0, "cathode", "NMC622")

    def write(kind, reservation=None, note="", exposure=None):
        what = (None,) * 9
        if exposure is not None:
            x_um, y_um, seconds, flux_ph_s = exposure
            what = (x_um, y_um, 8562.0, seconds, flux_ph_s, 1, gy_cm2, profile, model)
        label = "primary A spot 0" if exposure else ""
        row = (1.7e9, 100.0, "some boot", 4711, kind, reservation, "run", label, note, *what)
        return connection.execute(f"INSERT INTO records VALUES (NULL, {', '.join('?' * 18)})", row).lastrowid

    for exposure in GIVEN[:3]:
        number = write("reserve", exposure=(*exposure[:2], 1.0, 2e10))
        write("settle", number, exposure=exposure)
    number = write("reserve", exposure=GIVEN[0])
    write("void", number, "not opened")
    write("note", note="a remark")
    write("unreserved", note="by hand", exposure=GIVEN[3])
    write("reserve", exposure=(40.0, 0.0, 0.3, 1e10))
    connection.commit()
    connection.close()
    return path


def as_it_was(cell):
    """Return the map as the first release added it up, and the held reservation on top."""
    grid = DoseGrid(1.0)
    held = None
    gy_cm2 = cell.stack.dose_per_fluence(8562.0, "cathode", "NMC622")
    for x_um, y_um, seconds, flux_ph_s in (*GIVEN, (40.0, 0.0, 0.3, 1e10)):
        row, column, *offset = grid.locate(x_um, y_um)
        dose = cell.beam.profile.kernel(1.0, tuple(offset)) * ((flux_ph_s * seconds) * gy_cm2)
        held = grid.place(row, column, dose.shape), dose
        if x_um < 40:
            grid.add(*held)
    window = grid.window.union(held[0])
    total = grid.patch(window)
    total[held[0].within(window)] += held[1]
    return total


def rows(path, columns="*"):
    connection = sqlite3.connect(path)
    found = connection.execute(f"SELECT {columns} FROM records ORDER BY seq").fetchall()
    connection.close()
    return found


V1_COLUMNS = (
    "seq, time_unix_s, time_monotonic_s, boot_id, process_id, kind, reservation, run_uid, label, note, x_um, y_um, "
    "energy_ev, open_time_s, flux_ph_s, on_sample, gy_cm2, profile_id, model_id"
)


def test_reading_leaves_an_old_file_as_it_is(old, cell):
    before = old.read_bytes()
    with cell.account(old.parent, read_only=True) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, as_it_was(cell))
        assert dose.ledger.schema_version == 1
        assert [record.entry.counter_s for record in dose.ledger.records()] == [None] * 11
        assert dose.ledger.verify().problems == ()
        assert len(dose.spots()) == 2
    assert old.read_bytes() == before
    assert not old.with_name("cell.sqlite.v1.bak").exists()


def test_writing_brings_it_up_to_date_and_keeps_a_copy(old, cell, caplog):
    before = rows(old)
    with caplog.at_level(logging.WARNING), cell.account(old.parent) as dose:
        assert "from schema 1 to 3" in caplog.text
        assert "another stack" not in caplog.text
        assert np.array_equal(dose.dose_map().dose_gy, as_it_was(cell))
        assert dose.summary()["records"] == {
            "reserve": 5, "settle": 3, "void": 1, "note": 1, "unreserved": 1, "prior": 0
        }  # fmt: skip
        assert dose.unsettled == (11,)
        dose.settle(11, open_time_s=0.1, flux_ph_s=1e10, counter_s=3.0)
        dose.record_prior(0, 0, (10, 10), 5.0, "elsewhere")
    assert rows(old, V1_COLUMNS)[:11] == before
    assert rows(old, "seq, counter_s, kind")[11:] == [(12, 3.0, "settle"), (13, None, "prior")]
    copy = old.with_name("cell.sqlite.v1.bak")
    assert rows(copy) == before
    with cell.account(old.parent, read_only=True) as dose:
        assert dose.ledger.schema_version == 3
        assert dose.ledger.verify().problems == ()
    with Ledger(copy, read_only=True) as ledger:
        assert ledger.schema_version == 1


@pytest.mark.parametrize("table", ["records", "definitions"])
def test_it_stays_append_only(old, cell, table):
    with cell.account(old.parent) as dose:
        with pytest.raises(LedgerError, match="settle of reservation 1 refused"):
            dose.ledger.append(Entry("settle", reservation=1))
        with pytest.raises(LedgerError, match="settle of reservation 99 refused"):
            dose.ledger.append(Entry("settle", reservation=99))
    connection = sqlite3.connect(old)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(f"DELETE FROM {table}")
    assert json.dumps(connection.execute("PRAGMA foreign_key_check").fetchall()) == "[]"
    connection.close()


def test_a_migration_that_fails_changes_nothing(old, cell, monkeypatch):
    from xbat_live.dose import schema

    before = rows(old)
    broken = (*schema._MIGRATE_FROM[1][:-1], "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patched:
        patched.setitem(schema._MIGRATE_FROM, 1, broken)
        with pytest.raises(LedgerError, match="cannot be opened"), cell.account(old.parent):
            pass
    assert rows(old) == before
    with cell.account(old.parent) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, as_it_was(cell))


def test_an_old_ledger_serves_other_targets_as_well(old, cell):
    electrolyte = DoseTarget("cathode", "electrolyte")
    with cell.account(old.parent, also=[electrolyte]) as dose:
        ratio = dose.dose_at(0, 0, electrolyte).peak_gy / dose.dose_at(0, 0).peak_gy
    factors = [cell.stack.dose_per_fluence(8562.0, "cathode", name) for name in ("electrolyte", "NMC622")]
    assert ratio == pytest.approx(factors[0] / factors[1])


def test_a_file_of_schema_2_gains_the_position_and_keeps_its_snapshots(tmp_path, cell):
    path = tmp_path / "cell.sqlite"
    with cell.account(tmp_path, snapshot_every=2) as dose:
        for x_um in (0.0, 40.0, 80.0):
            number = dose.reserve(cell.frame(x_um, 0.0)).id
            dose.settle(number, open_time_s=0.05, flux_ph_s=1e10)
        before = dose.dose_map().dose_gy
    connection = sqlite3.connect(path)
    for column in ("drift_x_um", "drift_y_um", "position_sigma_um"):
        connection.execute(f"ALTER TABLE records DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.schema_version == 2
        assert ledger.snapshots()
        assert [record.entry.drift_x_um for record in ledger.records()] == [None] * 6
    with cell.account(tmp_path) as dose:
        assert dose.ledger.schema_version == 3
        assert dose.ledger.snapshots()
        assert np.array_equal(dose.dose_map().dose_gy, before)
        assert dose.carried is None
    assert path.with_name("cell.sqlite.v2.bak").exists()
