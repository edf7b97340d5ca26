"""Full-field XAS imaging against the IOCs: killed in a cube and started again, it goes on with the next; documents, energies, dose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from archive_fixtures import connected
from ffi_support import dose_of, simulated_electrode, start, state_of
from tiled.queries import SpecsQuery

import xbat_live
from xbat_live.live.following import FeedClient, find_feeds
from xbat_live.live.store import LiveStore

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]
FRAMES = 60


def watch(folder, store):
    """See what a page would: the messages of the run's feed, until its process ends."""

    def look():
        while not (feeds := find_feeds(folder / "rt")):
            time.sleep(0.05)
        with FeedClient(feeds[0]) as feed:
            for message in feed.messages(1.0):
                if message is not None and message.get("type") == "data":
                    store.apply(message)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory):
    """One protocol in two runs: the first is killed (SIGKILL) in the middle of its fourth cube."""
    folder = Path(tmp_path_factory.mktemp("ffi-xas"))
    with simulated_electrode(folder) as (simulator, server, options):
        first = start(folder, *options)
        deadline = time.monotonic() + 120
        while (state := state_of(folder)).get("open_cube") != 3:
            assert first.poll() is None, first.communicate()[1]
            assert time.monotonic() < deadline, state
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        before = state_of(folder)
        shown = LiveStore()
        second = start(folder, *options)
        watching = watch(folder, shown)
        output, errors = second.communicate(timeout=200)
        watching.join(20)
        assert second.returncode == 0, errors
        simulator.terminate()  # writes the truth
        with connected(server) as client:
            yield folder, before, json.loads(output.splitlines()[-1]), client, shown


def test_it_goes_on_with_the_next_cube(killed_and_resumed):
    folder, before, result, *_ = killed_and_resumed
    assert (before["cubes"], before["open_cube"], before["done"]["ocv"]) == (4, 3, 1)
    after = state_of(folder)
    assert after["complete"]
    assert after["lost"] == [3]
    assert after["done"]["ocv"] == 2
    assert len(after["runs"]) == 2
    assert result["outcome"] == "completed"


def test_every_cube_is_an_event_with_its_frames_and_energies(killed_and_resumed):
    folder, _, _, client, _ = killed_and_resumed
    run = client.search(SpecsQuery(["BlueskyRun"])).values().last()  # what was stored beside the runs is no run
    assert run.validate()
    names = [name for name, _ in run.documents()]
    assert "stream_datum" in names
    primary = run["primary"]
    numbers = np.asarray(primary["cube_number"].read())
    assert numbers[0] == 4
    assert (np.diff(numbers) == 1).all()
    cubes = np.asarray(primary["camera_image"].read())
    assert cubes.shape == (numbers.size, FRAMES, 64, 96)
    energies = np.asarray(primary["cube_energy_ev"].read())
    assert (np.diff(energies, axis=1) > 0).all()
    assert np.ptp(np.diff(energies[0])) > 0.05  # even in the angle, not in the energy
    below, above = (energies[0] < 8320), (energies[0] > 8380)
    middle = cubes[0][:, 26:38, 40:56].astype(float).mean(axis=(1, 2))
    assert middle[above].mean() < 0.85 * middle[below].mean()
    rows = sum(
        len(h5py.File(file, "r")["/entry/data/data"])
        for file in (folder / "frames").glob("*.h5")
        if "xas" not in file.name
    )
    assert rows >= FRAMES * numbers.size


def test_a_page_sees_the_maps_and_the_curve_while_the_run_goes_on(killed_and_resumed):
    """The second run's analysis reads I0 and foil from the files of the one that was killed."""
    shown = killed_and_resumed[-1]
    columns, rows = shown.columns["xas"], list(shown.series["xas"].rows)
    edges = [dict(zip(columns, row, strict=True))["low_edge_ev"] for row in rows]
    assert len(rows) >= 4
    assert all(8335 < edge < 8350 for edge in edges)
    assert shown.state["xas"]["place"] == "A"
    assert len(shown.state["xas_maps"]["maps"]) >= 2


def test_the_ledger_has_what_the_sample_got(killed_and_resumed):
    ours_gy, got_gy = dose_of(killed_and_resumed[0])
    # a cube that was cut short is counted at the mean of all its energies: more than it gave below the edge, never less
    assert 0.97 < ours_gy / got_gy < 1.2
    assert got_gy > 10e3


def test_it_is_analysed_after_the_run_with_what_the_killed_one_has(killed_and_resumed, tmp_path):
    """I0 and foil are in the run that was killed."""
    folder, _, _, client, _ = killed_and_resumed
    served = ("--uri", str(client.context.api_uri), "--archive", str(folder / "archive"))
    xbat = [sys.executable, "-m", "xbat_live.cli.main"]
    repair = [*xbat, "archive", "repair", str(folder / "archive"), "--frames", str(folder / "frames")]
    subprocess.run(repair, check=True, capture_output=True, timeout=120)
    command = [*xbat, "analyse", "xas", "last", *served, "--json", "--no-figures"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "xas")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["run_uids"]) == 2
    assert list(told["groups"]) == ["ocv", "end C", "end A"]
    assert told["groups"]["ocv"]["cubes"] == 2  # one in each run
    assert 8335 < told["groups"]["end A"]["edge_ev"] < 8350
    assert told["largest_dose_rate_gy_s"] > 1000
    run = xbat_live.open("last", uri=str(client.context.api_uri), api_key=(folder / "archive" / "api_key").read_text())
    assert run.stored("xas")["dose_rate/rate_gy_s"].shape == (16, 24)
    direct, served_cube = run.cubes(), np.asarray(run.client["primary"]["camera_image"][0])
    np.testing.assert_array_equal(np.stack(list(direct.frames(0))), served_cube)
