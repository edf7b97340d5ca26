"""Fractions against dose, and the dose from which on they fall: shapes that are not known, noise, wild points, no threshold."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.spectra import dose_threshold, fraction_against_dose

MGY = 1e6
T = 35 * MGY


def beyond(dose):
    return np.maximum(dose / T - 1, 0)


# Each shape as a function of dose, and which doses may be called its threshold: the knee, or where it has lost 2 %.
SHAPES = {
    "sharp knee, straight line": (lambda d: 1 - 0.6 * np.maximum(d - T, 0) / (120 * MGY - T), 35, 37.8),
    "sharp knee, to a floor": (lambda d: 0.1 + 0.88 * np.exp(-np.maximum(d - T, 0) / (60 * MGY)), 35, 36.4),
    "reaction that lags, last of three components": (
        lambda d: (1 - 0.85 * (1 - np.exp(-beyond(d) / 1.2))) ** 2,
        35,
        35.5,
    ),
    "plateau that is not flat": (
        lambda d: (1 - 0.03 * np.minimum(d / T, 1) ** 2) * (1 - 0.85 * (1 - np.exp(-beyond(d) / 1.2))),
        35,
        35,
    ),
    "rounded knee": (lambda d: 1 - 0.012 * 2 * np.log1p(np.exp((d - T) / (2 * MGY))), 35, 35.5),
    "gradual": (lambda d: 1 - (d / T) ** 6 / (49 + (d / T) ** 6), 35, 35),
}
NOISES = {"averages of pixels": (50, 0.01, 0.0), "single pixels, some hot": (3000, 0.05, 0.02)}


@cache
def found(shape, noise, seeds):
    fraction = SHAPES[shape][0]
    points, sigma, hot = NOISES[noise]
    results = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        dose = np.sort(rng.uniform(5, 120, points)) * MGY
        values = fraction(dose) + sigma * rng.standard_normal(points)
        wild = rng.random(points) < hot
        values[wild] = rng.uniform(-1, 2, wild.sum())
        results.append(dose_threshold(dose, values, sigma))
    return results


def holds(shape, results):
    _, knee, fallen = SHAPES[shape]
    values = np.array([one.value_gy for one in results]) / MGY
    inside = (0.9 * knee <= values) & (values <= 1.1 * fallen)  # within a tenth of what may be called the threshold
    covered = [all(one.interval_gy[0] <= at * MGY <= one.interval_gy[1] for at in (knee, fallen)) for one in results]
    return inside.mean(), np.mean(covered)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shape", list(SHAPES)[2:5])  # all of them, with more seeds, in the long test
def test_the_threshold_is_found_within_a_tenth_and_the_interval_holds_it(shape, noise):
    within, covered = holds(shape, found(shape, noise, 10))
    assert within >= 0.9
    assert covered >= 0.9


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_holds_the_threshold_in_nine_of_ten_of_a_hundred_seeds(shape, noise):
    within, covered = holds(shape, found(shape, noise, 100))
    assert within >= 0.9
    assert covered >= 0.9


@pytest.mark.parametrize(
    ("fraction", "sigma", "reason", "open_end"),
    [
        (np.ones_like, 0.005, "no fall up to the highest dose", "above"),
        (lambda d: 0.7 + 0.2 * d / d.max(), 0.005, "no fall up to the highest dose", "above"),
        (np.ones_like, 0.2, "would not be seen", "both"),
        (lambda d: 1 - 0.015 * (d > 60 * MGY), 0.001, "less than 0.02", "above"),
        (lambda d: np.exp(-d / (60 * MGY)), 0.01, "falls from the lowest dose on", "below"),
        (lambda d: 1 - 0.9 * d / d.max(), 0.005, "falls from the lowest dose on", "below"),
    ],
    ids=["flat", "rising", "noise only", "a small fall", "decay without plateau", "straight line"],
)
def test_where_the_data_hold_none_that_is_said_instead_of_a_number(fraction, sigma, reason, open_end):
    dose = np.linspace(5, 120, 48) * MGY
    for seed in range(3):
        noise = sigma * np.random.default_rng(seed).standard_normal(dose.size)
        result = dose_threshold(dose, fraction(dose) + noise, sigma)
        assert not result.found
        assert reason in result.reason
        low, high = result.interval_gy
        assert (high == np.inf) == (open_end in ("above", "both"))
        assert (low == 0) == (open_end in ("below", "both"))
        if open_end == "below":
            assert high < 25 * MGY
        if open_end == "above":
            assert low >= dose[-1]


def test_few_points_give_a_wide_interval_and_too_few_none():
    dose = np.linspace(5, 120, 10) * MGY
    fraction = SHAPES["sharp knee, to a floor"][0](dose)
    few = dose_threshold(dose, fraction, 0.02)
    assert few.interval_gy[0] < T < few.interval_gy[1]
    many = np.linspace(5, 120, 100) * MGY
    whole = dose_threshold(many, SHAPES["sharp knee, to a floor"][0](many), 0.02)
    assert np.ptp(few.interval_gy) > 1.5 * np.ptp(whole.interval_gy)
    none = dose_threshold(dose[:5], fraction[:5], 0.02)
    assert "at least 6" in none.reason
    assert np.isnan(none.interval_gy).all()


@given(st.integers(0, 2**16), st.floats(1e-3, 1e3), st.floats(0.2, 5), st.floats(-3, 3))
@settings(max_examples=4, deadline=None)
def test_units_order_gaps_and_offset_do_not_matter(seed, dose_unit, value_unit, offset):
    rng = np.random.default_rng(seed)
    dose = np.linspace(5, 120, 40) * MGY
    values = SHAPES["sharp knee, to a floor"][0](dose) + 0.01 * rng.standard_normal(40)
    plain = dose_threshold(dose, values, 0.01)
    order = rng.permutation(40)
    other = dose_threshold(
        np.append(dose_unit * dose[order], np.nan),
        np.append(offset + value_unit * values[order], 0.5),
        0.01 * value_unit,
        drop=0.02 * value_unit,
    )
    assert other.value_gy == pytest.approx(dose_unit * plain.value_gy, rel=1e-3)
    assert other.interval_gy == pytest.approx(tuple(dose_unit * one for one in plain.interval_gy), rel=1e-2)


def test_pixels_at_the_limit_of_a_fraction_have_no_spread_and_count():
    dose = np.linspace(5, 120, 50) * MGY
    values = SHAPES["sharp knee, straight line"][0](dose)
    sigma = np.where(dose < 30 * MGY, 0.0, 0.01)
    found = dose_threshold(dose, values + sigma * np.random.default_rng(3).standard_normal(50), sigma)
    assert found.value_gy == pytest.approx(T, rel=0.1)


def test_a_sigma_that_is_too_small_is_corrected():
    dose = np.linspace(5, 120, 50) * MGY
    values = SHAPES["sharp knee, to a floor"][0](dose) + 0.03 * np.random.default_rng(1).standard_normal(50)
    honest, hopeful = (dose_threshold(dose, values, sigma) for sigma in (0.03, 0.003))
    assert np.ptp(hopeful.interval_gy) > 0.7 * np.ptp(honest.interval_gy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"dose_gy": -np.ones(9)}, "must not be negative"),
        ({"fraction": np.ones(8)}, "one shape is needed"),
        ({"drop": 0.0}, "a positive number"),
        ({"coverage": 95}, "between 0 and 1"),
    ],
)
def test_bad_input_is_told(change, message):
    with pytest.raises(ValueError, match=message):
        dose_threshold(**({"dose_gy": np.arange(9.0), "fraction": np.ones(9), "sigma": 0.1} | change))


# --- the curve -------------------------------------------------------------------------------------------------------


def maps(shape=(40, 60), seed=0):
    rng = np.random.default_rng(seed)
    dose = rng.uniform(2, 100, shape) * MGY
    return dose, rng.normal(0.6, 0.1, (2, *shape))


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_sigma_is_what_the_averages_scatter_by(scale, statistic):
    pulls = []
    for seed in range(10):
        dose, fractions = maps(seed=seed)
        curve = fraction_against_dose(fractions, dose, bins=12, scale=scale, statistic=statistic)
        assert curve.fraction.shape == curve.sigma.shape == (2, curve.dose_gy.size)
        assert (np.diff(curve.dose_gy) > 0).all()
        pulls.append(((curve.fraction - 0.6) / curve.sigma).ravel())
    assert np.concatenate(pulls).std() == pytest.approx(1.0, abs=0.25)


def test_hot_pixels_do_not_move_the_averages():
    dose, fractions = maps()
    clean = fraction_against_dose(fractions[0], dose, bins=8)
    hot = fractions[0].copy()
    hot.ravel()[::60] = 30.0
    for statistic in ("mean", "median"):
        curve = fraction_against_dose(hot, dose, bins=8, statistic=statistic)
        assert np.abs(curve.fraction - clean.fraction).max() < 0.01
    assert fraction_against_dose(hot, dose, bins=8).left_out >= hot.size // 60


def test_what_does_not_count_is_counted():
    dose, fractions = maps()
    dose[0, :5] = np.nan
    fractions[1, 1, :7] = np.nan
    mask = np.ones(dose.shape, bool)
    mask[2, :3] = False
    curve = fraction_against_dose(fractions, dose, bins=8, statistic="median", mask=mask)
    assert curve.left_out == 15
    assert curve.count.sum(1).tolist() == [dose.size - 15] * 2


def test_intervals_may_be_given_and_those_with_few_pixels_are_left_out():
    dose = np.repeat([1.0, 3.0, 5.0], [20, 5, 20])
    curve = fraction_against_dose(dose / 10, dose, bins=[0, 2, 4, 6])
    assert curve.dose_gy.tolist() == [1, 5]
    assert curve.edges_gy.tolist() == [[0, 2], [4, 6]]
    assert curve.fraction == pytest.approx([0.1, 0.5])
    assert fraction_against_dose(dose * np.nan, dose).dose_gy.size == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": np.ones((3, 4))}, "for doses of shape"),
        ({"dose_gy": -np.ones(9)}, "negative dose"),
        ({"bins": [2, 1]}, "ascending order"),
        ({"bins": 0}, "at least one interval"),
        ({"scale": "cubic"}, "'linear' or 'log'"),
        ({"statistic": "mode"}, "'mean' or 'median'"),
        ({"mask": np.ones(3, bool)}, "mask of shape"),
    ],
)
def test_a_curve_of_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fraction_against_dose(**({"fractions": np.ones(9), "dose_gy": np.ones(9)} | change))
