"""Spectra of many pixels as rows: cubes and matrices alike, pixels that are not told left out and counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.spectra.checks import log

LEAST_LIT = 0.5
_PIXELS_AT_ONCE = 4096


@dataclass(frozen=True)
class Rows:
    """Spectra as rows, (n, p), float32 or float64, in any memory layout.

    Attributes
    ----------
    values
        All of them, as given.
    chosen
        Rows that count, None: all.
    lit
        Energies that count, (p,) bool of the data as given; `values` hold only these.
    image
        (ny, nx) of a cube; None when rows were given.
    """

    values: NDArray[np.floating]
    chosen: np.ndarray | None
    lit: np.ndarray
    image: tuple[int, int] | None

    @property
    def count(self) -> int:
        """Rows that count."""
        return len(self.values) if self.chosen is None else int(self.chosen.size)

    @property
    def masked_count(self) -> int:
        """Rows that do not."""
        return len(self.values) - self.count

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Yield some thousand rows at a time, with their place among those that count."""
        for start in range(0, self.count, _PIXELS_AT_ONCE):
            part = slice(start, min(start + _PIXELS_AT_ONCE, self.count))
            yield part, self.values[part] if self.chosen is None else self.values[self.chosen[part]]

    def spread(self, values: NDArray[np.floating], fill: float = np.nan) -> NDArray[np.float64]:
        """Return what was found for the rows that count, (..., count), at the places of all: (..., n) or (..., ny, nx)."""
        shape = (*values.shape[:-1], len(self.values))
        whole = np.full(shape, fill)
        whole[..., slice(None) if self.chosen is None else self.chosen] = values
        return whole if self.image is None else whole.reshape(*shape[:-1], *self.image)

    def at_all_energies(self, spectra: NDArray[np.floating], fill: float) -> NDArray[np.float64]:
        """Return spectra (k, energies that count) at all energies of the data as given."""
        whole = np.full((len(spectra), self.lit.size), fill)
        whole[:, self.lit] = spectra
        return whole


def spectra_rows(data: ArrayLike, what: str) -> Rows:
    """Return cubes (n_energy, ny, nx) and matrices (n, n_energy) as rows; nothing is copied unless the dtype must change.

    A row with NaN or infinite values, or nothing but zeros, is masked; so is an energy at which hardly any row is finite (a saturated
    or lost frame), so that it does not mask all rows. How many is logged.

    Raises
    ------
    ValueError
        Not two or three axes, one of them empty, not numbers, or no row with a spectrum.
    """
    array = np.asarray(data)
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{what}: data of shape {array.shape} and type {array.dtype}; expected real numbers, a cube (n_energy, ny, nx) or "
            "spectra as rows (n, n_energy)"
        )
    image = None if array.ndim == 2 else (array.shape[1], array.shape[2])
    values = array if array.ndim == 2 else array.reshape(len(array), -1).T
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32)
    lit = np.ones(values.shape[1], bool)
    good = _good(values)
    if not good.all():
        finite = np.isfinite(values).sum(0)
        dark = finite < LEAST_LIT * finite.max(initial=0)
        if dark.any():
            lit = ~dark
            values = values[:, lit]
            log.warning("%s: %d of %d energies left out: hardly a finite number", what, int(dark.sum()), dark.size)
            good = _good(values)
    if not good.any():
        raise ValueError(
            f"{what}: none of {good.size} pixels has a spectrum (dark, saturated or NaN); was the shutter open, is there a beam?"
        )
    if good.all():
        return Rows(values, None, lit, image)
    log.warning("%s: %d of %d pixels masked: dark or not finite", what, int((~good).sum()), good.size)
    return Rows(values, np.flatnonzero(good), lit, image)


def _good(values: NDArray[np.floating]) -> np.ndarray:
    good = np.empty(len(values), bool)
    for start in range(0, len(values), _PIXELS_AT_ONCE):
        block = values[start : start + _PIXELS_AT_ONCE]
        size = np.abs(block).sum(axis=1)
        good[start : start + _PIXELS_AT_ONCE] = np.isfinite(size) & (size > 0)
    return good
