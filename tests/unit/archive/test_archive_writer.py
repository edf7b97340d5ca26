"""The writer without a server: the run goes on, the backup holds everything, closing does not hang."""

import socket

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import det, motor

from xbat_live.archive import ArchiveError, ArchiveWriter
from xbat_live.archive.journal import Journal, JournalBusyError, lock_file, read_journal
from xbat_live.archive.upload import RunUpload


@pytest.fixture
def nowhere():
    """URI at which nothing listens, for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1"


@pytest.fixture
def writer(tmp_path, nowhere):
    made = ArchiveWriter(nowhere, "key", backup_directory=tmp_path / "backup")
    yield made
    made.close(timeout_s=5)


def test_run_is_complete_in_the_backup(writer, tmp_path):
    engine = RunEngine({}, context_managers=[])
    emitted = []
    engine.subscribe(lambda name, doc: emitted.append((name, doc)))
    engine.subscribe(writer)
    (uid,) = engine(bp.scan([det], motor, -1, 1, 5))
    assert writer.recorded == len(emitted)
    report = writer.close(timeout_s=10)
    assert report.runs_in_backup == (uid,)
    assert (report.recorded, report.archived, report.backlog, report.lost) == (len(emitted), 0, len(emitted), 0)
    assert not report.complete
    assert "no Tiled server answers at http://127.0.0.1" in report.last_error
    journal = list(read_journal(tmp_path / "backup" / f"{uid}.jsonl"))
    assert [name for name, _ in journal] == [name for name, _ in emitted]
    assert [doc["data"]["det"] for name, doc in journal if name == "event"] == [
        doc["data"]["det"] for name, doc in emitted if name == "event"
    ]


def test_interleaved_runs_have_a_journal_each(writer, tmp_path):
    for name, doc in [
        ("start", {"uid": "A", "time": 0.0}),
        ("start", {"uid": "B", "time": 0.0}),
        ("descriptor", {"uid": "dB", "run_start": "B"}),
        ("descriptor", {"uid": "dA", "run_start": "A"}),
        ("event", {"descriptor": "dB", "n": 1}),
        ("event", {"descriptor": "dA", "n": 2}),
        ("stop", {"run_start": "A"}),
        ("stop", {"run_start": "B"}),
    ]:
        writer(name, doc)
    assert writer.close(timeout_s=10).runs_in_backup == ("A", "B")
    for uid, number in (("A", 2), ("B", 1)):
        documents = list(read_journal(tmp_path / "backup" / f"{uid}.jsonl"))
        assert [name for name, _ in documents] == ["start", "descriptor", "event", "stop"]
        assert documents[2][1]["n"] == number


@pytest.mark.parametrize(
    ("name", "doc", "reason"),
    [
        pytest.param("event", {"descriptor": "d", "data": {"x": object()}}, "cannot be written as JSON", id="no JSON"),
        pytest.param("event", {"descriptor": "?"}, "belongs to no open run", id="of no run"),
        pytest.param("start", {"time": 1.0}, "KeyError", id="no uid"),
        pytest.param("start", {"uid": "no/such/folder"}, "FileNotFoundError", id="journal cannot be made"),
    ],
)
def test_hopeless_document_is_counted_and_hurts_nobody(writer, name, doc, reason):
    writer("start", {"uid": "A", "time": 0.0})
    writer("descriptor", {"uid": "d", "run_start": "A"})
    writer(name, doc)
    writer("stop", {"run_start": "A"})
    report = writer.close(timeout_s=10)
    assert report.lost == 1
    assert report.backlog == 3
    assert report.runs_in_backup == ("A",)


def test_reason_of_a_lost_document_is_logged(writer, caplog):
    writer("event", {"descriptor": "?", "data": {"x": np.zeros(2)}})
    writer.close(timeout_s=10)
    assert "a document (event) is not in the backup: LookupError" in caplog.text


def test_documents_after_close_do_not_raise(writer):
    writer.close(timeout_s=5)
    writer("start", {"uid": "late", "time": 0.0})
    assert writer.last_error == "a document (start) came after close() and is not archived"


def test_journal_is_locked_during_the_run_and_free_after_close(writer, tmp_path):
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    path = tmp_path / "backup"
    busy = []

    def plan():
        uid = yield from bps.open_run()
        while not (path / f"{uid}.jsonl").exists():
            yield from bps.sleep(0.01)
        with pytest.raises(JournalBusyError):
            lock_file(path / f"{uid}.jsonl")
        busy.append(uid)
        yield from bps.close_run()

    engine(plan())
    writer.close(timeout_s=10)
    assert lock_file(path / f"{busy[0]}.jsonl") >= 0


def test_backup_directory_is_probed_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"backup directory .*file/backup: cannot be written .*free the disk"):
        ArchiveWriter("http://127.0.0.1:9", backup_directory=tmp_path / "file" / "backup")


def test_progress_is_told_while_closing(writer):
    writer("start", {"uid": "A", "time": 0.0})
    seen = []
    writer.close(timeout_s=10, progress=seen.append)
    assert seen[-1] == 1


def test_documents_count_as_archived_when_tiled_has_them_and_not_before(tmp_path, monkeypatch):
    """`backlog == 0` is what readers of a run under way, and its end, go by."""
    journal = Journal(tmp_path, "run")
    RunEngine({}, context_managers=[])(
        bp.count([det]), lambda name, doc: journal.append(name, doc) if name != "stop" else None
    )
    journal.release()
    upload, seen = RunUpload("run", journal.path), []

    class Writer:
        def __init__(self, client):
            pass

        def __call__(self, name, doc):
            seen.append((name, upload.sent))

        def flush(self):
            seen.append(("flush", upload.sent))

    monkeypatch.setattr("xbat_live.archive.upload.RunWriter", Writer)
    assert upload.advance({}, recorded=3, limit=2) == 2
    assert upload.sent == 2
    assert upload.advance({}, recorded=3, limit=2) == 1
    assert upload.sent == 3
    assert seen == [("start", 0), ("descriptor", 0), ("flush", 0), ("event", 2), ("flush", 2)]
