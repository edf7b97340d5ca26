"""Second look at the frames of a cube: what they have in common, residuals, R-factor, and samples that are no absorption.

Samples that are no absorption are diamond reflections, hits of the sensor, spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.spectra.checks import Float, Float32
from xbat_live.spectra.frame_offsets import common_offsets, sample_of
from xbat_live.spectra.moments import Moments
from xbat_live.spectra.solving import Solution, coefficients, solve, solve_missing
from xbat_live.spectra.threads import in_threads

LIMIT_SIGMA = 6.0
MOST_REJECTED = 0.06
MOST_ROUNDS = 4
_PIXELS_AT_ONCE, _PIXELS_IN_CACHE = 4096, 1024
_MEAN_TO_SIGMA = float(np.sqrt(np.pi / 2))  # of a Gaussian


@dataclass
class Looked:
    """What the second look found; arrays over pixels unless said otherwise.

    Attributes
    ----------
    solution
        With the common offsets and the rejected samples left out.
    rejected
        Number of samples left out.
    squares, signal
        Sum of squared residuals, and of the squared absorbance above the background, all finite samples.
    variance
        Of one sample, from those that count.
    offsets
        What each frame has in common in all pixels, (frames,); 0 when no more than noise gives.
    misfit
        See `FractionMaps.misfit`.
    """

    solution: Solution
    rejected: np.ndarray
    squares: Float
    signal: Float
    variance: Float
    offsets: Float
    misfit: float | None


class SecondLook:
    """Looks through kept frames; works on its own copy of the sums.

    Parameters
    ----------
    moments
        Sums of the frames.
    frames
        The same frames in blocks, each (m, pixels).
    bins, which
        Shifts, and the bin of each pixel.
    """

    def __init__(self, moments: Moments, frames: list[Float32], bins: Float, which: np.ndarray) -> None:
        self._moments = moments.copy()
        self._frames, self._bins, self._which = frames, bins, which
        self._weights = moments.basis.weights(bins)
        self._design = moments.design().astype(np.float32)
        self._line, self._functions = (np.ascontiguousarray(part) for part in np.split(self._design, [2], axis=1))
        self._offsets: Float = np.zeros(len(self._design))
        self._known = self._moments.missing.pairs()
        pixels = moments.pixels
        self._rejected = np.zeros(pixels, np.int32)
        self._squares, self._signal, self._kept = np.zeros(pixels), np.zeros(pixels), np.zeros(pixels)
        self._least = moments.basis.count + 2

    def look(self) -> Looked:
        """Return the solution without common offsets and without samples more than `LIMIT_SIGMA` off.

        The scale is that of the pixel itself, from the mean absolute residual, which a few wild samples hardly move. A pixel of which
        more than `MOST_REJECTED` would go is described badly, not glitched: it keeps its samples.
        """
        solution = solve(self._moments, self._bins, self._which)
        misfit = self._take_out_common(solution)
        if self._offsets.any():
            solution = solve(self._moments, self._bins, self._which)
        candidates = self._look_through(solution)
        for _ in range(MOST_ROUNDS):
            if not candidates.size:
                break
            candidates = self._reject(candidates, solution)
        variance = self._kept / np.maximum(solution.samples - self._least, 1)
        return Looked(solution, self._rejected, self._squares, self._signal, variance, self._offsets, misfit)

    def _take_out_common(self, solution: Solution) -> float | None:
        jump = solution.amounts.sum(0)
        chosen = sample_of(self._moments, jump > 0.2 * np.median(jump))
        measured = np.concatenate([block[:, chosen] for block in self._frames]).astype(np.float64)
        common = common_offsets(self._moments, self._weights, self._which[chosen], measured)
        if common.offsets.any():
            self._offsets = common.offsets
            self._moments.sums -= (self._design.T @ common.offsets.astype(np.float32))[:, None]
            rows, pixels = self._known  # they were never in the sums
            back = self._design[rows] * common.offsets[rows, None].astype(np.float32)
            np.add.at(self._moments.sums.T, pixels, back)
        return common.misfit

    def _look_through(self, solution: Solution) -> np.ndarray:
        """Fill squares and signal, and return the pixels with wild samples."""
        pixels = self._moments.pixels
        frames = max(len(self._design) - self._least, 1)

        def look(start: int) -> np.ndarray:
            part = slice(start, min(start + _PIXELS_IN_CACHE, pixels))
            rest, _, above = self._residual(solution, part)
            self._squares[part] = self._kept[part] = np.einsum("np,np->p", rest, rest)
            above += rest
            self._signal[part] = np.einsum("np,np->p", above, above)
            np.abs(rest, out=rest)
            scale = rest.sum(0) * np.float32(_MEAN_TO_SIGMA / frames)
            wild = rest.max(0) > LIMIT_SIGMA * scale + 1e-12
            return np.flatnonzero(wild & ~self._moments.dead[part]) + start

        return np.concatenate(in_threads(look, range(0, pixels, _PIXELS_IN_CACHE)))

    def _reject(self, candidates: np.ndarray, solution: Solution) -> np.ndarray:
        """Take the wild samples of the candidates out of the sums, solve them again, and return the pixels that had any."""
        moments = self._moments
        most = max(int(MOST_REJECTED * len(self._design)), 1)
        changed: list[np.ndarray] = []
        for start in range(0, candidates.size, _PIXELS_AT_ONCE):
            chosen = candidates[start : start + _PIXELS_AT_ONCE]
            rest, measured, _ = self._residual(solution, chosen)
            self._kept[chosen] = np.einsum("np,np->p", rest, rest)
            np.abs(rest, out=rest)
            used = np.maximum(solution.samples[chosen] - self._least, 1)
            wild = rest > LIMIT_SIGMA * rest.sum(0) * (_MEAN_TO_SIGMA / used) + 1e-12
            wild[:, self._rejected[chosen] + wild.sum(0) > most] = False
            rows, columns = np.nonzero(wild)
            if rows.size == 0:
                continue
            values, pixels = measured[rows, columns], chosen[columns]
            np.subtract.at(moments.sums.T, pixels, self._design[rows] * values[:, None])
            np.add.at(self._rejected, pixels, 1)
            moments.missing.add(rows, pixels)
            changed.append(np.unique(pixels))
        if not changed:
            return np.zeros(0, np.int64)
        self._known = moments.missing.pairs()
        solve_missing(moments, self._weights, self._which, solution)
        return np.concatenate(changed)

    def _residual(self, solution: Solution, part: slice | np.ndarray) -> tuple[Float32, Float32, Float32]:
        """Return residual (0 where a sample is missing), measured, and fitted above the background, each (frames, m)."""
        fitted = coefficients(solution, self._weights, self._which, part).astype(np.float32)
        measured = np.concatenate([block[:, part] for block in self._frames])
        if self._offsets.any():
            measured -= self._offsets.astype(np.float32)[:, None]
        above = self._functions @ fitted[2:]
        rest = self._line @ fitted[:2]
        rest += above
        np.subtract(measured, rest, out=rest)
        gone = self._missing_in(part)
        rest[gone] = 0
        above[gone] = 0
        if self._moments.dead[part].any():
            rest[:, self._moments.dead[part]] = 0
        return rest, measured, above

    def _missing_in(self, part: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, pixels = self._known
        if isinstance(part, slice):
            low, high = np.searchsorted(pixels, [part.start, part.stop])
            return rows[low:high], pixels[low:high] - part.start
        place = np.minimum(np.searchsorted(part, pixels), part.size - 1)
        here = part[place] == pixels
        return rows[here], place[here]
