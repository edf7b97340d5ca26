"""A plan that an operator can steer: it pauses, ends and notes what was wanted, at safe places of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, Msg, MsgGenerator, RequestStop, RunEngineControlException

from xbat_live.devices import OperatorRecord
from xbat_live.plans._blocking import wait_until_done
from xbat_live.plans.steering import HELD, HOLD, IDLE, ORDER, Steering

logger = logging.getLogger(__name__)

OPERATOR = "operator"
_IDLE_EVERY_S = 1.0
_SHORT_S = 0.02  # a sleep that is not worth interrupting


def steering_wrapper(plan: MsgGenerator, steering: Steering) -> MsgGenerator:
    """Preprocessor: let `steering` pause, move and end `plan`, and write what operators did into its run.

    Works for every plan; put it outside of all other preprocessors. The plan pauses or ends at its safe places: its checkpoints, and
    any sleep, which is cut short for it; never within an exposure (a section that is not rewindable) or while an Event is being
    collected. While it is paused the shutter is kept closed, Events of the stream ``operator`` are written at once, and what the plan
    gave to `while_paused` goes on. Abort needs no safe place: the RunEngine ends the plan wherever it is.

    Each command becomes an Event of the stream ``operator``, and so does each change of state.
    """
    steered = _Steered(steering)
    steering.begin()
    try:
        return (yield from steered.run(plan))
    finally:
        steering.end()


class _Steered:
    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.record = OperatorRecord(name=OPERATOR)
        self.runs: list[Hashable] = []
        self.bundling = False
        self.rewindable = True
        self.ending = False
        self.idle: Callable[[], MsgGenerator[None]] | None = None
        self.held_s = 0.0

    @property
    def free(self) -> bool:
        """Whether other messages may come between those of the plan."""
        return self.rewindable and not self.bundling

    def run(self, plan: MsgGenerator) -> MsgGenerator:
        """Run `plan` message by message."""
        response: Any = None
        error: BaseException | None = None
        while True:
            try:
                msg = plan.send(response) if error is None else plan.throw(error)
            except StopIteration as stop:
                yield from self.write()
                return stop.value
            except Exception:
                if (
                    self.runs and not self.bundling
                ):  # a plan that failed without closing its run: the RunEngine does it after this
                    yield from self.write()
                raise
            response, error = None, None
            try:
                response = yield from self.carry_out(msg)
            except GeneratorExit:
                plan.close()
                raise
            except Exception as failure:
                self.ending |= isinstance(failure, RunEngineControlException)
                error = failure

    def carry_out(self, msg: Msg) -> MsgGenerator[Any]:
        """Carry out one message of the plan and return its response."""
        if msg.command == "null" and "steering" in msg.kwargs:
            return (yield from self.point(msg))
        if msg.command == "checkpoint":
            yield from self.safe_place()
        elif msg.command == "sleep" and self.free and msg.args[0] > _SHORT_S:
            yield from self.sleep(msg.args[0])
            return None
        elif msg.command == "close_run":
            yield from self.before_close(msg.run)
        self.note(msg)
        response = yield msg
        if msg.command == "open_run":
            yield from self.in_run(bps.declare_stream(self.record, name=OPERATOR))
        if self.free:
            yield from self.write()
        return response

    def note(self, msg: Msg) -> None:
        """Keep track of runs, Events and sections that must not be repeated."""
        command = msg.command
        if command == "open_run":
            self.runs.append(msg.run)
        elif command == "close_run" and msg.run in self.runs:
            self.runs.remove(msg.run)
        elif command == "create":
            self.bundling = True
        elif command in ("save", "drop"):
            self.bundling = False
        elif command == "rewindable" and msg.args and msg.args[0] is not None:
            self.rewindable = bool(msg.args[0])

    # -- places ----------------------------------------------------------------------------------------------------------------------

    def point(self, msg: Msg) -> MsgGenerator[Any]:
        """Answer what the plan says to its steering."""
        what = msg.kwargs["steering"]
        if what == IDLE:
            self.idle = msg.kwargs["stub"]
        elif what == HELD:
            return self.held_s
        elif what in (HOLD, ORDER):
            yield from self.safe_place()
        return self.steering.take_order(msg.kwargs["accepts"]) if what == ORDER and not self.ending else None

    def safe_place(self) -> MsgGenerator[None]:
        """Pause or end here when that is wanted.

        Raises
        ------
        RequestStop
            The run is to be ended; into the plan, whose clean-up follows.
        """
        if self.free:
            yield from self.write()
        if self.ending:
            return
        if self.steering.must_pause:
            yield from self.pause()
        if self.steering.ended_by == "stop":
            self.ending = True
            raise RequestStop("stopped by the operator")

    def pause(self) -> MsgGenerator[None]:
        """Stay here with the shutter closed until the run is resumed or ended."""
        since_s = time.monotonic()
        self.steering.hold()
        try:
            while True:
                changed = self.steering.changed()  # before looking: what comes after it is not missed
                if self.free:
                    yield from self.write()
                    if self.idle is not None:
                        yield from self.idle()
                if not self.steering.must_pause:
                    return
                yield from wait_until_done(changed, timeout_s=_IDLE_EVERY_S)
        finally:
            self.held_s += time.monotonic() - since_s
            self.steering.leave_hold()

    def sleep(self, seconds: float) -> MsgGenerator[None]:
        """Sleep as the plan wants, but react at once; a pause is part of the time."""
        until_s = time.monotonic() + seconds
        while True:
            changed = self.steering.changed()
            yield from self.safe_place()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            yield from wait_until_done(changed, timeout_s=left_s)

    # -- Events ----------------------------------------------------------------------------------------------------------------------

    def before_close(self, run: Hashable) -> MsgGenerator[None]:
        """Write what is left before a run is closed."""
        if self.runs != [run] or self.steering.next_remark() is None:
            return
        if self.bundling:
            yield Msg("drop", run=run)
            self.bundling = False
        yield from self.write()

    def write(self) -> MsgGenerator[None]:
        """Save the remarks that wait for it; only where it is clear which run is meant."""
        while len(self.runs) == 1 and (remark := self.steering.next_remark()) is not None:
            self.record.reset()
            self.record.fill(**remark.values)
            yield from self.in_run(self._save())
            self.steering.wrote(remark)

    def _save(self) -> MsgGenerator[None]:
        """Save the record; an abort in between leaves nothing half begun, and the remark to be written later."""

        def event() -> MsgGenerator[None]:
            yield from bps.create(name=OPERATOR)
            yield from bps.read(self.record)
            yield from bps.save()

        def drop(error: Exception) -> MsgGenerator[None]:
            try:
                yield from bps.drop()
            except IllegalMessageSequence:  # it had not begun, or is saved
                pass

        yield from bpp.contingency_wrapper(event(), except_plan=drop)

    def in_run(self, plan: MsgGenerator) -> MsgGenerator[None]:
        """Run `plan` within the run that is open."""
        run = self.runs[-1]
        yield from plan if run is None else bpp.set_run_key_wrapper(plan, run)
