"""Drift against jitter: a local linear trend Kalman filter per axis."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

MOST_REMEMBERED = 256
"""Frames that `DriftModel` keeps for the smoother."""


@dataclass(frozen=True)
class Motion:
    """Slow and fast part of the motion at one time, (y, x) order.

    Attributes
    ----------
    drift_yx_um, sigma_drift_yx_um
        Slow displacement since the first frame and its standard uncertainty, um.
    jitter_yx_um
        What the measured shift differs from the drift by: repositioning error, um. The drift has already followed this frame by a part
        of its jitter, so that these values scatter less than the jitter does (by 12 to 32 % over the 56 points of Sun et al.). For the
        jitter to about 5 % take `DriftModel.separation`.
    rate_um_per_min
        Drift rate (y, x), um/min.
    outlier_yx
        True per axis where the shift was too far from the prediction to be used fully.
    """

    drift_yx_um: tuple[float, float]
    jitter_yx_um: tuple[float, float]
    rate_um_per_min: tuple[float, float]
    sigma_drift_yx_um: tuple[float, float]
    outlier_yx: tuple[bool, bool]


class DriftModel:
    """Splits registered shifts into drift (slow) and jitter (drawn anew at every repositioning).

    State per axis: displacement and rate; the rate walks by `rate_walk_um_per_min` per sqrt(min) (Harvey's local linear trend). The
    variance of the jitter is learnt from the innovations, so neither vertical drift nor horizontal jitter has to be told apart beforehand.

    Parameters
    ----------
    jitter_um
        First guess of the jitter's standard deviation, um.
    rate_um_per_min
        Prior standard deviation of the drift rate, um/min.
    rate_walk_um_per_min
        Standard deviation by which the rate changes in one minute, um/min.
    """

    def __init__(
        self, jitter_um: float = 0.2, rate_um_per_min: float = 0.02, rate_walk_um_per_min: float = 2e-4
    ) -> None:
        if not (jitter_um > 0 and rate_um_per_min > 0 and rate_walk_um_per_min > 0):
            raise ValueError(
                f"DriftModel: jitter {jitter_um} um, rate {rate_um_per_min} um/min "
                f"and walk {rate_walk_um_per_min} um/min must all be above 0"
            )
        self._rate_walk = rate_walk_um_per_min
        self._rate_prior = rate_um_per_min
        self._state: Float = np.zeros((2, 2))  # axis, (displacement, rate)
        self._covariance: Float = np.zeros((2, 2, 2))
        # scaled inverse chi-square for the jitter variance: weight of three observations for the first guess
        self._jitter_weight = np.full(2, 3.0)
        self._jitter_sum = np.full(2, 3.0 * jitter_um**2)
        self._last_s: float | None = None
        self._past: deque[tuple[float, float, float, float, float]] = deque(maxlen=MOST_REMEMBERED)

    @property
    def jitter_sigma_yx_um(self) -> tuple[float, float]:
        """Learnt standard deviation of the jitter, um."""
        y_um, x_um = np.sqrt(self._jitter_sum / self._jitter_weight)
        return float(y_um), float(x_um)

    def separation(self) -> DriftSeparation:
        """Return drift and jitter of the frames so far (the last `MOST_REMEMBERED`) by the smoother, which knows what came after each.

        Takes some tenths of a second: for the end of a run, or now and then.

        Raises
        ------
        ValueError
            Fewer than four frames, or all at one time.
        """
        past = np.array(self._past).reshape(-1, 5)
        return separate_drift(past[:, 0], past[:, 1:3], past[:, 3:5])

    def update(self, t_s: float, shift: ArrayLike, sigma: ArrayLike = (0.0, 0.0)) -> Motion:
        """Take in one measured displacement.

        Parameters
        ----------
        t_s
            Time of the exposure, s; must not run backwards.
        shift, sigma
            Displacement (y, x) since the first frame and its standard uncertainty, um.

        Raises
        ------
        ValueError
            Values that are not finite, negative sigma, or time running backwards.
        """
        shift, sigma = np.asarray(shift, float), np.asarray(sigma, float)
        if (
            shift.shape != (2,)
            or sigma.shape != (2,)
            or not (np.isfinite(shift).all() and np.isfinite(sigma).all() and np.isfinite(t_s))
        ):
            raise ValueError(
                f"DriftModel: shift {shift} um, sigma {sigma} um and time {t_s} s must be finite, two values each for (y, x)"
            )
        if (sigma < 0).any():
            raise ValueError(f"DriftModel: sigma {sigma} um is negative")
        jitter_variance = self._jitter_sum / self._jitter_weight
        if self._last_s is not None and t_s < self._last_s:
            raise ValueError(
                f"DriftModel: time runs backwards by {self._last_s - t_s:.3g} s; hand frames over in the order they were taken"
            )
        self._past.append((t_s, float(shift[0]), float(shift[1]), float(sigma[0]), float(sigma[1])))
        if self._last_s is None:
            self._last_s = t_s
            self._state[:, 0] = shift
            self._covariance[:, 0, 0] = sigma**2 + jitter_variance
            self._covariance[:, 1, 1] = self._rate_prior**2
            return self._motion(shift, (False, False))
        minutes = (t_s - self._last_s) / 60
        self._last_s = t_s
        advance = np.array([[1.0, minutes], [0.0, 1.0]])
        walk = self._rate_walk**2 * np.array([[minutes**3 / 3, minutes**2 / 2], [minutes**2 / 2, minutes]])
        outlier = [False, False]
        for axis in range(2):
            state = advance @ self._state[axis]
            covariance = advance @ self._covariance[axis] @ advance.T + walk
            innovation = shift[axis] - state[0]
            noise = sigma[axis] ** 2 + jitter_variance[axis]
            expected = covariance[0, 0] + noise
            # Huber: beyond 3 standard deviations an observation pulls no harder than one at 3
            excess = abs(innovation) / np.sqrt(expected)
            outlier[axis] = bool(excess > 3.0)
            noise *= max(1.0, excess / 3.0) ** 2
            gain = covariance[:, 0] / (covariance[0, 0] + noise)
            self._state[axis] = state + gain * innovation
            self._covariance[axis] = covariance - np.outer(gain, covariance[0])
            excess_variance = min(innovation**2, 9 * expected) - covariance[0, 0] - sigma[axis] ** 2
            # forget slowly (about 50 frames) so that a quieter or rougher stage is learnt again
            self._jitter_weight[axis] = self._jitter_weight[axis] * 0.98 + 1
            self._jitter_sum[axis] = self._jitter_sum[axis] * 0.98 + max(
                excess_variance, 0.05 * jitter_variance[axis], 1e-8
            )
        return self._motion(shift, (outlier[0], outlier[1]))

    def _motion(self, shift: Float, outlier: tuple[bool, bool]) -> Motion:
        drift, rate = self._state[:, 0], self._state[:, 1]
        jitter = shift - drift
        sigma = np.sqrt(np.maximum(self._covariance[:, 0, 0], 0))
        return Motion(
            (float(drift[0]), float(drift[1])),
            (float(jitter[0]), float(jitter[1])),
            (float(rate[0]), float(rate[1])),
            (float(sigma[0]), float(sigma[1])),
            outlier,
        )


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
    if minutes.ndim != 1 or len(minutes) < 4 or shift.shape != (len(minutes), 2) or sigma.shape != shift.shape:
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


def _best_smoothing(steps: Float, shift: Float, variance: Float) -> tuple[Float, Float, float, float]:
    spread = max(float(np.std(shift)), 1e-6)
    scale = spread / float(steps.sum())
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
    """Return log likelihood, smoothed states (n, 2) and variances of the displacement (n,)."""
    n = len(shift)
    ahead, ahead_covariance = np.zeros((n, 2)), np.zeros((n, 2, 2))
    state, covariance = np.zeros((n, 2)), np.zeros((n, 2, 2))
    likelihood = 0.0
    for i in range(n):
        if i == 0:
            ahead[0] = (shift[0], 0.0)
            ahead_covariance[0] = np.diag([(10 * spread) ** 2, (10 * scale) ** 2])
        else:
            dt = steps[i - 1]
            advance = np.array([[1.0, dt], [0.0, 1.0]])
            ahead[i] = advance @ state[i - 1]
            disturbance = walk**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
            ahead_covariance[i] = advance @ covariance[i - 1] @ advance.T + disturbance
        innovation, expected = shift[i] - ahead[i, 0], ahead_covariance[i, 0, 0] + noise[i]
        gain = ahead_covariance[i, :, 0] / expected
        state[i] = ahead[i] + gain * innovation
        covariance[i] = ahead_covariance[i] - np.outer(gain, ahead_covariance[i, 0])
        likelihood -= 0.5 * (np.log(expected) + innovation**2 / expected)
    for i in range(n - 2, -1, -1):
        advance = np.array([[1.0, steps[i]], [0.0, 1.0]])
        (a, b), (_, d) = ahead_covariance[i + 1]
        inverse = np.array([[d, -b], [-b, a]]) / max(a * d - b * b, 1e-300)
        back = covariance[i] @ advance.T @ inverse
        state[i] = state[i] + back @ (state[i + 1] - ahead[i + 1])
        covariance[i] = covariance[i] + back @ (covariance[i + 1] - ahead_covariance[i + 1]) @ back.T
    return float(likelihood), state, covariance[:, 0, 0]
