"""Threads that run the twin beside the event loop: Channel Access stays responsive while a frame is rendered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger(__name__)


class TwinWorker:
    """Three single threads: one that changes and reads the twin's state, one for frames, one for preparation.

    Calls of one thread run in the order in which they were made. A frame is rendered only after the shutter and stage
    commands made before it have reached the twin (`render` sees to that).
    """

    def __init__(self) -> None:
        self._state = ThreadPoolExecutor(1, thread_name_prefix="twin-state")
        self._frames = ThreadPoolExecutor(1, thread_name_prefix="twin-frames")
        self._preparation = ThreadPoolExecutor(1, thread_name_prefix="twin-preparation")
        self._last: Future[Any] | None = None
        self._prepare_again = False
        self._preparing = False
        self._closed = False

    def post(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run in the state thread; do not wait, log what fails.

        Parameters
        ----------
        function : callable
            With its arguments.
        """
        if self._closed:
            return  # a motor still runs out while the simulation ends
        future = self._state.submit(function, *args, **kwargs)
        future.add_done_callback(_log_failure)
        self._last = future

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in the state thread and return the result.

        Parameters
        ----------
        function : callable
            With its arguments.

        Returns
        -------
        object
            What the function returned.
        """
        return await asyncio.wrap_future(self._state.submit(function, *args, **kwargs))

    async def render(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in the frame thread, after all state changes posted so far.

        Parameters
        ----------
        function : callable
            With its arguments.

        Returns
        -------
        object
            What the function returned.
        """
        if self._last is not None and not self._last.done():
            await asyncio.wait([asyncio.wrap_future(self._last)])
        return await asyncio.wrap_future(self._frames.submit(function, *args, **kwargs))

    def prepare(self, function: Callable[[], object]) -> None:
        """Run in the preparation thread; requests made while one runs are merged into one more.

        Parameters
        ----------
        function : callable
            Without arguments.
        """
        if self._closed:
            return
        if self._preparing:
            self._prepare_again = True
            return
        self._preparing = True
        loop = asyncio.get_running_loop()

        def finished(future: Future[Any]) -> None:
            _log_failure(future)
            loop.call_soon_threadsafe(self._prepared, function)

        waits_for = self._last

        def run() -> None:
            if waits_for is not None:
                waits_for.exception()  # the stage has to have arrived in the twin
            function()

        self._preparation.submit(run).add_done_callback(finished)

    def _prepared(self, function: Callable[[], object]) -> None:
        self._preparing = False
        if self._prepare_again:
            self._prepare_again = False
            self.prepare(function)

    def close(self) -> None:
        """Take nothing more, finish what was submitted and end the threads."""
        self._closed = True
        for executor in (self._preparation, self._state, self._frames):
            executor.shutdown(wait=True, cancel_futures=False)


def _log_failure(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.error("the twin failed: %s", error, exc_info=error)
