"""A second microscope, independent of `frames_synthetic`: particles drawn as formulas at any place, so nothing is ever interpolated.

Where the other one is a periodic canvas in Fourier space with white noise, here a scene is a list of superellipses with grain and
cracks, evaluated at displaced coordinates; blur is the mean of exposures along a path (a line, an arc, a disc, a Gaussian cloud), as in a
real exposure; shot noise is multiplied by a fluctuating gain and spread by the scintillator, so it is neither Poisson nor white; rows have
noise of their own; and the beam tilts after the flat was taken. Same interface as `frames_synthetic.Microscope`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
KERNELS = ("line", "arc", "disc", "gaussian")


@dataclass(frozen=True)
class Particle:
    """A superellipse ``|a|^p + |b|^p < 1`` about `centre_yx`, turned by `angle`; its optical density falls towards the edge by `dome`."""

    centre_yx: tuple[float, float]
    half_px: tuple[float, float]
    angle: float
    power: float
    dome: float
    density: float
    grain: Array
    crack: float | None

    def draw(self, od: Array, moved_yx: tuple[float, float]) -> None:
        """Add the particle, displaced, to an image."""
        reach = float(np.hypot(*self.half_px)) * 1.05 + 4
        cy, cx = self.centre_yx[0] + moved_yx[0], self.centre_yx[1] + moved_yx[1]
        top, bottom = max(int(cy - reach), 0), min(int(cy + reach) + 1, od.shape[0])
        left, right = max(int(cx - reach), 0), min(int(cx + reach) + 1, od.shape[1])
        if top >= bottom or left >= right:
            return
        y, x = np.arange(top, bottom)[:, None] - cy, np.arange(left, right)[None, :] - cx
        a = (np.cos(self.angle) * y + np.sin(self.angle) * x) / self.half_px[0]
        b = (np.cos(self.angle) * x - np.sin(self.angle) * y) / self.half_px[1]
        radius = (np.abs(a) ** self.power + np.abs(b) ** self.power + 1e-12) ** (1 / self.power)
        inside = 1 / (1 + np.exp(np.clip((radius - 1) * min(self.half_px) / 0.6, -40, 40)))
        body = self.density * (1 - self.dome * np.clip(radius, 0, 1) ** 2)
        for fy, fx, phase in self.grain:
            body = body * (1 + 0.05 * np.cos(fy * y + fx * x + phase))
        if self.crack is not None:
            body = body * (1 - 0.4 * np.exp(-(((a - self.crack) * self.half_px[0] / 1.6) ** 2)))
        od[top:bottom, left:right] += inside * body


def scatter(shape: tuple[int, int], seed: int, *, size_px: tuple[float, float], coverage: float) -> list[Particle]:
    """Return particles of log-uniform size over an area wider than the field by a third on every side."""
    rng = np.random.default_rng([seed, 41])
    ny, nx = shape
    found, covered = [], 0.0
    while covered < coverage * ny * nx * (5 / 3) ** 2:
        half = float(np.exp(rng.uniform(*np.log(size_px))))
        aspect = float(rng.uniform(1, 2.5))
        waves = rng.normal(size=(3, 2))
        waves *= (2 * np.pi / rng.uniform(5, 14, 3) / np.hypot(*waves.T))[:, None]
        found.append(
            Particle(
                centre_yx=(float(rng.uniform(-ny / 3, ny * 4 / 3)), float(rng.uniform(-nx / 3, nx * 4 / 3))),
                half_px=(half, half / aspect),
                angle=float(rng.uniform(0, np.pi)),
                power=float(rng.choice([1.6, 2.0, 3.0, 6.0])),
                dome=float(rng.uniform(0, 0.9)),
                density=float(rng.uniform(0.15, 0.6)),
                grain=np.column_stack([waves, rng.uniform(0, 6.3, 3)]),
                crack=float(rng.uniform(-0.5, 0.5)) if rng.random() < 0.3 else None,
            )
        )
        covered += np.pi * half**2 / aspect
    return found


@dataclass
class DrawnMicroscope:
    """Detector, beam and scene with exact truth; see the module and `frames_synthetic.Microscope`.

    Attributes
    ----------
    excess
        Variance of the gain of one photon, relative: noise over that of Poisson counts is ``sqrt(1 + excess)``.
    spread_px
        Of the light in the scintillator; correlates the noise of neighbours.
    row_noise
        Of the read-out, counts, common to a row.
    tilt
        Of the beam between flat and frames: relative light at the edges.
    """

    shape: tuple[int, int] = (327, 339)
    seed: int = 0
    photons: float = 1000.0
    counts_per_photon: float = 5.0
    n_flats: int = 10
    size_px: tuple[float, float] = (5.0, 60.0)
    coverage: float = 0.6
    excess: float = 0.2
    spread_px: float = 0.3
    row_noise: float = 1.5
    dark_level: float = 250.0
    tilt: float = 0.02
    margin_px: int = 0
    particles: list[Particle] = field(init=False)
    flat: NDArray[np.float32] = field(init=False)
    dark: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        ny, nx = self.shape
        self.rng = np.random.default_rng([self.seed, 43])
        self.particles = scatter(self.shape, self.seed, size_px=self.size_px, coverage=self.coverage)
        y, x = (np.linspace(-1, 1, n) for n in self.shape)
        light = np.exp(-0.35 * ((y[:, None] - 0.2) ** 2 + (x[None, :] + 0.1) ** 2))
        stripes = 1 + 0.02 * np.sin(np.arange(nx) * 0.9)[None, :] + 0.01 * self.rng.normal(size=(ny, 1))
        self.pixel_gain = stripes * (1 + 0.02 * self.rng.normal(size=self.shape))
        for _ in range(15):
            dy, dx, size = self.rng.uniform(-1, 1), self.rng.uniform(-1, 1), self.rng.uniform(0.005, 0.02)
            light *= 1 - 0.4 * (np.hypot(y[:, None] - dy, (x[None, :] - dx) * nx / ny) < size)
        self.light = light
        self.tilted = light * (1 + self.tilt * (0.8 * x[None, :] - 0.6 * y[:, None]))
        exposures = [self._detect(light) for _ in range(self.n_flats)]
        self.flat = np.mean(exposures, axis=0).astype(np.float32)
        self.dark = np.full(self.shape, self.dark_level, np.float32)

    def transmission(self, moved_yx_px: tuple[float, float] = (0.0, 0.0), contrast: float = 1.0) -> Array:
        """Return the noise-free transmitted fraction."""
        od = np.full(self.shape, 0.05)
        for particle in self.particles:
            particle.draw(od, moved_yx_px)
        return np.exp(-contrast * od)

    def expose(
        self,
        shift_yx_px: tuple[float, float] = (0.0, 0.0),
        blur_px: float = 0.0,
        angle_deg: float = 0.0,
        *,
        scale: float = 1.0,
        contrast: float = 1.0,
        kernel: str = "line",
    ) -> NDArray[np.uint16]:
        """Return a camera frame, uint16 (ny, nx); `blur_px` is sqrt(12) standard deviations of the kernel along its longest axis."""
        path = kernel_path(kernel, blur_px, angle_deg)
        seen = np.mean(
            [self.transmission((shift_yx_px[0] + dy, shift_yx_px[1] + dx), contrast) for dy, dx in path], axis=0
        )
        return np.clip(np.rint(self._detect(self.tilted * seen, scale)), 0, 65535).astype(np.uint16)

    def _detect(self, light: Array, scale: float = 1.0) -> Array:
        photons = self.rng.poisson(self.photons * scale * light)
        counts = photons + np.sqrt(self.excess * photons) * self.rng.normal(size=self.shape)
        counts = ndimage.gaussian_filter(counts, self.spread_px, mode="nearest")
        rows = self.rng.normal(0, self.row_noise, (self.shape[0], 1))
        return self.counts_per_photon * counts * self.pixel_gain + self.dark_level + rows


def kernel_path(kernel: str, blur_px: float, angle_deg: float = 0.0) -> Array:
    """Return where the sample is during one exposure, shape (n, 2), px, mean zero, a fifth of a px apart or nearer along a line.

    `arc` is half a circle, which is wider than deep; `angle_deg` is that of its longest axis.
    """
    if blur_px <= 0:
        return np.zeros((1, 2))
    if kernel in ("line", "arc"):
        along = np.linspace(-0.5, 0.5, max(5, 2 * int(2 * blur_px) + 1))
        path = np.column_stack([0 * along, along])
        if kernel == "arc":
            path = np.column_stack([np.cos(np.pi * along), np.sin(np.pi * along)])
    else:
        steps = np.linspace(-1, 1, 7)
        y, x = (item.ravel() for item in np.meshgrid(steps, steps, indexing="ij"))
        radius = np.hypot(y, x)
        if kernel == "gaussian":
            # Points of equal weight: a disc stretched so that the radius is distributed as that of a Gaussian.
            inside = (radius > 0) & (radius < 0.98)
            stretch = np.sqrt(-2 * np.log(1 - radius[inside] ** 2)) / radius[inside]
            path = np.column_stack([y[inside] * stretch, x[inside] * stretch])
        else:
            path = np.column_stack([y, x])[radius <= 1.0]
    path = path - path.mean(0)
    path *= blur_px / np.sqrt(12) / path.std(0).max()
    turn = np.deg2rad(angle_deg)
    return np.column_stack(
        [np.cos(turn) * path[:, 0] + np.sin(turn) * path[:, 1], np.cos(turn) * path[:, 1] - np.sin(turn) * path[:, 0]]
    )
