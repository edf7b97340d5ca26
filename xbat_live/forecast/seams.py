"""Where a walk takes the place of the world: clock, soft records, finished futures. For the length of a walk only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from xbat_live.forecast.standins import Answer, Record, VirtualClock
from xbat_live.forecast.stubs import Performer, Stubs, fast_stubs
from xbat_live.forecast.sweeps import WalkedSweep

_PLANS = "xbat_live.plans"
_MESSAGES = f"{_PLANS}.messages"
_SOFT_RECORDS = ("xbat_live.devices.soft", "xbat_live.devices.cube_records")


class _Waited(NamedTuple):
    done: bool = True


def _no_waiting(futures: object, timeout: float | None = None) -> _Waited:
    """Stand for `concurrent.futures.wait`: what a walk submits has its result already."""
    return _Waited()


def _call_here(executor: object, function: Callable[..., Any], *args: object, **kwargs: object) -> MsgGenerator[Any]:
    """Stand for `call_in`: there is no loop to be held up."""
    return function(*args, **kwargs)
    yield  # a generator all the same


def _done_already(future: Answer, *, timeout_s: float | None) -> MsgGenerator[bool]:
    """Stand for `wait_until_done`."""
    return future.done()
    yield


_BLOCKING = {"call_in": _call_here, "wait_until_done": _done_already}


def _not_rewound(plan: MsgGenerator[Any], rewindable: bool) -> MsgGenerator[Any]:
    """Stand for bluesky's `rewindable_wrapper`: a walk is never paused."""
    return plan


@contextmanager
def walking(
    modules: Iterable[ModuleType], clock: VirtualClock, performer: Performer, *, direct: bool = True
) -> Iterator[None]:
    """Let the plans of `modules` run on `clock` and on stand-ins, inside the ``with`` block.

    Replaced are names in the plans' modules: the module `time` (by `clock`), the soft records (ophyd signals take twenty
    microseconds per field), calls in another thread, unique identifiers, what is for pauses, and bluesky's plan stubs
    (see `fast_stubs`). The plans themselves, the dose guard, the dose account and the spot chooser are the real ones.
    """
    with ExitStack() as stack:
        stubs = stack.enter_context(fast_stubs(performer, direct=direct))
        stack.enter_context(patch.object(bpp, "rewindable_wrapper", _not_rewound))
        stack.enter_context(_quiet())
        for module in modules:
            for attribute, replacement in list(_replacements(module, clock, stubs, performer)):
                stack.enter_context(patch.object(module, attribute, replacement))
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the plans log to themselves: nothing of it has happened."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _replacements(
    module: ModuleType, clock: VirtualClock, stubs: Stubs, performer: Performer
) -> Iterator[tuple[str, Any]]:
    names = vars(module)
    if "EnergySweep" in names:
        yield "EnergySweep", partial(WalkedSweep, performer)
    if "save_state" in names and module.__name__ != f"{_PLANS}.protocol_state":
        yield "save_state", lambda state: None
    if names.get("time") is time:
        yield "time", clock
    if module.__name__ == f"{_PLANS}._blocking":
        yield "wait", _no_waiting
    else:
        yield from ((name, here) for name, here in _BLOCKING.items() if name in names)
    if "short_uid" in names:
        numbers = count()
        yield "short_uid", lambda label="": f"{label}-{next(numbers)}"
    for name, value in names.items():
        if isinstance(value, type) and value.__module__ in _SOFT_RECORDS:
            yield name, Record
        elif getattr(value, "__module__", "") == _MESSAGES and module.__name__ != _MESSAGES:
            yield name, stubs.messages(value.__name__, value)
