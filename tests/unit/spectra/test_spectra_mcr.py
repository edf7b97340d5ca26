"""Component analysis: against pyMCR and numpy, with truth; bad input is told or masked and counted."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from cubes import bragg_energies, oxides
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.spectra import PcaAccumulator, mcr_als, pca

ENERGY = bragg_energies(120, last_ev=8460.0)
SPECTRA = np.clip(oxides(ENERGY), 0, None)
NOISE = 0.005


def mixed(pixels=1200, noise=NOISE, seed=0, dtype=np.float32):
    """Mixtures (pixels, n) of the three oxides, some of them pure, and their concentrations."""
    rng = np.random.default_rng(seed)
    concentrations = rng.dirichlet([0.6, 0.6, 0.6], pixels)
    concentrations[:30] = np.repeat(np.eye(3), 10, 0)
    data = concentrations @ SPECTRA + noise * rng.standard_normal((pixels, ENERGY.size))
    return data.astype(dtype), concentrations


def squares(data, result):
    return float(np.square(data - result.concentrations @ result.spectra).sum(dtype=np.float64))


@pytest.fixture(scope="module")
def mixture():
    return mixed()


def test_spectra_and_concentrations_are_found_without_a_start(mixture):
    data, concentrations = mixture
    found = mcr_als(data, 3)
    order = [int(np.argmin(np.abs(found.spectra - one).sum(1))) for one in SPECTRA]
    assert sorted(order) == [0, 1, 2]
    assert np.abs(found.spectra[order] - SPECTRA).max() < 0.05
    assert np.sqrt(np.mean((found.concentrations[:, order] - concentrations) ** 2)) < 0.04
    assert found.converged
    assert found.significant == 3
    assert found.r_factor == pytest.approx(squares(data, found) / np.square(data).sum(dtype=float), rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("start", ["pixels at random", "purest pixels", "concentrations"])
def test_the_residual_is_not_above_that_of_pymcr_from_the_same_start(start, dtype):
    pytest.importorskip("pymcr")
    data, concentrations = mixed(400, dtype=dtype)
    start = {"pixels at random": data[[101, 203, 307]], "purest pixels": data[[0, 10, 20]]}.get(start, concentrations)
    own = mcr_als(data, 3, initial=start)
    reference = mcr_als(data, 3, initial=start, backend="pymcr", max_iterations=200)
    assert squares(data, own) <= squares(data, reference) * (1 + 1e-6)
    noise = NOISE**2 * data.size
    assert squares(data, own) < noise < squares(data, reference) * 1.2


@given(st.integers(1, 5), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=12, deadline=None)
def test_nothing_is_negative_and_closure_holds(k, closure, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(1, 1, (40, 12))
    found = mcr_als(data, k, closure=closure, max_iterations=40)
    assert found.concentrations.min() >= 0
    assert found.spectra.min() >= 0
    if closure:
        assert np.abs(found.concentrations.sum(1) - 1).max() <= 1e-6
    first = mcr_als(data, k, closure=closure, max_iterations=1)
    assert squares(data, found) <= squares(data, first) * (1 + 1e-9)


@pytest.mark.parametrize("backend", ["own", "pymcr"])
@pytest.mark.parametrize("how", ["numbers", "spectra"])
def test_fixed_spectra_stay_and_the_others_are_found(mixture, how, backend):
    if backend == "pymcr":
        pytest.importorskip("pymcr")
    data, concentrations = (part[:300] for part in mixture)
    start = np.stack([SPECTRA[0], data[10:20].mean(0).clip(0), SPECTRA[2]])
    if how == "numbers":
        found = mcr_als(data, 3, initial=start, fixed=[0, 2], backend=backend, max_iterations=60)
        order = [0, 1, 2]
    else:
        found = mcr_als(data, 3, fixed=SPECTRA[[0, 2]], backend=backend, max_iterations=60)
        order = [0, 2, 1]
    spectra, amounts = found.spectra[order], found.concentrations[:, order]
    assert (spectra[[0, 2]] == SPECTRA[[0, 2]]).all()
    assert np.abs(spectra[1] - SPECTRA[1]).max() < 0.06
    assert np.sqrt(np.mean((amounts - concentrations) ** 2)) < 0.05


def test_with_all_spectra_fixed_it_is_one_constrained_fit(mixture):
    data, concentrations = mixture
    found = mcr_als(data, 3, initial=SPECTRA, fixed=[0, 1, 2])
    assert (found.spectra == SPECTRA).all()
    assert np.sqrt(np.mean((found.concentrations - concentrations) ** 2)) < 0.02


def test_cubes_give_maps_and_dark_pixels_are_masked_and_counted(mixture, caplog):
    data, _ = mixture
    cube = data.T.reshape(ENERGY.size, 30, 40).copy()
    cube[:, 3, 5] = 0  # no absorbance: outside the sample, or dark
    cube[7, 3, 6] = np.nan
    cube[40] = np.nan  # a lost frame masks no pixel
    with caplog.at_level(logging.WARNING):
        found = mcr_als(cube, 3)
    assert found.concentrations.shape == (3, 30, 40)
    assert found.masked_count == 2
    assert found.masked[3, 5:7].all()
    assert np.isnan(found.concentrations[:, found.masked]).all()
    assert np.flatnonzero(np.isnan(found.spectra).any(0)).tolist() == [40]
    assert "2 of 1200 pixels masked" in caplog.text
    assert "1 of 120 energies left out" in caplog.text
    kept = np.arange(ENERGY.size) != 40
    rows = np.delete(data, [3 * 40 + 5, 3 * 40 + 6], axis=0)[:, kept]
    # Rounding, which differs with the layout, moves the components along what the data leave open; not what they explain.
    assert mcr_als(rows, 3).r_factor == pytest.approx(found.r_factor, rel=1e-4)


def test_a_component_too_many_is_told(mixture, caplog):
    data, _ = mixture
    with caplog.at_level(logging.WARNING):
        found = mcr_als(data, 4, max_iterations=5)
    assert "4 components, but only 3 stand out of the noise" in caplog.text
    assert found.significant == 3
    assert mcr_als(data, 2, max_iterations=5).significant == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": SPECTRA[:2]}, "2 spectra for 3 components"),
        ({"initial": np.vstack([SPECTRA, SPECTRA[:1]])}, "4 spectra for 3 components"),
        ({"initial": SPECTRA[[0, 1, 1]]}, "not independent"),
        ({"initial": SPECTRA * [[1], [0], [1]]}, r"start spectra \[1\] are zero"),
        ({"initial": SPECTRA * [[1], [np.nan], [1]]}, r"\[1\] hold NaN"),
        ({"k": 9}, "1 to 8 are possible"),
        ({"k": 0}, "1 to 8 are possible"),
        ({"fixed": [3], "initial": SPECTRA}, "numbers 0 to 2"),
        ({"fixed": [0]}, "give initial as well"),
        ({"fixed": SPECTRA[:, :50]}, "spectra of 120 energies"),
        ({"fixed": -SPECTRA}, "not negative"),
        ({"data": np.full((10, 120), np.nan)}, "none of 10 pixels has a spectrum"),
        ({"data": np.zeros((10, 120))}, "none of 10 pixels has a spectrum"),
        ({"data": np.zeros(120)}, "spectra as rows"),
        ({"backend": "matlab"}, "'own' and 'pymcr'"),
    ],
)
def test_bad_input_is_told(mixture, change, message):
    arguments = {"data": mixture[0], "k": 3} | change
    with pytest.raises(ValueError, match=message):
        mcr_als(arguments.pop("data"), arguments.pop("k"), **arguments)


# --- principal components --------------------------------------------------------------------------------------------


def test_components_are_those_of_a_singular_value_decomposition(mixture):
    data, _ = mixture
    variance, components = pca(data)
    centred = data.astype(float) - data.mean(0, dtype=float)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    assert variance == pytest.approx(values**2 / (len(data) - 1), rel=1e-4)
    assert np.abs(np.abs((components[:2] * rows[:2]).sum(1)) - 1).max() < 1e-6
    assert np.abs(components @ components.T - np.eye(120)).max() < 1e-9
    assert variance.sum() == pytest.approx(centred.var(0, ddof=1).sum(), rel=1e-5)


def test_two_components_stand_out_of_three_that_sum_up_to_one(mixture):
    variance, _ = pca(mixture[0], 5)
    assert variance.size == 5
    assert variance[1] > 20 * variance[2]


@given(st.integers(2, 9), st.integers(0, 2**16), st.floats(-1e3, 1e3))
@settings(max_examples=15, deadline=None)
def test_parts_give_what_the_whole_gives_whatever_the_offset(parts, seed, offset):
    rng = np.random.default_rng(seed)
    data = (rng.normal(0, [3, 2, 1, 0.5], (90, 4)) + offset).astype(np.float64)
    taken = PcaAccumulator(4)
    for part in np.array_split(data, parts):
        taken.update(part)
    whole, _ = pca(data)
    variance, _ = taken.result()
    assert variance == pytest.approx(whole, rel=1e-6)
    assert variance == pytest.approx(np.linalg.eigvalsh(np.cov(data.T))[::-1], rel=1e-6)
    assert taken.count == 90


def test_an_accumulator_takes_slabs_and_leaves_out_what_is_dark(mixture):
    cube = mixture[0].T.reshape(ENERGY.size, 30, 40).copy()
    cube[:, 0, :4] = np.nan
    taken = PcaAccumulator(ENERGY.size)
    for row in range(0, 30, 10):
        taken.update(cube[:, row : row + 10])
    assert (taken.count, taken.masked_count) == (1196, 4)
    assert taken.result(3)[0] == pytest.approx(pca(cube, 3)[0], rel=1e-4)


def test_a_lost_frame_has_no_share_in_the_components(mixture):
    cube = mixture[0].T.reshape(ENERGY.size, 30, 40).copy()
    cube[11] = np.nan
    variance, components = pca(cube)
    assert (components[:, 11] == 0).all()
    assert variance[:2] == pytest.approx(pca(mixture[0])[0][:2], rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PcaAccumulator(5).result(), "at least two"),
        (lambda: PcaAccumulator(5).update(np.ones((3, 4))), "spectra of 4 energies, those before had 5"),
        (lambda: PcaAccumulator(2).update(np.array([[1, np.nan], [2, np.nan]])), "1 of 2 energies are dark"),
        (lambda: pca(np.ones(4)), "expected real numbers"),
    ],
)
def test_what_cannot_be_analysed_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
