"""bluesky's plan stubs once more, for walking plans by the million messages.

bluesky's own keep a formatted call stack per stub, for a warning; that is 0.1 ms each, most of the time of a walk. These
make the very same messages (a test compares). While no preprocessor that rewrites messages is at work they hand them to the
interpreter at once, instead of up through fifteen nested generators and back; `fast_stubs` puts them in place for a walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, Protocol
from unittest.mock import patch

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator

_NOTHING: dict[str, Any] = {}
_REWRITING = ("plan_mutator", "msg_mutator")


class Performer(Protocol):
    """Who carries out messages."""

    def set(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Set a device and return its status."""

    def trigger(self, obj: Any) -> Any:
        """Trigger a device and return its status."""

    def read(self, obj: Any) -> Any:
        """Return the reading of a device."""

    def stop(self, obj: Any) -> Any:
        """Stop a device."""

    def wait(self) -> Any:
        """Wait until everything is done."""

    def sleep(self, seconds: float) -> Any:
        """Let time pass."""


def _message(command: str, obj: Any = None, args: tuple[Any, ...] = (), kwargs: dict[str, Any] = _NOTHING) -> Msg:
    message: Msg = tuple.__new__(Msg, (command, obj, args, kwargs, None))  # Msg's own constructor takes 4 times as long
    return message


class Stubs:
    """The stubs by their names in `bluesky.plan_stubs`.

    Attributes
    ----------
    direct
        True while messages are performed in the stub; otherwise they are yielded, for preprocessors to see.
    """

    def __init__(self, performer: Performer, *, direct: bool = True) -> None:
        self._performer = performer
        self.direct = direct
        self._numbers = count()

    def _group(self) -> str:
        return f"walk-{next(self._numbers)}"

    def rd(self, obj: Any, *, default_value: Any = 0) -> MsgGenerator[Any]:
        """Read one value."""
        if self.direct:
            return obj.value
        reading = yield _message("read", obj)
        (single,) = reading.values()
        return single["value"]

    def read(self, obj: Any) -> MsgGenerator[Any]:
        """Read a device into the Event."""
        return self._performer.read(obj) if self.direct else (yield _message("read", obj))

    def abs_set(self, obj: Any, *args: Any, group: Any = None, wait: bool = False, **kwargs: Any) -> MsgGenerator[Any]:
        """Set a value."""
        if self.direct:
            status = self._performer.set(obj, *args, **kwargs)
            if wait:
                self._performer.wait()
            return status
        if wait and group is None:
            group = self._group()
        status = yield _message("set", obj, args, {"group": group, **kwargs})
        if wait:
            yield _message("wait", None, (), {"group": group})
        return status

    def mv(self, *args: Any, group: Any = None, timeout: float | None = None, **kwargs: Any) -> MsgGenerator[Any]:
        """Move devices together."""
        moves = zip(args[::2], args[1::2], strict=True)
        if self.direct:
            statuses = [self._performer.set(obj, value, **kwargs) for obj, value in moves]
            self._performer.wait()
            return tuple(statuses)
        group, statuses = group or self._group(), []
        for obj, value in moves:
            statuses.append((yield _message("set", obj, (value,), {"group": group, **kwargs})))
        yield _message("wait", None, (), {"group": group, "timeout": timeout})
        return tuple(statuses)

    def trigger(self, obj: Any, *, group: Any = None, wait: bool = False) -> MsgGenerator[Any]:
        """Trigger a device."""
        if self.direct:
            status = self._performer.trigger(obj)
            if wait:
                self._performer.wait()
            return status
        status = yield _message("trigger", obj, (), {"group": group})
        if wait:
            yield _message("wait", None, (), {"group": group})
        return status

    def wait(
        self,
        group: Any = None,
        *,
        timeout: float | None = None,
        error_on_timeout: bool = True,
        watch: Sequence[str] = (),
    ) -> MsgGenerator[Any]:
        """Wait for a group."""
        if self.direct:
            return self._performer.wait()
        options = {"group": group, "error_on_timeout": error_on_timeout, "timeout": timeout, "watch": watch}
        return (yield _message("wait", None, (), options))

    def wait_for(self, futures: Any, **kwargs: Any) -> MsgGenerator[Any]:
        """Wait for coroutines: what a walk waits for is there already."""
        return None if self.direct else (yield _message("wait_for", None, (futures,), kwargs))

    def sleep(self, time: float) -> MsgGenerator[Any]:
        """Sleep."""
        return self._performer.sleep(time) if self.direct else (yield _message("sleep", None, (time,)))

    def create(self, name: str = "primary") -> MsgGenerator[Any]:
        """Begin an Event."""
        return None if self.direct else (yield _message("create", None, (), {"name": name}))

    def save(self) -> MsgGenerator[Any]:
        """End an Event."""
        return None if self.direct else (yield _SAVE)

    def checkpoint(self) -> MsgGenerator[Any]:
        """Mark where to resume."""
        return None if self.direct else (yield _CHECKPOINT)

    def stop(self, obj: Any) -> MsgGenerator[Any]:
        """Stop a device."""
        return self._performer.stop(obj) if self.direct else (yield _message("stop", obj))

    def messages(self, name: str, original: Callable[..., MsgGenerator[Any]]) -> Callable[..., MsgGenerator[Any]]:
        """Return what stands for one of the stubs of `xbat_live.plans.messages`."""
        at_once: dict[str, Callable[..., MsgGenerator[Any]]] = {
            "read": self._read_at_once,
            "put": self._put_at_once,
            "wait": self._wait_at_once,
            "sleep": self.sleep,
        }

        def stub(*args: Any, **kwargs: Any) -> MsgGenerator[Any]:
            return at_once[name](*args, **kwargs) if self.direct else original(*args, **kwargs)

        return stub if name in at_once else original

    def _read_at_once(self, signal: Any) -> MsgGenerator[Any]:
        return signal.value
        yield  # a generator all the same

    def _put_at_once(self, device: Any, value: Any, *, group: str | None = None) -> MsgGenerator[Any]:
        status = self._performer.set(device, value)
        if group is None:
            self._performer.wait()
        return status
        yield

    def _wait_at_once(self, group: str, timeout_s: float) -> MsgGenerator[Any]:
        return self._performer.wait()
        yield


_CHECKPOINT, _SAVE = _message("checkpoint"), _message("save")
NAMES = ("rd", "read", "abs_set", "mv", "trigger", "wait", "wait_for", "sleep", "create", "save", "checkpoint", "stop")
"""Stubs of `bluesky.plan_stubs` that are replaced; the others work as they are, slower."""


@contextmanager
def fast_stubs(performer: Performer, *, direct: bool = True) -> Iterator[Stubs]:
    """Replace the stubs of `bluesky.plan_stubs` while in it; nothing else of this process may run plans meanwhile.

    Parameters
    ----------
    performer
        Carries out what the stubs ask for.
    direct
        False: all messages are yielded.
    """
    stubs = Stubs(performer, direct=direct)

    def seen_by_preprocessor(original: Callable[..., Any]) -> Callable[..., Any]:
        def preprocess(*args: Any, **kwargs: Any) -> Any:
            stubs.direct = False
            return original(*args, **kwargs)

        return preprocess

    with ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(patch.object(bps, name, getattr(stubs, name)))
        for name in _REWRITING:
            stack.enter_context(patch.object(bpp, name, seen_by_preprocessor(getattr(bpp, name))))
        yield stubs
