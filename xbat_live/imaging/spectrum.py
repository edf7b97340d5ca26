"""Windowed spectra of cropped optical density: the transform shared by registration and blur screen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float2D = NDArray[np.float32]
Complex2D = NDArray[np.complex64]
Float = NDArray[np.float64]

N_RADIAL = 14
N_ANGULAR = 8
NOISE_BAND = 0.43
"""Radial frequency, cycles per binned pixel, above which (up to the corner of the spectrum) power is taken as noise."""


def fast_even_length(length: int) -> int:
    """Return the largest even length <= `length` whose factors are 2, 3 and 5 only (a pocketfft fast size)."""
    for candidate in range(length // 2 * 2, 1, -2):
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
    return 2


@dataclass(frozen=True)
class PolarPower:
    """Power spectrum averaged in radial x angular bins.

    Attributes
    ----------
    power
        Mean power per mode, shape (n_radial, n_angular), float64.
    noise
        Power per mode in the band above the signal: shot noise, the flat's included.
    floor
        Noise in every bin, shape of `power`, where it is not the same everywhere (averaged spectra); None: `noise`.
    """

    power: Float
    noise: float
    floor: Float | None = None

    def signal(self) -> Float:
        """Return the power above the noise, may be negative."""
        return self.power - (self.noise if self.floor is None else self.floor)


class CropWindow:
    """Geometry of one crop size: taper, frequencies and polar bins.

    Parameters
    ----------
    shape
        Crop (ny, nx) in binned px, even.
    bin_factor
        Unbinned pixels per binned one; frequencies are in cycles per unbinned pixel.
    workers
        Threads of one FFT.
    """

    def __init__(self, shape: tuple[int, int], bin_factor: int, workers: int = 1) -> None:
        self.shape = shape
        self.bin = bin_factor
        self.workers = workers
        ny, nx = shape
        # float32 on purpose: products with complex64 spectra must not be promoted to complex128
        self.fy = fft.fftfreq(ny).astype(np.float32)
        self.fx = fft.rfftfreq(nx).astype(np.float32)
        multiplicity = np.full(nx // 2 + 1, 2, np.float32)
        multiplicity[[0, -1]] = 1
        self.multiplicity = multiplicity
        radius = np.hypot(self.fy[:, None], self.fx[None, :])
        lowest = 3.0 / min(ny, nx)
        self.radial_edges = np.geomspace(lowest, 0.5, N_RADIAL + 1)
        radial = np.digitize(radius, self.radial_edges) - 1
        angle = np.arctan2(self.fy[:, None], self.fx[None, :])
        angular = np.round(angle / (np.pi / N_ANGULAR)).astype(int) % N_ANGULAR
        inside = (radial >= 0) & (radial < N_RADIAL)
        # Column and row zero carry stripes of the detector and the seam of the window: not signal.
        inside[0, :] = False
        inside[:, 0] = False
        self._trash = N_RADIAL * N_ANGULAR
        noise = radius > NOISE_BAND
        noise[:, -1] = False
        noise[ny // 2, :] = False
        self.noise_modes = np.flatnonzero(noise)
        self.noise_index = np.nonzero(noise)
        self.polar_index = np.where(inside, radial * N_ANGULAR + angular, self._trash).ravel()
        self.modes = np.bincount(self.polar_index, minlength=self._trash + 1)[: self._trash].reshape(
            N_RADIAL, N_ANGULAR
        )
        modes = np.maximum(self.modes, 1)
        sums = (
            self._binned(weight) / modes
            for weight in np.broadcast_arrays(
                radius, self.fx[None, :] ** 2, self.fy[:, None] ** 2, self.fx[None, :] * self.fy[:, None]
            )
        )
        self.polar_radius, fx2, fy2, fxy = (
            item / scale for item, scale in zip(sums, (self.bin, *(self.bin**2,) * 3), strict=True)
        )
        self.polar_quadratic = np.stack([fx2, fxy, fy2])
        # Smooth radial index for weights that must cover every mode
        self.radial_index = np.clip(radial, 0, N_RADIAL - 1)
        self.radial_modes = np.maximum(np.bincount(self.radial_index.ravel(), minlength=N_RADIAL), 1)
        self.usable = (radius >= lowest / 1.5) & (radius < 0.5)

    def _binned(self, values: NDArray[np.floating]) -> Float:
        total: Float = np.bincount(self.polar_index, weights=values.ravel(), minlength=self._trash + 1).astype(
            np.float64, copy=False
        )
        return total[: self._trash].reshape(N_RADIAL, N_ANGULAR)

    def window(self, weight: Float2D, offset_yx: Float | None = None) -> Float2D:
        """Return taper times `weight` (crop shape), scaled to mean square one so that noise power does not depend on the window.

        `offset_yx` displaces the taper by a fraction of a pixel, so that it stays on the same material.
        """
        dy, dx = (0.0, 0.0) if offset_yx is None else offset_yx
        product: Float2D = taper(self.shape[0], dy)[:, None] * taper(self.shape[1], dx)[None, :] * weight
        product /= np.float32(np.sqrt(max(float(np.vdot(product, product)) / product.size, 1e-12)))
        return product

    def transform(self, od: Float2D, offset_yx: tuple[int, int], window: Float2D) -> Complex2D:
        """Return the spectrum of the windowed crop of `od` at `offset_yx` (its corner, binned px), per sqrt(pixel)."""
        y, x = offset_yx
        crop = od[y : y + self.shape[0], x : x + self.shape[1]]
        mean = float(np.vdot(window, crop) / window.sum())
        spectrum: Complex2D = fft.rfft2((crop - np.float32(mean)) * window, workers=self.workers, overwrite_x=True)
        spectrum *= np.float32(1 / np.sqrt(crop.size))
        return spectrum

    def phase(self, shift_yx: Float) -> Complex2D:
        """Return ``exp(2 pi i f . shift)`` for a shift in binned px, shape of a spectrum."""
        turn = 2 * np.pi
        by_row = np.exp(1j * turn * float(shift_yx[0]) * self.fy).astype(np.complex64)
        by_column = np.exp(1j * turn * float(shift_yx[1]) * self.fx).astype(np.complex64)
        phase: Complex2D = by_row[:, None] * by_column[None, :]
        return phase

    def polar(self, spectrum: Complex2D) -> PolarPower:
        """Return the power of a spectrum in polar bins, with its noise floor."""
        power = spectrum.real**2 + spectrum.imag**2
        noise = float(power.ravel()[self.noise_modes].mean())
        return PolarPower(self.polar_mean(power), noise)

    def polar_mean(self, values: NDArray[np.floating]) -> Float:
        """Return the mean of a map over modes in each polar bin, shape (n_radial, n_angular)."""
        return self._binned(values) / np.maximum(self.modes, 1)

    def radial_mean(self, values: Float) -> Float:
        """Return the mean over angle of values in polar bins, shape (n_radial,)."""
        return (values * self.modes).sum(1) / np.maximum(self.modes.sum(1), 1)


def taper(length: int, offset: float = 0.0) -> NDArray[np.float32]:
    """Return a Tukey window with a quarter of its length in the two cosine flanks, displaced by `offset` samples."""
    from_edge = (np.arange(length) - offset) / (length - 1)
    from_edge = np.clip(np.minimum(from_edge, 1 - from_edge), 0, 0.125)
    window: NDArray[np.float32] = (0.5 - 0.5 * np.cos(np.pi * from_edge / 0.125)).astype(np.float32)
    return window


def mode_correlation(window: Float2D) -> float:
    """Return how many neighbouring modes share one independent value under a window (1 for none, Welch's ENBW of its square)."""
    square = window.astype(np.float64) ** 2
    return float(square.size * (square**2).sum() / square.sum() ** 2)
