"""The threshold that the live analysis finds in cubes of the simulated electrode is the simulator's, while it is charged and after."""

from __future__ import annotations

import numpy as np
import pytest

from xbat_live.callbacks.xas_curve import edge_curve, edge_threshold
from xbat_live.callbacks.xas_state import XasSettings, XasState
from xbat_live.sim.hindrance import HinderedReaction
from xbat_live.sim.imager import Shot
from xbat_live.sim.render import SceneState
from xbat_live.sim.rock import FOCI, rock_settings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin
from xbat_live.spectra import FrameAbsorbance

SENSOR = (96, 256)
PIXEL_UM, PEAK_GY_S = 13.0, {"far": 7000.0, "near": 18500.0}
THRESHOLD_GY = 35e6
ENERGY_EV = np.concatenate([np.linspace(8272, 8328, 15), np.linspace(8330, 8362, 33), np.linspace(8366, 8620, 52)])
CHARGED_S = 14400.0
I0_Y_UM, FOIL_Y_UM = 4500.0, -5000.0


class Beamtime:
    """An electrode in one focus: cubes with the photons of `cubes` sweeps, and the dose that its reaction has seen."""

    def __init__(self, focus, cubes=5):
        gain = FOCI[focus][1] * (1.625 / PIXEL_UM) ** 2
        steady = {"jitter_um_yx": (0.0, 0.0), "beam_drift_um": 0.0}
        settings = rock_settings(focus, sensor_yx=SENSOR, pixel_size_um=PIXEL_UM, counts_per_photon=gain, **steady)
        self.twin = Twin(settings, lambda: 0.0)
        self.beam, self.gain, self.cubes = self.twin._imager._beam, gain, cubes
        size = int(4000 / settings.dose_grid_um) | 1
        along = (np.arange(size) - size // 2) * settings.dose_grid_um
        self.rate_gy_s = PEAK_GY_S[focus] * self.profile(along, along)
        self.reaction = HinderedReaction(settings, self.rate_gy_s.shape)
        self.rng = np.random.default_rng(1)

    def profile(self, y_um, x_um):
        peak = self.beam.along("y", np.zeros(1)) * self.beam.along("x", np.zeros(1))
        return np.outer(self.beam.along("y", y_um), self.beam.along("x", x_um)) / peak

    def charge(self, until_s):
        for time_s in np.arange(60.0, until_s + 1, 60.0):
            soc = 0.88 * min(time_s / CHARGED_S, 1.0)
            self.reaction._advance(time_s, soc, self.rate_gy_s * time_s, 1.0)

    def cube(self, y_um):
        roi = Roi(0, 0, *SENSOR)
        frames = []
        for number, energy_ev in enumerate(ENERGY_EV):
            state = SceneState((y_um, 0.0), float(energy_ev), self.reaction.progress, 0.5, 0.0)
            shot = Shot(number, roi, (1, 1), 0.018, 0.018, 1.0, (0.0, 0.0), None)
            photons = self.twin._imager.expected_counts(state, shot) * (self.cubes / self.gain)
            counts = self.rng.poisson(photons) * np.float32(self.gain / self.cubes) + 100
            frames.append(counts.reshape(24, 4, 64, 4).mean((1, 3)))
        return np.asarray(frames, np.float32)


@pytest.mark.parametrize(("focus", "times_s"), [("far", (7200.0, 17340.0)), ("near", (5400.0, 17340.0))])
def test_it_is_found_within_a_tenth(focus, times_s):
    it = Beamtime(focus)
    state = XasState(XasSettings(rate_masks=lambda *_: None, bin=1))
    state.take_i0(it.cube(I0_Y_UM), ENERGY_EV, anew=True)
    state.take_foil(it.cube(FOIL_Y_UM), ENERGY_EV, anew=True)
    centres = [(np.arange(count) + 0.5 - count / 2) * 4 * PIXEL_UM for count in (24, 64)]
    rate_gy_s = PEAK_GY_S[focus] * it.profile(*centres)
    for time_s in times_s:
        it.charge(time_s)
        convert: FrameAbsorbance = state.absorbance
        sample = np.stack([convert(frame, energy) for frame, energy in zip(it.cube(0.0), ENERGY_EV, strict=True)])
        edges = state.maps(sample, ENERGY_EV, None).edge_ev
        found = edge_threshold(edge_curve(edges, rate_gy_s * time_s))
        assert found.value_gy == pytest.approx(THRESHOLD_GY, rel=0.1), (time_s, found)
        assert found.interval_gy[0] < THRESHOLD_GY < found.interval_gy[1]
