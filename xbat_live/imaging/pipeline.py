"""One verdict per frame: checks, registration and blur on one shared transform, per field of view."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.blur import (
    FIRST_LIMIT,
    FIRST_RETAKE_ODDS,
    KEYFRAME_SHARE,
    NOT_JUDGED,
    BlurHypotheses,
    BlurResult,
    KernelFit,
    fit_alone,
    fit_pair,
    judge,
)
from xbat_live.imaging.calibration import BlurCalibration
from xbat_live.imaging.checks import check_light, check_raw, check_structure
from xbat_live.imaging.correction import Corrected, Corrector
from xbat_live.imaging.first_frames import Field, FirstFrames, as_structure
from xbat_live.imaging.keyframes import KeyframeChain, Located
from xbat_live.imaging.registration import ShiftEngine
from xbat_live.imaging.verdict import FrameVerdict

logger = logging.getLogger(__name__)

__all__ = ["FramePipeline", "FrameVerdict"]

LEAST_LIGHT = 0.98
MOST_CONDITIONS = 16

DUPLICATE_STRIDE = 16
"""Every sixteenth row is kept to recognise a duplicate; a caller may reuse its buffer."""


class FramePipeline:
    """Judges frames of one camera setting as they come. For use in one thread at a time.

    Frame checks, then registration and blur on one transform: for the methods and their sources see `LiveRegistrar` and `BlurScreen`.

    Parameters
    ----------
    shape
        Rows and columns of the frames, px.
    pixel_size_um
        Unbinned pixel at the sample, um.
    bin
        Pixels summed along each axis before the logarithm; 2 loses nothing at TXM doses, 4 is faster for large frames.
    workers
        Threads of one FFT.
    saturation
        Full scale of the camera, counts.
    dark_offset
        Counts/px taken as dark until `set_dark` is called.
    blur_limit_px
        Blur extent in unbinned px from which a frame is rejected until the frames themselves tell how far sharp ones scatter, see
        `BlurCalibration`.
    max_fields
        Fields of view remembered; the one unused for longest is forgotten first.

    Raises
    ------
    ValueError
        Frame too small, or a parameter out of range.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        *,
        bin: int = 2,
        workers: int = 1,
        saturation: int = 65535,
        dark_offset: float = 0.0,
        blur_limit_px: float = 3.75,
        max_fields: int = 16,
    ) -> None:
        if not pixel_size_um > 0:
            raise ValueError(f"pixel_size_um = {pixel_size_um} um: must be above 0 um")
        if bin < 1 or max_fields < 1 or not blur_limit_px > 0:
            raise ValueError(
                f"bin = {bin}, max_fields = {max_fields} and blur_limit_px = {blur_limit_px} px must be at least 1, 1 and above 0 px"
            )
        self.shape = (int(shape[0]), int(shape[1]))
        self.pixel_size_um = float(pixel_size_um)
        self.saturation = saturation
        self.max_fields = max_fields
        self._corrector = Corrector(self.shape, bin, dark_offset)
        self._dark_offset = dark_offset
        self._engine = ShiftEngine(self._corrector.binned_shape, bin, workers)
        self._blur_limit_px = float(blur_limit_px)
        self._conditions: tuple[float | None, float | None] = (None, None)
        self._calibrations: OrderedDict[tuple[float | None, float | None], BlurCalibration] = OrderedDict()
        self._calibration = self._calibrated()
        self._consecutive_rejects = 0
        self._scored_by = BlurHypotheses(blur_limit_px)
        self._first_hypotheses = BlurHypotheses(FIRST_LIMIT * blur_limit_px, retake_odds=FIRST_RETAKE_ODDS)
        self._fields: OrderedDict[Field, KeyframeChain] = OrderedDict()
        self._suspects = FirstFrames(self._engine, max_fields)
        self._previous: NDArray[np.generic] | None = None

    def set_flat(self, flat: ArrayLike) -> None:
        """Take the flat (one, or the mean of several), shape (ny, nx), counts.

        Raises
        ------
        ValueError
            Wrong shape, not finite, or no light above the dark.
        """
        self._corrector.set_flat(flat)
        self._engine.forget_static()

    def set_dark(self, dark: ArrayLike) -> None:
        """Take the dark (one, or the mean of several), shape (ny, nx), counts.

        Raises
        ------
        ValueError
            Wrong shape or not finite.
        """
        self._corrector.set_dark(dark)

    def set_conditions(self, energy_ev: float, exposure_s: float) -> None:
        """Tell energy (eV) and exposure time (s) of the frames to come.

        At another energy fields of view start anew, because contrast changes or inverts across an edge; those of an energy seen before are
        taken up again. At another energy or exposure the blur limit is learnt anew. Flat and dark stay: set those of the new conditions.

        Raises
        ------
        ValueError
            Values that are not finite and above zero.
        """
        if not (0 < energy_ev < np.inf and 0 < exposure_s < np.inf):
            raise ValueError(
                f"conditions: energy {energy_ev} eV and exposure {exposure_s} s must be finite and above 0"
            )
        self._conditions = (float(energy_ev), float(exposure_s))
        self._calibration = self._calibrated()

    @property
    def blur_limit_px(self) -> float:
        """Blur extent from which frames are rejected at present, unbinned px."""
        return self._calibration.limit_px

    @property
    def consecutive_rejects(self) -> int:
        """Frames rejected in a row, of whatever field."""
        return self._consecutive_rejects

    def reset(self, key: str | None = None) -> None:
        """Forget one field of view (at all energies), or all: the next frame of it becomes its first."""
        for field in [f for f in self._fields if key is None or f[1] == key]:
            del self._fields[field]
        self._suspects.forget(key)
        self._previous = None

    def _calibrated(self) -> BlurCalibration:
        """Return the calibration of the present conditions, a new one where there is none."""
        if self._conditions not in self._calibrations:
            self._calibrations[self._conditions] = BlurCalibration(self._blur_limit_px, float(self._corrector.bin))
            if len(self._calibrations) > MOST_CONDITIONS:
                self._calibrations.popitem(last=False)
        self._calibrations.move_to_end(self._conditions)
        return self._calibrations[self._conditions]

    def process(
        self, frame: ArrayLike, key: str, *, beam_scale: float = 1.0, light_fraction: float = 1.0
    ) -> FrameVerdict:
        """Judge one frame.

        Parameters
        ----------
        frame
            Counts, shape (ny, nx); kept only to recognise a duplicate.
        key
            Field of view (spot, field, energy): frames of one key are registered against each other.
        beam_scale
            Exposure time times beam intensity, relative to the flat's.
        light_fraction
            Part of the exposure during which the shutter was open, if known; below `LEAST_LIGHT` the frame is ``underexposed``: its
            optical density would be too high everywhere by the same amount.

        Returns
        -------
        FrameVerdict
            Never raises for what a camera may deliver; a bad frame gives a verdict.
        """
        started = time.perf_counter()
        array = np.asarray(frame)
        check = check_raw(
            array, self.shape, saturation=self.saturation, previous_rows=self._previous, stride=DUPLICATE_STRIDE
        )
        if check.kind not in ("wrong shape", "wrong dtype"):
            self._previous = array[::DUPLICATE_STRIDE].copy()
        if not check.ok:
            return self._rejected(self._name(key), check.kind, check.reason, 0.0, started)
        if light_fraction < LEAST_LIGHT:
            reason = f"{100 * light_fraction:.0f} % of the exposure's light reached the camera (at least {100 * LEAST_LIGHT:.0f} %)"
            return self._rejected(self._name(key), "underexposed", reason, 0.0, started)
        corrected = self._corrector.correct(array, beam_scale if beam_scale > 0 else 1.0)
        check = check_light(array, corrected, self._corrector)
        if not check.ok:
            return self._rejected(self._name(key), check.kind, check.reason, corrected.transmission, started)
        chain = self._field(self._name(key))
        return (self._first if chain.empty else self._later)(chain, self._name(key), corrected, started)

    def _name(self, key: str) -> Field:
        return self._conditions[0], key

    def _field(self, key: Field) -> KeyframeChain:
        if key not in self._fields:
            self._fields[key] = KeyframeChain(self._engine)
            if len(self._fields) > self.max_fields:
                forgotten, _ = self._fields.popitem(last=False)
                logger.info("field %s forgotten: more than %d fields in use", forgotten[1], self.max_fields)
        self._fields.move_to_end(key)
        return self._fields[key]

    def _first(self, chain: KeyframeChain, key: Field, corrected: Corrected, started: float) -> FrameVerdict:
        engine, weight = self._engine, self._corrector.weight
        whole = engine.whole_spectrum(corrected.od, weight)
        check = check_structure(whole.polar, engine.whole, whole.mode_correlation)
        if not check.ok:
            return self._rejected(key, check.kind, check.reason, corrected.transmission, started)
        fit = fit_alone(whole.polar, engine.whole, whole.mode_correlation)
        blur, _ = judge(fit, self._first_hypotheses, self.pixel_size_um, "a sharp image (own anisotropy)")
        reason = ""
        if blur.is_blurred:
            if not self._suspects.as_anisotropic(key, corrected.od, weight):
                self._suspects.remember(key, corrected.od, weight)
                return self._rejected(key, "blurred", blur.reason, corrected.transmission, started, blur)
            blur = as_structure(blur)
            reason = blur.reason
        self._suspects.forget_field(key)
        located = chain.start(corrected.od, weight)
        return self._verdict("accepted", reason or located.reason, located, blur, corrected, started)

    def _later(self, chain: KeyframeChain, key: Field, corrected: Corrected, started: float) -> FrameVerdict:
        weight = self._corrector.weight
        located = chain.locate(corrected.od, weight)
        pair = located.pair
        if pair is None:
            central = self._engine.central_spectrum(corrected.od, weight)
            check = check_structure(central.polar, self._engine.central, central.mode_correlation)
        else:
            check = check_structure(pair.frame, pair.window, pair.mode_correlation)
        if not check.ok:
            return self._rejected(key, check.kind, check.reason, corrected.transmission, started)
        if pair is None or not located.ok:
            return self._verdict("lost", located.reason, located, NOT_JUDGED, corrected, started)
        assert located.keyframe is not None
        fit, keyframe, calibration = fit_pair(pair), located.keyframe, self._calibration
        hypotheses = calibration.hypotheses
        relative = KernelFit(fit.kernel - keyframe.kernel_baseline, fit.covariance)
        blur, sharper = judge(
            relative,
            hypotheses,
            self.pixel_size_um,
            f"keyframe {keyframe.identifier}",
            pair.reference_frames,
            self._scored_by,
        )
        if blur.is_blurred:
            return self._verdict("blurred", blur.reason, located, blur, corrected, started)
        if sharper:
            fresh = chain.restart(located, corrected.od, weight)
            reason = f"{blur.reason}; reference replaced, frames of {key[1]} accepted so far may be blurred"
            logger.warning("field %s: %s", key[1], reason)
            return self._verdict(
                "accepted", reason, located, blur, corrected, started, keyframe_id=fresh.identifier, reanchored=True
            )
        keyframe.calibrate(fit.kernel)
        calibration.accept(relative)
        if blur.extent_px > KEYFRAME_SHARE * hypotheses.limit_px:
            return self._verdict("accepted", blur.reason, located, blur, corrected, started)
        handed_over = chain.accept(located, corrected.od, weight)
        identifier = handed_over.identifier if handed_over else None
        return self._verdict("accepted", blur.reason, located, blur, corrected, started, keyframe_id=identifier)

    def _verdict(  # noqa: PLR0917
        self,
        kind: str,
        reason: str,
        located: Located,
        blur: BlurResult,
        corrected: Corrected,
        started: float,
        *,
        keyframe_id: int | None = None,
        reanchored: bool = False,
    ) -> FrameVerdict:
        own = located.keyframe.identifier if located.keyframe else -1
        (y, x), (sigma_y, sigma_x) = located.position_yx, located.sigma_yx
        self._consecutive_rejects = 0 if kind == "accepted" else self._consecutive_rejects + 1
        return FrameVerdict(
            kind=kind,
            accepted=kind == "accepted",
            reason=reason + self._fallbacks(),
            shift_yx_px=(float(y), float(x)),
            sigma_yx_px=(float(sigma_y), float(sigma_x)),
            located=located.ok,
            confidence=float(located.confidence),
            keyframe_id=own if keyframe_id is None else keyframe_id,
            reanchored=reanchored,
            blur=blur,
            transmission=float(corrected.transmission),
            elapsed_ms=1e3 * (time.perf_counter() - started),
            consecutive_rejects=self._consecutive_rejects,
            blur_limit_px=self.blur_limit_px,
        )

    def _rejected(  # noqa: PLR0917
        self, key: Field, kind: str, reason: str, transmission: float, started: float, blur: BlurResult = NOT_JUDGED
    ) -> FrameVerdict:
        chain = self._fields.get(key)
        y, x = chain.last_yx if chain else (0.0, 0.0)
        self._consecutive_rejects += 1
        return FrameVerdict(
            kind=kind,
            accepted=False,
            reason=reason + self._fallbacks(),
            shift_yx_px=(float(y), float(x)),
            sigma_yx_px=(self.shape[0] / 2, self.shape[1] / 2),
            located=False,
            confidence=0.0,
            keyframe_id=-1,
            reanchored=False,
            blur=blur,
            transmission=float(transmission),
            elapsed_ms=1e3 * (time.perf_counter() - started),
            consecutive_rejects=self._consecutive_rejects,
            blur_limit_px=self.blur_limit_px,
        )

    def _fallbacks(self) -> str:
        notes = []
        if not self._corrector.has_flat:
            notes.append("no flat yet: smooth illumination assumed")
        if not self._corrector.has_dark:
            notes.append(f"no dark yet: {self._dark_offset:g} counts/px assumed")
        return f" ({'; '.join(notes)})" if notes else ""
