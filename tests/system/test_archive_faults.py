"""The archive under fire: Tiled is killed, the acquisition is killed; nothing is lost and nothing is doubled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import motor

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from archive_fixtures import (
    FileCamera,
    client,
    connected,
    frame_plan,
    frames_directory,
    frames_of_events,
    free_port,
    tiled_server,
    wait_for,
)

from xbat_live.archive import ArchiveWriter, TiledServer, open_run, repair
from xbat_live.archive.journal import read_journal

__all__ = ["client", "frames_directory", "tiled_server"]
pytestmark = [pytest.mark.system, pytest.mark.long]

SEQUENCE = ["flat", "primary", "primary!", "primary", "flat", *["primary"] * 8]


@pytest.fixture(scope="module")
def mortal_server(tmp_path_factory):
    """A server to be killed."""
    directory = tmp_path_factory.mktemp("mortal")
    (directory / "frames").mkdir()
    server = TiledServer(directory / "archive", port=free_port(), readable_storage=[directory / "frames"])
    yield server
    server.stop()


@pytest.fixture
def mortal_camera(mortal_server):
    return FileCamera(mortal_server.settings.readable_storage[0])


def assert_exactly_once(client, uid, camera, sequence):
    run = open_run(client, uid)
    for stream in ("primary", "flat"):
        expected = frames_of_events(camera.path, sequence, stream)
        np.testing.assert_array_equal(run.frame_stack(stream, direct=False)[:], expected)
        assert list(run.events(stream)["seq_num"]) == list(range(1, len(expected) + 1))
    assert run.client.validate(fix_errors=False, raise_on_error=True)
    assert [name for name, _ in run.client.documents()].count("event") == sum(not e.endswith("!") for e in sequence)
    return run


def kill_during_a_run(server, camera, backup, then=None):
    """Kill Tiled when a part of the run is in it; return engine's result and the writer."""
    if server.pid is None:
        server.start()
    server.wait_ready(90)
    writer = ArchiveWriter(server.uri, server.api_key, backup_directory=backup)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    emitted = []
    engine.subscribe(lambda name, doc: emitted.append(name))

    def strike():
        wait_for(lambda: writer.archived > 5, "a part of the run in Tiled")
        server.kill()
        if then:
            then()

    (uid,) = engine(frame_plan(camera, SEQUENCE, readables=[motor], at={6: strike}))
    assert emitted[-1] == "stop", "the run goes on to its end"
    return uid, emitted, writer


def test_tiled_killed_for_good_then_repaired(mortal_server, mortal_camera, tmp_path):
    uid, emitted, writer = kill_during_a_run(mortal_server, mortal_camera, tmp_path)
    report = writer.close(timeout_s=20)
    assert report.elapsed_s < 25, "close is bounded by its timeout, whatever Tiled's client is waiting for"
    assert report.runs_in_backup == (uid,)
    assert not report.complete
    assert [name for name, _ in read_journal(tmp_path / f"{uid}.jsonl")] == emitted, "the backup is complete"

    mortal_server.start().wait_ready(90)
    with connected(mortal_server) as client:
        assert "stop" not in client[uid].metadata, "Tiled holds a part of the run"
        wait_for(lambda: not any(result.action == "busy" for result in repair(client, tmp_path)), "the writer's lock")
        assert repair(client, tmp_path) == []
        run = assert_exactly_once(client, uid, mortal_camera, SEQUENCE)
        assert run.stop["exit_status"] == "success"


def test_tiled_killed_and_back_during_the_run(mortal_server, mortal_camera, tmp_path):
    uid, _, writer = kill_during_a_run(mortal_server, mortal_camera, tmp_path, then=mortal_server.start)
    mortal_server.wait_ready(90)  # close() does not wait for a server that is gone
    report = writer.close(timeout_s=100)
    assert report.complete, report
    assert report.last_error is None or "Error" in report.last_error
    assert list(tmp_path.iterdir()) == []
    with connected(mortal_server) as client:
        assert_exactly_once(client, uid, mortal_camera, SEQUENCE)


ACQUISITION = """
import sys
sys.path[:0] = {path!r}
from archive_fixtures import FileCamera, client, connected, frame_plan, wait_for
from bluesky import RunEngine
from ophyd.sim import motor
from xbat_live.archive import ArchiveWriter
writer = ArchiveWriter({uri!r}, {key!r}, backup_directory={backup!r})
engine = RunEngine({{}}, context_managers=[])
engine.subscribe(writer)
camera = FileCamera({frames!r})
def die():
    wait_for(lambda: writer.archived > 3, "a part of the run in Tiled")
    print(camera.path, flush=True)
    sys.stdin.read()
engine(frame_plan(camera, {sequence!r}, readables=[motor], at={{8: die}}))
"""


def test_acquisition_killed(tiled_server, client, frames_directory, tmp_path):
    """What had been emitted is in the backup; the run gets its stop document and says what happened."""
    script = ACQUISITION.format(
        path=[str(Path(__file__).parent), *sys.path],
        uri=tiled_server.uri,
        key=tiled_server.api_key,
        backup=str(tmp_path),
        frames=str(frames_directory),
        sequence=SEQUENCE,
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        path = Path(process.stdout.readline().strip())
        process.kill()
    (journal,) = tmp_path.glob("*.jsonl")
    (result,) = repair(client, tmp_path)
    assert (result.uid, result.action, result.cut_off, result.valid, result.message) == (
        journal.stem,
        "replaced",
        True,
        True,
        "",
    )
    assert repair(client, tmp_path) == []
    camera = FileCamera(frames_directory)
    camera.path = path
    run = assert_exactly_once(client, result.uid, camera, SEQUENCE[:8])
    assert run.stop["exit_status"] == "fail"
    assert run.stop["reason"].startswith("cut off")
    assert run.stop["num_events"] == {"flat": 2, "primary": 5}


def test_run_that_tiled_never_saw_is_inserted(client, frames_directory, tmp_path):
    camera = FileCamera(frames_directory)
    writer = ArchiveWriter("http://127.0.0.1:1/api/v1", backup_directory=tmp_path)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    (uid,) = engine(frame_plan(camera, SEQUENCE, readables=[motor]))
    assert writer.close(timeout_s=20).runs_in_backup == (uid,)
    (result,) = repair(client, tmp_path)
    assert (result.action, result.cut_off, result.valid) == ("inserted", False, True)
    assert_exactly_once(client, uid, camera, SEQUENCE)


def test_server_that_comes_late(tmp_path, mortal_server, mortal_camera):
    mortal_server.stop()
    writer = ArchiveWriter(mortal_server.uri, mortal_server.api_key, backup_directory=tmp_path)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    (uid,) = engine(
        frame_plan(mortal_camera, SEQUENCE, readables=[motor], at={4: lambda: mortal_server.start() and None})
    )
    mortal_server.wait_ready(90)
    assert writer.close(timeout_s=100).complete
    with connected(mortal_server) as client:
        assert_exactly_once(client, uid, mortal_camera, SEQUENCE)


def test_damaged_journal_keeps_nobody_out_and_costs_nothing(client, frames_directory, tmp_path):
    camera = FileCamera(frames_directory)
    writer = ArchiveWriter("http://127.0.0.1:1/api/v1", backup_directory=tmp_path)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    (uid,) = engine(frame_plan(camera, ["primary", "flat"]))
    writer.close(timeout_s=20)
    (tmp_path / "0-damaged.jsonl").write_text(
        '{"name": "start", "doc": {"uid": "0"}}\nrubbish\n{"name": "stop", "doc": {}}\n'
    )
    (tmp_path / "0-empty.jsonl").touch()
    results = repair(client, tmp_path)
    assert [(result.action, result.uid) for result in results] == [
        ("failed", "0-damaged"),
        ("failed", "0-empty"),
        ("inserted", uid),
    ]
    assert "line 2 is no document" in results[0].message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-damaged.jsonl", "0-empty.jsonl"]


@pytest.mark.parametrize(
    "where", ["main", "helper"], ids=["started by the main thread", "started by a thread that ends"]
)
def test_server_dies_with_its_parent(where, tmp_path):
    script = f"""
import sys, threading
sys.path[:0] = {sys.path!r}
from xbat_live.archive import TiledServer
server = TiledServer({str(tmp_path)!r}, port={free_port()})
if {where!r} == "main":
    server.start()
else:
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
server.wait_ready(90)
print(server.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert _alive(pid), "it outlives the thread that started it"
        parent.kill()
    wait_for(lambda: not _alive(pid), "the end of the server", timeout_s=20)


def _alive(pid):
    try:
        os.kill(pid, signal.SIG_DFL)  # signal 0: only asks
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_orphans_do_not_stop_a_plan_that_pauses(tiled_server, client, frames_directory, tmp_path):
    """A hard pause rewinds to the checkpoint and exposes again: the frame before it is in the file, but in no Event."""
    camera = FileCamera(frames_directory)
    writer = ArchiveWriter(tiled_server.uri, tiled_server.api_key, backup_directory=tmp_path)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    paused = []

    def pause_once():
        if not paused:
            paused.append(True)
            yield from bps.pause()

    def plan():
        uid = yield from bps.open_run()
        yield from bps.stage(camera)
        for point in range(4):
            yield from bps.checkpoint()
            yield from bps.trigger(camera, wait=True)
            if point == 1:
                yield from pause_once()
            yield from bps.create("primary")
            yield from bps.read(camera)
            yield from bps.save()
        yield from bps.unstage(camera)
        yield from bps.close_run()
        return uid

    from bluesky.utils import RunEngineInterrupted

    with pytest.raises(RunEngineInterrupted):
        engine(plan())
    (uid,) = engine.resume()
    assert writer.close(timeout_s=60).complete
    run = open_run(client, uid)
    sequence = ["primary", "primary!", "primary", "primary", "primary"]
    np.testing.assert_array_equal(run.frame_stack(direct=False)[:], frames_of_events(camera.path, sequence, "primary"))
