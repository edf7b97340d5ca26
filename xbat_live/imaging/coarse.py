"""Coarse search for the shift of a frame over the whole field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from xbat_live.imaging.correction import bin_sum
from xbat_live.imaging.spectrum import Complex2D, Float2D, tukey

COARSE = 4
"""Binned px summed along each axis for the search."""
NEIGHBOUR = 2
"""Coarse px around a candidate that belong to it."""
FLANK = 0.15
"""Of the window of the search, share of a side."""
LEAST_OVERLAP = 0.3
"""Share of the frame that must be common to both along each axis."""


@dataclass(frozen=True)
class Candidate:
    """A coarse shift.

    Attributes
    ----------
    shift_yx
        Binned px, multiples of `COARSE`.
    correlation, overlap
        Correlation coefficient over what both frames have in common there, and its share of the field.
    height
        Of the whitened cross-correlation, over the highest one.
    """

    shift_yx: tuple[int, int]
    correlation: float
    overlap: float
    height: float

    @property
    def score(self) -> float:
        """Correlation, less for a small overlap."""
        return self.correlation * float(np.sqrt(self.overlap))


@dataclass(frozen=True)
class CoarseImage:
    """A frame made ready for the search.

    Attributes
    ----------
    image, spectrum
        Background-free and weighted, and its zero-padded spectrum.
    od
        Optical density, background included, for a first refinement.
    """

    image: Float2D
    spectrum: Complex2D
    od: Float2D


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
        self._taper = np.outer(tukey(coarse[0], FLANK), tukey(coarse[1], FLANK))
        self._padded = tuple(fft.next_fast_len(int(n * 1.6), real=True) for n in coarse)
        fy = fft.fftfreq(self._padded[0])[:, None]
        fx = fft.rfftfreq(self._padded[1])[None, :]
        radius2 = fy**2 + fx**2
        low = 2.0 / min(coarse)
        self.weight: Float2D = np.ones(coarse, np.float32)
        self._support: Float2D = self.weight
        self._support_of: Float2D | None = None
        # Lags in ascending order, so that neighbours are neighbours
        self._lags = [np.arange(-most, most + 1) for most in (int(n * (1 - LEAST_OVERLAP)) for n in coarse)]
        self._band = (np.exp(-radius2 / (2 * 0.2**2)) * (1 - np.exp(-radius2 / (2 * low**2)))).astype(np.float32)

    def prepare(self, od: Float2D, weight: Float2D) -> CoarseImage:
        """Return the coarse image of a frame (binned optical density and weight) and its spectrum."""
        if weight is not self._support_of:
            self._support_of = weight
            self._support = np.maximum(bin_sum(weight, COARSE), 1e-3)
            self.weight = np.clip(self._support / COARSE**2, 0, 1)
        small = bin_sum(od * weight, COARSE)
        small /= self._support
        image = small - ndimage.uniform_filter(small, max(5, min(self.shape) // 4))
        image *= self.weight
        image -= image.mean()
        return CoarseImage(image, fft.rfft2(image * self._taper, self._padded, workers=self.workers), small)

    def candidates(self, reference: CoarseImage, moved: CoarseImage, count: int = 4) -> list[Candidate]:
        """Return coarse shifts from `reference` to `moved`, best first."""
        cross = moved.spectrum * reference.spectrum.conj()
        magnitude = np.abs(cross)
        magnitude += np.float32(1e-3) * magnitude.max() + np.float32(1e-20)
        # Softly whitened: over the power three quarters, by square roots because np.power takes ten times as long
        np.sqrt(magnitude, out=magnitude)
        magnitude *= np.sqrt(magnitude)
        np.divide(self._band, magnitude, out=magnitude)
        cross *= magnitude
        surface = fft.irfft2(cross, self._padded, workers=self.workers)
        rows, columns = self._lags
        surface = surface[np.ix_(rows, columns)]
        found: list[Candidate] = []
        top = float(surface.max())
        surface = _maxima(surface)
        for _ in range(count):
            iy, ix = np.unravel_index(int(surface.argmax()), surface.shape)
            height = float(surface[iy, ix])
            if not height > 0:
                break
            dy, dx = int(rows[iy]), int(columns[ix])
            found.append(self._verify(reference.image, moved.image, dy, dx, height / top))
            surface[max(iy - NEIGHBOUR, 0) : iy + NEIGHBOUR + 1, max(ix - NEIGHBOUR, 0) : ix + NEIGHBOUR + 1] = -np.inf
        return sorted(found, key=lambda c: -c.score)

    def _verify(self, reference: Float2D, image: Float2D, dy: int, dx: int, height: float) -> Candidate:
        ny, nx = reference.shape
        moved = image[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)]
        still = reference[max(-dy, 0) : ny + min(-dy, 0), max(-dx, 0) : nx + min(-dx, 0)]
        overlap = moved.size / image.size
        if overlap < LEAST_OVERLAP / 2:
            return Candidate((dy * COARSE, dx * COARSE), 0.0, overlap, height)
        a, b = moved - moved.mean(), still - still.mean()
        scale = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
        return Candidate((dy * COARSE, dx * COARSE), float(np.vdot(a, b)) / max(scale, 1e-20), overlap, height)


def _maxima(surface: Float2D) -> Float2D:
    """Return the surface with all but its local maxima set to -inf: the slope of a wide peak is no candidate of its own."""
    middle = surface[1:-1, 1:-1]
    highest = (middle >= surface[:-2, 1:-1]) & (middle >= surface[2:, 1:-1])
    highest &= (middle >= surface[1:-1, :-2]) & (middle >= surface[1:-1, 2:])
    result = np.full_like(surface, -np.inf)
    np.copyto(result[1:-1, 1:-1], middle, where=highest)
    return result
