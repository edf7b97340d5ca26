"""The records of a guarded plan that knows nothing of them: which run is open, its decisions, the dose of its spots."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator

from xbat_live.devices import DecisionRecord, SpotRecord
from xbat_live.plans.decisions import DECISION, SPOTS, fill_decision, save_record, save_spots
from xbat_live.plans.guard import DoseGuard

logger = logging.getLogger(__name__)


class Promise:
    """Stands for the status of a trigger or a kickoff that is carried out a little later."""

    def __init__(self) -> None:
        self.done = self.success = False
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    @classmethod
    def kept(cls) -> Promise:
        """Return one that is done."""
        promise = cls()
        promise.finish()
        return promise

    def finish(self, error: BaseException | None = None) -> None:
        """Become done, with an error or without."""
        self.done, self.success, self._error = True, error is None, error
        for callback in self._callbacks:
            callback(self)

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` when it is done."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """Return what went wrong."""
        del timeout
        return self._error


class RunRecorder:
    """Writes Events of its own into the run of a plan, between the plan's messages.

    Attributes
    ----------
    bundling
        The plan is collecting readings for an Event: nothing else can be saved now.
    """

    def __init__(self, guard: DoseGuard) -> None:
        self._guard = guard
        self._runs: list[Hashable] = []
        self.bundling = self._told_spots = False
        self._decisions: list[dict[str, Any]] = []
        self._declared: set[tuple[Hashable, str]] = set()
        self._decision, self._spot = DecisionRecord(name="decision"), SpotRecord(name="spot")

    def note(self, msg: Msg) -> None:
        """Take note of a message of the plan that is about to be carried out."""
        command = msg.command
        if command == "open_run":
            self._runs.append(msg.run)
            self._told_spots = False
        elif command == "close_run" and msg.run in self._runs:
            self._runs.remove(msg.run)
        elif command == "create":
            self.bundling = True
            self._told_spots |= (msg.args[0] if msg.args else msg.kwargs.get("name")) == SPOTS
        elif command in ("save", "drop"):
            self.bundling = False

    def tell(self, action: str, reason: str, *, threshold: float = math.nan, **inputs: Any) -> MsgGenerator[None]:
        """Plan stub: record a decision in the log and, in a run, in the stream ``decision``."""
        logger.warning("dose guard: %s: %s", action, reason)
        self._decisions.append({"action": action, "reason": reason, "threshold": threshold, "inputs": inputs})
        yield from self.emit()

    def pass_on_warnings(self) -> MsgGenerator[None]:
        """Plan stub: record that a limit has come near."""
        for warning in self._guard.take_warnings():
            inputs = {"limit": warning.limit_name, "fraction": warning.fraction, "level": warning.level}
            yield from self.tell("warn", warning.message, threshold=warning.value, **inputs)

    def emit(self) -> MsgGenerator[None]:
        """Plan stub: save the decisions that wait for it; not within another Event, and only where it is clear which run is meant."""
        if self.bundling or len(self._runs) != 1:
            return
        decisions, self._decisions = self._decisions, []
        for decision in decisions:
            fill_decision(self._decision, **decision)
            yield from self._save(DECISION, self._decision, save_record(self._decision, stream=DECISION))

    def end_of_run(self, run: Hashable) -> MsgGenerator[None]:
        """Plan stub: save the dose of each spot before a run is closed."""
        if self._told_spots or self._runs != [run]:
            return
        if self.bundling:
            yield Msg("drop", run=run)
            self.bundling = False
        yield from self.emit()
        yield from self._save(SPOTS, self._spot, save_spots(self._guard, self._spot))
        self._told_spots = True

    def end_of_plan(self) -> MsgGenerator[None]:
        """Plan stub: do the same for a plan that failed without closing its run; the RunEngine closes it after this."""
        if len(self._runs) == 1:
            yield from self.end_of_run(self._runs[0])

    def _save(self, stream: str, record: Any, plan: MsgGenerator) -> MsgGenerator[None]:
        (run,) = self._runs

        def declared() -> MsgGenerator[None]:
            if (run, stream) not in self._declared:
                yield from bps.declare_stream(record, name=stream)
                self._declared.add((run, stream))
            yield from plan

        yield from declared() if run is None else bpp.set_run_key_wrapper(declared(), run)
