"""Shows a run while it goes on: a block on a terminal, plain lines in a pipe, JSON lines for machines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live

from xbat_live.live.store import Cursor, LiveStore
from xbat_live.live.terminal import OVER, STALE_S, RunBlock, event_line, line, phase, records, status

if TYPE_CHECKING:
    from xbat_live.live.feed import LiveFeed

PER_S = 4
LINE_EVERY_S = 5.0
_QUIET = ("end",)  # said by `stop` as well


class TerminalView:
    """Takes messages of a feed and shows what they say. Use as a context manager.

    Parameters
    ----------
    console
        For people.
    say
        Prints one line for people: text and style.
    records_to
        Gets records for machines, one JSON object a line; None: none are wanted.
    hint
        Last line of the block.
    """

    def __init__(
        self, console: Console, say: Callable[[str, str], None], *, records_to: TextIO | None = None, hint: str = ""
    ) -> None:
        self.store = LiveStore()
        self._console, self._say, self._records_to, self._hint = console, say, records_to, hint
        self._live: Live | None = None
        self._heard_s = time.monotonic()
        self._told_s = -LINE_EVERY_S
        self._told_state = ""
        self._silent = False

    def __enter__(self) -> TerminalView:
        """Begin the block, on a terminal."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._block, console=self._console, refresh_per_second=PER_S)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End it; what it showed last stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _block(self) -> RunBlock:
        return RunBlock(self.store, age_s=time.monotonic() - self._heard_s, hint=self._hint)

    def take(self, message: dict[str, Any] | None) -> None:
        """Take a message; None: none came for a while."""
        if message is None:
            self._tell_silence()
            return
        self._heard_s, self._silent = time.monotonic(), False
        if message.get("type") == "data":
            self.store.apply(message)
            self._tell(message)
        self._tell_status()

    def _record(self, record: dict[str, Any]) -> None:
        if self._records_to is not None:
            write_record(record, self._records_to)

    def _tell_silence(self) -> None:
        """Say once that nothing is heard; the block says it by itself."""
        age_s = time.monotonic() - self._heard_s
        if age_s < STALE_S or self._silent:
            return
        self._silent = True
        self._record({"type": "silence", "t": time.time(), "age_s": round(age_s, 1)})
        if self._live is None:
            self._say(f"no data for {age_s:.0f} s: the acquisition does not answer", "bold yellow")

    def _tell(self, message: dict[str, Any]) -> None:
        if self._records_to is not None:
            for record in records(message, self.store):
                self._record(record)
        if self._live is None:
            for row in message["log"]["rows"]:
                if row.get("what") not in _QUIET:
                    self._say(*event_line(row))

    def _tell_status(self) -> None:
        """Say where the run stands when its state changes, and every few seconds."""
        word = phase(self.store.state)
        due = time.monotonic() - self._told_s > LINE_EVERY_S and word not in (*OVER, "IDLE")
        if word == self._told_state and not due:
            return
        changed, self._told_state, self._told_s = word != self._told_state, word, time.monotonic()
        self._record(status(self.store, time.time()))
        if self._live is None and (due or changed) and self.store.state.get("counts", {}).get("frames"):
            self._say(line(self.store, time.time()), "")


def write_record(record: dict[str, Any], out: TextIO) -> None:
    """Write one line of JSON."""
    out.write(json.dumps(record, default=str, separators=(",", ":")) + "\n")
    out.flush()


@contextmanager
def shown(feed: LiveFeed | None, view: TerminalView) -> Iterator[None]:
    """Show what `feed` tells through `view` while the context lasts, in a thread: a terminal that is stopped holds up no run."""
    if feed is None:
        yield
        return
    done = threading.Event()

    def follow() -> None:
        seen: Cursor | None = None
        while True:
            last = done.is_set()
            message, seen = feed.news(seen)
            view.take(message if message is not None else {"type": "beat"})
            if last:
                return
            done.wait(1 / PER_S)

    thread = threading.Thread(target=follow, name="terminal", daemon=True)
    with view:
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(2.0)
