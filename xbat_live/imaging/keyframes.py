"""Keyframes of one field of view: positions chained over sharp frames, with redundant edges, so that errors do not walk."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbat_live.imaging.coarse import Candidate
from xbat_live.imaging.registration import Keyframe, PairShift, ShiftEngine
from xbat_live.imaging.sensor_fixed import (
    IN_DOUBT,
    NO_SHIFT_PX,
    NOT_BELIEVED,
    agreement,
    explained,
    second_shift,
    within,
)
from xbat_live.imaging.spectrum import Float, Float2D
from xbat_live.imaging.tiles import tile_mean

LEAST_SIGNIFICANCE = 6.5
"""Standard deviations; mismatched frames reach about 4.5 within the search range."""
LEAST_COARSE = 0.2
AMBIGUITY = 0.9
LOWEST = 3
"""Modes nearest to zero that the window mixes."""
FAR_APART, MOST_APART = 4, 3
"""Coarse px: two candidates are two and not one; coarse and fine shift agree."""
AS_SHARP = 0.5
AS_WELL = 0.8
"""Coarse correlations are lowered by up to this factor when the shift lies between coarse pixels."""
MOST_ON_ONE_AXIS = 2.0
"""Power of a frame on one axis of its spectrum over all its power beside both: 0.1 to 0.4 for particles, 7 and more for lines."""
MOST_SIGMA_PX = 0.7
HANDOVER = 0.9
MOST_KEYFRAMES = 6
AVERAGED_OUT = 4
"""Frames at places of their own in a keyframe's spectrum with which what stays with the sensor no longer makes a peak."""
RECENT_FRAMES = 2
"""Accepted frames kept to be averaged into the next keyframe at once: a handover would otherwise start from one noisy frame."""


@dataclass(frozen=True)
class Located:
    """Where a frame was found.

    Attributes
    ----------
    ok
        False: not found, see `reason`; the numbers are then the last good ones, with the field's size as sigma.
    position_yx, sigma_yx
        Content shift against the first frame and its uncertainty, unbinned px.
    covariance
        2x2, unbinned px squared.
    pair
        Registration against `keyframe`, None when there was none.
    """

    ok: bool
    reason: str
    position_yx: Float
    sigma_yx: Float
    covariance: Float
    confidence: float
    pair: PairShift | None
    keyframe: Keyframe | None


class _LostError(Exception):
    """A frame was not found, and why."""

    def __init__(self, reason: str, confidence: float = 0.0, pair: PairShift | None = None) -> None:
        super().__init__(reason)
        self.confidence = confidence
        self.pair = pair


class KeyframeChain:
    """Locates frames of one field of view and decides which become keyframes.

    Parameters
    ----------
    engine
        Numerics for this camera geometry.
    """

    def __init__(self, engine: ShiftEngine) -> None:
        self.engine = engine
        self.keyframes: list[Keyframe] = []
        self._active: Keyframe | None = None
        self._next_identifier = 0
        self._last_yx: Float = np.zeros(2)
        self._recent: deque[tuple[Float2D, Float]] = deque(maxlen=RECENT_FRAMES)

    @property
    def empty(self) -> bool:
        """True before the first keyframe."""
        return not self.keyframes

    @property
    def last_yx(self) -> tuple[float, float]:
        """Shift of the last accepted frame, unbinned px."""
        return float(self._last_yx[0]), float(self._last_yx[1])

    def start(self, od: Float2D, weight: Float2D) -> Located:
        """Make the first frame, whose position defines zero, a keyframe."""
        keyframe = self._add(od, weight, np.zeros(2), np.zeros((2, 2)))
        return Located(
            True, "first frame of this field", np.zeros(2), np.zeros(2), np.zeros((2, 2)), 1.0, None, keyframe
        )

    def locate(self, od: Float2D, weight: Float2D) -> Located:
        """Find the frame relative to the keyframes; changes nothing but the choice of the active keyframe."""
        active = self._active
        if active is None:
            raise RuntimeError("no keyframe yet: call start() with the first sharp frame")
        try:
            return self._found(active, od, weight)
        except _LostError as lost:
            size = np.array(self.engine.shape, float) * self.engine.bin / 2
            confidence = min(lost.confidence, 0.5)
            return Located(
                False, str(lost), self._last_yx.copy(), size, np.diag(size**2), confidence, lost.pair, active
            )

    def _found(self, active: Keyframe, od: Float2D, weight: Float2D) -> Located:
        """Return where the frame is, or raise `_LostError`."""
        engine = self.engine
        found = engine.search(active, engine.coarse.prepare(od, weight))
        if not found or found[0].correlation < LEAST_COARSE:
            raise _LostError("no structure in common with the keyframe: moved out of the field, or another sample")
        if _ambiguous(found, FAR_APART * engine.coarse.factor):
            raise _LostError("two shifts fit equally well (periodic sample?)")
        near = found[0].near_yx
        rough = active.position_yx + (np.array(found[0].shift_yx, float) if near is None else near)
        # The nearest keyframe has most in common with the frame; whatever was found against the active one, if that fails.
        nearest = min(self.keyframes, key=lambda k: _apart(k.position_yx, rough))
        matched, keyframe = None, active
        for keyframe in dict.fromkeys((nearest, active)):
            matched = engine.refine(keyframe, od, rough - keyframe.position_yx, near=near is not None)
            if matched is not None and matched.significance > LEAST_SIGNIFICANCE:
                break
        if matched is None:
            raise _LostError("too little in common with the keyframe")
        pair = self._of_the_sample(keyframe, od, matched)
        confidence = pair.significance / (pair.significance + LEAST_SIGNIFICANCE)
        if pair.significance < LEAST_SIGNIFICANCE:
            raise _LostError(
                f"correlation peak only {pair.significance:.1f} standard deviations high, {LEAST_SIGNIFICANCE:g} needed",
                confidence,
            )
        if _on_one_axis(pair) > MOST_ON_ONE_AXIS:
            raise _LostError("lines along one axis: the shift along them cannot be measured", confidence)
        coarse_yx = np.array(found[0].shift_yx) + active.position_yx
        position = keyframe.position_yx + pair.shift_yx
        as_matched = pair.shift_yx is matched.shift_yx
        if as_matched and _apart(position, coarse_yx) > MOST_APART * engine.coarse.factor:
            raise _LostError("coarse and fine shift disagree", confidence)
        scale = engine.bin
        covariance = (keyframe.covariance_of(pair) + pair.frame_covariance) * scale**2
        sigma = np.sqrt(covariance.diagonal())
        if math.sqrt(max(pair.covariance[0, 0], pair.covariance[1, 1])) * scale > MOST_SIGMA_PX:
            agrees = agreement(pair)
            stale = f", only {100 * agrees:.0f} % of the structure moved as one (stale flat?)"
            raise _LostError(
                f"shift uncertain by {sigma.max():.2f} px, limit {MOST_SIGMA_PX:g} px{'' if agrees > NOT_BELIEVED else stale}",
                confidence,
                pair,
            )
        return Located(True, "", position * scale, sigma, covariance, confidence, pair, keyframe)

    def _of_the_sample(self, keyframe: Keyframe, od: Float2D, pair: PairShift) -> PairShift:
        """Return the pair, or that of the sample where this is one of what stays with the sensor; raise `_LostError` if none can be told.

        Only against a keyframe of one or two frames: later what stays is averaged out, and the sample itself may have changed.
        """
        if max(abs(pair.shift_yx[0]), abs(pair.shift_yx[1])) > NO_SHIFT_PX or pair.reference_frames >= AVERAGED_OUT:
            return pair
        agrees = agreement(pair)
        if agrees > IN_DOUBT:
            return pair
        second = second_shift(pair)
        if second is not None:
            at = self.engine.refine(keyframe, od, second, near=True)
            if at is not None and at.significance > LEAST_SIGNIFICANCE and _apart(at.shift_yx, second) < NO_SHIFT_PX:
                return at
        elif self._deformed(keyframe, od, pair, agrees):
            return pair
        elif agrees > NOT_BELIEVED:
            return replace(pair, covariance=pair.covariance + within(agrees))
        raise _LostError(
            f"only {100 * agrees:.0f} % of the structure is where the keyframe has it, which is no shift at all: dust or a flat that "
            "no longer fits stay with the camera; take the flat again"
        )

    def _deformed(self, keyframe: Keyframe, od: Float2D, pair: PairShift, agrees: float) -> bool:
        """Whether deformation explains that structure does not agree at no shift: tiles of the sample, each by itself, then moved apart."""
        engine = self.engine
        mean = tile_mean(keyframe.od, od, keyframe.weight, pair.shift_yx, pair.static_power, engine.workers)
        return mean is not None and agrees > IN_DOUBT * explained(pair, mean.tile_shifts_yx)

    def accept(self, located: Located, od: Float2D, weight: Float2D, *, as_keyframe: bool = True) -> Keyframe | None:
        """Take in a sharp frame that was located; return it as keyframe if it became one."""
        pair, keyframe = located.pair, located.keyframe
        if pair is None or keyframe is None or not located.ok:
            raise ValueError("only a located frame can be accepted")
        self._last_yx = located.position_yx
        self._active = keyframe
        self._recent.append((od, located.position_yx / self.engine.bin))
        reach = HANDOVER * np.array(self.engine.margin)
        if (np.abs(pair.shift_yx) <= reach).all():
            keyframe.absorb(pair)
            return None
        if not as_keyframe:
            return None
        position, covariance = self._fused(od, keyframe, pair)
        added = self._add(od, weight, position, covariance)
        for earlier, earlier_yx in list(self._recent)[:-1]:
            whole = np.rint(earlier_yx - position).astype(int)
            if (np.abs(whole) <= self.engine.margin).all():
                edge = self.engine.refine(added, earlier, earlier_yx - position, near=True)
                if edge is not None and edge.significance > LEAST_SIGNIFICANCE:
                    added.absorb(edge)
        return added

    def restart(self, located: Located, od: Float2D, weight: Float2D) -> Keyframe:
        """Forget all keyframes (they were blurred) and go on from this frame; positions stay relative to the first one."""
        scale = self.engine.bin
        self.keyframes.clear()
        self._recent.clear()
        return self._add(od, weight, located.position_yx / scale, located.covariance / scale**2)

    def _fused(self, od: Float2D, keyframe: Keyframe, pair: PairShift) -> tuple[Float, Float]:
        """Weighted least squares of this frame's position over its edges to the two nearest keyframes, whose positions are kept.

        The noise of this frame displaces its own position, and by the opposite all that will be measured against it: it cancels as far as
        both are measured in the same crop, so that positions do not walk over keyframes.
        """
        edges = [(keyframe, pair)]
        rough = keyframe.position_yx + pair.shift_yx
        others = sorted((k for k in self.keyframes if k is not keyframe), key=lambda k: _apart(k.position_yx, rough))
        for other in others[:1]:
            edge = self.engine.refine(other, od, rough - other.position_yx, near=True, known=True)
            if edge is None or edge.significance < LEAST_SIGNIFICANCE:
                continue
            if _apart(other.position_yx + edge.shift_yx, rough) < 1.0:
                edges.append((other, edge))
        information = [np.linalg.inv(k.covariance_of(e) + e.frame_covariance) for k, e in edges]
        total = np.linalg.inv(sum(information))
        position = total @ sum(i @ (k.position_yx + e.shift_yx) for i, (k, e) in zip(information, edges, strict=True))
        # The edges share the chain behind them: the covariance of the best one is the honest one.
        left = [k.covariance_of(e) + 2 * (1 - self._same_pixels(e)) * e.frame_covariance for k, e in edges]
        return position, min(left, key=lambda c: float(np.trace(c)))

    def _same_pixels(self, pair: PairShift) -> float:
        """Return the share of the frame's crop in `pair` that is in the central crop, too."""
        common = 1.0
        for mine, size, own, own_size in zip(
            pair.corner, pair.window.shape, self.engine.margin, self.engine.central.shape, strict=True
        ):
            both = max(0, min(mine + size, own + own_size) - max(mine, own))
            common *= both / float(np.sqrt(size * own_size))
        return common

    def _add(self, od: Float2D, weight: Float2D, position_yx: Float, covariance: Float) -> Keyframe:
        keyframe = Keyframe(self._next_identifier, od, weight, position_yx, covariance)
        self._next_identifier += 1
        self.engine.prepare(keyframe)
        self.keyframes.append(keyframe)
        self._active = keyframe
        self._last_yx = position_yx * self.engine.bin
        if len(self.keyframes) > MOST_KEYFRAMES:
            far = max(self.keyframes[:-1], key=lambda k: _apart(k.position_yx, position_yx))
            self.keyframes.remove(far)
        return keyframe


def _on_one_axis(pair: PairShift) -> float:
    """Return the power on the stronger axis of the spectrum over the signal beside the axes, the lowest modes left out."""
    along_x, along_y = pair.spectrum[0, LOWEST:], pair.spectrum[LOWEST : 1 - LOWEST, 0]
    on_axis = max(float(np.vdot(along_x, along_x).real), float(np.vdot(along_y, along_y).real) / 2)
    beside = float((np.maximum(pair.frame.signal(), 0) * pair.window.modes).sum())
    return on_axis / max(beside, 1e-30)


def _apart(a: Sequence[float] | Float, b: Sequence[float] | Float) -> float:
    """Return the larger difference along either axis."""
    return max(abs(float(a[0]) - float(b[0])), abs(float(a[1]) - float(b[1])))


def _ambiguous(found: list[Candidate], far_apart_px: int) -> bool:
    """Whether another shift fits as well: far away by the correlation alone, anywhere when its peak is nearly as sharp, too."""
    best = found[0]
    for other in found[1:]:
        apart = _apart(best.shift_yx, other.shift_yx)
        if min(other.height, best.height) > AS_SHARP * max(other.height, best.height):
            if other.correlation > AS_WELL * best.correlation:
                return True
        elif apart >= far_apart_px and other.score > AMBIGUITY * best.score:
            return True
    return False
