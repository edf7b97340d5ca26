"""How the camera is mounted, from moves and shifts: every mounting is found with its sign, and what is not good is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.imaging import CalibrationError, fit_stage_calibration

PIXEL_UM = 0.05
MOUNTINGS = {
    "identity": [[1, 0], [0, 1]],
    "mirrored in x": [[-1, 0], [0, 1]],
    "mirrored in y": [[1, 0], [0, -1]],
    "rotated by 90 deg": [[0, -1], [1, 0]],
    "rotated by -90 deg": [[0, 1], [-1, 0]],
    "rotated by 180 deg": [[-1, 0], [0, -1]],
    "x and y exchanged": [[0, 1], [1, 0]],
    "x and y exchanged and reversed": [[0, -1], [-1, 0]],
}
ORDER = np.array([(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2), (0, 0), (0, -2), (0, 2), (-2, 0), (2, 0), (0, 0)], float)


def shifts_px(image_to_stage, stage_um=ORDER, *, drift_um=(0.0, 0.0), jitter_um=0.0, scale=1.0, seed=1):
    """What the image of a camera mounted like that shows: the content moves by drift minus stage, see decision record 5."""
    rng = np.random.default_rng(seed)
    in_stage_um = np.outer(np.arange(len(stage_um)), drift_um) - stage_um - rng.normal(0, jitter_um, stage_um.shape)
    in_image_um = in_stage_um @ np.linalg.inv(np.array(image_to_stage, float)).T
    return in_image_um[:, ::-1] / PIXEL_UM * scale


@pytest.mark.parametrize("name", MOUNTINGS)
@pytest.mark.parametrize("jitter_um", [0.0, 0.35], ids=["exact stage", "stage that repeats to 0.35 um"])
def test_every_mounting_is_found(name, jitter_um):
    shifts = shifts_px(MOUNTINGS[name], drift_um=(0.1, -0.05), jitter_um=jitter_um)
    found = fit_stage_calibration(ORDER, shifts, 0.02, PIXEL_UM)
    assert found.rigid.tolist() == MOUNTINGS[name]
    assert found.orientation == name
    assert found.handedness == round(np.linalg.det(MOUNTINGS[name]))
    assert np.abs(found.matrix - MOUNTINGS[name]).max() < max(1e-9, 4 * found.sigma.max())
    assert abs(found.determinant - found.handedness) < 4 * found.determinant_sigma + 1e-9
    assert found.toml().startswith("image_to_stage = [[")


@given(angle_deg=st.floats(-179, 179), mirrored=st.booleans(), seed=st.integers(0, 1000))
def test_any_angle_is_found_with_its_handedness(angle_deg, mirrored, seed):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    found = fit_stage_calibration(ORDER, shifts_px(matrix, jitter_um=0.01, seed=seed), 0.3, PIXEL_UM)
    assert found.handedness == (-1 if mirrored else 1)
    assert (found.rotation_deg - angle_deg + 180) % 360 - 180 == pytest.approx(0, abs=2)
    assert np.linalg.norm(found.rigid - matrix) < 0.12


def test_uncertainty_is_that_of_many_calibrations():
    elements, told = [], []
    for seed in range(200):
        found = fit_stage_calibration(ORDER, shifts_px(np.eye(2), jitter_um=0.2, seed=seed), 0.02, PIXEL_UM)
        elements.append(found.matrix)
        told.append(found.sigma)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(told), axis=0)), np.std(elements, axis=0), rtol=0.3)


def lost_lock():
    shifts = shifts_px(np.eye(2))
    shifts[3] += (60.0, -45.0)
    return shifts


LINE = ORDER.copy()
LINE[:, 1] = 0.5 * LINE[:, 0]
REFUSED = {
    "five frames": (ORDER[:5], shifts_px(np.eye(2))[:5], "at least 6"),
    "moves along one line": (LINE, shifts_px(np.eye(2), LINE), "one line"),
    "no moves": (0 * ORDER, shifts_px(np.eye(2), 0 * ORDER), "one line"),
    "image that stays where it is": (ORDER, 0 * ORDER, "determinant"),
    "periodic in y, so that only x is seen": (ORDER, shifts_px(np.eye(2)) * (0, 1), "determinant"),
    "one frame registered on something else": (ORDER, lost_lock(), "do not fit one matrix"),
    "pixel 30 % too large": (ORDER, shifts_px(np.eye(2), scale=1.3), "0.03846 um"),
    "y moves half as far as it says": (ORDER, shifts_px([[0.9, 0], [0, 1.5]]), "neither a rotation nor a mirroring"),
    "jitter as large as the moves": (ORDER, shifts_px(np.eye(2), jitter_um=1.5, seed=3), "too small for their scatter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_good_is_refused_with_its_reason(name):
    stage, shifts, reason = REFUSED[name]
    with pytest.raises(CalibrationError, match=reason):
        fit_stage_calibration(stage, shifts, 0.02, PIXEL_UM)


def test_wrong_arrays_are_told():
    with pytest.raises(ValueError, match="shape"):
        fit_stage_calibration(ORDER, ORDER[:5], 0.02, PIXEL_UM)
    with pytest.raises(ValueError, match="finite"):
        fit_stage_calibration(ORDER, np.full_like(ORDER, np.nan), 0.02, PIXEL_UM)
