"""The simulated shutter's timed opening, and sequences of frames of the simulated camera."""

import json
import runpy
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ioc = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["ioc"]


@pytest.fixture
def shutter(ioc):
    """Closed, no watchdog, no fault."""
    for name, value in (("SH:Fault", "None"), ("SH:MaxOpen", 0.0), ("SH:Cmd", "Close")):
        ioc.put(name, value)
    yield ioc
    ioc.put("SH:Fault", "None")
    ioc.put("SH:MaxOpen", 0.0)
    ioc.put("SH:Cmd", "Close")


def test_it_opens_for_exactly_that_time_and_completes_when_closed(shutter):
    before_s = shutter.get("SH:OpenTime_RBV")
    shutter.put("SH:OpenFor", 0.07)
    assert shutter.get("SH:Status", text=True) == "Closed"
    assert shutter.get("SH:LastOpenTime_RBV") == pytest.approx(0.07, abs=1e-6)
    assert shutter.get("SH:OpenTime_RBV") - before_s == pytest.approx(0.07, abs=1e-6)


def test_a_command_to_close_ends_it(shutter):
    shutter.send("SH:OpenFor", 30.0)
    shutter.eventually("SH:Status", "Open", text=True)
    shutter.put("SH:Cmd", "Close")
    assert shutter.get("SH:Status", text=True) == "Closed"
    assert shutter.get("SH:LastOpenTime_RBV") < 10


def test_the_watchdog_ends_it_when_it_is_shorter(shutter):
    trips = shutter.get("SH:WatchdogTrips_RBV")
    shutter.put("SH:MaxOpen", 0.05)
    shutter.put("SH:OpenFor", 30.0)
    assert shutter.get("SH:LastOpenTime_RBV") == pytest.approx(0.05, abs=1e-6)
    assert shutter.get("SH:WatchdogTrips_RBV") == trips + 1
    shutter.put("SH:MaxOpen", 1.0)
    shutter.put("SH:OpenFor", 0.03)  # and does not count when it is longer
    assert shutter.get("SH:WatchdogTrips_RBV") == trips + 1


def test_an_open_shutter_refuses_it(shutter):
    shutter.put("SH:Cmd", "Open")
    assert shutter.refused("SH:OpenFor", 0.01)
    assert shutter.get("SH:Status", text=True) == "Open"


def test_a_stuck_shutter_stays_closed_and_counts_nothing(shutter):
    openings, before_s = shutter.get("SH:OpenCount_RBV"), shutter.get("SH:OpenTime_RBV")
    shutter.put("SH:Fault", "Stuck")
    shutter.put("SH:OpenFor", 0.05)
    assert (shutter.get("SH:OpenCount_RBV"), shutter.get("SH:OpenTime_RBV")) == (openings, before_s)


def test_a_sequence_has_frames_without_gaps_whatever_reading_out_takes(shutter):
    """Twenty frames of 10 ms in 200 ms of beam: each has its own 10 ms, in order."""
    for name, value in (("AcquireTime", 0.01), ("AcquirePeriod", 0.01), ("ImageMode", "Multiple"), ("NumImages", 20)):
        shutter.put(f"CAM:cam1:{name}", value)
    shutter.put("SH:Cmd", "Open")
    shutter.put("CAM:cam1:Acquire", 1)
    shutter.put("SH:Cmd", "Close")
    assert shutter.get("CAM:cam1:NumImagesCounter_RBV") == 20
    shutter.put("TRUTH:Flush", 1)
    lines = (shutter.simulator.work_directory / "truth.jsonl").read_text().splitlines()[-20:]
    frames = [json.loads(line) for line in lines]
    assert [frame["open_time_s"] for frame in frames] == pytest.approx([0.01] * 20, abs=1e-6)
    numbers = [frame["frame_number"] for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_an_aborted_sequence_delivers_what_was_exposed(shutter):
    for name, value in (("AcquireTime", 0.05), ("AcquirePeriod", 0.05), ("ImageMode", "Multiple"), ("NumImages", 1000)):
        shutter.put(f"CAM:cam1:{name}", value)
    shutter.send("CAM:cam1:Acquire", 1)
    time.sleep(0.4)
    shutter.put("CAM:cam1:Acquire", 0)
    shutter.eventually("CAM:cam1:DetectorState_RBV", "Idle", text=True)
    assert 1 <= shutter.get("CAM:cam1:NumImagesCounter_RBV") < 100
    shutter.put("CAM:cam1:NumImages", 1)
