"""What the frame pipeline says about one frame."""

from __future__ import annotations

from dataclasses import dataclass

from xbat_live.imaging.blur import BlurResult


@dataclass(frozen=True)
class FrameVerdict:
    """What the pipeline says about one frame; plain values only, so that it can go into documents.

    Attributes
    ----------
    kind
        ``accepted``, ``blurred``, ``lost``, or what a check found: ``blank``, ``saturated``, ``nan``, ``duplicate``, ``wrong shape``,
        ``wrong dtype``, ``shutter closed``, ``underexposed``, ``dead rows``.
    accepted
        True when the frame is fit for analysis.
    reason
        One sentence for people: value, unit, limit; and what references were missing.
    shift_yx_px, sigma_yx_px
        Content shift (y, x) against the first accepted frame of this key and its standard uncertainty, unbinned px. When `located` is
        False: the last good shift, with half the field as uncertainty.
    located
        True when the shift was measured (it can be for a blurred frame).
    confidence
        0 to 1; 0.5 is the least that is believed.
    keyframe_id
        Keyframe the shift was measured against (itself for a new one); -1 when none.
    reanchored
        True when this frame turned out sharper than the reference, which was therefore blurred: earlier verdicts on this key were made
        against a blurred frame.
    blur
        How blurred; see `BlurResult`.
    transmission
        Mean light over the flat's, 1 without sample.
    elapsed_ms
        Time taken, ms.
    consecutive_rejects
        Frames rejected in a row by this pipeline, this one included; 0 when accepted. For an alarm.
    blur_limit_px
        Blur extent from which frames are rejected at present, unbinned px.
    """

    kind: str
    accepted: bool
    reason: str
    shift_yx_px: tuple[float, float]
    sigma_yx_px: tuple[float, float]
    located: bool
    confidence: float
    keyframe_id: int
    reanchored: bool
    blur: BlurResult
    transmission: float
    elapsed_ms: float
    consecutive_rejects: int = 0
    blur_limit_px: float = 0.0
