"""Known drift, jitter and deformation come back from a whole run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.analysis import (
    AnalysisError,
    RunFrames,
    analyse_motion,
    flow_between,
    motion_path,
    parse_pairs,
    recorded_image_to_stage,
)
from xbat_live.analysis.deformation import overlap

PIXEL_UM = 0.03324
DRIFT_YX_UM = np.array([5.2, 0.6])  # R1: over 840 min
JITTER_YX_UM = np.array([0.05, 0.35])


@pytest.fixture(scope="module")
def opening(opening_run):
    return analyse_motion(RunFrames(opening_run).select(), parse_pairs("1:12,12:24"))


# --- drift and jitter ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", [False, True], ids=["stage stands", "stage follows the drift"])
@pytest.mark.parametrize("seed", range(3))
def test_drift_and_jitter_of_r1_are_recovered_within_5_percent(seed, feedback):
    """5.2 um in 840 min, 57 frames; with feedback the image hardly moves and the stage carries the drift."""
    rng, t_s = np.random.default_rng(seed), 900.0 * np.arange(57)
    drift = DRIFT_YX_UM * t_s[:, None] / 60 / 840
    jitter = rng.normal(0, 1, (57, 2)) * JITTER_YX_UM
    stage = drift.round(1) - 60 if feedback else np.full((57, 2), -60.0)
    shift_px = (drift + jitter - stage) / PIXEL_UM  # content moves by (drift - stage) / pixel
    path = motion_path(t_s, shift_px - shift_px[0], stage, pixel_size_um=PIXEL_UM, sigma_yx_px=np.full((57, 2), 0.02))
    assert path.net_drift_yx_um[0] == pytest.approx(5.2, rel=0.05)
    assert path.mean_rate_yx_um_per_min[0] == pytest.approx(5.2 / 840, rel=0.05)
    assert path.jitter_rms_yx_um == pytest.approx(tuple(jitter.std(0)), rel=0.05)
    assert abs(path.net_drift_yx_um[1] - 0.6) < 3 * np.hypot(*path.sigma_drift_yx_um[[0, -1], 1])
    assert path.duration_min == pytest.approx(840)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 30), st.integers(0, 1000))
def test_drift_and_jitter_add_up_and_every_frame_is_in_the_histograms(n, seed):
    rng = np.random.default_rng(seed)
    path = motion_path(60.0 * np.arange(n), rng.normal(0, 20, (n, 2)), rng.normal(0, 5, (n, 2)), pixel_size_um=PIXEL_UM)
    np.testing.assert_allclose(path.drift_yx_um + path.jitter_yx_um, path.displacement_yx_um, atol=1e-9)
    for histogram in (*path.displacement_histogram_yx, *path.jitter_histogram_yx):
        assert histogram.counts.sum() == n
        assert len(histogram.edges_um) == len(histogram.counts) + 1


def test_image_axes_are_turned_into_stage_axes():
    """A camera mounted turned by 90 degrees: the image's y is the stage's x, its x the stage's y backwards."""
    shift_px = np.stack([np.arange(6.0), 2 * np.arange(6.0)], 1) / PIXEL_UM
    path = motion_path(
        60.0 * np.arange(6), shift_px, np.zeros((6, 2)), pixel_size_um=PIXEL_UM, image_to_stage=[[0, -1], [1, 0]]
    )
    np.testing.assert_allclose(path.displacement_yx_um, np.stack([-2 * np.arange(6.0), np.arange(6.0)], 1), atol=1e-12)


def test_the_recorded_matrix_is_in_x_y_and_the_analysis_counts_in_y_x():
    assert recorded_image_to_stage({"image_to_stage": [[1, 2], [3, 4]]}).tolist() == [[4, 3], [2, 1]]
    assert recorded_image_to_stage({}) is None


@pytest.mark.parametrize(
    ("n", "shift", "message"),
    [(3, (3, 2), "3 frames, at least 4"), (5, (4, 2), r"shifts \(4, 2\)"), (5, (5, 3), "expected")],
)
def test_a_path_that_cannot_be_made_is_refused(n, shift, message):
    with pytest.raises(ValueError, match=message):
        motion_path(np.arange(n), np.zeros(shift), np.zeros((n, 2)), pixel_size_um=0.03)


# --- a whole run -----------------------------------------------------------------------------------------------------------------------


def test_the_path_of_a_run_is_the_true_one(opening, opening_run):
    truth = opening_run.truth
    moved = truth["drift_um"] + truth["jitter_um"]
    np.testing.assert_allclose(opening.path.displacement_yx_um, moved - moved[0], atol=1e-6)
    assert opening.path.net_drift_yx_um[0] == pytest.approx(truth["drift_um"][-1, 0], rel=0.05)


def test_registered_anew_the_path_is_the_same(make_run):
    """A field without deformation, of which nothing was recorded."""
    run = make_run(8)
    run.verdicts = run.verdicts.iloc[:0]
    path = analyse_motion(RunFrames(run).select(), (), register=True).path
    true_px = run.truth["shift_px"] - run.truth["shift_px"][0]
    # The mean of tiles is noisier than one correlation on so small a field, but deformation does not bias it.
    assert np.sqrt(((path.image_shift_yx_px - true_px) ** 2).mean()) < 0.25


def test_deformation_is_found_with_its_size_and_direction(opening, opening_run):
    """The halves part by up to 2 px over the run: from frame 12 to 24 by 12/23 of that, where the sample is."""
    pair = opening.pairs[1]
    ny, nx = pair.mask.shape
    begin = np.subtract(pair.origin_yx_px, opening_run.truth["shift_px"][0])  # sample coordinate of the cut
    places = np.mgrid[0:ny, 0:nx] + begin[:, None, None]
    true = opening_run.deformation_px(*places, 2.0 * 12 / 23)
    true = true - true.mean((1, 2), keepdims=True)
    error = np.hypot(*(pair.flow - true))[pair.mask]
    assert np.sqrt((error**2).mean()) < 0.3
    assert pair.statistics.rms_px == pytest.approx(np.sqrt((true[:, pair.mask] ** 2).sum(0).mean()), rel=0.15)
    right, left_half = pair.flow[1][:, -nx // 3 :].mean(), pair.flow[1][:, : nx // 3].mean()
    assert right > 0.5
    assert left_half < -0.5
    assert pair.strain[1][1] > 0, "it opens"
    assert pair.above_noise


def test_the_second_pair_moved_more_than_the_first_and_both_are_aligned(opening):
    """Pairs of nearly equal length; the rigid shift is the registered one."""
    shifts = opening.path.image_shift_yx_px
    for pair in opening.pairs:
        first, second = pair.frames
        assert pair.rigid_shift_yx_px == pytest.approx(tuple(shifts[second - 1] - shifts[first - 1]), abs=0.35)
        assert len(pair.clusters.fraction) == 5
        assert pair.clusters.fraction.sum() == pytest.approx(1)
        assert pair.convergence.mean_amplitude_px.shape[1] == 10
        assert 100 < len(pair.compass.amplitude_px) < 900


def test_nothing_moves_where_nothing_moves(make_run):
    analysis = analyse_motion(RunFrames(make_run(8)).select(), [(1, 8)])
    (pair,) = analysis.pairs
    assert pair.above_noise is False
    assert pair.statistics.rms_px < 0.3


def test_the_summary_is_plain_data_with_units_in_the_names(opening):
    summary = opening.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["motion"]["net_drift_y_um"] == opening.path.net_drift_yx_um[0]
    assert summary["pairs"][0]["frames"] == [1, 12]
    assert summary["parameters"]["shifts"] == "recorded"


def test_by_default_first_to_middle_and_middle_to_last(make_run):
    analysis = analyse_motion(RunFrames(make_run(7, shape=(96, 96))).select())
    assert [pair.frames for pair in analysis.pairs] == [(1, 4), (4, 7)]
    assert [pair.floor_rms_px is None for pair in analysis.pairs] == [False, False]


def test_progress_is_told(make_run):
    told = []
    analyse_motion(
        RunFrames(make_run(5, shape=(144, 144))).select(),
        [(1, 5)],
        register=True,
        progress=lambda *step: told.append(step),
    )
    assert told[0] == ("registering frames", 0, 5)
    assert ("flow from frame 1 to 5", 0, 1) in told


# --- what cannot be done ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pairs"),
    [("3:13,13:35", ((3, 13), (13, 35))), (" 2 : 1 ", ((2, 1),)), ("none", ())],
)
def test_pairs_are_read(text, pairs):
    assert parse_pairs(text) == pairs


@pytest.mark.parametrize("text", ["3-13", "3:", "", "0:4", "4:4", "1:2,", "a:b"])
def test_pairs_that_are_none_are_told_with_how_to_write_them(text):
    with pytest.raises(AnalysisError, match=r"3:13,13:35|counted from 1"):
        parse_pairs(text)


def test_errors_say_what_there_is(make_run):
    run = make_run(5, shape=(64, 64))
    field = RunFrames(run).select()
    with pytest.raises(AnalysisError, match="pair 1:9 is out of range, accepted frames are 1 to 5"):
        analyse_motion(field, [(1, 9)])
    run.verdicts.loc[1:2, "analysis_accepted"] = 0
    run.verdicts.loc[1:2, "analysis_verdict"] = "blurred"
    with pytest.raises(AnalysisError, match=r"3 accepted frames \(3 accepted, 2 blurred\).*--spot"):
        analyse_motion(RunFrames(run).select())
    run.verdicts = run.verdicts.iloc[:0]
    with pytest.raises(AnalysisError, match="--register"):
        analyse_motion(RunFrames(run).select())


def test_frames_with_too_little_in_common_are_refused():
    image = np.random.default_rng(0).normal(size=(100, 100))
    with pytest.raises(ValueError, match=r"shifted by \(0, 50\) px, have less than 64 px"):
        flow_between(image, image, shift_yx_px=(0.2, 49.8), pixel_size_um=0.03)


@given(st.integers(-30, 30), st.integers(-30, 30))
def test_what_two_frames_have_in_common_is_the_same_content(dy, dx):
    canvas = np.random.default_rng(1).normal(size=(160, 164)).astype(np.float32)
    first, second = canvas[30:130, 30:134], canvas[30 - dy : 130 - dy, 30 - dx : 134 - dx]  # content moved by (dy, dx)
    a, b, whole, (top, left) = overlap(first, second, (dy + 0.3, dx - 0.3))
    assert whole == (dy, dx)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, first[top : top + a.shape[0], left : left + a.shape[1]])


@pytest.mark.parametrize("reflection", [False, True])
def test_the_particles_of_the_reflection_microscope_are_the_bright_ones(reflection):
    y, x = np.mgrid[0:128, 0:128]
    particles = np.hypot((y % 32) - 16, (x % 32) - 16) < 9
    density = np.where(particles, 1.0, 0.2) + 0.05 * np.random.default_rng(1).normal(size=particles.shape)
    image = (2.0 - density if reflection else density).astype(np.float32)
    pair = flow_between(image, image, shift_yx_px=(0.0, 0.0), pixel_size_um=0.03, reflection=reflection)
    assert (pair.mask == particles).mean() > 0.9
