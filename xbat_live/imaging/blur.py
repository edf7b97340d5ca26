"""Blur from power spectra: against a sharp frame of the same material, or, for the first frame, from its own anisotropy.

Source of the method: Sun et al. 2025 (directional narrowing of the power spectrum), made quantitative as in `imaging.md` section 5: the noise
floor is subtracted and ``P = n + a P_ref exp(-4 pi^2 f' S f)`` is fitted over radial x angular bins; S is the covariance of the blur kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.imaging.spectrum import CropWindow, Float, PolarPower

LINE = float(np.sqrt(12.0))
"""Length of a line kernel over its standard deviation."""
MODEL_ERROR = 0.06
"""Relative scatter of a bin's power from changes of the sample between two frames."""


@dataclass(frozen=True)
class BlurResult:
    """How blurred a frame is.

    Attributes
    ----------
    score
        Squared blur extent over the squared limit, with sign: above 1 is blurred, about 0 as sharp as the reference, negative sharper.
    extent_px, extent_um
        Full length of the line kernel with the same spread as the blur along its longest axis (sqrt(12) standard deviations); 0 when none was seen.
    sigma_extent_px
        Standard uncertainty of `extent_px` at the limit, unbinned px.
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


@dataclass(frozen=True)
class KernelFit:
    """Covariance of a blur kernel, unbinned px squared.

    Attributes
    ----------
    s_xx, s_xy, s_yy
        Elements; negative variance means sharper than the reference.
    covariance
        Of (s_xx, s_xy, s_yy), shape (3, 3).
    """

    s_xx: float
    s_xy: float
    s_yy: float
    covariance: Float

    def principal(self) -> tuple[float, float, float, float]:
        """Return largest and smallest variance, angle in deg of the largest, and the standard error of the largest."""
        mean, half = (self.s_xx + self.s_yy) / 2, (self.s_xx - self.s_yy) / 2
        radius = float(np.hypot(half, self.s_xy))
        angle = 0.5 * float(np.arctan2(self.s_xy, half))
        along = np.array([np.cos(angle) ** 2, 2 * np.cos(angle) * np.sin(angle), np.sin(angle) ** 2])
        error = float(np.sqrt(max(along @ self.covariance @ along, 0.0)))
        degrees = float(np.rad2deg(angle))
        return mean + radius, mean - radius, degrees if degrees > -90 else degrees + 180, error


def _gauss_newton(model, start: Float, data: Float, sigma_of, prior_sigma: Float, iterations: int = 12):  # type: ignore[no-untyped-def]
    """Weighted least squares with a Gaussian prior on each parameter around `start`; returns parameters and covariance."""
    parameters = start.copy()
    precision = 1 / prior_sigma**2
    normal = np.eye(len(start))
    for _ in range(iterations):
        value, jacobian = model(parameters)
        weight = 1 / sigma_of(value) ** 2
        normal = (jacobian * weight) @ jacobian.T + np.diag(precision)
        gradient = (jacobian * weight) @ (data - value) - precision * (parameters - start)
        step = np.linalg.solve(normal, gradient)
        longest = float(np.max(np.abs(step) / prior_sigma))
        parameters = parameters + step * min(1.0, 0.5 / max(longest, 1e-12))
        if longest < 1e-3:
            break
    return parameters, np.linalg.inv(normal)


def fit_against(frame: PolarPower, reference: PolarPower, window: CropWindow, correlation: float) -> KernelFit:
    """Fit the blur of `frame` relative to `reference`, spectra of the same material.

    Parameters
    ----------
    frame, reference
        Polar power of both.
    window
        Crop geometry they were made with.
    correlation
        Modes per independent mode (`mode_correlation`).
    """
    used = window.modes.ravel() > 0
    modes = window.modes.ravel()[used] / correlation
    quadratic = window.polar_quadratic.reshape(3, -1)[:, used] * np.array([1.0, 2.0, 1.0])[:, None]
    data = frame.power.ravel()[used]
    signal = np.maximum(reference.power.ravel()[used] - reference.noise, 0)
    unit = max(frame.noise, 1e-30)

    def model(p: Float) -> tuple[Float, Float]:
        blurred = signal * np.exp(np.clip(p[0] - 4 * np.pi**2 * (p[2:] @ quadratic), -30, 6))
        value = unit * p[1] + blurred
        jacobian = np.vstack([blurred, np.full_like(blurred, unit), -4 * np.pi**2 * quadratic * blurred])
        return value, jacobian

    def sigma(value: Float) -> Float:
        own = np.maximum(value - unit, 0)
        # cross terms of signal and noise in both spectra, the noise in both, and what the sample itself changed
        gain = own / np.maximum(signal, 1e-30)
        variance = 2 * own * unit + unit**2 + gain**2 * (2 * signal * reference.noise) + np.minimum(gain, 1) ** 2 * reference.noise**2
        return np.sqrt(variance / modes + (MODEL_ERROR * own) ** 2 + (0.01 * unit) ** 2)

    start = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    # wide enough for 25 px; the floor is known from the corner of the spectrum to a few per cent
    prior = np.array([1.5, 0.05, 50.0, 50.0, 50.0])
    found, covariance = _gauss_newton(model, start, data, sigma, prior)
    return KernelFit(float(found[2]), float(found[3]), float(found[4]), covariance[2:, 2:])


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
    growth = np.stack([(fx2 - fy2) / 1, 2 * fxy])
    radial_basis = np.equal.outer(np.arange(n_radial), row).astype(float)
    radial = np.log(np.maximum(window.radial_mean(frame) - unit, 1e-3 * unit))
    basis = np.vstack([radial_basis, harmonics, -4 * np.pi**2 * growth])

    def model(p: Float) -> tuple[Float, Float]:
        signal = np.exp(np.clip(p[1:] @ basis, -60, 60))
        value = unit * p[0] + signal
        return value, np.vstack([np.full_like(signal, unit), basis * signal])

    def sigma(value: Float) -> Float:
        return np.sqrt(value**2 / modes + (0.15 * np.maximum(value - unit, 0)) ** 2 + (0.01 * unit) ** 2)

    start = np.concatenate([[1.0], radial, np.zeros(6)])
    prior = np.concatenate([[0.05], np.full(n_radial, 3.0), np.full(2, 0.4), np.full(2, 0.2), np.full(2, 12.0)])
    found, covariance = _gauss_newton(model, start, data, sigma, prior, iterations=25)
    half, cross = float(found[-2]), float(found[-1])
    radius = float(np.hypot(half, cross))
    # A line of variance v has (s_xx - s_yy) / 2 = v/2 cos 2a: smallest variance zero makes the mean equal to the radius.
    spread = covariance[-2:, -2:]
    turn = np.array([half, cross]) / max(radius, 1e-12)
    error = float(np.sqrt(turn @ spread @ turn))
    isotropic = np.diag([4 * error**2, error**2, 4 * error**2])
    return KernelFit(radius + half, cross, radius - half, isotropic)


def judge(fit: KernelFit, pixel_size_um: float, limit_px: float, *, significance: float = 0.0, relative_to: str = "the reference") -> BlurResult:
    """Turn a fitted kernel into a verdict.

    Parameters
    ----------
    fit
        Kernel covariance, unbinned px squared.
    pixel_size_um
        Unbinned pixel, um.
    limit_px
        Extent from which a frame counts as blurred, unbinned px.
    significance
        Standard errors by which the extent must differ from none to count.
    """
    largest, smallest, angle_deg, error = fit.principal()
    score = 12 * largest / limit_px**2
    extent_px = float(np.sqrt(12 * max(largest, 0.0)))
    sigma_px = 12 * error / (2 * max(extent_px, limit_px))
    blurred = score > 1 and largest > significance * error
    if not blurred:
        kind, reason = "sharp", f"as sharp as {relative_to} within {limit_px:.1f} px" if score > -1 else f"sharper than {relative_to}"
    else:
        kind = "isotropic" if max(smallest, 0) > 0.4 * largest else "directional"
        where = f"along {angle_deg:.0f} deg" if kind == "directional" else "in all directions"
        reason = f"blurred by {extent_px:.1f} +- {sigma_px:.1f} px {where} (limit {limit_px:.1f} px) against {relative_to}"
    return BlurResult(float(score), extent_px, extent_px * pixel_size_um, float(sigma_px), angle_deg, kind, bool(blurred), reason)
