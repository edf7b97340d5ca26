"""Dose, rate and open time on a sample: what was settled, and what is promised on top."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from xbat_live.dose.exposure import FootprintDose
from xbat_live.dose.grid import FloatArray, Window
from xbat_live.dose.planes import Planes
from xbat_live.dose.profiles import FOOTPRINT_FRACTION, Profile

_KERNEL_BYTES = 64 * 2**20


class Patch(NamedTuple):
    """Where an exposure falls: `kernel`, (ny, nx) 1/cm2 per photon, on the pixels of `window`.

    `gray_cm2` is photons times dose per fluence of every target, Gy cm2; the dose is their product. `peak_per_cm2` is the
    largest value of the whole kernel.
    """

    window: Window
    kernel: FloatArray
    gray_cm2: tuple[float, ...]
    peak_per_cm2: float

    def dose(self, target: int) -> FloatArray:
        """Return the dose of a target, (ny, nx) Gy."""
        return self.kernel * self.gray_cm2[target]

    def within(self, window: Window) -> Patch:
        """Return the part of the patch in `window`, which must lie inside it."""
        return self._replace(window=window, kernel=self.kernel[window.within(self.window)])


class SampleMap:
    """Dose, largest instantaneous rate and open time of several targets on the sample's pixels.

    One fluence kernel serves all targets. Held (reserved) patches stay apart from the map, because adding and taking
    away again would leave rounding errors that a rebuilt map does not have.

    Parameters
    ----------
    grid_um
        Pixel size, um.
    outline_um
        Size (x, y) of the sample around (0, 0), um; None: the sample is everywhere.
    targets
        Number of targets.
    """

    def __init__(self, grid_um: float, outline_um: tuple[float, float] | None, targets: int = 1) -> None:
        if not 1e-3 <= grid_um <= 1e4:
            raise ValueError(f"map pixel {grid_um:g} um is outside 1e-3 .. 1e4 um")
        if outline_um is not None and not all(1e-3 <= size <= 1e6 for size in outline_um):
            raise ValueError(f"sample outline {outline_um} um is outside 1e-3 .. 1e6 um; sizes are in um")
        self.pixel_um = float(grid_um)
        self.targets = targets
        self.planes = Planes(2 * targets + 1)  # doses, largest rates, open time
        self.outline = None if outline_um is None else Window.around(0.0, 0.0, outline_um, grid_um)
        self._held: dict[int, Patch] = {}
        self._kernels: OrderedDict[tuple[Profile, float, float], tuple[FloatArray, float]] = OrderedDict()
        self._kernel_bytes = 0

    def spread(self, profile: Profile, x_um: float, y_um: float, gray_cm2: tuple[float, ...]) -> Patch:
        """Return the dose of a beam centred on (x, y), um."""
        pixel = self.pixel_um
        row, column = math.floor(y_um / pixel), math.floor(x_um / pixel)
        kernel, peak = self._kernel(profile, x_um - (column + 0.5) * pixel, y_um - (row + 0.5) * pixel)
        row0, col0 = row - kernel.shape[0] // 2, column - kernel.shape[1] // 2
        return Patch(Window(row0, row0 + kernel.shape[0], col0, col0 + kernel.shape[1]), kernel, gray_cm2, peak)

    def add(self, patch: Patch, open_time_s: float) -> None:
        """Add an exposure of `open_time_s` seconds for good."""
        if open_time_s <= 0:
            return
        targets, lit_above = self.targets, FOOTPRINT_FRACTION * patch.peak_per_cm2
        for view, source in self.planes.parts(patch.window):
            kernel = patch.kernel[source]
            for target, gray_cm2 in enumerate(patch.gray_cm2):
                dose = kernel * gray_cm2
                view[target] += dose
                dose /= open_time_s
                np.maximum(view[targets + target], dose, out=view[targets + target])
            view[2 * targets] += (kernel > lit_above) * open_time_s

    def add_uniform(self, window: Window, targets: tuple[int, ...], dose_gy: float) -> None:
        """Add the same dose, Gy, on all pixels of `window`."""
        for view, _ in self.planes.parts(window):
            for target in targets:
                view[target] += dose_gy

    def hold(self, number: int, patch: Patch) -> None:
        """Count a patch on top of the map until it is released."""
        self._held[number] = patch

    def release(self, number: int) -> None:
        """Stop counting a held patch; unknown numbers are ignored (exposures beside the sample have none)."""
        self._held.pop(number, None)

    def dose(self, window: Window, target: int = 0) -> FloatArray:
        """Return settled and held dose of a target on `window`, (ny, nx) float64, Gy."""
        dose = self.planes.read(window, target)
        for patch in self._held.values():
            common = window.intersect(patch.window)
            if not common.empty:
                dose[common.within(window)] += patch.within(common).dose(target)
        return dose

    def peak_rate(self, window: Window, target: int = 0) -> FloatArray:
        """Return the largest instantaneous rate there ever was, (ny, nx) Gy/s."""
        return self.planes.read(window, self.targets + target)

    def open_time(self, window: Window) -> FloatArray:
        """Return the time the beam was on each pixel, (ny, nx) s."""
        return self.planes.read(window, 2 * self.targets)

    def reach(self, patch: Patch | None) -> Patch | None:
        """Return the part of a patch that is on the sample; None when it misses."""
        if patch is None:
            return None
        window = self.on_sample(patch.window)
        return None if window.empty else patch.within(window)

    def footprint(self, x_um: float, y_um: float, size_um: tuple[float, float], target: int = 0) -> FootprintDose:
        """Return mean, 99.9th percentile and peak on the part of a rectangle around (x, y) that is on the sample."""
        return self.figures(Window.around(x_um, y_um, size_um, self.pixel_um), target)

    def figures(self, window: Window, target: int = 0) -> FootprintDose:
        """Return mean, 99.9th percentile and peak on the part of `window` that is on the sample."""
        window = self.on_sample(window)
        if window.empty:
            return FootprintDose(0.0, 0.0, 0.0)
        dose = self.dose(window, target)
        return FootprintDose(float(dose.mean()), float(np.percentile(dose, 99.9)), float(dose.max()))

    @property
    def peak_gy(self) -> float:
        """Largest dose of the first target on the sample, Gy."""
        window = self.on_sample(self.extent)
        return 0.0 if window.empty else float(self.dose(window).max())

    @property
    def full(self) -> Window:
        """All pixels of the map: the sample's outline and all that was dosed."""
        return self.extent if self.outline is None else self.extent.union(self.outline)

    @property
    def extent(self) -> Window:
        """All pixels that were dosed or are promised."""
        window = self.planes.touched
        for patch in self._held.values():
            window = window.union(patch.window)
        return window

    def axes(self, window: Window) -> tuple[FloatArray, FloatArray]:
        """Return the sample coordinates x (nx,) and y (ny,) of the pixel centres of `window`, um."""
        x_um: FloatArray = (np.arange(window.col0, window.col1, dtype=np.float64) + 0.5) * self.pixel_um
        y_um: FloatArray = (np.arange(window.row0, window.row1, dtype=np.float64) + 0.5) * self.pixel_um
        return x_um, y_um

    def on_sample(self, window: Window) -> Window:
        """Return the part of `window` that is on the sample."""
        return window if self.outline is None else window.intersect(self.outline)

    def _kernel(self, profile: Profile, offset_x: float, offset_y: float) -> tuple[FloatArray, float]:
        """Return a beam's kernel and its peak; the last are kept, for a settlement and for exposures of one place."""
        key = (profile, offset_x, offset_y)
        known = self._kernels.get(key)
        if known is not None:
            self._kernels.move_to_end(key)
            return known
        kernel = profile.kernel(self.pixel_um, (offset_x, offset_y))
        known = self._kernels[key] = (kernel, float(kernel.max()))
        self._kernel_bytes += kernel.nbytes
        while self._kernel_bytes > _KERNEL_BYTES and len(self._kernels) > 1:
            self._kernel_bytes -= self._kernels.popitem(last=False)[1][0].nbytes
        return known
