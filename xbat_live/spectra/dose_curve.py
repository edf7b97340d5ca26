"""What pixels of like dose have in common: fractions, or any other map, against dose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import Float

BINS = 48
LEAST_PIXELS = 12
_CLIP_SIGMA = 4.0
_MAD = 1.4826
_MEDIAN_EFFICIENCY = np.pi / 2
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class DoseCurve:
    """Averages of pixels of like dose.

    Attributes
    ----------
    dose_gy
        Mean dose of the pixels of each interval, ascending, (m,), Gy.
    fraction
        Their mean (or median), (m,), or (k, m) for k maps.
    sigma
        Its standard uncertainty, from the spread of the pixels, of the shape of `fraction`.
    count
        Pixels that count, of the shape of `fraction`.
    edges_gy
        Lower and upper limit of each interval, (m, 2), Gy.
    left_out
        Pixels that do not count: NaN, without dose, far from their like, or in an interval with few of them.
    """

    dose_gy: Float
    fraction: Float
    sigma: Float
    count: np.ndarray
    edges_gy: Float
    left_out: int


def fraction_against_dose(
    fractions: ArrayLike,
    dose_gy: ArrayLike,
    *,
    bins: int | ArrayLike = BINS,
    scale: Literal["linear", "log"] = "linear",
    statistic: Literal["mean", "median"] = "mean",
    mask: ArrayLike | None = None,
    least_pixels: int = LEAST_PIXELS,
) -> DoseCurve:
    """Return averages of maps over intervals of dose.

    Parameters
    ----------
    fractions
        One map, of the shape of `dose_gy`, or k of them, (k, ...).
    dose_gy
        Dose of every pixel, Gy, (ny, nx) or any other shape.
    bins
        Number of intervals of equal width between the lowest and the highest dose, or their limits, Gy, ascending.
    scale
        Equal widths in dose, or in its logarithm (pixels without dose are left out).
    statistic
        Mean of the pixels within 4 sigma (robust) of their median, or the median itself.
    mask
        True for the pixels to use, shape of `dose_gy`; None: all.
    least_pixels
        Intervals with fewer pixels are left out.

    Raises
    ------
    ValueError
        Shapes that do not fit, limits that do not ascend, unknown scale or statistic, negative dose.
    """
    dose = np.asarray(dose_gy, np.float64)
    maps = np.asarray(fractions, np.float64)
    if maps.shape[maps.ndim - dose.ndim :] != dose.shape or maps.ndim - dose.ndim not in (0, 1):
        raise ValueError(
            f"fractions of shape {maps.shape} for doses of shape {dose.shape}: (ny, nx) or (k, ny, nx) expected"
        )
    if statistic not in ("mean", "median") or scale not in ("linear", "log"):
        raise ValueError(
            f"statistic {statistic!r}, scale {scale!r}: 'mean' or 'median', 'linear' or 'log' are expected"
        )
    flat, values = dose.ravel(), maps.reshape(-1, dose.size)
    good = np.isfinite(flat) & np.isfinite(values).all(0)
    if mask is not None:
        chosen = np.asarray(mask, bool)
        if chosen.shape != dose.shape:
            raise ValueError(f"mask of shape {chosen.shape} for doses of shape {dose.shape}")
        good &= chosen.ravel()
    if (flat[good] < 0).any():
        raise ValueError(f"{int((flat[good] < 0).sum())} pixels of negative dose: dose_gy is in Gy, from 0 on")
    if scale == "log":
        good &= np.where(np.isfinite(flat), flat, 0) > 0
    flat, values = flat[good], values[:, good]
    limits = _limits(flat, bins, scale)
    which = np.searchsorted(limits, flat, side="right") - 1
    which[flat == limits[-1]] = len(limits) - 2
    inside = (which >= 0) & (which < len(limits) - 1)
    flat, values, which = flat[inside], values[:, inside], which[inside]
    order = np.argsort(which, kind="stable")
    flat, values, which = flat[order], values[:, order], which[order]
    starts = np.searchsorted(which, np.arange(len(limits)))
    kept = np.flatnonzero(np.diff(starts) >= max(least_pixels, 1))
    k = len(values)
    middle, sigma, count = np.empty((k, kept.size)), np.empty((k, kept.size)), np.empty((k, kept.size), np.int64)
    centre = np.empty(kept.size)
    for place, number in enumerate(kept):
        part = slice(starts[number], starts[number + 1])
        centre[place] = flat[part].mean()
        for row in range(k):
            middle[row, place], sigma[row, place], count[row, place] = _average(values[row, part], statistic)
    left_out = int(dose.size - (count.min(0).sum() if kept.size else 0))
    edges = np.stack([limits[kept], limits[kept + 1]], axis=1)
    if maps.ndim == dose.ndim:
        middle, sigma, count = middle[0], sigma[0], count[0]
    return DoseCurve(centre, middle, sigma, count, edges, left_out)


def _limits(dose: Float, bins: int | ArrayLike, scale: str) -> Float:
    if np.ndim(bins) > 0:
        limits = np.asarray(bins, np.float64)
        if limits.ndim != 1 or limits.size < 2 or not (np.diff(limits) > 0).all():
            raise ValueError("bins: limits in ascending order are needed, Gy")
        return limits
    number = int(np.asarray(bins))
    if number < 1:
        raise ValueError(f"bins {number}: at least one interval is needed")
    if dose.size == 0:
        return np.linspace(0.0, 1.0, number + 1)
    low, high = float(dose.min()), float(dose.max())
    high = high if high > low else np.nextafter(low, np.inf) * (1 + 1e-9) + 1e-300
    if scale == "log":
        limits = np.geomspace(low, high, number + 1)
        limits[[0, -1]] = low, high
        return limits
    return np.linspace(low, high, number + 1)


def _average(values: Float, statistic: str) -> tuple[float, float, int]:
    """Return mean or median, its standard uncertainty, and how many values count."""
    middle = float(np.median(values))
    spread = _MAD * float(np.median(np.abs(values - middle)))
    if statistic == "median":
        return middle, float(np.sqrt(_MEDIAN_EFFICIENCY / values.size)) * spread, values.size
    for _ in range(_ROUNDS):
        near = values[np.abs(values - middle) <= _CLIP_SIGMA * spread + 1e-15]
        if near.size < max(values.size // 2, 2):
            break
        middle, spread = float(near.mean()), float(near.std(ddof=1))
    near = values[np.abs(values - middle) <= _CLIP_SIGMA * spread + 1e-15]
    return middle, spread / np.sqrt(max(near.size, 1)), int(near.size)
