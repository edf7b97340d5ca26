"""Pairs of synthetic frames with an exactly known displacement field: swelling electrode, rigid plates, shot noise, dust, noisy flat.

The moving image is the scene sampled (quintic spline) at ``z - backward(z)``; the forward field asked of optical flow,
``forward(y) = backward(y + forward(y))``, follows by fixed-point iteration to 1e-6 px, so truth is not limited by rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from frames_synthetic import Microscope, particles
from numpy.typing import NDArray
from scipy import fft, ndimage

from xbat_live.imaging import optical_density

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FlowPair:
    """Two frames' optical density (ny, nx) and the true flow (2, ny, nx), px, content of reference at (y, x) to (y, x) + flow."""

    reference_od: NDArray[np.float32]
    moving_od: NDArray[np.float32]
    flow: Array

    def error(self, flow: NDArray[np.floating], border: int = 0) -> float:
        """Return the mean endpoint error, px, NaN left out."""
        inside = (slice(None), *(slice(border, n - border) for n in self.flow.shape[1:]))
        return float(np.nanmean(np.hypot(*(np.asarray(flow, float) - self.flow)[inside])))


def smooth_field(shape: tuple[int, int], seed: int, *, peak_px: float = 4.0, scale_px: float = 110.0) -> Array:
    """Return a smooth random field (2, ny, nx) with the largest amplitude `peak_px`; a mean displacement is part of it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, *shape))
    field = np.stack([ndimage.gaussian_filter(item, scale_px, mode="reflect") for item in noise])
    field -= 0.7 * field.mean((1, 2), keepdims=True)
    return field * (peak_px / np.hypot(*field).max())


def add_plates(
    field: Array, seed: int, *, n_plates: int = 6, size_px: float = 90.0, peak_px: float = 4.0, edge_px: float = 1.5
) -> Array:
    """Return the field with `n_plates` ellipses that move rigidly, each by a vector of its own, up to `peak_px` in all."""
    rng = np.random.default_rng([seed, 6])
    ny, nx = field.shape[1:]
    y, x = np.mgrid[0:ny, 0:nx]
    result = field.copy()
    for _ in range(n_plates):
        centre = rng.uniform(0.1, 0.9, 2) * (ny, nx)
        half = size_px / 2 * rng.uniform(0.7, 1.4, 2)
        inside = (((y - centre[0]) / half[0]) ** 2 + ((x - centre[1]) / half[1]) ** 2 < 1).astype(float)
        inside = ndimage.gaussian_filter(inside, edge_px)
        here = field[:, int(centre[0]), int(centre[1])]
        angle = rng.uniform(0, 2 * np.pi)
        own = here + rng.uniform(0.5, 1.5) * np.array([np.sin(angle), np.cos(angle)])
        own *= min(1.0, peak_px / np.hypot(*own))
        result = result * (1 - inside) + own[:, None, None] * inside
    return result


def forward_of(backward: Array) -> Array:
    """Return the forward field of a backward one (both (2, ny, nx), px)."""
    grid = np.mgrid[0 : backward.shape[1], 0 : backward.shape[2]].astype(float)
    forward = backward.copy()
    for _ in range(60):
        new = np.stack([ndimage.map_coordinates(item, grid + forward, order=1, mode="nearest") for item in backward])
        change = float(np.abs(new - forward).max())
        forward = new
        if change < 1e-6:
            break
    return forward


def displaced(image: Array, backward: Array, margin: int) -> Array:
    """Return the image (margin wider on all sides than `backward`) sampled at ``z - backward(z)``."""
    ny, nx = backward.shape[1:]
    grid = np.mgrid[0:ny, 0:nx] + margin - backward
    return ndimage.map_coordinates(image, grid, order=5, mode="grid-wrap")


def deform_pair(
    shape: tuple[int, int] = (654, 678),
    seed: int = 4,
    *,
    photons: float | None = 1000.0,
    backward: Array | None = None,
    n_flats: int = 10,
    margin: int = 24,
) -> FlowPair:
    """Return a pair of the `deform` kind; `photons` per px without sample (None: noise-free), `backward` field or the standard one."""
    if backward is None:
        scale = min(shape) / 6
        backward = add_plates(smooth_field(shape, seed, scale_px=scale), seed, size_px=0.85 * scale)
    canvas = (fft.next_fast_len(shape[0] + 2 * margin, real=True), fft.next_fast_len(shape[1] + 2 * margin, real=True))
    smallest = min(1.0, min(shape) / 400)
    scene = particles(canvas, seed, radius_px=(9.0, max(20.0, 110.0 * smallest)))
    transmitted = ndimage.gaussian_filter(np.exp(-scene), 0.7, mode="wrap")
    still = transmitted[margin : margin + shape[0], margin : margin + shape[1]]
    moved = displaced(transmitted, backward, margin)
    truth = forward_of(backward)
    if photons is None:
        return FlowPair(-np.log(still).astype(np.float32), -np.log(moved).astype(np.float32), truth)
    detector = Microscope(shape, seed, photons=photons, n_flats=n_flats, scene=np.zeros(canvas))
    frames = []
    for image in (still, moved):
        counts = detector.rng.poisson(photons * detector.illumination * np.clip(image, 0, None))
        read = detector.rng.normal(0, 3, shape)
        frames.append(np.rint(detector.counts_per_photon * counts + detector.dark_level + read))
    reference, moving = (optical_density(frame, detector.flat, detector.dark) for frame in frames)
    return FlowPair(reference, moving, truth)
