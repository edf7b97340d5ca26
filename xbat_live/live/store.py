"""What is shown of a run, and what of it somebody has not seen yet: the same in the acquisition and in the hub."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from xbat_live.live.wire import finite

POINTS = 2000
LOG_LINES = 1000


class Ring:
    """The last `length` rows, numbered from 0 on."""

    def __init__(self, length: int) -> None:
        self.rows: deque[Any] = deque(maxlen=length)
        self.next = 0

    @property
    def first(self) -> int:
        """Number of the oldest row that is kept."""
        return self.next - len(self.rows)

    def append(self, row: Any) -> None:
        """Add a row; the oldest goes when the ring is full."""
        self.rows.append(row)
        self.next += 1

    def since(self, number: int) -> list[Any]:
        """Return the rows from `number` on, as far as they are kept."""
        return list(itertools.islice(self.rows, max(number - self.first, 0), None))

    def take(self, first: int, rows: Iterable[Any]) -> None:
        """Take over rows of another ring, of which the first has the number `first`; those already here are left out."""
        for number, row in enumerate(rows, first):
            if number >= self.next:
                self.next = number
                self.append(row)


@dataclass(frozen=True)
class Cursor:
    """How much somebody has seen."""

    epoch: str
    version: int
    series: dict[str, int] = field(default_factory=dict)
    log: int = 0


class LiveStore:
    """Values by name, series of rows and a log, each bounded; tells what is new since a `Cursor`.

    Not for use by several threads at once.
    """

    def __init__(self, *, points: int = POINTS, log_lines: int = LOG_LINES) -> None:
        self._points, self._log_lines = points, log_lines
        self.revision = 0
        """Counts changes of any kind."""
        self.clear()

    def clear(self, keep: Iterable[str] = ()) -> None:
        """Forget all but the values named in `keep`: another run begins."""
        kept = {name: self.state[name] for name in keep if name in self.state} if hasattr(self, "state") else {}
        self.epoch = uuid.uuid4().hex[:12]
        self.version = 1
        self.revision += 1
        self.state: dict[str, Any] = kept
        self._versions: dict[str, int] = dict.fromkeys(kept, 1)
        self.columns: dict[str, list[str]] = {}
        self.series: dict[str, Ring] = {}
        self.log = Ring(self._log_lines)

    def set(self, **values: Any) -> None:
        """Take over values; one that is the same as before is not new."""
        for name, given in values.items():
            value = finite(given)
            if name not in self.state or self.state[name] != value:
                self.version += 1
                self.revision += 1
                self.state[name], self._versions[name] = value, self.version

    def update(self, name: str, **parts: Any) -> None:
        """Take over parts of a value that is a dictionary."""
        self.set(**{name: {**(self.state.get(name) or {}), **parts}})

    def append(self, series: str, row: dict[str, Any]) -> None:
        """Add a row to a series; its columns are those of the first row."""
        self.revision += 1
        columns = self.columns.setdefault(series, list(row))
        self._ring(series).append([finite(row.get(column)) for column in columns])

    def write(self, row: dict[str, Any]) -> None:
        """Add a row to the log."""
        self.revision += 1
        self.log.append(finite(row))

    def delta(self, seen: Cursor | None) -> tuple[dict[str, Any] | None, Cursor]:
        """Return what is new since `seen` (None: everything) as a message, None when nothing is, and the new cursor."""
        reset = seen is None or seen.epoch != self.epoch
        before = Cursor(self.epoch, 0) if seen is None or seen.epoch != self.epoch else seen
        now = Cursor(self.epoch, self.version, {name: ring.next for name, ring in self.series.items()}, self.log.next)
        if now == before and not reset:
            return None, now
        message: dict[str, Any] = {"type": "data", "epoch": self.epoch, "reset": reset}
        message["state"] = {name: self.state[name] for name, at in self._versions.items() if at > before.version}
        message["series"] = {}
        for name, ring in self.series.items():
            number = before.series.get(name, 0)
            if rows := ring.since(number):
                first = max(number, ring.first)
                message["series"][name] = {"columns": self.columns[name], "first": first, "rows": rows}
        message["log"] = {"first": max(before.log, self.log.first), "rows": self.log.since(before.log)}
        return message, now

    def apply(self, message: dict[str, Any]) -> None:
        """Take over a message of another store's `delta`."""
        if message["reset"]:
            self.clear()
            self.epoch = message["epoch"]
        self.set(**message["state"])
        for name, part in message["series"].items():
            self.columns[name] = part["columns"]
            self._ring(name).take(part["first"], part["rows"])
        self.log.take(message["log"]["first"], message["log"]["rows"])
        self.revision += 1

    def _ring(self, name: str) -> Ring:
        return self.series.setdefault(name, Ring(self._points))
