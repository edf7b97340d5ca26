"""Which part of a dose's uncertainty stays, and which part averages out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import Layer, LayerStack, presets, relative_dose_uncertainty

ROCK = presets.cell("lno_rock")


def rock(**options):
    return relative_dose_uncertainty(ROCK, 8390.0, "cathode", "LiNiO2", **options)


@pytest.mark.parametrize(
    ("layer", "sensitivity", "digits"),
    [("cathode", -0.27, 2), ("window", -0.20, 2), ("lithium", -0.025, 3), ("separator", -0.013, 3)],  # dose model 3.4
)
def test_sensitivities_of_the_rock_cell(layer, sensitivity, digits):
    assert round(rock().sensitivities[layer], digits) == sensitivity


@pytest.mark.parametrize("where", ["mean", "front", "back"])
@pytest.mark.parametrize("layer", ["window", "lithium", "separator", "cathode"])
def test_a_sensitivity_is_the_derivative_of_the_dose(where, layer):
    def dose(factor):
        layers = [
            Layer(one.name, one.thickness_um * (factor if one.name == layer else 1), one.parts) for one in ROCK.layers
        ]
        return LayerStack(layers, 20.0).dose_per_fluence(8390.0, "cathode", "LiNiO2", where=where)

    step = 1e-4
    numeric = (math.log(dose(1 + step)) - math.log(dose(1 - step))) / (2 * step)
    tilted = LayerStack(ROCK.layers, 20.0)
    stated = relative_dose_uncertainty(tilted, 8390.0, "cathode", "LiNiO2", where=where).sensitivities[layer]
    assert stated == pytest.approx(numeric, abs=1e-5)


def test_the_defaults_of_the_dose_model():
    terms = rock().terms
    assert {name: terms[name] for name in ("flux", "profile", "area", "kappa", "i0", "time")} == {
        "flux": 0.10, "profile": 0.10, "area": 0.05, "kappa": 0.02, "i0": 0.0, "time": 0.0,
    }  # fmt: skip
    assert terms["thickness of cathode"] == pytest.approx(0.027, abs=5e-4)
    assert terms["thickness of window"] == pytest.approx(0.020, abs=5e-4)
    assert rock().total() == pytest.approx(math.sqrt(sum(value**2 for value in terms.values())))


@pytest.mark.parametrize(
    ("energy_ev", "material", "sigma"),
    [
        (8390.0, "LiNiO2", 0.02),  # 57 eV above the nickel edge
        (8382.0, "LiNiO2", 0.05),
        (8284.0, "LiNiO2", 0.05),
        (8282.0, "LiNiO2", 0.02),
        (8340.0, "electrolyte", 0.02),  # has no nickel
        (8340.0, None, 0.05),  # the layer as a whole has
    ],
)
def test_coefficients_are_less_certain_at_an_edge(energy_ev, material, sigma):
    assert relative_dose_uncertainty(ROCK, energy_ev, "cathode", material).terms["kappa"] == sigma


def test_systematic_errors_do_not_average_out():
    uncertainty = rock(sigma_i0=0.2, sigma_time=0.1)
    assert uncertainty.uncorrelated == pytest.approx(math.hypot(0.2, 0.1))
    assert uncertainty.total(1) == pytest.approx(math.hypot(uncertainty.correlated, uncertainty.uncorrelated))
    assert uncertainty.total(10**8) == pytest.approx(uncertainty.correlated, rel=1e-6)
    assert uncertainty.correlated == pytest.approx(rock().total(10**8))


@settings(max_examples=50, deadline=None)
@given(doses=st.lists(st.floats(1, 1e7), min_size=1, max_size=20))
def test_correlated_terms_add_linearly_and_the_others_in_quadrature(doses):
    uncertainty = rock(sigma_i0=0.05)
    expected = math.hypot(uncertainty.correlated * sum(doses), 0.05 * math.sqrt(sum(dose**2 for dose in doses)))
    assert uncertainty.absolute_gy(doses) == pytest.approx(expected, rel=1e-9)
    equal = np.full(len(doses), doses[0])
    assert uncertainty.absolute_gy(equal) == pytest.approx(uncertainty.total(len(doses)) * equal.sum(), rel=1e-9)


def test_a_thickness_by_layer():
    terms = rock(sigma_thickness={"window": 0.5}).terms
    assert terms["thickness of window"] == pytest.approx(0.10, abs=2e-3)
    assert terms["thickness of cathode"] == 0.0


ROWS = [
    ("percent", lambda: rock(sigma_flux=10), "relative uncertainty 10 of 'flux' .* write 0.1 for 10 %"),
    ("negative", lambda: rock(sigma_area=-0.1), "-0.1 of 'area'"),
    ("not a number", lambda: rock(sigma_i0=math.nan), "nan of 'i0'"),
    ("unknown layer", lambda: relative_dose_uncertainty(ROCK, 8390.0, "anode"), "no layer 'anode'"),
    ("thickness of an unknown layer", lambda: rock(sigma_thickness={"foil": 0.1}), "no layer 'foil'"),
    ("unknown material", lambda: relative_dose_uncertainty(ROCK, 8390.0, "cathode", "NMC"), "no material 'NMC'"),
    ("unknown place", lambda: rock(where="top"), "known: mean, front, back"),
    ("keV", lambda: relative_dose_uncertainty(ROCK, 8.39, "cathode"), "did you mean 8390 eV"),
    ("no exposure", lambda: rock().total(0), "at least 1"),
]


@pytest.mark.parametrize(("reason", "action", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_refused_with_a_useful_message(reason, action, message):
    with pytest.raises(ValueError, match=message):
        action()
