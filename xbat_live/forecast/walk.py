"""Runs a plan message by message as the RunEngine would, on stand-ins and a virtual clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from bluesky.utils import Msg, MsgGenerator

from xbat_live.forecast.seams import walking
from xbat_live.forecast.standins import FINISHED, Axis, Record, StandIn, Timing, VirtualClock

_LOOK_EVERY = 4096
NORMAL, FLAT, DARK = "Normal", "FlatField", "Background"


class CutShortError(RuntimeError):
    """The walk took longer than it was given."""


class UnknownMessageError(RuntimeError):
    """A plan sent a message that no RunEngine knows."""


@dataclass(frozen=True)
class Decision:
    """A decision that the plan recorded.

    Attributes
    ----------
    action, reason
        As in the stream ``decision``.
    frame
        Frames of the sample taken before.
    time_s
        Since the start, s.
    spot
        Number of the spot the plan was at before it acted.
    """

    action: str
    reason: str
    frame: int
    time_s: float
    spot: int


class Shutter(StandIn):
    """The fast shutter: counts its open time on the virtual clock."""

    interruptions = 0

    def __init__(self, walk: Walk) -> None:
        super().__init__("shutter", "Closed")
        self._walk = walk
        self.open_time_s = StandIn("shutter_open_time_s", 0.0)
        self.has_timed_opening = walk.timed_shutter
        self.openings = 0
        self.opened_s: float | None = None

    @property
    def is_open(self) -> bool:
        """True while open."""
        return self.opened_s is not None

    def set(self, value: Any, **options: Any) -> Any:
        """Open, close, or open for a certain time (`xbat_live.devices.OpenFor`)."""
        now_s = self._walk.clock.now_s
        if value == "Open":
            self.opened_s = now_s if self.opened_s is None else self.opened_s
        elif value != "Closed":
            self._count(float(value.seconds))
            value = "Closed"
        elif self.opened_s is not None:
            self._count(now_s - self.opened_s)
            self.opened_s = None
            self._walk.clock.now_s += self._walk.timing.frame_extra_s
        self.value = value
        return FINISHED

    def _count(self, open_s: float) -> None:
        self.open_time_s.value += open_s
        self._walk.beam_on_s += open_s
        self.openings += 1


class Camera(StandIn):
    """The camera: a trigger takes the exposure, and counts a frame."""

    def __init__(self, walk: Walk) -> None:
        super().__init__("camera")
        self._walk = walk
        self.cam = StandIn("camera_cam").having(
            acquire_time=StandIn("camera_cam_acquire_time", 0.0),
            detector_state=StandIn("camera_cam_detector_state", "Acquire"),
            num_images=StandIn("camera_cam_num_images", 1),
        )
        self.frame_type = StandIn("camera_frame_type", NORMAL)

    def prepare_frames(self, **settings: Any) -> None:
        """Take over the exposure time."""
        self.cam.acquire_time.value = settings.get("exposure_s", self.cam.acquire_time.value)

    def trigger(self) -> Any:
        """Take a frame."""
        walk = self._walk
        extra_s = walk.timing.open_extra_s if walk.beamline.shutter.is_open else walk.timing.frame_extra_s
        walk.clock.now_s += self.cam.acquire_time.value + extra_s
        walk.frames[self.frame_type.value] = walk.frames.get(self.frame_type.value, 0) + 1
        return FINISHED


class IonChamber(StandIn):
    """The chamber downstream of the attenuator, at a steady flux."""

    def __init__(self, name: str, reference_na: float, attenuator: StandIn) -> None:
        self._reference_na, self._attenuator = reference_na, attenuator
        super().__init__(name)

    @property
    def value(self) -> float:
        """Current, nA."""
        return self._reference_na * float(self._attenuator.value)

    @value.setter
    def value(self, value: float) -> None:
        """Ignored."""


class Cell(StandIn):
    """Potentiostat and cell: a galvanostatic step ends when it has moved the whole nominal capacity, if not before."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__("potentiostat")
        self._clock = clock
        self._ends_s = math.inf
        self.status = _Status(self)

    def set(self, value: Any, **options: Any) -> Any:
        """Begin a step."""
        rate_per_h = getattr(value, "c_rate_per_h", None)
        self._ends_s = self._clock.now_s + 3600 / abs(rate_per_h) if rate_per_h else math.inf
        return FINISHED

    @property
    def done(self) -> bool:
        """True when the step has ended."""
        return self._clock.now_s >= self._ends_s


class _Status(StandIn):
    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        super().__init__("potentiostat_status")

    @property
    def value(self) -> str:
        return "Done" if self._cell.done else "Running"

    @value.setter
    def value(self, value: str) -> None:
        """Ignored."""


@dataclass
class Walk:
    """One walk of one plan.

    Attributes
    ----------
    clock
        Where in time the walk is.
    timing
        What takes how long.
    beamline
        The stand-ins, by the names of `xbat_live.devices.TxmBeamline`.
    frames
        Frames taken, by frame type.
    decisions
        What the plan decided.
    beam_on_s
        Time the shutter was open, s.
    messages
        Messages walked.
    direct
        See `fast_stubs`.
    timed_shutter
        Whether the shutter keeps the time of an opening itself.
    deadline_s
        When to give up, by `time.perf_counter`, s.
    """

    clock: VirtualClock = field(default_factory=VirtualClock)
    timing: Timing = field(default_factory=Timing)
    i0_reference_na: float = 100.0
    energy_ev: float = 8562.0
    frames: dict[str, int] = field(default_factory=lambda: {NORMAL: 0, FLAT: 0, DARK: 0})
    decisions: list[Decision] = field(default_factory=list)
    beam_on_s: float = 0.0
    messages: int = 0
    direct: bool = True
    timed_shutter: bool = True
    deadline_s: float = math.inf
    busy_until_s: float = 0.0
    beamline: Any = field(init=False)

    def __post_init__(self) -> None:
        self.beamline = self._make_beamline()

    def run(self, plan: MsgGenerator[Any], modules: Iterable[ModuleType] = ()) -> Any:
        """Walk `plan` to its end and return its value; what it raises comes out.

        Parameters
        ----------
        modules
            Of the plan and of the stubs it is made of; see `walking`.
        """
        handlers = self._handlers()

        def perform(message: Msg) -> Any:
            self.messages += 1
            if not self.messages % _LOOK_EVERY and time.perf_counter() > self.deadline_s:
                raise CutShortError
            try:
                handler = handlers[message[0]]
            except KeyError:
                raise UnknownMessageError(f"the plan sent {message}, which no RunEngine knows") from None
            return handler(message)

        advance: Callable[..., Msg] = plan.send
        answer: Any = None
        try:
            with walking(modules, self.clock, self, direct=self.direct):
                while True:
                    message = advance(answer)
                    try:
                        answer, advance = perform(message), plan.send
                    except CutShortError:
                        raise
                    except Exception as error:  # as the RunEngine: what a device raises is thrown into the plan
                        answer, advance = error, plan.throw
        except StopIteration as stop:
            return stop.value
        finally:
            plan.close()

    def busy(self, seconds: float) -> None:
        """Let the next wait take until `seconds` from now."""
        self.busy_until_s = max(self.busy_until_s, self.clock.now_s + seconds)

    def opening_s(self, exposure_s: float) -> float:
        """Return for how long the shutter opens for an exposure, s."""
        return exposure_s if self.timed_shutter else exposure_s + self.timing.open_extra_s

    def _make_beamline(self) -> Any:
        timing = self.timing
        stage = StandIn("stage").having(
            theta=self._axis("stage_theta", 90.0, timing.stage_settle_s),
            **{name: self._axis(f"stage_{name}", timing.stage_um_s, timing.stage_settle_s) for name in ("x", "y", "z")},
        )
        mono_energy = self._axis("mono_energy", timing.energy_ev_s, timing.energy_settle_s, self.energy_ev)
        attenuator = StandIn("attenuator", 1.0)
        attenuator.having(transmission=attenuator, setpoint=attenuator)
        return SimpleNamespace(
            stage=stage,
            camera=Camera(self),
            mono=StandIn("mono").having(energy=mono_energy),
            potentiostat=Cell(self.clock),
            shutter=Shutter(self),
            attenuator=attenuator,
            i0=StandIn("i0").having(current_na=IonChamber("i0_current_na", self.i0_reference_na, attenuator)),
            ring=StandIn("ring", 1.0),
        )

    def _axis(self, name: str, speed: float, settle_s: float, value: float = 0.0) -> Axis:
        return Axis(name, speed=speed, settle_s=settle_s, busy=self.busy, value=value)

    # -- messages ----------------------------------------------------------------------------------------------------

    def set(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Set a stand-in."""
        return obj.set(*args, **kwargs)

    def trigger(self, obj: Any) -> Any:
        """Trigger a stand-in."""
        return obj.trigger()

    def read(self, obj: Any) -> Any:
        """Read a stand-in, and take note of a decision."""
        if isinstance(obj, Record) and obj.name == "decision":
            self._decided(obj.held)
        return obj.read()

    def stop(self, obj: Any) -> Any:
        """Stop a stand-in."""
        return obj.stop()

    def wait(self) -> bool:
        """Let the clock pass the end of all moves."""
        self.clock.now_s = max(self.clock.now_s, self.busy_until_s)
        return True

    def sleep(self, seconds: float) -> None:
        """Let the clock run."""
        self.clock.now_s += seconds

    def _handlers(self) -> dict[str, Callable[[Msg], Any]]:
        def ignore(message: Msg) -> None:
            return None

        def options(message: Msg) -> dict[str, Any]:
            return {name: value for name, value in message.kwargs.items() if name != "group"}

        handlers: dict[str, Callable[[Msg], Any]] = dict.fromkeys(_IGNORED, ignore)
        return handlers | {
            "set": lambda message: self.set(message.obj, *message.args, **options(message)),
            "read": lambda message: self.read(message.obj),
            "locate": lambda message: {"setpoint": message.obj.value, "readback": message.obj.value},
            "wait": lambda message: self.wait(),
            "sleep": lambda message: self.sleep(message.args[0]),
            "trigger": lambda message: self.trigger(message.obj),
            "stop": lambda message: self.stop(message.obj),
            "kickoff": lambda message: message.obj.kickoff(),
            "complete": lambda message: message.obj.complete(),
            "rewindable": lambda message: True,
            "stage": lambda message: message.obj.stage(),
            "unstage": lambda message: message.obj.unstage(),
            "open_run": lambda message: "forecast",
        }

    def _decided(self, held: dict[str, Any]) -> None:
        decision = Decision(
            str(held.get("action", "")),
            str(held.get("reason", "")),
            self.frames[NORMAL],
            self.clock.now_s,
            int(held.get("spot", 0)),
        )
        self.decisions.append(decision)


_IGNORED = (
    *("null", "checkpoint", "clear_checkpoint", "create", "save", "drop", "close_run", "wait_for", "declare_stream"),
    *("configure", "collect", "monitor", "unmonitor", "subscribe", "unsubscribe", "pause", "resume", "input"),
    *("install_suspender", "remove_suspender", "prepare", "RE_class", "publish"),
)
