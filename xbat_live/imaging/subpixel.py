"""The maximum of a weighted cross-correlation to a fraction of a pixel, with its covariance, without ever computing the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from xbat_live.imaging.spectrum import Band, Complex2D, CropWindow, Float, Float2D, PolarPower

MOST_STEPS = 6
SETTLED_PX = 1e-3
"""Newton steps shorter than this, binned px, end the search: the next one would be its square."""
WEAKEST_COHERENCE = 1e-3


@dataclass(frozen=True)
class Peak:
    """Maximum of a correlation.

    Attributes
    ----------
    at_yx
        Its place, binned px.
    curvature
        Negative second derivatives there, 2x2.
    covariance
        Of `at_yx`, binned px squared: sandwich estimate from the residual phases.
    significance
        Height in standard deviations of the surface without a match.
    """

    at_yx: Float
    curvature: Float
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
        Highest radial bin in which any mode counts, -1 when there is none.
    """

    best: Float
    even: Float
    last: int


def radial_weight(window: CropWindow, frame: PolarPower, reference: PolarPower) -> RadialWeight:
    """Return the weights for the cross-spectrum of two frames."""
    p_frame, p_reference = window.radial_mean(frame.power), window.radial_mean(reference.power)
    floor = frame.noise if frame.floor is None else window.radial_mean(frame.floor)
    reference_floor = reference.noise if reference.floor is None else window.radial_mean(reference.floor)
    signal = np.maximum(p_frame - floor, 0) * np.maximum(p_reference - reference_floor, 0)
    product = np.maximum(p_frame * p_reference, 1e-30)
    coherence = np.clip(signal / product, 0, window.most_coherence)
    coherence[coherence < WEAKEST_COHERENCE] = 0
    even = coherence / np.sqrt(product)
    used = np.flatnonzero(even)
    last = int(used[-1]) if len(used) else -1
    return RadialWeight(np.append(even / (1 - coherence), 0.0), np.append(even, 0.0), last)


def weight_map(band: Band, radial: Float) -> Float2D:
    """Return the weight of every mode of a block."""
    result: Float2D = np.take(radial.astype(np.float32), band.radial_index)
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
    at, height, curvature = start_yx, 0.0, np.eye(2)
    for _ in range(MOST_STEPS):
        moments = band.moments(weighted, at)
        height = float(moments[0, 0].real)
        gradient = -2 * np.pi * np.array([moments[1, 0].imag, moments[0, 1].imag])
        real = moments.real
        curvature = (2 * np.pi) ** 2 * np.array([[real[2, 0], real[1, 1]], [real[1, 1], real[0, 2]]])
        determinant = curvature[0, 0] * curvature[1, 1] - curvature[0, 1] ** 2
        if determinant <= 0 or curvature[0, 0] <= 0:
            return None
        step = np.array(
            [
                curvature[1, 1] * gradient[0] - curvature[0, 1] * gradient[1],
                curvature[0, 0] * gradient[1] - curvature[0, 1] * gradient[0],
            ]
        )
        step /= determinant
        length = float(np.abs(step).max())
        at = at + step * min(1.0, 1.0 / max(length, 1e-12))
        if length < SETTLED_PX:
            break
    return at, curvature, height


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
    spread = (2 * np.pi) ** 2 * np.array([[moments[2, 0], moments[1, 1]], [moments[1, 1], moments[0, 2]]])
    inverse = np.linalg.inv(curvature)
    covariance = inverse @ spread @ inverse * shared + np.eye(2) * floor_px**2
    total = in_phase + float(moments[0, 0])
    return Peak(at, curvature, covariance, height / max(float(np.sqrt(shared * total / 2)), 1e-30))


def significance_at(band: Band, weighted: Complex2D, at_yx: Float, shared: float) -> float:
    """Return the height of the correlation at `at_yx` in standard deviations of the surface without a match."""
    moments, in_phase = band.scatter_of_phases(weighted, at_yx)
    total = in_phase + float(moments[0, 0])
    return float(band.moments(weighted, at_yx)[0, 0].real) / max(float(np.sqrt(shared * total / 2)), 1e-30)
