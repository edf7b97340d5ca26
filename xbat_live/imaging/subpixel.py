"""The maximum of a weighted cross-correlation to a fraction of a pixel, with its covariance, without ever computing the surface."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy import fft

from xbat_live.imaging.band import Band
from xbat_live.imaging.spectrum import N_RADIAL, Complex2D, CropWindow, Float, Float2D, PolarPower

MOST_STEPS = 6
SETTLED_PX = 0.02
"""Newton steps shorter than this, px, end the search: a peak is even to first order, the next step would be some cubes of this one."""
WEAKEST_COHERENCE = 1e-3
INFORMATION_LEFT_OUT = 0.03
"""Share of the information on the shift (Fisher's) that the highest frequencies may hold together to be left out: half of all modes at
1000 photons/px, for one hundredth more error."""


@dataclass(frozen=True)
class Peak:
    """Maximum of a correlation.

    Attributes
    ----------
    at_yx
        Its place, binned px.
    inverse
        Of the curvature (negative second derivatives) there, 2x2.
    covariance
        Of `at_yx`, binned px squared: sandwich estimate from the residual phases.
    significance
        Height in standard deviations of the surface without a match.
    """

    at_yx: Float
    inverse: Float
    covariance: Float
    significance: float


@dataclass(frozen=True)
class RadialWeight:
    """Weights per radial bin, a zero appended.

    Attributes
    ----------
    best
        Hannan-Thomson weight ``c / (1 - c) / |G|``, c the squared coherence that signal and noise of both spectra let expect.
    even
        ``c / |G|``: not led by a few strong modes, to tell a match from a chance.
    last
        Highest radial bin that counts, -1 when there is none; see `INFORMATION_LEFT_OUT`.
    """

    best: Float
    even: Float
    last: int


def radial_weight(window: CropWindow, frame: PolarPower, reference: PolarPower) -> RadialWeight:
    """Return the weights for the cross-spectrum of two frames."""
    best, even, gained = [0.0] * (N_RADIAL + 1), [0.0] * (N_RADIAL + 1), [0.0] * N_RADIAL
    total = 0.0
    for i, (p, floor, p_reference, reference_floor) in enumerate(
        zip(frame.radial, frame.radial_floor, reference.radial, reference.radial_floor, strict=True)
    ):
        product = max(p * p_reference, 1e-30)
        signal = max(p - floor, 0.0) * max(p_reference - reference_floor, 0.0)
        coherence = min(signal / product, window.most_coherence[i])
        if coherence >= WEAKEST_COHERENCE:
            even[i] = coherence / math.sqrt(product)
            best[i] = even[i] / (1 - coherence)
            total += coherence / (1 - coherence) * window.radial_leverage[i]
        gained[i] = total
    last = bisect_left(gained, (1 - INFORMATION_LEFT_OUT) * total) if total > 0 else -1
    return RadialWeight(np.array(best), np.array(even), last)


def weight_map(band: Band, radial: Float) -> Float2D:
    """Return the weight of every mode of a block."""
    result: Float2D = np.take(
        radial.astype(np.float32), band.radial_index, mode="clip"
    )  # no check of bounds: a third faster
    return result


def highest_pixel(window: CropWindow, band: Band, weighted: Complex2D, reach_px: int) -> Float:
    """Return the highest whole pixel of the correlation surface within `reach_px` of zero."""
    half = band.scatter(weighted, window)
    surface = fft.irfft2(half, window.shape, workers=window.workers, overwrite_x=True)
    reach = [min(reach_px, n // 4) for n in window.shape]
    rows, columns = (np.arange(-r, r + 1) for r in reach)
    near = surface[np.ix_(rows, columns)]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return np.array([float(rows[row]), float(columns[column])])


def climb(band: Band, weighted: Complex2D, start_yx: Float) -> tuple[Float, Float, float] | None:
    """Newton's method on the weighted correlation from `start_yx`: place, curvature and height of the maximum; None when there is none."""
    at_y, at_x = float(start_yx[0]), float(start_yx[1])
    turn = 2 * np.pi
    for _ in range(MOST_STEPS):
        moments = band.moments(weighted, (at_y, at_x)).tolist()
        up, across = -turn * moments[1][0].imag, -turn * moments[0][1].imag
        yy, xx, yx = turn**2 * moments[2][0].real, turn**2 * moments[0][2].real, turn**2 * moments[1][1].real
        determinant = yy * xx - yx**2
        if determinant <= 0 or yy <= 0:
            return None
        step_y, step_x = (xx * up - yx * across) / determinant, (yy * across - yx * up) / determinant
        length = max(abs(step_y), abs(step_x))
        brake = min(1.0, 1.0 / max(length, 1e-12))
        at_y, at_x = at_y + brake * step_y, at_x + brake * step_x
        if length < SETTLED_PX:
            break
    return np.array([at_y, at_x]), np.array([[yy, yx], [yx, xx]]), moments[0][0].real


def measure_peak(band: Band, weighted: Complex2D, start_yx: Float, shared: float, floor_px: float) -> Peak | None:
    """Return the maximum near `start_yx`, or None.

    Parameters
    ----------
    band
        The modes.
    weighted
        Weighted cross-spectrum in the block.
    start_yx
        Where to start, binned px.
    shared
        Neighbouring modes that share one independent value, see `mode_correlation`.
    floor_px
        Added in quadrature to the standard uncertainty: what the residual phases cannot show, binned px.
    """
    found = climb(band, weighted, start_yx)
    if found is None:
        return None
    at, curvature, height = found
    moments, in_phase = band.scatter_of_phases(weighted, at)
    (none, _, xx), (_, yx, _), (yy, _, _) = moments.tolist()
    inverse = inverse_2x2(curvature)
    covariance = inverse @ np.array([[yy, yx], [yx, xx]]) @ inverse
    covariance *= (2 * np.pi) ** 2 * shared
    covariance[0, 0] += floor_px**2
    covariance[1, 1] += floor_px**2
    spread = math.sqrt(shared * (in_phase + none) / 2)
    return Peak(at, inverse, covariance, height / max(spread, 1e-30))


def significance_at(band: Band, weighted: Complex2D, at_yx: Float, shared: float) -> float:
    """Return the height of the correlation at `at_yx` in standard deviations of the surface without a match."""
    moments, in_phase = band.scatter_of_phases(weighted, at_yx)
    total = in_phase + float(moments[0, 0])
    return float(band.moments(weighted, at_yx)[0, 0].real) / max(float(np.sqrt(shared * total / 2)), 1e-30)


def inverse_2x2(matrix: Float) -> Float:
    """Return the inverse, which must exist; a tenth of the time of `numpy.linalg.inv`."""
    (a, b), (c, d) = matrix.tolist()
    determinant = a * d - b * c
    return np.array([[d / determinant, -b / determinant], [-c / determinant, a / determinant]])
