"""Camera noise: photon statistics, read noise, gain, saturation. Quick enough for a kilohertz of small frames."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["digitise", "expose_counts", "poisson"]

_Float32 = npt.NDArray[np.float32]

GAUSSIAN_ABOVE_PHOTONS = 50.0
_LEVELS_PER_PHOTON = 16
_TABLE_PHOTONS = 64
_DRAW_BITS = 12
_POOL = 1 << 20


@cache
def _poisson_table() -> npt.NDArray[np.uint8]:
    """Return Poisson quantiles, uint8 (1024, 4096): row = level (1/16 photon), column = uniform draw."""
    draws = (np.arange(1 << _DRAW_BITS) + 0.5) / (1 << _DRAW_BITS)
    counts = np.arange(160)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    levels = np.arange(_TABLE_PHOTONS * _LEVELS_PER_PHOTON) / _LEVELS_PER_PHOTON
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(counts == 0, 0.0, counts * np.log(levels)[:, None])
    table = np.cumsum(np.exp(exponent - levels[:, None] - log_factorial), axis=1)
    table[0] = 1.0
    return np.stack([np.searchsorted(row, draws) for row in table]).astype(np.uint8)


@cache
def _normal_pool() -> _Float32:
    """Return standard normal numbers to draw windows from: read noise needs no fresh ones."""
    return np.random.Generator(np.random.SFC64(20)).standard_normal(_POOL, dtype=np.float32)


def poisson(mean: _Float32, rng: np.random.Generator) -> _Float32:
    """Poisson numbers for means up to 64, float32 of the same shape.

    A table gives the number for the mean rounded down to 1/16; the rest (< 1/16) adds one with its own probability, as
    sums of Poisson numbers are Poisson. Means above 64 fall back on a Gaussian.
    """
    shape = mean.shape
    level = np.minimum(mean * _LEVELS_PER_PHOTON, _TABLE_PHOTONS * _LEVELS_PER_PHOTON - 1)
    whole = level.astype(np.int32)
    draw = rng.integers(0, 1 << 32, size=shape, dtype=np.uint32)
    number = _poisson_table().ravel().take((whole << _DRAW_BITS) + (draw & ((1 << _DRAW_BITS) - 1))).astype(np.float32)
    rest = (level - whole) * np.float32((1 << (32 - _DRAW_BITS)) / _LEVELS_PER_PHOTON)
    number += (draw >> _DRAW_BITS) < rest
    high = mean >= _TABLE_PHOTONS - 1
    if high.any():
        bright = mean[high]
        number[high] = np.maximum(
            np.rint(bright + np.sqrt(bright) * rng.standard_normal(bright.shape, dtype=np.float32)), 0
        )
    return number


def expose_counts(
    photons: _Float32, gain: _Float32, dark: _Float32, read_noise_counts: float, rng: np.random.Generator
) -> _Float32:
    """Noisy counts, float32, not yet digitised.

    Parameters
    ----------
    photons
        Expected detected photons per pixel.
    gain, dark
        Counts per photon and dark counts per pixel, same shape.
    read_noise_counts
        Standard deviation of the read noise.
    rng
        Source of the noise of this frame.
    """
    if float(photons[::7, ::7].mean()) >= GAUSSIAN_ABOVE_PHOTONS:
        mean_gain = float(gain[::16, ::16].mean())
        counts = rng.standard_normal(photons.shape, dtype=np.float32)
        counts *= np.sqrt(photons + np.float32((read_noise_counts / mean_gain) ** 2))
        counts += photons
        counts *= gain
        counts += dark
        return counts
    counts = poisson(photons, rng)
    counts *= gain
    counts += dark
    counts += read_noise(photons.shape, read_noise_counts, rng)
    return counts


def read_noise(shape: tuple[int, ...], sigma_counts: float, rng: np.random.Generator) -> _Float32:
    """Gaussian noise of standard deviation `sigma_counts`, float32 of `shape`."""
    size = math.prod(shape)
    pool = _normal_pool()
    if size >= pool.size:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma_counts)
    start = int(rng.integers(0, pool.size - size))
    return pool[start : start + size].reshape(shape) * np.float32(sigma_counts)


def digitise(counts: _Float32, saturation_counts: int) -> npt.NDArray[np.uint16]:
    """Round and clip to 0..`saturation_counts`, uint16. `counts` is overwritten."""
    counts += 0.5
    np.clip(counts, 0.0, float(saturation_counts), out=counts)
    return counts.astype(np.uint16)
