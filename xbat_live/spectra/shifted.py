"""Reference spectra at any small shift in energy as combinations of a few functions, so that no measured spectrum is resampled.

``mu_k(E + s) = sum_r g_kr(s) u_r(E)``: what a pixel measures is summed up in its moments with the functions ``u_r`` of the nominal
energy, the same for all pixels, and the pixel's own shift ``s`` enters only in the small matrix ``g(s)``.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, make_interp_spline

from xbat_live.spectra.checks import Float, Mask

TRUNCATION = 1e-4
BIN_EV = 0.005
MAX_SHIFT_EV = 100.0
BEYOND_EV = 3.0
_GRID_EV = 0.15
_MOST_GRID = 6000
_NODE_EV = 0.25
_LEAST_NODES = 9


class ShiftedReferences:
    """Reference spectra for a range of shifts.

    Parameters
    ----------
    references, references_energy_ev
        Checked spectra (k, n), ascending energies (n,).
    low_ev, high_ev
        Range of the shift, eV.

    Attributes
    ----------
    rank
        Number of functions.
    first_ev, last_ev
        Energies that the references cover.
    """

    def __init__(self, references: Float, references_energy_ev: Float, low_ev: float, high_ev: float) -> None:
        if high_ev - low_ev > MAX_SHIFT_EV or max(abs(low_ev), abs(high_ev)) > 10 * MAX_SHIFT_EV:
            raise ValueError(
                f"shifts of {low_ev:g} to {high_ev:g} eV: more than {MAX_SHIFT_EV:g} eV between pixels is not a calibration; "
                "mask the pixels whose calibration failed with NaN"
            )
        self.first_ev, self.last_ev = float(references_energy_ev[0]), float(references_energy_ev[-1])
        self.low_ev, self.high_ev = low_ev, high_ev
        spline = make_interp_spline(references_energy_ev, references, k=_odd_degree(len(references_energy_ev)), axis=1)
        first, last = self.first_ev - high_ev - BEYOND_EV, self.last_ev - low_ev + BEYOND_EV
        step = min(max(_GRID_EV, (last - first) / _MOST_GRID), float(np.median(np.diff(references_energy_ev))))
        grid = np.linspace(first, last, max(int(np.ceil((last - first) / step)), 8) + 1)
        width = high_ev - low_ev
        count = 1 if width <= 0 else max(_LEAST_NODES, int(np.ceil(width / _NODE_EV)) + 1)
        nodes = np.linspace(low_ev, high_ev, count)
        shifted = np.stack([spline(np.clip(grid + s, self.first_ev, self.last_ev)) for s in nodes])  # (nodes, k, grid)
        k = shifted.shape[1]
        flat = shifted.reshape(count * k, -1)
        scale = max(float(np.abs(flat).max()), 1e-12)
        left, values, right = np.linalg.svd(flat, full_matrices=False)
        self.rank = int(np.clip(_kept(left, values, right, TRUNCATION * scale), 1, len(values)))
        self._functions = CubicSpline(grid, right[: self.rank].T)
        weights = (left[:, : self.rank] * values[: self.rank]).reshape(count, k, self.rank)
        self._weights = CubicSpline(nodes, weights) if count > 1 else None
        self._constant = weights[0]
        self.count = k

    def functions(self, energy_ev: Float) -> Float:
        """Return ``u_r`` at nominal energies, (n, rank)."""
        result: Float = self._functions(energy_ev)
        return result

    def weights(self, shift_ev: Float) -> Float:
        """Return ``g_kr`` at shifts (m,), (m, k, rank)."""
        if self._weights is None:
            return np.broadcast_to(self._constant, (len(shift_ev), *self._constant.shape))
        result: Float = self._weights(np.clip(shift_ev, self.low_ev, self.high_ev))
        return result

    def covered(self, energy_ev: Float) -> Mask:
        """Return which nominal energies lie within the references for every shift, `BEYOND_EV` over the ends allowed."""
        mask: Mask = (energy_ev + self.low_ev >= self.first_ev - BEYOND_EV) & (
            energy_ev + self.high_ev <= self.last_ev + BEYOND_EV
        )
        return mask


def shift_bins(shift_ev: Float) -> tuple[Float, np.ndarray]:
    """Return the different shifts in steps of `BIN_EV`, (m,), and which of them each pixel has, (n,); NaN counts as 0."""
    steps = np.rint(np.nan_to_num(shift_ev) / BIN_EV).astype(np.int64)
    lowest = int(steps.min(initial=0))
    used = np.flatnonzero(np.bincount(steps - lowest)) if steps.size else np.zeros(1, np.int64)
    place = np.zeros(int(used[-1]) + 1, np.int32)
    place[used] = np.arange(used.size)
    return np.asarray((used + lowest) * BIN_EV, np.float64), place[steps - lowest]


def _kept(left: Float, values: Float, right: Float, tolerance: float) -> int:
    """Fewest functions that reproduce every spectrum everywhere within `tolerance`."""
    rest = (left * values) @ right
    for number in range(len(values)):
        if np.abs(rest).max() <= tolerance:
            return number
        rest -= np.outer(left[:, number] * values[number], right[number])
    return len(values)


def _odd_degree(points: int) -> int:
    """Degree of the interpolating spline: at one point per eV a cubic one would be 1e-4 off in an edge 2 eV wide."""
    degree = min(5, points - 1)
    return degree if degree % 2 else degree - 1
