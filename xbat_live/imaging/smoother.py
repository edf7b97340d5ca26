"""Drift and jitter of a series of shifts by a smoother, which knows what came after each frame."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class DriftSeparation:
    """Drift and jitter of a finished series, (y, x) in the second axis.

    Attributes
    ----------
    drift_yx_um, sigma_drift_yx_um
        Slow displacement and its standard uncertainty, shape (n, 2), um.
    jitter_yx_um
        Shift minus drift, shape (n, 2), um.
    rate_um_per_min_yx
        Drift rate, shape (n, 2), um/min.
    jitter_sigma_yx_um
        Estimated standard deviation of the jitter, um, corrected for what the drift took up of it.
    rate_walk_um_per_min_yx
        How much the rate was found to change in one minute (standard deviation), um/min.
    """

    drift_yx_um: Float
    sigma_drift_yx_um: Float
    jitter_yx_um: Float
    rate_um_per_min_yx: Float
    jitter_sigma_yx_um: tuple[float, float]
    rate_walk_um_per_min_yx: tuple[float, float]


WALKS = 10.0 ** np.arange(-6.5, -0.9, 0.5)
"""Candidates for how much the rate changes in one minute, in units of the spread of the shifts per minute of the series."""
JITTER_ROUNDS = 12
LEAST_FRAMES = 4
PREFER_SMOOTH = 2.0
"""Log likelihood given up for a smoother drift: about what two standard deviations of chance can gain."""


def separate_drift(t_s: ArrayLike, shift_yx_um: ArrayLike, sigma_yx_um: ArrayLike | None = None) -> DriftSeparation:
    """Split a finished series of shifts with a smoother, which, unlike `DriftModel`, knows what came after.

    The model is that of `DriftModel`; the variance of the jitter is found by expectation maximisation and the restlessness of the
    drift rate by maximum likelihood, for each axis (Rauch, Tung and Striebel 1965; Shumway and Stoffer 1982).

    Parameters
    ----------
    t_s
        Times of the exposures, shape (n,), s, ascending; n of at least 4.
    shift_yx_um, sigma_yx_um
        Displacement since the first frame and its standard uncertainty, shape (n, 2), um; None: negligible.

    Raises
    ------
    ValueError
        Wrong shapes, fewer than four frames, values that are not finite or times that run backwards.
    """
    minutes = np.asarray(t_s, float) / 60
    shift = np.asarray(shift_yx_um, float)
    sigma = np.zeros_like(shift) if sigma_yx_um is None else np.asarray(sigma_yx_um, float)
    if (
        minutes.ndim != 1
        or len(minutes) < LEAST_FRAMES
        or shift.shape != (len(minutes), 2)
        or sigma.shape != shift.shape
    ):
        raise ValueError(
            f"separate_drift: times {minutes.shape}, shifts {shift.shape} and sigma {sigma.shape} must be (n,), (n, 2), (n, 2), n >= 4"
        )
    if not (np.isfinite(minutes).all() and np.isfinite(shift).all() and np.isfinite(sigma).all()):
        raise ValueError(
            "separate_drift: times, shifts and sigma must be finite; leave out frames that were not located"
        )
    steps = np.diff(minutes)
    if (steps < 0).any() or not minutes[-1] > minutes[0]:
        raise ValueError("separate_drift: times must ascend, s")
    axes = [_best_smoothing(steps, shift[:, axis], sigma[:, axis] ** 2) for axis in range(2)]
    states = np.stack([axis[0] for axis in axes], 1)
    variances = np.stack([axis[1] for axis in axes], 1)
    return DriftSeparation(
        drift_yx_um=states[:, :, 0],
        sigma_drift_yx_um=np.sqrt(np.maximum(variances, 0)),
        jitter_yx_um=shift - states[:, :, 0],
        rate_um_per_min_yx=states[:, :, 1],
        jitter_sigma_yx_um=(axes[0][2], axes[1][2]),
        rate_walk_um_per_min_yx=(axes[0][3], axes[1][3]),
    )


class JitterEstimate:
    """Standard deviation of the jitter of the last frames, kept up to date: one pass of the smoother per frame, all of them now and then.

    Parameters
    ----------
    first_guess_um
        Returned until four frames at different times are known.
    frames
        How many frames back.
    """

    def __init__(self, first_guess_um: float, frames: int = 64) -> None:
        self.frames = frames
        self.rms_yx_um: tuple[float, float] = (first_guess_um, first_guess_um)
        self._past: deque[tuple[float, Float, Float]] = deque(maxlen=frames)
        self._walks = [0.0, 0.0]
        self._until_search = 0

    def add(self, minutes: float, shift_yx_um: Float, sigma_yx_um: Float) -> None:
        """Take in a frame: time in min, displacement and its standard uncertainty in um, shape (2,)."""
        self._past.append((minutes, shift_yx_um, sigma_yx_um))
        if len(self._past) < LEAST_FRAMES or not self._past[-1][0] > self._past[0][0]:
            return
        steps = np.diff([item[0] for item in self._past])
        shift, variance = (np.array([item[k] for item in self._past]) for k in (1, 2))
        variance = variance**2
        search, self._until_search = self._until_search == 0, self._until_search - 1
        rms = list(self.rms_yx_um)
        for axis in range(2):
            if search:
                _, _, rms[axis], self._walks[axis] = _best_smoothing(steps, shift[:, axis], variance[:, axis])
            else:
                spread, scale = _size(steps, shift[:, axis])
                rms[axis] = _one_round(
                    steps, shift[:, axis], variance[:, axis], rms[axis], self._walks[axis], spread, scale
                )
        if search:
            self._until_search = len(self._past)
        self.rms_yx_um = (rms[0], rms[1])


def _size(steps: Float, shift: Float) -> tuple[float, float]:
    """Return the spread of the shifts and that over the time of the series."""
    spread = max(float(np.std(shift)), 1e-6)
    return spread, spread / float(steps.sum())


def _one_round(  # noqa: PLR0917
    steps: Float, shift: Float, variance: Float, rms: float, walk: float, spread: float, scale: float
) -> float:
    """Return the standard deviation of the jitter after one round of expectation maximisation."""
    _, state, smoothed = _smooth(steps, shift, variance + rms**2, walk, spread, scale)
    return float(np.sqrt(max(float(np.mean((shift - state[:, 0]) ** 2 + smoothed - variance)), 1e-6 * spread**2)))


def _best_smoothing(steps: Float, shift: Float, variance: Float) -> tuple[Float, Float, float, float]:
    """Return smoothed states and variances, the standard deviation of the jitter and the walk of the rate that fit best."""
    spread, scale = _size(steps, shift)
    line = np.polyfit(np.r_[0.0, np.cumsum(steps)], shift, 1)
    residual = shift - np.polyval(line, np.r_[0.0, np.cumsum(steps)])
    first_guess = max(float(np.var(residual)), 1e-12 * spread**2, 1e-14)
    tried: list[tuple[float, Float, Float, float, float]] = []
    for walk in WALKS * scale * 100:
        jitter = first_guess
        for _ in range(JITTER_ROUNDS):
            likelihood, state, smoothed = _smooth(steps, shift, variance + jitter, walk, spread, scale)
            expected = float(np.mean((shift - state[:, 0]) ** 2 + smoothed - variance))
            new = max(expected, 1e-6 * first_guess)
            settled = abs(new - jitter) < 1e-3 * jitter
            jitter = new
            if settled:
                break
        tried.append((likelihood, state, smoothed, float(np.sqrt(jitter)), float(walk)))
    enough = max(item[0] for item in tried) - PREFER_SMOOTH
    return next(item[1:] for item in tried if item[0] >= enough)


def _smooth(  # noqa: PLR0917
    steps: Float, shift: Float, noise: Float, walk: float, spread: float, scale: float
) -> tuple[float, Float, Float]:
    """Return log likelihood, smoothed states (n, 2) and variances of the displacement (n,).

    Written out for two states and plain floats: twenty times faster than with small arrays.
    """
    n, dts, seen, noises = len(shift), [0.0, *steps.tolist()], shift.tolist(), noise.tolist()
    x, v, xx, xv, vv = seen[0], 0.0, (10 * spread) ** 2, 0.0, (10 * scale) ** 2
    likelihood = 0.0
    ahead, after = [], []
    for i in range(n):
        dt = dts[i]
        if i:
            x, xx = x + dt * v, xx + dt * (2 * xv + dt * vv) + walk**2 * dt**3 / 3
            xv, vv = xv + dt * vv + walk**2 * dt**2 / 2, vv + walk**2 * dt
        ahead.append((x, v, xx, xv, vv))
        innovation, expected = seen[i] - x, xx + noises[i]
        gain_x, gain_v = xx / expected, xv / expected
        x, v = x + gain_x * innovation, v + gain_v * innovation
        vv, xv, xx = vv - gain_v * xv, xv - gain_v * xx, xx - gain_x * xx
        after.append((x, v, xx, xv, vv))
        likelihood -= 0.5 * (math.log(expected) + innovation**2 / expected)
    states, variances = [(x, v)] * n, [xx] * n
    for i in range(n - 2, -1, -1):
        dt = dts[i + 1]
        at_x, at_v, c_xx, c_xv, c_vv = after[i]
        to_x, to_v, p_xx, p_xv, p_vv = ahead[i + 1]
        determinant = max(p_xx * p_vv - p_xv**2, 1e-300)
        cross_xx, cross_vx = c_xx + dt * c_xv, c_xv + dt * c_vv
        g_xx, g_xv = (cross_xx * p_vv - c_xv * p_xv) / determinant, (c_xv * p_xx - cross_xx * p_xv) / determinant
        g_vx, g_vv = (cross_vx * p_vv - c_vv * p_xv) / determinant, (c_vv * p_xx - cross_vx * p_xv) / determinant
        d_x, d_v, d_xx, d_xv, d_vv = x - to_x, v - to_v, xx - p_xx, xv - p_xv, vv - p_vv
        x, v = at_x + g_xx * d_x + g_xv * d_v, at_v + g_vx * d_x + g_vv * d_v
        h_xx, h_xv, h_vx, h_vv = (
            g_xx * d_xx + g_xv * d_xv,
            g_xx * d_xv + g_xv * d_vv,
            g_vx * d_xx + g_vv * d_xv,
            g_vx * d_xv + g_vv * d_vv,
        )
        xx, xv, vv = (
            c_xx + h_xx * g_xx + h_xv * g_xv,
            c_xv + h_xx * g_vx + h_xv * g_vv,
            c_vv + h_vx * g_vx + h_vv * g_vv,
        )
        states[i], variances[i] = (x, v), xx
    return likelihood, np.array(states), np.array(variances)
