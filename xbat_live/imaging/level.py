"""Registration at one resolution: crops of the same material, static noise subtracted, sub-pixel maximum."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xbat_live.imaging.coarse import LEAST_OVERLAP
from xbat_live.imaging.spectrum import (
    Complex2D,
    CropWindow,
    Float,
    Float2D,
    PolarPower,
    fast_even_length,
    mode_correlation,
)
from xbat_live.imaging.subpixel import highest_pixel, measure_peak, radial_weight, significance_at, weight_map

MARGIN_FRACTION = 0.1
WINDOWS_KEPT = 4
DOUBTFUL = 10.0
"""Significance below which a match is looked at with all modes alike: few strong modes (one large particle) cannot exceed it."""
SYSTEMATIC_PX = 0.13
"""Times the square of the binning over the root of the crop's area (binned px), added in quadrature to every sigma (unbinned px): aliasing
and window errors that the residual phases do not show. Measured: 0.004 px at bin 2, 0.016 px at bin 4 in crops of 130 x 130 px."""


@dataclass
class Crop:
    """Windowed spectrum of a crop.

    Attributes
    ----------
    window, spectrum, polar
        Taper times weight, the spectrum under it, and its power in polar bins.
    mode_correlation
        Neighbouring modes that share one independent value.
    averaged
        Frames averaged into the spectrum.
    static_phase
        Mean phase of the sensor-fixed noise in the averaged spectrum; None means one (a single frame).
    """

    window: Float2D
    spectrum: Complex2D
    polar: PolarPower
    mode_correlation: float
    averaged: int = 1
    static_phase: Complex2D | None = None


@dataclass(frozen=True)
class PairShift:
    """Shift of a frame against one reference, binned px.

    Attributes
    ----------
    shift_yx
        Content motion from reference to frame.
    covariance
        2x2, binned px squared.
    significance
        Height of the correlation peak in standard deviations of the surface without a match.
    frame, reference
        Polar power of the same material in both (for the blur screen).
    static_power
        Power per mode of the noise that both share through the flat.
    spectrum, cross_spectrum
        The frame's, and its product with the reference's conjugate without static noise; both as measured, at `rest_yx`.
    rest_yx
        The part of the shift that the crops do not take up, binned px.
    reference_frames
        Frames averaged into the reference.
    window, mode_correlation
        Geometry of the crops, and neighbouring modes that share one independent value.
    """

    shift_yx: Float
    covariance: Float
    significance: float
    frame: PolarPower
    reference: PolarPower
    static_power: float
    spectrum: Complex2D
    cross_spectrum: Complex2D
    rest_yx: Float
    reference_frames: int
    window: CropWindow
    mode_correlation: float

    @cached_property
    def cross(self) -> Float:
        """Real part of the cross-spectrum at the shift, in polar bins."""
        return self.window.polar_mean((self.cross_spectrum * self.window.phase(self.rest_yx)).real)

    def turned_spectrum(self) -> Complex2D:
        """Return the frame's spectrum turned back by the shift onto the reference."""
        return self.spectrum * self.window.phase(self.rest_yx)


class Level:
    """Registration of frames of one shape; holds geometry and the share of static noise, no frames.

    Parameters
    ----------
    shape
        Rows and columns, in pixels of this level.
    bin_factor
        Unbinned px per pixel of this level.
    workers
        Threads per FFT.
    """

    def __init__(self, shape: tuple[int, int], bin_factor: int, workers: int = 1) -> None:
        self.shape = shape
        self.bin = bin_factor
        self.workers = workers
        crop = [fast_even_length(int(n * (1 - 2 * MARGIN_FRACTION))) for n in shape]
        self.central = CropWindow((crop[0], crop[1]), bin_factor, workers)
        self.margin = ((shape[0] - crop[0]) // 2, (shape[1] - crop[1]) // 2)
        self.static_ratio: float | None = None
        """Share of a frame's noise that is the flat's; set to None when the flat changes."""
        self._windows: OrderedDict[tuple[int, int], CropWindow] = OrderedDict()

    def crop(self, geometry: CropWindow, od: Float2D, weight: Float2D, corner: tuple[int, int]) -> Crop:
        """Return the windowed spectrum of one crop with its corner (y, x)."""
        (y, x), (ny, nx) = corner, geometry.shape
        window = geometry.window(weight[y : y + ny, x : x + nx])
        spectrum = geometry.transform(od, corner, window)
        return Crop(window, spectrum, geometry.polar(spectrum), mode_correlation(window))

    def within_margin(self, whole: tuple[int, int]) -> bool:
        """Whether the central crop, moved by `whole` px, is still inside the frame."""
        return all(abs(d) <= m for d, m in zip(whole, self.margin, strict=True))

    def overlap(self, whole: tuple[int, int]) -> tuple[CropWindow, tuple[int, int]] | None:
        """Return geometry and corner, in the reference, of what is common at a shift by `whole` px; None when it is too little."""
        size = [fast_even_length((n - abs(d)) // 16 * 16) for n, d in zip(self.shape, whole, strict=True)]
        if min(size) < 32 or size[0] * size[1] < LEAST_OVERLAP * 0.8 * self.shape[0] * self.shape[1]:
            return None
        spare = [n - abs(d) - s for n, d, s in zip(self.shape, whole, size, strict=True)]
        corner = (max(-whole[0], 0) + spare[0] // 2, max(-whole[1], 0) + spare[1] // 2)
        return self._window((size[0], size[1])), corner

    def register(  # noqa: PLR0917
        self,
        window: CropWindow,
        reference: Crop,
        weight: Float2D,
        origin: tuple[int, int],
        od: Float2D,
        whole: tuple[int, int],
        rest_yx: Float | None,
        reach_px: int,
    ) -> PairShift | None:
        """Register `od` against the crop of the reference at `origin`.

        The frame is cropped at `origin` + `whole`, its taper displaced by `rest_yx`: both windows then see the same material. Without
        `rest_yx` the correlation surface is searched `reach_px` around.
        """
        corner = (origin[0] + whole[0], origin[1] + whole[1])
        taper = reference.window
        if rest_yx is not None:
            y, x = origin
            taper = window.window(weight[y : y + window.shape[0], x : x + window.shape[1]], rest_yx)
        spectrum = window.transform(od, corner, taper)
        polar = window.polar(spectrum)
        cross = spectrum * reference.spectrum.conj()
        # Noise of the flat is one pattern fixed to the sensor: in these crops it moved by -whole. Its power is measured above the signal.
        pattern = window.phase(np.array(whole, float))
        if reference.static_phase is not None:
            pattern *= reference.static_phase.conj()
        static = self._static_power(cross, pattern, polar.noise, window, apart=max(abs(whole[0]), abs(whole[1])) >= 2)
        if static > 0:
            pattern *= np.float32(static)
            cross -= pattern
        radial = radial_weight(window, polar, reference.polar)
        columns = radial.columns
        if columns == 0:
            return None
        weights = weight_map(window, radial.best, columns)
        start = rest_yx
        if start is None:
            start = highest_pixel(window, cross[:, :columns] * weights, reach_px)
        shared = reference.mode_correlation
        floor_px = SYSTEMATIC_PX * self.bin / float(np.sqrt(window.shape[0] * window.shape[1]))
        peak = measure_peak(window, cross, weights, start, shared, floor_px)
        if peak is None:
            return None
        significance = peak.significance
        if significance < DOUBTFUL:
            even = weight_map(window, radial.even, columns)
            significance = max(significance, significance_at(window, cross, even, peak.at_yx, shared))
        return PairShift(
            shift_yx=peak.at_yx + np.array(whole, float),
            covariance=peak.covariance,
            significance=significance,
            frame=polar,
            reference=reference.polar,
            static_power=static,
            spectrum=spectrum,
            cross_spectrum=cross,
            rest_yx=peak.at_yx,
            reference_frames=reference.averaged,
            window=window,
            mode_correlation=shared,
        )

    def _static_power(
        self, cross: Complex2D, pattern: Complex2D, noise: float, window: CropWindow, *, apart: bool
    ) -> float:
        """Return the power of the noise shared through the flat: coherent with `pattern` above the signal."""
        if not apart and self.static_ratio is not None:
            return self.static_ratio * noise
        seen, model, count = 0.0, 0.0, 0
        for a, b in zip(window.band(pattern), window.band(cross), strict=True):
            flat_a, flat_b = np.ascontiguousarray(a), np.ascontiguousarray(b)
            seen += float(np.vdot(flat_a, flat_b).real)
            model += float(np.vdot(flat_a, flat_a).real)
            count += flat_a.size
        ratio = float(np.clip(seen / max(model, 0.05 * count) / noise, 0.0, 0.9))
        if apart:
            # Only at a shift of its own can it be told from fine structure of the sample; it stays the same until the next flat.
            self.static_ratio = ratio if self.static_ratio is None else 0.8 * self.static_ratio + 0.2 * ratio
        return ratio * noise

    def _window(self, size: tuple[int, int]) -> CropWindow:
        if size not in self._windows:
            self._windows[size] = CropWindow(size, self.bin, self.workers)
            if len(self._windows) > WINDOWS_KEPT:
                self._windows.popitem(last=False)
        self._windows.move_to_end(size)
        return self._windows[size]
