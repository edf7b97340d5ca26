"""Steps of the potentiostat: complete, consistent, and written before they are started."""

from __future__ import annotations

import pytest
from ophyd.sim import make_fake_device

from xbat_live.devices import Potentiostat, PotentiostatError, PotentiostatStep


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"mode": "charge"}, "unknown"),
        ({"mode": "galvanostatic"}, "either c_rate_per_h"),
        ({"mode": "galvanostatic", "c_rate_per_h": 0.1, "current_ma": 1.0}, "either c_rate_per_h"),
        ({"mode": "hold"}, "needs hold_v"),
        ({"mode": "ocv", "cutoff_low_v": 4.3, "cutoff_high_v": 2.8}, "not below"),
        ({"mode": "hold", "hold_v": 5.5}, "outside the cut-offs"),
    ],
)
def test_an_inconsistent_step_is_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        PotentiostatStep(**values)


@pytest.mark.parametrize(
    ("step", "written", "reason"),
    [
        (PotentiostatStep("ocv"), {"mode": "OCV"}, "no current, nothing to set"),
        (
            PotentiostatStep("galvanostatic", c_rate_per_h=1 / 12),
            {"mode": "Galvanostatic", "c_rate_per_h": 1 / 12},
            "C/12",
        ),
        (
            PotentiostatStep("galvanostatic", current_ma=-0.5),
            {"mode": "Galvanostatic", "c_rate_per_h": 0.0, "current_setpoint_ma": -0.5},
            "rate first: the IOC derives the current from it",
        ),
        (PotentiostatStep("hold", hold_v=4.3), {"mode": "Hold", "hold_v": 4.3}, ""),
    ],
)
def test_settings_of_a_step(step, written, reason):
    settings = step.settings()
    assert {key: value for key, value in settings.items() if not key.startswith("cutoff")} == written, reason
    assert list(settings)[-1] == "mode"
    assert (settings["cutoff_low_v"], settings["cutoff_high_v"]) == (2.8, 4.9)


def fake_potentiostat(after_start: str):
    device = make_fake_device(Potentiostat)("P:", name="potentiostat")
    device.status.sim_put("Idle")
    device.start_command.sim_set_putter(lambda *args, **kwargs: device.status.sim_put(after_start))
    return device


def test_set_writes_the_settings_and_starts():
    device = fake_potentiostat("Running")
    device.set(PotentiostatStep("galvanostatic", c_rate_per_h=0.25, cutoff_high_v=4.3)).wait(timeout=5)
    assert (device.mode.get(), device.c_rate_per_h.get(), device.cutoff_high_v.get()) == ("Galvanostatic", 0.25, 4.3)


def test_a_fault_fails_the_start_and_says_where():
    with pytest.raises(PotentiostatError, match=r"potentiostat \(P:\): step 'open circuit.*Fault"):
        fake_potentiostat("Fault").set(PotentiostatStep("ocv")).wait(timeout=5)


@pytest.mark.parametrize(
    ("success", "stopped", "reason"),
    [
        (False, True, "bps.stop, or a plan that failed: the cell goes to open circuit"),
        (True, False, "the RunEngine stops what it has set when it pauses: the cell stays under control"),
    ],
)
def test_a_pause_of_the_plan_does_not_stop_the_cell(success, stopped, reason):
    device = fake_potentiostat("Running")
    device.stop(success=success)
    assert bool(device.stop_command.get()) is stopped, reason


def test_readings_have_units():
    described = fake_potentiostat("Running").describe()
    units = {key.removeprefix("potentiostat_"): value.get("units") for key, value in described.items()}
    assert units == {
        "mode": None,
        "status": None,
        "voltage_v": "V",
        "current_ma": "mA",
        "capacity_mah": "mAh",
        "soc": "1",
    }
