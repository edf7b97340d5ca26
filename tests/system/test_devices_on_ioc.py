"""The devices against the simulated IOCs, over real Channel Access, each scenario in its own client process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xbat_live.sim.environment import free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings

pytestmark = pytest.mark.system

CLIENT = Path(__file__).with_name("devices_client.py")


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs a scenario of the client against a fresh simulator."""

    def run_scenario(scenario: str) -> dict[str, Any]:
        port = free_port()
        settings = TwinSettings(sensor_yx=(256, 320))
        with SimulatorProcess(settings, prefix="XBAT:", port=port, work_directory=tmp_path / "sim") as simulator:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            command = [sys.executable, str(CLIENT), scenario, str(port), str(tmp_path), str(simulator.pid)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

    return run_scenario


def test_a_run_over_channel_access(run):
    result = run("series")
    data, flat, dark = (f"/entry/data/{name}" for name in ("data", "flat", "dark"))
    # the orphan is row 1 of the data: the second event of primary refers to row 2
    assert result["rows"] == [[dark, 0], [flat, 0], [data, 0], [data, 2]]
    assert result["lengths"] == {"data": [3, 60, 80], "flat": [1, 60, 80], "dark": [1, 60, 80]}
    assert result["shape"] == [1, 60, 80]
    assert result["exit_status"] == "success"
    assert result["shutter"] == "Closed"
    assert result["status"] == "Running"  # the cell goes on when the plan ends well
    assert result["x_um"] == pytest.approx(5.0, abs=0.5)
    assert result["sensor"] == [256, 320]  # restored
    assert result["open_time_s"] > 3 * 0.002
    units = result["units"]
    for key, unit in {
        "camera_image": "counts",
        "stage_x": "um",
        "stage_theta": "deg",
        "mono_energy": "eV",
        "i0_current_na": "nA",
        "ring_current_ma": "mA",
        "shutter_open_time_s": "s",
    }.items():
        assert units[key] == unit


def test_a_done_trigger_means_a_readable_frame_and_a_hundred_of_them_never_hang(run):
    result = run("pixels")
    assert (result["dtype"], result["shape"], result["last"]) == ("uint16", [256, 320], 100)
    assert result["mean"] > 0


def test_a_killed_ioc_fails_what_is_under_way_and_clean_up_is_quick(run):
    result = run("killed")
    assert "lost during an acquisition" in result["trigger"]
    assert "lost during a move" in result["move"]
    assert result["failed_after_s"] < 15
    assert result["is_open"] is True
    assert result["close_now"] is False
    assert result["unstaged_after_s"] < 3


def test_a_frozen_ioc_does_not_hold_up_the_clean_up(run):
    assert run("frozen")["unstaged_after_s"] < 10


def test_an_unusable_frame_folder_is_named_and_another_one_works_afterwards(run, tmp_path):
    result = run("folder")
    blocked = str(tmp_path / "file" / "frames")
    assert blocked in result[blocked]
    assert "camera.directory" in result[blocked]
    assert any("characters" in str(message) for message in result.values())
    assert result["restored"] is True
    assert result["afterwards"] == 0


def test_shutter_from_a_foreign_thread_watchdog_and_report(run):
    result = run("shutter")
    assert result["closed_from_thread"] is True
    assert result["closed_by_watchdog"] is True
    assert result["trips"] == 1
    assert result["last_open_s"] == pytest.approx(0.05, abs=0.02)
    assert result["all_connected"] is True
    assert result["energy"] == ["eV", 7000.0, 12000.0, True]
