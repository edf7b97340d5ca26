"""Sums over the frames of a cube from which every pixel's fit follows: moments with the basis functions, and their Gram matrix."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field

import numpy as np

from xbat_live.spectra.checks import Float, Float32, Mask
from xbat_live.spectra.shifted import ShiftedReferences

BACKGROUND = 2
LEAST_LIT = 0.5
MOST_MISSING = 0.25
LEAST_MISSING = 8
_EMPTY = np.zeros(0, np.int64)


@dataclass
class Missing:
    """Samples that do not count: pairs of row (frame) and pixel."""

    row: list[np.ndarray] = field(default_factory=list)
    pixel: list[np.ndarray] = field(default_factory=list)

    def add(self, row: np.ndarray, pixel: np.ndarray) -> None:
        """Append pairs."""
        self.row.append(row)
        self.pixel.append(pixel)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and pixels, sorted by pixel."""
        if not self.pixel:
            return _EMPTY, _EMPTY
        row, pixel = np.concatenate(self.row), np.concatenate(self.pixel)
        order = np.argsort(pixel, kind="stable")
        return row[order], pixel[order]


class Moments:
    """Accumulates frames.

    Parameters
    ----------
    basis
        Functions that the references are made of.
    pixels
        Number of pixels.
    centre_ev, scale_ev
        Origin and unit of the background's slope.
    planned
        Number of frames that will come, if known; decides when a pixel has missed too many.
    """

    def __init__(
        self, basis: ShiftedReferences, pixels: int, centre_ev: float, scale_ev: float, planned: int | None = None
    ) -> None:
        self.basis = basis
        self.pixels = pixels
        self.size = BACKGROUND + basis.rank
        self._centre, self._scale = centre_ev, scale_ev
        self.gram: Float = np.zeros((self.size, self.size))
        self.sums: Float32 = np.zeros((self.size, pixels), np.float32)
        self.square: Float = np.zeros(pixels)
        self.rows: list[Float] = []
        self.missing = Missing()
        self._missed = np.zeros(pixels, np.int32)
        self._most = max(LEAST_MISSING, int(MOST_MISSING * (planned or 0)))
        self.dead: Mask = np.zeros(pixels, bool)
        self.dropped_frames = 0
        self._fullest: int = 0

    @property
    def frames(self) -> int:
        """Frames that count."""
        return len(self.rows)

    def functions(self, energy_ev: Float) -> Float:
        """Return the design at nominal energies, (n, size): 1, slope, u_r."""
        line = (energy_ev - self._centre) / self._scale
        return np.column_stack([np.ones_like(line), line, self.basis.functions(energy_ev)])

    def add(self, block: Float32, energy_ev: Float) -> Mask:
        """Take frames (m, pixels) at their energies (m,); returns which of them count.

        A frame is left out when its energy is outside the references, or it holds less than half the numbers of the fullest frame
        so far; single samples that are not finite are left out of their pixel's sums.
        """
        used = self.basis.covered(energy_ev)
        finite = np.isfinite(block.sum(axis=1, dtype=np.float64))
        bad: list[tuple[int, np.ndarray]] = []
        for number in np.flatnonzero(used & ~finite):
            where = np.flatnonzero(~np.isfinite(block[number]))
            held = int(self.pixels - where.size)
            if held == 0 or held < LEAST_LIT * self._fullest:
                used[number] = False
            else:
                bad.append((int(number), where))
                self._fullest = max(int(self._fullest), held)
        if (used & finite).any():
            self._fullest = self.pixels
        self.dropped_frames += int((~used).sum())
        if not used.any():
            return used
        if bad or not used.all():
            place = np.cumsum(used) - 1 + self.frames
            block = np.array(block)
            for row, where in bad:
                block[row, where] = 0
                self._count_missing(int(place[row]), where)
            block = block[used]
        rows = self.functions(energy_ev[used])
        self.rows.extend(rows)
        self.gram += rows.T @ rows
        self.sums += rows.T.astype(np.float32) @ block
        self.square += np.einsum("np,np->p", block, block)
        return used

    def copy(self) -> Moments:
        """Return a copy whose sums and missing samples may be changed."""
        other = copy(self)
        other.sums, other.gram = self.sums.copy(), self.gram.copy()
        other.missing = Missing(list(self.missing.row), list(self.missing.pixel))
        return other

    def design(self) -> Float:
        """Return the rows of all frames that count, (frames, size)."""
        return np.array(self.rows).reshape(-1, self.size)

    def _count_missing(self, row: int, where: np.ndarray) -> None:
        self._missed[where] += 1
        alive = where[~self.dead[where]]
        self.missing.add(np.full(alive.size, row), alive)
        self.dead[alive[self._missed[alive] > self._most]] = True
