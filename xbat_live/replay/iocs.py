"""Replay against IOCs: the recorded plan runs again, by Channel Access, on a simulated beamline that plays the recording.

RunEngine, devices, plan, dose guard, account, analysis and files are those of a run. The director tells the beamline which exposure comes
(decision record 0020), clocks are the recording's, and the account works on a scratch copy of the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from bluesky.utils import Msg, MsgGenerator, short_uid

from xbat_live.callbacks import DoseBackstop, FrameAnalysis
from xbat_live.config import ExperimentConfig
from xbat_live.dose.position import begun_position
from xbat_live.dose_setup import make_account
from xbat_live.engine import make_run_engine
from xbat_live.forecast.loading import load_plans
from xbat_live.plan_setup import make_plan, spot_chooser
from xbat_live.plans import DoseGuard, FluxCalibration
from xbat_live.plans.series import LimitBelowOneFrame, NoFreshSpot
from xbat_live.replay.choosing import MOVED
from xbat_live.replay.director import Director, RecordingOver
from xbat_live.replay.documents import flux_factor, make_chooser
from xbat_live.replay.ledger import ledger_at_start
from xbat_live.replay.moving import content_shift_px
from xbat_live.replay.outcome import Outcome, inputs_of
from xbat_live.replay.recording import Recording
from xbat_live.session import connect, leave_channel_access, make_analysis

logger = logging.getLogger(__name__)

POLL_S = 1e-3
"""Sleeps of up to this are a plan looking again: they are slept. All others are time of the series, which the director keeps."""
_REAL_TIME = ("xbat_live.plans.exposure", "xbat_live.plans.guard", "xbat_live.plans.fly")
"""Plans that wait for hardware."""

Run = Callable[[Any, MsgGenerator, Callable[[], object]], Any]


class _SeriesOver(RecordingOver, NoFreshSpot):
    """A series ends in order when it has nowhere to go, and so it does when the recording is over."""


def replay_on_iocs(
    recording: Recording,
    config: ExperimentConfig,
    *,
    speed: float = 0.0,
    run: Run | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Outcome:
    """Run the plan of `config` against the beamline that plays `recording` at ``config.beamline``.

    Parameters
    ----------
    speed
        Pace: 1 is the run's own, 0 as fast as it goes.
    run
        Runs a plan with a RunEngine: called with both and what closes the shutter; None: simply.
    progress
        Called with the frames done and the number of recorded ones.

    Raises
    ------
    ReplayError
        The recording lacks something that the plan asks for.
    BeamlineConnectionError
        The simulated beamline does not answer.
    """
    director = Director(recording, make_chooser(recording, config), flux_factor=flux_factor(recording, config))
    director.over = _SeriesOver
    with ExitStack() as stack:
        stack.callback(leave_channel_access)
        beamline = connect(config)
        cue = _cue_signal(config.beamline.prefix, config.beamline.connection_timeout_s)
        ledger, notes = stack.enter_context(
            ledger_at_start(recording, wall=director.wall_s, monotonic=director.account_s)
        )
        analysis = make_analysis(config, begun_position(recording.start.get("dose", {})))
        stack.callback(analysis.close)
        guard = DoseGuard(
            make_account(config, ledger),
            FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na),
            open_time_margin_s=config.dose.open_time_margin_s,
            lead_time_s=config.dose.lead_time_s,
            outline_um=config.sample.size_um,
            position=lambda: analysis.position,
            beamline=beamline,
            monitor=director,
            policy=config.dose.policy,
        )
        guard.timed = bool(recording.start.get("dose", {}).get("timed_opening", True))
        director.headroom = guard.flux_headroom
        choose = spot_chooser(config, guard, (beamline.stage.x.limits, beamline.stage.y.limits))
        guard.choose_spot = choose
        stack.callback(guard.executor.shutdown)
        beamline.camera.prepare_frames(exposure_s=config.camera.exposure_s)
        directed = _Directed(director, beamline, cue, partial(content_shift_px, config), speed)
        collector = _Collector(director, analysis, progress)
        run_engine = make_run_engine()
        run_engine.subscribe(lambda name, doc: setattr(guard, "run_uid", doc["uid"]), "start")
        run_engine.subscribe(DoseBackstop(beamline.shutter.close_now, limit_gy=config.dose.limit_gy))
        run_engine.subscribe(collector)
        stack.enter_context(_recorded_time(load_plans().every, director))
        plan = directed(make_plan(config, beamline, guard, analysis, choose))
        stack.callback(beamline.shutter.close_now)
        try:
            result = run_engine(plan).plan_result if run is None else run(run_engine, plan, beamline.shutter.pause)
            ended = str(getattr(result, "outcome", "completed"))
        except (RecordingOver, LimitBelowOneFrame) as over:
            ended = str(over)
        return Outcome(
            decisions=tuple(collector.decisions),
            served=tuple(director.served),
            verdicts=tuple(collector.verdicts),
            spots=tuple(collector.spots),
            ended=ended,
            notes=tuple(notes),
        )


def _cue_signal(prefix: str, timeout_s: float) -> Any:
    from ophyd import EpicsSignal

    signal = EpicsSignal(f"{prefix}TWIN:Cue", name="cue", put_complete=True, auto_monitor=False)
    signal.wait_for_connection(timeout=timeout_s)
    return signal


@contextmanager
def _recorded_time(modules: Iterable[ModuleType], director: Director) -> Iterator[None]:
    """Let the plans read the recording's clock, except those that wait for hardware."""
    import time

    clock = _Clock(director)
    with ExitStack() as stack:
        for module in modules:
            if vars(module).get("time") is time and module.__name__ not in _REAL_TIME:
                stack.enter_context(patch.object(module, "time", clock))
        yield


@dataclass(frozen=True)
class _Clock:
    director: Director

    def monotonic(self) -> float:
        """Return the time since the first time point of the recording, s."""
        return self.director.now_s()


@dataclass
class _Directed:
    """Preprocessor: before each exposure the beamline is told which one to play; time is the director's."""

    director: Director
    beamline: Any
    cue: Any
    shift_px: Callable[[tuple[float, float]], tuple[float, float]]
    speed: float
    transmission: float = 1.0
    exposing: bool = False
    _begun: tuple[float, float] | None = None

    def __call__(self, plan: MsgGenerator) -> MsgGenerator:
        self.director.transmission = lambda: self.transmission
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                msg = plan.send(answer) if error is None else plan.throw(error)
            except StopIteration as stop:
                return stop.value
            answer, error = None, None
            try:
                answer = yield from self._carry_out(msg)
            except GeneratorExit:
                plan.close()
                raise
            except BaseException as failure:  # the plan's own to handle, as without a preprocessor
                error = failure

    def _carry_out(self, msg: Msg) -> MsgGenerator:
        command, obj = msg.command, msg.obj
        if command == "declare_stream":
            for device in msg.args:
                if getattr(device, "name", "") == "point":
                    self.director.point_record = device
        elif command == "trigger" and obj is self.beamline.camera:
            yield from self._play()
        elif command == "set" and obj is self.beamline.attenuator:
            self.transmission = float(msg.args[0])
        elif command == "save":
            self.exposing = False
        elif command == "sleep" and not self.exposing and msg.args[0] > POLL_S:
            self.director.pass_time(float(msg.args[0]))
            msg = msg._replace(args=(0.0,))
        return (yield msg)

    def _play(self) -> MsgGenerator:
        stage, director = self.beamline.stage, self.director
        frame_type = str(self.beamline.camera.cam.frame_type.get())
        place = (float(stage.x.position), float(stage.y.position))
        served = director.serve(director.wanted(frame_type, place, float(self.beamline.mono.energy.position)))
        yield from self._keep_pace(served.exposure.time_s)
        shift = self.shift_px(served.shift_um) if served.how == MOVED else (0.0, 0.0)
        group = short_uid("cue")
        cue = np.array([served.exposure.number, *shift], float)
        yield Msg("set", self.cue, cue, group=group)
        yield Msg("wait", None, group=group)
        self.exposing = True

    def _keep_pace(self, recorded_s: float) -> MsgGenerator:
        import time

        if self.speed <= 0:
            return
        if self._begun is None:
            self._begun = (recorded_s, time.monotonic())
        due_s = self._begun[1] + (recorded_s - self._begun[0]) / self.speed
        yield Msg("sleep", None, max(0.0, due_s - time.monotonic()))


@dataclass(eq=False)  # the RunEngine wants callbacks that have a hash
class _Collector:
    """Takes the documents: gives Events to the analysis at the time they were recorded, and keeps verdicts and decisions."""

    director: Director
    analysis: FrameAnalysis
    progress: Callable[[int, int], None]
    decisions: list[Any] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    spots: list[dict[str, Any]] = field(default_factory=list)
    _streams: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "descriptor":
            self._streams[doc["uid"]] = doc["name"]
        if name == "event":
            self._keep(self._streams[doc["descriptor"]], doc["data"])
            doc = {**doc, "time": self.director.event_time_s}
        self.analysis(name, doc)

    def _keep(self, stream: str, data: dict[str, Any]) -> None:
        if stream == "decision":
            held = {name.removeprefix("decision_"): value for name, value in data.items()}
            self.decisions.append(self.director.decided(held, inputs_of(held)))
        elif stream == "analysis":
            record = {name.removeprefix("analysis_"): value for name, value in data.items()}
            served = self.director.current
            how = {} if served is None else {"how": served.how, "why": served.why}
            self.verdicts.append(record | {"after": self.director.after, **how})
            self.progress(len(self.verdicts), self.director.recording.frames)
        elif stream == "spots":
            self.spots.append({name.removeprefix("spot_"): value for name, value in data.items()})


__all__ = ["Run", "replay_on_iocs"]
