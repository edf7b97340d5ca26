"""Published and computed reference cases: each row names what it must come to, how closely, and who says so."""

import math

import numpy as np
import pytest

from xbat_live.dose import Beam, Layer, LayerStack, presets
from xbat_live.dose.cross_sections import check_energy, mass_energy_deposition

ROCK_FLUX_PH_S = 1.041e12
ROCK = presets.cell("lno_rock")
POUCH = presets.cell("nmc811_pouch")
TXM = presets.cell("txm_nmc622")
POUCH_FLUENCE = 2.44e10 * 1050 * 27 * 0.375 / (0.0630 * 0.0110)


def rock_rate(energy_ev=8390.0, stack=ROCK, model="attenuation"):
    """Gy/s in LiNiO2 for all flux spread flat over 3.28 x 1.21 mm2."""
    beam = Beam.top_hat(ROCK_FLUX_PH_S, size_um=(3280, 1210))
    return beam.peak_flux_density * stack.dose_per_fluence(energy_ev, "cathode", "LiNiO2", model)


def rock_without_pores():
    electrode = ROCK.layer("cathode")
    dense = Layer("cathode", electrode.thickness_um, {electrode.material("LiNiO2"): 1.0})
    return LayerStack([*ROCK.layers[:-1], dense])


def pouch(layer, material, model="attenuation"):
    return POUCH_FLUENCE * POUCH.dose_per_fluence(27_000.0, layer, material, model)


def txm_frame(model):
    return 1e10 * 0.048 / 30e-4**2 * TXM.dose_per_fluence(8562.0, "cathode", "NMC622", model)


def gaussian_peak_times_area():
    return Beam.gaussian(1.0, fwhm_um=(30, 12)).peak_flux_density * (30e-4 * 12e-4)


LA_PORTA = "La Porta 2026 (LiNiO2), text and SI"
NOTEBOOK = "Jousseaume 2023; STardif/dose_estimation notebook"

CASES = [
    ("P01 removed upstream", lambda: 1 - ROCK.transmission_to("cathode", 8390.0), 0.2122, 0.05, LA_PORTA + ": 21 %"),
    ("P02 electrode", lambda: ROCK_FLUX_PH_S * ROCK.transmission_to("cathode", 8390.0), 8.201e11, 0.015, LA_PORTA),
    ("P03 rate in LiNiO2", rock_rate, 4136, 0.03, "published model"),
    ("P04 rate, no pores", lambda: rock_rate(stack=rock_without_pores()), 3575, 0.03, "Eq. 2 read literally"),
    ("P05 rate over a scan", lambda: rock_rate(np.linspace(8266.0, 8878.0, 580)).mean(), 3749, 0.04, "Eq. 3"),
    ("P06 rate, energy absorbed", lambda: rock_rate(model="energy"), 2773, 0.04, "NIST mu_en"),
    ("P07 farther focus: time", lambda: 120e6 / 7e3, 17143, 0.001, LA_PORTA),
    ("P08 closer focus: time", lambda: 320e6 / 18.5e3, 17297, 0.001, LA_PORTA),
    ("P09 NMC811", lambda: pouch("cathode", "NMC811"), 1.1018e7, 0.05, NOTEBOOK + ": 10.661 MGy"),
    ("P10 Cu", lambda: pouch("anode collector", "Cu"), 2.2265e7, 0.05, NOTEBOOK + ": 21.762 MGy"),
    ("P11 graphite", lambda: pouch("anode", "graphite"), 4.05e5, 0.13, NOTEBOOK + ": 363.2 kGy"),
    ("P12 electrolyte", lambda: pouch("cathode", "electrolyte"), 5.137e5, 0.13, NOTEBOOK + ": 464.4 kGy"),
    ("P13 electrolyte, energy", lambda: pouch("cathode", "electrolyte", "energy"), 2.215e5, 0.06, "NIST mu_en"),
    ("P14 NMC811 at #1", lambda: pouch("cathode", "NMC811") / (1050 * 27 * 0.375) * 31.5 * 2.5, 81600, 0.06, NOTEBOOK),
    ("P15 one TXM frame, energy", lambda: txm_frame("energy"), 6452.8, 0.05, "flux assumed"),
    ("P16 one TXM frame", lambda: txm_frame("attenuation"), 9151.7, 0.05, "flux assumed"),
    ("P17 beam left on for 15 min", lambda: 15 * 60 / 0.048, 18750, 1e-12, "arithmetic"),
    ("P18 Gaussian peak", gaussian_peak_times_area, 4 * math.log(2) / math.pi, 1e-12, "4 ln2 / pi"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "value", "expected", "tolerance", "source"), CASES, ids=[row[0] for row in CASES])
def test_reference_case(case, value, expected, tolerance, source):
    assert value() == pytest.approx(expected, rel=tolerance), f"{case} ({source})"


@pytest.mark.parametrize(
    ("layer", "material", "notebook_kgy"),
    [
        ("anode collector", "Cu", 21762),
        ("anode", "graphite", 363.2),
        ("anode", "electrolyte", 486.4),
        ("separator", "SiO2", 1476.4),
        ("cathode", "NMC811", 10661),
        ("cathode", "electrolyte", 464.4),
        ("cathode collector", "Al", 1773.4),
    ],
)
def test_legacy_model_reproduces_the_published_notebook(layer, material, notebook_kgy):
    assert pouch(layer, material, "legacy_jousseaume") / 1e3 == pytest.approx(notebook_kgy, rel=0.02)


@pytest.mark.parametrize(
    ("element", "energy_kev", "nist_cm2_g"),
    [
        ("C", 10, 2.078), ("C", 15, 0.5627), ("C", 20, 0.2238), ("C", 30, 0.06614),
        ("Ni", 8, 47.58), ("Ni", 10, 152.4), ("Ni", 20, 27.22), ("Ni", 30, 8.982),
    ],
)  # fmt: skip
def test_derived_energy_absorption_agrees_with_nist(element, energy_kev, nist_cm2_g):
    derived = mass_energy_deposition({element: 1.0}, check_energy(energy_kev * 1e3), "energy")
    assert float(derived) == pytest.approx(nist_cm2_g, rel=0.025)


def test_the_two_focus_positions_agree_on_the_exposure_time():
    assert 120e6 / 7e3 == pytest.approx(320e6 / 18.5e3, rel=0.02)


def test_front_and_back_embrace_the_mean():
    front, mean, back = (
        ROCK.dose_per_fluence(8390.0, "cathode", "LiNiO2", where=where) for where in ("front", "mean", "back")
    )
    assert front > mean > back
    beam = Beam.top_hat(ROCK_FLUX_PH_S, size_um=(3280, 1210))
    assert beam.peak_flux_density * front == pytest.approx(5500, rel=0.03)  # dose-model 2.1, front surface


def test_layer_mean_is_the_mass_weighted_mean_of_its_materials():
    beam = Beam.top_hat(ROCK_FLUX_PH_S, size_um=(3280, 1210))
    assert beam.peak_flux_density * ROCK.layer_dose_per_fluence(8390.0, "cathode") == pytest.approx(3710, rel=0.03)


@pytest.mark.parametrize("name", presets.cell_names())
def test_every_preset_cell_builds_and_names_its_source(name):
    description, source = presets.cell_description(name)
    assert description
    assert source
    assert 0 < presets.cell(name).transmission(12_000.0) < 1


@pytest.mark.parametrize("name", presets.limit_names())
def test_every_preset_limit_names_source_model_and_question(name):
    limit = presets.limit(name)
    assert limit.model == "attenuation"
    assert limit.source
    assert limit.protects


def test_preset_limits_have_the_published_values():
    values = {name: presets.limit(name).value for name in presets.limit_names()}
    assert values == {
        "nmc_graphite_safe": 80e3,
        "nmc_graphite_microstructure": 1e6,
        "nmc_graphite_kinetics": 11e6,
        "lno_redox": 35e6,
        "lno_rate_ok": 1.0e3,
        "lno_rate_bad": 6.7e3,
        "electrolyte_radiolysis": 20e3,
        "insb": 1e6,
    }
    assert presets.limit("electrolyte_radiolysis").advisory
