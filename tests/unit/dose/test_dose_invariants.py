"""What holds for every stack, beam and position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import DOSE_MODELS, Beam, DoseGrid, Layer, LayerStack, Material
from xbat_live.dose.cross_sections import ELECTRONVOLT_J, check_energy, mass_attenuation

FORMULAS = ("LiNiO2", "LiNi0.6Mn0.2Co0.2O2", "LiFePO4", "C", "C4H8O3", "SiO2", "Cu", "Al")
ACTIVE = Material("oxide", "LiNiO2", 4.7)
SOLVENT = Material("solvent", "C4H8O3", 1.2)

energies = st.floats(3000, 60_000)
layers = st.lists(
    st.tuples(st.sampled_from(FORMULAS), st.floats(0.1, 200), st.floats(0.5, 9), st.floats(0.05, 1)),
    min_size=1,
    max_size=4,
)
quick = settings(max_examples=60, deadline=None)


def build(rows):
    return LayerStack(
        Layer(str(index), thickness, {Material("solid", formula, density): filled})
        for index, (formula, thickness, density, filled) in enumerate(rows)
    )


@quick
@given(rows=layers, energy_ev=energies, tilt=st.floats(0, 80))
def test_energy_balance_incident_is_absorbed_plus_transmitted(rows, energy_ev, tilt):
    stack = LayerStack(build(rows).layers, tilt)
    longer = 1 / np.cos(np.radians(tilt))  # mass per cm2 across the beam
    absorbed_j_per_photon = 0.0
    for layer in stack.layers:
        for material, fraction in layer.parts.items():
            kg_per_cm2 = material.density_g_cm3 * fraction * layer.thickness_um * longer * 1e-4 * 1e-3
            absorbed_j_per_photon += stack.dose_per_fluence(energy_ev, layer.name, material.name) * kg_per_cm2
    incident = energy_ev * ELECTRONVOLT_J
    assert absorbed_j_per_photon + incident * stack.transmission(energy_ev) == pytest.approx(incident, rel=1e-9)


@quick
@given(rows=layers, energy_ev=energies, tilt=st.floats(0, 80))
def test_a_tilt_acts_as_thicker_layers(rows, energy_ev, tilt):
    stack = build(rows)
    longer = 1 / np.cos(np.radians(tilt))
    tilted = LayerStack(stack.layers, tilt)
    thicker = LayerStack(Layer(layer.name, layer.thickness_um * longer, layer.parts) for layer in stack.layers)
    assert tilted.transmission(energy_ev) == pytest.approx(
        stack.transmission(energy_ev) ** longer, rel=1e-9, abs=1e-300
    )
    for layer in stack.layers:
        for where in ("mean", "front", "back"):
            assert tilted.dose_per_fluence(energy_ev, layer.name, "solid", where=where) == pytest.approx(
                thicker.dose_per_fluence(energy_ev, layer.name, "solid", where=where), rel=1e-9, abs=1e-300
            )


@quick
@given(rows=layers, energy_ev=energies, model=st.sampled_from(DOSE_MODELS))
def test_a_mean_lies_between_front_and_back_and_a_layer_between_its_materials(rows, energy_ev, model):
    stack = build(rows)
    name = stack.layers[-1].name
    front, mean, back = (
        stack.dose_per_fluence(energy_ev, name, "solid", model, where) for where in ("front", "mean", "back")
    )
    assert back <= mean * (1 + 1e-12)
    assert mean <= front * (1 + 1e-12)
    assert stack.layer_dose_per_fluence(energy_ev, name, model) == pytest.approx(mean, rel=1e-12)


@quick
@given(rows=layers, scan=st.lists(energies, min_size=1, max_size=6))
def test_an_array_of_energies_is_its_energies_one_by_one(rows, scan):
    stack = build(rows)
    together = stack.dose_per_fluence(np.array(scan), "0", "solid", "energy")
    assert together.tolist() == pytest.approx(
        [stack.dose_per_fluence(one, "0", "solid", "energy") for one in scan], rel=1e-12
    )


@quick
@given(energy_ev=energies, first=st.floats(0.05, 0.95), tilt=st.floats(0, 60))
def test_a_layers_mean_dose_is_that_of_its_materials_by_mass(energy_ev, first, tilt):
    stack = LayerStack([Layer("mix", 30, {ACTIVE: first, SOLVENT: 1 - first})], tilt)
    masses = {"oxide": ACTIVE.density_g_cm3 * first, "solvent": SOLVENT.density_g_cm3 * (1 - first)}
    mean = sum(mass * stack.dose_per_fluence(energy_ev, "mix", name) for name, mass in masses.items()) / sum(
        masses.values()
    )
    assert stack.layer_dose_per_fluence(energy_ev, "mix") == pytest.approx(mean, rel=1e-12)


@quick
@given(flux=st.floats(1e3, 1e14), seconds=st.just(0.0) | st.floats(1e-9, 1e5), factor=st.floats(0.1, 10))
def test_fluence_is_linear_in_time_and_flux(flux, seconds, factor):
    once = Beam.gaussian(flux, (20, 10)).fluence_map(seconds, 1.0)
    np.testing.assert_allclose(
        Beam.gaussian(flux, (20, 10)).fluence_map(seconds * factor, 1.0), once * factor, rtol=1e-12
    )
    np.testing.assert_allclose(
        Beam.gaussian(flux * factor, (20, 10)).fluence_map(seconds, 1.0), once * factor, rtol=1e-12
    )
    assert once.sum() * 1e-8 == pytest.approx(flux * seconds, rel=1e-9)


@quick
@given(
    rows=layers, energy_ev=energies, cut=st.floats(0.1, 0.9), model=st.sampled_from(["attenuation", "energy", "photo"])
)
def test_splitting_a_layer_does_not_change_its_mean_dose(rows, energy_ev, cut, model):
    stack = build(rows)
    last = stack.layers[-1]
    parts = [
        Layer(name, max(last.thickness_um * part, 0.06), last.parts) for name, part in (("a", cut), ("b", 1 - cut))
    ]
    whole = LayerStack([*stack.layers[:-1], Layer("whole", sum(part.thickness_um for part in parts), last.parts)])
    split = LayerStack([*stack.layers[:-1], *parts])
    mean = sum(split.dose_per_fluence(energy_ev, part.name, "solid", model) * part.thickness_um for part in parts)
    mean /= sum(part.thickness_um for part in parts)
    assert mean == pytest.approx(whole.dose_per_fluence(energy_ev, "whole", "solid", model), rel=1e-9)


@quick
@given(energy_ev=energies, density=st.floats(0.1, 20), filled=st.floats(0.01, 1), tilt=st.floats(0, 60))
def test_thin_limit_depends_on_neither_density_nor_porosity_nor_tilt(energy_ev, density, filled, tilt):
    material = Material("solid", "LiNiO2", density)
    stack = LayerStack([Layer("thin", 1e-3, {material: filled})], tilt_deg=tilt)
    kappa = float(mass_attenuation(material.composition, check_energy(energy_ev)))
    expected = energy_ev * ELECTRONVOLT_J * kappa * 1e3
    assert stack.dose_per_fluence(energy_ev, "thin", "solid") == pytest.approx(expected, rel=2e-3)


@quick
@given(rows=layers, energy_ev=energies)
def test_energy_absorbed_is_less_than_attenuated(rows, energy_ev):
    stack = build(rows)
    for layer in stack.layers:
        attenuation, photo, energy = (
            stack.dose_per_fluence(energy_ev, layer.name, "solid", model)
            for model in ("attenuation", "photo", "energy")
        )
        assert energy < attenuation
        assert photo < attenuation


@quick
@given(
    x_um=st.floats(-500, 500),
    y_um=st.floats(-500, 500),
    width=st.floats(5, 40),
    height=st.floats(5, 40),
    order=st.floats(2, 12),
)
def test_no_photon_is_lost_or_made_whatever_the_sub_pixel_position(x_um, y_um, width, height, order):
    grid = DoseGrid(1.0, tile_px=32)
    row, column, offset_x, offset_y = grid.locate(x_um, y_um)
    for beam in (Beam.gaussian(1e10, (width, height), order), Beam.top_hat(1e10, (width, height))):
        kernel = beam.kernel(1.0, (offset_x, offset_y))
        window = grid.place(row, column, kernel.shape)
        patch = np.zeros(window.shape)
        patch += kernel
        assert patch.sum() * 1e-8 == pytest.approx(1.0, rel=1e-9)
        moment_x = (patch.sum(axis=0) * (np.arange(window.col0, window.col1) + 0.5)).sum() / patch.sum()
        moment_y = (patch.sum(axis=1) * (np.arange(window.row0, window.row1) + 0.5)).sum() / patch.sum()
        assert moment_x == pytest.approx(x_um, abs=0.02)
        assert moment_y == pytest.approx(y_um, abs=0.02)


@quick
@given(x_um=st.floats(-300, 300), y_um=st.floats(-300, 300))
def test_a_measured_profile_keeps_its_photons_and_its_place(x_um, y_um):
    rng = np.random.default_rng(5)
    beam = Beam.measured(1e10, rng.uniform(500, 1000, (41, 61)), 100, pixel_size_um=0.5, fraction_in_field=0.7)
    grid = DoseGrid(1.0, tile_px=32)
    window = grid.deposit(x_um, y_um, beam.kernel(1.0), gray_cm2=2.0)
    patch = grid.patch(window)
    row, column, offset_x, offset_y = grid.locate(x_um, y_um)
    kernel = beam.kernel(1.0, (offset_x, offset_y))  # the account's way to the same
    np.testing.assert_allclose(grid.patch(grid.place(row, column, kernel.shape)), kernel * 2.0, rtol=1e-12, atol=1e-9)
    assert patch.sum() * 1e-8 == pytest.approx(2.0 * 0.7, rel=1e-12)
    centred = beam.kernel(1.0)
    bias = ((centred.sum(axis=0) * (np.arange(centred.shape[1]) - centred.shape[1] // 2)).sum()) / centred.sum()
    moment = (patch.sum(axis=0) * (np.arange(window.col0, window.col1) + 0.5)).sum() / patch.sum()
    assert moment - bias == pytest.approx(x_um, abs=1e-6)


def test_a_reversed_stack_gives_another_dose():
    forward = LayerStack([Layer("solvent", 500, {SOLVENT: 1.0}), Layer("oxide", 20, {ACTIVE: 0.6})])
    backward = LayerStack(reversed(forward.layers))
    assert backward.dose_per_fluence(8390.0, "oxide", "oxide") > 1.1 * forward.dose_per_fluence(
        8390.0, "oxide", "oxide"
    )


def test_an_edge_is_crossed_with_its_full_jump():
    stack = LayerStack([Layer("film", 0.1, {Material("NMC622", "LiNi0.6Mn0.2Co0.2O2", 4.7): 1.0})])
    below, above = stack.dose_per_fluence(np.array([8300.0, 8360.0]), "film", "NMC622")
    assert above / below == pytest.approx(2.2, rel=0.05)  # dose-model 3.2: a scan is never evaluated at one energy


def test_scalar_in_scalar_out_and_array_in_array_out():
    stack = LayerStack([Layer("oxide", 20, {ACTIVE: 0.6})])
    grid_ev = np.array([[8000.0, 8400.0], [9000.0, 10_000.0]])
    assert isinstance(stack.transmission(8000.0), float)
    assert stack.transmission(grid_ev).shape == (2, 2)
    assert stack.transmission(grid_ev)[0, 0] == pytest.approx(stack.transmission(8000.0), rel=1e-12)


def test_a_map_grows_with_the_area_not_with_the_exposures():
    grid, kernel = DoseGrid(1.0), Beam.gaussian(1e10, (30, 30), 8).kernel(1.0)
    grid.deposit(0.5, 0.5, kernel, 1.0)
    once = grid.nbytes
    for _ in range(50):
        grid.deposit(0.5, 0.5, kernel, 1.0)
    assert grid.nbytes == once
    grid.deposit(1e5, 0.5, kernel, 1.0)
    assert grid.nbytes <= 3 * once  # a far-away spot costs its own tiles, not the way there
