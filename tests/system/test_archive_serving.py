"""What a run is when it comes back from Tiled: the same frames, the same values, valid documents."""

import json
import os
import re
import sys
import time
import uuid
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, Signal
from ophyd.sim import motor

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from archive_fixtures import (
    FileCamera,
    client,
    frame_plan,
    frames_directory,
    frames_of_events,
    free_port,
    tiled_server,
    wait_for,
)

from xbat_live.archive import (
    ArchiveError,
    ArchiveWriter,
    StoredArray,
    TiledServer,
    connect,
    open_run,
    repair,
    store_analysis,
)
from xbat_live.archive.search import Criteria, search_runs
from xbat_live.archive.upload import RunWriter
from xbat_live.exchange.export import export_run

__all__ = ["client", "frames_directory", "tiled_server"]
pytestmark = pytest.mark.system


class Record(Device):
    """Stands for the soft devices of verdicts and decisions."""

    number = Component(Signal, value=1)
    reason = Component(Signal, value="blurred by 7 px")
    drift = Component(Signal, value=np.array([0.1, 0.2]))


@pytest.fixture
def camera(frames_directory):
    return FileCamera(frames_directory)


def archive(tiled_server, tmp_path, *plans):
    """Run plans with the archive on; return the uids."""
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "backup")
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    uids = [engine(plan)[0] for plan in plans]
    report = writer.close(timeout_s=60)
    assert report.complete, report
    assert list((tmp_path / "backup").iterdir()) == [], "nothing is left in the backup of a complete archive"
    return uids


SEQUENCES = [
    pytest.param("dark dark flat primary primary flat primary primary flat primary", id="streams interleave"),
    pytest.param(
        "flat primary primary! primary flat! flat primary! dark primary", id="orphans between: a rewound point"
    ),
    pytest.param("primary! flat! dark! primary flat dark", id="orphans first"),
    pytest.param("primary flat dark primary! flat! dark!", id="orphans last: an aborted exposure"),
    pytest.param("primary primary! primary! primary primary", id="two orphans in a row"),
]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_every_event_gets_its_own_frame_bit_for_bit(sequence, tiled_server, client, camera, tmp_path):
    sequence = sequence.split()
    (uid,) = archive(tiled_server, tmp_path, frame_plan(camera, sequence, readables=[motor]))
    run = open_run(client, uid)
    for stream in run.streams:
        frames = run.frame_stack(stream, direct=False)
        expected = frames_of_events(camera.path, sequence, stream)
        assert frames.dtype == np.uint16
        np.testing.assert_array_equal(frames[:], expected)
        assert run.frame_stack(stream).file == camera.path, "the file is here: it is read without Tiled"
        np.testing.assert_array_equal(run.frame_stack(stream)[:], expected)
        for index, frame in enumerate(expected):
            np.testing.assert_array_equal(frames[index], frame)
        assert len(run.events(stream)) == len(expected)
        assert run.client[stream].base["cam_image"].chunks[0] == (1,) * len(expected), "one frame is read for one frame"
        assert len(run.client[stream].read()["cam_image"]) == len(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the validation warns of what it would mend
        assert run.client.validate(fix_errors=False, raise_on_error=True)
        assert run.client.validate()
    names = [name for name, _ in run.client.documents()]
    assert (names[0], names[-1]) == ("start", "stop")
    assert names.count("event") == sum(not entry.endswith("!") for entry in sequence)
    np.testing.assert_array_equal(
        open_run(client, uid).frame_stack("primary", direct=False)[:],
        frames_of_events(camera.path, sequence, "primary"),
    )


def test_the_run_in_tiled_does_not_depend_on_how_many_documents_went_together(tiled_server, client, camera):
    """One by one, a few, all: the same run, for fewer requests; one per document is why an archive fell behind its run."""
    sequence = "dark flat primary primary! primary flat! flat primary primary dark primary primary".split()
    documents: list[str] = []
    RunEngine({}, context_managers=[])(frame_plan(camera, sequence), lambda *item: documents.append(json.dumps(item)))
    requests = {}
    for together in (1, 5, len(documents)):
        sent = []
        client.context.http_client.event_hooks["request"].append(sent.append)
        writer = RunWriter(client)
        for number, item in enumerate(_other_uids(documents, str(together)), start=1):
            writer(*json.loads(item))
            if number % together == 0 and number < len(documents):
                writer.flush()
        client.context.http_client.event_hooks["request"].remove(sent.append)
        requests[together] = len(sent)
        run = open_run(client, "last")
        for stream in ("primary", "flat", "dark"):
            expected = frames_of_events(camera.path, sequence, stream)
            np.testing.assert_array_equal(run.frame_stack(stream, direct=False)[:], expected)
            assert list(run.events(stream)["seq_num"]) == list(range(1, len(expected) + 1))
        assert run.client.validate(fix_errors=False, raise_on_error=True)
    assert requests[len(documents)] < requests[5] < requests[1]


def _other_uids(documents, seed):
    """The documents of another run that was the same."""

    def other(found):
        return str(uuid.uuid5(uuid.NAMESPACE_OID, seed + found[0]))

    return [re.sub(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", other, document) for document in documents]


def test_frames_can_be_read_while_the_run_goes_on(tiled_server, client, camera, tmp_path):
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "backup")
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    seen = []

    def look():
        wait_for(lambda: writer.backlog == 0, "the first three Events in Tiled")
        run = open_run(client, "last")
        assert run.stop == {}
        seen.extend(run.frames().values)
        np.testing.assert_array_equal(run.frame_stack(direct=False)[:], seen)

    engine(frame_plan(camera, ["primary", "primary!", "primary", "primary"], at={3: look}))
    assert writer.close(timeout_s=60).complete
    expected = frames_of_events(camera.path, ["primary", "primary!", "primary", "primary"], "primary")
    np.testing.assert_array_equal(seen, expected[:2])


def test_run_is_found_and_read_in_one_line_each(tiled_server, client, camera, tmp_path):
    record = Record(name="analysis")
    camera.stage_sigs.clear()

    def plan():
        import bluesky.plan_stubs as bps

        def verdict():
            for stream in ("analysis", "decision"):
                yield from bps.create(stream)
                yield from bps.read(record)
                yield from bps.save()

        yield from frame_plan(
            camera,
            ["primary", "primary", "primary"],
            readables=[motor],
            md={"sample": "A"},
            at={1: verdict, 2: verdict},
        )

    (uid,) = archive(tiled_server, tmp_path, plan())
    run = open_run(client)
    assert run.uid == uid
    assert open_run(client, uid[:8]).uid == uid
    assert open_run(client, run.start["scan_id"]).uid == uid
    assert run.start["sample"] == "A"
    assert run.stop["exit_status"] == "success"
    assert run.streams == ("analysis", "decision", "primary")
    assert list(run.analysis()["analysis_reason"]) == ["blurred by 7 px"] * 2
    assert list(run.decisions()["analysis_number"]) == [1, 1]
    assert list(run.events()["seq_num"]) == [1, 2, 3]
    assert not [name for name in run.events().columns if name.startswith("ts_")]
    with pytest.raises(ArchiveError, match="has no stream 'dark'"):
        run.frames("dark")
    with pytest.raises(ArchiveError, match="frames are under no key"):
        run.frames("analysis")
    with pytest.raises(ArchiveError, match="no single run 'ffffffff'"):
        open_run(client, "ffffffff")


def test_frames_outside_the_readable_storage_are_told_at_the_end_of_the_run(tiled_server, client, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    camera = FileCamera(tmp_path / "elsewhere")
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "backup")
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    (uid,) = engine(frame_plan(camera, ["primary"]))
    report = writer.close(timeout_s=60)
    assert report.unreadable == (uid,)
    assert not report.complete
    assert report.backlog == 0
    assert "outside the readable storage area" in report.last_error
    assert "name the frames' folder in readable_storage" in report.last_error


def test_wrong_key(tiled_server, tmp_path):
    for key in ("wrong", None):
        with pytest.raises(ArchiveError, match="refuses the API key"):
            connect(tiled_server.uri, key)
    assert httpx.get(f"{tiled_server.uri}/metadata/", trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    writer = ArchiveWriter(tiled_server.uri, "wrong", backup_directory=tmp_path)
    writer("start", {"uid": "00000000-0000-0000-0000-000000000000", "time": 0.0})
    report = writer.close(timeout_s=20)
    assert "refuses the API key" in report.last_error
    assert report.backlog == 1


def test_no_server(tmp_path):
    with pytest.raises(ArchiveError, match=r"no Tiled server answers at .*; start it with: xbat serve"):
        connect("http://127.0.0.1:1/api/v1")


def test_ui_link_lets_a_browser_in_and_the_key_stays_out_of_files(tiled_server):
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        assert browser.get(tiled_server.settings.ui_url_with_key()).status_code == httpx.codes.OK
        assert browser.get(f"{tiled_server.uri}/metadata/").status_code == httpx.codes.OK, "the key is in a cookie now"
    for file in (tiled_server.settings.log_file, tiled_server.settings.config_file):
        assert tiled_server.api_key not in file.read_text()


def test_second_server_on_the_same_port_or_folder_is_refused(tiled_server, tmp_path):
    with pytest.raises(ArchiveError, match=rf"port {tiled_server.settings.port} on 127.0.0.1 is taken .*--port"):
        TiledServer(tmp_path / "other", port=tiled_server.settings.port).start()
    second = TiledServer(tiled_server.settings.directory, port=free_port())
    with pytest.raises(ArchiveError, match=rf"in use by process {tiled_server.pid}"):
        second.start().wait_ready(60)
    second.stop()


def test_run_that_is_complete_in_tiled_is_never_overwritten(tiled_server, client, camera, tmp_path):
    documents = []
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    (uid,) = engine(frame_plan(camera, ["primary"]))
    for expected in ((), (uid,)):
        writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "backup")
        for name, doc in documents:
            writer(name, doc)
        report = writer.close(timeout_s=60)
        assert report.runs_in_backup == expected
    assert "is complete in Tiled already" in report.last_error
    assert [(result.uid, result.action) for result in repair(client, tmp_path / "backup")] == [(uid, "present")]
    assert repair(client, tmp_path / "backup") == []


def test_analysis_is_stored_beside_the_run_once_and_through_the_backup(tiled_server, client, camera, tmp_path):
    arrays = {"part/path_um": StoredArray(np.arange(6.0).reshape(3, 2), "um", ("frame", "yx"), "where it went")}
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "backup")
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    (uid,) = engine(frame_plan(camera, ["primary"]))
    writer.keep(uid, "drift", arrays, {"limit_um": 2.5})
    assert writer.close(timeout_s=60).complete
    run = open_run(client, uid)
    stored = run.stored("drift")
    np.testing.assert_array_equal(stored["part/path_um"], arrays["part/path_um"].values)
    assert (stored.unit("part/path_um"), stored.metadata["limit_um"], stored.metadata["analysis_of"]) == (
        "um",
        2.5,
        uid,
    )
    assert store_analysis(client, uid, "drift", arrays, name=stored.path.rpartition("/")[2]).path == stored.path
    assert len(run.analyses("drift")) == 1
    assert run.client.validate(fix_errors=False, raise_on_error=True)
    assert run.streams == ("primary",), "nothing of it is under the run"

    away = ArchiveWriter("http://127.0.0.1:1/api/v1", backup_directory=tmp_path / "backup")
    away.keep(uid, "spectra", arrays)
    (kept,) = away.close(timeout_s=5).analyses_in_backup
    assert kept.startswith(f"{uid}.spectra-")
    (tmp_path / "backup" / "0.damaged-1.npz").write_bytes(b"rubbish")
    results = {result.what: result for result in repair(client, tmp_path / "backup")}
    assert results["damaged-1"].action == "failed"
    assert "the file is damaged" in results["damaged-1"].message
    assert len(run.analyses("spectra")) == 1
    assert [path.name for path in (tmp_path / "backup").iterdir()] == ["0.damaged-1.npz"]
    with pytest.raises(ArchiveError, match=r"is not in the archive .* its analysis is not stored"):
        store_analysis(client, "0" * 36, "drift", arrays)


def test_runs_are_found_by_what_they_were(tiled_server, client, camera, tmp_path):
    begun_s = time.time()
    dose = Signal(name="point_dose_gy", value=90e3)
    good, bad = archive(
        tiled_server,
        tmp_path,
        frame_plan(
            camera, ["primary", "primary", "flat"], readables=[dose], md={"sample": "cell-7", "plan_name": "series"}
        ),
        frame_plan(camera, ["primary"], md={"sample": "cell-8", "plan_name": "series"}),
    )

    def found(**criteria):
        runs = search_runs(tiled_server.uri, tiled_server.api_key, Criteria(**{"since_s": begun_s} | criteria))
        return [run.uid for run in runs]

    assert found() == [bad, good], "the latest first"
    assert found(sample="cell-7") == found(least_dose_gy=80e3) == found(least_dose_gy=80e3, most_dose_gy=90e3) == [good]
    assert found(sample="cell-%", plan="ser%", outcome="success") == [bad, good]
    assert found(least_dose_gy=91e3) == found(outcome="fail") == found(outcome="running") == found(plan="other") == []
    assert found(until_s=begun_s) == []
    (told,) = search_runs(tiled_server.uri, tiled_server.api_key, Criteria(sample="cell-7"), limit=1)
    assert (told.frames, told.dose_gy, told.outcome, told.plan) == (2, 90e3, "success", "series")
    with pytest.raises(ArchiveError, match="refuses the API key"):
        search_runs(tiled_server.uri, "wrong")
    with pytest.raises(ArchiveError, match="no Tiled server answers"):
        search_runs("http://127.0.0.1:1/api/v1", None)


# --- trouble with the frames' file ----------------------------------------------------------------------------------------------------


def _cut(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(Path.unlink, "no such file", id="missing"),
        pytest.param(_cut, r"cut off: \d+ bytes of \d+", id="a byte less"),
        pytest.param(
            lambda path: path.write_bytes(b"PK" * 4000), "file signature not found", id="another kind of file"
        ),
    ],
)
def test_a_damaged_frame_file_is_told_at_once_and_nothing_comes_of_it(
    damage, told, tiled_server, client, camera, tmp_path, capfd
):
    """Reading, reading through Tiled, exporting; then the file comes back and all is well."""
    (uid,) = archive(tiled_server, tmp_path, frame_plan(camera, ["flat", "dark", "primary", "primary"]))
    whole = camera.path.read_bytes()
    damage(camera.path)
    run, message = open_run(client, uid), rf"{camera.path.name}.*{told}.*restore it from a backup"
    (tmp_path / "out").mkdir()
    before = run.events()
    for read in (
        lambda: run.frames().values,
        lambda: run.frame_stack("flat", direct=False)[0],
        lambda: export_run(run, tmp_path / "out" / "run.nxs", "nexus"),
    ):
        with pytest.raises(ArchiveError, match=message):
            read()
    assert list((tmp_path / "out").iterdir()) == []
    assert "Retrying" not in capfd.readouterr().err, "no half minute of Tiled's own tries"
    array = run.client["primary"].base["cam_image"]
    answer = array.context.http_client.get(array.item["links"]["full"], headers={"Connection": "close"})
    assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR, "readers elsewhere get no zeros either"
    assert before.equals(run.events()), "what is not in the file is there as before"
    camera.path.write_bytes(whole)
    np.testing.assert_array_equal(run.frame_stack(direct=False)[:], open_run(client, uid).frames().values)


def test_two_writers_of_one_run_leave_it_once(tiled_server, client, camera, tmp_path):
    """Two processes that both subscribed to a run: neither loses a document, and Tiled has each once in the end."""
    writers = [ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / name) for name in "ab"]
    same_folder = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path / "a")
    engine = RunEngine({}, context_managers=[])
    for writer in (*writers, same_folder):
        engine.subscribe(writer)
    refusals = ("is being written", "belongs to no open run")

    def both_have_tried():
        """While the first one's journal is open: one that comes when it is over finds an empty folder."""
        told = [str(writer.last_error) for writer in (writers[0], same_folder)]
        return any(refusal in error for refusal in refusals for error in told)

    sequence = ["flat", *["primary"] * 6]
    meet = {3: lambda: wait_for(both_have_tried, "the second writer in a folder")}
    (uid,) = engine(frame_plan(camera, sequence, readables=[motor], at=meet))
    reports = [writer.close(timeout_s=60) for writer in writers]
    in_a = sorted((reports[0], same_folder.close(timeout_s=60)), key=lambda report: report.lost)  # whichever came first
    told, reports[0] = in_a[1], in_a[0]
    assert (in_a[0].lost, told.lost) == (0, told.recorded), "a folder has one writer of a run"
    assert any(refusal in told.last_error for refusal in refusals)
    for name, report in zip("ab", reports, strict=True):
        assert (report.complete, report.runs_in_backup) in ((True, ()), (False, (uid,)))
        repair(client, tmp_path / name)
        assert list((tmp_path / name).iterdir()) == []
    run = open_run(client, uid)
    assert list(run.events()["seq_num"]) == [1, 2, 3, 4, 5, 6]
    assert [name for name, _ in run.client.documents()].count("event") == 7
    assert run.client.validate(fix_errors=False, raise_on_error=True)
