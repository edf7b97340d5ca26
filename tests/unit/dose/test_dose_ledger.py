"""The ledger: durable, append-only, one writer, and honest about a damaged file."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

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
        (newer, LedgerTooNew, "schema version 99, this program knows 1; use a newer xbat_live"),
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
