"""Edge energy against local dose, and the dose from which on the beam delays the reaction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

BINS = 48
_LEAST_PIXELS = 12
_LEAST_POINTS = 8
_SURE = 30.0  # of chi2: what a knee has to be better than no knee by
_SATURATION = (0.1, 0.2, 0.4, 0.8, 1.6, 5.0, 50.0)  # of the largest dose
_INTERVAL_CHI2 = 3.84  # 95 %, one parameter


@dataclass(frozen=True)
class DoseCurve:
    """Means of pixels of like dose: `dose_gy`, `values` and their standard uncertainty `sigma`, each (n,)."""

    dose_gy: Float
    values: Float
    sigma: Float


@dataclass(frozen=True)
class Knee:
    """Dose above which the values fall, Gy, with its 95 % interval; NaN where none is to be seen."""

    value_gy: float = np.nan
    low_gy: float = np.nan
    high_gy: float = np.nan

    @property
    def found(self) -> bool:
        """True when there is one."""
        return bool(np.isfinite(self.value_gy))


def dose_curve(values: npt.ArrayLike, dose_gy: npt.ArrayLike, bins: int = BINS) -> DoseCurve:
    """Return the mean of `values` of pixels by their dose.

    Parameters
    ----------
    values, dose_gy
        Maps of one shape; NaN pixels are left out.
    bins
        Intervals of equal width from the smallest to the largest dose; those with few pixels are left out.
    """
    p, d = np.ravel(np.asarray(values, np.float64)), np.ravel(np.asarray(dose_gy, np.float64))
    good = np.isfinite(p) & np.isfinite(d)
    p, d = p[good], d[good]
    if p.size < _LEAST_PIXELS * _LEAST_POINTS:
        return DoseCurve(*(np.empty(0) for _ in range(3)))
    edges = np.linspace(d.min(), d.max() * (1 + 1e-9), bins + 1)
    which = np.clip(np.searchsorted(edges, d, side="right") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, dose = (np.bincount(which, values, minlength=bins) / count for values in (p, d))
        spread = np.bincount(which, (p - mean[which]) ** 2, minlength=bins) / np.maximum(count - 1, 1)
    kept = count >= _LEAST_PIXELS
    sigma = np.sqrt(np.maximum(spread, 1e-12) / np.maximum(count, 1))
    return DoseCurve(dose[kept], mean[kept], sigma[kept])


def knee(curve: DoseCurve) -> Knee:
    """Return the dose at which a curve leaves its plateau.

    Weighted least squares of ``p = p0`` up to T, ``p0 - a (1 - exp(-(D - T) / s))`` above; T and s are scanned. The interval is
    where chi2, scaled to the best fit, is less than 3.84 above its minimum. A knee counts when the fit is better than no knee by
    far and the values fall.
    """
    dose, progress = curve.dose_gy, curve.values
    if dose.size < _LEAST_POINTS:
        return Knee()
    weight = 1.0 / np.maximum(curve.sigma, 1e-6)
    scan = np.linspace(dose[1], dose[-3], 240)
    fits = [_fit(dose, progress, weight, float(t)) for t in scan]
    chi2 = np.array([fit[0] for fit in fits])
    best = int(np.argmin(chi2))
    flat = float(np.sum((weight * (progress - np.average(progress, weights=weight**2))) ** 2))
    scale = max(float(chi2[best]) / max(dose.size - 4, 1), 1.0)
    slope = fits[best][1]
    if not slope < 0 or (flat - float(chi2[best])) / scale < _SURE:
        return Knee()
    inside = scan[chi2 <= chi2[best] + _INTERVAL_CHI2 * scale]
    step = float(scan[1] - scan[0])
    return Knee(float(scan[best]), float(inside.min()) - step, float(inside.max()) + step)


def _fit(dose: Float, values: Float, weight: Float, knee_gy: float) -> tuple[float, float]:
    """Return chi2 and the slope behind the knee, of the scale of saturation that fits best."""
    above = np.maximum(dose - knee_gy, 0.0) / max(float(dose[-1]), 1e-30)
    best = np.inf, 0.0
    total = values * weight
    for scale in _SATURATION:
        behind = (1.0 - np.exp(-above / scale)) * weight
        gram = np.array([[weight @ weight, weight @ behind], [weight @ behind, behind @ behind]])
        if not np.linalg.det(gram) > 1e-12 * gram[0, 0] * max(gram[1, 1], 1e-300):
            continue
        solution = np.linalg.solve(gram, np.array([weight @ total, behind @ total]))
        residual = total - solution[0] * weight - solution[1] * behind
        chi2 = float(residual @ residual)
        if chi2 < best[0]:
            best = chi2, float(solution[1])
    return best
