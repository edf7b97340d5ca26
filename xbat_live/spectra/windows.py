"""Where a spectrum has its edge, and the straight and quadratic pieces before and after it that normalisation rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.spectra.checks import Float, Float32

GAP_BEFORE_EV = 20.0
MOST_BEFORE_EV = 200.0
GAP_AFTER_EV = 30.0
LEAST_PRE, LEAST_POST = 2, 3
_SAMPLE_PIXELS, _RUN = 512, 16
_STEP_WIDTH_EV, _LONG_RANGE_EV, _ABOVE_OTHERS = 15.0, 120.0, 12.0
_MAD = 1.4826
_FEW_ROWS = 2  # faster one by one than as a product of matrices
_SMOOTH_EV = 300.0
_CURVE = (0.3, 0.2, 0.1)
_K2_PER_EV = 0.2625
_NEIGHBOURS_ANGSTROM = (1.4, 5.0)
_EXAFS, _EXAFS_FALL, _NOISE = 0.15, 0.06, 0.004


@dataclass(frozen=True)
class Pieces:
    """Linear functionals of a spectrum that give its background and jump.

    Attributes
    ----------
    used
        Frames they rest on, (m,).
    line
        Offset at `e0_ev` and slope per eV of the pre-edge from the used frames, (2, m).
    jump
        Post-edge polynomial at `e0_ev` above the pre-edge, (1, m).
    post
        Coefficients of the post-edge polynomial above the pre-edge in powers of (E - e0), (order + 1, m).
    e0_ev
        Edge energy that the powers count from.
    pre
        Which of `used` are before the edge, (m,) bool.
    """

    used: np.ndarray
    line: Float
    jump: Float
    post: Float
    e0_ev: float
    pre: np.ndarray


def mean_spectrum(flat: Float32) -> Float:
    """Return the median over some five hundred finite pixels of a cube (n, pixels), (n,).

    Raises
    ------
    ValueError
        No pixel has a finite spectrum.
    """
    chosen = flat
    if flat.shape[1] >= 2 * _SAMPLE_PIXELS:  # runs of pixels that memory delivers together
        runs = _SAMPLE_PIXELS // _RUN
        every = flat.shape[1] // runs
        chosen = flat[:, : runs * every].reshape(len(flat), runs, every)[:, :, :_RUN].reshape(len(flat), -1)
    good = np.isfinite(chosen).all(0)
    if not good.any():
        good = np.isfinite(chosen).mean(0) > 0.5
        if not good.any():
            raise ValueError(
                f"no pixel of {flat.shape[1]} has a finite spectrum (dark, saturated or NaN); was the shutter open, is there a beam?"
            )
        return np.asarray(np.nan_to_num(np.nanmedian(chosen[:, good], axis=1)), np.float64)
    return np.asarray(np.median(chosen[:, good], axis=1), np.float64)


def edge_of(spectrum: Float, energy_ev: Float) -> float:
    """Return the half height of a spectrum over ascending energies, eV: good to about 1 eV, whatever its shape and background.

    Raises
    ------
    ValueError
        No edge: nowhere does the spectrum rise as at an edge.
    """
    first, last = float(energy_ev[0]), float(energy_ev[-1])
    width = min(_STEP_WIDTH_EV, (last - first) / 6)
    grid = np.linspace(first, last, max(int((last - first) / min(1.0, width / 5)), 12) + 1)
    values = np.interp(grid, energy_ev, spectrum)
    total = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2)])
    points = max(round(width / float(grid[1] - grid[0])), 1)
    middle = np.arange(points, len(grid) - points)
    rise = (total[middle + points] - 2 * total[middle] + total[middle - points]) / points
    highest = float(rise.max())
    noise = _MAD * float(np.median(np.abs(np.diff(spectrum, 2)))) / np.sqrt(6)
    per_width = max(len(energy_ev) * width / (last - first), 1.0)
    sure = highest > 6 * noise * np.sqrt(2 / per_width) and highest > 0.25 * float(np.ptp(spectrum))
    if last - first > _LONG_RANGE_EV:
        sure = sure and highest > _ABOVE_OTHERS * float(np.percentile(np.abs(rise), 25))
    if not sure:
        raise ValueError(
            f"no absorption edge between {first:g} and {last:g} eV: over {width:.3g} eV the mean spectrum rises by {highest:.3g} at "
            "most; do the energies (in eV) reach over the edge, and is the cube absorbance?"
        )
    centre = int(middle[np.argmax(rise)])
    before, after = max(centre - points, 0), min(centre + points, len(grid) - 1)
    low = float(np.median(values[max(before - 2 * points, 0) : before + 1]))
    high = float(np.median(values[after : after + 2 * points + 1]))
    inside = values[before : after + 1] >= (low + high) / 2
    return float(grid[before + int(np.argmax(inside))])


def default_windows(energy_ev: Float, e0_ev: float) -> tuple[tuple[float, float], tuple[float, float], int]:
    """Return pre-edge, post-edge (absolute eV) and the order of the post-edge polynomial for ascending energies.

    Raises
    ------
    ValueError
        Too few energies on one side of the edge.
    """
    first, last = float(energy_ev[0]), float(energy_ev[-1])
    before, after = e0_ev - first, last - e0_ev
    if (energy_ev < e0_ev).sum() < LEAST_PRE or (energy_ev > e0_ev).sum() < LEAST_POST:
        raise ValueError(
            f"energies {first:g} to {last:g} eV do not reach over the edge at {e0_ev:g} eV: at least {LEAST_PRE} before and "
            f"{LEAST_POST} after it are needed"
        )
    pre = (max(first, e0_ev - MOST_BEFORE_EV), e0_ev - min(GAP_BEFORE_EV, before / 2))
    post = (e0_ev + min(GAP_AFTER_EV, after / 2), last)
    if ((energy_ev >= pre[0]) & (energy_ev <= pre[1])).sum() < LEAST_PRE:
        pre = (pre[0], float(energy_ev[LEAST_PRE - 1]))
    count = int(((energy_ev >= post[0]) & (energy_ev <= post[1])).sum())
    if count < LEAST_POST:
        post = (float(energy_ev[-LEAST_POST]), last)
        count = LEAST_POST
    return pre, post, min(2, count - 1)


def pieces(
    energy_ev: Float,
    e0_ev: float,
    pre_ev: tuple[float, float],
    post_ev: tuple[float, float],
    order: int,
    *,
    oscillating: bool = False,
) -> Pieces:
    """Return the functionals for windows in absolute eV.

    With `oscillating` the post-edge polynomial is that of generalised least squares, with the EXAFS as correlated noise: a plain
    polynomial takes up several per cent of it at the edge, more or less as the window happens to end.

    Raises
    ------
    ValueError
        Too few energies in a window, windows on the wrong side of the edge, an order that is not 0 to 3.
    """
    if order not in (0, 1, 2, 3):
        raise ValueError(f"post_order {order}: 0 to 3 are possible")
    low, high = float(energy_ev.min()), float(energy_ev.max())
    if not pre_ev[1] <= e0_ev <= post_ev[0]:
        raise ValueError(
            f"edge energy {e0_ev:g} eV must lie between the pre-edge {pre_ev[0]:g} to {pre_ev[1]:g} and the post-edge "
            f"{post_ev[0]:g} to {post_ev[1]:g} eV"
        )
    in_pre = (energy_ev >= pre_ev[0]) & (energy_ev <= pre_ev[1])
    in_post = (energy_ev >= post_ev[0]) & (energy_ev <= post_ev[1])
    for name, inside, least in (("pre-edge", in_pre, LEAST_PRE), ("post-edge", in_post, order + 1)):
        if np.unique(energy_ev[inside]).size < least:
            window = pre_ev if name == "pre-edge" else post_ev
            raise ValueError(
                f"{name} {window[0]:g} to {window[1]:g} eV holds {int(inside.sum())} of the energies {low:g} to {high:g} eV: at least "
                f"{least} are needed"
            )
    used = np.flatnonzero(in_pre | in_post)
    x = energy_ev[used] - e0_ev
    pre, post = in_pre[used], in_post[used]
    scale = max(float(np.abs(x).max()), 1e-9)
    line = np.zeros((2, used.size))
    line[:, pre] = np.linalg.pinv(np.vander(x[pre] / scale, 2, increasing=True)) / np.array([[1.0], [scale]])
    fit = np.zeros((order + 1, used.size))
    if oscillating:
        fit[:, post] = _under_oscillations(x[post], order) * (scale / _SMOOTH_EV) ** np.arange(order + 1)[:, None]
    else:
        fit[:, post] = np.linalg.pinv(np.vander(x[post] / scale, order + 1, increasing=True))
    above = np.eye(used.size) - np.vander(x, 2, increasing=True) @ line
    coefficients = (fit @ above) / scale ** np.arange(order + 1)[:, None]
    return Pieces(used, line, coefficients[:1], coefficients, e0_ev, pre)


def _under_oscillations(x: Float, order: int) -> Float:
    """Polynomial in ``x / _SMOOTH_EV`` under sums of ``sin(2 k R)``, R = 1.4 to 5 angstrom, falling with k, (order + 1, points).

    Relative to a jump of 1: EXAFS of about 0.15 with neighbours as 1/R^2, noise 0.004, and a slope and a curvature as
    real jumps have them. ``k^2 = 0.2625 E`` (1/angstrom^2, eV).
    """
    k = np.sqrt(_K2_PER_EV * np.maximum(x, 0.0))
    distance = np.linspace(*_NEIGHBOURS_ANGSTROM, 60)
    phase = 2 * np.multiply.outer(k, distance)
    share = 1 / distance**2
    waves = np.concatenate([np.cos(phase), np.sin(phase)], axis=1) * np.sqrt(np.tile(share / share.sum(), 2))
    waves *= (_EXAFS * np.exp(-_EXAFS_FALL * k))[:, None]
    covariance = waves @ waves.T + _NOISE**2 * np.eye(x.size)
    powers = np.vander(x / _SMOOTH_EV, order + 1, increasing=True)
    weighted: Float = np.linalg.solve(covariance, powers)
    normal: Float = powers.T @ weighted + np.diag([0.0, *(1 / np.square(_CURVE[:order]))])
    return np.asarray(np.linalg.solve(normal, weighted.T))


def apply_rows(rows: Float, flat: Float32, used: np.ndarray) -> Float32:
    """Return ``rows @ flat[used]`` without copying more of the cube than needed, (rows, pixels) float32."""
    small = rows.astype(np.float32)
    total: Float32 = np.zeros((len(rows), flat.shape[1]), np.float32)
    breaks = np.flatnonzero(np.diff(used) != 1) + 1
    for part in np.split(np.arange(used.size), breaks):
        of_flat = flat[used[part[0]] : used[part[-1]] + 1]
        needed = np.flatnonzero(small[:, part].any(axis=1))  # what is before the edge does not need the frames after it
        if needed.size > _FEW_ROWS:
            total[needed] += small[np.ix_(needed, part)] @ of_flat
        else:
            for row in needed:
                total[row] += small[row, part] @ of_flat
    return total
