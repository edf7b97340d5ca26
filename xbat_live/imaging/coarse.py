"""Coarse search for the shift of a frame over the whole field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from scipy.signal.windows import tukey

from xbat_live.imaging.correction import bin_sum
from xbat_live.imaging.spectrum import Complex2D, Float2D

COARSE = 4
"""Binned px summed along each axis for the search."""
LEAST_OVERLAP = 0.3
"""Share of the frame that must be common to both along each axis."""


@dataclass(frozen=True)
class Candidate:
    """A coarse shift (binned px, whole numbers) and the correlation over the overlap there."""

    shift_yx: tuple[int, int]
    correlation: float
    overlap: float


@dataclass(frozen=True)
class CoarseImage:
    """A frame made ready for the search: background-free, weighted, and its zero-padded spectrum."""

    image: Float2D
    spectrum: Complex2D


class CoarseSearch:
    """Whitened cross-power of zero-padded coarse images; every candidate is verified by its correlation over the overlap.

    Parameters
    ----------
    binned_shape
        Rows and columns of the binned optical density.
    workers
        Threads per FFT.
    """

    def __init__(self, binned_shape: tuple[int, int], workers: int = 1) -> None:
        self.workers = workers
        coarse = (binned_shape[0] // COARSE, binned_shape[1] // COARSE)
        self.shape = coarse
        self._taper = np.outer(tukey(coarse[0], 0.3), tukey(coarse[1], 0.3)).astype(np.float32)
        self._padded = tuple(fft.next_fast_len(int(n * 1.6), real=True) for n in coarse)
        fy = fft.fftfreq(self._padded[0])[:, None]
        fx = fft.rfftfreq(self._padded[1])[None, :]
        radius2 = fy**2 + fx**2
        low = 2.0 / min(coarse)
        self._band = (np.exp(-radius2 / (2 * 0.2**2)) * (1 - np.exp(-radius2 / (2 * low**2)))).astype(np.float32)

    def prepare(self, od: Float2D, weight: Float2D) -> CoarseImage:
        """Return the coarse image of a frame (binned optical density and weight) and its spectrum."""
        small = bin_sum(od * weight, COARSE)
        support = np.maximum(bin_sum(weight, COARSE), 1e-3)
        small /= support
        smooth = np.clip(support / COARSE**2, 0, 1)
        small -= ndimage.uniform_filter(small, max(5, min(self.shape) // 4))
        small *= smooth
        small -= small.mean()
        return CoarseImage(small, fft.rfft2(small * self._taper, self._padded, workers=self.workers))

    def candidates(self, reference: CoarseImage, moved: CoarseImage, count: int = 4) -> list[Candidate]:
        """Return coarse shifts from `reference` to `moved`, best first."""
        cross = moved.spectrum * reference.spectrum.conj()
        magnitude = np.abs(cross)
        cross *= self._band / (magnitude + np.float32(1e-3) * magnitude.max() + np.float32(1e-20)) ** np.float32(0.7)
        surface = fft.irfft2(cross, self._padded, workers=self.workers)
        limit = [int(n * (1 - LEAST_OVERLAP)) for n in self.shape]
        rows = np.r_[0 : limit[0] + 1, self._padded[0] - limit[0] : self._padded[0]]
        columns = np.r_[0 : limit[1] + 1, self._padded[1] - limit[1] : self._padded[1]]
        rows, columns = np.unique(rows), np.unique(columns)
        surface = surface[np.ix_(rows, columns)]
        found = []
        for _ in range(count):
            iy, ix = np.unravel_index(int(surface.argmax()), surface.shape)
            if not surface[iy, ix] > 0:
                break
            dy, dx = (
                (int(i) + n // 2) % n - n // 2 for i, n in zip((rows[iy], columns[ix]), self._padded, strict=True)
            )
            found.append(self._verify(reference.image, moved.image, dy, dx))
            surface[max(iy - 3, 0) : iy + 4, max(ix - 3, 0) : ix + 4] = -np.inf
        return sorted(found, key=lambda c: -c.correlation * np.sqrt(c.overlap))

    def _verify(self, reference: Float2D, image: Float2D, dy: int, dx: int) -> Candidate:
        ny, nx = reference.shape
        moved = image[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)]
        still = reference[max(-dy, 0) : ny + min(-dy, 0), max(-dx, 0) : nx + min(-dx, 0)]
        overlap = moved.size / image.size
        if overlap < LEAST_OVERLAP / 2:
            return Candidate((dy * COARSE, dx * COARSE), 0.0, overlap)
        a, b = moved - moved.mean(), still - still.mean()
        scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
        return Candidate((dy * COARSE, dx * COARSE), float(np.vdot(a, b)) / max(scale, 1e-20), overlap)
