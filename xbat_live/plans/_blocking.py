"""Run blocking code (a disk, a worker) from a plan without holding up the RunEngine's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

import bluesky.plan_stubs as bps
from bluesky.run_engine import WaitForTimeoutError
from bluesky.utils import MsgGenerator

T = TypeVar("T")


def call_in(executor: ThreadPoolExecutor, function: Callable[..., T], *args: object, **kwargs: object) -> MsgGenerator[T]:
    """Plan stub: return ``function(*args, **kwargs)`` as run by `executor`, or raise what it raised."""
    future = executor.submit(function, *args, **kwargs)
    result = yield from wait_for_result(future, timeout_s=None)
    assert result is not None
    return result[0]


def wait_for_result(future: Future[T], *, timeout_s: float | None) -> MsgGenerator[tuple[T] | None]:
    """Plan stub: wait until `future` is done.

    Returns
    -------
    tuple or None
        ``(result,)``, or None when nothing came within `timeout_s` seconds.
    """

    async def settled() -> None:
        # gather(return_exceptions) keeps the exception for future.result() below: the RunEngine would log it as unretrieved
        await asyncio.gather(asyncio.shield(asyncio.wrap_future(future)), return_exceptions=True)

    try:
        yield from bps.wait_for([settled], timeout=timeout_s)
    except WaitForTimeoutError:
        return None
    try:  # a simulator of plans does not run the wait: the future is waited for here, then
        return (future.result(timeout=timeout_s),)
    except FutureTimeoutError:
        return None
