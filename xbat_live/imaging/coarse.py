"""Coarse search for the shift of a frame over the whole field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import fft, ndimage

from xbat_live.imaging.band import phase_ramp
from xbat_live.imaging.correction import bin_sum
from xbat_live.imaging.spectrum import Complex2D, Float, Float2D, tukey

LEAST_COARSE_PX, LEAST_FACTOR = 80, 4
"""Coarse images are made by the largest power of two, at least `LEAST_FACTOR`, that leaves so many px on their shorter side."""
NEIGHBOUR = 2
"""Coarse px around a candidate that belong to it."""
SLOPE = 4
"""Coarse px around the highest peak on which its slopes may be as high as other candidates."""
FLANK = 0.15
"""Of the window of the search, share of a side."""
LEAST_HEIGHT = 8.0
"""Standard deviations of the correlation surface above which the place of its peak is believed to a fraction of a px."""
MOST_LEFT_OUT = 0.4
"""Share of the field that may be seen in one of the two frames only for the same."""
SURE, NO_RIVAL = 0.5, 0.2
"""Correlation of the highest peak, and the height of the next one over it, with which no other candidate is looked at: frames of one
field have 0.9 and 0.05 down to 200 photons/px."""
FARTHEST = 1.0
"""Coarse px between the highest px and the maximum."""
LEAST_OVERLAP = 0.3
"""Share of the frame that must be common to both along each axis."""
PADDING = 1.56
"""Lengths of the padded images over those of the images; what wraps around from larger shifts is found out by the overlap."""


@dataclass(frozen=True)
class Candidate:
    """A coarse shift.

    Attributes
    ----------
    shift_yx
        Binned px, multiples of `CoarseSearch.factor`.
    correlation, overlap
        Correlation coefficient over what both frames have in common there, and its share of the field.
    height
        Of the whitened cross-correlation, over the highest one.
    near_yx
        The maximum there to about a tenth of a coarse px, binned px; None where it is not known so well.
    """

    shift_yx: tuple[int, int]
    correlation: float
    overlap: float
    height: float
    near_yx: Float | None = None

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
    """

    image: Float2D
    spectrum: Complex2D

    @cached_property
    def conjugate(self) -> Complex2D:
        """Conjugate of `spectrum`."""
        return self.spectrum.conj()


class CoarseSearch:
    """Whitened cross-power of zero-padded coarse images; every candidate is verified by its correlation over the overlap.

    `factor` is the binned px summed along each axis.

    Parameters
    ----------
    binned_shape
        Rows and columns of the binned optical density.
    workers
        Threads per FFT.
    """

    def __init__(self, binned_shape: tuple[int, int], workers: int = 1) -> None:
        self.workers = workers
        self.factor = LEAST_FACTOR
        while min(binned_shape) // (2 * self.factor) >= LEAST_COARSE_PX:
            self.factor *= 2
        coarse = (binned_shape[0] // self.factor, binned_shape[1] // self.factor)
        self.shape = coarse
        self._taper = np.outer(tukey(coarse[0], FLANK), tukey(coarse[1], FLANK))
        self._padded = tuple(fft.next_fast_len(int(n * PADDING), real=True) for n in coarse)
        fy = fft.fftfreq(self._padded[0])[:, None]
        fx = fft.rfftfreq(self._padded[1])[None, :]
        radius2 = fy**2 + fx**2
        low = 2.0 / min(coarse)
        self.weight: Float2D = np.ones(coarse, np.float32)
        self._support: Float2D = self.weight
        self._support_of: Float2D | None = None
        self._lit_everywhere = False
        # The surface is turned so that no shift lies in its middle: neighbours are neighbours, and what is searched is one block.
        self._middle = (self._padded[0] // 2, self._padded[1] // 2)
        self._turn = phase_ramp(fy[:, 0].astype(np.float32), fx[0].astype(np.float32), -np.array(self._middle, float))
        most = [int(n * (1 - LEAST_OVERLAP)) for n in coarse]
        self._searched = tuple(slice(m - a, m + a + 1) for m, a in zip(self._middle, most, strict=True))
        self._top_left = (-most[0], -most[1])
        self._band = (np.exp(-radius2 / (2 * 0.2**2)) * (1 - np.exp(-radius2 / (2 * low**2)))).astype(np.float32)
        # Two small matrix products take half the time of the filter itself.
        size = max(5, min(coarse) // 4)
        self._mean_y, self._mean_x = (
            ndimage.uniform_filter1d(np.eye(n, dtype=np.float32), size, axis=axis) for axis, n in enumerate(coarse)
        )

    def prepare(self, od: Float2D, weight: Float2D) -> CoarseImage:
        """Return the coarse image of a frame (binned optical density and weight) and its spectrum."""
        if weight is not self._support_of:
            self._support_of = weight
            self._lit_everywhere = bool(weight.min() > 0)
            self._support = np.maximum(bin_sum(weight, self.factor), 1e-3)
            self.weight = np.clip(self._support / self.factor**2, 0, 1)
        if self._lit_everywhere:
            small = bin_sum(od, self.factor)
            small *= np.float32(1 / self.factor**2)
        else:
            small = bin_sum(od * weight, self.factor)
            small /= self._support
        image: Float2D = small - self._mean_y @ small @ self._mean_x
        image *= self.weight
        image -= np.add.reduce(image, axis=None) / np.float32(image.size)
        return CoarseImage(image, self._spectrum(image))

    def _spectrum(self, image: Float2D) -> Complex2D:
        """Return the spectrum of the tapered and padded image; rows of padding need no transform of their own."""
        ny, nx = self._padded
        half = np.zeros((ny, nx // 2 + 1), np.complex64)
        half[: len(image)] = fft.rfft(image * self._taper, nx, axis=1, workers=self.workers)
        spectrum: Complex2D = fft.fft(half, axis=0, overwrite_x=True, workers=self.workers)
        return spectrum

    def candidates(self, reference: CoarseImage, moved: CoarseImage, count: int = 4) -> list[Candidate]:
        """Return coarse shifts from `reference` to `moved`, best first."""
        cross = moved.spectrum * reference.conjugate
        magnitude = np.abs(cross)
        magnitude += np.float32(1e-3) * magnitude.max() + np.float32(1e-20)
        # Softly whitened: over the power three quarters, by square roots because np.power takes ten times as long
        np.sqrt(magnitude, out=magnitude)
        magnitude *= np.sqrt(magnitude)
        np.divide(self._band, magnitude, out=magnitude)
        cross *= magnitude
        cross *= self._turn
        surface = fft.irfft2(cross, self._padded, workers=self.workers)
        searched = surface[self._searched]
        iy, ix = divmod(int(searched.argmax()), searched.shape[1])
        top = float(searched[iy, ix])
        if not top > 0:
            return []
        found = [self._verify(reference.image, moved.image, iy, ix, 1.0)]
        if found[0].correlation < SURE or not _stands_alone(searched, iy, ix, NO_RIVAL * top):
            found = self._several(searched, top, reference.image, moved.image, count)
        spread = float(np.sqrt(np.vdot(surface, surface) / surface.size))
        if found and found[0].height * top > LEAST_HEIGHT * spread and found[0].overlap > 1 - MOST_LEFT_OUT:
            found[0] = replace(found[0], near_yx=self._maximum(surface, found[0].shift_yx))
        return found

    def _several(
        self, searched: Float2D, top: float, reference: Float2D, moved: Float2D, count: int
    ) -> list[Candidate]:
        """Return candidates at the highest local maxima, best first."""
        peaks = _maxima(searched)
        found: list[Candidate] = []
        for _ in range(count):
            iy, ix = divmod(int(peaks.argmax()), peaks.shape[1])
            height = float(peaks[iy, ix])
            if not height > 0:
                break
            found.append(self._verify(reference, moved, iy, ix, height / top))
            peaks[max(iy - NEIGHBOUR, 0) : iy + NEIGHBOUR + 1, max(ix - NEIGHBOUR, 0) : ix + NEIGHBOUR + 1] = -np.inf
            if found[0].correlation > SURE and float(peaks.max()) < NO_RIVAL * top:
                break
        return sorted(found, key=lambda c: -c.score)

    def _maximum(self, surface: Float2D, shift_yx: tuple[int, int]) -> Float | None:
        """Return the maximum of a quadratic through one of the local maxima and its neighbours (binned px), or None when it is not there.

        Within 0.16 binned px of the shift, at most 0.43: near enough for the fine step, and a sixth of the time of a Newton search.
        """
        (dy, dx), (middle_y, middle_x) = shift_yx, self._middle
        y, x = dy // self.factor + middle_y, dx // self.factor + middle_x
        (a, up, b), (left, top, right), (c, down, d) = surface[y - 1 : y + 2, x - 1 : x + 2].tolist()
        yy, xx, yx = up - 2 * top + down, left - 2 * top + right, (a + d - b - c) / 4
        determinant = yy * xx - yx**2
        if not (determinant > 0 > yy):
            return None
        by_y, by_x = (down - up) / 2, (right - left) / 2
        step_y, step_x = (yx * by_x - xx * by_y) / determinant, (yx * by_y - yy * by_x) / determinant
        if max(abs(step_y), abs(step_x)) > FARTHEST:
            return None
        return np.array([dy + step_y * self.factor, dx + step_x * self.factor])

    def _verify(self, reference: Float2D, image: Float2D, iy: int, ix: int, height: float) -> Candidate:
        """Return the candidate at a pixel of the searched block, with its correlation over what both images have in common."""
        ny, nx = reference.shape
        dy, dx = iy + self._top_left[0], ix + self._top_left[1]
        shift_yx = (dy * self.factor, dx * self.factor)
        moved = image[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)]
        still = reference[max(-dy, 0) : ny + min(-dy, 0), max(-dx, 0) : nx + min(-dx, 0)]
        overlap = moved.size / image.size
        if overlap < LEAST_OVERLAP / 2:
            return Candidate(shift_yx, 0.0, overlap, height)
        a, b = moved.ravel(), still.ravel()
        sum_a, sum_b = float(np.add.reduce(a)), float(np.add.reduce(b))
        both = float(a @ b) - sum_a * sum_b / a.size
        scale = (float(a @ a) - sum_a**2 / a.size) * (float(b @ b) - sum_b**2 / a.size)
        return Candidate(shift_yx, both / max(math.sqrt(max(scale, 0.0)), 1e-20), overlap, height)


def _stands_alone(surface: Float2D, iy: int, ix: int, limit: float) -> bool:
    """Whether no other local maximum reaches `limit`, as far as that can be told without looking for them on the whole surface.

    Beyond its slopes nothing at all may; on them, no maximum.
    """
    ny, nx = surface.shape
    top, bottom, left, right = iy - SLOPE, iy + SLOPE + 1, ix - SLOPE, ix + SLOPE + 1
    if top < 1 or left < 1 or bottom > ny - 1 or right > nx - 1:
        return False
    around = (surface[:top], surface[bottom:], surface[top:bottom, :left], surface[top:bottom, right:])
    if max(float(part.max()) for part in around) >= limit:
        return False
    slopes = _maxima(surface[top - 1 : bottom + 1, left - 1 : right + 1])
    own = slice(SLOPE + 1 - NEIGHBOUR, SLOPE + 2 + NEIGHBOUR)
    slopes[own, own] = -np.inf
    return float(slopes.max()) < limit


def _maxima(surface: Float2D) -> Float2D:
    """Return the surface with all but its local maxima set to -inf: the slope of a wide peak is no candidate of its own."""
    middle = surface[1:-1, 1:-1]
    highest = (middle >= surface[:-2, 1:-1]) & (middle >= surface[2:, 1:-1])
    highest &= (middle >= surface[1:-1, :-2]) & (middle >= surface[1:-1, 2:])
    result = np.full_like(surface, -np.inf)
    np.copyto(result[1:-1, 1:-1], middle, where=highest)
    return result
