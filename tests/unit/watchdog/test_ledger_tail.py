"""Following a ledger that another process writes."""

import os
import subprocess
import sys

import pytest

from xbat_live.dose import Entry, Ledger, LedgerError
from xbat_live.watchdog.tail import LedgerTail, has_writer, writer_in

WHERE = {"x_um": 0.0, "y_um": 0.0, "energy_ev": 8562.0, "flux_ph_s": 1e10, "on_sample": True}
HOLD = "import sys, time; from xbat_live.dose import Ledger; l = Ledger(sys.argv[1]); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell.sqlite"


def test_a_ledger_that_is_not_there_yet(path):
    tail = LedgerTail(path)
    assert not tail.poll()
    assert not tail.is_there
    path.touch()  # being made
    assert not tail.poll()
    path.unlink()
    with Ledger(path) as ledger:
        ledger.append(Entry("note", note="first"))
        assert tail.poll()
    assert tail.is_there


def test_the_newest_open_reservation_and_the_last_counter(path):
    tail = LedgerTail(path)
    with Ledger(path) as ledger:
        first = ledger.append(Entry("reserve", open_time_s=0.3, counter_s=1.0, **WHERE)).seq
        second = ledger.append(Entry("reserve", open_time_s=0.5, counter_s=2.0, **WHERE)).seq
        tail.poll()
        assert (tail.promise.number, tail.promise.open_time_s, tail.promise.counter_s) == (second, 0.5, 2.0)
        ledger.append(Entry("settle", reservation=second, open_time_s=0.4, counter_s=2.4, **WHERE))
        tail.poll()
        assert (tail.promise.number, tail.last_counter_s) == (first, 2.4)
        ledger.append(Entry("void", reservation=first, note="not opened"))
        ledger.append(Entry("note", note="remark"))
        tail.poll()
        assert (tail.promise, tail.last_counter_s) == (None, 2.4)
        ledger.append(Entry("unreserved", open_time_s=1.0, **WHERE))
        tail.poll()
        assert tail.last_counter_s is None  # the last charge does not say
    assert tail.foreign_records == 0
    assert not tail.poll()


def test_records_of_other_processes_are_told_apart(path):
    write = "import sys; from xbat_live.dose import Entry, Ledger; Ledger(sys.argv[1]).append(Entry('note', note='x'))"
    subprocess.run([sys.executable, "-c", write, str(path)], check=True)
    tail = LedgerTail(path)
    tail.poll()
    assert tail.foreign_records == 1


def test_a_reservation_that_stands_in_full_can_be_left_out(path):
    with Ledger(path) as ledger:
        number = ledger.append(Entry("reserve", open_time_s=0.3, **WHERE)).seq
    tail = LedgerTail(path)
    tail.poll()
    tail.forget(number)
    assert tail.promise is None


def test_a_ledger_that_was_replaced_is_read_anew(path, tmp_path):
    tail = LedgerTail(path)
    with Ledger(path) as ledger:
        ledger.append(Entry("reserve", open_time_s=0.3, **WHERE))
        tail.poll()
        tail.close()  # as the last one, so that SQLite puts everything into the file itself
    assert tail.promise is not None
    with Ledger(tmp_path / "restored.sqlite") as ledger:
        ledger.append(Entry("note", note="from a backup"))
    os.replace(tmp_path / "restored.sqlite", path)
    assert tail.poll()
    assert tail.promise is None


def test_a_damaged_ledger_is_told_and_tried_again(path):
    path.write_bytes(b"no database at all, but long enough to be looked at " * 20)
    tail = LedgerTail(path)
    for _ in range(2):
        with pytest.raises(LedgerError):
            tail.poll()
    path.unlink()
    assert not tail.poll()


def test_whether_a_process_writes(path, tmp_path):
    assert not has_writer(path)
    assert not writer_in(tmp_path / "nowhere")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert has_writer(path)
        assert writer_in(tmp_path)
        process.kill()
        process.communicate()
    assert not has_writer(path)
    assert not writer_in(tmp_path)
    with Ledger(path):  # and looking has not taken it
        pass
