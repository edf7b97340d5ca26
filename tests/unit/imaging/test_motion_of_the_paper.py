"""Drift and jitter of the paper's run (R1: 56 points in 840 min), as the twin moves the sample, rendered, registered and told apart."""

from __future__ import annotations

import numpy as np
import pytest
from frames_synthetic import Microscope

from xbat_live.imaging import DriftModel, LiveRegistrar
from xbat_live.sim.instabilities import MotorError, drift_um
from xbat_live.sim.settings import TwinSettings

SHAPE, PIXEL_UM = (327, 339), 0.03324


@pytest.mark.parametrize("seed", [1])
def test_drift_and_jitter_of_the_twin_are_told_apart_within_five_percent(seed: int) -> None:
    settings, t_s = TwinSettings(), 840 * 60 / 55 * np.arange(56)
    axes = [MotorError(seed, axis, sigma, 0.0) for axis, sigma in enumerate(settings.jitter_um_yx)]
    drift, jitter = np.zeros((56, 2)), np.zeros((56, 2))
    for i, time_s in enumerate(t_s):
        for axis in axes:
            axis.stopped()
        drift[i], jitter[i] = drift_um(settings, float(time_s)), [axis.error_um for axis in axes]
    moved_px = (drift + jitter - drift[0] - jitter[0]) / PIXEL_UM
    microscope = Microscope(SHAPE, seed=seed, photons=1000, margin_px=160)
    registrar, live = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, PIXEL_UM), DriftModel()
    for time_s, shift_px in zip(t_s, moved_px, strict=True):
        result = registrar.update(microscope.expose(tuple(shift_px)))
        assert result.ok
        motion = live.update(
            float(time_s), np.multiply(result.shift_yx_px, PIXEL_UM), np.multiply(result.sigma_yx_px, PIXEL_UM)
        )
    assert drift[-1, 0] == pytest.approx(5.2), "the paper's vertical drift"
    parts = live.separation()
    # Shifts count from the first frame: what it was displaced by itself is in all of them.
    assert motion.drift_yx_um[0] + jitter[0, 0] == pytest.approx(5.2, rel=0.05)
    assert parts.drift_yx_um[-1, 0] - parts.drift_yx_um[0, 0] == pytest.approx(5.2, rel=0.05)
    assert parts.jitter_yx_um.std(0) == pytest.approx(jitter.std(0), rel=0.05)
