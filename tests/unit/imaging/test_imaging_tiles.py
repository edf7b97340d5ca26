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
