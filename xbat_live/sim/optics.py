"""Beam, flat field and sensor: super-Gaussian spot with structure, dust, scratches, pixel gain, dark pattern."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xbat_live.sim.instabilities import seeded
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi

__all__ = ["BeamProfile", "SensorPattern", "bin_mean", "bin_sum"]

_Float32 = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.floating]

_STRUCTURE_STREAM = 37
_DUST_STREAM = 41
_SENSOR_STREAM = 43
_STRUCTURE_WAVES = 14
_STRUCTURE_REL = 0.04
_DUST_SPECKS_PER_PX = 45 / 1024**2


class BeamProfile:
    """Normalised beam at the sample.

    Parameters
    ----------
    settings
        Width and order of the spot, seed of its structure.
    """

    def __init__(self, settings: TwinSettings) -> None:
        self._fwhm_um = settings.beam_fwhm_um
        self._order = settings.beam_order
        rng = seeded(settings.seed, _STRUCTURE_STREAM)
        length_um, direction = rng.uniform(3.0, 25.0, _STRUCTURE_WAVES), rng.uniform(0, 2 * math.pi, _STRUCTURE_WAVES)
        self._ky = 2 * math.pi / length_um * np.sin(direction)
        self._kx = 2 * math.pi / length_um * np.cos(direction)
        self._phase = rng.uniform(0, 2 * math.pi, _STRUCTURE_WAVES)

    def along(self, axis: str, distance_um: _Floats) -> _Floats:
        """Profile in 1/um along "x" or "y" at distances from the beam centre; its integral is 1.

        ``exp(-ln2 (2|x|/fwhm)^order)``; normalisation by the integral ``fwhm Gamma(1 + 1/order) / ln2^(1/order)``.
        """
        fwhm_um = self._fwhm_um[0 if axis == "x" else 1]
        integral_um = fwhm_um * math.gamma(1 + 1 / self._order) / math.log(2) ** (1 / self._order)
        exponent = math.log(2) * np.power(2 * np.abs(distance_um) / fwhm_um, self._order)
        return np.exp(-np.minimum(exponent, 700.0)) / integral_um

    def density(self, y_um: _Floats, x_um: _Floats) -> _Float32:
        """Return photons per um2 and beam photon, float32 (len(y_um), len(x_um)), at distances from its centre."""
        along_y = np.outer(y_um, self._ky) + self._phase
        along_x = np.outer(x_um, self._kx)
        left = np.hstack([np.sin(along_y), np.cos(along_y)]).astype(np.float32)
        right = np.hstack([np.cos(along_x), np.sin(along_x)]).astype(np.float32)
        structure = left @ right.T
        structure *= np.float32(_STRUCTURE_REL * math.sqrt(2 / _STRUCTURE_WAVES))
        structure += 1.0
        structure *= self.along("y", y_um).astype(np.float32)[:, None]
        structure *= self.along("x", x_um).astype(np.float32)
        return structure


class SensorPattern:
    """Static patterns of optics and sensor, each over the whole sensor and generated when first used.

    Parameters
    ----------
    settings
        Seed, gains and offsets.
    sensor_yx
        Rows and columns.
    """

    def __init__(self, settings: TwinSettings, sensor_yx: tuple[int, int]) -> None:
        self._settings = settings
        self._shape = sensor_yx

    @cached_property
    def dust(self) -> _Float32:
        """Transmission of dust and scratches on the optics, float32 (rows, columns), 0..1."""
        rng = seeded(self._settings.seed, _DUST_STREAM)
        depth = np.zeros(self._shape, np.float32)
        rows, columns = self._shape
        for _ in range(max(3, round(_DUST_SPECKS_PER_PX * rows * columns))):
            cy, cx = rng.uniform(0, rows), rng.uniform(0, columns)
            radius, weight, ring = rng.lognormal(1.9, 0.6), rng.uniform(0.03, 0.16), rng.random() < 0.3
            reach = 2.5 * radius + 4
            y = np.arange(max(0, int(cy - reach)), min(rows, int(cy + reach) + 1))
            x = np.arange(max(0, int(cx - reach)), min(columns, int(cx + reach) + 1))
            if not y.size or not x.size:
                continue
            stretch = rng.uniform(0.7, 1.4)
            distance = np.hypot((y[:, None] - cy) * stretch, (x - cx) / stretch)
            speck = 0.5 * (1 - np.tanh((distance - radius) / 1.5))
            if ring:
                speck = np.exp(-np.square((distance - radius) / (0.25 * radius + 1.0)))
            depth[y[0] : y[-1] + 1, x[0] : x[-1] + 1] += (weight * speck).astype(np.float32)
        y, x = np.arange(rows)[:, None], np.arange(columns)
        for _ in range(2):
            angle, offset = rng.uniform(0, math.pi), rng.uniform(-0.35, 0.35) * min(rows, columns)
            distance = (y - rows / 2) * math.cos(angle) + (x - columns / 2) * math.sin(angle) - offset
            depth += (0.05 * np.exp(-np.square(distance / 1.3))).astype(np.float32)
        return np.exp(-depth)

    @cached_property
    def gain(self) -> _Float32:
        """Counts per detected photon, float32 (rows, columns): pixel scatter and column stripes."""
        rng = seeded(self._settings.seed, _SENSOR_STREAM, 1)
        relative = self._settings.fixed_pattern_rel
        gain = 1.0 + relative * rng.standard_normal(self._shape, dtype=np.float32)
        gain *= 1.0 + 0.3 * relative * rng.standard_normal(self._shape[1], dtype=np.float32)
        gain = np.maximum(gain, 0.2)
        return gain * np.float32(self._settings.counts_per_photon)

    @cached_property
    def offset(self) -> _Float32:
        """Dark counts without exposure, float32 (rows, columns): offset of the converter and its column pattern."""
        rng = seeded(self._settings.seed, _SENSOR_STREAM, 2)
        offset = self._settings.dark_counts + 1.2 * rng.standard_normal(self._shape, dtype=np.float32)
        offset += 1.5 * rng.standard_normal(self._shape[1], dtype=np.float32)
        return np.maximum(offset, 0.0).astype(np.float32)

    @cached_property
    def dark_current(self) -> _Float32:
        """Thermal counts per s, float32 (rows, columns); a few hot pixels."""
        rng = seeded(self._settings.seed, _SENSOR_STREAM, 3)
        current = np.full(self._shape, self._settings.dark_current_counts_s, np.float32)
        hot = rng.random(self._shape, dtype=np.float32) < 5e-5
        current[hot] *= rng.uniform(20, 300, int(hot.sum())).astype(np.float32)
        return current


def bin_sum(image: _Float32, bin_yx: tuple[int, int]) -> _Float32:
    """Sum blocks of `bin_yx` pixels; incomplete blocks at the end are dropped."""
    by, bx = bin_yx
    if by == bx == 1:
        return image
    rows, columns = image.shape[0] // by, image.shape[1] // bx
    return image[: rows * by, : columns * bx].reshape(rows, by, columns, bx).sum(axis=(1, 3), dtype=np.float32)


def bin_mean(image: _Float32, bin_yx: tuple[int, int]) -> _Float32:
    """Mean of blocks of `bin_yx` pixels; see `bin_sum`."""
    if bin_yx == (1, 1):
        return image
    return bin_sum(image, bin_yx) / np.float32(bin_yx[0] * bin_yx[1])


def crop(image: _Float32, roi: Roi) -> _Float32:
    """View of `image` within `roi`."""
    return image[roi.min_y : roi.min_y + roi.size_y, roi.min_x : roi.min_x + roi.size_x]
