"""What a fitted blur kernel may be, and the odds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.imaging.spectrum import Float

RETAKE_ODDS = -2.3
"""Log odds from which a frame counts as blurred: a missed blur costs about ten times a retaken sharp frame."""


@dataclass(frozen=True)
class KernelFit:
    """Covariance of a blur kernel.

    Attributes
    ----------
    kernel
        (s_xx, s_xy, s_yy), unbinned px squared; negative variance means sharper than the reference.
    covariance
        Of `kernel`, shape (3, 3).
    """

    kernel: Float
    covariance: Float

    def principal(self) -> tuple[float, float, float, float]:
        """Return largest and smallest variance, angle in deg of the largest, and the standard error of the largest."""
        s_xx, s_xy, s_yy = self.kernel
        mean, half = (s_xx + s_yy) / 2, (s_xx - s_yy) / 2
        radius = float(np.hypot(half, s_xy))
        angle = 0.5 * float(np.arctan2(s_xy, half))
        along = np.array([np.cos(angle) ** 2, 2 * np.cos(angle) * np.sin(angle), np.sin(angle) ** 2])
        error = float(np.sqrt(max(along @ self.covariance @ along, 0.0)))
        return float(mean + radius), float(mean - radius), float(np.rad2deg(angle)), error


class BlurHypotheses:
    """What a kernel may be, with prior odds: sharp, a line of any direction, defocus, or a reference that was itself blurred.

    Parameters
    ----------
    limit_px
        Extent from which a frame counts as blurred, unbinned px.
    prior_blurred
        Share of blurred frames expected.
    retake_odds
        Log odds from which to reject.
    """

    def __init__(self, limit_px: float, prior_blurred: float = 0.15, retake_odds: float = RETAKE_ODDS) -> None:
        self.limit_px = limit_px
        self.retake_odds = retake_odds
        extents = np.arange(1.0, 20.01, 0.5)
        angles = np.deg2rad(np.arange(0, 180, 15))
        length, angle = (item.ravel() for item in np.meshgrid(extents, angles))
        line = length**2 / 12 * np.stack([np.cos(angle) ** 2, np.cos(angle) * np.sin(angle), np.sin(angle) ** 2])
        round_ = extents**2 / 12 * np.array([[1.0], [0.0], [1.0]])
        self.kernels: Float = np.concatenate([np.zeros((3, 1)), line, round_, -line], axis=1)
        self.extents: Float = np.concatenate([[0.0], length, extents, -length])
        shares = (1 - 1.3 * prior_blurred, prior_blurred, 0.2 * prior_blurred, 0.1 * prior_blurred)
        counts = (1, length.size, extents.size, length.size)
        self._groups = (
            np.flatnonzero(self.extents <= -limit_px),
            np.flatnonzero(np.abs(self.extents) < limit_px),
            np.flatnonzero(self.extents >= limit_px),
        )
        self.log_prior: Float = np.concatenate(
            [np.full(n, np.log(share / n)) for share, n in zip(shares, counts, strict=True)]
        )

    def weigh(self, fit: KernelFit) -> tuple[float, float, float]:
        """Return the score of blur beyond the limit, log odds of a reference blurred beyond it, and the mean extent (signed px)."""
        largest = float(np.abs(fit.kernel).max())
        difference = self.kernels - fit.kernel[:, None]
        covariance = fit.covariance + np.diag([1.0, 0.5, 1.0]) * (0.15 + 0.08 * largest) ** 2
        log_weight = self.log_prior - 0.5 * np.einsum("ib,ib->b", difference, np.linalg.solve(covariance, difference))
        # Ranges sharper beyond the limit, within it, blurred beyond it
        sharper, alike, blurred = (_log_sum(log_weight[group]) for group in self._groups)
        odds = blurred - float(np.logaddexp(sharper, alike)) - self.retake_odds
        sharper_odds = sharper - float(np.logaddexp(alike, blurred))
        weight = np.exp(log_weight - log_weight.max())
        return odds, sharper_odds, float(weight @ self.extents / weight.sum())


def _log_sum(values: Float) -> float:
    if not len(values):
        return -np.inf
    top = float(values.max())
    return top + float(np.log(np.exp(values - top).sum()))
