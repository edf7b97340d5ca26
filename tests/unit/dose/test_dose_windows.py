"""Mean rates in a running window: when an exposure may come, and that no clock can be set to cheat or to block."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import DoseLimit, DoseRefused, DoseTarget

WINDOW_S = 60.0


@pytest.fixture
def clocks(cell):
    return cell.Clocks()


def mean(cell, frames, window_s=WINDOW_S, **options):
    """Return a limit that allows so many frames of one place per window."""
    return cell.rate(frames * cell.frame_gy / window_s, window_s, "mean", **options)


# -- when -------------------------------------------------------------------------------------------------------------


def test_the_exposure_after_the_last_that_fits_waits_until_the_first_has_left(tmp_path, cell, clocks):
    with cell.account(tmp_path, [mean(cell, 3.5)], clocks=clocks) as dose:
        for _ in range(3):
            assert dose.time_until_allowed_s(cell.frame()) == 0
            cell.expose(dose, cell.frame())
            clocks.run(10)
        with pytest.raises(
            DoseRefused, match=r"mean dose rate in 60 s would be .* above the limit 'mean'.*wait"
        ) as caught:
            dose.reserve(cell.frame())
        assert caught.value.kind == "windowed rate"
        assert caught.value.unit == "Gy/s"
        assert caught.value.would_be_gy == pytest.approx(4 * cell.frame_gy / WINDOW_S, rel=1e-3)
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(30)
        clocks.run(29.9)
        with pytest.raises(DoseRefused):
            dose.reserve(cell.frame())
        clocks.run(dose.time_until_allowed_s(cell.frame()))
        cell.expose(dose, cell.frame())


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0.01, 50), st.floats(-20, 20), st.floats(0.01, 0.2)), min_size=1, max_size=12),
    frames=st.floats(1.1, 6),
)
def test_waiting_as_long_as_told_is_enough_and_less_is_not(tmp_path_factory, cell, steps, frames):
    clocks = cell.Clocks()
    limits = [mean(cell, frames), mean(cell, 1.7 * frames, 150.0)]
    with cell.account(tmp_path_factory.mktemp("wait"), limits, clocks=clocks) as dose:
        for pause_s, x_um, seconds in steps:
            clocks.run(pause_s)
            request = cell.frame(x_um, open_time_s=seconds)
            wait_s = dose.time_until_allowed_s(request)
            if math.isinf(wait_s):
                assert dose.headroom(cell.frame(500.0, open_time_s=seconds))[0].fraction > 1, "alone it is too much"
                continue
            if wait_s > 0:
                clocks.run(wait_s - 1e-3)
                with pytest.raises(DoseRefused):
                    dose.reserve(request)
                clocks.run(1e-3)
            cell.expose(dose, request)


def test_an_exposure_that_is_too_much_alone_is_never_allowed(tmp_path, cell, clocks):
    limits = [mean(cell, 3.5), cell.limit(1e6), cell.rate(1e9)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        assert dose.time_until_allowed_s(cell.frame(open_time_s=0.048 * 4)) == math.inf
        assert dose.time_until_allowed_s(cell.frame(open_time_s=10.0)) == math.inf
        assert dose.time_until_allowed_s(cell.frame(flux_ph_s=1e15)) == math.inf
        assert dose.time_until_allowed_s(cell.frame(open_time_s=1e4, on_sample=False)) == 0


def test_a_limit_on_another_place_or_an_advisory_one_does_not_wait(tmp_path, cell, clocks):
    with cell.account(tmp_path, [mean(cell, 1.5), mean(cell, 0.5, advisory=True)], clocks=clocks) as dose:
        first = dose.reserve(cell.frame())
        assert "mean dose rate in 60 s" in first.warnings[0]
        dose.settle(first.id, open_time_s=0.048, flux_ph_s=1e10)
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(60)
        assert dose.time_until_allowed_s(cell.frame(100.0)) == 0


def test_an_exposure_longer_than_the_window_counts_by_what_falls_into_one(tmp_path, cell, clocks):
    """At a steady rate of 0.9 of the limit it may last for ever."""
    steady = cell.frame_gy / 0.048
    with cell.account(tmp_path, [cell.rate(steady / 0.9, 2.0, "mean")], clocks=clocks) as dose:
        reservation = dose.reserve(cell.frame(open_time_s=100.0))
        clocks.run(100)
        dose.settle(reservation.id, open_time_s=100.0, flux_ph_s=1e10)
        assert dose.time_until_allowed_s(cell.frame(open_time_s=100.0)) == pytest.approx(2.0)


def test_an_open_reservation_counts_until_it_is_settled_or_void(tmp_path, cell, clocks):
    with cell.account(tmp_path, [mean(cell, 2.5)], clocks=clocks) as dose:
        reservation = dose.reserve(cell.frame(open_time_s=0.096))
        clocks.run(1000)
        with pytest.raises(DoseRefused):
            dose.reserve(cell.frame())
        dose.void(reservation.id, "the shutter never opened")
        reservation = dose.reserve(cell.frame(open_time_s=0.096))
        dose.settle(reservation.id, open_time_s=0.01, flux_ph_s=1e10)
        dose.reserve(cell.frame(open_time_s=0.096))


# -- how much ---------------------------------------------------------------------------------------------------------


def test_the_allowed_flux_is_granted_and_a_little_more_is_not(tmp_path, cell, clocks):
    cases = {
        "dose": [cell.limit(3.3 * cell.frame_gy)],
        "rate": [cell.rate(0.4 * cell.frame_gy / 0.048)],
        "windowed rate": [mean(cell, 3.3)],
    }
    for kind, limits in cases.items():
        with cell.account(tmp_path / kind, [*limits, cell.limit(1e9, "far")], sigma_rel=0.1, clocks=clocks) as dose:
            for _ in range(3 if kind != "rate" else 0):
                dose.record_unreserved(cell.frame(flux_ph_s=0.8e10), "before")
            fraction = dose.allowed_flux_fraction(cell.frame())
            assert 0.2 < fraction < 1
            with pytest.raises(DoseRefused) as caught:
                dose.reserve(cell.frame(flux_ph_s=1e10 * fraction * 1.001))
            assert caught.value.kind == kind
            dose.reserve(cell.frame(flux_ph_s=1e10 * fraction))
            assert dose.allowed_flux_fraction(cell.frame(300.0, flux_ph_s=1.0)) == 1


def test_no_flux_is_allowed_where_the_limit_is_reached(tmp_path, cell):
    with cell.account(tmp_path, [cell.limit(cell.frame_gy)]) as dose:
        dose.record_unreserved(cell.frame(open_time_s=1.0), "by hand")
        assert dose.allowed_flux_fraction(cell.frame()) == 0


def test_headroom_has_every_limit_the_binding_one_first(tmp_path, cell, clocks):
    limits = [
        cell.limit(100 * cell.frame_gy, "far"),
        cell.limit(cell.frame_gy, "advice", advisory=True),
        cell.rate(2 * cell.frame_gy / 0.048, name="rate"),
        mean(cell, 1.6),
    ]
    with cell.account(tmp_path, limits, sigma_rel=0.1, clocks=clocks) as dose:
        dose.record_unreserved(cell.frame(), "before")
        states = dose.headroom(cell.frame())
    assert [state.limit.name for state in states] == ["mean", "rate", "far", "advice"]
    assert [state.fraction for state in states] == pytest.approx([1.1 * 2 / 1.6, 1.1 / 2, 0.022, 2.2], rel=1e-3)
    assert states[0].now == pytest.approx(1.1 * cell.frame_gy / 60, rel=1e-3)
    assert states[1].now == 0
    assert all(state.fraction == state.would_be / state.limit.value for state in states)


def test_a_windowed_limit_on_another_target(tmp_path, cell, clocks):
    ratio = cell.stack.dose_per_fluence(8562.0, "cathode", "electrolyte") / cell.stack.dose_per_fluence(
        8562.0, "cathode", "NMC622"
    )
    electrolyte = DoseLimit(
        "radiolysis", "electrolyte", rate_gy_s=2.5 * ratio * cell.frame_gy / WINDOW_S, window_s=WINDOW_S
    )
    also = [DoseTarget("cathode", "electrolyte")]
    with cell.account(tmp_path, [mean(cell, 50), electrolyte], also=also, clocks=clocks) as dose:
        for _ in range(2):
            cell.expose(dose, cell.frame())
        with pytest.raises(DoseRefused, match="radiolysis"):
            dose.reserve(cell.frame())
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(WINDOW_S)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_gy": 1.0, "window_s": 60.0}, "window_s goes with rate_gy_s"),
        ({"rate_gy_s": 1.0, "window_s": 0.0}, "window 0 s must be positive"),
        ({"rate_gy_s": 1.0, "window_s": math.inf}, "must be positive and finite"),
    ],
)
def test_impossible_windows(options, message):
    with pytest.raises(ValueError, match=message):
        DoseLimit("l", "NMC622", **options)


# -- maps -------------------------------------------------------------------------------------------------------------


def test_windowed_rate_map_is_the_mean_of_what_came_last(tmp_path, cell, clocks):
    with cell.account(tmp_path, clocks=clocks) as dose:
        cell.expose(dose, cell.frame())
        clocks.run(100)
        cell.expose(dose, cell.frame(100.0, open_time_s=0.096))
        clocks.run(5)
        recent, longer = dose.windowed_rate_map(60.0), dose.windowed_rate_map(200.0)
        row = np.argmin(abs(recent.y_um))
        first, second = (np.argmin(abs(recent.x_um - x_um)) for x_um in (0.0, 100.0))
        assert recent.rate_gy_s[row, first] == 0
        assert recent.rate_gy_s[row, second] == pytest.approx(2 * cell.frame_gy / 60, rel=1e-3)
        assert longer.rate_gy_s[row, first] == pytest.approx(cell.frame_gy / 200, rel=1e-3)
        earlier = dose.windowed_rate_map(60.0, now=clocks.up_s - 30)
        assert earlier.rate_gy_s.max() == 0
        assert dose.windowed_rate_map(60.0, now=clocks.up_s - 104).rate_gy_s[row, first] > 0
        with pytest.raises(ValueError, match="window 0 s"):
            dose.windowed_rate_map(0.0)


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, 40), st.floats(-30, 30)), min_size=1, max_size=20))
def test_the_running_sum_is_what_adding_up_afresh_gives(tmp_path_factory, cell, steps):
    clocks = cell.Clocks()
    with cell.account(tmp_path_factory.mktemp("sum"), [mean(cell, 1e6)], clocks=clocks) as dose:
        for pause_s, x_um in steps:
            clocks.run(pause_s)
            dose.record_unreserved(cell.frame(x_um), "x")
            fresh = dose.windowed_rate_map(WINDOW_S).rate_gy_s
            running = dose._windows.dose(dose._state.map.full, WINDOW_S, 0, clocks.up_s) / WINDOW_S
            assert running == pytest.approx(fresh, rel=1e-9, abs=1e-9 * fresh.max())
        clocks.run(WINDOW_S)
        assert dose._windows.dose(dose._state.map.full, WINDOW_S, 0, clocks.up_s).max() == 0


def test_the_window_keeps_only_what_is_inside(tmp_path, cell, clocks):
    with cell.account(tmp_path, [mean(cell, 1e6)], clocks=clocks) as dose:
        for _ in range(40):
            clocks.run(10)
            cell.expose(dose, cell.frame())
        total = dose._windows._sums[WINDOW_S, 0]
        assert len(total._inside) <= 7


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0], ids=["back", "forth"])
@pytest.mark.parametrize("reopen", [False, True], ids=["running", "reopened"])
def test_a_step_of_the_wall_clock_neither_frees_nor_blocks(tmp_path, cell, clocks, step_s, reopen):
    limits = [mean(cell, 1.5), cell.limit(1e6)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        cell.expose(dose, cell.frame())
        clocks.run(20)
        clocks.wall_s += step_s
        if not reopen:
            check_wait(dose, cell, clocks)
    if reopen:
        with cell.account(tmp_path, limits, clocks=clocks) as dose:
            check_wait(dose, cell, clocks)


def check_wait(dose, cell, clocks):
    assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(40)
    with pytest.raises(DoseRefused):
        dose.reserve(cell.frame())
    clocks.run(40)
    cell.expose(dose, cell.frame())
    assert dose.dose_at(0, 0).peak_gy == pytest.approx(2 * cell.frame_gy, rel=1e-3), "dose itself knows no clock"


@pytest.mark.parametrize(
    ("off_s", "wait_s", "reason"),
    [
        (5.0, 15.0, "20 s after the exposure the machine went down for 5 s, 20 s ago: the wall clock tells"),
        (3600.0, 0.0, "an hour later it is long out of the window"),
        (-3600.0, 20.0, "the clock was set back meanwhile: at least the 20 s since the boot have passed for sure"),
    ],
)
def test_across_a_reboot_the_wall_clock_tells_but_never_less_than_the_time_since_boot(
    tmp_path, cell, clocks, off_s, wait_s, reason
):
    limits = [mean(cell, 1.5)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        cell.expose(dose, cell.frame())
        clocks.run(20)
        dose.note("alive")
    clocks.reboot(off_s=off_s)
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(wait_s), reason


def test_a_wall_clock_step_before_a_reboot_does_not_matter_either(tmp_path, cell, clocks):
    """Ages within the earlier boot are those of its monotonic clock."""
    limits = [mean(cell, 1.5)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        cell.expose(dose, cell.frame())
        clocks.run(10)
        clocks.wall_s += 7200
        dose.note("the clock was set")
    clocks.reboot(off_s=15)
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(60 - 10 - 15 - 20)


def test_windows_are_filled_again_on_opening(tmp_path, cell, clocks):
    limits = [mean(cell, 3.5), mean(cell, 9.5, 300.0)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        for x_um in (0.0, 1.3, 0.4):
            cell.expose(dose, cell.frame(x_um))
            clocks.run(11)
        waits = [dose.time_until_allowed_s(cell.frame(x_um)) for x_um in (0.0, 10.0, 50.0)]
        states = dose.headroom(cell.frame())
    with cell.account(tmp_path, limits, clocks=clocks, read_only=True) as dose:
        assert [dose.time_until_allowed_s(cell.frame(x_um)) for x_um in (0.0, 10.0, 50.0)] == pytest.approx(waits)
        assert [state.fraction for state in dose.headroom(cell.frame())] == pytest.approx([s.fraction for s in states])


def test_what_a_dead_process_left_open_leaves_the_window_one_day(tmp_path, cell, clocks, monkeypatch):
    """When it was delivered is not known, only that it was over before another process wrote."""
    limits = [mean(cell, 1.5)]
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        dose.reserve(cell.frame())
    clocks.run(1000)
    monkeypatch.setattr("os.getpid", lambda: 4711)
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(60), "it may have ended just now"
        dose.note("another process")
        clocks.run(50)
    with cell.account(tmp_path, limits, clocks=clocks) as dose:
        assert dose.time_until_allowed_s(cell.frame()) == pytest.approx(10), "it had ended when the note was written"
        clocks.run(10)
        cell.expose(dose, cell.frame())
        assert len(dose.unsettled) == 1, "its dose counts on"
