"""Drift and jitter are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.imaging import DriftModel
from xbat_live.imaging.motion import separate_drift

PIXEL_UM = 0.03324


def test_the_drift_of_the_paper_is_found_under_its_jitter() -> None:
    # 5.2 um in 840 min along y; jitter 0.35 um rms along x; one frame per 15 min.
    rng = np.random.default_rng(4)
    model = DriftModel()
    for i in range(57):
        drift = np.array([5.2 / 840, 0.6 / 840]) * 15 * i
        jitter = rng.normal(0, 1, 2) * (0.05, 0.35)
        motion = model.update(900.0 * i, drift + jitter, (0.001, 0.001))
    assert motion.drift_yx_um[0] == pytest.approx(5.2, rel=0.05)
    assert abs(motion.drift_yx_um[1] - 0.6) < 3 * motion.sigma_drift_yx_um[1] + 0.1
    assert motion.rate_um_per_min[0] == pytest.approx(5.2 / 840, rel=0.1)
    assert model.jitter_sigma_yx_um[1] == pytest.approx(0.35, rel=0.4)


def test_one_outlier_is_named_and_moves_the_drift_little() -> None:
    model, rng = DriftModel(), np.random.default_rng(0)
    for i in range(30):
        model.update(60.0 * i, rng.normal((0.01 * i, 0), 0.05), (0.001, 0.001))
    motion = model.update(1800.0, (8.0, 0.0), (0.001, 0.001))
    assert motion.outlier_yx == (True, False)
    assert motion.drift_yx_um[0] == pytest.approx(0.3, abs=0.2)
    assert motion.jitter_yx_um[0] == pytest.approx(7.7, abs=0.2)


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=20))
def test_drift_and_jitter_add_up_to_the_shift(steps: list[tuple[float, float, float]]) -> None:
    model, t_s = DriftModel(), 0.0
    for wait_s, y_um, x_um in steps:
        t_s += wait_s
        motion = model.update(t_s, (y_um, x_um), (0.01, 0.01))
        assert np.add(motion.drift_yx_um, motion.jitter_yx_um) == pytest.approx([y_um, x_um], abs=1e-6)
        assert np.isfinite(motion.sigma_drift_yx_um).all()
        assert np.isfinite(motion.jitter_rms_yx_um).all()


def test_the_size_of_the_jitter_is_that_of_the_last_frames_and_not_biased_by_the_first_guess() -> None:
    # A stage that was rough and got quiet; guesses four times off on either side.
    for guess_um in (0.025, 0.4):
        rng, model = np.random.default_rng(3), DriftModel(jitter_um=guess_um)
        first = model.update(0.0, (0.0, 0.0))
        assert first.jitter_rms_yx_um == (guess_um, guess_um), "nothing known yet"
        for i in range(1, 150):
            sigma_um = 0.3 if i < 75 else 0.1
            motion = model.update(60.0 * i, rng.normal((0.02 * i, -0.01 * i), sigma_um), (0.001, 0.001))
            if i == 74:
                assert motion.jitter_rms_yx_um == pytest.approx((0.3, 0.3), rel=0.2)
        assert motion.jitter_rms_yx_um == pytest.approx((0.1, 0.1), rel=0.2)


def test_drift_turns_with_the_sign_of_the_shift() -> None:
    up, down = DriftModel(), DriftModel()
    for i in range(10):
        a = up.update(60.0 * i, (0.1 * i, 0.0))
        b = down.update(60.0 * i, (-0.1 * i, 0.0))
    assert a.drift_yx_um[0] == pytest.approx(-b.drift_yx_um[0])
    assert a.rate_um_per_min[0] > 0 > b.rate_um_per_min[0]


@pytest.mark.parametrize(
    ("t_s", "shift", "sigma", "message"),
    [
        (-1.0, (0, 0), (0, 0), "time runs backwards"),
        (1.0, (np.nan, 0), (0, 0), "finite"),
        (1.0, (0, 0), (-1, 0), "negative"),
        (1.0, (0, 0, 0), (0, 0), "two values"),
    ],
)
def test_bad_input_is_refused(t_s: float, shift: tuple, sigma: tuple, message: str) -> None:
    model = DriftModel()
    model.update(0.0, (0, 0))
    with pytest.raises(ValueError, match=message):
        model.update(t_s, shift, sigma)


@pytest.mark.parametrize("seed", range(4))
def test_drift_and_jitter_of_the_paper_are_told_apart_within_five_percent(seed: int) -> None:
    # 57 frames, 15 min apart; shifts count from the first frame, whose own jitter is therefore in all of them.
    rng, t_s = np.random.default_rng(seed), 900.0 * np.arange(57)
    drift = np.array([5.2 / 840, 0.6 / 840]) * t_s[:, None] / 60
    jitter = rng.normal(0, 1, (57, 2)) * (0.05, 0.35)
    shift = drift + jitter - (drift + jitter)[0]
    live = DriftModel()
    for time_s, moved in zip(t_s, shift, strict=True):
        motion = live.update(float(time_s), moved, (0.001, 0.001))
    assert motion.drift_yx_um[0] == pytest.approx(5.2, rel=0.05)
    parts = live.separation()
    assert np.array_equal(parts.jitter_yx_um, separate_drift(t_s, shift, np.full((57, 2), 0.001)).jitter_yx_um)
    assert parts.drift_yx_um[-1, 0] - parts.drift_yx_um[0, 0] == pytest.approx(5.2, rel=0.02)
    assert parts.jitter_yx_um.std(0) == pytest.approx(jitter.std(0), rel=0.05)
    assert parts.rate_um_per_min_yx[:, 0] == pytest.approx(5.2 / 840, rel=0.1)


def test_a_drift_that_turns_is_followed() -> None:
    rng, t_s = np.random.default_rng(1), 60.0 * np.arange(120)
    drift = 2.0 * np.sin(t_s / 60 / 25)
    parts = separate_drift(t_s, np.stack([drift, -drift], 1) + rng.normal(0, 0.1, (120, 2)))
    assert np.sqrt(np.mean((parts.drift_yx_um[:, 0] - drift) ** 2)) < 0.06
    assert parts.jitter_sigma_yx_um == pytest.approx((0.1, 0.1), rel=0.25)


@pytest.mark.parametrize(
    ("t_s", "shift", "message"),
    [
        ([0, 1, 2], np.zeros((3, 2)), "n >= 4"),
        ([0, 1, 2, 3], np.zeros((4, 3)), r"\(n, 2\)"),
        ([0, 2, 1, 3], np.zeros((4, 2)), "ascend"),
        ([0, 1, 2, 3], np.full((4, 2), np.nan), "finite"),
    ],
)
def test_a_series_that_cannot_be_split_is_refused(t_s: list[float], shift: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        separate_drift(t_s, shift)
