"""Registration at one resolution: crops of the same material, static noise subtracted, sub-pixel maximum."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import fft

from xbat_live.imaging.band import Band
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
from xbat_live.imaging.subpixel import (
    Peak,
    highest_pixel,
    measure_peak,
    radial_weight,
    significance_at,
    weight_map,
)

MARGIN_FRACTION = 0.15
SMALL_MARGIN, LEAST_MARGIN = 0.1, 16
"""Of a side, and px: small fields need all their light (the error of a shift goes as one over the root of the area), large ones have enough
and would pay for it at every transform. With a tenth, a drift changes keyframes half as often as with 16 px of 327, at the same errors."""
WIDE_FROM = 1024
"""Side, px, from which the margin is `MARGIN_FRACTION` of it."""
STATIC_ROUNDS = 8
"""Frames from which the flat's share of the noise is measured."""
UNCORRECTED_PULL = 0.2
"""Part of a displacement of the taper by which a shift may be pulled where the pull was not computed."""
HALF_FROM_EDGE = 0.2
"""Pull per displacement at which the window's edge adds as much to the variance of a shift as noise does (few smooth particles; where there
is structure it is 0.01 to 0.08). Measured on scenes of 14 smooth spheres."""
MOST_PULLED = 0.45
"""Pull per displacement above which the first order is not enough."""
WINDOWS_KEPT = 8
DOUBTFUL = 10.0
"""Significance below which a match is looked at with all modes alike: few strong modes (one large particle) cannot exceed it."""
SYSTEMATIC_PX = 0.00018
"""Times the cube of the binning, added in quadrature to every sigma (unbinned px): aliasing and window errors that the residual phases do
not show. Measured: 0.001 to 0.002 px at bin 2, 0.011 px at bin 4, in crops of 128 to 720 px alike."""


@dataclass
class Crop:
    """Windowed spectrum of a crop.

    Attributes
    ----------
    window, total, spectrum, polar
        Taper times weight and its sum, the spectrum under it, and its power in polar bins.
    mode_correlation
        Neighbouring modes that share one independent value.
    averaged, places
        Number of frames averaged into the spectrum, and their shifts against the first one, binned px.
    static_phase
        Mean phase of the sensor-fixed noise in the averaged spectrum; None means one (a single frame).
    pull
        ``P[i, j, r] = sum f_j Im(K_i R*)`` over the modes of radial bin r, K_i the spectrum under the window's slope along axis i: by how
        much a window displaced along i pulls the maximum along j. None: not computed.
    from_edge
        Pull per displacement as last seen in a registration, of another crop of the same image where there was none in this one; None: not
        known yet.
    lag_yx
        Mean displacement of the content against its window in the averaged frames, binned px.
    """

    window: Float2D
    total: float
    spectrum: Complex2D
    polar: PolarPower
    mode_correlation: float
    averaged: int = 1
    places: list[Float] = field(default_factory=lambda: [np.zeros(2)])
    static_phase: Complex2D | None = None
    pull: Float | None = None
    from_edge: float | None = None
    lag_yx: Float = field(default_factory=lambda: np.zeros(2))
    _blocks: tuple[Band, Complex2D, Complex2D | None] | None = None

    @cached_property
    def conjugate(self) -> Complex2D:
        """Conjugate of `spectrum`, which must not be changed in place."""
        return self.spectrum.conj()

    def conjugates(self, band: Band) -> tuple[Complex2D, Complex2D | None]:
        """Return the conjugates of `spectrum` and `static_phase` (or None) in a block, kept for the next frame."""
        if self._blocks is None or self._blocks[0] is not band:
            static = None if self.static_phase is None else band.take(self.static_phase).conj()
            self._blocks = (band, band.take(self.conjugate), static)
        return self._blocks[1:]

    def replace_spectrum(self, spectrum: Complex2D, polar: PolarPower, static_phase: Complex2D) -> None:
        """Put an averaged spectrum in place of the first frame's."""
        self.spectrum, self.polar, self.static_phase, self._blocks = spectrum, polar, static_phase, None
        self.__dict__.pop("conjugate", None)


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
    spectrum, conjugate, static_phase
        The frame's, the reference's conjugate, and its `Crop.static_phase`.
    rest_yx
        The part of the shift that the crops do not take up, binned px.
    lag_yx
        Displacement of the content against the frame's window, binned px.
    pull_px
        What was corrected for windows that did not lie on the same material, binned px.
    reference_frames
        Frames averaged into the reference.
    corner
        Of the frame's crop, binned px.
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
    conjugate: Complex2D
    static_phase: Complex2D | None
    rest_yx: Float
    lag_yx: Float
    pull_px: float
    reference_frames: int
    corner: tuple[int, int]
    window: CropWindow
    mode_correlation: float

    @property
    def frame_covariance(self) -> Float:
        """The frame's own share of `covariance`; the rest is the reference's, less the more frames are averaged in it."""
        return self.covariance * (self.reference_frames / (self.reference_frames + 1))

    @cached_property
    def cross(self) -> Float:
        """Real part of the cross-spectrum at the shift, without the noise of the flat, in polar bins."""
        cross = self.spectrum * self.conjugate
        cross *= self.window.phase(self.rest_yx)
        mean = self.window.polar_mean(cross.real)
        if self.static_power > 0:
            pattern = self.window.phase(self.shift_yx)
            if self.static_phase is not None:
                pattern *= self.static_phase.conj()
            mean -= self.static_power * self.window.polar_mean(pattern.real)
        return mean

    def turned_spectrum(self) -> Complex2D:
        """Return the frame's spectrum turned back by the shift onto the reference."""
        turned = self.window.phase(self.rest_yx)
        turned *= self.spectrum
        return turned


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
        crop = [fast_even_length(int(n - 2 * _margin(n))) for n in shape]
        self.central = CropWindow((crop[0], crop[1]), bin_factor, workers)
        self.margin = ((shape[0] - crop[0]) // 2, (shape[1] - crop[1]) // 2)
        self.static_ratio: float | None = None
        """Share of a frame's noise that is the flat's; see `forget_static`."""
        self._static_rounds = 0
        self._windows: OrderedDict[tuple[int, int], CropWindow] = OrderedDict()

    def forget_static(self) -> None:
        """Measure anew what share of the noise is the flat's: it was taken again."""
        self.static_ratio, self._static_rounds = None, 0

    def crop(self, geometry: CropWindow, od: Float2D, weight: Float2D, corner: tuple[int, int]) -> Crop:
        """Return the windowed spectrum of one crop with its corner (y, x)."""
        (y, x), (ny, nx) = corner, geometry.shape
        window = geometry.window(weight[y : y + ny, x : x + nx])
        total = float(window.sum(dtype=np.float64))
        spectrum = geometry.transform(od, corner, window, total)
        return Crop(window, total, spectrum, geometry.polar(spectrum), mode_correlation(window))

    def reference(self, geometry: CropWindow, od: Float2D, weight: Float2D, corner: tuple[int, int]) -> Crop:
        """Return the same for a crop that many frames will be compared with: with the pull of a displaced window."""
        crop = self.crop(geometry, od, weight, corner)
        (y, x), (ny, nx) = corner, geometry.shape
        image = od[y : y + ny, x : x + nx]
        image = image - np.float32(np.einsum("ij,ij->", image, crop.window) / crop.total)
        sums = []
        for axis in range(2):
            slope = fft.rfft2(image * np.gradient(crop.window, axis=axis), norm="ortho", workers=self.workers)
            turned = (slope * crop.conjugate).imag
            sums.append([geometry.radial_sums(turned * f) for f in (geometry.fy[:, None], geometry.fx[None, :])])
        crop.pull = np.array(sums)
        return crop

    def within_margin(self, whole: tuple[int, int]) -> bool:
        """Whether the central crop, moved by `whole` px, is still inside the frame."""
        return all(abs(d) <= m for d, m in zip(whole, self.margin, strict=True))

    def overlap(self, whole: tuple[int, int]) -> tuple[CropWindow, tuple[int, int]] | None:
        """Return geometry and corner, in the reference, of what is common at a shift by `whole` px; None when it is too little."""
        common = [n - abs(d) for n, d in zip(self.shape, whole, strict=True)]
        window = self.central
        # The size of all other crops where it fits: geometry of a size of its own takes as long as registering a frame.
        if any(c < s for c, s in zip(common, window.shape, strict=True)):
            size = [fast_even_length(c // 16 * 16) for c in common]
            if min(size) < 32 or size[0] * size[1] < LEAST_OVERLAP * 0.8 * self.shape[0] * self.shape[1]:
                return None
            window = self._window((size[0], size[1]))
        spare = [c - s for c, s in zip(common, window.shape, strict=True)]
        return window, (max(-whole[0], 0) + spare[0] // 2, max(-whole[1], 0) + spare[1] // 2)

    def register(  # noqa: PLR0917
        self,
        window: CropWindow,
        reference: Crop,
        weight: Float2D,
        origin: tuple[int, int],
        od: Float2D,
        whole: tuple[int, int],
        start_yx: Float | None,
        reach_px: int,
        taper_yx: Float | None = None,
    ) -> PairShift | None:
        """Register `od` against the crop of the reference at `origin`.

        The frame is cropped at `origin` + `whole` and its window displaced by `taper_yx` (None: not at all): both windows then see the same
        material but for a fraction of a pixel, and what that pulls the maximum by is computed and taken off. Without `start_yx` (binned
        px beside `whole`) the correlation surface is searched `reach_px` around.
        """
        corner = (origin[0] + whole[0], origin[1] + whole[1])
        taper, total, displaced = reference.window, reference.total, np.zeros(2)
        if taper_yx is not None:
            y, x = origin
            taper, displaced = (
                window.window(weight[y : y + window.shape[0], x : x + window.shape[1]], taper_yx),
                taper_yx,
            )
            total = float(taper.sum(dtype=np.float64))
        spectrum = window.transform(od, corner, taper, total)
        polar = window.polar(spectrum)
        static = self._static_power(spectrum, reference, whole, polar.noise, window)
        radial = radial_weight(window, polar, reference.polar)
        if radial.last < 0:
            return None
        band = window.band_below(radial.last)
        conjugate, static_conjugate = reference.conjugates(band)
        cross: Complex2D = band.take(spectrum)
        cross *= conjugate
        if static > 0:
            pattern = band.phase(np.array(whole, float))
            if static_conjugate is not None:
                pattern *= static_conjugate
            pattern *= np.float32(static)
            cross -= pattern
        weighted: Complex2D = cross * weight_map(band, radial.best)
        start = highest_pixel(window, band, weighted, reach_px) if start_yx is None else start_yx
        shared = reference.mode_correlation
        peak = measure_peak(band, weighted, start, shared, SYSTEMATIC_PX * self.bin**2)
        if peak is None:
            return None
        significance = peak.significance
        if significance < DOUBTFUL:
            even: Complex2D = cross * weight_map(band, radial.even)
            significance = max(significance, significance_at(band, even, peak.at_yx, shared))
        rest, pull_px, from_edge = _same_material(peak, displaced, reference, radial.best)
        reference.from_edge = from_edge
        return PairShift(
            shift_yx=rest + np.array(whole, float),
            covariance=peak.covariance * (1 + (from_edge / HALF_FROM_EDGE) ** 2),
            significance=significance,
            frame=polar,
            reference=reference.polar,
            static_power=static,
            spectrum=spectrum,
            conjugate=reference.conjugate,
            static_phase=reference.static_phase,
            rest_yx=rest,
            lag_yx=rest - displaced,
            pull_px=pull_px,
            reference_frames=reference.averaged,
            corner=corner,
            window=window,
            mode_correlation=shared,
        )

    def _static_power(
        self, spectrum: Complex2D, reference: Crop, whole: tuple[int, int], noise: float, window: CropWindow
    ) -> float:
        """Return the power of the noise shared through the flat.

        It is one pattern fixed to the sensor, which in these crops moved by minus `whole`: coherent with that phase above the signal.
        """
        apart = max(abs(whole[0]), abs(whole[1])) >= 2
        if self.static_ratio is not None and not (apart and self._static_rounds < STATIC_ROUNDS):
            return self.static_ratio * noise
        seen, model, count = 0.0, 0.0, 0
        turn = -2j * np.pi
        for rows, columns in window.noise_blocks:
            by_row = np.exp(turn * whole[0] * window.fy[rows]).astype(np.complex64)
            by_column = np.exp(turn * whole[1] * window.fx[columns]).astype(np.complex64)
            cross = spectrum[rows, columns] * reference.conjugate[rows, columns]
            if reference.static_phase is None:
                model += cross.size
            else:
                expected = reference.static_phase[rows, columns]
                cross *= expected
                model += float((expected.real**2).sum() + (expected.imag**2).sum())
            seen += float((by_row @ cross @ by_column).real)
            count += cross.size
        ratio = float(np.clip(seen / max(model, 0.05 * count) / noise, 0.0, 0.9))
        if apart:
            # Only at a shift of its own can it be told from fine structure of the sample; it stays the same until the next flat.
            self._static_rounds += 1
            known = 0.0 if self.static_ratio is None else self.static_ratio
            self.static_ratio = known + (ratio - known) / self._static_rounds
            return self.static_ratio * noise
        return ratio * noise

    def _window(self, size: tuple[int, int]) -> CropWindow:
        if size not in self._windows:
            self._windows[size] = CropWindow(size, self.bin, self.workers)
            if len(self._windows) > WINDOWS_KEPT:
                self._windows.popitem(last=False)
        self._windows.move_to_end(size)
        return self._windows[size]


def _margin(length: int) -> float:
    """Return how far, px, a crop keeps from either edge of a side."""
    wide = MARGIN_FRACTION * length
    return min(wide, max(LEAST_MARGIN, SMALL_MARGIN * length, wide * length / WIDE_FROM))


def _same_material(peak: Peak, displaced_yx: Float, reference: Crop, weight: Float) -> tuple[Float, float, float]:
    """Return the shift corrected for the window's displacement against the content, the size of that correction (binned px), and the pull.

    A window that lags by d behind the content adds d . (image under the window's slope) to the crop: to first order the maximum moves by
    a matrix times d, known from the reference alone.
    """
    at_y, at_x = peak.at_yx.tolist()
    off_y, off_x = displaced_yx.tolist()
    lag_y, lag_x = at_y - off_y, at_x - off_x
    uncorrected = UNCORRECTED_PULL * max(abs(lag_y), abs(lag_x))
    if reference.pull is None:
        return peak.at_yx, uncorrected, reference.from_edge or 0.0
    (yy, yx), (xy, xx) = (-2 * np.pi * peak.inverse @ (reference.pull @ weight[:-1]).T).tolist()
    pull = max(abs(yy), abs(yx), abs(xy), abs(xx))
    if pull > MOST_PULLED:
        return peak.at_yx, uncorrected, pull
    mean_y, mean_x = reference.lag_yx.tolist()
    # Solve (1 + matrix) content = lag + matrix mean
    pulled_y, pulled_x = lag_y + yy * mean_y + yx * mean_x, lag_x + xy * mean_y + xx * mean_x
    determinant = (1 + yy) * (1 + xx) - yx * xy
    content_y = ((1 + xx) * pulled_y - yx * pulled_x) / determinant
    content_x = ((1 + yy) * pulled_x - xy * pulled_y) / determinant
    moved = max(abs(content_y - lag_y), abs(content_x - lag_x))
    return np.array([off_y + content_y, off_x + content_x]), moved, pull
