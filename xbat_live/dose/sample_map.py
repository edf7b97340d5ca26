"""Dose on a sample: what was settled, and what is promised on top."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbat_live.dose.exposure import DoseMap, FootprintDose
from xbat_live.dose.grid import DoseGrid, FloatArray, Window
from xbat_live.dose.profiles import Profile


class Patch(NamedTuple):
    """Dose of one exposure, (ny, nx) Gy, on the pixels of a window."""

    window: Window
    dose_gy: FloatArray


class SampleMap:
    """A `DoseGrid` with the sample's outline, and patches that are held (reserved) without being added.

    Held patches stay apart, because adding and taking away again would leave rounding errors that a rebuilt map does
    not have.

    Parameters
    ----------
    grid_um
        Pixel size, um.
    outline_um
        Size (x, y) of the sample around (0, 0), um; None: the sample is everywhere.
    """

    def __init__(self, grid_um: float, outline_um: tuple[float, float] | None) -> None:
        self._grid = DoseGrid(grid_um)
        if outline_um is not None and not all(1e-3 <= size <= 1e6 for size in outline_um):
            raise ValueError(f"sample outline {outline_um} um is outside 1e-3 .. 1e6 um; sizes are in um")
        self._outline = None if outline_um is None else Window.around(0.0, 0.0, outline_um, grid_um)
        self._held: dict[int, Patch] = {}

    def spread(self, profile: Profile, x_um: float, y_um: float, gray_cm2: float) -> Patch:
        """Return the dose of a beam centred on (x, y), um; `gray_cm2` is photons times dose per fluence."""
        row, column, offset_x, offset_y = self._grid.locate(x_um, y_um)
        dose = profile.kernel(self._grid.pixel_um, (offset_x, offset_y)) * gray_cm2
        return Patch(self._grid.place(row, column, dose.shape), dose)

    def add(self, patch: Patch) -> None:
        """Add a patch for good."""
        self._grid.add(patch.window, patch.dose_gy)

    def hold(self, number: int, patch: Patch) -> None:
        """Count a patch on top of the map until it is released."""
        self._held[number] = patch

    def release(self, number: int) -> None:
        """Stop counting a held patch; unknown numbers are ignored (exposures beside the sample have none)."""
        self._held.pop(number, None)

    def dose(self, window: Window) -> FloatArray:
        """Return settled and held dose on `window`, (ny, nx) float64, Gy."""
        dose = self._grid.patch(window)
        for patch in self._held.values():
            common = window.intersect(patch.window)
            if not common.empty:
                dose[common.within(window)] += patch.dose_gy[common.within(patch.window)]
        return dose

    def on_sample(self, patch: Patch) -> tuple[FloatArray, FloatArray]:
        """Return (dose now, dose of the patch) where the patch is on the sample; of size 0 when it misses."""
        window = self._inside(patch.window)
        if window.empty:
            return np.zeros((0, 0)), np.zeros((0, 0))
        return self.dose(window), patch.dose_gy[window.within(patch.window)]

    def footprint(self, x_um: float, y_um: float, size_um: tuple[float, float]) -> FootprintDose:
        """Return mean, 99.9th percentile and peak on the part of a rectangle around (x, y) that is on the sample."""
        window = self._inside(Window.around(x_um, y_um, size_um, self._grid.pixel_um))
        if window.empty:
            return FootprintDose(0.0, 0.0, 0.0)
        dose = self.dose(window)
        return FootprintDose(float(dose.mean()), float(np.percentile(dose, 99.9)), float(dose.max()))

    @property
    def peak_gy(self) -> float:
        """Largest dose on the sample, Gy."""
        window = self._inside(self._extent())
        return 0.0 if window.empty else float(self.dose(window).max())

    def full(self) -> DoseMap:
        """Return the whole map: the sample's outline and all that was dosed."""
        window, pixel = self._extent(), self._grid.pixel_um
        if self._outline is not None:
            window = window.union(self._outline)
        x_um: FloatArray = (np.arange(window.col0, window.col1, dtype=np.float64) + 0.5) * pixel
        y_um: FloatArray = (np.arange(window.row0, window.row1, dtype=np.float64) + 0.5) * pixel
        return DoseMap(self.dose(window), x_um, y_um)

    def _extent(self) -> Window:
        window = self._grid.window
        for patch in self._held.values():
            window = window.union(patch.window)
        return window

    def _inside(self, window: Window) -> Window:
        return window if self._outline is None else window.intersect(self._outline)
