"""What series of frames have in common: measure a field, judge it, retake it, follow the drift, change the spot."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator

from xbat_live import __version__
from xbat_live.devices import AnalysisRecord, DecisionRecord, PointRecord, TxmBeamline
from xbat_live.dose import DoseRefused
from xbat_live.plans._blocking import call_in, wait_until_done
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.protocols import AnalysedFrame, LiveAnalysis
from xbat_live.plans.stubs import Target, expose, move_to_spot

logger = logging.getLogger(__name__)

SpotChooser = Callable[[float, float], tuple[float, float] | None]


class NoFreshSpot(RuntimeError):
    """The sample has no position left that may be exposed."""


class LimitBelowOneFrame(ValueError):
    """The dose limit does not even allow one exposure."""


@dataclass(frozen=True)
class Records:
    """The soft devices behind the streams ``primary`` (point), ``analysis`` and ``decision``."""

    point: PointRecord = field(default_factory=lambda: PointRecord(name="point"))
    analysis: AnalysisRecord = field(default_factory=lambda: AnalysisRecord(name="analysis"))
    decision: DecisionRecord = field(default_factory=lambda: DecisionRecord(name="decision"))


@dataclass(frozen=True)
class DriftPolicy:
    """How far and how fast the stage may follow the drift.

    Attributes
    ----------
    enabled
        False only records the drift.
    deadband_um
        Smaller differences are left alone.
    max_step_um
        Largest correction per point and axis, so that one wrong registration cannot send the stage away.
    """

    enabled: bool = True
    deadband_um: float = 0.1
    max_step_um: float = 2.0


@dataclass
class Series:
    """State of one running series; made by a plan, used by the stubs below.

    Attributes
    ----------
    choose_spot
        Returns the sample coordinate (x, y), um, of the next fresh spot after the one at (x, y), or None.
    policy
        ``relocate`` or ``halt`` when the dose guard refuses.
    """

    beamline: TxmBeamline
    guard: DoseGuard
    analysis: LiveAnalysis
    choose_spot: SpotChooser
    exposure_s: float
    policy: str = "relocate"
    max_retakes: int = 1
    verdict_timeout_s: float = 10.0
    drift: DriftPolicy = field(default_factory=DriftPolicy)
    readables: tuple[Readable, ...] = ()
    records: Records = field(default_factory=Records)
    spot: int = 0
    spot_um: tuple[float, float] = (0.0, 0.0)
    applied_drift_um: tuple[float, float] = (0.0, 0.0)
    frames: int = 0
    rejected: int = 0
    relocations: int = 0
    corrections: int = 0
    _feedback_told: bool = False


@dataclass(frozen=True)
class SeriesSummary:
    """What a series did; the return value of its plan.

    Attributes
    ----------
    points
        Time points completed.
    frames, rejected
        Frames taken of the sample, and how many of them were rejected (they are kept and marked).
    relocations, corrections
        Changes of spot, and stage corrections for drift.
    outcome
        ``completed``, ``time is up`` or why it ended early.
    """

    points: int
    frames: int
    rejected: int
    relocations: int
    corrections: int
    outcome: str


def code_version() -> str:
    """Return the versions that decide, for the decision record."""
    return f"xbat_live {__version__}, bluesky {version('bluesky')}"


def decide(series: Series, action: str, reason: str, *, threshold: float = math.nan, **inputs: Any) -> MsgGenerator[None]:
    """Record a decision in the stream ``decision``: what, why, from which inputs, against which threshold."""
    record = series.records.decision
    record.fill(
        action=action,
        reason=reason,
        spot=series.spot,
        seq_num=series.frames,
        threshold=threshold,
        inputs=json.dumps(inputs, default=float),
        code_version=code_version(),
    )
    yield from bps.create(name="decision")
    yield from bps.read(record)
    yield from bps.save()


def judge(series: Series) -> MsgGenerator[AnalysedFrame | None]:
    """Wait for the verdict on the frame saved last and record it in the stream ``analysis``.

    Returns
    -------
    AnalysedFrame or None
        None when no verdict came within `verdict_timeout_s`, or the analysis failed: the frame is then recorded as ``unjudged`` with
        the reason. Trouble of the analysis does not end a run on a sample that cannot be replaced.
    """
    future = series.analysis.latest()
    done = yield from wait_until_done(future, timeout_s=series.verdict_timeout_s)
    record, point = series.records.analysis, series.records.point
    record.reset()
    record.fill(**{name: point.values()[name] for name in ("field", "spot", "open_time_s")})
    frame: AnalysedFrame | None = None
    if not done:
        problem = f"no verdict within {series.verdict_timeout_s:g} s"
    elif error := future.exception():
        problem = f"analysis failed: {error}"
        logger.error("%s", problem, exc_info=error)
    else:
        frame, problem = future.result(), ""
    if frame is None:
        record.fill(seq_num=series.frames, verdict="unjudged", accepted=0, reason=problem)
    else:
        record.fill(**frame.record())
    yield from bps.create(name="analysis")
    yield from bps.read(record)
    yield from bps.save()
    return frame


def measure_field(series: Series, target: Target) -> MsgGenerator[AnalysedFrame | None]:
    """Take one frame of a field of view, judge it, and retake it while it is rejected and the budget allows.

    Raises
    ------
    DoseRefused
        When not even the first exposure is allowed. The shutter has not moved.
    """
    frame: AnalysedFrame | None = None
    for attempt in range(series.max_retakes + 1):
        yield from bps.checkpoint()
        series.records.point.fill(
            field=target.field, spot=target.spot, attempt=attempt, target_x_um=target.x_um, target_y_um=target.y_um
        )
        try:
            yield from expose(
                series.beamline, series.guard, series.records.point, exposure_s=series.exposure_s, readables=series.readables
            )
        except DoseRefused as refusal:
            if attempt == 0:
                raise
            yield from decide(series, "keep_rejected", f"no retake of {target.field}: {refusal}", threshold=refusal.limit_gy)
            return frame
        series.frames += 1
        frame = yield from judge(series)
        if frame is None or frame.accepted:
            return frame
        series.rejected += 1
        action = "retake" if attempt < series.max_retakes else "keep_rejected"
        yield from decide(series, action, f"{target.field}: {frame.reason}", verdict=frame.kind, attempt=attempt)
    return frame


def measure_spot(series: Series, fields_um: Sequence[tuple[float, float]]) -> MsgGenerator[None]:
    """Measure all fields of view of the present spot; when the dose guard refuses, relocate and start over, or halt.

    Raises
    ------
    NoFreshSpot
        The policy is ``halt``, or nothing fresh is left.
    LimitBelowOneFrame
        A fresh spot was refused as well.
    """
    fresh = False
    while True:
        try:
            for index, (dx, dy) in enumerate(fields_um):
                target = Target(chr(ord("A") + index), series.spot, series.spot_um[0] + dx, series.spot_um[1] + dy)
                yield from move_to_spot(series.beamline, target, drift_um=series.applied_drift_um)
                yield from measure_field(series, target)
                fresh = False
            return
        except DoseRefused as refusal:
            if fresh:
                raise LimitBelowOneFrame(f"the first exposure of a fresh spot was refused: {refusal}") from refusal
            yield from relocate(series, refusal)
            fresh = True


def relocate(series: Series, refusal: DoseRefused) -> MsgGenerator[None]:
    """Go to the nearest fresh spot because of `refusal`; with the policy ``halt`` end the series.

    Raises
    ------
    NoFreshSpot
        See `measure_spot`. The reason is recorded in the stream ``decision`` first.
    """
    inputs = {"would_be_gy": refusal.would_be_gy, "x_um": refusal.x_um, "y_um": refusal.y_um}
    if series.policy == "halt":
        yield from decide(series, "halt", str(refusal), threshold=refusal.limit_gy, **inputs)
        raise NoFreshSpot(f"halted: {refusal}")
    spot = yield from call_in(series.guard.executor, series.choose_spot, *series.spot_um)
    if spot is None:
        yield from decide(series, "halt", f"no fresh spot left; {refusal}", threshold=refusal.limit_gy, **inputs)
        raise NoFreshSpot(f"no fresh spot left on the sample; {refusal}")
    before = series.spot_um
    series.spot += 1
    series.relocations += 1
    series.spot_um = spot
    distance_um = math.dist(before, spot)
    reason = f"{refusal}; nearest fresh spot {distance_um:.0f} µm away at ({spot[0]:.1f}, {spot[1]:.1f}) µm"
    yield from decide(series, "relocate", reason, threshold=refusal.limit_gy, **inputs, to_x_um=spot[0], to_y_um=spot[1])


def follow_drift(series: Series) -> MsgGenerator[None]:
    """Take the registered drift over into the stage targets: outside the deadband, and at most `max_step_um` a time."""
    policy = series.drift
    if not policy.enabled:
        return
    if not series.analysis.feedback_ok:
        if not series._feedback_told:
            series._feedback_told = True
            yield from decide(
                series, "stop_correcting", "stage corrections moved the image the wrong way; check the camera's orientation"
            )
        return
    drift = series.analysis.drift_um
    step = [wanted - applied for wanted, applied in zip(drift, series.applied_drift_um, strict=True)]
    if max(abs(value) for value in step) < policy.deadband_um:
        return
    limited = [max(-policy.max_step_um, min(policy.max_step_um, value)) for value in step]
    applied = (series.applied_drift_um[0] + limited[0], series.applied_drift_um[1] + limited[1])
    series.applied_drift_um = applied
    series.corrections += 1
    reason = f"drift ({drift[0]:+.2f}, {drift[1]:+.2f}) µm in x, y; stage follows by ({limited[0]:+.2f}, {limited[1]:+.2f}) µm"
    yield from decide(series, "correct_drift", reason, threshold=policy.deadband_um, drift_x_um=drift[0], drift_y_um=drift[1])
