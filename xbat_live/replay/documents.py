"""Replay of documents: the recorded plan walked again, at once, with the recorded frames judged by the real analysis.

Plan, dose guard, dose account, spot chooser, frame analysis and drift tracker are those of a run; beamline and clock are stand-ins that
answer from the recording, so that hours take seconds and any parameter may be another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from xbat_live.callbacks import FrameAddress
from xbat_live.config import ExperimentConfig
from xbat_live.dose import DoseRefused
from xbat_live.dose.position import begun_position
from xbat_live.dose_setup import make_account
from xbat_live.forecast.loading import load_plans
from xbat_live.forecast.standins import FINISHED, Axis, InlineExecutor, Record, StandIn, VirtualClock
from xbat_live.forecast.walk import Camera, Shutter, Walk
from xbat_live.replay.choosing import MOVED, Chooser
from xbat_live.replay.configuring import first_energy_ev
from xbat_live.replay.director import Director, RecordingOver
from xbat_live.replay.ledger import ledger_at_start
from xbat_live.replay.moving import MovingReader, content_shift_px
from xbat_live.replay.outcome import Outcome, inputs_of
from xbat_live.replay.recording import Exposure, Recording
from xbat_live.session import make_analysis

if TYPE_CHECKING:
    from xbat_live.callbacks import AnalysedFrame, FrameAnalysis

logger = logging.getLogger(__name__)
WHOLE = 0.9  # of the exposure: an opening that was shorter was cut short


def replay_documents(
    recording: Recording, config: ExperimentConfig, *, progress: Callable[[int, int], None] = lambda done, of: None
) -> Outcome:
    """Run the plan of `config` against the recorded exposures, without beamline and without waiting.

    Parameters
    ----------
    recording
        What was recorded.
    config
        That of the recorded run, or with other parameters.
    progress
        Called with the frames done and the number of recorded ones.

    Raises
    ------
    ReplayError
        The recording lacks something that the plan asks for.
    """
    modules = load_plans()
    director = Director(recording, make_chooser(recording, config), flux_factor=flux_factor(recording, config))
    walk = _RecordedWalk(
        clock=_RecordedClock(director),
        i0_reference_na=config.beam.i0_reference_na,
        energy_ev=first_energy_ev(recording, config),
        timed_shutter=bool(recording.start.get("dose", {}).get("timed_opening", True)),
    )
    with ExitStack() as stack:
        ledger, notes = stack.enter_context(
            ledger_at_start(recording, wall=director.wall_s, monotonic=director.account_s)
        )
        places = [exposure.frame for exposure in recording.exposures]
        reader = MovingReader([FrameAddress(place.file, place.dataset, place.index) for place in places])
        begun = begun_position(recording.start.get("dose", {}))
        analysis = make_analysis(config, begun, reader=reader)
        stack.callback(analysis.close)
        walk.begin(director, _Judge(director, analysis, walk, progress, reader, partial(content_shift_px, config)))
        director.transmission = lambda: float(walk.beamline.attenuator.value)
        guard = modules.plans.DoseGuard(
            make_account(config, ledger),
            modules.plans.FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na),
            open_time_margin_s=config.dose.open_time_margin_s,
            lead_time_s=config.dose.lead_time_s,
            outline_um=config.sample.size_um,
            position=lambda: analysis.position,
            executor=InlineExecutor(),
            run_uid=f"replay-{recording.uid[:8]}",
            beamline=walk.beamline,
            monitor=director,
            policy=config.dose.policy,
            signals=None,
        )
        # a series ends in order when it has nowhere to go, and so it does when the recording is over
        director.over = type("RecordingOver", (RecordingOver, modules.plans.NoFreshSpot), {})
        director.headroom = guard.flux_headroom
        choose = modules.setup.spot_chooser(config, guard)
        guard.choose_spot = choose
        walk.beamline.camera.prepare_frames(exposure_s=config.camera.exposure_s)
        plan = modules.setup.make_plan(config, walk.beamline, guard, walk.judge, choose)
        ended = ""
        try:
            summary = walk.run(plan, modules.every)
            ended = str(getattr(summary, "outcome", "completed"))
        except RecordingOver as over:
            ended = str(over)
        except (modules.plans.LimitBelowOneFrame, DoseRefused, modules.plans.NoFreshSpot) as refusal:
            ended = str(refusal)
        return Outcome(
            decisions=tuple(walk.made),
            served=tuple(director.served),
            verdicts=tuple(walk.judge.records),
            spots=tuple(walk.spots),
            ended=ended,
            notes=tuple(notes),
        )


def make_chooser(recording: Recording, config: ExperimentConfig) -> Chooser:
    """Return what chooses the exposures of `recording`, with the field of view of its frames."""
    pixel_um = float(recording.start.get("pixel_size_um", config.camera.pixel_size_um))
    roi = config.camera.roi
    rows, columns = (1024, 1024) if roi is None else roi[2:]
    return Chooser(recording.exposures, pixel_um, (columns * pixel_um, rows * pixel_um))


def flux_factor(recording: Recording, config: ExperimentConfig) -> float:
    """Return the factor on recorded fluxes when `config` has another calibration of the ion chamber than the run had."""
    about = recording.start.get("dose", {})
    flux_ph_s, i0_na = about.get("flux_ph_s"), about.get("i0_reference_na")
    if not flux_ph_s or not i0_na:
        return 1.0
    factor = (config.beam.flux_ph_s / config.beam.i0_reference_na) / (float(flux_ph_s) / float(i0_na))
    return 1.0 if abs(factor - 1) < 1e-12 else factor


class _RecordedClock(VirtualClock):
    """The director's clock under the names that plans and walk have for it."""

    __slots__ = ("_director",)

    def __init__(self, director: Director) -> None:
        self._director = director

    @property
    def now_s(self) -> float:
        return self._director.now_s()

    @now_s.setter
    def now_s(self, value: float) -> None:
        self._director.pass_time(max(value - self._director.now_s(), 0.0))

    def __call__(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class _RecordedWalk(Walk):
    """A walk whose camera plays the recording."""

    made: list[Any] = field(default_factory=list)
    spots: list[dict[str, Any]] = field(default_factory=list)
    director: Director = field(init=False)
    judge: _Judge = field(init=False)

    def begin(self, director: Director, judge: _Judge) -> None:
        self.director, self.judge = director, judge

    def sleep(self, seconds: float) -> None:
        self.director.pass_time(seconds)

    def wait(self) -> bool:
        return True  # what a move takes is in the recording

    def read(self, obj: Any) -> Any:
        if isinstance(obj, Record):
            if obj.name == "decision":
                self.made.append(self.director.decided(obj.held, inputs_of(obj.held)))
            elif obj.name == "spot":
                self.spots.append(dict(obj.held))
            return {}
        return obj.read()

    def _make_beamline(self) -> Any:
        beamline = super()._make_beamline()
        beamline.camera, beamline.shutter = _RecordedCamera(self), _RecordedShutter(self)
        for name in ("x", "y"):
            setattr(beamline.stage, name, _RecordedAxis(name, self))
        beamline.potentiostat = _RecordedCell(self)
        return beamline

    def _handlers(self) -> dict[str, Callable[[Any], Any]]:
        return super()._handlers() | {"declare_stream": self._declared}

    def _declared(self, message: Any) -> None:
        for device in message.args:
            if getattr(device, "name", "") == "point":
                self.director.point_record = device

    def stage_um(self) -> tuple[float, float]:
        stage = self.beamline.stage
        return float(stage.x.value), float(stage.y.value)


class _RecordedAxis(Axis):
    """An axis that is at once where it is sent."""

    def __init__(self, name: str, walk: _RecordedWalk) -> None:
        super().__init__(f"stage_{name}", speed=1.0, settle_s=0.0, busy=lambda seconds: None)
        self._walk, self._number = walk, "xy".index(name)

    def set(self, value: Any, **options: Any) -> Any:
        self.value = self._walk.director.readback_um(self._number, float(value))
        return FINISHED


class _RecordedCamera(Camera):
    """Serves the recorded exposure that fits."""

    _walk: _RecordedWalk

    def trigger(self) -> Any:
        walk = self._walk
        frame_type = str(self.frame_type.value)
        energy_ev = float(walk.beamline.mono.energy.value)
        served = walk.director.serve(walk.director.wanted(frame_type, walk.stage_um(), energy_ev))
        walk.frames[frame_type] = walk.frames.get(frame_type, 0) + 1
        # a camera that was done before the plan saw it expose, so that the shutter stayed closed, is so again
        self.cam.detector_state.value = "Acquire" if served.exposure.open_time_s > 0 else "Idle"
        if served.exposure.stream != "primary":
            walk.judge.take_reference(served.exposure)
        else:
            walk.judge.hand_over()
        return FINISHED


class _RecordedShutter(Shutter):
    """Is open for as long as it was."""

    _walk: _RecordedWalk

    def _count(self, open_s: float) -> None:
        served = self._walk.director.current
        if served is not None:
            exposure = served.exposure
            open_s = exposure.open_time_s
            whole = open_s >= WHOLE * exposure.exposure_s
            missed_s = (1 - exposure.light_fraction) * exposure.exposure_s if whole else 0.0
            state = self._walk.beamline.camera.cam.detector_state
            state.value = "Readout" if missed_s > 0 else "Acquire"
            state.timestamp, self.timestamp = -missed_s, 0.0
            self.status.timestamp = 0.0
        self.open_time_s.value += open_s
        self._walk.beam_on_s += open_s
        self.openings += 1


class _RecordedCell(StandIn):
    """The potentiostat: a step has ended when the run began the next one."""

    def __init__(self, walk: _RecordedWalk) -> None:
        super().__init__("potentiostat")
        self._walk = walk
        self.status = _RecordedStatus(walk)

    def set(self, value: Any, **options: Any) -> Any:
        return FINISHED


class _RecordedStatus(StandIn):
    def __init__(self, walk: _RecordedWalk) -> None:
        self._walk = walk
        super().__init__("potentiostat_status")

    @property
    def value(self) -> str:
        return self._walk.director.cell_status()

    @value.setter
    def value(self, value: str) -> None:
        """Ignored."""


class _Judge:
    """The live analysis, fed with recorded frames under the names and doses that the replay gives them."""

    def __init__(  # noqa: PLR0917 - what it stands between
        self,
        director: Director,
        analysis: FrameAnalysis,
        walk: _RecordedWalk,
        progress: Callable[[int, int], None],
        reader: MovingReader,
        shift_px: Callable[[tuple[float, float]], tuple[float, float]],
    ) -> None:
        self._reader, self._shift_px = reader, shift_px
        self._director, self._analysis, self._walk, self._progress = director, analysis, walk, progress
        self._resources: dict[tuple[str, str], str] = {}
        self._streams = {name: f"descriptor-{name}" for name in ("primary", "flat", "dark")}
        for name, uid in self._streams.items():
            analysis.descriptor({"uid": uid, "name": name})
        self._datums = 0
        self._references: list[Exposure] = []
        self.records: list[dict[str, Any]] = []
        self._of_frames = director.recording.frames

    @property
    def drift_um(self) -> tuple[float, float]:
        return self._analysis.drift_um

    @property
    def begun_drift_um(self) -> tuple[float, float]:
        return self._analysis.begun_drift_um

    @property
    def feedback_ok(self) -> bool:
        return self._analysis.feedback_ok

    def take_reference(self, exposure: Exposure) -> None:
        """Keep a flat or a dark for the analysis: it gets all of them at once, and works their mean out once."""
        self._references.append(exposure)

    def hand_over(self) -> None:
        """Hand the references to the analysis, which looks at them while the plan goes on."""
        for exposure in self._references:
            self._analysis.event(self._event(exposure, {}))
        self._references.clear()

    def latest(self) -> Future[AnalysedFrame]:
        """Judge the frame that was served last and return its verdict."""
        served = self._director.current
        assert served is not None  # the plan judges what it has exposed
        held = self._director.point_record.held if self._director.point_record is not None else {}
        x_um, y_um = self._walk.stage_um()
        keys = self._analysis.keys
        changed = {f"point_{name}": value for name, value in held.items()} | {keys.stage_x: x_um, keys.stage_y: y_um}
        if served.how == MOVED:
            place = served.exposure.frame
            self._reader.shifts[FrameAddress(place.file, place.dataset, place.index)] = self._shift_px(served.shift_um)
        self._analysis.event(self._event(served.exposure, changed))
        future = self._analysis.latest()
        error = future.exception()
        record = {"seq_num": self._director.frames, "field": held.get("field", ""), "spot": held.get("spot", 0)}
        if error is None:
            record |= future.result().record()
        else:
            record |= {"verdict": "unjudged", "accepted": 0, "reason": f"analysis failed: {error}"}
        self.records.append(record | {"after": self._director.after, "how": served.how, "why": served.why})
        self._progress(self._director.frames, self._of_frames)
        return future

    def _event(self, exposure: Exposure, changed: dict[str, Any]) -> dict[str, Any]:
        place = exposure.frame
        key = (str(place.file), place.dataset)
        if key not in self._resources:
            self._resources[key] = f"resource-{len(self._resources)}"
            self._analysis.resource(
                {"uid": self._resources[key], "resource_path": key[0], "resource_kwargs": {"dataset": place.dataset}}
            )
        self._datums += 1
        datum = f"datum-{self._datums}"
        self._analysis.datum(
            {"datum_id": datum, "resource": self._resources[key], "datum_kwargs": {"point_number": place.index}}
        )
        data = {**exposure.data, **changed, self._analysis.keys.image: datum}
        return {
            "descriptor": self._streams[exposure.stream],
            "seq_num": self._director.frames if exposure.stream == "primary" else exposure.seq_num,
            "time": self._director.event_time_s,
            "data": data,
        }
