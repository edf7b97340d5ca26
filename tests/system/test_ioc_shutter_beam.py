"""Shutter, beam, potentiostat, twin control and truth PVs of the simulated beamline."""

import json
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.system
ioc = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["ioc"]


@pytest.fixture
def shutter(ioc):
    """Closed, no watchdog, no fault."""
    ioc.put("SH:Fault", "None")
    ioc.put("SH:MaxOpen", 0.0)
    ioc.put("SH:Cmd", "Close")
    yield ioc
    ioc.put("SH:Fault", "None")
    ioc.put("SH:Cmd", "Close")


def test_command_completes_when_the_shutter_has_moved(shutter):
    count = shutter.get("SH:OpenCount_RBV")
    shutter.put("SH:Cmd", "Open")
    assert shutter.get("SH:Status", text=True) == "Open"
    shutter.put("SH:Cmd", "Close")
    assert shutter.get("SH:Status", text=True) == "Closed"
    assert shutter.get("SH:OpenCount_RBV") == count + 1


def test_open_time_counts_what_the_twin_counts(shutter):
    before_s = shutter.get("SH:OpenTime_RBV")
    shutter.put("SH:Cmd", "Open")
    shutter.put("SH:Cmd", "Open")  # again: no second opening
    time.sleep(0.05)
    shutter.put("SH:Cmd", "Close")
    last_s = shutter.get("SH:LastOpenTime_RBV")
    assert last_s >= 0.05
    assert shutter.get("SH:OpenTime_RBV") - before_s == pytest.approx(last_s, abs=1e-9)
    shutter.put("TRUTH:Flush", 1)
    assert shutter.get("TRUTH:OpenTime_RBV") == pytest.approx(shutter.get("SH:OpenTime_RBV"), abs=1e-6)


def test_counter_runs_while_the_shutter_is_open(shutter):
    """Who dies during an exposure leaves a counter that still tells the dose."""
    before_s = shutter.get("SH:OpenTime_RBV")
    shutter.put("SH:Cmd", "Open")
    deadline_s = time.monotonic() + 20
    while shutter.get("SH:OpenTime_RBV") < before_s + 0.2:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert shutter.get("SH:Status", text=True) == "Open"


def test_watchdog_closes_at_its_deadline(shutter):
    trips = shutter.get("SH:WatchdogTrips_RBV")
    shutter.watch("SH:Status")
    shutter.put("SH:MaxOpen", 0.15)
    shutter.put("SH:Cmd", "Open")
    shutter.eventually("SH:Status", "Closed", text=True)
    assert shutter.get("SH:LastOpenTime_RBV") == pytest.approx(0.15, abs=1e-6)  # the dose is that of the deadline
    assert shutter.get("SH:WatchdogTrips_RBV") == trips + 1
    assert shutter.get("SH:Cmd", text=True) == "Close"
    (opened_s, _), (closed_s, _) = shutter.seen("SH:Status", least=2)
    # published; how late exactly: benchmarks/ioc_latency.py (2 ms on a quiet machine)
    assert 0.149 <= closed_s - opened_s < 5.0


def test_watchdog_set_while_open_applies(shutter):
    shutter.put("SH:Cmd", "Open")
    shutter.put("SH:MaxOpen", 0.01)
    shutter.eventually("SH:Status", "Closed", text=True)


def test_stuck_shutter_ignores_commands_but_not_the_watchdog(shutter):
    shutter.put("SH:Cmd", "Open")
    shutter.put("SH:Fault", "Stuck")
    shutter.put("SH:Cmd", "Close")
    assert shutter.get("SH:Status", text=True) == "Open"
    shutter.put("SH:MaxOpen", 0.05)
    shutter.eventually("SH:Status", "Closed", text=True)
    shutter.put("SH:Cmd", "Open")
    assert shutter.get("SH:Status", text=True) == "Closed"


def test_lost_limit_switches_read_unknown(shutter):
    shutter.put("SH:Fault", "Unknown")
    assert shutter.get("SH:Status", text=True) == "Unknown"
    shutter.put("SH:Cmd", "Open")
    assert shutter.get("SH:Status", text=True) == "Unknown"
    shutter.put("SH:Fault", "None")
    assert shutter.get("SH:Status", text=True) == "Open"


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_impossible_transmission_is_refused(ioc, value):
    ioc.put("ATT:Transmission", 0.5)
    assert ioc.refused("ATT:Transmission", value)
    assert ioc.get("ATT:Transmission_RBV") == 0.5
    assert not ioc.refused("ATT:Transmission", 1.0)  # and the alarm clears


def test_ion_chamber_sees_attenuator_and_ring(ioc):
    ioc.put("ATT:Transmission", 1.0)
    full_na = np.mean([ioc.get("I0:Current_RBV") for _ in range(5)])
    ring_ma = ioc.get("RING:Current_RBV")
    assert 0 < ring_ma <= 500.0
    ioc.put("ATT:Transmission", 0.25)
    assert ioc.get("I0:Current_RBV") == pytest.approx(0.25 * full_na, rel=0.05)
    ioc.put("ATT:Transmission", 1.0)


def test_galvanostatic_charge_runs_in_twin_time(ioc):
    ioc.put("POT:NominalCapacity", 2.0)
    ioc.put("POT:CRate", 0.5)
    assert ioc.get("POT:CurrentSP") == pytest.approx(1.0)
    ioc.put("POT:CurrentSP", 2.0)
    assert ioc.get("POT:CRate") == pytest.approx(1.0)
    ioc.put("POT:Mode", "Galvanostatic")
    ioc.put("TWIN:TimeScale", 3600.0)
    soc = ioc.get("POT:SOC_RBV")
    ioc.put("POT:Start", 1)
    assert ioc.get("POT:Status", text=True) == "Running"
    assert ioc.get("POT:Start") == 0
    time.sleep(0.3)
    ioc.put("POT:Stop", 1)
    ioc.put("TWIN:TimeScale", 1.0)
    assert ioc.get("POT:Status", text=True) == "Idle"
    assert ioc.get("POT:SOC_RBV") > soc + 0.05
    assert ioc.get("POT:Capacity_RBV") > 0
    assert ioc.get("POT:Current_RBV") == 0.0
    assert ioc.get("TWIN:Time_RBV") > 1000


def test_cut_off_ends_the_charge(ioc):
    ioc.put("POT:Mode", "Galvanostatic")
    ioc.put("POT:NominalCapacity", 1.0)
    ioc.put("POT:CRate", 1.0)
    ioc.put("POT:CutoffHigh", 4.3)
    ioc.put("TWIN:TimeScale", 36000.0)
    ioc.put("POT:Start", 1)
    ioc.eventually("POT:Status", "Done", text=True)
    ioc.put("TWIN:TimeScale", 1.0)
    assert ioc.get("POT:Current_RBV") == 0.0
    assert ioc.get("POT:SOC_RBV") < 1.0


def test_wrong_potentiostat_settings_give_fault_and_reason(ioc):
    ioc.put("POT:Mode", "Galvanostatic")
    ioc.put("POT:CRate", 1.0)
    ioc.put("POT:CutoffLow", 4.4)
    ioc.put("POT:CutoffHigh", 4.3)
    ioc.put("POT:Start", 1)
    assert ioc.get("POT:Status", text=True) == "Fault"
    assert "4.4" in ioc.get("POT:StatusMessage_RBV", text=True)
    ioc.put("POT:CutoffLow", 2.8)


def test_truth_follows_the_stage_and_is_flushed_on_request(ioc):
    ioc.put("TXM:X", 12.0)
    ioc.put("CAM:cam1:AcquireTime", 0.001)
    ioc.put("CAM:cam1:Acquire", 1)
    ioc.put("TRUTH:Flush", 1)
    assert ioc.get("TRUTH:PositionX_RBV") == pytest.approx(12.0, abs=3.0)  # jitter and drift are um
    lines = (ioc.simulator.work_directory / "truth.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["stage_x_um"] == 12.0
    with np.load(ioc.simulator.work_directory / "truth_dose.npz") as dose:
        assert dose["dose_gy"].ndim == 2
