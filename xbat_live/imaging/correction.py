"""From camera counts to optical density: dark and flat correction, binned before the logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Float2D = NDArray[np.float32]

LEAST_COUNTS = 1.0
UNLIT_FRACTION = 0.02
FLAT_SMOOTHING_PX = 16.0


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
    # Strided sums: several times faster than reshape-and-sum for small factors; rows first, they are contiguous.
    rows = frame[0:ny:factor, :nx].astype(np.float32)
    for start in range(1, factor):
        rows += frame[start:ny:factor, :nx]
    total = rows[:, 0::factor].copy()
    for start in range(1, factor):
        total += rows[:, start::factor]
    return total


@dataclass(frozen=True)
class Corrected:
    """One frame, binned and corrected.

    Attributes
    ----------
    od
        Optical density minus its weighted mean, shape (ny // bin, nx // bin), float32.
    light
        Counts above dark per unbinned pixel, mean over the lit area.
    transmission
        Mean of light over the flat's in the lit area, divided by the beam scale; about 1 without sample.
    contrast
        Weighted standard deviation of the optical density (noise included).
    """

    od: Float2D
    light: float
    transmission: float
    contrast: float


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
        self._light: Float2D = np.ones(self.binned_shape, np.float32)
        self._log_light: Float2D = np.zeros(self.binned_shape, np.float32)
        self.weight: Float2D = np.ones(self.binned_shape, np.float32)
        self.lit: NDArray[np.bool_] = np.ones(self.binned_shape, bool)
        self._lit_everywhere = True
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
        if np.percentile(light, 95) <= LEAST_COUNTS * self.bin**2:
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
        lit = self._lit_everywhere
        light = float(counts.mean() if lit else counts[self.lit].mean())
        reference = float(self._light.mean() if lit else self._light[self.lit].mean())
        np.maximum(counts, LEAST_COUNTS, out=counts)
        np.log(counts, out=counts)
        od = np.subtract(self._log_light, counts, out=counts)
        weights = self.weight
        total = float(weights.sum())
        od -= float(np.vdot(weights, od)) / total
        contrast = float(np.sqrt(max(np.vdot(weights, od * od) / total, 0.0)))
        return Corrected(od, light / self.bin**2, light / reference / beam_scale, contrast)

    def row_light(self, frame: NDArray[Any]) -> tuple[Float2D, Float2D]:
        """Return the mean light per row over the flat's (NaN where the row is unlit), and the standard deviation of its raw counts."""
        counts = np.asarray(frame[:, ::4], np.float32)
        reference = np.where(self.lit, self._light, 0).sum(1)
        rows = bin_sum(frame, self.bin) - self._dark
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(self.lit.mean(1) > 0.2, np.where(self.lit, rows, 0).sum(1) / reference, np.nan)
        return ratio.astype(np.float32), counts.std(1)

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
        smooth = ndimage.gaussian_filter(light, FLAT_SMOOTHING_PX / self.bin)
        bright = max(float(np.percentile(smooth, 90)), LEAST_COUNTS)
        self.lit = (smooth > UNLIT_FRACTION * bright) & (light > UNLIT_FRACTION * bright / 2)
        self._lit_everywhere = bool(self.lit.all())
        # Noise of the optical density goes as 1/sqrt(light): this weight makes it white, and fades the unlit parts out softly.
        root = np.sqrt(np.clip(smooth / bright, 0.0, 1.0))
        self.weight = np.where(self.lit, np.clip((root - 0.1) / 0.9, 0.0, 1.0), 0).astype(np.float32)
        self._light = light
        self._log_light = np.log(np.maximum(light, LEAST_COUNTS))
        self._ready = True


def _smooth_illumination(counts: Float2D) -> Float2D:
    """Fit a quadratic to the log counts, shape kept: what can be told of the beam from a frame with the sample in."""
    ny, nx = counts.shape
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    coarse = (slice(None, None, 8), slice(None, None, 8))
    smooth = np.log(np.maximum(ndimage.uniform_filter(counts, 9), LEAST_COUNTS))[coarse]
    coefficients = np.linalg.lstsq(basis[coarse].reshape(-1, 6), smooth.ravel(), rcond=None)[0]
    return np.exp(basis @ coefficients).astype(np.float32)
