"""The RunEngine as xbat_live runs it."""

from __future__ import annotations

import threading

from bluesky import RunEngine
from bluesky.utils import DuringTask

_LOOK_S = 0.05


class PolledWait(DuringTask):
    """Waits for the plan in short steps: pass it to the RunEngine as `during_task`.

    Python runs a signal's handler in the main thread only, between two bytecodes. A main thread that waits without end executes
    none, unless the signal happens to interrupt that wait: not when another thread received it, or when it came just before.
    """

    def block(self, blocking_event: threading.Event) -> None:
        """Return when `blocking_event` is set."""
        while not blocking_event.wait(_LOOK_S):
            pass


def make_run_engine() -> RunEngine:
    """Return a RunEngine that leaves signals to its caller.

    bluesky's own handler only pauses, and leaves the question what then. Plans return their values in the result.
    """
    return RunEngine({}, context_managers=[], call_returns_result=True, during_task=PolledWait())
