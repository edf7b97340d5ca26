"""Mean displacement over the field from tiles, for samples that breathe.

One correlation over the whole field follows the structure-rich parts of a deforming sample. Here every tile is registered by itself, an
affine field is fitted to the tiles robustly (a particle that moves by itself does not count), and the displacement is read at the centre of
the field, which for an affine field is its mean over the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xbat_live.imaging.spectrum import Float, Float2D, fast_even_length

TILES_ACROSS = 5
SMALLEST_TILE, LARGEST_TILE = 24, 96
"""Binned px."""
LEAST_TILES = 8
NEWTON_STEPS = 4
FARTHEST_PX = 6.0
"""Binned px by which a tile may differ from the whole before it is left out."""
TUKEY = 4.7
ROBUST_ROUNDS = 8
OVERLAP = 1.4
"""Variance of a mean over tiles that overlap by half, over that if each knew something of its own: squares of Hann windows that are half a
length apart agree by 3/35, along both axes."""


@dataclass(frozen=True)
class TileMean:
    """Displacement of the centre of the field under the affine fit.

    Attributes
    ----------
    shift_yx
        Binned px.
    covariance
        2x2, binned px squared.
    gradient
        Derivatives of the displacement, ``[[dy/dy, dy/dx], [dx/dy, dx/dx]]``: the breathing.
    tile_shifts_yx
        Shifts of the tiles that were used, shape (n, 2), binned px.
    """

    shift_yx: Float
    covariance: Float
    gradient: Float
    tile_shifts_yx: Float


def tile_mean(  # noqa: PLR0917
    reference_od: Float2D, od: Float2D, weight: Float2D, rigid_yx: Float, static_power: float = 0.0, workers: int = 1
) -> TileMean | None:
    """Return the mean displacement of `od` against `reference_od`, or None when too few tiles hold structure.

    Parameters
    ----------
    reference_od, od
        Optical density, shape (ny, nx), binned.
    weight
        Of every pixel (0 where there is no light), shape (ny, nx).
    rigid_yx
        Shift of the whole, binned px.
    static_power
        Noise that both share through the flat, per mode.
    workers
        Threads of the FFTs.
    """
    whole = np.rint(rigid_yx).astype(int)
    common = [n - abs(int(d)) for n, d in zip(od.shape, whole, strict=True)]
    size = fast_even_length(int(np.clip(min(common) // TILES_ACROSS, SMALLEST_TILE, LARGEST_TILE)))
    if min(common) < 2 * size:
        return None
    starts = [np.linspace(0, n - size, max(2, round(2 * n / size) - 1)).astype(int) for n in common]
    rows, columns = (item.ravel() for item in np.meshgrid(*starts, indexing="ij"))
    top, left = max(-whole[0], 0), max(-whole[1], 0)
    rest = rigid_yx - whole
    still = _tiles(reference_od, rows + top, columns + left, size)
    moved = _tiles(od, rows + top + whole[0], columns + left + whole[1], size)
    light = _tiles(weight, rows + top, columns + left, size)
    lit = light.mean((1, 2)) > 0.3
    spectra = []
    # The window of the moved tiles goes with the material: one that stays pulls all tiles towards whole pixels alike.
    for stack, offset_yx in ((still, np.zeros(2)), (moved, rest)):
        window = np.outer(_hann(size, offset_yx[0]), _hann(size, offset_yx[1])) * light
        scale = np.sqrt(np.maximum((window**2).mean((1, 2), keepdims=True), 1e-6)) * size
        centred = (
            stack - (stack * window).sum((1, 2), keepdims=True) / np.maximum(window.sum((1, 2)), 1e-6)[:, None, None]
        )
        spectra.append(fft.rfft2(centred * window / scale, workers=workers, overwrite_x=True))
    fy, fx = fft.fftfreq(size).astype(np.float32), fft.rfftfreq(size).astype(np.float32)
    found, covariance = _register(spectra[0], spectra[1], fy, fx, rest, whole, static_power)
    good = lit & np.isfinite(found).all(1) & (np.abs(found - rest).max(1) < FARTHEST_PX)
    if int(good.sum()) < LEAST_TILES:
        return None
    centre = np.stack([rows + top, columns + left], 1) + whole / 2 + (size - 1) / 2 - (np.array(od.shape) - 1) / 2
    fit = _affine(found[good], covariance[good], centre[good])
    if fit is None:
        return None
    at, at_covariance, gradient = fit
    return TileMean(at + whole, at_covariance, gradient, found[good] + whole)


def _hann(size: int, offset: float) -> NDArray[np.float32]:
    """Return a Hann window displaced by `offset` samples."""
    place = np.clip((np.arange(1, size + 1) - offset) / (size + 1), 0, 1)
    window: NDArray[np.float32] = (0.5 - 0.5 * np.cos(2 * np.pi * place)).astype(np.float32)
    return window


def _tiles(image: Float2D, rows: NDArray[np.int_], columns: NDArray[np.int_], size: int) -> NDArray[np.float32]:
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    tiles: NDArray[np.float32] = view[rows, columns].astype(np.float32)
    return tiles


def _register(  # noqa: PLR0917
    still: NDArray[np.complex64],
    moved: NDArray[np.complex64],
    fy: NDArray[np.float32],
    fx: NDArray[np.float32],
    start: Float,
    whole: NDArray[np.int_],
    static_power: float,
) -> tuple[Float, Float]:
    """Return shift (n, 2) and variances (n, 2) of every tile, NaN where there is no maximum."""
    multiplicity = np.full(len(fx), 2, np.float32)
    multiplicity[[0, -1]] = 1
    cross = moved * still.conj()
    if static_power > 0:
        turn = 2j * np.pi
        cross -= static_power * np.exp(turn * whole[0] * fy)[:, None] * np.exp(turn * whole[1] * fx)[None, :]
    phase = np.exp(2j * np.pi * (start[0] * fy[:, None] + start[1] * fx[None, :]))
    p_moved, p_still = (np.mean(np.abs(s) ** 2, 0) for s in (moved, still))
    shared = np.abs(np.mean(cross * phase, 0)) ** 2 - np.mean(np.abs(cross) ** 2, 0) / len(cross)
    radius = np.hypot(fy[:, None], fx[None, :])
    ring = np.minimum((radius * len(fy)).astype(int), len(fy))
    mean = [np.bincount(ring.ravel(), item.ravel()) for item in (shared, p_moved * p_still)]
    coherence = np.clip(mean[0] / np.maximum(mean[1], 1e-30), 0, 0.95)
    weight = (coherence / (1 - coherence) / np.sqrt(np.maximum(mean[1], 1e-30)))[ring] * multiplicity
    weight *= (radius > 1.5 / len(fy)) & (radius < 0.48)
    weighted = (cross * weight).astype(np.complex64)
    at = np.tile(np.asarray(start, float), (len(cross), 1))
    powers_y, powers_x = np.stack([fy**k for k in range(3)], 1), np.stack([fx**k for k in range(3)], 1)
    curvature = np.zeros((len(cross), 2, 2))
    lost = np.zeros(len(cross), bool)
    for _ in range(NEWTON_STEPS):
        left = powers_y[None] * np.exp(2j * np.pi * at[:, 0, None, None] * fy[None, :, None])
        right = powers_x[None] * np.exp(2j * np.pi * at[:, 1, None, None] * fx[None, :, None])
        moments = np.swapaxes(left, 1, 2) @ (weighted @ right.astype(np.complex64))
        gradient = -2 * np.pi * np.stack([moments[:, 1, 0].imag, moments[:, 0, 1].imag], 1)
        curvature = (2 * np.pi) ** 2 * np.stack(
            [
                np.stack([moments[:, 2, 0].real, moments[:, 1, 1].real], 1),
                np.stack([moments[:, 1, 1].real, moments[:, 0, 2].real], 1),
            ],
            1,
        )
        lost |= (np.linalg.det(curvature) <= 0) | (curvature[:, 0, 0] <= 0)
        safe = np.where(lost[:, None, None], np.eye(2), curvature)
        step = np.linalg.solve(safe, gradient[:, :, None])[:, :, 0]
        at = at + np.clip(step, -1, 1)
    turned = weighted * np.exp(2j * np.pi * (at[:, 0, None, None] * fy[:, None] + at[:, 1, None, None] * fx))
    square = turned.imag**2
    spread = (2 * np.pi) ** 2 * np.stack([(square * fy[:, None] ** 2).sum((1, 2)), (square * fx**2).sum((1, 2))], 1)
    diagonal = np.maximum(np.stack([curvature[:, 0, 0], curvature[:, 1, 1]], 1), 1e-30)
    # Under a Hann window about two and a half modes along each axis share one independent value.
    variance = 3.75 * spread / diagonal**2 + 1e-6
    at[lost] = np.nan
    return at, variance


def _affine(found: Float, variance: Float, centre: Float) -> tuple[Float, Float, Float] | None:
    """Fit value and gradient robustly (Tukey's biweight on the larger of both residuals, scale from their median)."""
    size = np.abs(centre).max()
    basis = np.column_stack([np.ones(len(centre)), centre / size])
    share = np.ones(len(found))
    own = variance.mean(1)
    extra = 0.0
    coefficients = np.zeros((3, 2))
    inverse = np.eye(3)
    for _ in range(ROBUST_ROUNDS):
        weight = share / (own + extra)
        normal = basis.T @ (weight[:, None] * basis)
        if np.linalg.cond(normal) > 1e8:
            return None
        inverse = np.linalg.inv(normal)
        coefficients = inverse @ (basis.T @ (weight[:, None] * found))
        residual = found - basis @ coefficients
        excess = 1.4826**2 * float(np.median(residual**2)) - float(np.median(own))
        extra = max(excess, 0.0)
        distance = np.abs(residual).max(1) / np.sqrt(own + extra)
        share = np.clip(1 - (distance / TUKEY) ** 2, 0, None) ** 2
        if int((share > 0).sum()) < LEAST_TILES:
            return None
    gradient = coefficients[1:].T / size
    return coefficients[0], np.eye(2) * inverse[0, 0] * OVERLAP, gradient
