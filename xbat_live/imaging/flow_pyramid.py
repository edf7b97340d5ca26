"""Scales of an image pair for optical flow: cosine-transform pyramid, masks and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from xbat_live.imaging.spectrum import Float2D

SMOOTHING = 0.8
"""Standard deviation, level px, of the pyramid's low-pass: little aliasing, little loss."""
BORDER = 1.0
"""Width, level px, over which the weight rises from nothing at the frame's border."""
_NOISE_STENCIL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True)
class Level:
    """Both images at one scale; `noise` is the variance of their difference, `correlated` the px that share one noise value."""

    reference: Float2D
    moving: Float2D
    valid_reference: Float2D
    valid_moving: Float2D
    noise: float
    correlated: float

    @cached_property
    def border(self) -> Float2D:
        """Weight of the reference's own border px."""
        ny, nx = self.reference.shape
        y, x = (np.minimum(np.arange(n), n - 1 - np.arange(n)).astype(np.float32) for n in (ny, nx))
        return np.clip(np.minimum(y[:, None], x[None, :]) / BORDER, 0, 1)


def filled(image: Float2D) -> tuple[Float2D, NDArray[np.bool_]]:
    """Return the image with NaN replaced by the nearest value, and where it was finite."""
    valid = np.isfinite(image)
    if valid.all():
        return image, valid
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return image[tuple(nearest)], valid


def white_noise(image: Float2D) -> float:
    """Return the standard deviation of white noise (Immerkaer 1996, made robust by the median)."""
    seen = np.abs(ndimage.convolve(image, _NOISE_STENCIL, mode="nearest"))
    seen = seen[np.isfinite(seen)]
    return float(1.4826 * np.median(seen)) / 6 if seen.size else 0.0


def resample(
    spectra: list[Float2D], valid: tuple[NDArray[np.bool_], ...], factor: int, noise: float, workers: int
) -> Level:
    """Return both images at one scale.

    Parameters
    ----------
    spectra
        Cosine transforms (ortho) of both images without NaN, shape (ny, nx).
    valid
        Where they were finite, shape (ny, nx).
    factor
        Unbinned px per level px.
    noise
        Variance of the difference of the images, unbinned.
    workers
        Threads of the transforms.
    """
    full = spectra[0].shape
    shape = (-(-full[0] // factor), -(-full[1] // factor))
    fy, fx = (np.arange(n) / (2 * n) for n in shape)
    # Low orders of the cosine transform are the image resampled without aliasing; reflecting borders need no window.
    low_pass = np.exp(-2 * (np.pi * SMOOTHING) ** 2 * (fy[:, None] ** 2 + fx[None, :] ** 2)).astype(np.float32)
    scale = shape[0] * shape[1] / (full[0] * full[1])
    images = [
        fft.idctn(s[: shape[0], : shape[1]] * (low_pass * np.float32(np.sqrt(scale))), norm="ortho", workers=workers)
        for s in spectra
    ]
    square = low_pass.astype(np.float64) ** 2
    masks = [_valid_at(mask, shape, factor) for mask in valid]
    return Level(
        images[0],
        images[1],
        masks[0],
        masks[1],
        noise * scale * float(square.mean()),
        square.size * float((square**2).sum()) / float(square.sum()) ** 2,
    )


def _valid_at(valid: NDArray[np.bool_], shape: tuple[int, int], factor: int) -> Float2D:
    if valid.all():
        return np.ones(shape, np.float32)
    # Values within the reach of the low-pass are mixtures with the filling.
    grown = ndimage.minimum_filter(valid, 2 * factor + 1, mode="nearest").astype(np.float32)
    at = np.meshgrid(
        *[(np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(shape, valid.shape, strict=True)], indexing="ij"
    )
    return (ndimage.map_coordinates(grown, at, order=1, mode="nearest") > 0.99).astype(np.float32)
