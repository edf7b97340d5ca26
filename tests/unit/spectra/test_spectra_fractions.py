"""Energy calibration, edge energies and fractions against exact truth; bad input is told or masked and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cubes import Scene, bragg_energies, crlb, measure

from xbat_live.spectra import (
    StreamingFractions,
    absorbance,
    bin_frames,
    calibrate_energy,
    edge_energy_map,
    fit_fractions,
)

SCENE = Scene(counts=50_000.0, shape=(30, 48))
WHAT_GOES_WRONG = {
    "nothing": {},
    "second inflection 2.5 times as steep as the first": {"foil_second": 2.5},
    "descending energies": {"energy_ev": bragg_energies()[::-1]},
    "hot pixels and diamond glitches": {"hot": 40, "glitches": 60},
    "I0 walks by 0.1 %, flux drifts by 2 %": {"i0_walk": 0.001, "flux_drift": 0.02},
}


@pytest.fixture(scope="module", params=list(WHAT_GOES_WRONG), ids=str)
def calibrated(request):
    measured = measure(replace(SCENE, **WHAT_GOES_WRONG[request.param]), seed=4)
    foil = absorbance(measured.i0, measured.foil, measured.dark)
    sample = absorbance(measured.i0, measured.sample, measured.dark)
    return measured, sample, calibrate_energy(foil, measured.energy_ev)


def test_the_shift_map_is_right_to_a_hundredth_of_an_electronvolt(calibrated):
    measured, _, shift = calibrated
    error = shift.shift_ev - measured.shift_ev
    assert abs(error.mean()) <= 0.01
    assert error.std() <= 0.02


def test_pixels_at_the_rim_of_the_beam_do_not_spoil_the_calibration():
    """A third of the field has hardly any light: its spectra are noise as high as the jump, its shifts are 10 eV off."""
    energies = np.linspace(8250.0, 8424.0, 60)
    measured = measure(replace(SCENE, energy_ev=energies), seed=4)
    foil = absorbance(measured.i0, measured.foil, measured.dark)
    rim = np.zeros(foil.shape[1:], bool)
    rim[:5], rim[-5:] = True, True
    foil[:, rim] += np.random.default_rng(2).normal(0, 0.8, (len(energies), int(rim.sum()))).astype(np.float32)
    error = calibrate_energy(foil, energies).shift_ev - measured.shift_ev
    assert abs(np.median(error[~rim])) <= 0.1  # of energy steps of 3 eV
    assert error[~rim].std() <= 0.05


def test_edge_energies(calibrated):
    measured, sample, shift = calibrated
    error = edge_energy_map(sample, measured.energy_ev, shift.shift_ev).edge_ev - measured.edge_ev
    assert abs(np.nanmedian(error)) <= 0.02
    assert np.nanstd(error) <= 0.02
    assert np.nanmax(np.abs(error)) <= 0.1


def test_fractions_come_near_the_cramer_rao_bound(calibrated):
    measured, sample, shift = calibrated
    maps = fit_fractions(sample, measured.energy_ev, measured.references, shift)
    error = np.sqrt(np.mean((maps.fractions - measured.fractions) ** 2, axis=(1, 2)))
    limit = (
        1.3 if not measured.scene.i0_walk else 2.0
    )  # the bound knows of no walk, and few pixels tell it from the sample
    assert (error <= limit * crlb(measured, every=25)).all()
    assert np.abs(maps.fractions.sum(0) - 1).max() <= 1e-6
    assert maps.fractions.min() >= 0
    assert maps.masked_count == 0


@pytest.fixture(scope="module")
def clean():
    measured = measure(replace(SCENE, shape=(8, 12)), seed=1)
    return measured, absorbance(measured.i0, measured.sample, measured.dark)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("at_ev", [8290.0, 8343.0, 8346.0, 8352.0, 8420.0, 8800.0])
def test_wherever_a_sample_is_wild_the_edge_stays(at_ev, width):
    measured = measure(replace(SCENE, shape=(12, 24)), seed=2)
    cube = absorbance(measured.i0, measured.sample, measured.dark)
    clean = edge_energy_map(cube, measured.energy_ev, measured.shift_ev)
    at = int(np.argmin(np.abs(measured.energy_ev - at_ev)))
    cube[at : at + width, 5, 7] += 0.4
    cube[at : at + width, 8, 3] -= 1.5
    mended = edge_energy_map(cube, measured.energy_ev, measured.shift_ev)
    change = np.abs(mended.edge_ev - clean.edge_ev)
    assert change.max() <= 4 * clean.sigma_ev.max()
    assert np.median(change) <= 1e-4


def test_streaming_gives_what_the_whole_cube_gives_and_knows_nothing_before_the_edge(clean):
    measured, cube = clean
    stream = StreamingFractions(measured.energy_ev, measured.references, measured.shift_ev)
    told = []
    for number, (frame, energy) in enumerate(zip(cube, measured.energy_ev, strict=True)):
        stream.update(frame, energy)
        if number in {90, 200}:
            told.append(stream.maps().sigma.mean())
    whole = fit_fractions(cube, measured.energy_ev, measured.references, measured.shift_ev)
    assert np.abs(stream.maps().fractions - whole.fractions).max() <= 1e-4
    assert told[0] > 0.5 > told[1] > whole.sigma.mean()


def test_pixels_without_light_or_shift_are_masked_and_counted_and_single_gaps_are_left_out(clean):
    measured, cube = clean
    broken, shift = cube.copy(), measured.shift_ev.copy()
    broken[:, 0, :3] = np.nan  # all dark
    broken[5:9, 2, 4] = np.nan
    broken[100] = np.inf  # a saturated frame
    shift[1, 1] = np.nan
    maps = fit_fractions(broken, measured.energy_ev, measured.references, shift)
    whole = fit_fractions(cube, measured.energy_ev, measured.references, measured.shift_ev)
    assert maps.masked_count == 4
    assert maps.masked[0, :3].all()
    assert maps.masked[1, 1]
    assert maps.dropped_frames == 1
    assert np.nanmax(np.abs(maps.fractions - whole.fractions)) < 5 * whole.sigma.max()


def _no_edge(measured, cube):
    few = measured.energy_ev < 8320
    return fit_fractions(
        cube[few], measured.energy_ev[few], measured.references, references_energy_ev=measured.energy_ev
    )


def _references_end_before_the_edge(measured, cube):
    few = measured.energy_ev < 8320
    return fit_fractions(cube[few], measured.energy_ev[few], measured.references[:, few])


def _only_behind_the_edge(measured, cube):
    behind = measured.energy_ev > 8400
    return edge_energy_map(cube[behind], measured.energy_ev[behind])


def _alike(measured, cube):
    twice = np.concatenate([measured.references, measured.references[:1]])
    return fit_fractions(cube, measured.energy_ev, twice)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_no_edge, "before and .* after the edge"),
        (_alike, "cannot be told apart.* 0 and 3 are the most alike"),
        (lambda m, c: fit_fractions(c * np.nan, m.energy_ev, m.references), "none of 580 frames"),
        (lambda m, c: fit_fractions(c, m.energy_ev[:-1], m.references), "one energy in eV is needed for each"),
        (lambda m, c: fit_fractions(c, m.energy_ev / 1000, m.references), "keV"),
        (lambda m, c: fit_fractions(c, m.energy_ev, m.references[:, :50]), "references_energy_ev"),
        (lambda m, c: fit_fractions(c, m.energy_ev, m.references, np.zeros((3, 3))), "shift map of shape"),
        (lambda m, c: fit_fractions(0 * c, m.energy_ev, m.references), "without an edge"),
        (lambda m, c: edge_energy_map(c[:40], m.energy_ev[:40]), "no absorption edge"),
        (_only_behind_the_edge, "no absorption edge"),
        (_references_end_before_the_edge, "reference 0 has no edge"),
        (lambda m, c: calibrate_energy(c * np.nan, m.energy_ev), "no pixel of 96"),
        (lambda m, c: calibrate_energy(c, m.energy_ev, edge_ev=7709), "another element"),
        (lambda m, c: absorbance(m.i0 * 0, m.sample, m.dark), "shutter open"),
        (lambda m, c: absorbance(m.i0[:, :4], m.sample, m.dark), "I0 image per energy"),
        (lambda m, c: bin_frames(c, 20), "does not fit"),
    ],
)
def test_bad_input_is_told(clean, call, message):
    with pytest.raises(ValueError, match=message):
        call(*clean)


def test_a_missing_reference_is_seen_and_one_too_many_gets_nothing(clean):
    measured, cube = clean
    missing = fit_fractions(cube, measured.energy_ev, measured.references[:2], measured.shift_ev)
    assert missing.misfit > 2
    more = np.concatenate(
        [measured.references, [np.interp(measured.energy_ev, measured.energy_ev - 6, measured.references[0])]]
    )
    maps = fit_fractions(cube, measured.energy_ev, more, measured.shift_ev)
    assert maps.fractions[3].max() < 0.02
    assert maps.misfit < 2


def test_saturated_pixels_are_not_averaged_away():
    frame = np.full((8, 8), 60_000, np.uint16)
    frame[0, 0] = 65535
    binned = bin_frames(frame, 4)
    assert np.isnan(binned[0, 0])
    assert binned[1, 1] == 60_000
