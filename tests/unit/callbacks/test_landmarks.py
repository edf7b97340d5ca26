"""A sample that is seen again tells how far it has moved between two runs; what does not fit beyond doubt tells nothing."""

import numpy as np
import pytest
from frames_synthetic import Microscope

from xbat_live.callbacks import Landmarks

PIXEL_UM = 0.033
SHAPE = (256, 272)
UPRIGHT = np.eye(2)
EDGE_EV = 8562.0


@pytest.fixture(scope="module")
def scope():
    return Microscope(shape=SHAPE, seed=5)


def kept(folder, scope, *, at=(10.0, -4.0), energy_ev=EDGE_EV, matrix=UPRIGHT, sigma_um=0.05, shift=(0.0, 0.0)):
    first = Landmarks(folder, PIXEL_UM, matrix)
    frame = scope.expose(shift)
    first.keep("0-A", frame, scope.flat, scope.dark, energy_ev=energy_ev, sample_yx_um=np.array(at), sigma_um=sigma_um)
    return first


def seen_again(folder, scope, frame, *, expected=(10.0, -4.0), energy_ev=EDGE_EV, matrix=UPRIGHT):
    again = Landmarks(folder, PIXEL_UM, matrix)
    return again.recognise(frame, scope.flat, scope.dark, energy_ev, np.array(expected))


@pytest.mark.parametrize(
    "shift_px",
    [
        (0.0, 0.0),  # it has not moved at all
        (7.3, -3.8),  # drift of a quarter of a micrometre
        (-60.0, 85.0),  # slipped by a third of the field
    ],
)
def test_the_place_is_found_to_a_pixel(tmp_path, scope, shift_px):
    """The content moves by (centre before - centre now) / pixel (decision 5)."""
    kept(tmp_path, scope)
    scope.retake_flat()
    found = seen_again(tmp_path, scope, scope.expose(shift_px))
    assert found is not None
    now_um = np.array([10.0, -4.0]) - np.array(shift_px) * PIXEL_UM
    assert found.sample_yx_um == pytest.approx(now_um, abs=PIXEL_UM)
    assert 0.05 <= found.sigma_um < 0.1


def test_a_mirrored_camera(tmp_path, scope):
    mirrored = np.diag([1.0, -1.0])
    kept(tmp_path, scope, matrix=mirrored)
    found = seen_again(tmp_path, scope, scope.expose((6.0, 10.0)), matrix=mirrored)
    assert found.sample_yx_um == pytest.approx([10.0 - 6 * PIXEL_UM, -4.0 + 10 * PIXEL_UM], abs=PIXEL_UM)


@pytest.mark.parametrize("turned", [[[0, -1], [1, 0]], [[0, 1], [-1, 0]]])
def test_a_camera_turned_by_90_degrees(tmp_path, scope, turned):
    image_to_stage = np.array(turned, float)
    kept(tmp_path, scope, matrix=image_to_stage)
    found = seen_again(tmp_path, scope, scope.expose((6.0, 10.0)), matrix=image_to_stage)
    moved_um = image_to_stage @ np.array([6.0, 10.0]) * PIXEL_UM
    assert found.sample_yx_um == pytest.approx(np.array([10.0, -4.0]) - moved_um, abs=PIXEL_UM)


def test_it_is_recognised_although_it_has_changed(tmp_path, scope):
    """Charged meanwhile: a quarter less contrast, and less light."""
    kept(tmp_path, scope)
    found = seen_again(tmp_path, scope, scope.expose((4.0, 4.0), scale=0.5, contrast=0.75))
    assert found.sample_yx_um == pytest.approx(np.array([10.0, -4.0]) - 4 * PIXEL_UM, abs=PIXEL_UM)


@pytest.mark.parametrize("seed", range(11, 17))
def test_another_place_is_not_mistaken_for_it(tmp_path, scope, seed):
    kept(tmp_path, scope)
    other = Microscope(shape=SHAPE, seed=seed)
    assert (
        Landmarks(tmp_path, PIXEL_UM, UPRIGHT).recognise(
            other.expose(), other.flat, other.dark, EDGE_EV, np.array([10.0, -4.0])
        )
        is None
    )


@pytest.mark.parametrize(
    ("kept_with", "seen_with"),
    [
        ({}, {"energy_ev": 8333.0}),  # contrast differs across the edge
        ({}, {"expected": (10.0 + 0.6 * SHAPE[0] * PIXEL_UM, -4.0)}),  # the fields hardly overlap
    ],
    ids=["another energy", "too far away"],
)
def test_what_is_not_comparable_is_not_compared(tmp_path, scope, kept_with, seen_with):
    kept(tmp_path, scope, **kept_with)
    assert seen_again(tmp_path, scope, scope.expose(), **seen_with) is None


def test_what_was_registered_with_another_orientation_of_the_camera_is_not_believed(tmp_path, scope):
    kept(tmp_path, scope)
    turned = np.diag([1.0, -1.0])
    assert seen_again(tmp_path, scope, scope.expose(), matrix=turned) is None
    assert Landmarks(tmp_path, PIXEL_UM, turned).camera_was_turned
    calibrated = np.array([[0.99, 0.02], [-0.03, 1.01]])
    assert not Landmarks(tmp_path, PIXEL_UM, calibrated).camera_was_turned
    assert not Landmarks(tmp_path / "nothing yet", PIXEL_UM, turned).camera_was_turned


def test_a_run_does_not_recognise_its_own_frames(tmp_path, scope):
    landmarks = kept(tmp_path, scope)
    assert landmarks.recognise(scope.expose(), scope.flat, scope.dark, EDGE_EV, np.array([10.0, -4.0])) is None


def test_files_that_are_damaged_or_foreign_are_left_out(tmp_path, scope, caplog):
    kept(tmp_path, scope)
    (file,) = tmp_path.glob("*.npz")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:2000])
    np.savez(tmp_path / "foreign.npz", picture=np.zeros(3))
    (tmp_path / "empty.npz").touch()
    assert seen_again(tmp_path, scope, scope.expose()) is not None
    assert caplog.text.count("left out") == 3


def test_a_disk_that_cannot_be_written_does_not_disturb_the_run(tmp_path, scope, caplog):
    (tmp_path / "views").write_text("a file where the folder should be")
    kept(tmp_path / "views", scope)
    assert "was not kept" in caplog.text


def test_their_number_is_bounded(tmp_path, scope):
    frame = scope.expose()
    for run in range(3):
        landmarks = Landmarks(tmp_path, PIXEL_UM, UPRIGHT)
        for place in range(20):
            landmarks.keep(
                f"{place}-A",
                frame,
                scope.flat,
                scope.dark,
                energy_ev=EDGE_EV,
                sample_yx_um=np.array([run, place], float),
                sigma_um=0.0,
            )
    assert len(list(tmp_path.glob("*"))) == 48
