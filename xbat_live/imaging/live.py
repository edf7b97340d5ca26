"""Registration and blur screen as objects of their own, for use outside the frame pipeline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.blur import (
    FIRST_LIMIT,
    FIRST_RETAKE_ODDS,
    KEYFRAME_SHARE,
    NOT_JUDGED,
    BlurHypotheses,
    BlurResult,
    fit_alone,
    fit_pair,
    judge,
)
from xbat_live.imaging.calibration import BlurCalibration
from xbat_live.imaging.checks import FrameCheck, check_light, check_raw, check_structure
from xbat_live.imaging.correction import Corrected, Corrector, Float2D
from xbat_live.imaging.first_frames import FirstFrames, as_structure
from xbat_live.imaging.keyframes import LEAST_SIGNIFICANCE, KeyframeChain, Located
from xbat_live.imaging.registration import Keyframe, ShiftEngine
from xbat_live.imaging.spectrum import Float
from xbat_live.imaging.tiles import tile_mean

ONLY_FIELD = (None, "")


@dataclass(frozen=True)
class ShiftResult:
    """Registered shift of one frame.

    Attributes
    ----------
    shift_yx_px, sigma_yx_px
        Content shift (y, x) against the first frame (a feature at (y, x) there is at (y, x) + shift here) and its standard uncertainty,
        unbinned px.
    confidence
        0 to 1; 0.5 is the least that is believed.
    keyframe_id
        Keyframe measured against.
    ok
        False when no trustworthy shift was found; `reason` says why, the shift is then the last good one.
    """

    shift_yx_px: tuple[float, float]
    sigma_yx_px: tuple[float, float]
    confidence: float
    keyframe_id: int
    ok: bool
    reason: str


class LiveRegistrar:
    """Rigid registration of a stream of frames of one field of view; every located frame may become a keyframe.

    What the shift of a deforming sample is has to be defined. By default it is that of the structure-rich parts, found by one correlation
    over the common field. With `robust` it is the mean displacement over the field: see `tile_mean`.

    Sources: phase correlation weighted by coherence (Hannan and Thomson 1973; Knapp and Carter 1976), its maximum to a fraction of a
    pixel without the surface (Guizar-Sicairos, Thurman and Fienup 2008, by Newton's method here); covariance by the sandwich formula
    (Huber 1967) from the residual phases. The task is that of Sun et al. 2025.

    Parameters
    ----------
    shape
        Rows and columns of the frames, px.
    flat, dark
        Reference counts, shape (ny, nx).
    pixel_size_um
        Unbinned pixel, um.
    bin
        Pixels summed along each axis before the logarithm, at least 1.
    workers
        Threads of one FFT.
    robust
        Return the mean displacement of tiles, so that breathing of the sample does not bias the shift.

    Raises
    ------
    ValueError
        Flat or dark of another shape, not finite, or no brighter than the dark; frames under 32 binned px; a pixel size or `bin` out of
        range.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        flat: ArrayLike,
        dark: ArrayLike,
        pixel_size_um: float,
        *,
        bin: int = 2,
        workers: int = 1,
        robust: bool = False,
    ) -> None:
        if not pixel_size_um > 0 or bin < 1:
            raise ValueError(
                f"pixel_size_um = {pixel_size_um} um and bin = {bin} px: must be above 0 um and at least 1 px"
            )
        self.pixel_size_um = pixel_size_um
        self._corrector = Corrector(shape, bin)
        self._corrector.set_dark(dark)
        self._corrector.set_flat(flat)
        self._chain = KeyframeChain(ShiftEngine(self._corrector.binned_shape, bin, workers))
        self._robust = robust
        self._offsets: dict[int, tuple[Float, Float]] = {}

    def update(self, frame: ArrayLike) -> ShiftResult:
        """Register one frame, shape (ny, nx), counts; never raises for what a camera may deliver."""
        array = np.asarray(frame)
        check = check_raw(array, self._corrector.shape)
        if not check.ok:
            return self._refused(check)
        corrected, weight = self._corrector.correct(array), self._corrector.weight
        od = corrected.od
        if self._chain.empty:
            # All others are measured against it: a bad one later is found out by that alone.
            check = check_first(array, corrected, self._corrector, self._chain.engine)
            return _result(self._chain.start(od, weight)) if check.ok else self._refused(check)
        located = self._chain.locate(od, weight)
        if not located.ok:
            return _result(located)
        handed_over = self._chain.accept(located, od, weight)
        if not self._robust:
            return _result(located)
        located, offset, offset_covariance = self._mean(located, od, weight)
        if handed_over is not None:
            self._offsets[handed_over.identifier] = (offset, offset_covariance)
            kept = {keyframe.identifier for keyframe in self._chain.keyframes}
            self._offsets = {name: value for name, value in self._offsets.items() if name in kept}
        return _result(located)

    def _refused(self, check: FrameCheck) -> ShiftResult:
        size_y, size_x = self._corrector.shape
        return ShiftResult(self._chain.last_yx, (size_y / 2, size_x / 2), 0.0, -1, False, check.reason)

    def _mean(self, located: Located, od: Float2D, weight: Float2D) -> tuple[Located, Float, Float]:
        """Return the result as the mean displacement, and its difference to the other definition with the covariance of that, binned px."""
        pair, keyframe, scale = located.pair, located.keyframe, self._chain.engine.bin
        assert pair is not None
        assert keyframe is not None
        offset, offset_covariance = self._offsets.get(keyframe.identifier, (np.zeros(2), np.zeros((2, 2))))
        mean = tile_mean(keyframe.od, od, weight, pair.shift_yx, pair.static_power, self._chain.engine.workers)
        if mean is None:
            covariance = located.covariance + offset_covariance * scale**2
        else:
            # The pair's own shift cancels: what is left is the chain of mean displacements.
            offset = offset + mean.shift_yx - pair.shift_yx
            offset_covariance = offset_covariance + mean.covariance
            covariance = offset_covariance * scale**2
        sigma = np.sqrt(np.diag(covariance))
        moved = dataclasses.replace(
            located, position_yx=located.position_yx + offset * scale, sigma_yx=sigma, covariance=covariance
        )
        return moved, offset, offset_covariance


def check_first(array: NDArray[Any], corrected: Corrected, corrector: Corrector, engine: ShiftEngine) -> FrameCheck:
    """Check light and structure of a frame, shape (ny, nx) in counts, that others will be measured against."""
    check = check_light(array, corrected, corrector)
    if not check.ok:
        return check
    whole = engine.whole_spectrum(corrected.od, corrector.weight)
    return check_structure(whole.polar, engine.whole, whole.mode_correlation)


def _result(located: Located) -> ShiftResult:
    (y, x), (sigma_y, sigma_x) = located.position_yx, located.sigma_yx
    identifier = located.keyframe.identifier if located.keyframe else -1
    return ShiftResult(
        (float(y), float(x)),
        (float(sigma_y), float(sigma_x)),
        float(located.confidence),
        identifier,
        located.ok,
        located.reason,
    )


def _not_judged(why: str) -> BlurResult:
    return dataclasses.replace(NOT_JUDGED, reason=f"blur not judged: {why}")


class BlurScreen:
    """Judges the blur of a stream of frames of one field of view against its first sharp one.

    Source of the idea: Sun et al. 2025, the directional narrowing of a blurred frame's power spectrum; here fitted as the covariance of a
    blur kernel by maximum likelihood with the noise in the model, and weighed against hypotheses with prior odds (Bayes).

    Parameters
    ----------
    shape
        Rows and columns of the frames, px.
    flat, dark
        Reference counts, shape (ny, nx).
    pixel_size_um
        Unbinned pixel, um.
    limit_px
        Blur extent that is rejected until frames tell how far sharp ones scatter (see `BlurCalibration`), unbinned px.

    Raises
    ------
    ValueError
        Flat or dark of another shape, not finite, or no brighter than the dark; frames under 64 px; a pixel size or limit not above 0.
    """

    def __init__(
        self, shape: tuple[int, int], flat: ArrayLike, dark: ArrayLike, pixel_size_um: float, *, limit_px: float = 3.75
    ) -> None:
        if not pixel_size_um > 0 or not limit_px > 0:
            raise ValueError(f"pixel_size_um = {pixel_size_um} um and limit_px = {limit_px} px: must be above 0")
        self.pixel_size_um = pixel_size_um
        self._corrector = Corrector(shape, 2)
        self._corrector.set_dark(dark)
        self._corrector.set_flat(flat)
        self._engine = ShiftEngine(self._corrector.binned_shape, 2)
        self._calibration = BlurCalibration(limit_px, 2.0)
        self._scored_by = BlurHypotheses(limit_px)
        self._first_hypotheses = BlurHypotheses(FIRST_LIMIT * limit_px, retake_odds=FIRST_RETAKE_ODDS)
        self._chain = KeyframeChain(self._engine)
        self._reference: Keyframe | None = None
        self._reference_yx_px = (0.0, 0.0)
        self._suspects = FirstFrames(self._engine, 1)

    def update(self, frame: ArrayLike, shift_yx_px: tuple[float, float] | None = None) -> BlurResult:
        """Judge one frame, shape (ny, nx), counts.

        Parameters
        ----------
        frame
            Counts.
        shift_yx_px
            Its content shift against the first sharp frame if known (unbinned px); None or not finite: it is searched for.

        Returns
        -------
        BlurResult
            Never raises for what a camera may deliver; a frame that cannot be judged is not called blurred, and `reason` says why.
        """
        array = np.asarray(frame)
        check = check_raw(array, self._corrector.shape)
        if not check.ok:
            return _not_judged(check.reason)
        corrected, weight = self._corrector.correct(array), self._corrector.weight
        od = corrected.od
        if self._reference is None:
            check = check_first(array, corrected, self._corrector, self._engine)
            return self._first(od, weight, shift_yx_px) if check.ok else _not_judged(check.reason)
        check = check_light(array, corrected, self._corrector)
        if not check.ok:
            return _not_judged(check.reason)
        if shift_yx_px is None or not np.isfinite(shift_yx_px).all():
            located = self._chain.locate(od, weight)
            pair = located.pair if located.ok else None
        else:
            relative = np.subtract(shift_yx_px, self._reference_yx_px) / self._engine.bin
            pair = self._engine.refine(self._reference, od, relative, near=True)
        if pair is None or pair.significance < LEAST_SIGNIFICANCE:
            return _not_judged("nothing in common with the reference")
        fit, hypotheses = fit_pair(pair), self._calibration.hypotheses
        blur, sharper = judge(
            fit, hypotheses, self.pixel_size_um, "the reference", pair.reference_frames, self._scored_by
        )
        if sharper:
            self._refer_to(od, shift_yx_px)
        elif not blur.is_blurred:
            self._calibration.accept(fit)
            if blur.extent_px < KEYFRAME_SHARE * hypotheses.limit_px:
                self._reference.absorb(pair)
        return blur

    def _first(self, od: Float2D, weight: Float2D, shift_yx_px: tuple[float, float] | None) -> BlurResult:
        """Judge a frame by itself; the first sharp one becomes the reference."""
        alone = self._engine.whole_spectrum(od, weight)
        fit = fit_alone(alone.polar, self._engine.whole, alone.mode_correlation)
        blur, _ = judge(fit, self._first_hypotheses, self.pixel_size_um, "a sharp image (own anisotropy)")
        if blur.is_blurred:
            if not self._suspects.as_anisotropic(ONLY_FIELD, od, weight):
                self._suspects.remember(ONLY_FIELD, od, weight)
                return blur
            blur = as_structure(blur)
        self._refer_to(od, shift_yx_px)
        return blur

    def _refer_to(self, od: Float2D, shift_yx_px: tuple[float, float] | None) -> None:
        self._chain = KeyframeChain(self._engine)
        self._reference = self._chain.start(od, self._corrector.weight).keyframe
        self._reference_yx_px = shift_yx_px or (0.0, 0.0)
