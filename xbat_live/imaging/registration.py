"""Rigid registration of optical density: coarse search over the whole field, fine step on the same material, with its sigma.

Method: `imaging.md` section 4. Coarse: softly whitened cross-power of 4x further binned images, zero-padded, candidates verified by their
normalised correlation over the overlap. Fine: both windows are cropped to the same material, the static noise shared through the flat is
subtracted from the cross-spectrum, modes are weighted by their signal-to-noise ratio (Hannan-Thomson), the maximum is refined by Newton
steps, and its covariance is the sandwich estimate from the residual phases.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from scipy import fft

from xbat_live.imaging.coarse import LEAST_OVERLAP, Candidate, CoarseImage, CoarseSearch
from xbat_live.imaging.spectrum import (
    Complex2D,
    CropWindow,
    Float,
    Float2D,
    PolarPower,
    fast_even_length,
    mode_correlation,
)

SEARCH_PX = 10
"""Half width, binned px, of the correlation surface searched around the coarse shift."""
MARGIN_FRACTION = 0.1
MOST_BASELINE = 0.7
"""Unbinned px squared; a line of 2.9 px."""
MOST_AVERAGED = 8
SYSTEMATIC_PX = 0.004
"""Unbinned px added in quadrature to every sigma: interpolation and window errors that the residual phases do not show."""


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
    coherence
        Weighted correlation of the two spectra at the shift, 0 to 1.
    frame, reference
        Polar power of the same material in both (for the blur screen).
    cross
        Real part of the cross-spectrum at the shift, in polar bins.
    static_power
        Power per mode of the noise that both share through the flat.
    spectrum
        The frame's, turned back by the shift onto the reference.
    reference_frames
        Frames averaged into the reference.
    """

    shift_yx: Float
    covariance: Float
    significance: float
    coherence: float
    frame: PolarPower
    reference: PolarPower
    cross: Float
    static_power: float
    spectrum: Complex2D
    reference_frames: int
    window: CropWindow
    mode_correlation: float


@dataclass
class _Central:
    """Cached transform of a keyframe's central crop."""

    window: Float2D
    spectrum: Complex2D
    polar: PolarPower
    mode_correlation: float
    averaged: int = 1
    # Mean phase of the sensor-fixed noise in the averaged spectrum; None means one (a single frame).
    static_phase: Complex2D | None = None


class Keyframe:
    """A sharp, registered frame that others are compared with.

    Attributes
    ----------
    od, weight
        Binned optical density and the weight (lit area), float32.
    position_yx
        Content shift of this frame against the first one, binned px.
    covariance
        Of `position_yx`, binned px squared.
    identifier
        Counts up from 0.
    zero_covariance
        Of the averaged spectrum's origin against this frame's, binned px squared.
    """

    def __init__(self, identifier: int, od: Float2D, weight: Float2D, position_yx: Float, covariance: Float) -> None:
        self.identifier = identifier
        self.od = od
        self.weight = weight
        self.position_yx = position_yx
        self.covariance = covariance
        self.coarse: CoarseImage | None = None
        self.central: _Central | None = None
        self.zero_covariance: Float = np.zeros((2, 2))
        self.kernel_sum: Float = np.zeros(3)
        self.kernel_count = 0

    @property
    def kernel_baseline(self) -> Float:
        """Mean blur kernel (s_xx, s_xy, s_yy; px squared) of sharp frames against this one: what its own noise feigns.

        Shrunk towards zero and limited, so that a slow loss of focus is not taken for granted.
        """
        return np.clip(self.kernel_sum / (self.kernel_count + 3.0), -MOST_BASELINE, MOST_BASELINE)

    def calibrate(self, kernel: Float) -> None:
        """Take in the kernel fitted to an accepted frame."""
        if self.kernel_count >= 40:
            self.kernel_sum *= 39 / 40
            self.kernel_count -= 1
        self.kernel_sum = self.kernel_sum + kernel
        self.kernel_count += 1

    def absorb(self, pair: PairShift) -> None:
        """Average a sharp frame of the same material into the cached spectrum.

        Up to `MOST_AVERAGED` frames: less noise for registration and blur; then frozen, so that the template cannot walk away.
        """
        central = self.central
        if central is None or pair.reference is not central.polar or central.averaged >= MOST_AVERAGED:
            return
        window = pair.window
        if central.averaged == 1:
            # The frames averaged in are all aligned on the noise of the first: their mean lies off by that, half of this pair's error.
            self.zero_covariance = pair.covariance / 2
        central.averaged += 1
        share = np.float32(1 / central.averaged)
        central.spectrum = central.spectrum + (pair.spectrum - central.spectrum) * share
        if central.static_phase is None:
            central.static_phase = np.ones(central.spectrum.shape, np.complex64)
        # Aligned on the sample, noise of the flat moves from frame to frame: it averages out at high frequencies first.
        central.static_phase += (window.phase(pair.shift_yx) - central.static_phase) * share
        polar = window.polar(central.spectrum)
        kept = central.static_phase.real**2 + central.static_phase.imag**2
        static = pair.static_power * (window.polar_mean(kept) - float(kept[window.noise_index].mean()))
        central.polar = PolarPower(polar.power, polar.noise, np.maximum(polar.noise + static, polar.noise))


class ShiftEngine:
    """The numerics of registration for one camera geometry; holds no frames.

    Parameters
    ----------
    binned_shape
        Rows and columns of the binned optical density.
    bin_factor
        Unbinned px per binned px.
    workers
        Threads per FFT.

    Raises
    ------
    ValueError
        When the frame is too small to register (under 32 binned px).
    """

    def __init__(self, binned_shape: tuple[int, int], bin_factor: int = 2, workers: int = 1) -> None:
        if min(binned_shape) < 32:
            raise ValueError(
                f"frames of {binned_shape} px after binning by {bin_factor} are too small to register: at least 32 x 32 px; bin less"
            )
        self.shape = binned_shape
        self.bin = bin_factor
        self.workers = workers
        crop = [fast_even_length(int(n * (1 - 2 * MARGIN_FRACTION))) for n in binned_shape]
        self.central = CropWindow((crop[0], crop[1]), bin_factor, workers)
        self.margin = ((binned_shape[0] - crop[0]) // 2, (binned_shape[1] - crop[1]) // 2)
        self._whole: CropWindow | None = None
        self.static_ratio: float | None = None
        """Share of a frame's noise that is the flat's; set to None when the flat changes."""
        self._windows: OrderedDict[tuple[int, int], CropWindow] = OrderedDict()
        self.coarse = CoarseSearch(binned_shape, workers)

    def search(self, keyframe: Keyframe, image: CoarseImage) -> list[Candidate]:
        """Return coarse shifts (binned px) of a frame against the keyframe, best first."""
        if keyframe.coarse is None:
            keyframe.coarse = self.coarse.prepare(keyframe.od, keyframe.weight)
        return self.coarse.candidates(keyframe.coarse, image)

    def refine(self, keyframe: Keyframe, od: Float2D, shift_yx: tuple[int, int]) -> PairShift | None:
        """Return the sub-pixel shift near whole-pixel `shift_yx` (binned px), or None when too little is common to both."""
        pair = self._fine_step(keyframe, od, shift_yx, None)
        for _ in range(3):
            if pair is None:
                return None
            before = pair.shift_yx
            whole = (int(np.rint(before[0])), int(np.rint(before[1])))
            # Same whole pixels, and the taper displaced by the rest: both windows then see the same material.
            pair = self._fine_step(keyframe, od, whole, before - whole)
            if pair is None or np.abs(pair.shift_yx - before).max() < 0.5:
                return pair
        return pair

    def central_spectrum(self, od: Float2D, weight: Float2D) -> _Central:
        """Return window, spectrum and polar power of the central crop."""
        return _crop_spectrum(self.central, od, weight, self.margin)

    def whole_spectrum(self, od: Float2D, weight: Float2D) -> _Central:
        """Return the same of (nearly) the whole frame, geometry `whole`."""
        if self._whole is None:
            size = [fast_even_length(n) for n in self.shape]
            self._whole = CropWindow((size[0], size[1]), self.bin, self.workers)
        return _crop_spectrum(self._whole, od, weight, (0, 0))

    @property
    def whole(self) -> CropWindow:
        """Geometry of `whole_spectrum`."""
        if self._whole is None:
            raise RuntimeError("call whole_spectrum() first")
        return self._whole

    def _fine_step(
        self, keyframe: Keyframe, od: Float2D, whole: tuple[int, int], rest: Float | None
    ) -> PairShift | None:
        """Register at `whole` pixels plus `rest`; without `rest` the correlation surface around is searched."""
        if all(abs(d) <= m for d, m in zip(whole, self.margin, strict=True)):
            if keyframe.central is None:
                keyframe.central = self.central_spectrum(keyframe.od, keyframe.weight)
            window, reference = self.central, keyframe.central
            origin = self.margin
        else:
            size = [fast_even_length((n - abs(d)) // 16 * 16) for n, d in zip(self.shape, whole, strict=True)]
            if min(size) < 32 or size[0] * size[1] < LEAST_OVERLAP * 0.8 * self.shape[0] * self.shape[1]:
                return None
            window = self._window((size[0], size[1]))
            spare = [n - abs(d) - s for n, d, s in zip(self.shape, whole, size, strict=True)]
            origin = (max(-whole[0], 0) + spare[0] // 2, max(-whole[1], 0) + spare[1] // 2)
            reference = _crop_spectrum(window, keyframe.od, keyframe.weight, origin)
        corner = (origin[0] + whole[0], origin[1] + whole[1])
        shape = reference.window
        if rest is not None:
            y, x = origin
            shape = window.window(keyframe.weight[y : y + window.shape[0], x : x + window.shape[1]], rest)
        return self._subpixel(window, reference, window.transform(od, corner, shape), whole, rest)

    def _static_power(
        self, cross: Complex2D, pattern: Complex2D, noise: float, window: CropWindow, *, apart: bool
    ) -> float:
        """Return the power of the noise shared through the flat: coherent with `pattern` above the signal."""
        seen, model = cross[window.noise_index], pattern[window.noise_index]
        ratio = float(np.vdot(model, seen).real) / max(float(np.vdot(model, model).real), 0.05 * len(seen)) / noise
        ratio = float(np.clip(ratio, 0.0, 0.9))
        if apart:
            # Only at a shift of its own can it be told from fine structure of the sample; it stays the same until the next flat.
            self.static_ratio = ratio if self.static_ratio is None else 0.8 * self.static_ratio + 0.2 * ratio
        elif self.static_ratio is not None:
            ratio = self.static_ratio
        return ratio * noise

    def _window(self, size: tuple[int, int]) -> CropWindow:
        if size not in self._windows:
            self._windows[size] = CropWindow(size, self.bin, self.workers)
            if len(self._windows) > 4:
                self._windows.popitem(last=False)
        self._windows.move_to_end(size)
        return self._windows[size]

    def _subpixel(
        self, window: CropWindow, reference: _Central, spectrum: Complex2D, whole: tuple[int, int], rest: Float | None
    ) -> PairShift | None:
        polar = window.polar(spectrum)
        cross = spectrum * reference.spectrum.conj()
        fy, fx = window.fy, window.fx
        # Noise of the flat is one pattern fixed to the sensor: in these crops it moved by -whole. Its power is measured above the signal.
        pattern = window.phase(np.array(whole, float))
        if reference.static_phase is not None:
            pattern *= reference.static_phase.conj()
        static = self._static_power(cross, pattern, polar.noise, window, apart=max(abs(whole[0]), abs(whole[1])) >= 2)
        cross -= np.float32(static) * pattern
        weight = _signal_to_noise_weight(window, polar, reference.polar)
        if not weight.any():
            return None
        weighted = cross * weight
        at = np.zeros(2) if rest is None else rest
        if rest is None:
            half = weighted / window.multiplicity
            surface = fft.irfft2(half, window.shape, workers=window.workers)
            reach = [min(SEARCH_PX, n // 4) for n in window.shape]
            near = np.roll(surface, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
            peak = np.unravel_index(int(near.argmax()), near.shape)
            at = np.array([float(peak[0] - reach[0]), float(peak[1] - reach[1])])
        height = gradient = None
        hessian = np.eye(2)
        for _ in range(5):
            turned = weighted * window.phase(at)
            real, imaginary = turned.real, turned.imag
            by_row, by_column = real.sum(1), real.sum(0)
            height = float(by_row.sum())
            gradient = -2 * np.pi * np.array([float(fy @ imaginary.sum(1)), float(fx @ imaginary.sum(0))])
            cross_term = float(fy @ (real @ fx))
            hessian = (2 * np.pi) ** 2 * np.array(
                [[float(fy**2 @ by_row), cross_term], [cross_term, float(fx**2 @ by_column)]]
            )
            if np.linalg.det(hessian) <= 0 or hessian[0, 0] <= 0:
                return None  # no maximum here
            step = np.linalg.solve(hessian, gradient)
            length = float(np.abs(step).max())
            at = at + step * min(1.0, 1.0 / max(length, 1e-12))
            if length < 1e-3:
                break
        assert height is not None
        square = imaginary * imaginary
        spread = (2 * np.pi) ** 2 * np.array(
            [[fy**2 @ square.sum(1), fy @ (square @ fx)], [fy @ (square @ fx), fx**2 @ square.sum(0)]], np.float64
        )
        inverse = np.linalg.inv(hessian)
        shared = reference.mode_correlation
        covariance = inverse @ spread @ inverse * shared + np.eye(2) * (SYSTEMATIC_PX / window.bin) ** 2
        total = float((np.abs(weighted) ** 2).sum())
        significance = height / max(np.sqrt(shared * total / 2), 1e-30)
        powers = (
            float((weight * (spectrum.real**2 + spectrum.imag**2)).sum()),
            float((weight * (reference.spectrum.real**2 + reference.spectrum.imag**2)).sum()),
        )
        coherence = height / max(np.sqrt(powers[0] * powers[1]), 1e-30)
        back = window.phase(at)
        cross *= back
        spectrum *= back
        return PairShift(
            at + np.array(whole, float),
            covariance,
            float(significance),
            float(np.clip(coherence, 0, 1)),
            polar,
            reference.polar,
            window.polar_mean(cross.real),
            static,
            spectrum,
            reference.averaged,
            window,
            shared,
        )


def _crop_spectrum(geometry: CropWindow, od: Float2D, weight: Float2D, corner: tuple[int, int]) -> _Central:
    (y, x), (ny, nx) = corner, geometry.shape
    window = geometry.window(weight[y : y + ny, x : x + nx])
    spectrum = geometry.transform(od, corner, window)
    return _Central(window, spectrum, geometry.polar(spectrum), mode_correlation(window))


def _signal_to_noise_weight(window: CropWindow, frame: PolarPower, reference: PolarPower) -> Float2D:
    """Hannan-Thomson weight ``c / (1 - c) / |G|`` per mode from the radial spectra, c the squared coherence."""
    p_frame, p_reference = window.radial_mean(frame.power), window.radial_mean(reference.power)
    signal = np.maximum(window.radial_mean(frame.signal()), 0) * np.maximum(window.radial_mean(reference.signal()), 0)
    coherence = np.clip(signal / np.maximum(p_frame * p_reference, 1e-30), 0, 0.98)
    coherence[coherence < 1e-3] = 0
    radial = coherence / (1 - coherence) / np.sqrt(np.maximum(p_frame * p_reference, 1e-30))
    weight: Float2D = (radial.astype(np.float32)[window.radial_index] * window.multiplicity) * window.usable
    return weight
