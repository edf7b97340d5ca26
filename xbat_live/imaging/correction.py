"""From camera counts to optical density: dark and flat correction, binned before the logarithm."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Float2D = NDArray[np.float32]
Float1D = NDArray[np.float32]

LEAST_COUNTS = 1.0
UNLIT_FRACTION = 0.02
FLAT_SMOOTHING_PX = 16.0
STRIP_PX = 1 << 18
"""Pixels binned at a time: what stays in the cache between the steps."""
FITS_TWICE = 1 << 15
_SOME = (slice(None, None, 4), slice(None, None, 4))  # pixels enough for a percentile


def optical_density(frame: ArrayLike, flat: ArrayLike, dark: ArrayLike) -> Float2D:
    """Return ``log(flat - dark) - log(frame - dark)``, the Beer-Lambert optical density.

    Parameters
    ----------
    frame, flat
        Counts with and without sample, shape (ny, nx), any real dtype.
    dark
        Counts without beam, shape (ny, nx) or a scalar offset.

    Returns
    -------
    ndarray
        Shape (ny, nx), float32, dimensionless. Differences below one count are taken as one count.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    counts, open_beam = np.asarray(frame, np.float32), np.asarray(flat, np.float32)
    offset = np.asarray(dark, np.float32)
    if counts.shape != open_beam.shape or (offset.ndim and offset.shape != counts.shape):
        raise ValueError(
            f"optical density: frame {counts.shape}, flat {open_beam.shape} and dark {offset.shape} px must have one shape; "
            "take flat and dark again with the camera's present region and binning"
        )
    result: Float2D = np.log(np.maximum(open_beam - offset, LEAST_COUNTS)) - np.log(
        np.maximum(counts - offset, LEAST_COUNTS)
    )
    return result


def bin_sum(frame: NDArray[Any], factor: int) -> Float2D:
    """Return sums over `factor` x `factor` blocks, float32 of shape (ny // factor, nx // factor); a remainder is cut off."""
    ny, nx = (n // factor * factor for n in frame.shape)
    packed = frame.dtype == np.uint16 and factor % 2 == 0 and frame.strides[1] == 2 and frame.strides[0] % 4 == 0
    if not (packed and sys.byteorder == "little"):
        return _bin_strided(frame[:ny, :nx], factor)
    binned = np.empty((ny // factor, nx // factor), np.float32)
    strip = max(STRIP_PX // (nx * factor), 1) * factor
    for top in range(0, ny, strip):
        block = frame[top : min(top + strip, ny), :nx]
        binned[top // factor : (top + len(block)) // factor] = _bin_packed(block, factor)
    return binned


def _bin_packed(strip: NDArray[np.uint16], factor: int) -> NDArray[np.int32]:
    """Return the sums of a strip that stays in the cache, two pixels per 32-bit word: half the operations.

    They reach 65535 * factor**2 < 2**31; signed ones are converted to float32 in half the time. Where it cannot overflow, rows are added by
    twos before that: half of the half.
    """
    step = factor
    if int(strip.max()) < FITS_TWICE:
        strip, step = strip[0::2] + strip[1::2], factor // 2
    words = strip.view(np.uint32)
    pairs = words & np.uint32(0xFFFF)
    pairs += words >> np.uint32(16)
    return _added(_added(pairs.view(np.int32), step).T, factor // 2).T


def _added(values: NDArray[Any], step: int) -> NDArray[Any]:
    """Return sums of every `step` rows."""
    if step == 1:
        return values
    total: NDArray[Any] = values[0::step] + values[1::step]
    for start in range(2, step):
        total += values[start::step]
    return total


def _bin_strided(frame: NDArray[Any], factor: int) -> Float2D:
    """Return the sums of any frame: strided sums, several times faster than reshape-and-sum; rows first, they are contiguous."""
    rows = frame[0::factor].astype(np.float32)
    for start in range(1, factor):
        rows += frame[start::factor]
    if factor == 1:
        return rows
    # Products with a column of ones: the sums of neighbours that memory delivers in order anyway.
    sums: Float2D = rows.reshape(-1, factor) @ np.ones(factor, np.float32)
    return sums.reshape(len(rows), -1)


@dataclass(frozen=True)
class Corrected:
    """One frame, binned and corrected.

    Attributes
    ----------
    od
        Optical density but for a constant (beam intensity and exposure), shape (ny // bin, nx // bin), float32.
    light
        Counts above dark per unbinned pixel, mean over the lit area.
    transmission
        Mean of light over the flat's in the lit area, divided by the beam scale; about 1 without sample.
    row_light
        Light of the lit part of every row over the flat's, shape (ny // bin,); NaN where most of the row is unlit.
    """

    od: Float2D
    light: float
    transmission: float
    row_light: Float1D


class Corrector:
    """Turns frames of one camera setting into binned optical density, with stated fallbacks for missing references.

    Parameters
    ----------
    shape
        Rows and columns of the frames, px.
    bin_factor
        Pixels summed along each axis before the logarithm.
    dark_offset
        Counts per pixel assumed dark while there is no dark frame.
    """

    def __init__(self, shape: tuple[int, int], bin_factor: int = 2, dark_offset: float = 0.0) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.bin = bin_factor
        self.binned_shape = (self.shape[0] // bin_factor, self.shape[1] // bin_factor)
        self._dark: Float2D = np.full(self.binned_shape, dark_offset * bin_factor**2, np.float32)
        self._flat_counts: Float2D | None = None
        self.has_dark = False
        self.has_flat = False
        self._log_light: Float2D = np.zeros(self.binned_shape, np.float32)
        self.weight: Float2D = np.ones(self.binned_shape, np.float32)
        self.lit: NDArray[np.bool_] = np.ones(self.binned_shape, bool)
        self._lit_everywhere = True
        self._ones: Float1D = np.ones(self.binned_shape[1], np.float32)
        self._lit_share: Float2D = self.weight
        self._lit_count = self._reference = 1.0
        self._row_reference: Float1D = np.ones(self.binned_shape[0], np.float32)
        self._ready = False

    def set_dark(self, dark: ArrayLike) -> None:
        """Take the mean of dark frames, shape (ny, nx) in counts.

        Raises
        ------
        ValueError
            Wrong shape, or values that are not finite.
        """
        self._dark = bin_sum(self._checked("dark", dark), self.bin)
        self.has_dark = True
        if self._flat_counts is not None:
            self._use_light(self._flat_counts - self._dark)

    def set_flat(self, flat: ArrayLike) -> None:
        """Take the mean of flat frames, shape (ny, nx) in counts.

        Raises
        ------
        ValueError
            Wrong shape, values that are not finite, or nothing above the dark.
        """
        counts = bin_sum(self._checked("flat", flat), self.bin)
        light = counts - self._dark
        if np.percentile(light[_SOME], 95) <= LEAST_COUNTS * self.bin**2:
            raise ValueError(
                "flat: not brighter than the dark (by at least 1 count/px); was the shutter open, is the beam there?"
            )
        self._flat_counts = counts
        self.has_flat = True
        self._use_light(light)

    def correct(self, frame: NDArray[Any], beam_scale: float = 1.0) -> Corrected:
        """Return the corrected frame; `beam_scale` is exposure times intensity relative to the flat's."""
        counts = bin_sum(frame, self.bin)
        counts -= self._dark
        if not self._ready:
            self._use_light(_smooth_illumination(counts))
        # Sums in float64 or per row: a float32 sum over a whole frame would lose digits.
        rows = counts @ self._ones if self._lit_everywhere else np.einsum("ij,ij->i", counts, self._lit_share)
        light = float(rows.sum(dtype=np.float64)) / self._lit_count
        row_light = rows / self._row_reference  # where it is NaN, no warning: that is quiet already
        if counts.min() < LEAST_COUNTS:
            np.maximum(counts, LEAST_COUNTS, out=counts)
        np.log(counts, out=counts)
        od = np.subtract(self._log_light, counts, out=counts)
        return Corrected(od, light / self.bin**2, light / self._reference / beam_scale, row_light)

    def _checked(self, what: str, image: ArrayLike) -> Float2D:
        array = np.asarray(image)
        if array.shape != self.shape:
            raise ValueError(
                f"{what}: shape {array.shape} px, expected {self.shape} px; take it again with the camera's present region"
            )
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{what}: holds NaN or infinite counts; take it again")
        return array

    def _use_light(self, light: Float2D) -> None:
        smooth = _smoothed(light, FLAT_SMOOTHING_PX / self.bin)
        bright = max(float(np.percentile(smooth[_SOME], 90)), LEAST_COUNTS)
        self.lit = (smooth > UNLIT_FRACTION * bright) & (light > UNLIT_FRACTION * bright / 2)
        self._lit_everywhere = bool(self.lit.all())
        # Noise of the optical density goes as 1/sqrt(light): this weight makes it white, and fades the unlit parts out softly.
        root = np.sqrt(np.clip(smooth / bright, 0.0, 1.0))
        self.weight = np.where(self.lit, np.clip((root - 0.1) / 0.9, 0.0, 1.0), 0).astype(np.float32)
        self._lit_share = self.lit.astype(np.float32)
        self._lit_count = max(float(self.lit.sum()), 1.0)
        by_row = np.where(self.lit, light, 0).sum(1)
        self._reference = float(by_row.sum(dtype=np.float64)) / self._lit_count
        self._row_reference = np.where(self.lit.mean(1) > 0.2, by_row, np.nan).astype(np.float32)
        self._log_light = np.log(np.maximum(light, LEAST_COUNTS))
        self._ready = True


def _smoothed(image: Float2D, sigma_px: float) -> Float2D:
    """Return an image under a Gaussian, worked out on a coarse grid of half a sigma and interpolated: a third of the time."""
    factor = max(int(sigma_px / 2), 1)
    ny, nx = image.shape
    padded = np.pad(image, ((0, -ny % factor), (0, -nx % factor)), mode="edge")
    coarse = ndimage.gaussian_filter(bin_sum(padded, factor) / np.float32(factor**2), sigma_px / factor)
    return _interpolated(_interpolated(coarse, ny, factor).T, nx, factor).T


def _interpolated(coarse: Float2D, length: int, factor: int) -> Float2D:
    """Return rows between those of means over `factor` rows each, (length, n)."""
    at = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, len(coarse) - 1)
    low = np.minimum(at.astype(np.intp), max(len(coarse) - 2, 0))
    share = (at - low).astype(np.float32)[:, None]
    result: Float2D = coarse[low]
    result += share * (coarse[np.minimum(low + 1, len(coarse) - 1)] - result)
    return result


def _smooth_illumination(counts: Float2D) -> Float2D:
    """Fit a quadratic to the log counts, shape kept: what can be told of the beam from a frame with the sample in."""
    ny, nx = counts.shape
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    coarse = (slice(None, None, 8), slice(None, None, 8))
    smooth = np.log(np.maximum(ndimage.uniform_filter(counts, 9), LEAST_COUNTS))[coarse]
    coefficients = np.linalg.lstsq(basis[coarse].reshape(-1, 6), smooth.ravel(), rcond=None)[0]
    return np.exp(basis @ coefficients).astype(np.float32)
