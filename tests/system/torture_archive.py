"""Kill Tiled at random moments of runs, repair, and look whether the archive holds every document and frame exactly once.

    python tests/system/torture_archive.py --kills 50

A run takes real frames into real HDF5 files; somewhere in it, or while its last documents are on their way, the server gets SIGKILL.
Half of the time it is back at once, half of the time when the run is over and its writer has given up, so that `repair` has to do it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import bluesky.plan_stubs as bps
import numpy as np
from archive_fixtures import FileCamera, connected, frame_plan, frames_of_events, free_port
from bluesky import RunEngine
from ophyd.sim import motor

from xbat_live.archive import ArchiveWriter, TiledServer, open_run, repair

SEQUENCE = ["flat", "dark", "primary", "primary!", *["primary"] * 6, "flat", *["primary"] * 8]
PAUSE_S = 0.05


def emitted_by(documents, stream):
    """Seq_num, time and motor of the Events of a stream, as the RunEngine emitted them."""
    descriptors = {doc["uid"] for name, doc in documents if name == "descriptor" and doc["name"] == stream}
    events = [doc for name, doc in documents if name == "event" and doc["descriptor"] in descriptors]
    return [(event["seq_num"], event["time"], event["data"]["motor"]) for event in events]


def check(client, uid, path, documents):
    """Every document and every frame, once, in order, and valid."""
    run = open_run(client, uid)
    start, stop = (next(doc for name, doc in documents if name == wanted) for wanted in ("start", "stop"))
    assert (run.start["uid"], run.start["time"], run.stop["uid"]) == (start["uid"], start["time"], stop["uid"])
    assert set(run.streams) == {"primary", "flat", "dark"}
    for stream in run.streams:
        table = run.events(stream)
        told = list(zip(table["seq_num"].tolist(), table["time"].tolist(), table["motor"].tolist(), strict=True))
        assert told == emitted_by(documents, stream), f"{uid}, {stream}: other Events than were emitted"
        expected = frames_of_events(path, SEQUENCE, stream)
        np.testing.assert_array_equal(run.frame_stack(stream, direct=False)[:], expected)
    assert run.client.validate(fix_errors=False, raise_on_error=True)
    names = [name for name, _ in run.client.documents()]
    assert names.count("event") == sum(name == "event" for name, _ in documents)
    assert (names.count("start"), names.count("stop"), names[0], names[-1]) == (1, 1, "start", "stop")
    assert run.client.metadata["summary"]["frames"] == len(emitted_by(documents, "primary"))


def one_run(server, folder, chance):
    """A run in which the server is killed; return its uid, file and documents, and how it was mended."""
    camera = FileCamera(server.settings.readable_storage[0])
    writer = ArchiveWriter(server.uri, server.api_key, backup_directory=folder)
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(writer)
    documents = []
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    delay_s, back_at_once = chance.uniform(0.0, 3.5), chance.random() < 0.5

    def strike():
        time.sleep(delay_s)
        server.kill()
        if back_at_once:
            server.start()

    striker = threading.Thread(target=strike)
    striker.start()
    pauses = dict.fromkeys(range(len(SEQUENCE)), lambda: bps.sleep(PAUSE_S))
    (uid,) = engine(frame_plan(camera, SEQUENCE, readables=[motor], at=pauses))
    if not back_at_once:
        report = writer.close(timeout_s=5)
        striker.join()
        server.start()
        server.wait_ready(120)
    else:
        striker.join()
        server.wait_ready(120)
        report = writer.close(timeout_s=120)
    deadline = time.monotonic() + 60
    with connected(server) as client:
        while any(result.action == "busy" for result in repair(client, folder)):  # the writer's thread lets go of it
            assert time.monotonic() < deadline, "the writer keeps its lock"
            time.sleep(0.2)
        assert repair(client, folder) == [], "a second repair has nothing to do"
    how = "written" if report.complete else "repaired"
    return (
        uid,
        camera.path,
        documents,
        f"killed after {delay_s:.2f} s, {'back at once' if back_at_once else 'back later'}: {how}",
    )


def torture(kills, seed, folder, tell=print):
    """Run and kill, then check all runs once more at the end; return how many runs `repair` had to insert."""
    chance = random.Random(seed)
    (folder / "frames").mkdir()
    server = TiledServer(folder / "archive", port=free_port(), readable_storage=[folder / "frames"])
    server.start().wait_ready(120)
    runs, repaired = [], 0
    try:
        for number in range(1, kills + 1):
            uid, path, documents, told = one_run(server, folder / "backup", chance)
            runs.append((uid, path, documents))
            repaired += told.endswith("repaired")
            with connected(server) as client:
                check(client, uid, path, documents)
            tell(f"{number}/{kills}  {told}, complete and valid")
        with connected(server) as client:
            assert len(client) == len(runs), "one entry per run, none twice"
            for run in runs:
                check(client, *run)
    finally:
        server.stop()
    assert list((folder / "backup").iterdir()) == []
    return repaired


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        repaired = torture(
            arguments.kills, arguments.seed, Path(folder), lambda line: print(line, file=sys.stderr, flush=True)
        )
    minutes = (time.monotonic() - begun) / 60
    print(
        f"{arguments.kills} kills in {minutes:.1f} min: every document and frame exactly once, all runs valid; "
        f"{repaired} runs were inserted by repair, {arguments.kills - repaired} by the writer itself"
    )


if __name__ == "__main__":
    main()
