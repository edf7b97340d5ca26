"""Dense optical flow between two frames' optical density: how every piece of the electrode moved.

Coarse to fine on a cosine-transform pyramid. On each level the moving image is warped by the flow found so far and Gauss-Newton steps
minimise, over the flow u, the squared residual in units of its noise, local mean removed, plus a first-order smoothness of what is left
without its affine part a, that lets plates slide past each other (Charbonnier, solved by lagged weights and conjugate gradients)::

    sum  w (I1(x + u) - I0(x))^2 / s^2  +  strain^-1 sqrt(|grad (u - a)|^2 + e^2)

The local mean is taken off *after* warping: a high-pass taken before does not commute with deformation and pulls the flow of faint
pores towards that of the strong particle beside them (0.14 px against 0.07 px on noise-free scenes). The gradient is the mean of both
frames', whose noise is then uncorrelated with the residual, so shot noise does not bias the flow towards zero. Sources: Lucas-Kanade and
Horn-Schunck combined locally and globally (Bruhn, Weickert and Schnoerr 2005), robust weights after Black and Anandan 1996.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, ndimage

from xbat_live.imaging.flow_pyramid import BORDER, SMOOTHING, Level, filled, resample, white_noise
from xbat_live.imaging.flow_solver import solve_smooth
from xbat_live.imaging.spectrum import Float2D

Flow = NDArray[np.float32]

LEAST_SIDE_PX = 16
COARSEST_BIN = 16
"""Unbinned px per px of the first level; what is left of the motion there must be about a px."""
LOCAL_MEAN = 8.0
"""Standard deviation, level px, of the local mean taken off the residual: changes of charge state and beam do not look like motion."""
NOISY, MOST_NOISY = 100.0, 0.5
"""Of the noise's share of the variance: by so much, at most, the local mean is wider and the smoothness less. Half at 200 photons/px,
where it makes errors 3 % smaller, a tenth at 1000."""
INTEGRATION = 2.5
"""Standard deviation, level px, of the window over which the normal equations are summed."""
STRAIN = 1.5
"""Scale of the smoothness; with `SLIDING` chosen on particle scenes of 200 to 10,000 photons/px."""
SLIDING = 0.04
"""Flow gradient, px/px, above which smoothness grows linearly instead of quadratically."""
MODEL_ERROR = 0.02
"""Part of the image contrast that motion does not explain (interpolation, structure that changes), added to the noise."""
CALM, LEAST_RESTLESS, MOST_RESTLESS = 0.015, 0.4, 4.0
"""Mean gradient of the flow, px/px, its affine part left out, for which the above are. Where the flow found so far has more, there is less
smoothness, where it has less, more, within limits: sliding in proportion, the window by the fourth root, above one the model error by the
root, below one the strain by the root. Chosen on 162 scenes of two generators with gradients of 0 to 0.08 px/px: six tenths of the error
where all of the field moves, turns or swells alike, the same elsewhere. Less still for calm fields, and a single particle that moves in one
is no longer seen to."""
NEARBY = 4.0
"""Standard deviation, level px, of the surroundings in which calm is measured."""
OUTLIER = 3.0
LEAST_START_CORRELATION = 0.3
LEAST_START_OVERLAP = 0.5
_DERIVATIVE = np.array([1, -8, 0, 8, -1], np.float32) / 12


def optical_flow(
    reference_od: ArrayLike,
    moving_od: ArrayLike,
    *,
    finest_bin: int = 2,
    smoothness: float = 1.0,
    iterations: int = 2,
    search_shift: bool = True,
    workers: int = 1,
) -> Flow:
    """Return the displacement of every pixel of the reference.

    Combined local and global differential flow (Bruhn, Weickert and Schnoerr 2005) with robust weights (Black and Anandan 1996), coarse
    to fine; the module tells what is minimised.

    Parameters
    ----------
    reference_od, moving_od
        Optical density (or any image of one contrast), shape (ny, nx), at least 16 x 16 px; NaN marks pixels that do not count.
    finest_bin
        Unbinned px per px of the finest level; the flow is interpolated from there. 1 is slower and better only from about
        10,000 photons/px; 4 or 8 suit a mean displacement.
    smoothness
        Factor on the smoothness; larger for noisier images with broad motion, smaller for fine motion.
    iterations
        Warps per level.
    search_shift
        Look for a common displacement first, up to about half the frame; False when the frames are registered.
    workers
        Threads of the transforms.

    Returns
    -------
    ndarray
        Shape (2, ny, nx), float32, px: (dy, dx). Content at (y, x) in the reference is at (y, x) + flow in the moving image. NaN where the
        reference is NaN; where content left the frame, or the moving image is NaN, the smooth continuation. Zero for images without
        structure.

    Raises
    ------
    ValueError
        Shapes that differ or are not 2-D, images under 16 px, nothing but NaN, infinite values, or options out of range.
    """
    reference, moving = check_pair(reference_od, moving_od)
    if min(reference.shape) < LEAST_SIDE_PX * max(1, finest_bin) / 2 or min(reference.shape) < LEAST_SIDE_PX:
        raise ValueError(
            f"optical flow: {reference.shape} px binned by {finest_bin} is too small, at least {LEAST_SIDE_PX} x {LEAST_SIDE_PX} px and 8 "
            "binned; bin less or use a larger region"
        )
    if finest_bin < 1 or iterations < 1 or not smoothness > 0:
        raise ValueError(
            f"optical flow: finest_bin {finest_bin} and iterations {iterations} must be at least 1, smoothness {smoothness} above 0"
        )
    (first, valid_first), (second, valid_second) = filled(reference), filled(moving)
    flow = np.zeros((2, *first.shape), np.float32)
    if min(float(first.std()), float(second.std())) > 1e-6 * max(abs(float(first.mean())), 1e-6):
        noise = white_noise(reference) ** 2 + white_noise(moving) ** 2
        spectra = [fft.dctn(image - image.mean(), norm="ortho", workers=workers) for image in (first, second)]
        found: Flow | None = None
        gain = 1.0
        for factor in _bins(first.shape, finest_bin):
            level = resample(spectra, (valid_first, valid_second), factor, noise, workers)
            if found is None:
                found = _start(level) if search_shift else np.zeros((2, *level.reference.shape), np.float32)
                restless = np.ones(level.reference.shape, np.float32)  # nothing is known yet
                for _ in range(2):
                    found = _refine(level, found, gain, smoothness, iterations, restless)
                    gain, restless = _gain(level, found), _restlessness(found)
            else:
                found = resized(found, level.reference.shape)
                found = _refine(level, found, gain, smoothness, iterations, _restlessness(found))
        assert found is not None
        flow = resized(found, first.shape)
    flow[:, ~np.isfinite(reference)] = np.nan
    return flow


def check_pair(reference: ArrayLike, moving: ArrayLike, what: str = "optical flow") -> tuple[Float2D, Float2D]:
    """Return two images as float32 (ny, nx).

    Raises
    ------
    ValueError
        Shapes that differ or are not 2-D, infinite values, nothing but NaN.
    """
    images = (np.asarray(reference, np.float32), np.asarray(moving, np.float32))
    if images[0].shape != images[1].shape or images[0].ndim != 2:
        raise ValueError(
            f"{what}: reference {images[0].shape} and moving {images[1].shape} must be two images (ny, nx) of one shape; "
            "crop both to the same region"
        )
    for name, image in zip(("reference", "moving"), images, strict=True):
        if np.isinf(image).any():
            raise ValueError(f"{what}: {name} image holds infinite values; mark bad pixels with NaN")
        if not np.isfinite(image).any():
            raise ValueError(f"{what}: {name} image holds nothing but NaN; was the frame lost?")
    return images


def check_flow(flow: ArrayLike, shape: tuple[int, ...] | None = None) -> Flow:
    """Return a flow as float32 (2, ny, nx).

    Raises
    ------
    ValueError
        Other dimensions, a shape other than `shape` (ny, nx), or nothing but NaN.
    """
    array = np.asarray(flow, np.float32)
    if array.ndim != 3 or array.shape[0] != 2 or 0 in array.shape:
        raise ValueError(
            f"flow: shape {array.shape}, expected (2, ny, nx) with (dy, dx) in px, as optical_flow returns it"
        )
    if shape is not None and array.shape[1:] != tuple(shape):
        raise ValueError(
            f"flow: shape {array.shape[1:]} px, the image has {tuple(shape)} px; compute the flow of this image"
        )
    if not np.isfinite(array).all(0).any():
        raise ValueError("flow: nothing but NaN; were both frames masked everywhere?")
    return array


def resized(flow: Flow, shape: tuple[int, ...]) -> Flow:
    """Return a flow (2, my, mx) interpolated to `shape` (ny, nx) of the same field of view, its vectors in the new px."""
    ratio = [old / new for old, new in zip(flow.shape[1:], shape, strict=True)]
    if ratio == [1.0, 1.0]:
        return flow
    at = np.meshgrid(
        *[((np.arange(n) + 0.5) * r - 0.5).astype(np.float32) for n, r in zip(shape, ratio, strict=True)], indexing="ij"
    )
    return np.stack(
        [
            ndimage.map_coordinates(v, at, order=1, mode="nearest") / np.float32(r)
            for v, r in zip(flow, ratio, strict=True)
        ]
    )


def _bins(shape: tuple[int, ...], finest: int) -> list[int]:
    bins = [finest]
    while bins[-1] * 2 <= max(COARSEST_BIN, finest) and min(shape) / (bins[-1] * 2) >= LEAST_SIDE_PX:
        bins.append(bins[-1] * 2)
    return bins[::-1]


def _blurred(image: NDArray[np.floating], sigma: float) -> Float2D:
    result: Float2D = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3)
    return result


def _without_plane(image: Float2D, weight: Float2D) -> Float2D:
    """Return the image times weight, without its plane: near borders a local mean cannot follow a tilt of the beam."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    rows, columns = weight.sum(1), weight.sum(0)
    cross = float(y @ weight @ x)
    normal = np.array(
        [
            [rows.sum(), y @ rows, x @ columns],
            [y @ rows, y * y @ rows, cross],
            [x @ columns, cross, x * x @ columns],
        ]
    )
    weighted = image * weight
    right = np.array([weighted.sum(), y @ weighted.sum(1), x @ weighted.sum(0)])
    level, by_y, by_x = np.linalg.lstsq(normal, right, rcond=1e-6)[0].astype(np.float32)
    result: Float2D = weighted - weight * (level + by_y * y[:, None] + by_x * x[None, :])
    return result


def _gradient(image: Float2D, local_mean: float) -> tuple[Float2D, Float2D]:
    # The local mean comes off the gradient as off the residual; outside the frame there is nothing to average.
    image = image - _blurred(image, local_mean)
    return (
        ndimage.correlate1d(image, _DERIVATIVE, 0, mode="nearest"),
        ndimage.correlate1d(image, _DERIVATIVE, 1, mode="nearest"),
    )


def _start(level: Level) -> Flow:
    """Return a uniform flow at the best normalised correlation of the overlap, or zero where that is no better."""
    weights = (level.valid_reference, level.valid_moving)
    images = [
        (i - _blurred(i * w, LOCAL_MEAN) / np.maximum(_blurred(w, LOCAL_MEAN), 1e-3)) * w
        for i, w in zip((level.reference, level.moving), weights, strict=True)
    ]
    shape = images[0].shape
    padded = tuple(fft.next_fast_len(2 * n, real=True) for n in shape)

    def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
        spectra = [fft.rfft2(item.astype(np.float64), padded, workers=1) for item in (a, b)]
        result: NDArray[np.float64] = fft.irfft2(spectra[0].conj() * spectra[1], padded, workers=1)
        return result

    overlap = correlation(*weights)
    energy = correlation(images[0] ** 2, weights[1]) * correlation(weights[0], images[1] ** 2)
    enough = overlap >= LEAST_START_OVERLAP * np.sqrt(weights[0].sum() * weights[1].sum())
    likeness = np.where(enough, correlation(*images) / np.sqrt(np.maximum(energy, 1e-12 * energy.max() + 1e-30)), -1)
    peak = np.unravel_index(int(likeness.argmax()), padded)
    uniform = np.zeros((2, *shape), np.float32)
    if likeness[peak] > max(LEAST_START_CORRELATION, float(likeness[0, 0]) + 0.05):
        shift = [float(p - n if p > n // 2 else p) for p, n in zip(peak, padded, strict=True)]
        uniform += np.array(shift, np.float32)[:, None, None]
    return uniform


def _warped(level: Level, coefficients: Float2D, flow: Flow) -> tuple[Float2D, Float2D]:
    """Return the moving image at the flow, and the weight: 1 where it is inside and both frames are valid, 0 outside."""
    ny, nx = level.reference.shape
    at = np.mgrid[0:ny, 0:nx].astype(np.float32) + flow
    warped = ndimage.map_coordinates(coefficients, at, order=3, mode="mirror", prefilter=False)
    # Fades over the border px, which the low-pass mixed with their mirror image.
    room = [np.minimum(a, n - 1 - a) for a, n in zip(at, (ny, nx), strict=True)]
    inside = np.clip(np.minimum(*room) / BORDER, 0, 1) * level.border
    inside *= level.valid_reference
    if not level.valid_moving.all():
        inside *= ndimage.map_coordinates(level.valid_moving, at, order=1, mode="nearest") > 0.99
    return warped, inside


def _gain(level: Level, flow: Flow) -> float:
    """Return the contrast of the moving image over that of the reference (charge state and energy change it)."""
    warped, inside = _warped(level, ndimage.spline_filter(level.moving, output=np.float32), flow)
    used = inside > 0.5
    if used.sum() < 16:
        return 1.0
    a, b = ((i - _blurred(i, LOCAL_MEAN))[used] for i in (level.reference, warped))
    if float(np.vdot(a, b)) < 0.5 * float(np.sqrt(np.vdot(a, a) * np.vdot(b, b))):
        return 1.0
    return float(np.clip(np.sqrt(np.vdot(b, b) / np.vdot(a, a)), 0.5, 2.0))


def _refine(  # noqa: PLR0917
    level: Level, flow: Flow, gain: float, smoothness: float, iterations: int, restless: Float2D
) -> Flow:
    reference = level.reference
    coefficients = ndimage.spline_filter(level.moving / np.float32(gain), output=np.float32)
    contrast = float(reference.std())
    noisy = 1 + min(NOISY * level.noise / max(contrast, 1e-20) ** 2, MOST_NOISY)
    local_mean, smoothness = LOCAL_MEAN * noisy, smoothness / noisy
    own_y, own_x = _gradient(reference, local_mean)
    sliding = SLIDING * restless
    strain: Float2D = np.float32(STRAIN / smoothness) * np.sqrt(np.minimum(restless, 1))
    integration = INTEGRATION / float(restless.mean()) ** 0.25
    variance = level.noise + (MODEL_ERROR * contrast) ** 2 / np.maximum(restless, 1)
    # White noise smoothed to SMOOTHING (and a pixel) has this gradient energy; the mean of two frames holds a quarter of their sum.
    gradient_noise = level.noise / 4 / (SMOOTHING**2 + 1 / 12)
    for _ in range(iterations):
        warped, inside = _warped(level, coefficients, flow)
        if inside.sum() < 16:
            break
        other_y, other_x = _gradient(warped, local_mean)
        g_y, g_x = (own_y + other_y) / 2, (own_x + other_x) / 2
        residual = _without_plane(warped - reference, inside)
        residual -= inside * _blurred(residual, local_mean) / np.maximum(_blurred(inside, local_mean), 1e-3)
        spread = (1.4826 * float(np.median(np.abs(residual[inside > 0])))) ** 2
        local = _blurred(residual * residual, integration / 2)
        weight = inside / (1 + local / (OUTLIER**2 * np.maximum(variance, spread)))
        # Where noise makes most of the gradient, the residual it is multiplied with holds as little of the motion.
        energy = _blurred(g_y * g_y + g_x * g_x, integration)
        weight *= np.clip(1 - gradient_noise / np.maximum(energy, 1e-20), 0.02, 1) / (variance * level.correlated)
        rest = residual - g_y * flow[0] - g_x * flow[1]
        normal = np.stack([_blurred(weight * p, integration) for p in (g_y * g_y, g_y * g_x, g_x * g_x)])
        right = -np.stack([_blurred(weight * g * rest, integration) for g in (g_y, g_x)])
        even = _affine_part(flow)
        yy, yx, xx = normal
        right -= np.stack([yy * even[0] + yx * even[1], yx * even[0] + xx * even[1]])
        flow = even + solve_smooth(normal, right, flow - even, sliding, strain)
    return flow


def _affine_part(flow: Flow) -> Flow:
    """Return the affine flow nearest to a flow: what moves, turns, swells or shears all of the field alike is no less likely than rest."""
    result = np.empty_like(flow)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in flow.shape[1:])
    for component, plane in zip(flow, result, strict=True):
        rows, columns = component.mean(1), component.mean(0)
        by_y, by_x = float(rows @ y / (y @ y)), float(columns @ x / (x @ x))
        np.add((rows.mean() + by_y * y)[:, None], by_x * x, out=plane)
    return result


def _restlessness(flow: Flow) -> Float2D:
    """Return the gradient of a flow over that of a calm one, within limits: of all of it where that is more, else around each px."""
    uneven = flow - _affine_part(flow)
    square = sum(np.gradient(component, axis=axis) ** 2 for component in uneven for axis in range(2))
    size = np.sqrt(square) / CALM
    mean = float(size.mean())
    if mean >= 1:
        return np.full(size.shape, min(mean, MOST_RESTLESS), np.float32)
    result: Float2D = np.clip(_blurred(size, NEARBY), LEAST_RESTLESS, 1)
    return result
