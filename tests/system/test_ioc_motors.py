"""Motor records of the simulated beamline, as any Channel Access client sees them."""

import math
import runpy
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ioc = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["ioc"]


@pytest.fixture
def axis(ioc):
    """X at 0 with its default speed."""
    for field, value in {
        "SPMG": 3,
        "SET": 0,
        "DIR": 0,
        "OFF": 0.0,
        "VELO": 2000.0,
        "HLM": 5000.0,
        "LLM": -5000.0,
    }.items():
        ioc.put(f"TXM:X.{field}", value)
    ioc.put("TXM:X", 0.0)
    return ioc


@pytest.mark.parametrize(
    ("record", "units", "low", "high", "velocity"),
    [
        ("TXM:X", "um", -5000, 5000, 2000),  # stage limits of the contract
        ("TXM:Y", "um", -5000, 5000, 2000),
        ("TXM:Theta", "deg", -180, 180, 90),
        ("MONO:Energy", "eV", 7000, 12000, 200),  # hard X-ray TXM, 3d K edges
    ],
)
def test_record_shows_units_limits_and_speed(ioc, record, units, low, high, velocity):
    fields = {
        name: ioc.get(f"{record}.{name}")
        for name in ("HLM", "LLM", "VELO", "ACCL", "DMOV", "MOVN", "LVIO", "HLS", "LLS")
    }
    assert ioc.get(f"{record}.EGU", text=True) == units
    assert (fields["LLM"], fields["HLM"], fields["VELO"], fields["ACCL"]) == (low, high, velocity, 0.02)
    assert (fields["DMOV"], fields["MOVN"], fields["LVIO"], fields["HLS"], fields["LLS"]) == (1, 0, 0, 0, 0)


def test_put_completes_when_the_axis_has_arrived(axis):
    axis.watch("TXM:X.DMOV")
    axis.watch("TXM:X.RBV")
    start_s = time.monotonic()
    axis.put("TXM:X", 600.0)
    assert time.monotonic() - start_s >= 0.3  # 600 um at 2000 um/s: moves take real time
    assert axis.get("TXM:X.RBV") == 600.0
    assert axis.get("TXM:X.MOVN") == 0
    assert [value for _, value in axis.seen("TXM:X.DMOV", least=2)] == [0, 1]
    positions = [value for _, value in axis.seen("TXM:X.RBV", least=2)]
    assert positions == sorted(positions)
    assert len(positions) >= 7  # at least 20 Hz on the way, by the axis' own clock


def test_null_move_pulses_dmov(axis):
    """ophyd's EpicsMotor waits for the pulse."""
    axis.watch("TXM:X.DMOV")
    axis.put("TXM:X", 0.0)
    assert [value for _, value in axis.seen("TXM:X.DMOV", least=2)] == [0, 1]


def test_stop_ends_the_move_where_it_is(axis):
    axis.send("TXM:X", 4000.0)
    axis.eventually("TXM:X.MOVN", 1)
    axis.put("TXM:X.STOP", 1)
    axis.eventually("TXM:X.DMOV", 1)
    stopped = axis.get("TXM:X.RBV")
    assert 0 < stopped < 4000
    assert axis.get("TXM:X") == stopped  # VAL follows, as the record does
    time.sleep(0.1)
    assert axis.get("TXM:X.RBV") == stopped


@pytest.mark.parametrize("target", [5000.1, -5000.1, 1e9, math.nan], ids=str)
def test_target_outside_soft_limits_is_rejected(axis, target):
    axis.put("TXM:X", target)
    assert axis.get("TXM:X.LVIO") == 1
    assert (axis.get("TXM:X"), axis.get("TXM:X.RBV")) == (0.0, 0.0)
    axis.put("TXM:X", 1.0)
    assert axis.get("TXM:X.LVIO") == 0


def test_limit_itself_is_reached_without_the_switch(axis):
    axis.put("TXM:X.VELO", 50000.0)
    axis.put("TXM:X", 5000.0)
    assert (axis.get("TXM:X.RBV"), axis.get("TXM:X.HLS"), axis.get("TXM:X.LVIO")) == (5000.0, 0, 0)


def test_hard_stop_beyond_wrong_soft_limit_closes_the_switch(axis):
    axis.put("TXM:X.VELO", 50000.0)
    axis.put("TXM:X.HLM", 9000.0)
    axis.put("TXM:X", 8000.0)
    assert axis.get("TXM:X.HLS") == 1
    assert axis.get("TXM:X.RBV") == 5100.0
    axis.put("TXM:X", 0.0)
    assert axis.get("TXM:X.HLS") == 0


def test_new_target_during_a_move(axis):
    axis.send("TXM:X", 3000.0)
    axis.eventually("TXM:X.MOVN", 1)
    axis.put("TXM:X", -50.0)
    assert axis.get("TXM:X.RBV") == -50.0
    assert axis.get("TXM:X.DMOV") == 1


def test_set_mode_defines_the_position_without_moving(axis):
    axis.put("TXM:X", 10.0)
    axis.put("TXM:X.SET", 1)
    axis.put("TXM:X", 25.0)
    axis.put("TXM:X.SET", 0)
    assert axis.get("TXM:X.RBV") == 25.0
    assert axis.get("TXM:X.OFF") == 15.0
    assert axis.get("TXM:X.DRBV") == 10.0
    assert axis.get("TXM:X.HLM") == 5015.0  # soft limits are those of the dial


def test_direction_turns_user_coordinates(axis):
    axis.put("TXM:X", 10.0)
    axis.put("TXM:X.DIR", "Neg")
    assert axis.get("TXM:X.RBV") == -10.0
    axis.put("TXM:X", 5.0)
    assert axis.get("TXM:X.DRBV") == -5.0


def test_pause_and_go(axis):
    axis.send("TXM:X", 1000.0)
    axis.eventually("TXM:X.MOVN", 1)
    axis.put("TXM:X.SPMG", "Pause")
    assert axis.get("TXM:X.RBV") < 1000.0
    axis.put("TXM:X.SPMG", "Go")
    axis.eventually("TXM:X.RBV", 1000.0)


def test_tweak_moves_by_the_step(axis):
    axis.put("TXM:X.TWV", 2.5)
    axis.put("TXM:X.TWF", 1)
    axis.eventually("TXM:X.RBV", 2.5)
    axis.put("TXM:X.TWR", 1)
    axis.eventually("TXM:X.RBV", 0.0)


def bragg_deg(energy_ev):
    """Si(111), d = 3.1356 A."""
    return math.degrees(math.asin(12398.419843 / (2 * 3.1356 * energy_ev)))


def test_energy_and_bragg_follow_each_other(ioc):
    ioc.put("MONO:Energy", 8333.0)  # Ni K edge
    assert ioc.get("MONO:Bragg.RBV") == pytest.approx(bragg_deg(8333.0), abs=1e-9)
    assert ioc.get("MONO:Bragg") == pytest.approx(bragg_deg(8333.0), abs=1e-9)
    ioc.put("MONO:Bragg", bragg_deg(8350.0))
    assert ioc.get("MONO:Energy.RBV") == pytest.approx(8350.0, abs=1e-6)
    assert ioc.get("MONO:Energy") == pytest.approx(8350.0, abs=1e-6)
    assert (ioc.get("MONO:Energy.DMOV"), ioc.get("MONO:Bragg.DMOV")) == (1, 1)


def test_energy_outside_the_range_is_rejected(ioc):
    before = ioc.get("MONO:Energy.RBV")
    ioc.put("MONO:Energy", 6500.0)
    assert (ioc.get("MONO:Energy.LVIO"), ioc.get("MONO:Energy.RBV")) == (1, before)
