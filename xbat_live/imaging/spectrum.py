"""Windowed spectra of cropped optical density: the transform shared by registration and blur screen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from xbat_live.imaging.band import Band, phase_ramp

Float2D = NDArray[np.float32]
Complex2D = NDArray[np.complex64]
Float = NDArray[np.float64]

N_RADIAL = 14
N_ANGULAR = 8
MOST_COHERENCE = 0.995
"""Signal of two frames never agrees better than this: what windows, flat and the sample itself change."""
FLANK_PX = 24.0
LEAST_FLANK, MOST_FLANK = 0.06, 0.125
"""Each cosine flank of the window, binned px, and its share of the length: what is tapered is light not used, but a steep edge looks like
structure where the sample has little of its own (few smooth particles: 0.3 px off with 16 px, 0.05 px with 24 px; elsewhere the same)."""
SCENE_SLOPE = 3.5
"""Power law of sharp-edged particles: f**-3 for edges, steeper for rounded ones."""
NOISE_BAND = 0.43
"""Frequency along either axis, cycles per binned pixel, above which power is taken as noise."""


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
    share
        Of a bin's modes in those of its radius, shape of `power`.
    floor
        Noise in every bin, shape of `power`, where it is not the same everywhere (averaged spectra); None: `noise`.
    """

    power: Float
    noise: float
    share: Float
    floor: Float | None = None

    @cached_property
    def radial(self) -> list[float]:
        """Mean power over angle, per radial bin."""
        radial: list[float] = np.add.reduce(self.power * self.share, axis=1).tolist()
        return radial

    @cached_property
    def radial_floor(self) -> list[float]:
        """Mean noise over angle, per radial bin."""
        if self.floor is None:
            return [self.noise] * len(self.power)
        floor: list[float] = np.add.reduce(self.floor * self.share, axis=1).tolist()
        return floor

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
        # The noise band as contiguous blocks: rows and columns of high frequency, without the Nyquist ones.
        rows = int(np.ceil(NOISE_BAND * ny))
        columns = int(np.ceil(NOISE_BAND * nx))
        last = nx // 2
        middle = ny // 2
        self.noise_blocks = (
            (slice(rows, middle), slice(1, last)),
            (slice(middle + 1, ny - rows + 1), slice(1, last)),
            (slice(1, rows), slice(columns, last)),
            (slice(ny - rows + 1, ny), slice(columns, last)),
        )
        self._noise_modes = sum(block.size for block in self.noise_band(radius))
        polar_index = np.where(inside, radial * N_ANGULAR + angular, N_RADIAL * N_ANGULAR).ravel()
        self._gather = _gathering(polar_index, N_RADIAL * N_ANGULAR)
        self.modes = np.bincount(polar_index, minlength=N_RADIAL * N_ANGULAR + 1)[:-1].reshape(N_RADIAL, N_ANGULAR)
        self._angular_share = self.modes / np.maximum(self.modes.sum(1, keepdims=True), 1)
        # Radial index of every mode; one more than the last where a mode must not count.
        usable = (radius >= lowest / 1.5) & (radius < 0.5)
        usable[0, :] = usable[:, 0] = False
        self.radial_index = np.where(usable, np.clip(radial, 0, N_RADIAL - 1), N_RADIAL).astype(np.intp)
        centre = np.minimum(np.sqrt(self.radial_edges[1:] * self.radial_edges[:-1]), 0.5)
        self.most_coherence: list[float] = np.minimum(1 - _aliased(centre), MOST_COHERENCE).tolist()
        # Modes times frequency squared: what a radial bin tells of a shift at equal coherence
        weight = np.broadcast_to(multiplicity, radius.shape).ravel()
        self.radial_modes: Float = np.bincount(self.radial_index.ravel(), weight, N_RADIAL + 1)[:-1].astype(float)
        self.radial_leverage: list[float] = (self.radial_modes * centre**2).tolist()
        self._bands: dict[int, Band] = {}

    @cached_property
    def polar_quadratic(self) -> Float:
        """Mean (fx^2, fx fy, fy^2) of the modes in each polar bin, (cycles per unbinned px)^2, shape (3, n_radial, n_angular)."""
        fy, fx = self.fy[:, None] / self.bin, self.fx[None, :] / self.bin
        return np.stack([self.polar_mean(item) for item in np.broadcast_arrays(fx**2, fx * fy, fy**2)])

    @cached_property
    def _gather_radial(self) -> sparse.csr_array:
        gather = _gathering(self.radial_index.ravel(), N_RADIAL)
        gather.data = np.tile(self.multiplicity, len(self.fy))[gather.indices]
        return gather

    def _binned(self, values: NDArray[np.floating]) -> Float:
        total: Float = (self._gather @ np.ascontiguousarray(values, np.float32).ravel()).astype(np.float64)
        return total.reshape(N_RADIAL, N_ANGULAR)

    def noise_band(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the blocks of a spectrum-shaped array that lie above the signal (views)."""
        return [values[block] for block in self.noise_blocks]

    def noise_mean(self, values: NDArray[np.floating]) -> float:
        """Return the mean of a spectrum-shaped map above the signal."""
        return sum(float(np.add.reduce(block, axis=None)) for block in self.noise_band(values)) / self._noise_modes

    def band_below(self, last: int) -> Band:
        """Return the modes up to and including radial bin `last` as one block (made when first asked for)."""
        if last not in self._bands:
            self._bands[last] = Band(self, float(self.radial_edges[last + 1]))
        return self._bands[last]

    def radial_sums(self, values: NDArray[np.floating]) -> Float:
        """Return sums over all modes (full plane) in each radial bin, shape (n_radial,)."""
        sums: Float = (self._gather_radial @ np.ascontiguousarray(values, np.float32).ravel()).astype(np.float64)
        return sums

    def window(self, weight: Float2D, offset_yx: Float | None = None) -> Float2D:
        """Return taper times `weight` (crop shape), scaled to mean square one so that noise power does not depend on the window.

        `offset_yx` displaces the taper by a fraction of a pixel, so that it stays on the same material.
        """
        dy, dx = (0.0, 0.0) if offset_yx is None else offset_yx
        product: Float2D = taper(self.shape[0], dy)[:, None] * taper(self.shape[1], dx)[None, :]
        product *= weight
        product /= np.float32(np.sqrt(max(float(np.vdot(product, product)) / product.size, 1e-12)))
        return product

    def transform(
        self, od: Float2D, offset_yx: tuple[int, int], window: Float2D, total: float | None = None
    ) -> Complex2D:
        """Return the spectrum of the windowed crop of `od` at `offset_yx` (its corner, binned px), per sqrt(pixel).

        `total` is the sum of `window`, if known.
        """
        y, x = offset_yx
        crop = od[y : y + self.shape[0], x : x + self.shape[1]]
        windowed = crop * window
        mean = float(np.add.reduce(windowed, axis=None)) / (float(window.sum()) if total is None else total)
        windowed -= np.float32(mean) * window
        spectrum: Complex2D = fft.rfft2(windowed, workers=self.workers, overwrite_x=True, norm="ortho")
        return spectrum

    def phase(self, shift_yx: Float) -> Complex2D:
        """Return ``exp(2 pi i f . shift)`` for a shift in binned px, shape of a spectrum."""
        return phase_ramp(self.fy, self.fx, shift_yx)

    def polar(self, spectrum: Complex2D) -> PolarPower:
        """Return the power of a spectrum in polar bins, with its noise floor."""
        # By way of the magnitude, which is vectorised: half the time of squares of the parts
        power = np.abs(spectrum)
        power *= power
        return PolarPower(self.polar_mean(power), self.noise_mean(power), self._angular_share)

    def polar_mean(self, values: NDArray[np.floating]) -> Float:
        """Return the mean of a map over modes in each polar bin, shape (n_radial, n_angular)."""
        return self._binned(values) / np.maximum(self.modes, 1)

    def radial_mean(self, values: Float) -> Float:
        """Return the mean over angle of values in polar bins, shape (n_radial,)."""
        return np.einsum("ij,ij->i", values, self._angular_share)


def _aliased(frequency: Float) -> Float:
    """Return aliased over true power after binning, at frequencies in cycles per binned px, for a scene whose power falls as f**-3.5.

    Binned images repeat their spectrum; what folds back moves the other way within a pixel, and must not be weighted like signal.
    """
    box = (np.sinc(1 - frequency) / np.sinc(frequency)) ** 2
    ratio: Float = np.minimum((frequency / (1 - frequency)) ** SCENE_SLOPE * box, 0.98)
    return ratio


def _gathering(index: NDArray[np.intp], count: int) -> sparse.csr_array:
    """Return the matrix that sums values by `index`; index `count` is left out."""
    # Small integers are sorted by counting.
    order = np.argsort(index.astype(np.uint8), kind="stable").astype(np.int32)
    sizes = np.bincount(index, minlength=count + 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])[: count + 1].astype(np.int32)
    order = order[: starts[-1]]
    return sparse.csr_array((np.ones(len(order), np.float32), order, starts), shape=(count, len(index)))


def taper(length: int, offset: float = 0.0) -> NDArray[np.float32]:
    """Return the window of a crop along one axis, displaced by `offset` samples."""
    return tukey(length, float(np.clip(FLANK_PX / length, LEAST_FLANK, MOST_FLANK)), offset)


def tukey(length: int, flank: float, offset: float = 0.0) -> NDArray[np.float32]:
    """Return a Tukey window of `length` samples with cosine flanks of the share `flank` each, displaced by `offset` samples.

    That of `scipy.signal.windows.tukey` with ``alpha = 2 * flank``, whose import takes longer than all the rest of this package's.
    """
    from_edge = (np.arange(length) - offset) / (length - 1)
    from_edge = np.clip(np.minimum(from_edge, 1 - from_edge), 0, flank)
    window: NDArray[np.float32] = (0.5 - 0.5 * np.cos(np.pi * from_edge / flank)).astype(np.float32)
    return window


def mode_correlation(window: Float2D) -> float:
    """Return how many neighbouring modes share one independent value under a window (1 for none, Welch's ENBW of its square)."""
    square = (window * window).ravel()
    return float(square.size * float(square @ square) / float(np.sum(square, dtype=np.float64)) ** 2)
