"""Ctrl-C once: the shutter closes, the run is stopped in order. Twice: the run is aborted. The shutter is closed either way."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from bluesky import RunEngine
from bluesky.utils import MsgGenerator, RunEngineInterrupted, TransitionError

logger = logging.getLogger(__name__)

PAUSE_WITHIN_S = 5.0
_LOOK_S = 0.05


class Interrupted(Exception):  # noqa: N818 - not an error of anybody
    """The run was ended by the operator; `exit_status` is that of its stop document."""

    def __init__(self, exit_status: str) -> None:
        super().__init__(f"run ended by the operator ({exit_status}); shutter closed")
        self.exit_status = exit_status


def run_interruptibly(
    run_engine: RunEngine,
    plan: MsgGenerator,
    close_shutter: Callable[[], object],
    tell: Callable[[str], None],
    *,
    ended_by: Callable[[], str] = str,
) -> Any:
    """Run `plan` in the main thread and return its value, with SIGINT and SIGTERM ending it safely.

    Parameters
    ----------
    close_shutter
        Closes the shutter without waiting; called from another thread at the first signal, before anything else.
    tell
        Prints a line for the operator.
    ended_by
        Tells afterwards whether an operator has steered the run to its end: ``stop``, ``abort``, or empty.

    Raises
    ------
    Interrupted
        After a signal, or a steered end, when the run is closed.
    """
    signals = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        tell("stopping: shutter closes, run ends in order (again: abort)" if signals == 1 else "aborting")
        # not here: a handler runs between any two bytecodes of the main thread, which may hold a lock of Channel Access. And
        # not one after the other: neither may keep the other from happening.
        for act in (close_shutter, lambda: _pause(run_engine)):
            threading.Thread(target=act, name="interrupt", daemon=True).start()

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        result = run_engine(plan)
        if result.plan_result is run_engine.NO_PLAN_RETURN and ended_by():
            raise Interrupted("stopped")
        return result.plan_result
    except RunEngineInterrupted:
        _end(run_engine, abort=signals > 1)
        raise Interrupted("abort" if signals > 1 or ended_by() == "abort" else "stopped") from None
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _pause(run_engine: RunEngine) -> None:
    """Request a pause, and abort when the plan goes on nevertheless."""
    try:
        run_engine.request_pause(defer=False)
    except TransitionError:
        return  # already pausing or ending
    end_s = time.monotonic() + PAUSE_WITHIN_S
    while run_engine.state in ("running", "pausing"):
        if time.monotonic() > end_s:
            logger.critical("the run did not pause within %g s; it is aborted", PAUSE_WITHIN_S)
            run_engine.abort(reason=f"did not pause within {PAUSE_WITHIN_S:g} s of Ctrl-C")
            return
        time.sleep(_LOOK_S)


def _end(run_engine: RunEngine, *, abort: bool) -> None:
    if run_engine.state != "paused":
        return
    if abort:
        run_engine.abort(reason="aborted by the operator")
    else:
        run_engine.stop()
