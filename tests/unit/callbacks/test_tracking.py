"""Image shifts and stage readings become drift in sample coordinates, with the right sign."""

from types import SimpleNamespace

import numpy as np
import pytest

from xbat_live.callbacks import DriftTracker, FeedbackCheck, Recognised
from xbat_live.dose import CarriedPosition, SamplePosition
from xbat_live.imaging import DriftModel
from xbat_live.session import image_to_stage_yx

PIXEL_UM = 0.05


def verdict(shift_yx_px, accepted=True):
    return SimpleNamespace(accepted=accepted, shift_yx_px=shift_yx_px, sigma_yx_px=(0.02, 0.02))


def image_shift_px(drift_um, stage_um):
    """Content moves by (drift - stage step) / pixel: see docs/explanation/decisions/0005."""
    return tuple((np.asarray(drift_um) - np.asarray(stage_um)) / PIXEL_UM)


def test_a_sample_at_rest_stays_where_the_stage_says():
    tracker = DriftTracker(PIXEL_UM)
    for t_s in range(5):
        place = tracker.update("0/A", t_s * 60.0, verdict((0.0, 0.0)), np.array([10.0, 20.0]))
    assert place.sample_yx_um == pytest.approx([10.0, 20.0], abs=0.01)


def test_a_drifting_sample_is_followed_whether_or_not_the_stage_moves():
    tracker = DriftTracker(PIXEL_UM)
    stage = np.zeros(2)
    for step in range(40):
        drift = np.array([0.1 * step, 0.0])
        if step == 20:
            stage = np.array([2.0, 0.0])  # the stage follows: the image jumps back, the drift does not
        place = tracker.update("0/A", step * 60.0, verdict(image_shift_px(drift, stage)), stage)
    assert tracker.drift_yx_um == pytest.approx(drift, abs=0.1)
    assert place.sample_yx_um == pytest.approx(stage - drift, abs=0.01)


def test_a_new_spot_takes_the_drift_over():
    tracker = DriftTracker(PIXEL_UM)
    for step in range(20):
        tracker.update("0/A", step * 60.0, verdict(image_shift_px((0.2 * step, 0.0), (0.0, 0.0))), np.zeros(2))
    before = tracker.drift_yx_um.copy()
    place = tracker.update("1/A", 20 * 60.0, verdict((0.0, 0.0)), np.array([50.0, 0.0]))
    assert place.sample_yx_um == pytest.approx(np.array([50.0, 0.0]) - before, abs=0.3)


def test_every_frame_tells_how_large_the_jitter_has_been():
    """Twice as large across as up: of 120 frames, the last 64 count, so within some 20 %."""
    tracker, rng = DriftTracker(PIXEL_UM), np.random.default_rng(3)
    for step in range(120):
        moved = np.array([0.05 * step, 0.0]) + rng.normal(0, (0.1, 0.2))
        place = tracker.update("0/A", step * 60.0, verdict(image_shift_px(moved, (0.0, 0.0))), np.zeros(2))
    assert place.jitter_rms_yx_um == pytest.approx([0.1, 0.2], rel=0.2)
    rejected = tracker.update("0/A", 120 * 60.0, verdict((0.0, 0.0), accepted=False), np.zeros(2))
    assert rejected.jitter_rms_yx_um == pytest.approx(place.jitter_rms_yx_um)


def test_a_rejected_frame_moves_nothing():
    tracker = DriftTracker(PIXEL_UM)
    tracker.update("0/A", 0.0, verdict((0.0, 0.0)), np.zeros(2))
    tracker.update("0/A", 60.0, verdict((400.0, 400.0), accepted=False), np.zeros(2))
    assert tracker.drift_yx_um == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize(
    ("sign", "ok"), [(-1.0, True), (+1.0, False)], ids=["content moves against the stage", "mirrored camera"]
)
def test_a_sign_error_is_seen(sign, ok):
    rng = np.random.default_rng(1)
    check = FeedbackCheck()
    for _ in range(20):
        step = rng.normal(0, 0.5, 2)
        check.update(step, sign * step + rng.normal(0, 0.35, 2))  # jitter of the stage on top
    assert check.ok is ok


@pytest.mark.parametrize(
    ("mounting", "ok"),
    [
        ([[1, 0], [0, 1]], True),
        ([[1, 0], [0, -1]], False),
        ([[-1, 0], [0, 1]], False),
        ([[0, -1], [1, 0]], False),
        ([[0, 1], [1, 0]], False),
    ],
    ids=["upright", "mirrored in x", "mirrored in y", "rotated", "x and y exchanged"],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_runaway_is_ended_within_a_few_um(mounting, ok, seed):
    """The closed loop: the stage goes where the tracker says the drift is; (y, x), repositioning error mostly in x."""
    rng = np.random.default_rng(seed)
    tracker = DriftTracker(PIXEL_UM, model=DriftModel(rate_um_per_min=0.3, rate_walk_um_per_min=0.0116))
    applied, excursion_um = np.zeros(2), 0.0
    for step in range(60):
        if not tracker.feedback.ok:
            break
        applied = applied + np.clip(tracker.drift_yx_um - applied, -2, 2)
        on_sample = applied + rng.normal(0, (0.05, 0.35)) - np.array([-0.04, 0.1]) * step
        shift = -np.array(mounting, float) @ on_sample / PIXEL_UM
        tracker.update("0/A", step * 60.0, verdict(shift), applied.copy())
        excursion_um = max(excursion_um, float(np.abs(on_sample).max()))
    assert tracker.feedback.ok is ok
    assert excursion_um < 6.0


@pytest.mark.parametrize(
    "stage_to_image",
    [
        [[1, 0], [0, -1]],
        [[0, -1], [1, 0]],  # not symmetric: the transposed matrix is that of the camera turned the other way
        [[0, 1], [-1, 0]],
        [[0.9, 0.3], [-0.2, 1.1]],
    ],
    ids=["mirrored in x", "turned by 90 degrees", "turned back", "as measured"],
)
def test_the_configured_mounting_makes_it_right(stage_to_image):
    to_image = np.array(stage_to_image, float)
    tracker = DriftTracker(PIXEL_UM, image_to_stage=np.linalg.inv(to_image))
    for step in range(30):
        drift = np.array([0.02, 0.1]) * step
        tracker.update("0/A", step * 60.0, verdict(to_image @ image_shift_px(drift, (0.0, 0.0))), np.zeros(2))
    assert tracker.drift_yx_um == pytest.approx(drift, abs=0.1)


def test_the_configured_matrix_is_in_x_y_and_the_tracker_counts_in_y_x():
    turned = SimpleNamespace(uses_microscope=False, camera=SimpleNamespace(image_to_stage=((1.0, 2.0), (3.0, 4.0))))
    # stage x = 1 image x + 2 image y, stage y = 3 image x + 4 image y
    assert image_to_stage_yx(turned).tolist() == [[4.0, 3.0], [2.0, 1.0]]
    microscope = SimpleNamespace(uses_microscope=True, camera=turned.camera)
    assert image_to_stage_yx(microscope).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_stage_is_told_the_drift_and_not_the_jitter():
    """R1's repositioning error, 0.43 um (13 px) along x, on a drift of 5.2 um in 14 hours along y: what is followed is the slow part."""
    rng, told, true = np.random.default_rng(7), [], []
    tracker = DriftTracker(0.03324)
    for step in range(56):
        drift = np.array([5.2 * step / 55, 0.0])
        shift = (drift + rng.normal(0, (0.05, 0.43))) / tracker.pixel_size_um
        tracker.update("0/A", step * 900.0, verdict(shift), np.zeros(2))
        told.append(tracker.drift_yx_um.copy())
        true.append(drift)
    late = slice(12, None)
    off = np.sqrt(np.mean((np.array(told) - true)[late] ** 2, axis=0))
    assert off[0] < 0.1
    assert off[1] < 0.43 / 2  # following every frame would be off by 0.43


def test_no_judgement_before_the_moves_outweigh_the_jitter():
    check = FeedbackCheck()
    check.update(np.array([0.1, 0.0]), np.array([0.1, 0.0]))
    assert check.ok


def carried(x_um, y_um, sigma_um=0.1):
    return CarriedPosition(SamplePosition(x_um, y_um, sigma_um), age_s=0.0)


def test_the_first_frame_of_a_run_is_where_the_last_run_left_the_sample():
    tracker = DriftTracker(PIXEL_UM, carried=carried(4.0, -3.0), carried_at_s=0.0)
    assert tracker.position(0.0) == SamplePosition(4.0, -3.0, 0.1)
    place = tracker.update("0/A", 0.0, verdict((0.0, 0.0)), np.array([10.0, 20.0]))
    assert place.sample_yx_um == pytest.approx([13.0, 16.0], abs=0.01)
    assert tracker.position(60.0).sigma_um == pytest.approx(0.1, abs=0.01)


def test_a_frame_that_is_recognised_is_where_it_says_whatever_was_expected():
    tracker = DriftTracker(PIXEL_UM, carried=carried(0.0, 0.0, sigma_um=5.0), carried_at_s=0.0)
    seen = Recognised(np.array([12.0, 19.0]), 0.02)
    place = tracker.update("0/A", 0.0, verdict((0.0, 0.0)), np.array([10.0, 20.0]), recognised=seen)
    assert place.sample_yx_um == pytest.approx([12.0, 19.0])
    assert tracker.position(1.0) == SamplePosition(1.0, -2.0, 0.02)
    later = tracker.update("1/A", 1.0, verdict((0.0, 0.0)), np.array([50.0, 20.0]))
    assert later.sample_yx_um == pytest.approx([52.0, 19.0], abs=0.05), "the next spot takes it over"


def test_a_drift_that_the_stage_contradicts_is_as_uncertain_as_it_is_large():
    tracker = DriftTracker(PIXEL_UM)
    for step in range(6):
        stage = np.array([0.0, 2.0 * step])
        tracker.update("0/A", 60.0 * step, verdict(tuple(stage / PIXEL_UM)), stage)  # moves with the stage: mirrored
    assert not tracker.feedback.ok
    assert tracker.position(400.0).sigma_um == pytest.approx(np.linalg.norm(tracker.drift_yx_um), abs=0.01)
    assert np.linalg.norm(tracker.drift_yx_um) > 0.2
