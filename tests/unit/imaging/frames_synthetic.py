"""Exact synthetic TXM frames: the scene is a periodic band-limited canvas, so shifts and line blur are exact in Fourier space.

A frame is ``Poisson(N * illumination * gain * dust * (T shifted, blurred)) * counts_per_photon + dark + read noise``: the blur acts on
the transmitted intensity as in the microscope, pixel gain and dust stay with the detector, and a flat carries its own shot noise
(which flat correction divides into every frame as a new static pattern: the trap that locks naive correlation to zero shift).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.float64]


def particles(
    shape: tuple[int, int], seed: int, *, coverage: float = 0.55, radius_px: tuple[float, float] = (9.0, 110.0)
) -> Array:
    """Return the optical density of polydisperse, textured, partly cracked spheres on a porous matrix; largest value about 1."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    od = np.zeros(shape)
    covered = 0.0
    occupied = np.zeros(shape, bool)
    for _ in range(600):
        radius = float(np.clip(np.exp(rng.normal(np.log(38.0), 0.6)), *radius_px))
        y0, x0 = rng.uniform(0, ny), rng.uniform(0, nx)
        ys = np.arange(int(y0 - radius) - 2, int(y0 + radius) + 4)
        xs = np.arange(int(x0 - radius) - 2, int(x0 + radius) + 4)
        yy, xx = ys[:, None] - y0, xs[None, :] - x0
        index = np.ix_(ys % ny, xs % nx)
        angle = np.arctan2(yy, xx)
        lobes = 1 + 0.05 * np.cos(2 * angle + rng.uniform(0, 6.3)) + 0.03 * np.cos(5 * angle + rng.uniform(0, 6.3))
        depth = np.clip(1 - (yy**2 + xx**2) / (radius * lobes) ** 2, 0, None)
        if (occupied[index] & (depth > 0)).mean() > 0.15:
            continue
        occupied[index] |= depth > 0
        body = np.sqrt(depth) * radius / radius_px[1]
        grains = ndimage.gaussian_filter(rng.normal(size=body.shape), 1.5)
        body *= 1 + 0.06 * grains / grains.std()
        if rng.random() < 0.4:
            tilt = rng.uniform(0, np.pi)
            across = np.abs(np.cos(tilt) * yy + np.sin(tilt) * xx + rng.normal(0, radius / 4))
            body *= 1 - 0.35 * np.exp(-((across / 1.5) ** 2))
        od[index] += body
        covered += np.pi * radius**2
        if covered > coverage * ny * nx:
            break
    matrix = ndimage.gaussian_filter(rng.normal(size=shape), 6, mode="wrap")
    return od + 0.03 * matrix / matrix.std() + 0.1


@dataclass
class Microscope:
    """Detector, beam and scene with exact truth.

    Attributes
    ----------
    photons
        Detected photons per pixel without sample in the brightest part.
    contrast
        Optical density of the thickest particle.
    n_flats
        Exposures averaged into the flat.
    vignette
        Loss of illumination at the corners, 0 to 1.
    """

    shape: tuple[int, int] = (327, 339)
    seed: int = 0
    photons: float = 1000.0
    contrast: float = 1.0
    n_flats: int = 10
    vignette: float = 0.4
    psf_sigma_px: float = 0.7
    counts_per_photon: float = 8.0
    dark_level: float = 100.0
    fixed_pattern: float = 0.015
    n_dust: int = 25
    margin_px: int = 100
    scene: Array | None = None
    illumination: Array = field(init=False)
    flat: NDArray[np.float32] = field(init=False)
    dark: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        ny, nx = self.shape
        self.rng = np.random.default_rng([self.seed, 77])
        canvas = tuple(fft.next_fast_len(n + 2 * self.margin_px, real=True) // 2 * 2 for n in self.shape)
        if self.scene is None:
            self.scene = particles((canvas[0], canvas[1]), self.seed)
        y, x = np.mgrid[0:ny, 0:nx]
        u, v = (y / ny - 0.45) * 2, (x / nx - 0.55) * 2
        light = (1 - self.vignette) ** ((u**2 + v**2) / 2) * (1 + 0.1 * v)
        for _ in range(self.n_dust):
            dy, dx, size = self.rng.uniform(0, ny), self.rng.uniform(0, nx), self.rng.uniform(1.0, 6.0)
            light *= 1 - self.rng.uniform(0.1, 0.5) * np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * size**2))
        self.illumination = light * (1 + self.fixed_pattern * self.rng.normal(size=self.shape))
        self.retake_flat()
        self.dark = np.full(self.shape, self.dark_level, np.float32)

    def retake_flat(self, scale: float = 1.0) -> None:
        """Take the flat again, with new noise."""
        total = self.rng.poisson(self.photons * scale * self.n_flats * self.illumination)
        self.flat = (self.dark_level + self.counts_per_photon * total / self.n_flats).astype(np.float32)

    def transmission(
        self,
        shift_yx_px: tuple[float, float] = (0.0, 0.0),
        blur_px: float = 0.0,
        angle_deg: float = 0.0,
        contrast: float | None = None,
        swing: bool = False,
    ) -> Array:
        """Return the noise-free transmitted fraction, content moved by `shift_yx_px` and blurred along `angle_deg` (0: along x).

        `blur_px` is the full length of the line, or for `swing` (sinusoidal vibration) sqrt(12) times its standard deviation.
        """
        assert self.scene is not None
        canvas = np.exp(-(self.contrast if contrast is None else contrast) * self.scene)
        fy = fft.fftfreq(canvas.shape[0])[:, None]
        fx = fft.rfftfreq(canvas.shape[1])[None, :]
        otf = np.exp(
            -2 * (np.pi * self.psf_sigma_px) ** 2 * (fy**2 + fx**2)
            - 2j * np.pi * (fy * shift_yx_px[0] + fx * shift_yx_px[1])
        )
        along = fx * np.cos(np.deg2rad(angle_deg)) + fy * np.sin(np.deg2rad(angle_deg))
        if swing:
            from scipy.special import j0

            otf = otf * j0(2 * np.pi * along * blur_px / np.sqrt(6))
        else:
            otf = otf * np.sinc(along * blur_px)
        moved = fft.irfft2(fft.rfft2(canvas, workers=1) * otf, canvas.shape, workers=1)
        top, left = ((n - m) // 2 for n, m in zip(canvas.shape, self.shape, strict=True))
        return moved[top : top + self.shape[0], left : left + self.shape[1]]

    def expose(
        self,
        shift_yx_px: tuple[float, float] = (0.0, 0.0),
        blur_px: float = 0.0,
        angle_deg: float = 0.0,
        *,
        scale: float = 1.0,
        contrast: float | None = None,
        swing: bool = False,
    ) -> NDArray[np.uint16]:
        """Return a camera frame, uint16 (ny, nx); `scale` is its exposure relative to the flat's."""
        beam = self.photons * scale * self.illumination
        photons = self.rng.poisson(
            beam * np.clip(self.transmission(shift_yx_px, blur_px, angle_deg, contrast, swing), 0, None)
        )
        counts = self.counts_per_photon * photons + self.dark_level + self.rng.normal(0, 3, self.shape)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
