"""Principal components of the spectra of all pixels, from a Gram matrix that grows with what comes: memory does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import Float
from xbat_live.spectra.rows import Rows, spectra_rows


class PcaAccumulator:
    """Mean and covariance of spectra that come in parts: cubes, slabs of a cube, averages over masks, of any number of cubes.

    Memory is that of one (n_energy, n_energy) matrix, however many pixels come. Single frames cannot be taken: a covariance between
    energies needs all energies of a pixel at once.

    Parameters
    ----------
    n_energy
        Energies of every spectrum.

    Attributes
    ----------
    count
        Spectra taken.
    masked_count
        Spectra left out: NaN, infinite, or nothing but zeros.
    """

    def __init__(self, n_energy: int) -> None:
        self.count = self.masked_count = 0
        self._size = int(n_energy)
        self._origin: Float | None = None
        self._sum: Float = np.zeros(self._size)
        self._gram: Float = np.zeros((self._size, self._size))

    def update(self, data: ArrayLike) -> None:
        """Take in a cube, or a slab of one, (n_energy, ny, nx), or spectra as rows, (n, n_energy); all on the same energies.

        Raises
        ------
        ValueError
            Another number of energies, no pixel with a spectrum, a frame without finite numbers.
        """
        rows = spectra_rows(data, "pca")
        if rows.lit.size != self._size:
            raise ValueError(f"pca: spectra of {rows.lit.size} energies, those before had {self._size}")
        if not rows.lit.all():
            raise ValueError(
                f"pca: {int((~rows.lit).sum())} of {self._size} energies are dark; leave these frames out everywhere"
            )
        self.add_rows(rows)

    def result(self, count: int | None = None) -> tuple[Float, Float]:
        """Return variances (m,), descending, and components (m, n_energy), orthonormal; see `pca`.

        Raises
        ------
        ValueError
            Fewer than two spectra so far.
        """
        if self.count < 2:
            raise ValueError(f"pca: {self.count} spectra: at least two are needed")
        mean = self._sum / self.count
        covariance = (self._gram - self.count * np.outer(mean, mean)) / (self.count - 1)
        values, vectors = np.linalg.eigh(covariance)
        most = min(self._size if count is None else int(count), self._size)
        variance: Float = np.maximum(values[::-1][:most], 0.0)
        components = vectors.T[::-1][:most]
        largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
        return variance, components * np.sign(largest)

    def add_rows(self, rows: Rows) -> None:
        """Take in checked rows."""
        self.count += rows.count
        self.masked_count += rows.masked_count
        for _, block in rows.blocks():
            if (
                self._origin is None
            ):  # sums of squares about a spectrum of the data, not about 0: single precision is enough
                self._origin = block.mean(axis=0, dtype=np.float64)
            rest = block - self._origin.astype(block.dtype)
            self._gram += rest.T @ rest
            self._sum += rest.sum(axis=0, dtype=np.float64)


def pca(cube: ArrayLike, count: int | None = None) -> tuple[Float, Float]:
    """Return the variance along the principal components of a cube's spectra, and the components.

    Parameters
    ----------
    cube
        (n_energy, ny, nx), or spectra as rows (n, n_energy). Pixels with NaN, infinite or no values are left out; an energy that is NaN
        in most pixels is left out, and 0 in the components.
    count
        Components wanted; None: all.

    Returns
    -------
    variance
        (m,) float64, descending, in squares of the cube's unit; over all components it sums up to the total variance.
    components
        (m, n_energy) float64, orthonormal; each one's largest value is positive.

    Raises
    ------
    ValueError
        Data that are no cube, fewer than two pixels with a spectrum.
    """
    rows = spectra_rows(cube, "pca")
    taken = PcaAccumulator(int(rows.lit.sum()))
    taken.add_rows(rows)
    variance, components = taken.result(count)
    return variance, rows.at_all_energies(components, 0.0)
