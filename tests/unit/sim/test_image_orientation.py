"""A mirrored or rotated camera shows the same scene, in every region and binning."""

import numpy as np
import pytest

from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin

BASE = {
    "sensor_yx": (96, 96),
    "beam_drift_um": 0.0,
    "jitter_um_yx": (0.0, 0.0),
    "vibration_probability": 0.0,
    "flux_ph_s": 1e12,
    "counts_per_photon": 0.05,
}
SEEN = {
    "flip_x": np.fliplr,
    "flip_y": np.flipud,
    "rotate_90": np.rot90,
    "rotate_180": lambda image: np.rot90(image, 2),
    "rotate_270": lambda image: np.rot90(image, 3),
    "transpose": np.transpose,
}


WHOLE = Roi(0, 0, 96, 96)


def frame(roi=WHOLE, bin_yx=(1, 1), **settings):
    twin = Twin(TwinSettings(**(BASE | settings)), clock=lambda: 0.0)
    twin.open_shutter(0.0)
    return twin.expose(0.0, 0.05, roi, bin_yx, "Normal")


@pytest.mark.parametrize("orientation", SEEN)
def test_the_image_is_turned_and_the_truth_is_not(orientation):
    upright, turned = frame(), frame(image_orientation=orientation)
    np.testing.assert_array_equal(turned.image, SEEN[orientation](upright.image))
    assert (turned.truth.x_um, turned.truth.y_um) == (upright.truth.x_um, upright.truth.y_um)


@pytest.mark.parametrize("orientation", SEEN)
def test_a_region_is_that_part_of_the_turned_image(orientation):
    roi = Roi(8, 20, 32, 64)
    whole = frame(image_orientation=orientation).image.astype(float)
    part = frame(roi, image_orientation=orientation).image.astype(float)
    wanted = whole[8:40, 20:84]
    assert part.shape == wanted.shape
    assert np.corrcoef(part.ravel(), wanted.ravel())[0, 1] > 0.7  # the photon noise is another one
    binned = frame(roi, (2, 4), image_orientation=orientation).image
    assert binned.shape == (16, 16)


def test_impossible_orientations_are_told():
    with pytest.raises(ValueError, match="flip_x"):
        frame(image_orientation="sideways")
    with pytest.raises(ValueError, match="square"):
        frame(Roi(0, 0, 64, 96), sensor_yx=(64, 96), image_orientation="rotate_90")
