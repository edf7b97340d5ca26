"""The ledger: durable, append-only, one writer, and honest about a damaged file."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from xbat_live.dose import Entry, Ledger, LedgerCorrupt, LedgerError, LedgerLocked, LedgerTooNew

RESERVE = Entry("reserve", x_um=1.0, y_um=2.0, energy_ev=8562.0, open_time_s=0.3, flux_ph_s=1e10, on_sample=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger" / "cell.sqlite"


def test_records_come_back_in_order_with_both_clocks(path):
    with Ledger(path, wall=lambda: 1.7e9, monotonic=lambda: 12.5) as ledger:
        first = ledger.append(RESERVE)
        ledger.append(Entry("settle", reservation=first.seq, note="done"))
    with Ledger(path, read_only=True) as ledger:
        records = list(ledger.records())
    assert [record.entry.kind for record in records] == ["reserve", "settle"]
    assert records[0].entry == RESERVE
    assert (records[0].time_unix_s, records[0].time_monotonic_s, records[0].process_id) == (1.7e9, 12.5, os.getpid())
    assert [record.seq for record in records] == [1, 2]


def test_a_stepping_wall_clock_does_not_change_the_order(path):
    wall = iter([2e9, 1e9, 3e9])
    with Ledger(path, wall=lambda: next(wall)) as ledger:
        for text in "abc":
            ledger.append(Entry("note", note=text))
        assert [record.entry.note for record in ledger.records()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET open_time_s = 0",
        "DELETE FROM records",
        "UPDATE definitions SET content = ''",
        "DELETE FROM definitions",
    ],
)
def test_nothing_can_be_changed_or_removed(path, statement):
    with Ledger(path) as ledger:
        ledger.append(RESERVE)
        ledger.define("p1", "profile", "{}")
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("pair", [("settle", "settle"), ("settle", "void"), ("void", "void")])
def test_a_reservation_ends_once(path, pair):
    with Ledger(path) as ledger:
        seq = ledger.append(RESERVE).seq
        ledger.append(Entry(pair[0], reservation=seq))
        with pytest.raises(LedgerError, match=f"{pair[1]} of reservation {seq} refused"):
            ledger.append(Entry(pair[1], reservation=seq))


def test_an_end_needs_its_reservation(path):
    with Ledger(path) as ledger, pytest.raises(LedgerError, match="settle of reservation 99 refused"):
        ledger.append(Entry("settle", reservation=99))


def test_a_second_writer_is_told_who_holds_the_ledger(path):
    with Ledger(path), pytest.raises(LedgerLocked, match=rf"another process writes .*\(pid {os.getpid()} on "):
        Ledger(path)
    Ledger(path).close()  # free again


def test_reading_is_allowed_while_another_writes(path):
    with Ledger(path) as writer:
        writer.append(RESERVE)
        with Ledger(path, read_only=True) as reader:
            assert len(list(reader.records())) == 1
            writer.append(Entry("note", note="later"))
            assert len(list(reader.records())) == 2
            with pytest.raises(LedgerError, match="reading only"):
                reader.append(RESERVE)


def test_every_commit_is_synced_to_disk(path):
    with Ledger(path) as ledger:
        connection = ledger._connection
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def newer(path):
    with Ledger(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


def garbage(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, certainly not a ledger" * 50)


def foreign(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE shopping (item TEXT)")
    connection.commit()
    connection.close()


def torn(path):
    with Ledger(path) as ledger:
        for _ in range(300):
            ledger.append(RESERVE)
    content = bytearray(path.read_bytes())
    content[8192:12288] = os.urandom(4096)
    path.write_bytes(bytes(content))


def truncated(path):
    with Ledger(path) as ledger:
        for _ in range(300):
            ledger.append(RESERVE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (newer, LedgerTooNew, "schema version 99, this program knows 3; use a newer xbat_live"),
        (garbage, LedgerCorrupt, "not a readable ledger"),
        (foreign, LedgerCorrupt, "is not a dose ledger"),
        (torn, LedgerCorrupt, "damaged|not a readable ledger"),
        (truncated, LedgerCorrupt, "damaged|not a readable ledger"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(path, damage, error, message, read_only):
    damage(path)
    with pytest.raises(error, match=f"{re.escape(str(path))}.*({message})"):
        Ledger(path, read_only=read_only)
    with pytest.raises(error):  # the lock was given back: the second error is the same, not "locked"
        Ledger(path, read_only=read_only)


def test_reading_a_ledger_that_does_not_exist(path):
    with pytest.raises(LedgerError, match="no such ledger"):
        Ledger(path, read_only=True)
    assert not path.exists()


@pytest.mark.parametrize("sample", ["", "../other", "a/b", ".hidden"])
def test_a_sample_name_stays_in_its_folder(tmp_path, sample):
    with pytest.raises(ValueError, match="cannot be a file name"):
        Ledger.for_sample(tmp_path, sample)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "cell.sqlite")


WRITER = """
import sys, time
from xbat_live.dose import Entry, Ledger
ledger = Ledger(sys.argv[1])
entry = Entry("reserve", x_um=0.0, y_um=0.0, energy_ev=8562.0, open_time_s=1.0, flux_ph_s=1e10, on_sample=True)
record = ledger.append(entry)
print(record.seq, flush=True)
time.sleep(60)
"""


def test_a_record_survives_a_kill_and_the_lock_does_not(path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline().strip() == "1"
        with pytest.raises(LedgerLocked, match=f"pid {child.pid} "):
            Ledger(path)
        child.send_signal(signal.SIGKILL)
    start = time.monotonic()
    with Ledger(path) as ledger:
        assert [record.entry.kind for record in ledger.records()] == ["reserve"]
    assert time.monotonic() - start < 60  # it does not wait for a dead holder


# -- waiting, checking, kills ------------------------------------------------------------------------------------------


def test_waiting_for_another_writer(path):
    first = Ledger(path)
    threading.Timer(0.2, first.close).start()
    with Ledger.for_sample(path.parent, path.stem, wait_s=30.0):
        with pytest.raises(LedgerLocked, match=r"after 0\.05 s"):
            Ledger(path, wait_s=0.05)
        with Ledger(path, read_only=True, wait_s=0.0) as reader:
            assert reader.verify().ok


def test_what_is_done_before_closing_may_fail(path, caplog):
    def fail():
        raise RuntimeError("no matter")

    ledger = Ledger(path)
    ledger.before_close(fail)
    ledger.close()
    ledger.close()
    assert caplog.text.count("before closing failed") == 1
    Ledger(path).close()


def rewrite(path, *statements):
    connection = sqlite3.connect(path)
    connection.executescript("DROP TRIGGER records_no_update; DROP TRIGGER records_no_delete;" + ";".join(statements))
    connection.close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("", None),
        ("DELETE FROM records WHERE seq = 4", "record 4 is missing; the next one is 5"),
        (
            "UPDATE records SET reservation = 3 WHERE seq = 2",
            r"record 2 \(settle\) ends 3, which is no open reservation",
        ),
        (
            "UPDATE records SET reservation = 4711 WHERE seq = 2",
            "records row 2 refers to a row of records that does not exist",
        ),
        ("UPDATE records SET flux_ph_s = -1 WHERE seq = 3", r"record 3 \(reserve\) holds impossible values: flux -1"),
        ("UPDATE records SET x_um = 'here' WHERE seq = 3", r"record 3 \(reserve\) holds impossible values"),
        (
            "UPDATE records SET model_id = 'gone' WHERE seq = 1",
            "record 1 refers to definition 'gone', which is missing",
        ),
        ("INSERT INTO definitions VALUES ('p', 'profile', '{}', NULL)", "beam profile 'p' cannot be read"),
    ],
)
def test_verify_finds(path, statement, problem):
    with Ledger(path) as ledger:
        ledger.append(RESERVE)
        ledger.append(replace(RESERVE, kind="settle", reservation=1))
        ledger.append(RESERVE)
        ledger.append(Entry("note", note="n"))
        ledger.append(RESERVE)
    rewrite(path, statement)
    with Ledger(path, read_only=True) as ledger:
        report = ledger.verify()
    if problem is None:
        assert (report.ok, report.records, report.unsettled, report.schema_version) == (True, 5, (3, 5), 3)
    else:
        assert re.search(problem, "\n".join(report.problems))


def test_verify_reports_damage_that_opening_does_not_look_for(path, monkeypatch):
    """Opening a long ledger does not read every page; a full check does."""
    monkeypatch.setattr("xbat_live.dose.schema.CHECK_ALL_BELOW_BYTES", 0)
    torn(path)
    with Ledger(path, read_only=True) as ledger:
        assert ledger.verify().problems


APPENDER = """
import sys
import threading
from xbat_live.dose import Entry, Ledger
ledger = Ledger(sys.argv[1])
for number in range(100000):
    entry = Entry("reserve", x_um=float(number), y_um=0.0, energy_ev=8562.0, open_time_s=1.0, flux_ph_s=1e10)
    record = ledger.append(entry)
    print(record.seq, entry.x_um, flush=True)
    if number % 5 == 0:
        ledger.save_snapshot("k", record.seq, bytes(20000))
"""


def test_killed_at_any_moment_every_acknowledged_record_is_there(path):
    acknowledged = {}
    for number in range(8):
        with subprocess.Popen([sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True) as child:
            told = [child.stdout.readline() for _ in range(3 + 7 * number)]
            child.kill()
            told += child.stdout.readlines()
        for line in told:
            if line.endswith("\n"):
                seq, x_um = line.split()
                acknowledged[int(seq)] = float(x_um)
        with Ledger(path) as ledger:
            found = {record.seq: record.entry.x_um for record in ledger.records()}
            assert acknowledged.items() <= found.items()
            assert len(found) - len(acknowledged) <= number + 1, "at most one record was written and not told, per kill"
            assert [problem for problem in ledger.verify().problems if "snapshot" not in problem] == []
