"""Ordinary Bluesky plans under the dose guard on real parts: where they stop, rest or move, and the ledger against the twin.

All scenarios of ``guard_client.py`` run in one process on one simulator, each at its own place of a large sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xbat_live.sim.environment import free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CLIENT = Path(__file__).with_name("guard_client.py")
EXPOSURE_S = 0.048
HALTED = ["count_halt", "grid_halt", "adaptive_halt"]
ALL_COUNTED = [
    *HALTED,
    *("scan_relocate", "rel_scans_relocate", "count_rest", "count_attenuate", "two_detectors"),
    *("fly_halt", "fly_relocate", "fly_whole", "fly_rest"),
    *("suspended", "paused", "aborted", "next_process", "bare_stubs"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What every scenario gave."""
    work = tmp_path_factory.mktemp("guard")
    twin = TwinSettings(time_scale=0.0, sensor_yx=(64, 64), sample_size_um=(1000.0, 1000.0), vibration_probability=0.0)
    with SimulatorProcess(twin, "XBAT:", free_port(), work / "twin") as simulator:
        command = [sys.executable, str(CLIENT), str(simulator.port), str(work)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def result(results, request):
    """The result of the scenario that the test is named after or parametrized with."""
    name = getattr(request, "param", request.node.originalname.removeprefix("test_"))
    found = results[name]
    assert "error" not in found, found["error"]
    return found


@pytest.mark.parametrize("result", ALL_COUNTED, indirect=True)
def test_the_ledger_has_what_the_sample_got(result):
    assert result["peak_gy"] == pytest.approx(result["true_gy"], rel=0.05)
    assert result["unsettled"] == 0
    assert result["shutter"] == "Closed"
    assert result["transmission"] == 1.0  # as it was before
    assert result["acquire_time_s"] == 0.1


@pytest.mark.parametrize("result", HALTED, indirect=True)
def test_a_refused_plan_ends_in_order(result):
    ((status, reason),) = result["exit"]
    assert status == "fail"
    assert "above the limit 'dose limit'" in reason
    assert reason == result["refused"]
    assert result["decisions"] == ["warn", "warn", "halt"]  # 50 %, 80 %, and the end
    assert result["events"] == result["openings"] == result["kinds"]["reserve"] == result["kinds"]["settle"]


def test_count_halt(result):
    """A count of 50 with a limit that allows seven."""
    assert result["events"] == 7
    assert result["left"][-1] == 0
    assert result["left"] == sorted(result["left"], reverse=True)
    assert result["binding"] == "dose limit"
    assert result["dose"] == pytest.approx([n * result["dose"][0] for n in range(1, 8)], rel=0.01)
    # each frame got the beam of 48 ms, all of it inside the camera's exposure
    assert result["frames"] == pytest.approx([EXPOSURE_S] * 7, abs=1e-3)
    assert result["open_time_s"] == pytest.approx(7 * EXPOSURE_S, abs=7e-3)
    ((start,),) = (result["start"],)
    assert "dose" in start
    (spot,) = result["spots"]
    assert spot["spot_exposures"] == 7
    assert json.loads(spot["spot_doses"]) == {"cathode/NMC622": pytest.approx(spot["spot_dose_gy"])}


def test_grid_halt(result):
    """Two rows of three; four are allowed."""
    assert result["events"] == 4


def test_adaptive_halt(result):
    """The plan triggers while it collects readings for an Event."""
    assert result["events"] == 3


def test_scan_relocate(result):
    """Twelve points, five at one place: 5 + 5 + 2, the scan goes on where it was, shifted."""
    assert result["refused"] == ""
    assert result["events"] == 12
    assert result["decisions"] == ["warn", "warn", "relocate", "relocate"]
    y = [value - result["y"][0] for value in result["y"]]
    assert y == pytest.approx([0] * 5 + [45] * 5 + [90] * 2, abs=0.2)
    assert result["x"] == sorted(result["x"])
    assert result["x"][-1] - result["x"][0] == pytest.approx(2.0, abs=0.2)
    assert result["true_gy"] <= result["limit_gy"]
    assert [spot["spot_exposures"] for spot in result["spots"]] == [5, 5, 2]


def test_rel_scans_relocate(result):
    """Three relative scans of three, five at one place: relative to the same place in the plan's own coordinates."""
    assert result["y"] == pytest.approx([-1, 0, 1, -1, 0, 46, 44, 45, 46], abs=0.2)


def test_count_rest(result):
    """Two in any window of 1.5 s."""
    assert result["events"] == 5
    assert "rest" in result["decisions"]
    times = [time for time, _ in result["times"]]
    assert all(later - earlier > 1.3 for earlier, later in zip(times, times[2:], strict=False))


def test_count_attenuate(result):
    """Half the rate is allowed: three frames with just under half the dose."""
    assert result["events"] == 3
    assert result["decisions"] == ["attenuate"]
    assert 0.4 * 3 < result["true_gy"] / result["one_gy"] <= 0.5 * 3


def test_two_detectors(result):
    """One opening for both, as long as the longer exposure."""
    assert result["events"] == result["openings"] == 3
    assert all(2 * EXPOSURE_S <= seen < 4 * EXPOSURE_S for seen in result["saw"])


def test_fly_halt(result):
    """As many frames as the limit allows with the margin of one opening; those that were taken are Events."""
    assert result["frames"] == list(range(7))
    assert "dose limit" in result["refused"]
    assert result["openings"] == 1
    assert result["exit"][0][0] == "fail"
    assert result["documents"]["known"]
    assert len(result["spots"]) == 1


def test_fly_relocate(result):
    """Cut at the limit, moved, and gone on with; all frames in one stream."""
    assert result["frames"] == list(range(20))
    assert result["openings"] == 3
    steps = [round(value - result["y"][0]) for value in result["y"]]
    assert steps == [0] * 8 + [45] * 8 + [90] * 4
    assert result["true_gy"] <= result["limit_gy"]


def test_fly_whole(result):
    """One reservation, one opening, and the beam for the whole of each frame."""
    assert (result["events"], result["openings"], result["kinds"]["reserve"]) == (8, 1, 1)
    assert result["frames"] == pytest.approx([0.03] * 8, abs=1e-3)


def test_fly_rest(result):
    """Cut where the window is full, gone on with when it allows."""
    assert result["frames"] == list(range(20))
    assert "rest" in result["decisions"]
    assert result["openings"] >= 2


@pytest.mark.parametrize("result", ["suspended", "paused"], indirect=True)
def test_an_interrupted_exposure_is_made_again_and_both_are_counted(result):
    """A suspender, or a pause: each opening has a reservation of its own, each point one Event with a whole frame."""
    assert result["events"] == 3
    assert result["openings"] == result["kinds"]["reserve"] == result["kinds"]["settle"] == 4
    assert "repeat" in result["decisions"]
    assert result["exit"] == [["success", ""]]
    assert result["open_time_s"] > 3 * 0.4 + 0.05


def test_suspended(result):
    """The Event refers to the frame that was taken again."""
    assert result["indices"] == [0, 2, 3]
    assert result["open"] == pytest.approx([0.4, result["open"][1], 0.4, 0.4], abs=1e-3)
    assert result["open"][1] < 0.35


def test_paused(result):
    """Closed in the pause, and opened again only after the resume."""
    assert result["in_pause"] == "Closed"
    assert result["opened_in_pause"] == 0


def test_aborted(result):
    """No opening between the pause and the end of the plan; the next plan is free to open."""
    assert result["opened_after"] == 0
    assert [status for status, _ in result["exit"]] == ["abort", "success"]
    assert result["events"] == 2


def test_beam_lost(result):
    """The ring trips in an exposure: what was lost is not counted, but the edges are, up to the pace of the chamber's readings."""
    rate_gy_s = result["peak_gy"] / result["open_time_s"]
    assert result["true_gy"] * 0.99 <= result["peak_gy"] <= result["true_gy"] + 2 * 0.15 * rate_gy_s
    assert result["true_gy"] < 0.9 * 2.4 * 196e3  # the trip was in an exposure


def test_next_process(result):
    """An opening by hand, and one of a process that died, are in the next one's ledger: once each."""
    assert result["kinds"]["unreserved"] == 1
    assert result["kinds"]["reserve"] == result["kinds"]["settle"] == 5
    assert result["peak_gy"] > result["first_gy"] + 0.25 * 190e3


def test_held_in_a_pause(result):
    assert len(result["told"]) == 2
    assert all("held closed" in told for told in result["told"])
    assert result["openings"] == 1


def test_bare_stubs(result):
    """A trigger without a group and without a wait, retries of the plan's own: every one is an exposure."""
    assert result["events"] == 2
    assert result["openings"] == 4
