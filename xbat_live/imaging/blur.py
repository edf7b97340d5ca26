"""Blur from spectra: against a sharp frame of the same material, or, for the first frame, from its own anisotropy.

Source of the idea: Sun et al. 2025 (directional narrowing of the power spectrum), made quantitative as in `imaging.md`
section 5 with the noise floor in the model. Frame F and reference R are one signal of power P seen twice::

    <|R|^2> = P + n_R        <|F|^2> = a^2 H^2 P + n_F        <F R*> = r a H P        H = exp(-2 pi^2 f' S f)

S, the covariance of the blur kernel, is fitted by maximum likelihood (complex Wishart, Fisher scoring) over radial x angular bins
with P of every bin free. The verdict weighs hypotheses (sharp, line, defocus, sharper than the reference), so that at low dose an
uncertain fit is not taken for blur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from xbat_live.imaging.registration import PairShift
from xbat_live.imaging.spectrum import N_ANGULAR, CropWindow, Float, PolarPower

FLOOR_ERROR = 0.02
"""Relative uncertainty of the noise floor (white noise measured in the corner of the spectrum)."""
SIGNAL_SPREAD = 0.6
"""Spread of the logarithm of signal power over directions at one frequency, expected of particles."""
RETAKE_ODDS = -2.3
"""Log odds from which a frame counts as blurred: a missed blur costs about ten times a retaken sharp frame."""
FIRST_LIMIT = 1.1
"""The limit for a first frame over that for later ones: microscopes have an anisotropy of their own (3.5 px in the SSRL frames)."""
FIRST_RETAKE_ODDS = -2.5
"""As `RETAKE_ODDS`, for a first frame: a miss is found out when a sharp frame follows."""
KEYFRAME_SHARE = 0.75
"""A frame blurred by more than this share of the limit is not rejected, but neither becomes keyframe nor enters an averaged reference."""
SHARPER_ODDS = 4.0
"""Log odds from which one frame shows that a reference of one frame is blurred."""
MOST_ALIKE = 0.98
"""Upper limit of the correlation of two frames' signals: windows and the sample itself always differ a little."""


@dataclass(frozen=True)
class BlurResult:
    """How blurred a frame is.

    Attributes
    ----------
    score
        Natural logarithm of the odds that the frame is blurred by the limit or more, plus 2.3 (a miss costs ten times a needless
        retake); above 0 is blurred.
    extent_px, extent_um
        Full length of the line kernel with the same spread as the blur along its longest axis (sqrt(12) standard deviations),
        unbinned px and um; relative to the reference, 0 when sharp.
    sigma_extent_px
        Standard uncertainty of `extent_px` (at the limit, for a sharp frame), unbinned px.
    angle_deg
        Direction of the blur in the image, from +column towards +row, -90 < angle <= 90.
    kind
        ``sharp``, ``directional`` or ``isotropic``.
    is_blurred
        Verdict.
    reason
        One sentence for people.
    """

    score: float
    extent_px: float
    extent_um: float
    sigma_extent_px: float
    angle_deg: float
    kind: str
    is_blurred: bool
    reason: str


NOT_JUDGED = BlurResult(0.0, 0.0, 0.0, 0.0, 0.0, "sharp", False, "blur not judged")


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


def fit_pair(pair: PairShift, iterations: int = 12) -> KernelFit:
    """Fit the blur of a registered frame relative to its reference (maximum likelihood, signal power of every bin free)."""
    window = pair.window
    used = window.modes.ravel() > 0
    modes = window.modes.ravel()[used] / pair.mode_correlation
    quadratic = window.polar_quadratic.reshape(3, -1)[:, used] * np.array([1.0, 2.0, 1.0])[:, None]
    seen = np.stack([pair.frame.power.ravel()[used], pair.cross.ravel()[used], pair.reference.power.ravel()[used]])
    n_frame, n_reference = max(pair.frame.noise, 1e-30), max(pair.reference.noise, 1e-30)
    scale = n_reference
    seen, n_frame = seen / scale, n_frame / scale
    n_reference_bins = (
        np.ones_like(seen[0]) if pair.reference.floor is None else pair.reference.floor.ravel()[used] / scale
    )
    # Signal of a bin is known beforehand from all directions at its frequency: at low dose single bins are mostly noise.
    expected = np.repeat(np.maximum(window.radial_mean(pair.reference.signal()) / scale, 0.005), N_ANGULAR)[used]
    signal = expected.copy()
    # gain, s_xx, s_xy, s_yy, floor of the frame, floor of the reference, likeness
    start = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.93])
    precision = 1 / np.array([1.5, 50.0, 50.0, 50.0, FLOOR_ERROR, FLOOR_ERROR, 0.05]) ** 2
    p = start.copy()
    reduced = np.diag(precision)
    for _ in range(iterations):
        transfer = np.exp(np.clip(p[0] - 2 * np.pi**2 * (p[1:4] @ quadratic), -15, 4))
        like = float(np.clip(p[6], 0.3, MOST_ALIKE))
        floor_f, floor_r = n_frame * np.exp(p[4]), n_reference_bins * np.exp(p[5])
        a, b, d = signal * transfer**2 + floor_f, like * signal * transfer, signal + floor_r
        determinant = a * d - b * b
        ip, iq, ir = d / determinant, -b / determinant, a / determinant
        metric = (
            np.array(
                [
                    [ip**2, 2 * ip * iq, iq**2],
                    [2 * ip * iq, 2 * (ip * ir + iq**2), 2 * iq * ir],
                    [iq**2, 2 * iq * ir, ir**2],
                ]
            )
            * modes
        )
        zero = np.zeros_like(a)
        by_transfer = np.stack([2 * signal * transfer**2, b, zero])
        jacobian = np.stack(
            [
                by_transfer,
                *(-2 * np.pi**2 * q * by_transfer for q in quadratic),
                np.stack([zero + floor_f, zero, zero]),
                np.stack([zero, zero, floor_r]),
                np.stack([zero, signal * transfer, zero]),
            ]
        )
        by_signal = np.stack([signal * transfer**2, b, signal])  # per log signal
        residual = seen - np.stack([a, b, d])
        weighted = np.einsum("klb,ilb->ikb", metric, jacobian)
        score = np.einsum("ikb,kb->i", weighted, residual) - precision * (p - start)
        fisher = np.einsum("ikb,jkb->ij", weighted, jacobian) + np.diag(precision)
        weighted_signal = np.einsum("klb,lb->kb", metric, by_signal)
        own = np.einsum("kb,kb->b", weighted_signal, by_signal) + 1 / SIGNAL_SPREAD**2
        mixed = np.einsum("ikb,kb->ib", weighted, by_signal)
        own_score = np.einsum("kb,kb->b", weighted_signal, residual) - np.log(signal / expected) / SIGNAL_SPREAD**2
        reduced = fisher - (mixed / own) @ mixed.T
        step = np.linalg.solve(reduced, score - mixed @ (own_score / own))
        signal_step = (own_score - step @ mixed) / own
        brake = min(
            1.0, 4.0 / max(float(np.abs(step[1:4]).max()), 1e-9), 0.7 / max(float(np.abs(step[[0, 6]]).max()), 1e-9)
        )
        p += brake * step
        p[6] = np.clip(p[6], 0.3, MOST_ALIKE)
        signal = np.clip(signal * np.exp(np.clip(brake * signal_step, -1.5, 1.5)), 1e-4, 1e9)
        if float(np.abs(step[1:4]).max()) < 0.02 and float(np.abs(signal_step).max()) < 0.3:
            break
    covariance: Float = np.linalg.inv(reduced).astype(np.float64)[1:4, 1:4]
    return KernelFit(p[1:4].copy(), covariance)


def fit_alone(frame: PolarPower, window: CropWindow, correlation: float) -> KernelFit:
    """Fit the directional part of the blur from one spectrum.

    The radial spectrum is free and edges may prefer directions in the same way at all frequencies (angular harmonics 2 and 4): only
    anisotropy that grows as frequency squared counts as blur, and its smallest variance is zero by definition.
    """
    used = window.modes.ravel() > 0
    modes = window.modes.ravel()[used] / correlation
    data = frame.power.ravel()[used]
    unit = max(frame.noise, 1e-30)
    n_radial, n_angular = frame.power.shape
    fx2, fxy, fy2 = window.polar_quadratic.reshape(3, -1)[:, used]
    row = np.repeat(np.arange(n_radial), n_angular)[used]
    angle = np.tile(np.arange(n_angular) * np.pi / n_angular, n_radial)[used]
    harmonics = np.stack([np.cos(2 * angle), np.sin(2 * angle), np.cos(4 * angle), np.sin(4 * angle)])
    growth = np.stack([fx2 - fy2, 2 * fxy])
    radial_basis = np.equal.outer(np.arange(n_radial), row).astype(float)
    radial = np.log(np.maximum(window.radial_mean(frame.power) - unit, 1e-3 * unit))
    basis = np.vstack([radial_basis, harmonics, -4 * np.pi**2 * growth])

    def model(p: Float) -> tuple[Float, Float]:
        signal = np.exp(np.clip(p[1:] @ basis, -60, 60))
        return unit * p[0] + signal, np.vstack([np.full_like(signal, unit), basis * signal])

    def sigma(value: Float) -> Float:
        # 0.15: shapes of single particles, which do not average out over a field
        spread: Float = np.sqrt(value**2 / modes + (0.15 * np.maximum(value - unit, 0)) ** 2 + (0.01 * unit) ** 2)
        return spread

    start = np.concatenate([[1.0], radial, np.zeros(6)])
    prior = np.concatenate([[FLOOR_ERROR], np.full(n_radial, 3.0), np.full(2, 0.4), np.full(2, 0.2), np.full(2, 12.0)])
    found, covariance = _gauss_newton(model, start, data, sigma, prior, iterations=25)
    half, cross = found[-2:]
    radius = float(np.hypot(half, cross))
    # A line of variance v has (s_xx - s_yy) / 2 = v/2 cos 2a and s_xy = v/2 sin 2a: with no variance across, the mean equals the radius.
    turn = np.array([half, cross]) / max(radius, 1e-12)
    kernel = np.array([radius + half, cross, radius - half], np.float64)
    jacobian = np.array([[turn[0] + 1, turn[1]], [0, 1], [turn[0] - 1, turn[1]]])
    tight = float(np.trace(covariance[-2:, -2:])) * 0.05
    covariance_of_kernel: Float = np.asarray(
        jacobian @ covariance[-2:, -2:] @ jacobian.T + np.eye(3) * tight, np.float64
    )
    return KernelFit(kernel, covariance_of_kernel)


def _gauss_newton(  # noqa: PLR0917
    model: Callable[[Float], tuple[Float, Float]],
    start: Float,
    data: Float,
    sigma: Callable[[Float], Float],
    prior_sigma: Float,
    iterations: int,
) -> tuple[Float, Float]:
    """Weighted least squares with a Gaussian prior around `start`; returns parameters and their covariance."""
    parameters = start.copy()
    precision = 1 / prior_sigma**2
    normal = np.diag(precision)
    for _ in range(iterations):
        value, jacobian = model(parameters)
        weight = 1 / sigma(value) ** 2
        normal = (jacobian * weight) @ jacobian.T + np.diag(precision)
        step = np.linalg.solve(normal, (jacobian * weight) @ (data - value) - precision * (parameters - start))
        longest = float(np.max(np.abs(step) / prior_sigma))
        parameters = parameters + step * min(1.0, 0.5 / max(longest, 1e-12))
        if longest < 1e-3:
            break
    covariance: Float = np.linalg.inv(normal).astype(np.float64)
    return parameters, covariance


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
        self.log_prior: Float = np.concatenate(
            [np.full(n, np.log(share / n)) for share, n in zip(shares, counts, strict=True)]
        )

    def weigh(self, fit: KernelFit) -> tuple[float, float, float]:
        """Return the score of blur beyond the limit, log odds of a reference blurred beyond it, and the mean extent (signed px)."""
        largest = float(np.abs(fit.kernel).max())
        difference = self.kernels - fit.kernel[:, None]
        covariance = fit.covariance + np.diag([1.0, 0.5, 1.0]) * (0.15 + 0.08 * largest) ** 2
        log_weight = self.log_prior - 0.5 * np.einsum("ib,ib->b", difference, np.linalg.solve(covariance, difference))
        blurred, sharper = self.extents >= self.limit_px, self.extents <= -self.limit_px
        total = logsumexp(log_weight)
        odds = float(logsumexp(log_weight[blurred]) - logsumexp(log_weight[~blurred])) - self.retake_odds
        sharper_odds = float(logsumexp(log_weight[sharper]) - logsumexp(log_weight[~sharper]))
        return odds, sharper_odds, float(np.exp(log_weight - total) @ self.extents)


def judge(
    fit: KernelFit, hypotheses: BlurHypotheses, pixel_size_um: float, relative_to: str, reference_frames: int = 1
) -> tuple[BlurResult, bool]:
    """Turn a fitted kernel into a verdict, and whether the reference was itself blurred beyond the limit.

    Parameters
    ----------
    fit
        Kernel covariance.
    hypotheses
        What it may be, and the limit.
    pixel_size_um
        Unbinned pixel, um.
    relative_to
        Names the reference in the reason.
    reference_frames
        Frames averaged into the reference: the more agreed on its sharpness, the harder is it to overturn.
    """
    limit_px = hypotheses.limit_px
    largest, smallest, angle_deg, error = fit.principal()
    odds, sharper_odds, mean_px = hypotheses.weigh(fit)
    raw_px = float(np.sqrt(12 * max(largest, 0.0)))
    sigma_px = 12 * error / (2 * max(raw_px, limit_px))
    blurred = odds > 0
    sharper = sharper_odds > SHARPER_ODDS * (1 + reference_frames) / 2 and smallest < 0
    if blurred:
        extent_px = raw_px
        kind = "isotropic" if smallest > 0.4 * largest else "directional"
        where = f"along {angle_deg:.0f} deg" if kind == "directional" else "in all directions"
        reason = (
            f"blurred by {extent_px:.1f} +- {sigma_px:.1f} px {where} (limit {limit_px:.1f} px) against {relative_to}"
        )
    else:
        extent_px, kind = min(raw_px, max(mean_px, 0.0)), "sharp"
        # What could hide: three standard errors of the kernel's variance, as a line.
        hidden_px = float(np.sqrt(12 * 3 * error))
        doubt = f"; at this dose blur up to {hidden_px:.0f} px cannot be told" if hidden_px > 1.3 * limit_px else ""
        reason = (
            f"as sharp as {relative_to}{doubt}" if not sharper else f"sharper than {relative_to}, which was blurred"
        )
    result = BlurResult(odds, extent_px, extent_px * pixel_size_um, float(sigma_px), angle_deg, kind, blurred, reason)
    return result, sharper
