"""Which reading of the flux is believed, and what its mean over an exposure is."""

import itertools
import math
import random
import time

import pytest

from xbat_live.dose.flux_history import FluxCalibration, FluxHistory, FluxMean, FluxModel

FULL = 1e10
CALIBRATION = FluxCalibration(FULL, 100.0)
NAN = math.nan


def history(samples, **more):
    made = FluxHistory(fallback_ph_s=FULL, **more)
    for t_s, flux, *source in samples:
        made.add(t_s, flux, source[0] if source else "i0")
    return made


def every(step_s, t0_s, t1_s, flux=FULL, source="i0"):
    n = round((t1_s - t0_s) / step_s)
    return [(t0_s + i * step_s, flux(t0_s + i * step_s) if callable(flux) else flux, source) for i in range(n + 1)]


# -- the model: I0, else ring, else the last maximum -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("i0_na", "ring_ma", "transmission", "flux", "source", "why"),
    [
        (100.0, 500.0, 1.0, FULL, "i0", "all is well"),
        (50.0, 500.0, 0.5, FULL / 2, "i0", "the chamber sits behind the attenuator: nothing is applied twice"),
        (0.0, 500.0, 1.0, FULL, "ring", "a chamber at zero while the ring has beam is dead"),
        (0.0, 500.0, 0.25, FULL / 4, "ring", "the attenuator scales what the ring tells"),
        (0.0, 0.0, 1.0, 0.0, "i0", "beam lost in the ring: no flux, and nothing wrong with the chamber"),
        (-0.02, -0.1, 1.0, 0.0, "i0", "offsets around zero are zero"),
        (19.0, 500.0, 1.0, FULL, "ring", "just below a fifth"),
        (21.0, 500.0, 1.0, FULL * 0.21, "i0", "just above a fifth"),
        (10.0, 50.0, 1.0, FULL / 10, "i0", "little current in the ring: the chamber agrees"),
        (NAN, 400.0, 1.0, FULL * 0.8, "ring", "NaN is no reading"),
        (None, 400.0, 1.0, FULL * 0.8, "ring", "not connected"),
        (-50.0, 500.0, 1.0, FULL, "ring", "a negative reading is no beam, and not believed"),
        (100.0, NAN, 1.0, FULL, "i0", "no ring current, chamber as calibrated"),
        (0.0, None, 1.0, FULL, "maximum", "nothing to go by"),
        (None, None, 0.1, FULL / 10, "maximum", "the attenuator still counts"),
        (None, None, None, FULL, "maximum", "unknown transmission: all the way open"),
        (None, 500.0, NAN, FULL, "ring", "the same"),
        (1000.0, 500.0, 1.0, 10 * FULL, "i0", "more than expected is counted as read"),
        (math.inf, 500.0, 1.0, FULL, "ring", "an overflow is no reading"),
    ],
)
def test_first_reading_that_can_be_believed(i0_na, ring_ma, transmission, flux, source, why):
    model = FluxModel(CALIBRATION, ring_reference_ma=500.0)
    value, where_from = model.flux(i0_na, ring_ma, transmission)
    assert (value, where_from) == (pytest.approx(flux), source), why


def test_without_a_reference_the_ring_is_calibrated_by_the_chamber_while_it_works():
    model = FluxModel(CALIBRATION)
    assert model.flux(0.0, 400.0, 1.0) == (FULL, "maximum")  # nothing learnt yet
    for _ in range(10):
        model.flux(80.0, 400.0, 1.0)
    assert model.flux(0.0, 400.0, 1.0) == (pytest.approx(0.8 * FULL), "ring")
    assert model.flux(0.0, 200.0, 0.5) == (pytest.approx(0.2 * FULL), "ring")


def test_a_dying_chamber_does_not_pull_the_reference_down_with_it():
    model = FluxModel(CALIBRATION)
    for step in range(200):
        flux, source = model.flux(100.0 * 0.98**step, 500.0, 1.0)
    assert (flux, source) == (pytest.approx(FULL), "ring")


def test_the_last_maximum_is_the_highest_flux_seen_and_one_spike_does_not_make_it():
    model = FluxModel(CALIBRATION)
    for _ in range(50):
        model.flux(130.0, None, 1.0)
    assert model.flux(None, None, 1.0) == (pytest.approx(1.3 * FULL, rel=1e-3), "maximum")
    model.flux(1e4, None, 1.0)
    assert model.flux(None, None, 1.0)[0] < 25 * FULL


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN, math.inf])
def test_impossible_references_are_refused(bad):
    with pytest.raises(ValueError, match="ring_reference_ma"):
        FluxModel(CALIBRATION, ring_reference_ma=bad)
    with pytest.raises(ValueError, match="i0_reference_na"):
        FluxModel(FluxCalibration(FULL, bad))


# -- the mean over an exposure, samples at 10 Hz -------------------------------------------------------------------------


def test_steady_beam():
    made = history(every(0.1, 0.0, 10.0))
    for t0_s, t1_s in ((2.013, 2.061), (0.0, 10.0), (3.0, 3.0), (5.05, 5.15)):
        assert made.mean(t0_s, t1_s) == FluxMean(pytest.approx(FULL), "")


def test_a_ramp_is_interpolated_so_short_exposures_between_two_samples_are_unbiased():
    def ramp(t_s):
        return FULL * (1 - 0.04 * t_s)

    made = history(every(0.1, 0.0, 10.0, ramp))
    for t0_s in (2.0, 2.013, 2.026, 2.052, 2.09):
        assert made.mean(t0_s, t0_s + 0.048).flux_ph_s == pytest.approx(ramp(t0_s + 0.024), rel=1e-9)
    assert made.mean(1.0, 9.0).flux_ph_s == pytest.approx(ramp(5.0), rel=1e-9)


def test_decay_of_a_ring_over_ten_seconds():
    made = history(every(0.1, 0.0, 10.0, lambda t_s: FULL * math.exp(-t_s / 20)))
    exact = FULL * 20 * (1 - math.exp(-0.5)) / 10
    assert made.mean(0.0, 10.0).flux_ph_s == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    ("t0_s", "t1_s", "truth", "low", "high", "why"),
    [
        (0.0, 10.0, 0.5, 1.0, 1.03, "10 s with the trip in the middle: right within the time between two samples"),
        (4.90, 4.948, 1.0, 1.0, 1.0, "before the trip"),
        (5.10, 5.148, 0.0, 0.0, 0.0, "after it"),
        (5.03, 5.078, 0.42, 1.0, 2.5, "48 ms across it: the higher sample counts, never less than the truth"),
    ],
)
def test_ring_trip(t0_s, t1_s, truth, low, high, why):
    """The beam is lost at 5.05 s."""
    mean = history(every(0.1, 0.0, 10.0, lambda t_s: FULL * (t_s < 5.05))).mean(t0_s, t1_s)
    assert low * truth * FULL <= mean.flux_ph_s <= high * truth * FULL + 1, why
    assert mean.degraded == ("step between two samples" if 0.1 < truth < 0.5 else ""), why


def test_top_up_during_an_exposure():
    """450 mA to 500 mA at 5.05 s."""
    made = history(every(0.1, 0.0, 10.0, lambda t_s: FULL * (0.9 if t_s < 5.05 else 1.0)))
    assert made.mean(0.0, 10.0).flux_ph_s == pytest.approx(0.9495 * FULL + 0.0, rel=2e-3)
    assert made.mean(5.01, 5.058).flux_ph_s == FULL  # the higher one of the two samples around it
    assert made.mean(0.0, 10.0).degraded == ""


def test_a_chamber_that_dies_is_replaced_by_the_ring_and_that_by_the_last_maximum():
    made = history(
        [
            *every(0.1, 0.0, 2.0),
            *every(0.1, 2.1, 4.0, 0.98 * FULL, "ring"),
            *every(0.1, 4.1, 6.0, FULL, "maximum"),
        ]
    )
    assert made.mean(0.5, 1.5).degraded == ""
    assert made.mean(2.5, 3.5) == FluxMean(pytest.approx(0.98 * FULL), "ring current")
    assert made.mean(4.5, 5.5) == FluxMean(pytest.approx(FULL), "last maximum")
    assert made.mean(0.0, 6.0).degraded == "ring current; last maximum"
    assert made.mean(0.05, 2.07).degraded == "ring current"  # the samples behind the exposure tell
    assert made.mean(0.05, 2.01).degraded == ""  # 0.5 % of the time is not worth a flag


def test_outside_the_samples_the_nearest_one_holds():
    made = history([(10.0, 2 * FULL, "i0"), (10.1, FULL, "i0")])
    assert made.mean(9.0, 9.5) == FluxMean(2 * FULL, "")
    assert made.mean(10.1, 12.0) == FluxMean(FULL, "")
    assert made.current(12.9) == FluxMean(FULL, "")


def test_stale_samples_are_told_and_count_as_the_highest():
    """The beam may have come back since the last sample."""
    made = history([*every(0.1, 0.0, 1.0), *every(0.1, 1.1, 2.0, 0.0)])
    assert made.current(5.2) == FluxMean(FULL, "stale for 3.2 s")
    assert made.mean(4.0, 8.0).flux_ph_s == pytest.approx(0.75 * FULL)  # 1 s still believed, 3 s not
    assert made.mean(4.0, 8.0).degraded == "stale for 6.0 s"


def test_a_gap_between_samples_counts_as_the_higher_end():
    made = history([(0.0, FULL, "i0"), (10.0, 0.0, "i0")])
    assert made.mean(4.0, 5.0) == FluxMean(FULL, "stale for 10.0 s")


def test_nothing_before_the_first_sample_is_known():
    made = history([(10.0, FULL, "i0")])
    assert made.mean(0.0, 20.0).degraded == "stale for 10.0 s"


def test_without_any_sample_the_calibration_counts():
    assert history([]).mean(0.0, 1.0) == FluxMean(FULL, "no reading yet")
    assert history([]).current(5.0) == FluxMean(FULL, "no reading yet")


def test_a_point_at_a_sample_and_between_samples():
    made = history([(1.0, 1.00e10, "i0"), (1.1, 1.02e10, "i0"), (1.2, 1.04e10, "i0")])
    assert made.current(1.1).flux_ph_s == pytest.approx(1.02e10)
    assert made.current(1.05).flux_ph_s == pytest.approx(1.01e10)
    assert made.current(1.2).flux_ph_s == pytest.approx(1.04e10)


@pytest.mark.parametrize("bad", [(NAN, FULL), (math.inf, FULL), (1.0, NAN), (1.0, -1.0), (1.0, math.inf)])
def test_impossible_samples_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        history([]).add(*bad, "i0")


@pytest.mark.parametrize("interval", [(2.0, 1.0), (NAN, 1.0), (0.0, math.inf)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValueError, match="flux from"):
        history([(0.0, FULL)]).mean(*interval)


def test_samples_that_come_late_do_not_go_back_in_time():
    made = history([(1.0, FULL), (0.9, 2 * FULL)])
    assert made.mean(1.0, 2.0).flux_ph_s == 2 * FULL


def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch):
    """Only the times that are handed in count."""
    made = history(every(0.1, 0.0, 5.0))
    before = made.mean(1.0, 4.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    made.add(5.1, FULL, "i0")
    assert made.mean(1.0, 4.0) == before


def test_memory_is_bounded_whatever_the_rate():
    made = FluxHistory(fallback_ph_s=FULL)
    noise = random.Random(1)
    for i in range(200_000):
        made.add(i * 0.001, FULL * (1 + 0.2 * noise.random()), "i0")
    assert len(made) <= 60_000
    assert made.mean(190.0, 199.0).flux_ph_s == pytest.approx(1.15 * FULL, rel=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_mean_lies_between_the_samples_and_intervals_add_up(seed):
    noise = random.Random(seed)
    t_s, samples = 0.0, []
    for _ in range(60):
        t_s += noise.uniform(0.01, 0.3)
        samples.append((t_s, FULL * noise.choice([0.0, 0.9, 0.99, 1.0]), "i0"))
    made = history(samples)
    cuts = sorted(noise.uniform(0.0, t_s) for _ in range(6))
    whole = made.mean(cuts[0], cuts[-1])
    parts = sum(made.mean(a, b).flux_ph_s * (b - a) for a, b in itertools.pairwise(cuts))
    assert 0 <= whole.flux_ph_s <= FULL
    assert parts == pytest.approx(whole.flux_ph_s * (cuts[-1] - cuts[0]), rel=1e-6)
