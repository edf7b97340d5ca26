"""Breathing of the sample does not bias the mean displacement."""

from __future__ import annotations

import numpy as np
import pytest
from frames_synthetic import Microscope, particles
from scipy import ndimage

from xbat_live.imaging import LiveRegistrar

SHAPE = (327, 339)


class Breathing:
    """A scene that swells about a point in the richer half, seen through one microscope; particles only on the left."""

    def __init__(self) -> None:
        self.microscope = Microscope(SHAPE, seed=3, photons=2000, margin_px=100)
        scene = particles(self.microscope.scene.shape, 11, coverage=0.7)
        x = np.linspace(0, 1, scene.shape[1])
        self.scene = scene * (0.15 + 0.85 / (1 + np.exp((x - 0.5) / 0.05)))
        self.centre = np.array([0.5 * scene.shape[0], 0.3 * scene.shape[1]])

    def expose(self, shift: np.ndarray, strain: float) -> np.ndarray:
        """Return a frame; material at p moves to centre + (1 + strain) (p - centre) + shift."""
        matrix = np.eye(2) / (1 + strain)
        self.microscope.scene = ndimage.affine_transform(
            self.scene, matrix, self.centre - matrix @ (self.centre + shift), order=3, mode="grid-wrap"
        )
        return self.microscope.expose()

    def mean(self, shift: np.ndarray, strain: float) -> np.ndarray:
        """Return the mean displacement over the field of view, px: that of its centre."""
        middle = (np.array(self.scene.shape) - 1) / 2
        return shift + strain * (middle - self.centre)


@pytest.mark.parametrize("strain", [0.0, 0.01, -0.015])
def test_the_mean_displacement_is_not_that_of_the_rich_half(strain: float) -> None:
    sample = Breathing()
    registrars = [
        LiveRegistrar(SHAPE, sample.microscope.flat, sample.microscope.dark, 0.03324, robust=robust)
        for robust in (False, True)
    ]
    first = sample.expose(np.zeros(2), 0.0)
    for registrar in registrars:
        registrar.update(first)
    rng, errors = np.random.default_rng(2), []
    for _ in range(4):
        shift = rng.normal(0, 8, 2)
        frame, truth = sample.expose(shift, strain), sample.mean(shift, strain)
        errors.append([np.subtract(registrar.update(frame).shift_yx_px, truth) for registrar in registrars])
    rigid, mean = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
    assert mean < 0.2
    if strain:
        assert mean < rigid / 2


def test_a_path_over_keyframes_keeps_its_definition() -> None:
    sample = Breathing()
    registrar = LiveRegistrar(SHAPE, sample.microscope.flat, sample.microscope.dark, 0.03324, robust=True)
    registrar.update(sample.expose(np.zeros(2), 0.0))
    for i in range(1, 9):
        shift = np.array([9.0 * i, 0.0])
        result = registrar.update(sample.expose(shift, 0.001 * i))
        assert result.ok
        assert np.abs(np.subtract(result.shift_yx_px, sample.mean(shift, 0.001 * i))).max() < 0.45
    assert result.keyframe_id > 0
    assert len(registrar._offsets) <= len(registrar._chain.keyframes)


@pytest.mark.parametrize(
    ("drift_px", "least"),
    [
        (0.0, 0.6),  # one keyframe: the stated uncertainty is that of one pair
        (150.0, 0.4),  # a chain: the noise of a keyframe cancels in part, which is not counted on
    ],
)
def test_a_rigid_sample_moves_as_a_whole_and_the_mean_knows_how_well(drift_px: float, least: float) -> None:
    errors, scaled = [], []
    for seed in range(3):
        microscope = Microscope(SHAPE, seed=seed, photons=10000, counts_per_photon=3.0, margin_px=160)
        registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324, robust=True)
        shifts = np.random.default_rng(seed).normal(0, 6, (16, 2))
        shifts[:, 0] += np.linspace(0, drift_px, 16)
        results = [registrar.update(microscope.expose((float(y), float(x)))) for y, x in shifts]
        assert (results[-1].keyframe_id >= 3) == (drift_px > 0)
        errors.append(np.array([r.shift_yx_px for r in results[1:]]) - (shifts[1:] - shifts[0]))
        scaled.append(errors[-1] / [r.sigma_yx_px for r in results[1:]])
    # Windows that do not go with the material pull all tiles towards whole pixels alike, by up to 0.15 px.
    assert np.sqrt(np.mean(np.square(errors))) < 0.03
    assert least < np.sqrt(np.mean(np.square(scaled))) < 1.4


@pytest.mark.parametrize("strain", [0.012, 0.02, -0.02])
def test_a_sample_that_swells_at_rest_is_not_taken_for_dust(strain: float) -> None:
    # What stays with the camera looks alike from the whole: no shift, and only part of the structure agrees. Tiles tell them apart.
    microscope = Microscope(SHAPE, seed=7, photons=2000, margin_px=100)
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324)
    registrar.update(microscope.expose())
    middle = (np.array(microscope.scene.shape) - 1) / 2
    matrix = np.eye(2) / (1 + strain)
    microscope.scene = ndimage.affine_transform(
        microscope.scene, matrix, middle - matrix @ middle, order=3, mode="grid-wrap"
    )
    result = registrar.update(microscope.expose())
    assert result.ok, result.reason
    assert np.abs(result.shift_yx_px).max() < 0.5
