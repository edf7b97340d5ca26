"""Run blocking code (a disk, a worker) from a plan without holding up the RunEngine's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from bluesky.run_engine import WaitForTimeoutError
from bluesky.utils import Msg, MsgGenerator

T = TypeVar("T")


def call_in(
    executor: ThreadPoolExecutor, function: Callable[..., T], *args: object, **kwargs: object
) -> MsgGenerator[T]:
    """Plan stub: return ``function(*args, **kwargs)`` as run by `executor`, or raise what it raised."""
    future = executor.submit(function, *args, **kwargs)
    yield from wait_until_done(future, timeout_s=None)
    return future.result()


def wait_until_done(future: Future[Any], *, timeout_s: float | None) -> MsgGenerator[bool]:
    """Plan stub: wait until `future` has a result or an exception.

    Returns
    -------
    bool
        False when it has neither after `timeout_s` seconds.
    """

    async def settled() -> None:
        # gather(return_exceptions) leaves the exception in the future: the RunEngine would log it as never retrieved
        await asyncio.gather(asyncio.shield(asyncio.wrap_future(future)), return_exceptions=True)

    try:
        yield Msg("wait_for", None, [settled], timeout=timeout_s)  # see messages.py: bluesky's stub is slow
    except WaitForTimeoutError:
        return False
    # a simulator of plans does not run the wait: the future is waited for here, then
    return bool(wait([future], timeout=timeout_s).done)
