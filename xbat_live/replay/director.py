"""Plays a recording to a plan: which exposure comes, what time it is, what flux there is. For both ways of replaying."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xbat_live.dose.flux_history import FluxMean
from xbat_live.replay.choosing import RECORDED, STAND_IN, Chooser, Served, Wanted
from xbat_live.replay.recording import STREAMS, Decision, Exposure, Recording, ReplayError

_LOOK_AHEAD = 8  # exposures
_SAME_UM = 1e-3
_STEPS = ("potentiostat", "phase")
_RESERVED = "flux_reserved_ph_s"  # of a decision about an exposure that was refused


class RecordingOver(ReplayError):  # noqa: N818 - no error
    """The plan goes on after the last time point that was recorded."""


@dataclass
class Director:
    """Where a replay is in its recording.

    The clock is that of the recording: between two exposures it stands, with an exposure it is where it was then, and when the next
    recorded exposure belongs to another time point it reads what the plan read then. So a replay decides what depends on time as the
    run did, however fast it goes. A pause that the plan asks for lets it run on; it never runs backwards.

    Attributes
    ----------
    recording
        What is played.
    chooser
        Which exposure is served for which.
    flux_factor
        What one recorded photon counts: other than 1 when the replay calibrates the ion chamber differently.
    event_time_s
        Unix time of the exposure that was served last, s; never runs backwards.
    transmission
        Returns the attenuator's transmission now; the recording had `recorded_transmission` of an exposure.
    served
        What was served, in order.
    over
        What is raised when the plan goes on after the end of the recording.
    """

    recording: Recording
    chooser: Chooser
    flux_factor: float = 1.0
    headroom: float = 1.02
    transmission: Callable[[], float] = lambda: 1.0
    served: list[Served] = field(default_factory=list)
    current: Served | None = None
    event_time_s: float = -math.inf
    frames: int = 0
    after: int = 0
    fidelity: str = RECORDED
    point_record: Any = None
    over: type[Exception] = RecordingOver
    _now_s: float = 0.0

    def __post_init__(self) -> None:
        self._begin_s = self.recording.begin_s
        self._order = list(self.recording.of_points())
        self._next_at = 0
        self._last_of = {(exposure.point, exposure.field): exposure for exposure in self._order}
        self._transmissions = transmissions(self.recording)
        self._attenuations = _attenuations(self.recording)
        self._refusals = deque(decision for decision in self.recording.decisions if _RESERVED in decision.inputs)
        self._last_point = max((e.point for e in self._order), default=0)

    # -- time --------------------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Return the time since the first time point, s."""
        upcoming = self._order[self._next_at] if self._next_at < len(self._order) else None
        before = self._order[self._next_at - 1] if self._next_at else None
        if upcoming is None:
            at_s = self.recording.elapsed_at_end_s
        elif before is None or upcoming.point != before.point:
            at_s = upcoming.elapsed_s if before is not None else 0.0
        else:
            return self._now_s
        if not math.isnan(at_s):
            self._now_s = max(self._now_s, at_s)
        return self._now_s

    def account_s(self) -> float:
        """Return the time for the dose account, s: that of the last exposure, of the last look at the clock, or after a pause."""
        return self._now_s

    def wall_s(self) -> float:
        """Return the recording's Unix time by `account_s`, s."""
        return self._begin_s + self._now_s

    def pass_time(self, seconds: float) -> None:
        """Let the clock run."""
        self._now_s += seconds

    # -- exposures ---------------------------------------------------------------------------------------------------

    def wanted(self, frame_type: str, stage_um: tuple[float, float], energy_ev: float) -> Wanted:
        """Return what the plan is about to expose, by what its point record holds."""
        record = self.point_record
        stream = STREAMS.get(frame_type, "primary")
        if record is None:
            return Wanted(stream, stage_um, energy_ev)
        return Wanted(
            stream,
            stage_um,
            energy_ev,
            point=int(record.index.get() or 0),
            field=str(record.field.get()),
            spot=int(record.spot.get() or 0),
            attempt=int(record.attempt.get() or 0),
        )

    def serve(self, wanted: Wanted) -> Served:
        """Choose the exposure that is played now, and go on to its time.

        Raises
        ------
        ReplayError
            Nothing of this kind was recorded.
        """
        served = self.chooser.serve(wanted)
        if served is None:
            raise ReplayError(f"the plan asks for a {wanted.stream} frame, of which none was recorded")
        exposure = served.exposure
        self.current = served
        self.served.append(served)
        then = exposure if served.how != STAND_IN else self._instead(wanted)
        if then is not None and wanted.stream != "dark":
            self._next_at = max(self._next_at, self._index(then) + 1)
            self._now_s = max(self._now_s, then.time_s - self._begin_s)
        self.event_time_s = max(self.event_time_s, self.wall_s() if then is None else then.time_s)
        if wanted.stream == "primary":
            self.frames += 1
            self.fidelity = STAND_IN if STAND_IN in (self.fidelity, served.how) else served.how
            if served.how != STAND_IN:
                self.after = exposure.seq_num
        return served

    def _instead(self, wanted: Wanted) -> Exposure | None:
        """Return the last recorded exposure of the same time point and field: as far the recording is when that was made elsewhere."""
        if wanted.point is None or wanted.field is None:
            return None
        return self._last_of.get((wanted.point, wanted.field))

    def _index(self, exposure: Exposure) -> int:
        # darks come first as a rule, so the distance is short
        low = min(exposure.number, len(self._order) - 1)
        while self._order[low].number > exposure.number:
            low -= 1
        return low

    def readback_um(self, axis: int, target_um: float) -> float:
        """Return where an axis (0: x, 1: y) comes to rest that is sent to `target_um`: where it did for one of the coming exposures."""
        for exposure in self._order[self._next_at : self._next_at + _LOOK_AHEAD]:
            if abs(exposure.setpoint_um[axis] - target_um) < _SAME_UM:
                return exposure.stage_um[axis]
        return target_um

    def cell_status(self) -> str:
        """Return what the potentiostat says: ``Done`` when the run began another step before the next exposure."""
        after_s = self._order[self._next_at - 1].time_s if self._next_at else -math.inf
        until_s = self._order[self._next_at].time_s if self._next_at < len(self._order) else math.inf
        stepped = any(
            decision.action in _STEPS and after_s < decision.time_s <= until_s for decision in self.recording.decisions
        )
        return "Done" if stepped else "Running"

    # -- flux --------------------------------------------------------------------------------------------------------

    def flux_now(self) -> FluxMean:
        """Return the flux that the run reserved the coming exposure with, photons/s.

        Raises
        ------
        RecordingOver
            The plan asks for a time point after the last one that was recorded; the class is `over`.
        """
        record = self.point_record
        if record is not None and int(record.index.get() or 0) > self._last_point:
            raise self.over(f"the recording ends with time point {self._last_point + 1}; the plan would have gone on")
        upcoming = self._upcoming()
        refused = self._refused()
        if refused is not None:
            was = _transmission(self._attenuations, math.nextafter(refused.time_s, -math.inf))  # it may have been why
            flux = self._known(refused.inputs[_RESERVED] / self.headroom)
            return FluxMean(flux * self.flux_factor * self.transmission() / was)
        reserved = upcoming.flux_reserved_ph_s / self.headroom
        flux = reserved if not math.isnan(reserved) else upcoming.flux_ph_s
        return FluxMean(self._known(flux) * self._scale(upcoming))

    def _refused(self) -> Decision | None:
        """Return the decision that the run made when it was refused the sample exposure that the plan asks for now.

        What that was to be reserved with is not what the next exposure was: after a relocation the beam may be another.
        """
        while self._refusals and self._refusals[0].after < self.after:
            self._refusals.popleft()  # here it was granted
        record = self.point_record
        on_sample = record is None or STREAMS.get(str(record.frame_type.get()), "primary") == "primary"
        due = bool(self._refusals) and self._refusals[0].after == self.after
        return self._refusals[0] if due and on_sample else None

    def flux(self, t0_s: float, t1_s: float) -> FluxMean:
        """Return the flux that the exposure played last was settled with, photons/s."""
        del t0_s, t1_s  # the recording knows
        exposure = self.current.exposure if self.current is not None else self._upcoming()
        return FluxMean(self._known(exposure.flux_ph_s) * self._scale(exposure))

    def _known(self, flux_ph_s: float) -> float:
        if math.isnan(flux_ph_s):
            raise ReplayError("the recording tells no flux: neither I0 nor photons")
        return flux_ph_s

    def _scale(self, exposure: Exposure) -> float:
        return self.flux_factor * self.transmission() / self._transmissions[exposure.number]

    def _upcoming(self) -> Exposure:
        """Return the exposure that the plan is about to ask for, else the next recorded one."""
        record = self.point_record
        if record is not None:
            stream = STREAMS.get(str(record.frame_type.get()), "primary")
            found = self.chooser.find(self.wanted(str(record.frame_type.get()), (math.nan, math.nan), math.nan))
            if found is not None and stream != "dark" and found.how != STAND_IN:
                return found.exposure
        if not self._order:
            raise ReplayError("no exposure with beam was recorded")
        return self._order[min(self._next_at, len(self._order) - 1)]

    # -- decisions ---------------------------------------------------------------------------------------------------

    def decided(self, held: dict[str, Any], inputs: dict[str, Any]) -> Decision:
        """Return a decision of the replay with the recorded frame it came after."""
        if _RESERVED in inputs and self._refused() is not None:
            self._refusals.popleft()
        return Decision(
            action=str(held.get("action", "")),
            reason=str(held.get("reason", "")),
            frame=self.frames,
            after=self.after,
            spot=int(held.get("spot", 0)),
            inputs=inputs,
            threshold=float(held.get("threshold", math.nan)),
            time_s=self.wall_s(),
            fidelity=self.fidelity,
        )


def transmissions(recording: Recording) -> list[float]:
    """Return the attenuator's transmission at every exposure: that of the run's decisions, 1 before the first."""
    changes = _attenuations(recording)
    return [_transmission(changes, exposure.time_s) for exposure in recording.exposures]


def _attenuations(recording: Recording) -> list[tuple[float, float]]:
    """Return from when, s, the attenuator let through which share."""
    changes = [
        (decision.time_s, float(after))
        for decision in recording.decisions
        if decision.action == "attenuate" and (after := decision.inputs.get("transmission_after")) is not None
    ]
    if recording.start.get("plan_name") == "attenuated_series":
        changes.insert(0, (-math.inf, float(recording.start.get("plan_args", {}).get("transmission", 1.0))))
    return changes


def _transmission(changes: list[tuple[float, float]], time_s: float) -> float:
    return next((share for since_s, share in reversed(changes) if since_s <= time_s), 1.0)
