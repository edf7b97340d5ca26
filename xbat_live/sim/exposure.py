"""When the beam was on, and the true dose map it left on the sample."""

from __future__ import annotations

from collections import deque
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xbat_live.sim.optics import BeamProfile
from xbat_live.sim.settings import TwinSettings

__all__ = ["DoseTruth", "ShutterLog", "check_share"]

_Float64 = npt.NDArray[np.float64]

_MARGIN_UM = 25.0
_UM2_PER_CM2 = 1e8
_INTERVALS_KEPT = 4096


class ShutterLog:
    """Opening intervals of the shutter in clock seconds."""

    def __init__(self) -> None:
        self._intervals: deque[tuple[float, float]] = deque(maxlen=_INTERVALS_KEPT)
        self._closed_total_s = 0.0
        self.opened_at_s: float | None = None

    def open(self, at_s: float) -> bool:
        """Note an opening; False when it was open already."""
        if self.opened_at_s is not None:
            return False
        self.opened_at_s = at_s
        return True

    def close(self, at_s: float) -> bool:
        """Note a closing; False when it was closed already."""
        if self.opened_at_s is None:
            return False
        at_s = max(at_s, self.opened_at_s)
        self._intervals.append((self.opened_at_s, at_s))
        self._closed_total_s += at_s - self.opened_at_s
        self.opened_at_s = None
        return True

    def total_s(self, now_s: float) -> float:
        """Open time up to `now_s`, s."""
        running = 0.0 if self.opened_at_s is None else max(0.0, now_s - self.opened_at_s)
        return self._closed_total_s + running

    def overlap_s(self, start_s: float, end_s: float) -> float:
        """Open time within [start_s, end_s], s."""
        total = 0.0
        for opened, closed in reversed(self._intervals):
            if closed <= start_s:
                break
            total += max(0.0, min(closed, end_s) - max(opened, start_s))
        if self.opened_at_s is not None:
            total += max(0.0, end_s - max(self.opened_at_s, start_s))
        return total


class DoseTruth:
    """Dose in the active material on a fine grid in sample coordinates (`dose_grid_um`, the sample and 25 um around it).

    Parameters
    ----------
    settings
        Size of the sample, pixel of the grid.
    beam
        Footprint of the beam (its fine structure is left out: it averages to zero).
    """

    def __init__(self, settings: TwinSettings, beam: BeamProfile) -> None:
        self._beam = beam
        self._size_um = settings.sample_size_um
        self.x_um, self.y_um = (_axis(size, settings.dose_grid_um) for size in settings.sample_size_um)
        self.dose_gy = np.zeros((self.y_um.size, self.x_um.size))
        self.peak_rate_gy_s = np.zeros_like(self.dose_gy)
        self.version = 0

    def deposit(self, centre_yx_um: tuple[float, float], open_s: float, flux_ph_s: float, gy_cm2: float) -> None:
        """Add the dose of `open_s` s of beam centred on `centre_yx_um` (sample coordinates); negative takes back."""
        along_y = self._beam.along("y", self.y_um - centre_yx_um[0])
        along_x = self._beam.along("x", self.x_um - centre_yx_um[1])
        rows, columns = (np.flatnonzero(profile > 1e-9 * max(profile.max(), 1e-300)) for profile in (along_y, along_x))
        if not rows.size or not columns.size or flux_ph_s <= 0:
            return
        region = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        rate = np.outer(along_y[region[0]] * (flux_ph_s * _UM2_PER_CM2 * gy_cm2), along_x[region[1]])
        self.dose_gy[region] += rate * open_s
        np.maximum(self.peak_rate_gy_s[region], rate, out=self.peak_rate_gy_s[region])
        self.version += 1

    @cached_property
    def _on_sample(self) -> tuple[slice, slice]:
        """Grid region within the outline."""
        edges = []
        for axis, size in zip((self.y_um, self.x_um), self._size_um[::-1], strict=True):
            inside = np.flatnonzero(np.abs(axis) <= size / 2)
            edges.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return edges[0], edges[1]

    def peak_gy(self) -> float:
        """Largest dose on the sample, Gy."""
        return float(self.dose_gy[self._on_sample].max())

    def on_cells(self, shape: tuple[int, int]) -> _Float64:
        """Mean dose in Gy on `shape` equal cells that divide the outline."""
        size_x, size_y = self._size_um
        rows, columns = _cell_starts(self.y_um, size_y, shape[0]), _cell_starts(self.x_um, size_x, shape[1])
        inside = self.dose_gy[rows[0] : rows[-1], columns[0] : columns[-1]]
        sums = np.add.reduceat(np.add.reduceat(inside, rows[:-1] - rows[0], axis=0), columns[:-1] - columns[0], axis=1)
        return sums / np.outer(np.diff(rows), np.diff(columns))


def _axis(size_um: float, grid_um: float) -> _Float64:
    half = int(np.ceil((size_um / 2 + _MARGIN_UM) / grid_um))
    return np.arange(-half, half + 1, dtype=np.float64) * grid_um


def _cell_starts(axis_um: _Float64, size_um: float, cells: int) -> npt.NDArray[np.intp]:
    """Index of the first grid node of every cell, and of the node behind the last."""
    return np.searchsorted(axis_um, np.linspace(-size_um / 2, size_um / 2, cells + 1) - 1e-6)


def check_share(what: str, value: float) -> float:
    """Return `value` as a float.

    Raises
    ------
    ValueError
        Outside 0..1.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{what} {value}: must be within 0 .. 1")
    return float(value)
