"""Real spectra (Ni foil, nickel oxides) and real TXM frames around the Ni K-edge; skipped where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from xbat_live.spectra import absorbance, calibrate_energy, edge_energy_map, fit_fractions, normalise

ROOT = Path(os.environ.get("XBAT_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
pytestmark = pytest.mark.skipif(
    not (ROOT / "spectra").is_dir(), reason=f"real spectra are not at {ROOT} (set XBAT_SHARED_DATA)"
)
SHIFTS_EV = np.array([[-1.0, -0.4, 0.0], [0.3, 0.9, 1.6]])
PRE_EV, POST_EV = (8200.0, 8310.0), (8400.0, 8700.0)


def spectrum(name):
    """Energy, eV, and absorbance of a spectrum."""
    table = np.loadtxt(ROOT / "spectra" / name, comments="#")
    if name.endswith(".txt"):
        return 1000.0 * table[:, 0], table[:, 1]
    if "larch" in name:
        return table[:, 0], table[:, 1]
    return table[:, 0], np.log(table[:, 1] / table[:, 2])


def cube_of(name, noise, shifts_ev=SHIFTS_EV, tiles=(6, 4), first_ev=8250.0, last_ev=8700.0):
    """A cube in which pixels see the spectrum at energies that are off by `shifts_ev`, its energies, and the shift map."""
    energy_ev, mu = spectrum(name)
    order = np.argsort(energy_ev)
    nominal = np.arange(max(first_ev, energy_ev.min() + 3), min(last_ev, energy_ev.max() - 3), 1.0)
    shift = np.tile(shifts_ev, tiles)
    true = nominal[:, None, None] + shift
    cube = np.interp(true, energy_ev[order], mu[order])
    return (cube + np.random.default_rng(1).normal(0, noise, cube.shape)).astype(np.float32), nominal, shift


@pytest.mark.parametrize("name", ["Ni_metal_rt_01.xdi", "ni_metal_rt_larch.xdi"])
def test_a_real_foil_calibrates_every_pixel_to_the_same_energy(name):
    cube, energy_ev, shift = cube_of(name, noise=0.002)
    found = calibrate_energy(cube, energy_ev, 8333.0)
    apart = found.shift_ev - shift
    assert apart.std() < 0.03
    # The derivative of the file itself is highest at 8331.5 eV, in steps of 0.5 eV, with a second maximum nearly as high at 8344.5 eV.
    assert 8333.0 - apart.mean() == pytest.approx(8331.4, abs=0.3)


@pytest.mark.parametrize("name", ["Ni2O3_rt_01.xdi", "NiOH2_rt_01.xdi", "ref_NiO.txt", "ref_LiNiO2.txt"])
def test_real_oxides_are_normalised_and_their_edges_found(name):
    cube, energy_ev, shift = cube_of(name, noise=0.002)
    edge_ev = edge_energy_map(cube, energy_ev, shift).edge_ev
    assert 8338.0 < np.median(edge_ev) < 8348.0
    assert edge_ev.std() < 0.1
    after = min(POST_EV[1], energy_ev[-1])
    normal = normalise(cube, energy_ev, 8340.0, (energy_ev[0], 8310.0), (8400.0, after))
    assert abs(normal[(energy_ev > 8400) & (energy_ev < after)].mean() - 1) < 0.03
    assert abs(normal[energy_ev < 8310].mean()) < 0.02


def test_the_edge_of_real_nickel_moves_up_with_its_charge():
    edges = {}
    for name in ("ref_NiO.txt", "ref_LiNiO2.txt"):  # Ni2+, Ni3+; of one beamtime
        cube, energy_ev, shift = cube_of(name, noise=0.001)
        edges[name] = float(np.median(edge_energy_map(cube, energy_ev, shift).edge_ev))
    assert 1.0 < edges["ref_LiNiO2.txt"] - edges["ref_NiO.txt"] < 4.0


def test_mixtures_of_real_oxides_are_taken_apart():
    parts = [cube_of(name, noise=0.0) for name in ("ref_NiO.txt", "ref_LiNiO2.txt")]
    energy_ev, shift = parts[0][1], parts[0][2]
    pure = np.stack(
        [np.interp(energy_ev, 1000 * t[:, 0], t[:, 1]) for t in map(_table, ("ref_NiO.txt", "ref_LiNiO2.txt"))]
    )
    share = np.linspace(0, 1, shift.size).reshape(shift.shape)
    mixed = share * parts[0][0] + (1 - share) * parts[1][0]
    mixed = (mixed + np.random.default_rng(2).normal(0, 0.003, mixed.shape)).astype(np.float32)
    maps = fit_fractions(mixed, energy_ev, pure, shift)
    assert np.sqrt(np.mean((maps.fractions[0] - share) ** 2)) < 0.02


def _table(name):
    return np.loadtxt(ROOT / "spectra" / name)


def test_real_frames_below_and_above_the_edge_give_a_jump_map_with_the_particles():
    olefile = pytest.importorskip("olefile")

    def mean(pattern):
        frames = []
        for path in sorted((ROOT / "txm-ssrl-6-2c").glob(pattern)):
            with olefile.OleFileIO(path) as container:
                raw = container.openstream("ImageData1/Image1").read()
            frames.append(np.frombuffer(raw, "<u2").reshape(1024, 1024).astype(np.float32))
        return np.mean(frames, axis=0)

    def cubes(kind):
        return np.stack([mean(f"{kind}*{energy}*.xrm")[::1, ::1] for energy in ("08324.0", "08354.0")])

    flats, frames = cubes("rep01_*_ref_"), cubes("rep01_2016")
    flats *= frames[:, :20].mean() / flats[:, :20].mean()  # flats have another exposure
    below, above = absorbance(flats, frames, np.float32(0.0))
    jump = above - below
    thick = below > np.nanpercentile(below, 90)
    thin = below < np.nanpercentile(below, 30)
    assert np.nanmedian(jump[thick]) > np.nanmedian(jump[thin]) + 0.1  # nickel is where the particles are
    assert np.corrcoef(jump[::4, ::4].ravel(), below[::4, ::4].ravel())[0, 1] > 0.3
