"""The foil's spectrum, sampled finer than the frames: pixels at different shifts see it at different energies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import solve_triangular
from scipy.signal import find_peaks

from xbat_live.spectra.checks import Float

KNOT_EV, KNOT_ALONE_EV = 0.6, 0.45
GROUP_EV = 0.1
LEAST_HEIGHT, LEAST_PROMINENCE = 0.1, 0.06
_DEGREE = 5
_PENALTY_ORDER = 3
_PENALTIES = 10.0 ** np.arange(-9, 3.0)
_WALK = 1e-3
_ROUNDS = 2
_FINE_EV = 0.01
_SUMMIT_EV = 0.9
_NO_FRAME_COMMON = 1e-12


@dataclass(frozen=True, eq=False)
class Template:
    """Spectrum in common: 0 before, about 1 after the edge.

    Attributes
    ----------
    spline
        Against energy, eV.
    covariance
        Of its coefficients.
    frame_offsets
        What each frame has in common in all pixels beyond it (light that walked), (n,), in units of the jump.
    """

    spline: BSpline
    covariance: Float
    frame_offsets: Float


def group_means(values: Float, shift_ev: Float) -> tuple[Float, Float, Float]:
    """Return means over pixels of alike shift: values (n, groups), shifts (groups,), pixels in each (groups,)."""
    number = np.floor((shift_ev - shift_ev.min()) / GROUP_EV).astype(np.int64)
    order = np.argsort(number, kind="stable")
    first = np.flatnonzero(np.diff(number[order], prepend=-1))
    counts = np.diff(np.append(first, number.size)).astype(np.float64)
    means = np.add.reduceat(values[:, order], first, axis=1, dtype=np.float64) / counts
    shifts = np.add.reduceat(shift_ev[order], first) / counts
    return means, shifts, counts


def fit_template(means: Float, energy_ev: Float, shifts: Float, counts: Float, noise: float) -> Template:
    """Return the smoothing spline through grouped spectra, and the offsets of the frames.

    The roughness penalty is chosen by generalised cross-validation (Craven & Wahba 1979), the size of the frame offsets by their own
    mean square.

    Parameters
    ----------
    means, shifts, counts
        See `group_means`; normalised spectra.
    energy_ev
        Nominal energies, ascending, (n,).
    noise
        Standard deviation of a sample of one pixel, in units of the jump.
    """
    n, groups = means.shape
    x = (energy_ev[:, None] + shifts).ravel()
    step = max(
        KNOT_EV if groups > 1 else KNOT_ALONE_EV,
        float(np.median(np.diff(energy_ev))) / max(1.0, np.ptp(shifts) / GROUP_EV) ** 0.5,
    )
    inner = np.linspace(x.min(), x.max(), max(int(np.ptp(x) / step), 2) + 1)
    knots = np.concatenate([[inner[0]] * _DEGREE, inner, [inner[-1]] * _DEGREE])
    design = BSpline.design_matrix(np.clip(x, inner[0], inner[-1]), knots, _DEGREE).tocsr()
    weight = np.tile(counts, n)
    weighted = design.multiply(weight[:, None]).tocsr()
    normal = (weighted.T @ design).toarray()
    # Offsets of frames show only where the same true energy is seen by several frames.
    apart = np.ptp(shifts) > 1.5 * float(np.median(np.diff(energy_ev)))
    frame = np.repeat(np.arange(n), groups)
    cross = np.zeros((normal.shape[0], n))
    np.add.at(cross.T, frame, weighted.toarray())
    data = means.ravel()
    size = len(normal)
    of_spline, of_frames = weighted.T @ data, (means * counts).sum(1)
    bend = np.diff(np.eye(size), _PENALTY_ORDER, axis=0)
    penalty = counts.sum() * (bend.T @ bend)
    square = float((weight * data**2).sum())
    walk = _WALK**2 if apart else _NO_FRAME_COMMON
    coefficients, inverse, offsets = np.zeros(size), np.zeros_like(normal), np.zeros(n)
    for _ in range(_ROUNDS if apart else 1):
        inverse_frames = 1 / (counts.sum() + noise**2 / walk)  # the offsets, eliminated
        reduced = normal - cross @ cross.T * inverse_frames + 1e-9 * counts.sum() * np.eye(size)
        right = of_spline - cross @ of_frames * inverse_frames
        coefficients, inverse = _smoothest(
            reduced, right, penalty, square - float(of_frames @ of_frames) * inverse_frames, data.size
        )
        offsets = (of_frames - cross.T @ coefficients) * inverse_frames
        walk = max(float(np.mean(offsets**2)), _NO_FRAME_COMMON)
    return Template(BSpline(knots, coefficients, _DEGREE), noise**2 * inverse, offsets)


def _smoothest(normal: Float, right: Float, penalty: Float, square: float, samples: int) -> tuple[Float, Float]:
    """Return the solution under the penalty that generalised cross-validation likes best, and its inverse matrix."""
    root = np.linalg.cholesky(normal)
    half = solve_triangular(root, np.eye(len(normal)), lower=True)
    values, vectors = np.linalg.eigh(half @ penalty @ half.T)
    back = half.T @ vectors
    along = back.T @ right
    best, amount = np.inf, 0.0
    for trial in _PENALTIES:
        share = 1 / (1 + trial * np.maximum(values, 0.0))
        left = max(square - float((along**2 * (2 * share - share**2)).sum()), 1e-30)
        score = left / max(samples - float(share.sum()), 1.0) ** 2
        if score < best:
            best, amount = score, float(trial)
    share = 1 / (1 + amount * np.maximum(values, 0.0))
    return back @ (share * along), (back * share) @ back.T


def first_inflection(template: Template, low_ev: float, high_ev: float) -> tuple[float, float]:
    """Return where the spectrum is steepest for the first time, and its standard uncertainty, eV.

    The first maximum of the derivative that is at least a tenth as high as the highest and stands out: a later one may be steeper
    (Ni metal: 8333 and 8346 eV are about alike).

    Raises
    ------
    ValueError
        There is none between `low_ev` and `high_ev`.
    """
    fine = np.arange(low_ev, high_ev, _FINE_EV)
    slope = template.spline.derivative()(fine)
    highest = float(slope.max(initial=0.0))
    unsure = np.sqrt(np.maximum(_variance(template, fine, 1), 0.0))
    peaks, found = find_peaks(slope, height=LEAST_HEIGHT * highest, prominence=LEAST_PROMINENCE * highest)
    sure = found["prominences"] > 4 * unsure[peaks] if peaks.size else np.zeros(0, bool)
    if not sure.any():
        raise ValueError(
            f"no inflection of the foil's edge found between {low_ev:g} and {high_ev:g} eV: is it a foil of this edge, and bright enough?"
        )
    place = float(fine[peaks[np.argmax(sure)]])
    third = template.spline.derivative(3)
    place = _summit(place, template)
    sigma = np.sqrt(max(float(_variance(template, np.array([place]), 2)[0]), 0.0)) / max(
        abs(float(third(place))), 1e-12
    )
    return place, sigma


def _summit(near_ev: float, template: Template) -> float:
    """Maximum of a quartic through the slope around its highest point: knots leave ripples in a spline's slope."""
    offsets = np.linspace(-_SUMMIT_EV, _SUMMIT_EV, 61)
    slope = template.spline.derivative()(near_ev + offsets)
    fit = np.polynomial.Polynomial.fit(offsets, slope, 4, domain=[-_SUMMIT_EV, _SUMMIT_EV])
    fine = np.linspace(-_SUMMIT_EV, _SUMMIT_EV, 2001)
    return near_ev + float(fine[int(np.argmax(fit(fine)))])


def _variance(template: Template, energy_ev: Float, derivative: int) -> Float:
    """Variance of a derivative of the spline."""
    spline = template.spline
    size = len(spline.c)
    basis = BSpline(spline.t, np.eye(size), spline.k).derivative(derivative)(energy_ev)
    result: Float = np.einsum("ei,ij,ej->e", basis, template.covariance, basis, optimize=True)
    return result
