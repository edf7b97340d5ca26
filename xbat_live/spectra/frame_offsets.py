"""What a frame has in common in all pixels and no reference explains: the beam's intensity that walked between I0 and sample frames.

A factor on the light of one frame adds the same number to the absorbance of all its pixels. The part of it that no straight line in
energy takes up would go into the fractions of all pixels alike, and no averaging over pixels helps. Pixels see the edge at different
nominal energies, the walk at the same frame: that, and that intensity walks (increments from frame to frame, no jumps at the edge),
tells both apart. Generalised least squares with a random walk as the process of the common part. References are known to about one
part in a thousand: less than that in common is left alone, because it would be the references that were corrected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.spectra.checks import Float, Mask
from xbat_live.spectra.moments import BACKGROUND, Moments

SAMPLE_PIXELS = 4096
LEAST_PIXELS = 16
LIMIT_SIGMA = 6.0
REFERENCES_KNOWN_TO = 1e-3
_ROUNDS = 2
_MEDIAN_EFFICIENCY = np.pi / 2
_MAD = 1.4826
_MEAN_TO_SIGMA = float(np.sqrt(np.pi / 2))


@dataclass(frozen=True)
class Common:
    """What frames have in common.

    Attributes
    ----------
    offsets
        Absorbance, (frames,); 0 when noise explains it.
    misfit
        Root mean square of the common residual over what noise gives; None when there are too few pixels.
    """

    offsets: Float
    misfit: float | None


def sample_of(moments: Moments, usable: np.ndarray) -> np.ndarray:
    """Return up to `SAMPLE_PIXELS` of the usable pixels that miss no sample, evenly over the image."""
    whole = usable & ~moments.dead
    whole[moments.missing.pairs()[1]] = False
    live = np.flatnonzero(whole)
    result: np.ndarray = live[:: max(1, -(-live.size // SAMPLE_PIXELS))]
    return result


def common_offsets(moments: Moments, weights: Float, which: np.ndarray, measured: Float) -> Common:
    """Return the offsets of the frames.

    Parameters
    ----------
    moments
        Sums of the cube: its design and Gram matrix are used.
    weights, which
        Small matrices of the shift bins, and the bin of each sampled pixel.
    measured
        Absorbance of the sampled pixels, (frames, pixels).
    """
    frames, pixels = measured.shape
    offsets: Float = np.zeros(frames)
    misfit = None
    if pixels < LEAST_PIXELS or frames <= 2 * moments.size:
        return Common(offsets, misfit)
    design = moments.design()
    projections = _projections(moments, weights)
    clean: Mask = np.ones(pixels, bool)
    for _ in range(_ROUNDS):
        # Not constrained: what a fit at the limit leaves is not a projection of the data.
        left: Float = measured - offsets[:, None]
        fitted = np.einsum("pab,pb->ap", projections[which], (design.T @ left).T)
        residual: Float = left - design @ fitted
        scale = np.abs(residual).mean(0) * _MEAN_TO_SIGMA
        clean = np.asarray(np.abs(residual).max(0) < LIMIT_SIGMA * scale)
        if clean.sum() < LEAST_PIXELS:  # described badly everywhere, not glitched
            clean = np.ones(pixels, bool)
        residual = (
            residual[:, clean]
            + (offsets - design @ (projections[which[clean]].mean(0) @ (design.T @ offsets)))[:, None]
        )
        middle = np.median(residual, axis=1)
        noise = float(_MAD * np.median(np.abs(residual - middle[:, None])) * np.sqrt(_MEDIAN_EFFICIENCY / clean.sum()))
        if noise <= 0:
            break
        misfit = float(np.sqrt(np.mean(middle**2))) / noise if misfit is None else misfit
        found = _walk(
            middle, float(np.hypot(noise, REFERENCES_KNOWN_TO)), design @ projections[which[clean]].mean(0) @ design.T
        )
        if found is None:
            break
        offsets = found
    return Common(offsets, misfit)


def _walk(middle: Float, noise: float, projection: Float) -> Float | None:
    """Return the random walk that left `middle` after the pixels' fits were projected out; None when `noise` explains it."""
    frames = middle.size
    excess = float(np.mean(middle**2)) - noise**2
    if excess <= noise**2:
        return None
    steps = (_MAD * float(np.median(np.abs(np.diff(middle))))) ** 2 - 2 * noise**2
    # A slow walk hides in the noise of its increments; its extent still shows.
    variance = max(steps, 6 * excess / frames)
    roughness: Float = 2 * np.eye(frames) - np.eye(frames, k=1) - np.eye(frames, k=-1)
    roughness[0, 0] = roughness[-1, -1] = 1
    matrix: Float = np.eye(frames) - projection + (noise**2 / variance) * roughness + 1e-9 * np.eye(frames)
    return np.asarray(np.linalg.solve(matrix, middle), np.float64)


def _projections(moments: Moments, weights: Float) -> Float:
    """``T^T N^-1 T`` of every shift bin: a pixel's least squares fit on the rows of the design, (bins, size, size)."""
    bins, k, _ = weights.shape
    own = np.zeros((bins, BACKGROUND + k, moments.size))
    own[:, :BACKGROUND, :BACKGROUND] = np.eye(BACKGROUND)
    own[:, BACKGROUND:, BACKGROUND:] = weights
    normal = own @ moments.gram @ own.transpose(0, 2, 1)
    result: Float = own.transpose(0, 2, 1) @ np.linalg.pinv(normal, rcond=1e-13, hermitian=True) @ own
    return result
