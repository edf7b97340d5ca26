"""Journals: what was appended is read back, whatever crashed meanwhile."""

import fcntl
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.archive.journal import Journal, JournalBusyError, RunRouting, lock_file, read_journal

START = {"uid": "run", "time": 1.0}


def written(tmp_path, *documents):
    journal = Journal(tmp_path, "run")
    for name, doc in documents:
        journal.append(name, doc)
    journal.release()
    return journal.path


@pytest.mark.parametrize(
    ("value", "read"),
    [
        pytest.param(np.arange(3), [0, 1, 2], id="waveform"),
        pytest.param(np.zeros((2, 1)), [[0.0], [0.0]], id="image"),
        pytest.param(np.int64(7), 7, id="integer: bluesky's own backup loses the run here"),
        pytest.param(np.float32(0.5), 0.5, id="float32"),
        pytest.param(np.bool_(True), True, id="bool"),
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param({"b", "a"}, ["a", "b"], id="set"),
        pytest.param(None, None, id="none"),
        pytest.param("µm ×", "µm ×", id="text beyond ASCII"),
    ],
)
def test_values_survive(tmp_path, value, read):
    path = written(tmp_path, ("start", START), ("event", {"data": {"x": value}}))
    assert list(read_journal(path)) == [("start", START), ("event", {"data": {"x": read}})]


@given(values=st.lists(st.floats(allow_nan=False) | st.integers() | st.text() | st.booleans()))
def test_json_values_survive_exactly(values, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("journal"), ("start", {"values": values}))
    ((_, doc),) = read_journal(path)
    assert doc == {"values": values}


def test_nan_survives(tmp_path):
    ((_, doc),) = read_journal(written(tmp_path, ("start", {"x": float("nan")})))
    assert np.isnan(doc["x"])


def test_document_json_cannot_hold_leaves_no_trace(tmp_path):
    journal = Journal(tmp_path, "run")
    journal.append("start", START)
    with pytest.raises(TypeError, match="object"):
        journal.append("event", {"data": {"x": object()}})
    journal.append("stop", {"run_start": "run"})
    journal.release()
    assert [name for name, _ in read_journal(journal.path)] == ["start", "stop"]
    assert journal.recorded == 2
    assert journal.complete


def test_write_that_fails_halfway_leaves_no_half_line(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "run")
    journal.append("start", START)
    write = os.write
    with monkeypatch.context() as patched:

        def half_then_full(descriptor, data):
            if len(data) > 10:
                return write(descriptor, data[:10])
            raise OSError(28, "No space left on device")

        patched.setattr(os, "write", half_then_full)
        with pytest.raises(OSError, match="No space left"):
            journal.append("event", {"x": "y" * 2})
    journal.append("stop", {"run_start": "run"})
    journal.release()
    assert [name for name, _ in read_journal(journal.path)] == ["start", "stop"]


def test_line_cut_off_by_a_crash_is_left_out(tmp_path, caplog):
    path = written(tmp_path, ("start", START), ("event", {"a": 1}))
    path.write_bytes(path.read_bytes()[:-4])
    assert list(read_journal(path)) == [("start", START)]
    assert "line 2 is cut off" in caplog.text


def test_damage_in_the_middle_is_no_crash_and_is_told(tmp_path):
    path = written(tmp_path, ("start", START), ("event", {"a": 1}), ("stop", {}))
    path.write_bytes(path.read_bytes().replace(b'"event"', b'"eve\x00t}'))
    with pytest.raises(ValueError, match="line 2 is no document"):
        list(read_journal(path))


def test_journal_being_written_is_locked_until_released(tmp_path):
    journal = Journal(tmp_path, "run")
    with pytest.raises(JournalBusyError, match="is being written"):
        lock_file(journal.path)
    journal.release()
    os.close(lock_file(journal.path))


def test_format_is_that_of_blueskys_own_backup(tmp_path):
    from bluesky_tiled_plugins.writing._json_writer import JSONLinesWriter

    theirs = JSONLinesWriter(str(tmp_path), "theirs.jsonl")
    theirs("start", START)
    ours = written(tmp_path, ("start", START))
    assert json.loads(ours.read_text()) == json.loads((tmp_path / "theirs.jsonl").read_text())


DOCUMENTS = [
    # name, document, run it belongs to, why
    ("start", {"uid": "A"}, "A", "opens A"),
    ("start", {"uid": "B"}, "B", "a run within a run"),
    ("descriptor", {"uid": "dA", "run_start": "A"}, "A", "says so"),
    ("event", {"descriptor": "dA"}, "A", "by its descriptor"),
    ("event_page", {"descriptor": "dA"}, "A", "by its descriptor"),
    ("resource", {"uid": "rA", "run_start": "A"}, "A", "says so"),
    ("resource", {"uid": "rB"}, "B", "says nothing: the latest open run"),
    ("datum", {"resource": "rA", "datum_id": "rA/1"}, "A", "by its resource"),
    ("datum_page", {"resource": "rB"}, "B", "by its resource"),
    ("stream_resource", {"uid": "sA", "run_start": "A"}, "A", "says so"),
    ("stream_datum", {"descriptor": "dA", "stream_resource": "sA"}, "A", "by its descriptor"),
    ("stop", {"run_start": "B"}, "B", "closes B"),
    ("resource", {"uid": "r2"}, "A", "only A is open"),
    ("datum", {"resource": "rB"}, None, "B is closed, its resources are forgotten"),
    ("stop", {"run_start": "A"}, "A", "closes A"),
    ("event", {"descriptor": "dA"}, None, "nothing is open"),
    ("resource", {"uid": "r3"}, None, "nothing is open"),
]


def test_documents_find_their_run():
    routing = RunRouting()
    for name, doc, run, reason in DOCUMENTS:
        assert routing.run_uid(name, doc) == run, reason


def test_a_new_journal_is_never_seen_unlocked(tmp_path, monkeypatch):
    """A repair that looks at any moment while it is made finds none, or one that is busy; else it would take the run's documents."""
    found = []

    def look(*_):
        for path in tmp_path.glob("*.jsonl"):
            with pytest.raises(JournalBusyError):
                lock_file(path)
            found.append(path.name)

    flock = fcntl.flock

    def flock_watched(*arguments):
        look()
        flock(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("xbat_live.archive.journal.fcntl.flock", flock_watched)
        journal = Journal(tmp_path, "run")
    assert found == []
    look()
    assert found == ["run.jsonl"]
    journal.release()


def test_a_second_writer_that_saw_no_file_yet_does_not_take_the_first_ones_place(tmp_path, monkeypatch):
    """Between looking and making: the second journal was once renamed over the first, whose documents then were nowhere."""
    first = Journal(tmp_path, "run")
    first.append("start", START)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    with pytest.raises(JournalBusyError, match="is being written"):
        Journal(tmp_path, "run")
    first.append("stop", {"run_start": "run"})
    first.release()
    assert [name for name, _ in read_journal(first.path)] == ["start", "stop"]
    assert list(tmp_path.iterdir()) == [first.path]
