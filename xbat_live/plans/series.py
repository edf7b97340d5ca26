"""What series of frames have in common: measure a field, judge it, retake it, follow the drift, change the spot."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import bluesky.plan_stubs as bps
from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused, ExposureRequest
from xbat_live.plans._blocking import call_in, wait_until_done
from xbat_live.plans.decisions import DECISION, Records, fill_decision, save_record
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.policies import Remedies, inputs_of
from xbat_live.plans.protocols import AnalysedFrame, LiveAnalysis, SpotChooser
from xbat_live.plans.steering import RELOCATE, SKIP_SPOT, take_order
from xbat_live.plans.stubs import Target, expose, move_to_spot

logger = logging.getLogger(__name__)


ANYWHERE = (RELOCATE, SKIP_SPOT)
"""Orders for a plan that goes on wherever it is sent."""


class NoFreshSpot(RuntimeError):  # noqa: N818
    """The sample has no position left that may be exposed."""


class LimitBelowOneFrame(ValueError):  # noqa: N818
    """The dose limit does not even allow one exposure."""


class SpotChanged(Exception):  # noqa: N818 - tells the plan to begin its point anew
    """The series goes on at another spot; `fresh` when it was chosen for having no dose to speak of."""

    def __init__(self, *, fresh: bool = True) -> None:
        super().__init__("the series goes on at another spot")
        self.fresh = fresh


class SpotSkipped(Exception):  # noqa: N818
    """The operator wants this place to be left; its message says who."""


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
        What is done when the dose guard refuses: one of `xbat_live.plans.POLICIES`, or several in the order they are tried.

    Raises
    ------
    ValueError
        Unknown policy.
    """

    beamline: TxmBeamline
    guard: DoseGuard
    analysis: LiveAnalysis
    choose_spot: SpotChooser
    exposure_s: float
    policy: str | Sequence[str] = "relocate"
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
    alarm_after: int = 5
    rejected_in_a_row: int = 0
    corrections: int = 0
    feedback_told: bool = False

    def __post_init__(self) -> None:
        self.guard.policies(self.policy)

    @classmethod
    def of(
        cls,
        beamline: TxmBeamline,
        guard: DoseGuard,
        analysis: LiveAnalysis,
        choose_spot: SpotChooser,
        arguments: dict[str, Any],
    ) -> Self:
        """Return the series that a plan's arguments (see `bound_arguments`) ask for; those of other things are left alone."""
        names = {item.name for item in fields(cls)}
        chosen = {name: value for name, value in arguments.items() if name in names}
        policy = chosen["drift"] = chosen.get("drift") or DriftPolicy()
        if policy.enabled:
            chosen["applied_drift_um"] = analysis.begun_drift_um
        return cls(beamline, guard, analysis, choose_spot, readables=(beamline.potentiostat,), **chosen)

    def remedies(self, *, moving: bool = True) -> Remedies:
        """Return what is done when the exposure of a field is refused; without `moving` nothing that changes the spot."""

        def tell(action: str, reason: str, *, threshold: float = math.nan, **inputs: Any) -> MsgGenerator[None]:
            yield from decide(self, action, reason, threshold=threshold, **inputs)

        def elsewhere(refusal: DoseRefused, request: ExposureRequest) -> MsgGenerator[bool]:
            if not (yield from relocate(self, refusal)):
                return False
            raise SpotChanged

        policies = self.guard.policies(self.policy)
        return Remedies([policy for policy in policies if moving or policy != "relocate"], tell, elsewhere)


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


def decide(
    series: Series, action: str, reason: str, *, threshold: float = math.nan, **inputs: Any
) -> MsgGenerator[None]:
    """Record a decision in the stream ``decision``: what, why, from which inputs, against which threshold."""
    record = series.records.decision
    fill_decision(record, action, reason, seq_num=series.frames, spot=series.spot, threshold=threshold, inputs=inputs)
    yield from save_record(record, stream=DECISION)


def pass_on_warnings(series: Series) -> MsgGenerator[None]:
    """Record the warnings of the dose guard: a limit has come near. Each limit and level once a run."""
    for warning in series.guard.take_warnings():
        inputs = {"limit": warning.limit_name, "fraction": warning.fraction, "level": warning.level}
        yield from decide(series, "warn", warning.message, threshold=warning.value, **inputs)


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


def measure_field(
    series: Series, target: Target, *, remedies: Remedies | None = None, orders: Sequence[str] = ()
) -> MsgGenerator[AnalysedFrame | None]:
    """Take one frame of a field of view, judge it, and retake it while it is rejected and the budget allows.

    Parameters
    ----------
    remedies
        What is done when the first exposure is refused; None: nothing. A retake is only made when it is allowed at once.
    orders
        Changes of place by the operator that the plan is ready for; see `obey` for how it learns of one.

    Raises
    ------
    DoseRefused
        When not even the first exposure is allowed. The shutter has not moved.
    SpotChanged, SpotSkipped
        See `obey`.
    """
    frame: AnalysedFrame | None = None
    for attempt in range(series.max_retakes + 1):
        yield from bps.checkpoint()
        yield from obey(series, orders)
        series.records.point.fill(
            field=target.field, spot=target.spot, attempt=attempt, target_x_um=target.x_um, target_y_um=target.y_um
        )
        try:
            yield from expose(
                series.beamline,
                series.guard,
                series.records.point,
                exposure_s=series.exposure_s,
                readables=series.readables,
                remedies=None if attempt else remedies,
            )
        except DoseRefused as refusal:
            if attempt == 0:
                raise
            yield from decide(
                series,
                "keep_rejected",
                f"no retake of {target.field}: {refusal}",
                threshold=refusal.limit_gy,
                **inputs_of(refusal),
            )
            return frame
        series.frames += 1
        yield from pass_on_warnings(series)
        frame = yield from judge(series)
        if frame is None or frame.accepted:
            series.rejected_in_a_row = 0
            return frame
        series.rejected += 1
        series.rejected_in_a_row += 1
        if series.rejected_in_a_row >= series.alarm_after:
            yield from alarm(series, target, frame)
            return frame
        action = "retake" if attempt < series.max_retakes else "keep_rejected"
        yield from decide(series, action, f"{target.field}: {frame.reason}", verdict=frame.kind, attempt=attempt)
    return frame


def alarm(series: Series, target: Target, frame: AnalysedFrame) -> MsgGenerator[None]:
    """Say that something is wrong with more than one frame; no frame is retaken until one is accepted, which spares the sample."""
    rejected = series.rejected_in_a_row
    if rejected == series.alarm_after:
        reason = (
            f"{rejected} frames rejected in a row, the last ({target.field}) because: {frame.reason}; look at beam, focus, stage and "
            "camera. No retakes until a frame is accepted"
        )
        yield from decide(series, "alarm", reason, threshold=float(series.alarm_after), rejected_in_a_row=rejected)
    else:
        yield from decide(series, "keep_rejected", f"{target.field}: {frame.reason}", rejected_in_a_row=rejected)


def measure_spot(
    series: Series, fields_um: Sequence[tuple[float, float]], *, first_label: int = 0
) -> MsgGenerator[None]:
    """Measure all fields of view of the present spot; when the dose guard refuses, do what the series' policy says.

    After a relocation all fields are measured anew, at the new spot. The first is labelled `first_label`, 0 for ``A``.

    Raises
    ------
    NoFreshSpot
        The policy is ``halt``, or nothing else helps; the reason is in the stream ``decision``.
    LimitBelowOneFrame
        A fresh spot was refused as well.
    """
    fresh = False
    while True:
        try:
            for index, (dx, dy) in enumerate(fields_um):
                target = Target(
                    chr(ord("A") + first_label + index), series.spot, series.spot_um[0] + dx, series.spot_um[1] + dy
                )
                yield from move_to_spot(series.beamline, target, drift_um=series.applied_drift_um)
                remedies = series.remedies(moving=not fresh)
                yield from measure_field(series, target, remedies=remedies, orders=ANYWHERE)
                fresh = False
            return
        except SpotChanged as change:
            fresh = change.fresh
        except DoseRefused as refusal:
            if fresh:
                raise LimitBelowOneFrame(f"the first exposure of a fresh spot was refused: {refusal}") from refusal
            what = (
                "no fresh spot left on the sample; "
                if "relocate" in series.guard.policies(series.policy)
                else "halted: "
            )
            raise NoFreshSpot(f"{what}{refusal}") from refusal


def relocate(series: Series, refusal: DoseRefused) -> MsgGenerator[bool]:
    """Choose the nearest fresh spot because of `refusal`; False when nothing fresh is left. The next move goes there."""
    spot = yield from call_in(series.guard.executor, series.choose_spot, *series.spot_um)
    if spot is None:
        return False
    away = go_to(series, spot)
    reason = f"{refusal}; nearest fresh spot {away}"
    inputs = {**inputs_of(refusal), "to_x_um": spot[0], "to_y_um": spot[1]}
    yield from decide(series, "relocate", reason, threshold=refusal.limit_gy, **inputs)
    return True


def go_to(series: Series, spot_um: tuple[float, float]) -> str:
    """Make `spot_um`, sample coordinate (x, y), um, the spot of the series: the next move goes there. Return where that is, in words."""
    distance_um = math.dist(series.spot_um, spot_um)
    series.spot += 1
    series.relocations += 1
    series.spot_um = spot_um
    return f"{distance_um:.0f} µm away at ({spot_um[0]:.1f}, {spot_um[1]:.1f}) µm"


def obey(series: Series, orders: Sequence[str]) -> MsgGenerator[None]:
    """Carry out the change of place that the operator wants, if any; `orders` are those that the plan is ready for here.

    Raises
    ------
    SpotChanged
        The series has another spot now.
    SpotSkipped
        The place is to be left, and the plan has its own ones.
    """
    order = yield from take_order(*orders)
    if order is None:
        return
    by = order.who or "the operator"
    if RELOCATE not in orders:
        raise SpotSkipped(f"left because {by} wants it")
    spot_um = order.spot_um or (yield from call_in(series.guard.executor, series.choose_spot, *series.spot_um))
    if spot_um is None:
        yield from decide(series, "stay", f"{by} wants another spot, but no fresh one is left on the sample")
        return
    what = "place" if order.spot_um else "nearest fresh spot"
    reason = f"{by} wants it; {what} {go_to(series, spot_um)}"
    yield from decide(series, "relocate", reason, by=by, to_x_um=spot_um[0], to_y_um=spot_um[1])
    raise SpotChanged(fresh=order.spot_um is None)


def follow_drift(series: Series) -> MsgGenerator[None]:
    """Take the registered drift over into the stage targets: outside the deadband, and at most `max_step_um` a time."""
    policy = series.drift
    if not policy.enabled:
        return
    if not series.analysis.feedback_ok:
        if not series.feedback_told:
            series.feedback_told = True
            undone, series.applied_drift_um = series.applied_drift_um, (0.0, 0.0)
            yield from decide(
                series,
                "stop_correcting",
                "stage corrections moved the image the wrong way and are undone; measure the camera's orientation: calibrate_stage",
                undone_x_um=undone[0],
                undone_y_um=undone[1],
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
    yield from decide(
        series, "correct_drift", reason, threshold=policy.deadband_um, drift_x_um=drift[0], drift_y_um=drift[1]
    )
