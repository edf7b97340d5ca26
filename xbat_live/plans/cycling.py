"""The potentiostat's protocol, run in parallel with the frames: looked after between points, never waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xbat_live.devices import Potentiostat, PotentiostatStep


@dataclass(frozen=True)
class TimedStep:
    """A step and how long it may last at most, s; None leaves its end to the cut-off voltages."""

    step: PotentiostatStep
    duration_s: float | None = None


@dataclass
class Cycling:
    """Progress through the steps."""

    steps: Sequence[TimedStep]
    index: int = -1
    started_s: float = 0.0

    @property
    def running(self) -> bool:
        """True while a step is under way."""
        return 0 <= self.index < len(self.steps)


def advance(cycling: Cycling, potentiostat: Potentiostat, now_s: float) -> MsgGenerator[str | None]:
    """Start the next step when the present one has ended.

    Parameters
    ----------
    now_s
        Time of the point since the series began, s; durations of steps are counted by it.

    Returns
    -------
    str or None
        What was started, for the decision record.
    """
    if not cycling.steps or cycling.index >= len(cycling.steps):
        return None  # a cell without a protocol is left as it is
    if cycling.running:
        timed = cycling.steps[cycling.index]
        over = timed.duration_s is not None and now_s - cycling.started_s >= timed.duration_s
        if not over and (yield from bps.rd(potentiostat.status)) != "Done":
            return None
    cycling.index += 1
    if cycling.index >= len(cycling.steps):
        yield from bps.abs_set(potentiostat, PotentiostatStep("ocv"), wait=True)
        return "protocol finished, cell at open circuit"
    cycling.started_s = now_s
    step = cycling.steps[cycling.index].step
    yield from bps.abs_set(potentiostat, step, wait=True)
    return f"potentiostat step {cycling.index + 1} of {len(cycling.steps)}: {step}"
