"""What `xbat run` and `xbat demo` print: lines for people, the run as it goes on, and JSON lines for machines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from xbat_live.cli.terminal import TerminalView, shown, write_record

if TYPE_CHECKING:
    from xbat_live.callbacks import RunState
    from xbat_live.live.feed import LiveFeed


class Display:
    """Prints for people on standard output; with `as_json` on standard error, and records on standard output."""

    def __init__(self, *, as_json: bool = False) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a µ that the terminal does not know must not end anything
        self.console = Console(stderr=as_json, highlight=False)
        self.records_to = sys.stdout if as_json else None
        self._start_s = time.monotonic()

    def say(self, text: str, style: str = "") -> None:
        """Print one line with the time since the start."""
        self.console.print(
            Text(f"{time.monotonic() - self._start_s:6.1f} s  ", style="dim"),
            Text(text, style=style),
            sep="",
            soft_wrap=True,
        )

    @contextmanager
    def showing(self, feed: LiveFeed | None, hint: str = "") -> Iterator[None]:
        """Show the run that `feed` tells of while the context lasts."""
        with shown(feed, TerminalView(self.console, self.say, records_to=self.records_to, hint=hint)):
            yield

    def result(self, state: RunState, **extra: Any) -> None:
        """Write the result as the last record, when `as_json`."""
        if self.records_to is None:
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
        write_record({"type": "result", **_finite(content | extra)}, self.records_to)


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
