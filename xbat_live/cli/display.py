"""What `xbat run` and `xbat demo` show: one live block on a terminal, plain lines in a pipe, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xbat_live.units import format_si

if TYPE_CHECKING:
    from xbat_live.callbacks import RunState

_ROUTINE = {"start", "end"}
_STYLE = {
    "relocate": "bold magenta",
    "halt": "bold red",
    "alarm": "bold red",
    "warn": "yellow",
    "retake": "yellow",
    "keep_rejected": "yellow",
    "correct_drift": "cyan",
}
_LINE_EVERY_S = 5.0


class Display:
    """Shows a run as it goes on. Use as a context manager; pass `update` to `RunProgress`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)
        self._live: Live | None = None
        self._told = 0
        self._last_line_s = 0.0
        self._start_s = time.monotonic()

    def __enter__(self) -> Display:
        """Begin the live block, on a terminal."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the live block."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """Print one line with the time since the start."""
        self.console.print(
            Text(f"{time.monotonic() - self._start_s:6.1f} s  ", style="dim"),
            Text(text, style=style),
            sep="",
            soft_wrap=True,
        )

    def update(self, state: RunState, what: str) -> None:
        """Show the state of the run; called from the RunEngine for every document, so it only does what is cheap."""
        for _, action, reason in state.decisions[self._told :]:
            if action not in _ROUTINE:
                self.say(f"{action}: {reason}", style=_STYLE.get(action, ""))
        self._told = len(state.decisions)
        if self._live is not None:
            self._live.update(_block(state))
        elif what == "analysis" and time.monotonic() - self._last_line_s > _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.say(" | ".join(_facts(state)))

    def result(self, state: RunState, **extra: Any) -> None:
        """Print the result as one JSON object on standard output, when `as_json`."""
        if not self.as_json:
            return
        content = vars(state) | {
            "rejected": state.rejected,
            "relocations": state.count("relocate"),
            "retakes": state.count("retake"),
            "drift_corrections": state.count("correct_drift"),
        }
        content["decisions"] = [
            {"t_s": round(t, 2), "action": action, "reason": reason} for t, action, reason in state.decisions
        ]
        del content["started_s"]
        sys.stdout.write(json.dumps(_finite(content | extra), indent=1, default=str) + "\n")


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _facts(state: RunState) -> list[str]:
    share = 100 * state.rejected / max(sum(state.verdicts.values()), 1)
    dose = [f"dose {format_si(state.dose_gy, 'Gy')} of {format_si(state.dose_limit_gy, 'Gy')}"]
    if not state.with_beam:
        dose = []
    facts = [
        f"point {state.points}/{state.n_points}",
        f"spot {state.spot + 1}",
        *dose,
        f"rejected {state.rejected} of {state.frames} ({share:.0f} %)",
        f"drift y {1e3 * state.drift_yx_um[0]:+.0f} nm, x {1e3 * state.drift_yx_um[1]:+.0f} nm",
    ]
    if state.voltage_v == state.voltage_v:
        facts.append(f"{state.voltage_v:.3f} V, SOC {100 * state.soc:.1f} %")
    return facts


def _block(state: RunState) -> Group:
    fraction = min(state.dose_gy / state.dose_limit_gy, 1.0) if state.dose_limit_gy == state.dose_limit_gy else 0.0
    grid = Table.grid(padding=(0, 2))
    elapsed_s = time.monotonic() - state.started_s
    grid.add_row("run", f"{state.plan_name}  {state.sample}  {state.uid[:8]}  {elapsed_s:.0f} s")
    grid.add_row(
        "points",
        ProgressBar(total=max(state.n_points, 1), completed=state.points, width=40),
        f"{state.points}/{state.n_points}",
    )
    if not state.with_beam:
        return Group(grid, Text(" | ".join(_facts(state))))
    grid.add_row("dose", ProgressBar(total=1.0, completed=fraction, width=40), f"{100 * fraction:.0f} % of the limit")
    return Group(grid, Text(" | ".join(_facts(state))))
