"""Stand-ins for everything a plan touches: they answer at once, on a virtual clock, without Channel Access.

No ophyd device is made here: its signals cost tens of microseconds per access, and a forecast has a hundred for a whole frame.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FrameLabel = tuple[str, str]


class VirtualClock:
    """Seconds since the start of the walk; replaces `time.monotonic` for the plans.

    Attributes
    ----------
    now_s
        The present, s.
    """

    __slots__ = ("now_s", "start_unix_s")

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.start_unix_s = time.time()

    def __call__(self) -> float:
        """Return the present, s."""
        return self.now_s

    def monotonic(self) -> float:
        """Return the present, s; under the name that `time` has for it."""
        return self.now_s

    def time(self) -> float:
        """Return the present, s since 1970; under the name that `time` has for it."""
        return self.start_unix_s + self.now_s


@dataclass(frozen=True)
class Timing:
    """How long what is not configured takes, s, as measured on the simulated beamline.

    Attributes
    ----------
    open_extra_s
        Shutter-open time beyond the exposure: the camera starts, its end is noticed, the blades move.
    frame_extra_s
        Everything else of an exposure: the reservation on disk, the frame on disk, the document.
    verdict_s
        From the document to the verdict of the live analysis.
    stage_um_s, stage_settle_s
        Speed of the stage, um/s, and the rest of a move, s.
    energy_ev_s, energy_settle_s
        The same of the monochromator, eV/s and s.
    """

    open_extra_s: float = 0.020
    frame_extra_s: float = 0.060
    verdict_s: float = 0.020
    stage_um_s: float = 2000.0
    stage_settle_s: float = 0.08
    energy_ev_s: float = 200.0
    energy_settle_s: float = 0.05


class Finished:
    """A status that is done."""

    __slots__ = ()
    done = True
    success = True
    timeout = None

    def exception(self, timeout: float | None = None) -> None:
        """Return None: nothing went wrong."""

    def wait(self, timeout: float | None = None) -> None:
        """Return at once."""

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` at once."""
        callback(self)


FINISHED = Finished()
_PROTOCOLS = frozenset(
    {
        "hints",
        "read_attrs",
        "locate",
        "kickoff",
        "complete",
        "collect",
        "describe_collect",
        "prepare",
        "configure",
        "check_value",
        "wait",
    }
)
"""What a device may have or not have, and bluesky asks for: a stand-in does not make these up."""


class StandIn:
    """A signal or device: a name, a value, and further stand-ins for whatever else a plan asks it for.

    Parameters
    ----------
    name
        As in the documents.
    value
        What a read gives.
    """

    parent = None
    prefix = ""
    connected = True
    timestamp = 0.0
    limits = (0.0, 0.0)  # equal: none

    def __init__(self, name: str, value: Any = 0.0) -> None:
        self.name = name
        self.value = value

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("_") or name in _PROTOCOLS:
            raise AttributeError(name)
        child = StandIn(f"{self.name}_{name}")
        self.__dict__[name] = child
        return child

    def having(self, **parts: Any) -> Any:
        """Return this stand-in with parts by their names."""
        self.__dict__.update(parts)
        return self

    def get(self) -> Any:
        """Return the value."""
        return self.value

    def put(self, value: Any, **options: Any) -> None:
        """Take over a value."""
        self.value = value

    def set(self, value: Any, **options: Any) -> Finished:
        """Take over a value; done at once."""
        self.value = value
        return FINISHED

    def read(self) -> dict[str, Any]:
        """Return the value as a reading."""
        return {self.name: {"value": self.value, "timestamp": 0.0}}

    def describe(self) -> dict[str, Any]:
        """Return the data key."""
        return {self.name: {"source": "forecast", "dtype": "number", "shape": []}}

    def trigger(self) -> Finished:
        """Do nothing; done at once."""
        return FINISHED

    def stage(self) -> list[Any]:
        """Do nothing."""
        return [self]

    def unstage(self) -> list[Any]:
        """Do nothing."""
        return [self]

    def stop(self, *, success: bool = False) -> None:
        """Do nothing."""


class Axis(StandIn):
    """A motor: at its target when the clock has passed the time of the move.

    Parameters
    ----------
    busy
        Called with the time a move takes, s.
    """

    def __init__(
        self, name: str, *, speed: float, settle_s: float, busy: Callable[[float], None], value: float = 0.0
    ) -> None:
        super().__init__(name, value)
        self.speed, self.settle_s, self.busy = speed, settle_s, busy
        self.user_readback = self.user_setpoint = self  # one value for all three

    def set(self, value: Any, **options: Any) -> Finished:
        """Move."""
        target = float(value)
        if target != self.value:
            self.busy(self.settle_s + abs(target - self.value) / self.speed)
            self.value = target
        return FINISHED

    @property
    def position(self) -> float:
        """Where it is."""
        return float(self.value)


class Record(StandIn):
    """A soft record (point, analysis, decision) without ophyd."""

    def __init__(self, prefix: str = "", *, name: str) -> None:
        super().__init__(name)
        self.held: dict[str, Any] = {}

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("_"):
            raise AttributeError(name)
        field = _Field(self.held, name)
        self.__dict__[name] = field
        return field  # type: ignore[return-value]

    def fill(self, **values: Any) -> None:
        """Take over fields."""
        self.held.update(values)

    def reset(self) -> None:
        """Forget all fields."""
        self.held.clear()

    def values(self) -> dict[str, Any]:
        """Return all fields; one that was never filled is empty."""
        return _Defaulting(self.held)


class _Defaulting(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return ""


class _Field:
    __slots__ = ("held", "name")

    def __init__(self, held: dict[str, Any], name: str) -> None:
        self.held, self.name = held, name

    def get(self) -> Any:
        return self.held.get(self.name, "")


class Answer:
    """A future that has its result, or its error, already."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error = value, error

    def done(self) -> bool:
        """Return True."""
        return True

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None."""
        return self.error

    def result(self, timeout: float | None = None) -> Any:
        """Return the result or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class InlineExecutor:
    """Runs what is submitted here and now."""

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Answer:
        """Call `function` and keep what came of it."""
        try:
            return Answer(function(*args, **kwargs))
        except Exception as error:
            return Answer(error=error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing."""


class Frame:
    """Verdict on a frame."""

    __slots__ = ("accepted", "kind", "reason")

    def __init__(self, accepted: bool) -> None:
        self.accepted = accepted
        self.kind = "accepted" if accepted else "blurred"
        self.reason = "sharp" if accepted else "assumed to be rejected"

    def record(self) -> dict[str, Any]:
        """Return nothing: no document is written."""
        return {}


class Judge:
    """Live analysis that accepts every frame, or rejects a fraction of them, always the same ones.

    Parameters
    ----------
    reject
        Fraction of the frames that is rejected, 0 to below 1.
    seed
        Of the sequence.
    judging
        Called at every verdict.
    """

    drift_um = (0.0, 0.0)
    begun_drift_um = (0.0, 0.0)
    feedback_ok = True

    def __init__(self, *, reject: float = 0.0, seed: int = 1, judging: Callable[[], None] = lambda: None) -> None:
        self.reject, self._judging = reject, judging
        self._random = random.Random(seed)
        self._accepted, self._rejected = Answer(Frame(True)), Answer(Frame(False))
        self.rejected = 0

    def latest(self) -> Answer:
        """Return the verdict on the frame taken last."""
        self._judging()
        if self.reject and self._random.random() < self.reject:
            self.rejected += 1
            return self._rejected
        return self._accepted
