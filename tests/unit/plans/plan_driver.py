"""Drives a plan message by message without a RunEngine or hardware, and keeps the state of the shutter.

Level of simulation: fake ophyd signals (`make_fake_device`); nothing moves, exposures end at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from bluesky.utils import Msg
from ophyd import Device, Signal
from ophyd.sim import make_fake_device
from ophyd.status import Status

from xbat_live.devices import (
    Attenuator,
    FastShutter,
    IonChamber,
    Monochromator,
    OpenFor,
    Potentiostat,
    StorageRing,
    TxmStage,
)


class InjectedFailure(Exception):  # noqa: N818 - it stands for any failure
    """Stands for anything that can go wrong at a message."""


class FakeCamera(Device):
    """A camera as the plans see it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("FAKE:CAM:", **kwargs)
        self.cam = SimpleNamespace(
            acquire_time=Signal(name="acquire_time", value=0.048), detector_state=Signal(name="state", value="Idle")
        )
        self.frame_type = Signal(name="frame_type", value="Normal")

    def trigger(self) -> Status:
        status = Status()
        status.set_finished()
        return status


def fake(cls: type[Device], name: str) -> Any:
    device = make_fake_device(cls)("FAKE:", name=name)
    for signal in device.walk_signals(include_lazy=True):
        if hasattr(signal.item, "sim_put") and not isinstance(signal.item.get(), str):
            signal.item.sim_put(0.0)
    return device


def fake_beamline(*, timed: bool = False) -> Any:
    """Return devices under the names of `TxmBeamline`; the attenuator is out. `timed`: the shutter has a timed opening."""
    attenuator = fake(Attenuator, "attenuator")
    attenuator.transmission.sim_put(1.0)
    shutter = fake(FastShutter, "shutter")
    shutter._searched = True
    shutter.open_for_s._metadata["connected"] = timed
    return SimpleNamespace(
        stage=fake(TxmStage, "stage"),
        camera=FakeCamera(name="camera"),
        mono=fake(Monochromator, "mono"),
        potentiostat=fake(Potentiostat, "potentiostat"),
        shutter=shutter,
        attenuator=attenuator,
        i0=fake(IonChamber, "i0"),
        ring=fake(StorageRing, "ring"),
    )


@dataclass
class Drive:
    """What a plan did. `shutter` is where its last command left it; `opened` counts openings."""

    beamline: Any
    messages: list[Msg] = field(default_factory=list)
    shutter: str = "Closed"
    opened: int = 0
    value: Any = None
    error: BaseException | None = None
    open_time_s: float = 0.0
    timed: tuple[Any, float] | None = None  # group and seconds of a timed opening under way
    plain_opening_s: float = 0.06
    ending: Callable[[], Any] | None = None  # status of a trigger of the camera, or a flight; None: over at once
    on_message: Callable[[Msg], None] = lambda message: None

    def commands(self) -> list[str]:
        return [message.command for message in self.messages]

    def execute(self, message: Msg) -> Any:
        beamline = self.beamline
        self.on_message(message)
        if message.command == "set":
            if message.obj is beamline.shutter:
                self.move_shutter(message)
            elif message.obj in (beamline.stage.x, beamline.stage.y, beamline.mono.energy):
                message.obj.user_readback.sim_put(message.args[0])
            elif isinstance(message.obj, Signal) and hasattr(message.obj, "put"):
                message.obj.put(message.args[0])
            return _done()
        if message.command == "trigger":
            if message.obj is beamline.camera:
                beamline.camera.cam.detector_state.put("Acquire")
                return self.ending() if self.ending else _done()
            return _done()
        if message.command == "complete":
            return self.ending() if self.ending else _done()
        if message.command == "kickoff":
            return _done()
        if message.command == "read":
            return message.obj.read() if isinstance(message.obj, Signal) else {}
        if message.command == "wait":
            if self.timed is not None and message.kwargs["group"] == self.timed[0]:
                self.close(self.timed[1])
            elif self.shutter == "Closed":
                beamline.camera.cam.detector_state.put("Idle")
            return True
        return None

    def move_shutter(self, message: Msg) -> None:
        """Obey a command; a timed opening ends when it is waited for, or by another command."""
        value = message.args[0]
        if isinstance(value, OpenFor):
            self.opened += 1
            self.shutter, self.timed = "Open", (message.kwargs["group"], value.seconds)
        elif value == "Open":
            self.opened += 1
            self.shutter = value
        elif self.shutter == "Open":
            self.close(self.plain_opening_s if self.timed is None else self.timed[1] / 2)
        else:
            self.shutter = value

    def close(self, open_time_s: float) -> None:
        self.open_time_s += open_time_s
        self.beamline.shutter.open_time_s.sim_put(self.open_time_s)
        self.shutter, self.timed = "Closed", None


def _done() -> Status:
    status = Status()
    status.set_finished()
    status.wait(60)
    return status


def drive(
    plan: Iterator[Msg],
    beamline: Any,
    *,
    fail_at: int | None = None,
    after: bool = False,
    limit: int = 200_000,
    **kwargs: Any,
) -> Drive:
    """Run `plan` to its end; at message number `fail_at` throw `InjectedFailure` into it.

    Parameters
    ----------
    after
        The message takes effect first, as when a command arrives but its confirmation does not.
    """
    record = Drive(beamline, **kwargs)
    result: Any = None
    failure: BaseException | None = None
    while len(record.messages) < limit:
        try:
            message = plan.throw(failure) if failure is not None else plan.send(result)  # type: ignore[attr-defined]
        except StopIteration as stop:
            record.value = stop.value
            return record
        except Exception as error:
            record.error = error
            return record
        failure, result = None, None
        index = len(record.messages)
        record.messages.append(message)
        if index == fail_at:
            if after:
                record.execute(message)
            failure = InjectedFailure(f"message {index}: {message.command}")
        else:
            result = record.execute(message)
    raise AssertionError(f"the plan did not end within {limit} messages")


@dataclass
class FakeFrame:
    accepted: bool = True
    kind: str = "accepted"
    reason: str = "sharp"

    def record(self) -> dict[str, Any]:
        return {"verdict": self.kind, "accepted": int(self.accepted), "reason": self.reason}


@dataclass
class FakeAnalysis:
    """Gives the verdicts of `script`, then accepts everything."""

    script: list[FakeFrame] = field(default_factory=list)
    drift_um: tuple[float, float] = (0.0, 0.0)
    feedback_ok: bool = True
    begun_drift_um: tuple[float, float] = (0.0, 0.0)

    def latest(self) -> Future[FakeFrame]:
        future: Future[FakeFrame] = Future()
        future.set_result(self.script.pop(0) if self.script else FakeFrame())
        return future
