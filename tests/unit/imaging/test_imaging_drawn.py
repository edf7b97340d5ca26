"""Registration and blur screen on frames of a microscope that shares nothing with the one they were developed on."""

from __future__ import annotations

import numpy as np
import pytest
from frames_drawn import KERNELS, DrawnMicroscope, kernel_path

from xbat_live.imaging import FramePipeline, LiveRegistrar

SHAPE = (327, 339)


@pytest.mark.parametrize(
    ("photons", "options", "bar_px"),
    [
        # Bars: those of 654 x 678 px times two, for a quarter of the area.
        (200.0, {}, 0.14),
        (1000.0, {}, 0.05),
        (10000.0, {}, 0.02),
        (1000.0, {"size_px": (3.0, 9.0), "coverage": 0.3}, 0.05),  # fine powder
        (1000.0, {"spread_px": 0.7}, 0.05),  # a thick scintillator: noise that is far from white
        (1000.0, {"tilt": 0.15}, 0.05),  # a beam that moved since the flat
    ],
)
def test_drift_and_jitter_over_keyframes(photons: float, options: dict, bar_px: float) -> None:
    microscope = DrawnMicroscope(SHAPE, 7, photons, counts_per_photon=min(5.0, 30000 / photons), **options)
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324)
    rng = np.random.default_rng(7)
    shifts = rng.normal(0, 6, (14, 2)) + np.linspace(0, 60, 14)[:, None] * (1, 0)
    results = [registrar.update(microscope.expose(tuple(shift))) for shift in shifts]
    assert all(result.ok for result in results)
    errors = np.array([result.shift_yx_px for result in results]) - (shifts - shifts[0])
    sigma = np.array([result.sigma_yx_px for result in results])
    assert (np.sqrt(np.mean(errors**2, axis=0)) < bar_px).all()
    assert np.abs(errors[1:] / sigma[1:]).max() < 4.5


@pytest.mark.parametrize("kernel", KERNELS)
def test_blur_of_every_kind_is_rejected_measured_and_told_from_dose(kernel: str) -> None:
    microscope = DrawnMicroscope(SHAPE, 3, 1000.0)
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    assert pipeline.process(microscope.expose(), "field").accepted
    for scale in (0.3, 3.0):
        sharp = microscope.expose((4.0, -3.0), scale=scale)
        assert pipeline.process(sharp, "field", beam_scale=scale).accepted
    verdict = pipeline.process(microscope.expose((-5.0, 6.0), 6.0, 25.0, kernel=kernel), "field")
    assert verdict.kind == "blurred"
    assert np.abs(np.subtract(verdict.shift_yx_px, (-5.0, 6.0))).max() < 0.3
    assert verdict.blur.extent_px == pytest.approx(6.0, rel=0.2)
    assert verdict.blur.kind == ("directional" if kernel in ("line", "arc") else "isotropic")
    if verdict.blur.kind == "directional":
        assert abs(verdict.blur.angle_deg - 25.0) < 5


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_drawn_kernel_has_the_extent_it_says(kernel: str) -> None:
    path = kernel_path(kernel, 6.0, 30.0)
    variance, axes = np.linalg.eigh(np.cov(path.T, bias=True))
    assert path.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert np.sqrt(12 * variance[1]) == pytest.approx(6.0)
    if kernel in ("line", "arc"):
        assert np.rad2deg(np.arctan2(axes[0, 1], axes[1, 1])) % 180 == pytest.approx(30.0)
