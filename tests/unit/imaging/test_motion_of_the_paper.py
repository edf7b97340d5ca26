"""Drift and jitter of the paper's run (R1: 56 points in 840 min), as the twin moves the sample, rendered, registered and told apart."""

from __future__ import annotations

import numpy as np
import pytest
from frames_synthetic import Microscope

from xbat_live.imaging import DriftModel, LiveRegistrar
from xbat_live.sim.instabilities import MotorError, drift_um
from xbat_live.sim.settings import TwinSettings

SHAPE, PIXEL_UM = (327, 339), 0.03324


T_S = 840 * 60 / 55 * np.arange(56)


def _twin(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return drift and jitter (56, 2), um, of the twin's sample at its own settings, as it moves during the run R1."""
    settings = TwinSettings()
    axes = [MotorError(seed, axis, sigma, 0.0) for axis, sigma in enumerate(settings.jitter_um_yx)]
    drift, jitter = np.zeros((56, 2)), np.zeros((56, 2))
    for i, time_s in enumerate(T_S):
        for axis in axes:
            axis.stopped()
        drift[i], jitter[i] = drift_um(settings, float(time_s)), [axis.error_um for axis in axes]
    assert drift[-1, 0] == pytest.approx(5.2), "the paper's vertical drift"
    return drift, jitter


@pytest.mark.parametrize("seed", range(8))
def test_live_and_after_the_run_drift_and_jitter_are_within_five_percent(seed: int) -> None:
    drift, jitter = _twin(seed)
    # Shifts count from the first frame: what it was displaced by itself is in all of them.
    shift = drift + jitter - drift[0] - jitter[0]
    live = DriftModel()
    for time_s, moved in zip(T_S, shift, strict=True):
        motion = live.update(float(time_s), moved, (0.0005, 0.0005))
    assert motion.drift_yx_um[0] + jitter[0, 0] == pytest.approx(5.2, rel=0.05)
    assert motion.jitter_rms_yx_um == pytest.approx(tuple(jitter.std(0)), rel=0.05)
    parts = live.separation()
    assert parts.drift_yx_um[-1, 0] - parts.drift_yx_um[0, 0] == pytest.approx(5.2, rel=0.05)
    assert parts.jitter_sigma_yx_um == pytest.approx(tuple(jitter.std(0)), rel=0.05)


def test_as_rendered_and_registered_they_are_as_well() -> None:
    drift, jitter = _twin(1)
    moved_px = (drift + jitter - drift[0] - jitter[0]) / PIXEL_UM
    microscope = Microscope(SHAPE, seed=1, photons=1000, margin_px=160)
    registrar, live = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, PIXEL_UM), DriftModel()
    for time_s, shift_px in zip(T_S, moved_px, strict=True):
        result = registrar.update(microscope.expose(tuple(shift_px)))
        assert result.ok
        motion = live.update(
            float(time_s), np.multiply(result.shift_yx_px, PIXEL_UM), np.multiply(result.sigma_yx_px, PIXEL_UM)
        )
    parts = live.separation()
    assert motion.drift_yx_um[0] + jitter[0, 0] == pytest.approx(5.2, rel=0.05)
    assert motion.jitter_rms_yx_um == pytest.approx(tuple(jitter.std(0)), rel=0.05)
    assert parts.drift_yx_um[-1, 0] - parts.drift_yx_um[0, 0] == pytest.approx(5.2, rel=0.05)
    assert parts.jitter_yx_um.std(0) == pytest.approx(jitter.std(0), rel=0.05)
