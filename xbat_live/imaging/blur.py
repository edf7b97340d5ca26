"""Blur from spectra: against a sharp frame of the same material, or, for the first frame, from its own anisotropy.

Source of the idea: Sun et al. 2025 (directional narrowing of the power spectrum), made quantitative with the noise floor in the model.
Frame F and reference R are one signal of power P seen twice::

    <|R|^2> = P + n_R        <|F|^2> = a^2 H^2 P + n_F        <F R*> = r a H P        H = exp(-2 pi^2 f' S f)

S, the covariance of the blur kernel, is fitted by maximum likelihood (complex Wishart, Fisher scoring) over radial x angular bins
with P of every bin free. The verdict weighs hypotheses (sharp, line, defocus, sharper than the reference), so that at low dose an
uncertain fit is not taken for blur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbat_live.imaging.hypotheses import BlurHypotheses, KernelFit
from xbat_live.imaging.level import PairShift
from xbat_live.imaging.spectrum import N_ANGULAR, CropWindow, Float, PolarPower

__all__ = ["NOT_JUDGED", "BlurHypotheses", "BlurResult", "KernelFit", "fit_alone", "fit_pair", "judge"]

FLOOR_ERROR = 0.02
"""Relative uncertainty of the noise floor (white noise measured in the corner of the spectrum)."""
SIGNAL_SPREAD = 0.6
"""Spread of the logarithm of signal power over directions at one frequency, expected of particles."""
STRONG = 10.0
"""Signal over noise from which the spread of a sample's own is measured."""
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
    """How blurred a frame is: by the directional narrowing of its power spectrum (Sun et al. 2025) against that of a sharp frame.

    Attributes
    ----------
    score
        Natural logarithm of the odds that the frame is blurred by the limit assumed beforehand or more, plus 2.3 (a miss costs ten times
        a needless retake). Comparable between all frames of a stream.
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
    margin
        As `score`, for the limit that holds at present (which may be learnt from the frames); above 0 is blurred.
    """

    score: float
    extent_px: float
    extent_um: float
    angle_deg: float
    kind: str
    is_blurred: bool
    reason: str
    sigma_extent_px: float = 0.0
    margin: float = 0.0


NOT_JUDGED = BlurResult(0.0, 0.0, 0.0, 0.0, "sharp", False, "blur not judged")


def fit_pair(pair: PairShift, iterations: int = 12) -> KernelFit:  # noqa: PLR0915
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
    spread = _spread_over_directions(pair)
    signal = expected.copy()
    # gain, s_xx, s_xy, s_yy, floor of the frame, floor of the reference, likeness
    start = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.93])
    precision = 1 / np.array([1.5, 50.0, 50.0, 50.0, FLOOR_ERROR, FLOOR_ERROR, 0.05]) ** 2
    p = start.copy()
    reduced = np.diag(precision)
    growth = -2 * np.pi**2 * quadratic
    metric, residual = np.zeros((3, 3, len(modes))), np.zeros((3, len(modes)))
    jacobian = np.zeros((len(p) + 1, 3, len(modes)))
    for _ in range(iterations):
        transfer = np.exp(np.clip(p[0] + p[1:4] @ growth, -15, 4))
        like = float(np.clip(p[6], 0.3, MOST_ALIKE))
        floor_f, floor_r = n_frame * np.exp(p[4]), n_reference_bins * np.exp(p[5])
        a, b, d = signal * transfer**2 + floor_f, like * signal * transfer, signal + floor_r
        determinant = a * d - b * b
        ip, iq, ir = d / determinant, -b / determinant, a / determinant
        metric[0, 0], metric[1, 1], metric[2, 2] = ip**2, 2 * (ip * ir + iq**2), ir**2
        metric[0, 1] = metric[1, 0] = 2 * ip * iq
        metric[1, 2] = metric[2, 1] = 2 * iq * ir
        metric[0, 2] = metric[2, 0] = iq**2
        metric *= modes
        # Derivatives of (a, b, d): by gain and kernel, by the two floors, by likeness, and (last row) by the log of the bin's signal.
        by_signal = jacobian[-1]
        by_signal[0], by_signal[1], by_signal[2] = signal * transfer**2, b, signal
        jacobian[0, 0], jacobian[0, 1] = 2 * by_signal[0], b
        np.multiply(growth[:, None], jacobian[0, :2], out=jacobian[1:4, :2])
        jacobian[4, 0], jacobian[5, 2], jacobian[6, 1] = floor_f, floor_r, signal * transfer
        residual[0], residual[1], residual[2] = seen[0] - a, seen[1] - b, seen[2] - d
        weighted_all = np.einsum("klb,ilb->ikb", metric, jacobian)
        weighted, weighted_signal = weighted_all[:-1], weighted_all[-1]
        flat = weighted.reshape(len(p), -1)
        score = flat @ residual.ravel() - precision * (p - start)
        fisher = flat @ jacobian[:-1].reshape(len(p), -1).T + np.diag(precision)
        own = (weighted_signal * by_signal).sum(0) + 1 / spread**2
        mixed = (weighted * by_signal).sum(1)
        own_score = (weighted_signal * residual).sum(0) - np.log(signal / expected) / spread**2
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


def _spread_over_directions(pair: PairShift) -> float:
    """Return the spread of the logarithm of signal power over directions: `SIGNAL_SPREAD`, or more where strong signal shows it.

    Flakes in one direction have next to none across it: expected there, it would be missed in the frame and taken for blur.
    """
    mean = pair.window.radial_mean(pair.cross)
    strong = mean > STRONG * max(pair.reference.noise, pair.frame.noise)
    if not strong.any():
        return SIGNAL_SPREAD
    share = np.log(np.maximum(pair.cross[strong] / mean[strong, None], 0.05))
    return max(SIGNAL_SPREAD, float(np.sqrt(np.mean(share**2))))


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


def judge(  # noqa: PLR0917
    fit: KernelFit,
    hypotheses: BlurHypotheses,
    pixel_size_um: float,
    relative_to: str,
    reference_frames: int = 1,
    scored_by: BlurHypotheses | None = None,
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
    scored_by
        Gives the score; None: `hypotheses`.
    """
    limit_px = hypotheses.limit_px
    largest, smallest, angle_deg, error = fit.principal()
    odds, sharper_odds, mean_px = hypotheses.weigh(fit)
    raw_px = float(np.sqrt(12 * max(largest, 0.0)))
    sigma_px = 12 * error / (2 * max(raw_px, limit_px))
    score = odds if scored_by is None or scored_by is hypotheses else scored_by.weigh(fit)[0]
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
    result = BlurResult(
        score=score,
        extent_px=extent_px,
        extent_um=extent_px * pixel_size_um,
        sigma_extent_px=float(sigma_px),
        angle_deg=angle_deg,
        kind=kind,
        is_blurred=blurred,
        reason=reason,
        margin=odds,
    )
    return result, sharper
