"""Drift against jitter: a local linear trend Kalman filter per axis."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.smoother import DriftSeparation, JitterEstimate, separate_drift

__all__ = ["DriftModel", "DriftSeparation", "Motion", "separate_drift"]

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
        of its jitter, so that these values scatter less than the jitter does (by 12 to 32 % over the 56 points of Sun et al.): for how
        large the jitter is take `jitter_rms_yx_um`, for that of single frames `DriftModel.separation`.
    rate_um_per_min
        Drift rate (y, x), um/min.
    outlier_yx
        True per axis where the shift was too far from the prediction to be used fully.
    jitter_rms_yx_um
        Standard deviation of the jitter in the last `JitterEstimate.frames` frames by a smoother, what the drift took up of it given back,
        um; the first guess, as far as nothing is known yet. To about 5 % after the 56 points of Sun et al.
    """

    drift_yx_um: tuple[float, float]
    jitter_yx_um: tuple[float, float]
    rate_um_per_min: tuple[float, float]
    sigma_drift_yx_um: tuple[float, float]
    outlier_yx: tuple[bool, bool]
    jitter_rms_yx_um: tuple[float, float]


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

    Raises
    ------
    ValueError
        A parameter that is not above 0.
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
        self._jitter = JitterEstimate(jitter_um)
        self._past: deque[tuple[float, float, float, float, float]] = deque(maxlen=MOST_REMEMBERED)

    @property
    def jitter_sigma_yx_um(self) -> tuple[float, float]:
        """Learnt standard deviation of the jitter along (y, x), um."""
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
        self._jitter.add(t_s / 60, shift, sigma)
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
            self._jitter.rms_yx_um,
        )
