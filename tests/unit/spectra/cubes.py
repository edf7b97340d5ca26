"""Hyperspectral cubes with exact truth, made independently of the package: spectra, optics, counting and everything that goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf

EDGE_EV = 8333.0


def bragg_energies(n: int = 580, *, first_ev: float = 8266.0, last_ev: float = 8878.0) -> np.ndarray:
    """Return energies of frames taken at equal intervals while a channel-cut Si(111) swings up, sinusoidal in the angle, eV."""
    hc_2d = 12398.4198 / (2 * 3.1356)
    high, low = np.arcsin(hc_2d / first_ev), np.arcsin(hc_2d / last_ev)
    phase = np.linspace(-0.45 * np.pi, 0.45 * np.pi, n)
    swing = np.sin(phase) / np.sin(0.45 * np.pi)
    return hc_2d / np.sin((high + low) / 2 - (high - low) / 2 * swing)


def _step(energy: np.ndarray, at: float, width: float) -> np.ndarray:
    return 0.5 * (1 + erf((energy - at) / (width * np.sqrt(2))))


def _peak(energy: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((energy - at) / width) ** 2)


def _wiggles(energy: np.ndarray, edge: float, distance: float, size: float) -> np.ndarray:
    k = np.sqrt(0.2625 * np.clip(energy - edge, 1.0, None))
    onset = 1 / (1 + np.exp(-(energy - edge - 28) / 4))
    return -size * np.sin(2 * distance * k + 0.4) * np.exp(-0.012 * k**2 - 0.12 * k) * onset


def oxide(energy: np.ndarray, *, edge: float, white: float, distance: float, width: float = 2.0) -> np.ndarray:
    """Return a normalised oxide: pre-edge peak, edge, white line, second hump, EXAFS; 0 before and about 1 after."""
    return (
        _step(energy, edge, width)
        + 0.03 * _peak(energy, edge - 11, 1.4)
        + white * _peak(energy, edge + 5.5, 3.0)
        + 0.10 * _peak(energy, edge + 22, 6.0)
        + _wiggles(energy, edge, distance, 0.22)
    )


def oxides(energy: np.ndarray) -> np.ndarray:
    """Return three components as the electrode is charged, (3, n)."""
    return np.stack(
        [
            oxide(energy, edge=8342.5, white=0.50, distance=1.95),
            oxide(energy, edge=8343.6, white=0.62, distance=1.91),
            oxide(energy, edge=8344.9, white=0.48, distance=1.88, width=2.2),
        ]
    )


def foil(energy: np.ndarray, *, second: float = 0.9, width: float = 1.2) -> np.ndarray:
    """Return a metal foil; its second rise is `second` times as steep as the first."""
    # Steepness of an error function: height / (width sqrt(2 pi)).
    tall, wide = 0.35, 2.0
    height = tall * second * wide / width
    scale = 1.0 / (tall + height)
    rises = tall * _step(energy, 8333.2, width) + height * _step(energy, 8345.0, wide)
    return scale * (rises + 0.02 * _peak(energy, 8337.5, 1.2)) + _wiggles(energy, EDGE_EV, 2.2, 0.15)


def first_inflection(second: float = 0.9, width: float = 1.2) -> float:
    """Return where the clean foil is steepest for the first time, eV."""
    fine = np.arange(8328.0, 8338.0, 1e-3)
    slope = np.gradient(foil(fine, second=second, width=width), fine)
    return float(fine[1:-1][(slope[1:-1] > slope[:-2]) & (slope[1:-1] >= slope[2:]) & (slope[1:-1] > 0.02)][0])


@dataclass(frozen=True)
class Scene:
    """What is measured; everything at its default is a clean measurement."""

    shape: tuple[int, int] = (24, 48)
    energy_ev: np.ndarray = field(default_factory=bragg_energies)
    counts: float = 20_000.0
    n_cubes: int = 20
    tilt_ev: float = 2.0
    tilt_x_ev: float = 0.15
    shift_rms_ev: float = 0.0
    jump: float = 0.7
    foil_second: float = 0.9
    foil_width: float = 1.2
    foil_jump: float = 1.2
    i0_walk: float = 0.0
    flux_drift: float = 0.0
    hot: int = 0
    glitches: int = 0
    dark: float = 100.0
    spots: int = 0


@dataclass(frozen=True)
class Measured:
    """Mean counts of the I0, foil and sample cubes, and the truth."""

    scene: Scene
    energy_ev: np.ndarray
    i0: np.ndarray
    foil: np.ndarray
    sample: np.ndarray
    dark: float
    references: np.ndarray
    fractions: np.ndarray
    jump: np.ndarray
    shift_ev: np.ndarray
    clean_absorbance: np.ndarray
    sigma_absorbance: np.ndarray
    clean: np.ndarray

    @property
    def edge_ev(self) -> np.ndarray:
        """Half height of the true spectrum of every pixel, true energy, (ny, nx)."""
        fine = np.arange(8335.0, 8352.0, 0.01)
        mu = np.tensordot(self.fractions, oxides(fine), (0, 0))
        after = np.argmax(mu > 0.5, axis=-1)[..., None]
        high, low = np.take_along_axis(mu, after, -1), np.take_along_axis(mu, after - 1, -1)
        return (fine[after] - 0.01 * (high - 0.5) / (high - low))[..., 0]


def measure(scene: Scene, seed: int = 0) -> Measured:
    """Return one measurement of the scene."""
    rng = np.random.default_rng(seed)
    (ny, nx), energy = scene.shape, scene.energy_ev
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    shift = (
        scene.tilt_ev * y
        + scene.tilt_x_ev * x
        + 0.1 * (y**2 - 0.4)
        + scene.shift_rms_ev * rng.standard_normal((ny, nx))
    )
    # True energies: the foil's first inflection is at 8333 eV by definition of the calibration.
    offset = EDGE_EV - first_inflection(scene.foil_second, scene.foil_width)
    true_ev = energy[:, None, None] + shift
    beam = scene.counts * (0.45 + 0.55 * np.exp(-1.2 * (x**2 + 0.6 * y**2)))
    spectrum = 1 + 0.15 * (energy - energy.mean()) / np.ptp(energy)
    fractions = _fractions(x, y, rng)
    jump = scene.jump * (1 + 0.1 * np.sin(3 * x) * np.cos(2 * y))
    background = 0.45 + 0.05 * x - 2.5e-4 * (true_ev - 8300)
    mu = np.empty((3, *true_ev.shape))
    for k, one in enumerate(oxides(true_ev.ravel())):
        mu[k] = one.reshape(true_ev.shape)
    absorbance = background + jump * np.einsum("kyx,knyx->nyx", fractions, mu)
    metal = 0.2 + scene.foil_jump * foil(true_ev - offset, second=scene.foil_second, width=scene.foil_width)
    n = len(energy)
    cubes = []
    for number, thickness in enumerate((np.zeros_like(absorbance), metal, absorbance)):
        walk = scene.i0_walk * np.cumsum(rng.standard_normal(n)) / np.sqrt(n)
        drift = scene.flux_drift * number * (1 + 0.3 * np.linspace(0, 1, n) + 0.15 * np.linspace(0, 1, n) ** 2)
        light = beam * (spectrum * (1 + walk + drift))[:, None, None]
        cubes.append([light, light * np.exp(-thickness)])
    blind = [transmitted for _, transmitted in cubes]
    noisy = [rng.normal(t, np.sqrt((t + scene.dark) / scene.n_cubes)) + scene.dark for t in blind]
    for _ in range(scene.hot):
        noisy[rng.integers(3)][rng.integers(n), rng.integers(ny), rng.integers(nx)] += 3 * scene.counts
    for _ in range(scene.glitches):  # diamond reflections take light away over one or two frames of one pixel
        at, row, column = rng.integers(n - 2), rng.integers(ny), rng.integers(nx)
        noisy[2][at : at + 2, row, column] *= rng.uniform(0.4, 0.8)
    var = (1 / blind[0] + 1 / blind[2] + scene.dark / blind[0] ** 2 + scene.dark / blind[2] ** 2) / scene.n_cubes
    return Measured(
        scene,
        energy,
        *(one.astype(np.float32) for one in noisy),
        scene.dark,
        oxides(energy),
        fractions,
        jump,
        shift,
        absorbance,
        np.sqrt(var),
        mu,
    )


def _fractions(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first = 0.5 + 0.35 * np.sin(2 * x + rng.uniform(0, 6)) * np.cos(2 * y + rng.uniform(0, 6))
    third = (1 - first) * (0.5 + 0.4 * np.sin(3 * y + rng.uniform(0, 6)))
    return np.stack([first, 1 - first - third, third])


def crlb(measured: Measured, every: int = 7) -> np.ndarray:
    """Return the Cramer-Rao bound of the fractions with unknown background and jump, root mean square over pixels, (3,)."""
    n = len(measured.energy_ev)
    flat = measured.clean.reshape(3, n, -1)[:, :, ::every]
    sigma = measured.sigma_absorbance.reshape(n, -1)[:, ::every]
    fractions = measured.fractions.reshape(3, -1)[:, ::every]
    jump = measured.jump.ravel()[::every]
    line = (measured.energy_ev - 8500) / 300
    total = np.zeros(3)
    for pixel in range(jump.size):
        design = np.stack([np.ones(n), line, *flat[:, :, pixel]], 1) / sigma[:, pixel, None]
        covariance = np.linalg.inv(design.T @ design)[2:, 2:]
        to_fraction = (np.eye(3) - fractions[:, pixel, None]) / jump[pixel]
        total += np.diag(to_fraction @ covariance @ to_fraction.T)
    return np.sqrt(total / jump.size)
