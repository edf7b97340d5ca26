"""Frames sorted by their blur kernel, and deconvolution class by class.

Sun et al. 2025 propose both: separate the images into a few categories, each with its own point-spread function, and deconvolve. A
deconvolved image is derived: it never replaces a measured frame, and comes marked as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from xbat_live.imaging.blur import NOT_JUDGED, BlurResult
from xbat_live.imaging.flow_pyramid import white_noise
from xbat_live.imaging.spectrum import Float2D

Float = NDArray[np.float64]

METHODS = ("wiener", "richardson-lucy")
LEAST_EXTENT_PX = 0.5
MOST_EXTENT_PX = 200.0


@dataclass(frozen=True)
class BlurKernel:
    """A point-spread function of two numbers.

    Attributes
    ----------
    extent_px
        Full length of the line; for ``isotropic`` sqrt(12) standard deviations of the Gaussian; unbinned px.
    angle_deg
        Direction from +column towards +row, -90 < angle <= 90; 0 for ``isotropic``.
    kind
        ``directional`` or ``isotropic``.

    Raises
    ------
    ValueError
        Another kind, an extent out of range, or an angle that is not finite.
    """

    extent_px: float
    angle_deg: float = 0.0
    kind: str = "directional"

    def __post_init__(self) -> None:
        if self.kind not in ("directional", "isotropic"):
            raise ValueError(
                f"blur kernel: kind {self.kind!r}, expected 'directional' or 'isotropic'; a sharp frame has none"
            )
        if not LEAST_EXTENT_PX <= self.extent_px <= MOST_EXTENT_PX:
            raise ValueError(
                f"blur kernel: extent {self.extent_px} px, expected {LEAST_EXTENT_PX} to {MOST_EXTENT_PX} px; a sharp frame needs none"
            )
        if not np.isfinite(self.angle_deg):
            raise ValueError(f"blur kernel: angle {self.angle_deg} deg is not finite")

    def image(self) -> Float:
        """Return the kernel, shape (n, n) with n odd, px, float64, sum 1: a line spread by bilinear weights, or a Gaussian.

        n is ``2 ceil(extent / 2) + 3`` for a line; a Gaussian reaches four standard deviations.
        """
        if self.kind == "isotropic":
            sigma = self.extent_px / np.sqrt(12)
            half = max(1, int(np.ceil(4 * sigma)))
            offset = np.arange(-half, half + 1)
            profile = np.exp(-(offset**2) / (2 * sigma**2))
            kernel = np.outer(profile, profile)
        else:
            half = int(np.ceil(self.extent_px / 2)) + 1
            n = max(64, int(32 * self.extent_px))
            along = ((np.arange(n) + 0.5) / n - 0.5) * self.extent_px
            angle = np.deg2rad(self.angle_deg)
            kernel = np.zeros((2 * half + 1, 2 * half + 1))
            y, x = along * np.sin(angle) + half, along * np.cos(angle) + half
            row, column = np.floor(y).astype(int), np.floor(x).astype(int)
            for dy in (0, 1):
                for dx in (0, 1):
                    share = np.abs(1 - dy - (y - row)) * np.abs(1 - dx - (x - column))
                    np.add.at(kernel, (row + dy, column + dx), share)
        normalised: Float = kernel / kernel.sum()
        return normalised


@dataclass(frozen=True)
class KernelClass:
    """Frames with about one blur kernel.

    Attributes
    ----------
    name
        ``sharp``, ``isotropic 5-10 px``, ``directional 45 deg 5-10 px``, ``not judged``.
    kind
        ``sharp``, ``directional``, ``isotropic`` or ``not judged``.
    frames
        Indices into the results, rising.
    extent_px
        Median extent, unbinned px.
    angle_deg
        Mean direction, -90 < angle <= 90; NaN unless directional.
    """

    name: str
    kind: str
    frames: tuple[int, ...]
    extent_px: float
    angle_deg: float

    @property
    def kernel(self) -> BlurKernel | None:
        """Kernel that stands for the class; None when there is nothing to undo."""
        if self.kind not in ("directional", "isotropic"):
            return None
        return BlurKernel(self.extent_px, 0.0 if self.kind == "isotropic" else self.angle_deg, self.kind)


@dataclass(frozen=True)
class KernelClasses:
    """All frames of a series by blur kernel.

    Attributes
    ----------
    classes
        Those with frames: sharp, directional by angle then extent, isotropic by extent, not judged.
    labels
        Index into `classes` of each frame, shape (n,), int64.
    """

    classes: tuple[KernelClass, ...]
    labels: NDArray[np.int64]

    def of(self, frame: int) -> KernelClass:
        """Return the class of a frame, counted from 0.

        Raises
        ------
        IndexError
            No such frame.
        """
        if not 0 <= frame < len(self.labels):
            raise IndexError(f"frame {frame}: there are {len(self.labels)}, counted from 0")
        return self.classes[int(self.labels[frame])]


@dataclass(frozen=True)
class DerivedFrame:
    """A computed image; not a measurement.

    Attributes
    ----------
    image
        Shape (ny, nx), float32, unit of the frame it was made from.
    method
        ``wiener`` or ``richardson-lucy``.
    kernel
        What was undone.
    source
        Where the frame came from (run uid and frame number, say).
    parameters
        Numbers the method used.
    """

    image: Float2D
    method: str
    kernel: BlurKernel
    source: str = ""
    parameters: dict[str, float] = field(default_factory=dict)


def classify_by_kernel(
    results: Sequence[BlurResult],
    *,
    n_directions: int = 4,
    extent_edges_px: Sequence[float] = (5.0, 10.0),
) -> KernelClasses:
    """Sort frames by blur kernel, in bins of direction and extent (the kernels of Sun et al. 2025: one class for each kind of vibration).

    Parameters
    ----------
    results
        One per frame, as the blur screen returned them.
    n_directions
        Bins of direction over 180 deg, the first centred on 0 deg (along x).
    extent_edges_px
        Rising edges between classes of extent, unbinned px; empty: one class for all extents.

    Returns
    -------
    KernelClasses
        A frame whose verdict is not blurred is sharp, whatever its extent. No frames give no classes.

    Raises
    ------
    ValueError
        Fewer than 1 direction, edges that do not rise from above 0, or a blurred frame of an unknown kind.
    """
    edges = np.asarray(extent_edges_px, float)
    if n_directions < 1:
        raise ValueError(f"kernel classes: {n_directions} directions, at least 1")
    if edges.ndim != 1 or (edges <= 0).any() or (np.diff(edges) <= 0).any():
        raise ValueError(f"kernel classes: extent edges {tuple(extent_edges_px)} px must rise from above 0")
    step = 180.0 / n_directions
    groups: dict[tuple[int, int, int], list[int]] = {}
    for i, result in enumerate(results):
        size = int(np.searchsorted(edges, result.extent_px, side="right"))
        if result == NOT_JUDGED:
            key = (3, 0, 0)
        elif not result.is_blurred:
            key = (0, 0, 0)
        elif result.kind == "directional":
            key = (1, int(np.floor(result.angle_deg / step + 0.5)) % n_directions, size)
        elif result.kind == "isotropic":
            key = (2, 0, size)
        else:
            raise ValueError(f"kernel classes: frame {i} is blurred, but of kind {result.kind!r}")
        groups.setdefault(key, []).append(i)
    labels = np.zeros(len(results), np.int64)
    classes = []
    for number, (key, frames) in enumerate(sorted(groups.items())):
        labels[frames] = number
        classes.append(_kernel_class(key, [results[i] for i in frames], tuple(frames), step, edges))
    return KernelClasses(tuple(classes), labels)


def _kernel_class(
    key: tuple[int, int, int], members: list[BlurResult], frames: tuple[int, ...], step: float, edges: Float
) -> KernelClass:
    kind = ("sharp", "directional", "isotropic", "not judged")[key[0]]
    extent = float(np.median([m.extent_px for m in members]))
    name, angle = kind, float("nan")
    if kind == "directional":
        # Directions repeat after 180 deg: doubled angles can be averaged.
        doubled = np.exp(2j * np.deg2rad([m.angle_deg for m in members])).mean()
        angle = _axial(float(np.rad2deg(np.angle(doubled)) / 2))
        name += f" {_axial(key[1] * step):.0f} deg"
    if key[0] in (1, 2) and edges.size:
        bounds = ["", *(f"{edge:g}" for edge in edges), ""]
        low, high = bounds[key[2]], bounds[key[2] + 1]
        name += f" {low}-{high} px" if low and high else f" over {low} px" if low else f" under {high} px"
    return KernelClass(name, kind, frames, extent, angle)


def _axial(angle_deg: float) -> float:
    return 90.0 - (90.0 - angle_deg) % 180.0


def deconvolve(
    frame: ArrayLike,
    kernel: BlurKernel | KernelClass | BlurResult,
    *,
    method: str = "wiener",
    balance: float | None = None,
    iterations: int = 10,
    source: str = "",
) -> DerivedFrame:
    """Undo blur by a known kernel: scikit-image's Wiener filter (Wiener 1949) or Richardson-Lucy (Richardson 1972, Lucy 1974).

    Blur acts on the transmitted light: give counts above dark or transmission rather than optical density when contrast is high.

    Parameters
    ----------
    frame
        Shape (ny, nx), finite; for ``richardson-lucy`` intensities of 0 or more (negative noise is taken as 0).
    kernel
        A kernel, the class of the frame, or its blur result.
    method
        ``wiener`` (linear, regularised by the Laplacian) or ``richardson-lucy`` (Poisson likelihood, stays positive).
    balance
        Regularisation of ``wiener``; by default noise variance over the variance of the frame's Laplacian above that noise.
    iterations
        Of ``richardson-lucy``; more is sharper and noisier.
    source
        Kept in the result.

    Returns
    -------
    DerivedFrame
        Image of the frame's shape and unit, marked as computed.

    Raises
    ------
    ValueError
        Frame not 2-D, smaller than the kernel or not finite, a sharp class or result, another method, or parameters out of range.
    """
    from skimage import restoration

    image = np.asarray(frame, np.float64)
    if image.ndim != 2:
        raise ValueError(
            f"deconvolve: frame of shape {image.shape}, expected (ny, nx); deconvolve a stack frame by frame"
        )
    if not np.isfinite(image).all():
        raise ValueError(
            "deconvolve: frame holds NaN or infinite values; fill or crop them first, they would spread over the kernel"
        )
    if method not in METHODS:
        raise ValueError(f"deconvolve: method {method!r}, expected one of {METHODS}")
    if iterations < 1 or (balance is not None and not balance > 0):
        raise ValueError(f"deconvolve: iterations {iterations} must be at least 1, balance {balance} above 0")
    shape = _kernel_of(kernel)
    spread = shape.image()
    if min(image.shape) < spread.shape[0]:
        raise ValueError(f"deconvolve: frame of {image.shape} px is smaller than the kernel of {spread.shape} px")
    # Periodic transforms: a mirrored margin keeps the opposite border out.
    pad = min(4 * spread.shape[0], min(image.shape) - 1)
    padded = np.pad(image, pad, mode="reflect")
    parameters: dict[str, float]
    if method == "wiener":
        chosen = _balance(image) if balance is None else balance
        level = float(padded.mean())
        restored = restoration.wiener(padded - level, spread, chosen, clip=False) + level
        parameters = {"balance": chosen}
    else:
        if not image.max() > 0:
            raise ValueError(
                "deconvolve: richardson-lucy needs intensities above 0; give counts above dark or transmission"
            )
        scale = float(padded.max())
        light = np.clip(padded / scale, 1e-6, None)
        restored = restoration.richardson_lucy(light, spread, num_iter=iterations, clip=False) * scale
        parameters = {"iterations": float(iterations)}
    inner = restored[pad : pad + image.shape[0], pad : pad + image.shape[1]].astype(np.float32)
    return DerivedFrame(inner, method, shape, source, parameters)


def _kernel_of(kernel: BlurKernel | KernelClass | BlurResult) -> BlurKernel:
    if isinstance(kernel, BlurKernel):
        return kernel
    if isinstance(kernel, KernelClass):
        if kernel.kernel is None:
            raise ValueError(f"deconvolve: the frames of class {kernel.name!r} have no blur to undo")
        return kernel.kernel
    if not kernel.is_blurred:
        raise ValueError("deconvolve: the frame was judged sharp; there is no blur to undo")
    return BlurKernel(kernel.extent_px, 0.0 if kernel.kind == "isotropic" else kernel.angle_deg, kernel.kind)


def _balance(image: Float) -> float:
    """Return noise over structure, both seen through the Laplacian that regularises (white noise: 20 times its variance)."""
    noise = white_noise(image.astype(np.float32)) ** 2
    structure = max(float(ndimage.laplace(image, mode="nearest").var()) - 20 * noise, 1e-12, 0.01 * noise)
    return float(np.clip(noise / structure, 1e-4, 10.0))
