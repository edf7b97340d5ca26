"""Moves out of range are refused in plain words before anything moves."""

from __future__ import annotations

import math

import pytest
from ophyd.utils import DisconnectedError, LimitError

from xbat_live.devices import Attenuator, TxmMotor
from xbat_live.devices.monochromator import EnergyMotor


@pytest.mark.parametrize(
    ("position", "allowed", "reason"),
    [
        (0.0, True, "inside"),
        (-100.0, True, "the limit itself"),
        (100.0, True, "the limit itself"),
        (100.001, False, "beyond"),
        (math.nan, False, "the result of a failed registration must not become a move"),
        (math.inf, False, ""),
    ],
)
def test_limits_of_an_axis(make_motor, position, allowed, reason):
    motor = make_motor(TxmMotor, name="stage_x", unit="um", limits=(-100.0, 100.0))
    if allowed:
        motor.check_value(position)
        return
    with pytest.raises(LimitError) as caught:
        motor.move(position, wait=False)
    message = str(caught.value)
    assert all(part in message for part in ("stage_x", f"{position:g} um", "-100 to 100 um", "nothing moved")), reason
    assert motor.user_setpoint.get() == 0


def test_limits_of_zero_and_zero_mean_none_as_in_the_motor_record(make_motor):
    motor = make_motor(TxmMotor, name="stage_x", unit="um", limits=(0.0, 0.0))
    motor.check_value(1e6)


@pytest.mark.parametrize(
    ("energy", "hint", "reason"),
    [
        (8.562, "did you mean 8562 eV", "keV, the commonest slip"),
        (8562000.0, None, "no unit makes that one right"),
        (6500.0, None, "below the crystal's range"),
    ],
)
def test_energy_in_kev_is_recognised(make_motor, energy, hint, reason):
    motor = make_motor(EnergyMotor, name="mono_energy", unit="eV", limits=(7000.0, 12000.0))
    with pytest.raises(LimitError, match="7000 to 12000 eV") as caught:
        motor.check_value(energy)
    assert (hint in str(caught.value)) if hint else ("did you mean" not in str(caught.value)), reason


def test_a_lost_connection_ends_a_move_at_once(make_motor, caplog):
    motor = make_motor(TxmMotor, name="stage_x", unit="um", limits=(-100.0, 100.0))
    motor.user_setpoint.sim_set_putter(lambda *args, **kwargs: None)
    motor.motor_done_move.sim_put(0)
    status = motor.set(5.0)
    motor.motor_done_move._run_subs(sub_type="meta", connected=False)
    with pytest.raises(DisconnectedError, match="stage_x: connection to FAKE:M lost during a move"):
        status.wait(timeout=2)
    assert "lost during a move" in caplog.text


@pytest.mark.parametrize(
    ("value", "hint"), [(50.0, "did you mean 0.5"), (-0.1, "outside 0 to 1"), (math.nan, "outside")]
)
def test_transmission_is_a_fraction(value, hint):
    from ophyd.sim import make_fake_device

    with pytest.raises(LimitError, match=hint):
        make_fake_device(Attenuator)("A:", name="attenuator").set(value)
