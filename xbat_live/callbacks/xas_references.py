"""Component spectra from the data: averages of pixels of like dose rate, their extremes, and MCR-ALS once there is variety."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from xbat_live.spectra import mcr_als, normalise

logger = logging.getLogger(__name__)

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

GRID_EV = 0.5
_SHIFT_BIN_EV = 0.25
_MOST_KEPT = 400
_NEAR_EDGE_EV = (-40.0, 110.0)
_LEAST_CHANGE = 0.03  # root mean square near the edge, between the two extremes: less is not two components
_LEAST_SHARE = 0.01  # of the pixels, for an interval that counts
_LEAST_FOR_MCR = 24
_ALIKE = 0.01


def mask_spectra(
    cube: Float32, energy_ev: Float, labels: npt.NDArray[np.int32], shift_ev: Float
) -> tuple[Float, Float, Float]:
    """Return the mean absorbance of every interval of dose rate, against true energy.

    Pixels are shifted before they are averaged, in groups of like shift: nothing is resampled pixel by pixel.

    Returns
    -------
    grid_ev, spectra, counts
        (n,), (intervals, n), (intervals,) pixels.
    """
    from scipy.sparse import csr_matrix

    order = np.argsort(energy_ev)
    energies = np.asarray(energy_ev, np.float64)[order]
    flat = cube.reshape(len(cube), -1)
    label, shift = np.ravel(labels), np.ravel(shift_ev)
    good = (label >= 0) & np.isfinite(shift) & np.isfinite(flat.sum(axis=0))
    pixels = np.flatnonzero(good)
    number = int(label.max()) + 1
    low = float(shift[pixels].min()) if pixels.size else 0.0
    bins = np.rint((shift[pixels] - low) / _SHIFT_BIN_EV).astype(np.intp)
    groups = int(bins.max()) + 1 if pixels.size else 1
    code = label[pixels] * groups + bins
    members = csr_matrix((np.ones(pixels.size, np.float32), (code, pixels)), shape=(number * groups, flat.shape[1]))
    sums = np.stack([np.asarray(members @ frame) for frame in flat[order]])  # (n_energy, groups)
    counts = np.bincount(code, minlength=number * groups).astype(np.float64)
    high = low + (groups - 1) * _SHIFT_BIN_EV
    grid = np.arange(np.ceil(energies[0] + high), np.floor(energies[-1] + low), GRID_EV)
    spectra = np.zeros((number, grid.size))
    for group in np.flatnonzero(counts):
        mean = sums[:, group] / counts[group]
        at = energies + low + (group % groups) * _SHIFT_BIN_EV
        spectra[group // groups] += counts[group] * np.interp(grid, at, mean)
    totals = counts.reshape(number, groups).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spectra /= totals[:, None]
    return grid, spectra, totals


class GrowingReferences:
    """Component spectra: those given, or what the mask averages of all cubes so far say.

    Two to begin with, what the sample was at first and the spectrum farthest from it. With more variety as many as wanted: those two
    stay, and MCR-ALS finds the others between them. Without ends that stay it could take mixtures of them as well as them.

    Parameters
    ----------
    components
        How many are wanted.
    pre_edge_ev, post_edge_ev
        Windows for normalising, eV.
    given
        Energies (n,) and spectra (k, n); None: from the data.
    """

    def __init__(
        self,
        components: int,
        pre_edge_ev: tuple[float, float],
        post_edge_ev: tuple[float, float],
        given: tuple[Float, Float] | None = None,
    ) -> None:
        self.components = components
        self.given = given is not None
        self._windows = pre_edge_ev, post_edge_ev
        self._grid: Float | None = None
        self._rows: list[Float] = []
        self._weights: list[float] = []
        self.known: tuple[Float, Float] | None = given
        self.e0_ev = float("nan")
        self._first = 0

    def add(self, grid_ev: Float, spectra: Float, counts: Float) -> None:
        """Add the mask averages of one cube, absorbance (intervals, n) on `grid_ev`, and find the references anew."""
        pre, post = self._windows
        good = np.flatnonzero((counts >= max(8, _LEAST_SHARE * counts.sum())) & np.isfinite(spectra).all(axis=1))
        if not good.size:
            return
        if not np.isfinite(self.e0_ev):
            self.e0_ev = float(grid_ev[np.argmax(np.gradient(spectra[good].mean(axis=0), grid_ev))])
        normal = normalise(spectra[good].T[:, :, None].astype(np.float32), grid_ev, self.e0_ev, pre, post)
        rows = np.asarray(normal[:, :, 0].T, np.float64)
        if self._grid is None:
            self._grid = grid_ev
        for row, weight in zip(rows, counts[good], strict=True):
            if np.isfinite(row).all():
                self._rows.append(np.interp(self._grid, grid_ev, row))
                self._weights.append(float(weight))
        if len(self._rows) > _MOST_KEPT:  # every other one of the older half: the first cube stays
            drop = range(len(self._rows) // 2 - 1, self._first, -2)
            for index in drop:
                del self._rows[index], self._weights[index]
        self._first = self._first or len(self._rows)
        self._refresh()

    def _refresh(self) -> None:
        assert self._grid is not None
        rows = np.asarray(self._rows)
        near = (self._grid > self.e0_ev + _NEAR_EDGE_EV[0]) & (self._grid < self.e0_ev + _NEAR_EDGE_EV[1])
        weights = np.asarray(self._weights)
        first = np.average(rows[: self._first], axis=0, weights=weights[: self._first])
        away = np.sqrt(np.square(rows[:, near] - first[near]).mean(axis=1))
        farthest = int(np.argmax(away))
        if away[farthest] < _LEAST_CHANGE:
            return
        ends = np.stack([first, _mean_of_alike(rows, weights, rows[farthest], near)])
        self.known = (self._grid, ends)
        if self.components < 3 or len(rows) < _LEAST_FOR_MCR:
            return
        start = _spread_out(rows[:, near], self.components, (0, farthest))
        initial = rows[start][:, near]
        initial[:2] = ends[:, near]
        try:  # ends that stay: nothing else decides between mixtures of the same residual
            found = mcr_als(rows[:, near], self.components, initial=initial, fixed=[0, 1])
        except ValueError as error:
            logger.warning("MCR-ALS: %s; two end members are used", error)
            return
        spectra, grid = np.asarray(found.spectra, np.float64), self._grid[near]
        order = np.argsort([_edge(grid, spectrum) for spectrum in spectra])
        self.known = (grid, spectra[order])


def _mean_of_alike(rows: Float, weights: Float, like: Float, near: npt.NDArray[np.bool_]) -> Float:
    """Return the mean of the spectra that are as good as `like`: less noise than one alone."""
    distance = np.sqrt(np.square(rows[:, near] - like[near]).mean(axis=1))
    alike = distance <= _ALIKE
    return np.asarray(np.average(rows[alike], axis=0, weights=weights[alike]))


def _spread_out(rows: Float, count: int, first: tuple[int, ...]) -> list[int]:
    """Return `count` rows that span the others best: each next one is farthest from the plane of those before."""
    chosen = list(first)
    while len(chosen) < count:
        basis = rows[chosen] - rows[chosen[0]]
        rest = rows - rows[chosen[0]]
        coefficients, *_ = np.linalg.lstsq(basis[1:].T, rest.T, rcond=None)
        distance = np.linalg.norm(rest.T - basis[1:].T @ coefficients, axis=0)
        chosen.append(int(np.argmax(distance)))
    return chosen


def _edge(grid_ev: Float, spectrum: Float) -> float:
    above = np.flatnonzero(spectrum >= 0.5 * spectrum.max() / 1.4)
    return float(grid_ev[above[0]]) if above.size else float(grid_ev[-1])
