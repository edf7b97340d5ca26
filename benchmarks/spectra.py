"""Speed and accuracy of full-field XAS analysis beside the references, in one run, on cubes with exact truth.

Usage: ``python benchmarks/spectra.py [--quick] [--seed 5]``. pyMCR is measured when it is installed (extra ``mcr``). Times depend on the
machine and its load: compare lines of one run only. References: Cramer-Rao bound, the loop over pixels with numpy.polyfit, pyMCR.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "spectra"))
from cubes import Measured, Scene, bragg_energies, crlb, measure, oxides

from xbat_live.spectra import (
    FrameAbsorbance,
    StreamingFractions,
    absorbance,
    calibrate_energy,
    dose_threshold,
    edge_energy_map,
    fit_fractions,
    fraction_against_dose,
    mcr_als,
    pca,
)

FULL = (187, 512)
CAMERA = (748, 2048)
MGY = 1e6
# The paper's camera: 512 x 187 binned pixels, tilted by 2 eV over the height, mean of 20 cubes.
SCENE = Scene(counts=50_000.0, shape=(60, 96), shift_rms_ev=0.0)
TROUBLE = {
    "clean": {},
    "second inflection steeper": {"foil_second": 2.5},
    "descending energies": {"energy_ev": bragg_energies()[::-1]},
    "hot pixels, glitches": {"hot": 160, "glitches": 240},
    "I0 walk 0.1 %, flux drift 2 %": {"i0_walk": 0.001, "flux_drift": 0.02},
    "all of it": {"i0_walk": 0.001, "flux_drift": 0.02, "hot": 160, "glitches": 240},
}


def line(name: str, value: str, bar: str, good: bool) -> None:
    """Print one line of the table."""
    print(f"  {name:58s} {value:52s} bar {bar:16s} {'holds' if good else 'DOES NOT HOLD'}", flush=True)


def seconds(function: Callable[[], object]) -> float:
    """Return the best time of three, s."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)


def accuracy(seed: int) -> None:
    """Fractions, shift maps and edge energies with everything that goes wrong."""
    for name, change in TROUBLE.items():
        m = measure(replace(SCENE, **change), seed)
        foil, sample = (absorbance(m.i0, one, m.dark) for one in (m.foil, m.sample))
        shift = calibrate_energy(foil, m.energy_ev)
        error = shift.shift_ev - m.shift_ev
        good = abs(error.mean()) <= 0.01 and error.std() <= 0.02
        line(f"shift map, {name}", f"bias {error.mean():+.4f}, sd {error.std():.4f} eV", "0.01, 0.02 eV", good)
        error = edge_energy_map(sample, m.energy_ev, shift).edge_ev - m.edge_ev
        bias, spread = float(np.nanmean(error)), float(np.nanstd(error))
        missing = int(np.isnan(error).sum())
        line(
            f"edge energy, {name}",
            f"bias {bias:+.4f}, sd {spread:.4f} eV, largest {np.nanmax(np.abs(error)):.2f}, {missing} masked",
            "0.02, 0.02 eV",
            abs(bias) <= 0.02 and spread <= 0.02,
        )
        maps = fit_fractions(sample, m.energy_ev, m.references, shift)
        ratio = np.sqrt(np.nanmean((maps.fractions - m.fractions) ** 2, axis=(1, 2))) / crlb(m, every=31)
        line(f"fractions, {name}", "RMSE / bound " + " ".join(f"{one:.2f}" for one in ratio), "1.3", ratio.max() <= 1.3)
        closed = np.abs(np.nansum(maps.fractions, 0)[~maps.masked] - 1).max()
        low = np.nanmin(maps.fractions)
        line(f"closure, sign, {name}", f"{closed:.1e}, {low:.1e}", "1e-6, 0", closed <= 1e-6 and low >= 0)


def full_size(seed: int) -> tuple[Measured, np.ndarray, np.ndarray]:
    """Return a small measurement and its cube and shift map repeated to the size of the paper's."""
    m = measure(replace(SCENE, shape=(47, 64), hot=6, glitches=6), seed)
    sample = absorbance(m.i0, m.sample, m.dark)
    tiles = (-(-FULL[0] // 47), -(-FULL[1] // 64))
    cube = np.tile(sample, (1, *tiles))[:, : FULL[0], : FULL[1]].copy()
    shift = np.tile(m.shift_ev, tiles)[: FULL[0], : FULL[1]].copy()
    return m, cube, shift


def streaming(m: Measured, cube: np.ndarray, shift: np.ndarray) -> None:
    """Frame by frame against the whole cube; and what a frame costs."""
    stream = StreamingFractions(m.energy_ev, m.references, shift)
    start = time.perf_counter()
    for frame, energy in zip(cube, m.energy_ev, strict=True):
        stream.update(frame, float(energy))
    per_frame = 1e3 * (time.perf_counter() - start) / len(cube)
    line("StreamingFractions.update, 512 x 187", f"{per_frame:.2f} ms a frame", "1 ms", per_frame <= 1)
    apart = np.nanmax(
        np.abs(stream.result().fractions - fit_fractions(cube, m.energy_ev, m.references, shift).fractions)
    )
    line("streaming against the whole cube", f"{apart:.1e}", "1e-4", apart <= 1e-4)
    rng = np.random.default_rng(0)
    raw = rng.integers(2000, 3000, (8, *CAMERA), dtype=np.uint16)
    beam = np.full((len(m.energy_ev), *FULL), 5000, np.float32)
    counts = FrameAbsorbance(beam, m.energy_ev, 100.0, bin_factor=4)
    stream = StreamingFractions(m.energy_ev, m.references, shift)
    start = time.perf_counter()
    for number, energy in enumerate(m.energy_ev[:200]):
        stream.update(counts(raw[number % 8], float(energy)), float(energy))
    per_frame = 1e3 * (time.perf_counter() - start) / 200
    line("with 4 x 4 binning of 2048 x 748 and logarithm", f"{per_frame:.2f} ms a frame", "6 ms", per_frame <= 6)


def after_cube(m: Measured, cube: np.ndarray, shift: np.ndarray) -> None:
    """Time what follows a cube whose frames were taken in: fraction, R-factor and edge maps, dose curve, threshold."""
    y, x = np.meshgrid(np.linspace(-1, 1, FULL[0]), np.linspace(-1, 1, FULL[1]), indexing="ij")
    dose = 120 * MGY * np.exp(-1.2 * (x**2 + 0.6 * y**2))
    stream = StreamingFractions(m.energy_ev, m.references, shift)
    for frame, energy in zip(cube, m.energy_ev, strict=True):
        stream.update(frame, float(energy))
    parts = {
        "fractions and R-factor": stream.result,
        "edge energies": lambda: edge_energy_map(cube, m.energy_ev, shift),
        "dose curve and threshold": lambda: _threshold(shift, dose),
    }
    taken = {name: seconds(part) for name, part in parts.items()}
    total = sum(taken.values())
    line("products after a cube", "; ".join(f"{name} {t:.2f}" for name, t in taken.items()) + " s", "1 s", total <= 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    line(
        "largest memory of this process so far", f"{peak:.2f} GB, two cubes of 0.21 GB among it", "1.5 GB", peak <= 1.5
    )
    print(f"  {'PCA of the whole cube (once, in the background)':58s} {seconds(lambda: pca(cube, 10)):.2f} s")


def _threshold(values: np.ndarray, dose: np.ndarray) -> object:
    curve = fraction_against_dose(values, dose)
    return dose_threshold(curve.dose_gy, curve.fraction, curve.sigma)


def edge_speed(m: Measured, cube: np.ndarray, shift: np.ndarray, quick: bool) -> None:
    """Edge map against numpy.polyfit for every pixel, extrapolated from some."""
    few = np.linspace(0, len(m.energy_ev) - 1, 68).astype(int)
    for energies, least in ((np.arange(len(m.energy_ev)), 100), (few, 300)):
        part, at = np.ascontiguousarray(cube[energies]), m.energy_ev[energies]
        pixels = 300 if quick else 1500
        flat = part.reshape(len(at), -1)[:, :pixels].astype(np.float64)
        start = time.perf_counter()
        for column in range(pixels):
            _one_edge(flat[:, column], at)
        loop = (time.perf_counter() - start) * part[0].size / pixels
        own = seconds(lambda part=part, at=at: edge_energy_map(part, at, shift))
        line(
            f"edge map, {len(at)} energies",
            f"{own:.3f} s, loop {loop:.1f} s: {loop / own:.0f} x",
            f"{least} x",
            loop / own >= least,
        )


def _one_edge(spectrum: np.ndarray, energy: np.ndarray) -> float:
    before, after = energy < 8318, energy > 8400
    flat = spectrum - np.polyval(np.polyfit(energy[before], spectrum[before], 1), energy)
    post = np.polyval(np.polyfit(energy[after], flat[after], 2), energy)
    normal = np.where(energy > 8333, flat / post, flat / np.polyval(np.polyfit(energy[after], flat[after], 2), 8333))
    at = int(np.argmax(normal > 0.5))
    low, high = normal[at - 1], normal[at]
    return float(energy[at - 1] + (0.5 - low) / (high - low) * (energy[at] - energy[at - 1]))


def resolution(seed: int, quick: bool) -> None:
    """MCR-ALS of a whole cube beside pyMCR from the same start; at convergence on fewer pixels."""
    rng = np.random.default_rng(seed)
    energy = bragg_energies()
    spectra = np.clip(oxides(energy), 0, None)
    amounts = rng.dirichlet([0.8, 0.8, 0.8], FULL[0] * FULL[1])
    data = (amounts @ spectra).astype(np.float32)
    data += np.float32(0.006) * rng.standard_normal(data.shape, dtype=np.float32)
    start = np.clip(data[[int(np.argmax(amounts[:, k])) for k in range(3)]], 0, None)
    begun, cpu = time.perf_counter(), time.process_time()
    own = mcr_als(data, 3, initial=start)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    per = 1e3 * wall / own.iterations
    mine = f"{own.iterations} iterations, {wall:.2f} s, {per:.1f} ms each ({1e3 * cpu / own.iterations:.1f} ms CPU)"
    if importlib.util.find_spec("pymcr") is None:
        print(f"  {'MCR-ALS, 95744 x 580 x 3 (pyMCR is not installed)':58s} {mine}")
        return
    from pymcr.constraints import ConstraintNonneg, ConstraintNorm
    from pymcr.mcr import McrAR

    most = 2 if quick else 4
    reference = McrAR(
        c_regr="OLS",
        st_regr="OLS",
        c_constraints=[ConstraintNonneg(), ConstraintNorm()],
        st_constraints=[ConstraintNonneg()],
        max_iter=most,
        tol_increase=None,
        tol_n_increase=None,
        tol_n_above_min=None,
    )
    begun, cpu_before = time.perf_counter(), time.process_time()
    reference.fit(data, ST=start.astype(np.float64))
    slow = 1e3 * (time.perf_counter() - begun) / reference.n_iter
    slow_cpu = 1e3 * (time.process_time() - cpu_before) / reference.n_iter
    print(f"  {'MCR-ALS, 95744 x 580 x 3':58s} {mine}")
    ratio, ratio_cpu = slow / per, slow_cpu / (1e3 * cpu / own.iterations)
    value = f"{slow:.0f} ms ({slow_cpu:.0f} ms CPU): {ratio:.0f} x ({ratio_cpu:.0f} x)"
    line("  an iteration of pyMCR OLS over an own one", value, "100 x", ratio >= 100)
    few = data[:: 32 if quick else 8]
    for name, begin in (("purest pixels", start), ("pixels at random", np.clip(few[[5, 50, 500]], 0, None))):
        left = {
            backend: mcr_als(few, 3, initial=begin, backend=backend, max_iterations=400).r_factor
            for backend in ("own", "pymcr")
        }
        value = f"{left['own']:.6e}, pyMCR {left['pymcr']:.6e}"
        line(f"  R-factor at convergence, from {name}", value, "not above", left["own"] <= left["pymcr"] * (1 + 1e-7))


def thresholds(quick: bool) -> None:
    """Value and interval over many seeds, for falls of shapes that the analysis does not know."""
    from test_spectra_threshold import NOISES, SHAPES, T, found, holds

    seeds = 20 if quick else 300
    for noise in NOISES:
        for shape in SHAPES:
            results = found(shape, noise, seeds)
            values = np.array([one.value_gy for one in results]) / MGY
            within, covered = holds(shape, results)
            value = f"{np.nanmedian(values):.1f} +- {np.nanstd(values):.1f} MGy; in 10 % {within:.2f}, covered {covered:.2f}"
            line(f"{T / MGY:.0f} MGy, {shape}, {noise}"[:58], value, "0.9", covered >= 0.9)


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pixels and seeds")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, OPENBLAS_NUM_THREADS {os.environ.get('OPENBLAS_NUM_THREADS', '-')}"
    )
    print("Speed")
    m, cube, shift = full_size(options.seed)
    after_cube(m, cube, shift)
    streaming(m, cube, shift)
    edge_speed(m, cube, shift, options.quick)
    del cube
    print("Accuracy, 20 cubes of 580 energies")
    accuracy(options.seed)
    print("Components")
    resolution(options.seed, options.quick)
    print("Dose threshold")
    thresholds(options.quick)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
