"""Wrong numbers are refused with a message that names value, unit and remedy."""

import math

import numpy as np
import pytest

from xbat_live.dose import Beam, DoseLimit, ExposureRequest, Layer, LayerStack, Material, presets

OXIDE = Material("oxide", "LiNiO2", 4.7)
STACK = LayerStack([Layer("cathode", 10, {OXIDE: 0.6})])


def request(**changes):
    return ExposureRequest(
        **{"x_um": 0, "y_um": 0, "energy_ev": 8562, "open_time_s": 0.05, "flux_ph_s": 1e10} | changes
    )


ROWS = [
    ("keV for eV", lambda: STACK.transmission(27), "27 eV is outside 250 eV .* did you mean 27000 eV"),
    ("keV in a scan", lambda: STACK.transmission(np.array([8000.0, 8.4])), "8.4 eV .* did you mean 8400 eV"),
    ("energy beyond the tables", lambda: STACK.transmission(5e5), "500000 eV is outside"),
    ("energy is not a number", lambda: STACK.transmission(math.nan), "nan eV is outside"),
    ("keV in a request", lambda: request(energy_ev=8.562), "did you mean 8562 eV"),
    ("energies missing", lambda: STACK.transmission([]), "no photon energy given"),
    ("negative energy", lambda: STACK.transmission(-8562.0), "-8562 eV is outside"),
    ("wavelength for energy", lambda: STACK.dose_per_fluence(1.45, "cathode", "oxide"), "did you mean 1450 eV"),
    ("keV for the mean of a layer", lambda: STACK.layer_dose_per_fluence(8.562, "cathode"), "did you mean 8562 eV"),
    ("keV on the way in", lambda: STACK.transmission_to("cathode", 8.562), "did you mean 8562 eV"),
    ("arguments in another order", lambda: STACK.dose_per_fluence(8562.0, "oxide", "cathode"), "no layer 'oxide'"),
    ("negative flux", lambda: request(flux_ph_s=-1e10), "flux -1e\\+10 photons/s"),
    ("flux is not a number", lambda: request(flux_ph_s=math.nan), "flux nan photons/s"),
    ("beam of negative flux", lambda: Beam.top_hat(-1.0, (30, 30)), "flux -1 photons/s"),
    ("beam of no flux", lambda: Beam.gaussian(0.0, (30, 30)), "above 0"),
    ("negative open time", lambda: request(open_time_s=-0.1), "-0.1 s is not possible"),
    ("endless open time", lambda: request(open_time_s=math.inf), "inf s is not possible"),
    ("position is not a number", lambda: request(x_um=math.nan), "coordinate x = nan um"),
    ("unknown material", lambda: STACK.dose_per_fluence(8562, "cathode", "NMC"), "no material 'NMC'; it has: oxide"),
    ("unknown layer", lambda: STACK.transmission_to("anode", 8562), "no layer 'anode' in the stack; it has: cathode"),
    ("unknown model", lambda: STACK.dose_per_fluence(8562, "cathode", "oxide", "mu_en"), "known: attenuation, energy"),
    (
        "unknown place",
        lambda: STACK.dose_per_fluence(8562, "cathode", "oxide", where="top"),
        "known: mean, front, back",
    ),
    ("two layers of one name", lambda: LayerStack([*STACK.layers, *STACK.layers]), "two layers of one name: cathode"),
    ("no layer", lambda: LayerStack([]), "at least one layer"),
    ("fractions above 1", lambda: Layer("a", 10, {OXIDE: 0.7, Material("b", "C", 2): 0.4}), "sum to 1.1"),
    ("percent for fraction", lambda: Layer("a", 10, {OXIDE: 60}), "write 0.6 for 60 %"),
    ("two materials of one name", lambda: Layer("a", 10, {OXIDE: 0.5, Material("oxide", "C", 2): 0.5}), "of one name"),
    ("thickness in mm", lambda: Layer("a", 0.01, {OXIDE: 1.0}), "did you mean 10 um"),
    ("thickness in m", lambda: Layer("a", 1e-5, {OXIDE: 1.0}), "thicknesses are in um"),
    ("thickness of a metre", lambda: Layer("a", 1e6, {OXIDE: 1.0}), "thicknesses are in um"),
    ("thickness zero", lambda: Layer("a", 0, {OXIDE: 1.0}), "thicknesses are in um"),
    ("thickness is not a number", lambda: Layer("a", math.nan, {OXIDE: 1.0}), "nan um is outside"),
    ("fraction is not a number", lambda: Layer("a", 10, {OXIDE: math.nan}), "nan of 'oxide' is outside"),
    ("negative fraction", lambda: Layer("a", 10, {OXIDE: -0.2}), "-0.2 of 'oxide' is outside"),
    ("no material", lambda: Layer("a", 10, {}), "no material"),
    ("material without fraction", lambda: Layer("a", 10, OXIDE), "parts are given as {Material: volume fraction}"),
    ("material by name", lambda: Layer("a", 10, {"LiNiO2": 1.0}), "parts are given as {Material: volume fraction}"),
    ("layer without name", lambda: Layer("", 10, {OXIDE: 1.0}), "a layer needs a name"),
    ("one layer, no list", lambda: LayerStack(STACK.layers[0]), "list of layers"),
    ("materials for layers", lambda: LayerStack([OXIDE]), "consists of layers only"),
    ("tilt of 90 deg", lambda: LayerStack(STACK.layers, 90), "tilt 90 deg is outside 0 .. 85"),
    ("tilt is not a number", lambda: LayerStack(STACK.layers, math.nan), "tilt nan deg"),
    ("density is not a number", lambda: Material("a", "C", math.nan), "density nan g/cm3"),
    ("density zero", lambda: Material("a", "C", 0.0), "density 0 g/cm3"),
    ("formula and density swapped", lambda: Material("a", 2.3, "C"), "expected Material\\(name, formula, density"),
    ("material without name", lambda: Material("", "C", 2.3), "a material needs a name"),
    ("mixture in percent", lambda: Material("a", {"C": 50, "H2O": 50}, 1.0), "sum to 100; .* write 0.6 for 60 %"),
    ("density in kg/m3", lambda: Material("a", "C", 2300), "did you mean 2.3"),
    ("unknown element", lambda: Material("a", "LiXyO2", 2.0), "'LiXyO2' is not a chemical formula"),
    ("empty formula", lambda: Material("a", "", 2.0), "not a chemical formula|empty"),
    ("mixture does not sum", lambda: Material("a", {"C": 0.5, "H2O": 0.3}, 1.0), "sum to 0.8"),
    ("cusp of order 1", lambda: Beam.gaussian(1e10, (30, 30), order=1), "2 is the ordinary Gaussian"),
    ("beam in metres", lambda: Beam.top_hat(1e10, (30e-6, 30e-6)), "sizes are in um"),
    ("flat and dark swapped", lambda: Beam.measured(1e10, np.zeros((4, 4)), np.ones((4, 4)), 0.1), "no photons"),
    ("flat with NaN", lambda: Beam.measured(1e10, np.full((4, 4), np.nan), 0, 0.1), "not finite"),
    (
        "flat and dark of two cameras",
        lambda: Beam.measured(1e10, np.ones((4, 4)), np.ones((3, 3)), 0.1),
        "differ in shape",
    ),
    ("pixel in metres", lambda: Beam.measured(1e10, np.ones((4, 4)), 0, 6.5e-6), "pixel sizes are in um"),
    ("one width for two", lambda: Beam.gaussian(1e10, 30), "give two numbers, \\(x, y\\), um"),
    ("width is not a number", lambda: Beam.gaussian(1e10, (math.nan, 30)), "along x is nan um"),
    ("area is negative", lambda: Beam.top_hat(1e10, (30, -30)), "along y is -30 um"),
    ("beam of 3 m", lambda: Beam.top_hat(1e10, (3.28e6, 1.21e6)), "sizes are in um"),
    ("flux beyond any source", lambda: Beam.top_hat(1e19, (30, 30)), "flux 1e\\+19 photons/s"),
    ("negative exposure", lambda: Beam.top_hat(1e10, (30, 30)).fluence_map(-1.0, 1.0), "-1 s is not possible"),
    ("map without pixel", lambda: Beam.top_hat(1e10, (30, 30)).kernel(0.0), "grid pixel 0 um"),
    ("fraction above 1", lambda: Beam.measured(1e10, np.ones((4, 4)), 0, 0.1, 1.2), "outside \\(0, 1\\]"),
    ("grid far too fine", lambda: Beam.gaussian(1e10, (3000, 3000)).kernel(0.1), "use a coarser grid"),
    ("limit of nothing", lambda: DoseLimit("x", "NMC", limit_gy=0), "not a positive"),
    ("dose and rate in one", lambda: DoseLimit("x", "NMC", limit_gy=1, rate_gy_s=1), "either limit_gy"),
    ("unknown cell", lambda: presets.cell("pouch"), "known cells: txm_nmc622"),
    ("limit for another material", lambda: presets.limit("lno_redox", "NMC622"), "stated for LiNiO2, not for 'NMC622'"),
]


@pytest.mark.parametrize(("reason", "action", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_refused_with_a_useful_message(reason, action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_a_film_of_nanometres_can_be_confirmed():
    assert Layer("platinum", 0.01, {Material("Pt", "Pt", 21.4): 1.0}, thin_film=True).thickness_um == 0.01


@pytest.mark.parametrize("thickness_um", [0.145, 0.054])
def test_tenths_of_a_micrometre_are_doubted_aloud(thickness_um, caplog):
    """145 um typed in mm could be a membrane of 145 nm: allowed, but said."""
    Layer("window", thickness_um, {OXIDE: 1.0})
    assert f"{thickness_um * 1000:g} um, the thickness was given in mm" in caplog.text
    caplog.clear()
    Layer("window", thickness_um, {OXIDE: 1.0}, thin_film=True)
    Layer("window", 0.5, {OXIDE: 1.0})
    assert not caplog.records


def test_what_is_missing_to_1_is_void():
    dry = LayerStack([Layer("cathode", 10, {OXIDE: 0.6})])
    gas = LayerStack([Layer("cathode", 10, {OXIDE: 0.6, Material("argon", "Ar", 0.00166): 0.4})])
    assert dry.dose_per_fluence(8562.0, "cathode", "oxide") == pytest.approx(
        gas.dose_per_fluence(8562.0, "cathode", "oxide"), rel=2e-3
    )


def test_a_stack_as_data_is_complete():
    layer = Layer("film", 0.01, {OXIDE: 0.6}, thin_film=True)
    content = LayerStack([layer, *STACK.layers], 30.0).as_dict()
    again = LayerStack(
        [
            Layer(
                one["name"],
                one["thickness_um"],
                {
                    Material(part["name"], part["formula"], part["density_g_cm3"]): part["volume_fraction"]
                    for part in one["parts"]
                },
                one.get("thin_film", False),
            )
            for one in content["layers"]
        ],
        content["tilt_deg"],
    )
    assert again.fingerprint == LayerStack([layer, *STACK.layers], 30.0).fingerprint


def test_a_mixture_by_mass_fraction_is_one_material():
    mixture = Material("LP57", {"C3H4O3": 0.27, "C4H8O3": 0.60, "LiPF6": 0.13}, 1.2)
    assert sum(mixture.composition.values()) == pytest.approx(1.0)
    plain = Material("EMC", "C4H8O3", 1.2)
    doses = [
        LayerStack([Layer("e", 40, {m: 1.0})]).dose_per_fluence(8390.0, "e", m.name, "energy") for m in (mixture, plain)
    ]
    assert doses[0] / doses[1] == pytest.approx(8.53 / 6.12, rel=0.05)  # the salt counts: dose-model 2.1
    assert {mixture: 1}[Material("LP57", {"C3H4O3": 0.27, "C4H8O3": 0.60, "LiPF6": 0.13}, 1.2)] == 1
