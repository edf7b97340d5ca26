"""Published and computed reference cases: each row names what it must come to, how closely, and who says so."""

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
import xraydb

from xbat_live.dose import Beam, Layer, LayerStack, Material, presets, scan_dose_per_fluence
from xbat_live.dose.cross_sections import check_energy, compton_transfer, mass_attenuation, mass_energy_deposition

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


# NIST X-ray mass coefficients (Hubbell and Seltzer), cm2/g, energies keV: mu/rho, mu_en/rho
NIST = {
    "C": {4: (37.78, 37.23), 6: (10.95, 10.54), 8: (4.576, 4.242), 10: (2.373, 2.078), 15: (0.8071, 0.5627),
          20: (0.4420, 0.2238), 30: (0.2562, 0.06614), 40: (0.2076, 0.03343), 50: (0.1871, 0.02397), 60: (0.1753, 0.02098)},
    "O": {10: (5.952, 5.565), 15: (1.836, 1.545), 20: (0.8651, 0.6179), 30: (0.3779, 0.1729), 60: (0.1907, 0.03207)},
    "Al": {10: (26.23, 25.43), 20: (3.441, 3.094), 30: (1.128, 0.8778), 60: (0.2778, 0.1099)},
    "Fe": {10: (170.6, 136.9), 15: (57.08, 48.96), 20: (25.68, 22.60), 30: (8.176, 7.251)},
    "Ni": {8: (49.52, 47.58), 10: (209.0, 152.4), 15: (70.81, 57.34), 20: (32.20, 27.22), 30: (10.34, 8.982)},
    "Cu": {10: (215.9, 148.4), 20: (33.79, 27.88), 30: (10.92, 9.349), 60: (1.593, 1.290)},
    "Pb": {15: (111.6, 91.00)},  # 20 % of it leaves as L fluorescence
}  # fmt: skip
NODES = [(element, kev, *values) for element, rows in NIST.items() for kev, values in rows.items()]


@pytest.mark.parametrize(("element", "energy_kev", "total", "absorbed"), NODES)
def test_coefficients_agree_with_nist(element, energy_kev, total, absorbed):
    energy = check_energy(energy_kev * 1e3)
    assert float(mass_attenuation({element: 1.0}, energy)) == pytest.approx(total, rel=0.005)
    assert float(mass_energy_deposition({element: 1.0}, energy, "energy")) == pytest.approx(absorbed, rel=0.025)


@pytest.mark.parametrize(
    ("energy_ev", "fraction"),
    [(10_000, 0.0188), (60_000, 0.0936), (100_000, 0.1381), (200_000, 0.2164)],  # Klein-Nishina, integrated by hand
)
def test_compton_electrons_take_their_share(energy_ev, fraction):
    assert float(compton_transfer(check_energy(energy_ev))) == pytest.approx(fraction, rel=5e-3)


INSB = Material("InSb", "InSb", 5.78)
LP57 = Material("LP57", {"C3H4O3": 0.27, "C4H8O3": 0.60, "LiPF6": 0.13}, 1.3)
OTHER_CELLS = {
    "insb": LayerStack(
        [Layer("window", 50, {Material("Be", "Be", 1.85): 1.0}), Layer("anode", 20, {INSB: 0.5, LP57: 0.4})]
    ),
    **{name: presets.cell(name) for name in presets.cell_names()},
}


def from_scratch(stack, energy_ev, layer_name, material_name, where):
    """Dose per fluence in the definition `attenuation`, written down again from the tables of xraydb."""
    passed = 1.0
    for layer in stack.layers:
        total_per_cm = 0.0
        for material, volume in layer.parts.items():
            own = sum(w * xraydb.mu_elam(el, energy_ev, kind="total") for el, w in material.composition.items())
            total_per_cm += own * material.density_g_cm3 * volume
            if material.name == material_name:
                wanted = own
        depth = total_per_cm * layer.thickness_um * 1e-4 / math.cos(math.radians(stack.tilt_deg))
        if layer.name == layer_name:
            share = {"mean": (1 - math.exp(-depth)) / depth, "front": 1.0, "back": math.exp(-depth)}[where]
            return passed * energy_ev * 1.602176634e-19 * wanted * share * 1e3
        passed *= math.exp(-depth)
    raise AssertionError(layer_name)


@pytest.mark.parametrize("name", OTHER_CELLS)
@pytest.mark.parametrize("tilt_deg", [0.0, 40.0])
def test_doses_from_scratch_for_every_cell_material_place_and_energy(name, tilt_deg):
    stack = LayerStack(OTHER_CELLS[name].layers, tilt_deg)
    energies_ev = np.array([4000.0, 7100.0, 7120.0, 8390.0, 8400.0, 12_000.0, 27_000.0, 28_000.0, 60_000.0])
    for layer in stack.layers:
        for material in layer.parts:
            for where in ("mean", "front", "back"):
                doses = stack.dose_per_fluence(energies_ev, layer.name, material.name, where=where)
                expected = [from_scratch(stack, energy, layer.name, material.name, where) for energy in energies_ev]
                np.testing.assert_allclose(doses, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("stack", "energy_ev", "layer", "material", "energy_over_attenuation"),
    [
        (ROCK, 8390.0, "cathode", "LiNiO2", 0.670),
        (POUCH, 27_000.0, "cathode", "NMC811", 0.860),
        (POUCH, 27_000.0, "anode", "graphite", 0.311),
        (POUCH, 27_000.0, "cathode", "electrolyte", 0.431),
    ],
)
def test_thresholds_convert_between_definitions(stack, energy_ev, layer, material, energy_over_attenuation):
    ratio = stack.dose_per_fluence(energy_ev, layer, material, "energy") / stack.dose_per_fluence(
        energy_ev, layer, material
    )
    assert ratio == pytest.approx(energy_over_attenuation, rel=0.02)


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


@pytest.mark.parametrize(
    ("layer", "material", "definition", "rate_gy_s"),
    [
        ("cathode", "LiNiO2", "attenuation", 4140),
        ("cathode", "LiNiO2", "energy", 2770),
        ("cathode", "electrolyte", "attenuation", 136),
        ("cathode", "electrolyte", "energy", 128),
        ("separator", "electrolyte", "attenuation", 182),
        ("separator", "electrolyte", "energy", 171),
    ],
)
def test_rates_in_the_rock_cell(layer, material, definition, rate_gy_s):
    density = ROCK_FLUX_PH_S / (0.328 * 0.121)
    assert density * ROCK.dose_per_fluence(8390.0, layer, material, definition) == pytest.approx(rate_gy_s, rel=0.03)


def test_a_scan_in_one_call_is_the_mean_over_its_energies():
    scan_ev = np.linspace(8266.0, 8878.0, 580)
    per_fluence = scan_dose_per_fluence(ROCK, scan_ev, "cathode", "LiNiO2")
    assert ROCK_FLUX_PH_S / (0.328 * 0.121) * per_fluence == pytest.approx(3749, rel=0.04)  # P05 again


JOUSSEAUME, LA_PORTA_FOCUS = "Jousseaume 2023", "La Porta 2026"
OXIDES = ("NMC622", "NMC811", "NMC", "graphite")
PRESET_LIMITS = {  # value, unit, materials, advisory, source, a word of the question it protects
    "nmc_graphite_safe": (80e3, "Gy", OXIDES, False, JOUSSEAUME, "everything"),
    "nmc_graphite_microstructure": (1e6, "Gy", OXIDES, False, JOUSSEAUME, "peak widths"),
    "nmc_graphite_lithiation": (4e6, "Gy", OXIDES, False, JOUSSEAUME, "lattice parameters"),
    "nmc_graphite_kinetics": (11e6, "Gy", OXIDES, False, JOUSSEAUME, "kinetics"),
    "lno_redox": (35e6, "Gy", ("LiNiO2",), False, LA_PORTA_FOCUS, "redox"),
    "lno_rate_ok": (1.0e3, "Gy/s", ("LiNiO2",), False, LA_PORTA_FOCUS, "redox"),
    "lno_rate_bad": (6.7e3, "Gy/s", ("LiNiO2",), False, LA_PORTA_FOCUS, "redox"),
    "electrolyte_radiolysis": (20e3, "Gy", ("electrolyte",), True, "Ortiz 2015", "radiolysis"),
    "insb": (1e6, "Gy", ("InSb",), False, "Blondeau", "spectroscopy"),
    "insb_upper": (10e6, "Gy", ("InSb",), False, "Blondeau", "damage"),
}


def test_the_presets_are_these():
    assert set(presets.limit_names()) == set(PRESET_LIMITS)
    assert set(presets.cell_names()) >= {"txm_nmc622", "nmc811_pouch", "lno_rock", "lfp", "capillary"}


@pytest.mark.parametrize("name", PRESET_LIMITS)
def test_every_preset_limit_has_all_its_fields(name):
    value, unit, materials, advisory, source, question = PRESET_LIMITS[name]
    for material in materials:
        limit = presets.limit(name, material)
        assert (limit.name, limit.value, limit.unit, limit.material) == (name, value, unit, material)
        assert (limit.advisory, limit.model) == (advisory, "attenuation")
        assert source in limit.source
        assert question in limit.protects
        assert name in presets.limit_names(material)


def test_every_limit_states_its_definition_in_the_file_itself():
    content = tomllib.loads(files("xbat_live.dose").joinpath("presets.toml").read_text())
    for name, entry in content["limits"].items():
        assert entry["model"] == "attenuation", name
        assert ("limit" in entry) != ("rate" in entry), name
        assert {"materials", "protects", "source"} <= set(entry), name
    for name, entry in content["cells"].items():
        assert {"description", "source", "layers"} == set(entry), name
    assert {part for cell in content["cells"].values() for layer in cell["layers"] for part in layer["parts"]} <= set(
        content["materials"]
    )


# Section 4 of the dose model: beam order; thickness um; material: density g/cm3, volume fraction
PRESET_CELLS = {
    "lno_rock": [
        ("window", 145, {"diamond": (3.5, 1)}),
        ("lithium", 1000, {"Li": (0.534, 1)}),
        ("separator", 25, {"Celgard": (0.905, 0.45), "electrolyte": (1.01, 0.55)}),
        ("cathode", 10, {"LiNiO2": (4.716, 0.64), "electrolyte": (1.01, 0.36)}),
    ],
    "nmc811_pouch": [
        ("anode collector", 10, {"Cu": (8.96, 1)}),
        ("anode", 54, {"graphite": (2.3, 0.6), "electrolyte": (1.15, 0.4)}),
        ("separator", 25, {"SiO2": (2.6, 0.1), "electrolyte": (1.15, 0.9)}),
        ("cathode", 32, {"NMC811": (4.8, 0.72), "electrolyte": (1.15, 0.28)}),
        ("cathode collector", 12, {"Al": (2.7, 1)}),
    ],
    "txm_nmc622": [
        ("window", 10, {"SiO2": (2.2, 1)}),
        ("electrolyte", 40, {"electrolyte": (1.2, 1)}),
        ("cathode", 10, {"NMC622": (4.7, 0.6), "electrolyte": (1.2, 0.4)}),
    ],
}


@pytest.mark.parametrize("name", PRESET_CELLS)
def test_preset_cells_are_the_published_ones(name):
    layers = [
        (layer.name, layer.thickness_um, {part.name: (part.density_g_cm3, v) for part, v in layer.parts.items()})
        for layer in presets.cell(name).layers
    ]
    assert layers == PRESET_CELLS[name]


@pytest.mark.parametrize("name", presets.cell_names())
def test_every_preset_cell_builds_and_names_its_source(name):
    description, source = presets.cell_description(name)
    assert description
    assert source
    assert 0 < presets.cell(name).transmission(12_000.0) < 1
