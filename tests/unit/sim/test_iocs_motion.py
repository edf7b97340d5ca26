"""Velocity profiles and the engine that follows them."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.sim.iocs.motion import Axis, Braking, Trapezoid

finite = st.floats(-1e4, 1e4)
positive = st.floats(1e-2, 1e4)


@pytest.mark.parametrize(
    ("distance", "duration_s", "why"),
    [
        (0.0, 0.0, "nowhere to go"),
        (2000.0, 1.02, "distance / velocity + one acceleration time"),
        (40.0, 0.04, "just reaches full speed: two ramps"),
        (10.0, 0.02, "triangle: 2 sqrt(d / a)"),
    ],
)
def test_duration_of_a_stage_move(distance, duration_s, why):
    assert Trapezoid(0.0, distance, 2000.0, 2000.0 / 0.02).duration_s == pytest.approx(duration_s), why


@given(start=finite, target=finite, velocity=positive, acceleration=positive, fraction=st.floats(0, 1))
def test_profile_stays_on_the_way_and_below_its_speed(start, target, velocity, acceleration, fraction):
    leg = Trapezoid(start, target, velocity, acceleration)
    t_s = fraction * leg.duration_s
    low, high = sorted((start, target))
    assert low - 1e-6 <= leg.position(t_s) <= high + 1e-6
    assert abs(leg.speed(t_s)) <= velocity * (1 + 1e-9)
    assert leg.position(0.0) == start
    assert leg.position(leg.duration_s) == target


@given(start=finite, target=finite, velocity=positive, acceleration=positive, fraction=st.floats(0.01, 0.98))
def test_speed_is_the_derivative_of_position(start, target, velocity, acceleration, fraction):
    leg = Trapezoid(start, target, velocity, acceleration)
    if leg.distance < 1e-3:
        return
    step_s = 1e-4 * leg.duration_s
    t_s = fraction * leg.duration_s
    slope = (leg.position(t_s + step_s) - leg.position(t_s - step_s)) / (2 * step_s)
    scale = acceleration * leg.ramp_s
    assert slope == pytest.approx(leg.speed(t_s), abs=1e-3 * scale + 1e-7)


@given(velocity=finite.filter(lambda v: abs(v) > 1e-3), acceleration=positive)
def test_braking_ends_at_its_target(velocity, acceleration):
    leg = Braking(5.0, velocity, acceleration)
    assert leg.position(leg.duration_s) == pytest.approx(leg.target)
    assert leg.speed(leg.duration_s) == pytest.approx(0.0, abs=1e-9)
    assert (leg.target - 5.0) * velocity > 0


def make_axis(**changes):
    return Axis(
        **{"position": 0.0, "velocity": 1e5, "acceleration_s": 1e-3, "travel": (-100.0, 100.0), "tick_s": 1e-3}
        | changes
    )


@pytest.mark.parametrize(("target", "reached"), [(50.0, 50.0), (1e9, 100.0), (-1e9, -100.0)])
def test_axis_goes_to_target_or_hard_stop(target, reached):
    async def run():
        axis, seen = make_axis(), []

        async def listener(position, moving):
            seen.append((position, moving))

        axis.listen(listener)
        await axis.move(target)
        return axis, seen

    axis, seen = asyncio.run(run())
    assert (axis.position, axis.moving) == (reached, False)
    assert seen[0] == (0.0, True)
    assert seen[-1] == (reached, False)
    assert [moving for _, moving in seen].count(False) == 1


def test_all_who_wait_for_a_retargeted_move_see_it_end():
    async def run():
        axis = make_axis(velocity=500.0, travel=(-1e4, 1e4))
        first = asyncio.create_task(axis.move(1000.0))
        await asyncio.sleep(0.02)
        await axis.move(-3.0)
        await first
        return axis.position

    assert asyncio.run(run()) == -3.0


def test_failing_listener_does_not_stop_the_axis(caplog):
    async def run():
        axis = make_axis()

        async def broken(position, moving):
            raise RuntimeError("listener")

        axis.listen(broken)
        await axis.move(1.0)
        return axis.position

    assert asyncio.run(run()) == 1.0
    assert "listener" in caplog.text
