"""The scene of full-field XAS: rates of both foci, what stands in the beam, energies of the frames, and the dose that delays."""

from __future__ import annotations

import numpy as np
import pytest

from xbat_live.dose import presets
from xbat_live.sim.hindrance import lag_of_dose
from xbat_live.sim.iocs.motion import Axis, Trapezoid
from xbat_live.sim.rock import component_fractions, component_spectra, foil_spectrum, rock_settings
from xbat_live.sim.rock_scene import RockImager
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin

SMALL = {"sensor_yx": (48, 96), "pixel_size_um": 30.0, "counts_per_photon": 0.02}
ROI = Roi(0, 0, 48, 96)


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def twin_at(y_um, energy_ev=8400.0, **changes):
    clock = Clock()
    twin = Twin(rock_settings("far", **{**SMALL, **changes}), clock)
    twin.set_stage("y", y_um, False)
    twin.set_energy(energy_ev)
    return twin, clock


def frame(twin, clock, exposure_s=0.02):
    twin.open_shutter(clock.now_s)
    clock.now_s += exposure_s
    image = twin.expose(clock.now_s - exposure_s, clock.now_s, ROI).image
    twin.close_shutter(clock.now_s)
    return image.astype(float)


@pytest.mark.parametrize(("focus", "rate_kgy_s"), [("far", 7.0), ("near", 18.5)])
def test_the_largest_dose_rates_are_those_of_the_paper(focus, rate_kgy_s):
    settings = rock_settings(focus)
    energies = np.linspace(8266.0, 8878.0, 100)
    mean = float(np.mean(presets.cell("lno_rock").dose_per_fluence(energies, "cathode", "LiNiO2")))
    width_um, height_um = settings.beam_fwhm_um
    peak_per_cm2 = 4 * np.log(2) / np.pi / (width_um * height_um * 1e-8)
    assert settings.flux_ph_s * peak_per_cm2 * mean == pytest.approx(1000 * rate_kgy_s, rel=0.01)
    assert width_um / height_um == pytest.approx({"far": 3.28 / 1.21, "near": 1.75 / 0.92}[focus], rel=0.01)


def test_the_stage_chooses_between_electrode_foil_and_nothing():
    i0 = frame(*twin_at(4500.0))[20:28, 40:56].mean() - 100
    foil = frame(*twin_at(-5000.0))[20:28, 40:56].mean() - 100
    sample = frame(*twin_at(0.0))[20:28, 40:56].mean() - 100
    below = frame(*twin_at(0.0, 8300.0))[20:28, 40:56].mean() - 100
    assert foil < 0.5 * i0
    assert sample < 0.6 * i0
    assert np.log(below / sample) > 0.3  # the nickel edge


def test_a_frame_has_the_energy_of_the_middle_of_its_exposure():
    twin, clock = twin_at(-5000.0, 8300.0)
    low = frame(twin, clock).mean()
    twin.follow_energy(lambda time_s: 8400.0)
    assert frame(twin, clock).mean() < 0.7 * low


def test_an_axis_knows_where_it_was_between_two_ticks():
    axis = Axis(position=0.0, velocity=10.0, acceleration_s=0.01, travel=(-100.0, 100.0))
    assert axis.position_at(5.0) == 0.0
    leg = Trapezoid(0.0, 50.0, 10.0, 1000.0)
    axis._legs.append((10.0, leg))
    assert axis.position_at(9.0) == 0.0
    assert axis.position_at(12.0) == pytest.approx(leg.position(2.0))
    assert axis.position_at(99.0) == 50.0


def test_dose_above_the_threshold_holds_the_reaction_back_and_spreads_a_little():
    twin, clock = twin_at(0.0, time_scale=1000.0, damage_threshold_gy=35e6)
    twin.potentiostat.start("Galvanostatic", current_ma=0.25)
    twin.open_shutter(clock.now_s)
    for _ in range(30):
        clock.now_s += 0.5
        twin.soc_map()
        twin.expose(clock.now_s - 0.02, clock.now_s, ROI)
    twin.close_shutter(clock.now_s)
    dose, _, _ = twin.dose_map()
    state = twin._local_state(exact=True)
    effect_gy = 1000.0 * dose
    untouched = state[effect_gy < 0.5 * 35e6]
    assert untouched.min() == pytest.approx(untouched.max(), abs=1e-6)
    assert state[dose == dose.max()][0] < untouched.min() - 0.15
    just_below = (effect_gy > 0.985 * 35e6) & (effect_gy < 35e6)
    assert state[just_below].min() < untouched.min()


def test_components_are_distinct_and_close():
    energies = np.arange(8300.0, 8450.0, 0.5)
    spectra = component_spectra(energies)
    assert np.linalg.cond(spectra @ spectra.T) < 1e4
    x = np.linspace(0, 1, 11)
    fractions = component_fractions(x)
    assert fractions.sum(axis=0) == pytest.approx(np.ones(11))
    assert (fractions[1] + 2 * fractions[2]) / 2 == pytest.approx(x)
    assert lag_of_dose([0.0, 35e6], 35e6) == pytest.approx([0.0, 0.0])


def test_the_second_inflection_of_the_foil_is_the_steeper_one():
    energies = np.arange(8320.0, 8360.0, 0.01)
    slope = np.gradient(foil_spectrum(energies), energies)
    first = slope[np.abs(energies - 8333.0) < 3].max()
    assert abs(energies[np.abs(energies - 8333.0) < 3][np.argmax(slope[np.abs(energies - 8333.0) < 3])] - 8333.0) < 0.05
    assert slope[energies > 8340].max() > first


def test_the_true_energy_varies_over_the_field():
    settings = rock_settings("far", **SMALL)
    imager = RockImager(settings, None, None)
    assert 2.0 < np.ptp(imager.energy_shift_ev) < 5.0


def test_an_unknown_focus_or_scene_is_refused():
    with pytest.raises(ValueError, match="far, near"):
        rock_settings("nowhere")
    with pytest.raises(ValueError, match="txm, rock"):
        rock_settings("far", scene="mars")
