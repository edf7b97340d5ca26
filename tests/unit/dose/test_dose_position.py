"""Where the sample is said to be between two runs, and what its uncertainty does to decisions."""

import numpy as np
import pytest

from xbat_live.dose import DoseRefused, SamplePosition, carried_position
from xbat_live.dose.position import PACE_UM_PER_MIN


def run_of(dose, cell, clocks, *, rate_xy, start_xy=(0.0, 0.0), n=12, every_s=10.0, run="run", sigma_um=0.0, noise=0.0):
    """Expose `n` times while the sample drifts; return the drift at the end, um."""
    rng = np.random.default_rng(3)
    for number in range(n):
        minutes = number * every_s / 60
        x_um, y_um = (start + rate * minutes for start, rate in zip(start_xy, rate_xy, strict=True))
        dose.locate(SamplePosition(x_um + noise * rng.normal(), y_um + noise * rng.normal(), sigma_um))
        cell.expose(dose, cell.frame(0.0, 0.0, run_uid=run))
        if number < n - 1:
            clocks.run(every_s)
    return x_um, y_um


def test_the_next_run_goes_on_where_the_last_one_was(cell, tmp_path):
    clocks = cell.Clocks()
    with cell.account(tmp_path, clocks=clocks) as dose:
        end = run_of(dose, cell, clocks, rate_xy=(0.0, 0.6), sigma_um=0.1)
    clocks.run(30)
    with cell.account(tmp_path, clocks=clocks) as dose:
        position = dose.position
        # known for 110 s: of the 30 s since then 110 s * (1 - exp(-30 / 110)) = 26 s count, 0.26 um
        assert position.drift_y_um == pytest.approx(end[1] + 0.26, abs=0.01)
        assert position.drift_x_um == pytest.approx(end[0], abs=1e-9)
        assert position.sigma_um == pytest.approx(np.hypot(0.1, 0.26 / 3), rel=0.02)


@pytest.mark.parametrize(
    ("gap_s", "most_um"),
    [
        (3600, 1.2),  # a rate seen for 110 s is worth 110 s of drift, not an hour's
        (7 * 86400, 1.2),
    ],
)
def test_a_rate_is_trusted_for_as_long_as_it_was_seen(cell, tmp_path, gap_s, most_um):
    clocks = cell.Clocks()
    with cell.account(tmp_path, clocks=clocks) as dose:
        end = run_of(dose, cell, clocks, rate_xy=(0.6, 0.0))
    clocks.run(gap_s)
    with cell.account(tmp_path, clocks=clocks) as dose:
        assert 0.9 < dose.position.drift_x_um - end[0] < most_um
        assert dose.position.sigma_um > PACE_UM_PER_MIN * gap_s / 60 / 3


def test_jumps_between_runs_are_no_rate(cell, tmp_path):
    """Each run sees 0.6 um/min; what was assumed between them was wrong each time and must not count."""
    clocks = cell.Clocks()
    with cell.account(tmp_path, clocks=clocks) as dose:
        for number, start_x in enumerate((0.0, -5.0, 8.0)):
            run_of(dose, cell, clocks, rate_xy=(0.6, -0.2), start_xy=(start_x, 0), run=f"run {number}", noise=0.02)
            clocks.run(60)
        rate = carried_position(dose.ledger).rate_xy_um_per_min
    assert rate == pytest.approx((0.6, -0.2), abs=0.03)


def test_another_boot_and_a_clock_set_back(cell, tmp_path):
    clocks = cell.Clocks()
    with cell.account(tmp_path, clocks=clocks) as dose:
        run_of(dose, cell, clocks, rate_xy=(0.6, 0.0))
    clocks.reboot(off_s=40)
    with cell.account(tmp_path, clocks=clocks, read_only=True) as dose:
        assert dose.carried.age_s == pytest.approx(60)  # off, and 20 s up
    clocks.wall_s -= 7200
    with cell.account(tmp_path, clocks=clocks, read_only=True) as dose:
        assert dose.carried.age_s == 0
        assert np.isfinite(dose.position.drift_x_um)


def test_nothing_known_is_no_drift(cell, tmp_path):
    with cell.account(tmp_path) as dose:
        cell.expose(dose, cell.frame())
        assert dose.carried is None
        assert dose.position == SamplePosition()
    with cell.account(tmp_path) as dose:
        assert dose.carried is None


def test_a_limit_holds_wherever_the_beam_may_really_be(cell, tmp_path):
    """38 um away a spot is full. Known to 0.1 um: the place is fresh; known to 5 um: the full one may be here."""
    with cell.account(tmp_path, [cell.limit(10.5 * cell.frame_gy)]) as dose:
        for _ in range(10):
            cell.expose(dose, cell.frame(0.0, 0.0))
        near = cell.frame(38.0, 0.0)
        dose.locate(SamplePosition(sigma_um=0.1))
        left = dose.exposures_left(near)
        assert left == 10
        dose.locate(SamplePosition(sigma_um=5.0))
        assert dose.exposures_left(near) == 0
        with pytest.raises(DoseRefused, match="are there already"):
            dose.reserve(near)
        dose.locate(SamplePosition(sigma_um=0.1))
        granted = dose.reserve(near)
        assert granted.request == near


def test_the_dose_that_is_told_is_that_of_the_place_itself(cell, tmp_path):
    with cell.account(tmp_path, [cell.limit(1e9)]) as dose:
        cell.expose(dose, cell.frame(0.0, 0.0))
        dose.locate(SamplePosition(sigma_um=5.0))
        settled = cell.expose(dose, cell.frame(45.0, 0.0))
        assert settled.peak_total_gy == pytest.approx(cell.frame_gy, rel=0.02)


@pytest.mark.parametrize("position", [(np.nan, 0, 0), (0, np.inf, 0), (0, 0, -1), (0, 0, np.nan)])
def test_an_impossible_position_is_refused(position):
    with pytest.raises(ValueError, match="is not possible"):
        SamplePosition(*position)
