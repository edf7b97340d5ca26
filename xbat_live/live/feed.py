"""The acquisition's side: documents and frames in, at the price of an append; whoever watches is served by a thread of its own.

Nothing here can hold up a run. `LiveFeed.__call__` and `LiveFeed.frame` append to bounded queues and return; a hub that is slow,
dead or was never started costs nothing else. The run's state is kept here, so a hub that comes later, or again, gets all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from xbat_live.live.model import RunModel
from xbat_live.live.previews import FrameView, Previews
from xbat_live.live.runtime import socket_address
from xbat_live.live.store import Cursor, LiveStore
from xbat_live.live.wire import VIEWS, WireError, encode, finite, pack, read_message

logger = logging.getLogger(__name__)

MOST_WAITING = 20_000
PREVIEW_EVERY_S = 0.1
_DATA_EVERY_S = 0.05
_BEAT_EVERY_S = 0.5
_SAMPLE_EVERY_S = 0.25
_MAP_EVERY_S = 1.0
_MAP_SHARE = 20.0
_MOST_HUBS = 8
_BATCH = 500

Source = Callable[[], dict[str, Any] | None]


class LiveFeed:
    """Subscribe it to a RunEngine; give frames with `frame`, values with `show`. Use as a context manager.

    Parameters
    ----------
    path
        Unix socket that hubs and `xbat watch` connect to; None: nobody outside this process is served.
    name
        Shown where there are several runs.

    Attributes
    ----------
    dropped
        Documents left out because the thread did not keep up. The archive does not lose them.
    """

    def __init__(self, path: Path | None = None, *, name: str = "") -> None:
        self.path = path
        self.name = name or ("" if path is None else path.stem)
        self.dropped = 0
        self.previews_left_out = 0
        self.store = LiveStore()
        self._model = RunModel(self.store)
        self._waiting: deque[tuple[str, Any]] = deque()
        self._view: FrameView | None = None
        self._view_came = 0.0
        self._sources: dict[str, Source] = {}
        self._map: Source | None = None
        self._hubs: set[_Hub] = set()
        self._previews = Previews()
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="live-preview")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._frame_is_new: asyncio.Event | None = None
        self._frames = 0

    # -- for the acquisition: cheap, from any thread --------------------------------------------------------------------------------

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document. Returns at once, raises nothing."""
        self._put("document", (name, doc))

    def show(self, **values: Any) -> None:
        """Show values by name; see docs/reference/live-messages.md."""
        self._put("set", values)

    def write(self, severity: str, what: str, text: str) -> None:
        """Add a line to the events: ``info``, ``notice``, ``warning``, ``alarm`` or ``operator``."""
        self._put("write", {"t": time.time(), "severity": severity, "what": what, "text": text, "doc": None})

    def append(self, series: str, row: dict[str, Any]) -> None:
        """Add a row to a series of the run; it is forgotten when the next run begins."""
        self._put("append", (series, row))

    def update(self, name: str, **parts: Any) -> None:
        """Change parts of a value that is a dictionary."""
        self._put("update", (name, parts))

    def frame(self, view: FrameView) -> None:
        """Show a frame, if it is the newest when the time for a preview has come."""
        if self._view is not None:
            self.previews_left_out += 1
        self._view, self._view_came = view, time.time()
        self._wake()

    def news(self, seen: Cursor | None, timeout_s: float = 1.0) -> tuple[dict[str, Any] | None, Cursor | None]:
        """Return what is new since `seen` as `LiveStore.delta` does, for a viewer in this process; from any thread.

        Nothing is new when the feed's thread is not there, or does not answer within `timeout_s`.
        """
        loop = self._loop
        if loop is None:
            return None, seen

        async def delta() -> tuple[dict[str, Any] | None, Cursor]:
            return self.store.delta(seen)

        try:
            return asyncio.run_coroutine_threadsafe(answer := delta(), loop).result(timeout_s)
        except RuntimeError:  # it has just been closed
            answer.close()
        except (TimeoutError, CancelledError):
            pass
        return None, seen

    def watch(self, name: str, source: Source) -> None:
        """Ask `source` for the value `name` some times per second; it must answer at once, from what is known already."""
        self._sources[name] = source

    def watch_map(self, source: Source) -> None:
        """Ask `source` for the dose map once a second while somebody watches, in a thread; seldomer when it takes long."""
        self._map = source

    def _put(self, kind: str, what: Any) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append((kind, what))
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._work)

    # -- life -----------------------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to serve hubs. A socket that cannot be made is told and costs only the view."""
        self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
        self._thread.start()
        self._ready.wait(5.0)
        return self

    def close(self, timeout_s: float = 2.0) -> None:
        """Hand out what is left, at most for `timeout_s`, and end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(timeout_s)
        self._renderer.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the thread -----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            logger.exception("the live view ended; the run goes on without it")
        finally:
            self._loop = None
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop, self._frame_is_new = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        server = await self._listen()
        tasks = [asyncio.create_task(work) for work in (self._show_frames(), self._sample(), self._draw_map())]
        self._ready.set()
        self._wake()
        try:
            await self._stop.wait()
            self._work()
            await self._farewell()
        finally:
            for task in tasks:
                task.cancel()
            if server is not None:
                server.close()
            for hub in list(self._hubs):
                hub.writer.close()
            if self.path is not None:
                self.path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server | None:
        """Serve the socket; one that cannot be made costs only those who look from outside."""
        if self.path is None:
            return None
        mask = os.umask(0o177)
        try:
            self.path.unlink(missing_ok=True)
            with socket_address(self.path) as name:
                return await asyncio.start_unix_server(self._welcome, name)
        except OSError as error:
            logger.warning("the run cannot be watched from elsewhere: %s: %s", self.path, error)
            return None
        finally:
            os.umask(mask)

    async def _farewell(self) -> None:
        """Give the hubs a moment to hear the end of the run."""
        for hub in self._hubs:
            hub.wake()
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s and any(not hub.up_to_date(self.store) for hub in self._hubs):
            await asyncio.sleep(0.02)

    def _work(self) -> None:
        """Take in what is waiting, a batch at a time."""
        self._woken = False
        for _ in range(_BATCH):
            try:
                kind, what = self._waiting.popleft()
            except IndexError:
                break
            try:
                if kind == "document":
                    self._model.take(*what)
                elif kind == "set":
                    self.store.set(**what)
                elif kind == "update":
                    self.store.update(what[0], **what[1])
                elif kind == "append":
                    self.store.append(*what)
                else:
                    self.store.write(what)
            except Exception:  # one document that cannot be shown must not end the view
                logger.exception("the live view cannot show a %s", kind)
        if self._waiting:
            self._wake()
        if self._view is not None and self._frame_is_new is not None:
            self._frame_is_new.set()
        self._tell_hubs()

    def _tell_hubs(self) -> None:
        for hub in self._hubs:
            hub.wake()

    async def _show_frames(self) -> None:
        """Render the newest frame for the views that somebody looks at, at most ten times per second."""
        assert self._loop is not None
        assert self._frame_is_new is not None
        pace = Pace(PREVIEW_EVERY_S)
        while True:
            await self._frame_is_new.wait()
            await asyncio.sleep(pace.wait_s(time.monotonic()))
            self._frame_is_new.clear()
            came_s, view, self._view = self._view_came, self._view, None
            if view is None:
                continue
            pace.take(time.monotonic())
            wanted = set().union(*(hub.views for hub in self._hubs)) if self._hubs else set()
            try:
                images = await self._loop.run_in_executor(self._renderer, self._render, view, came_s, wanted)
            except Exception:
                logger.exception("a frame cannot be shown")
                images = {}
            for what, image in images.items():
                for hub in self._hubs:
                    hub.offer(what, image)

    def _render(self, view: FrameView, came_s: float, wanted: set[str]) -> dict[str, bytes]:
        if {"aligned", "difference"} & wanted or view.accepted:
            self._previews.remember(view)
        images = {}
        self._frames += 1
        for what in wanted:
            header, body = self._previews.render(view, what)
            message = {
                "type": "frame",
                "seq": self._frames,
                "view": what,
                "sent": came_s,
                **finite(view.facts or {}),
                **header,
            }
            images[what] = pack(encode(message), body)
        return images

    async def _sample(self) -> None:
        while True:
            for name, source in list(self._sources.items()):
                try:
                    value = source()
                except Exception:
                    logger.exception("the live view cannot read %s", name)
                    del self._sources[name]
                    continue
                if value is not None:
                    self.store.set(**{name: value})
            self.store.update("plumbing", previews_left_out=self.previews_left_out, documents_dropped=self.dropped)
            self._tell_hubs()
            await asyncio.sleep(_SAMPLE_EVERY_S)

    async def _draw_map(self) -> None:
        while True:
            rest_s = _MAP_EVERY_S
            if self._map is not None and self._hubs:
                started_s = time.monotonic()
                try:
                    value = await asyncio.to_thread(self._map)
                    self.store.set(map=value)
                except Exception:
                    logger.exception("the dose map cannot be shown")
                    self._map = None
                rest_s = max(rest_s, _MAP_SHARE * (time.monotonic() - started_s))
            await asyncio.sleep(rest_s)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._hubs) >= _MOST_HUBS:
            writer.close()
            return
        hub = _Hub(reader, writer)
        self._hubs.add(hub)
        hello = encode({"type": "hello", "pid": os.getpid(), "name": self.name})
        try:
            await hub.serve(self.store, pack(hello))
        except asyncio.CancelledError:
            pass  # the run is over; raised on, it would be logged as an error of the server
        finally:
            self._hubs.discard(hub)
            writer.close()


class Pace:
    """At most one in `every_s` on the long run, and one more now and then.

    Not simply `every_s` after the last one: a frame of a steady camera that was late once would make all later ones wait by as much.
    (The generic cell rate algorithm with a tolerance of one interval, ITU-T I.371.)
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before the next one."""
        return max(self._due_s - self._every_s - now_s, 0.0)

    def take(self, now_s: float) -> None:
        """Note that there was one."""
        self._due_s = max(self._due_s, now_s) + self._every_s


class _Hub:
    """One connected hub: gets what is new when it has taken what was sent before."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.views: set[str] = {"raw"}
        self._images: dict[str, bytes] = {}
        self._news = asyncio.Event()
        self._cursor: Cursor | None = None
        self._revision = -1

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    def offer(self, what: str, image: bytes) -> None:
        """Take the newest picture of a view; one not sent by now is left out."""
        if what in self.views:
            self._images[what] = image
            self._news.set()

    def up_to_date(self, store: LiveStore) -> bool:
        """Whether all was sent."""
        return self._revision == store.revision

    async def serve(self, store: LiveStore, hello: bytes) -> None:
        """Send until the hub is gone."""
        listening = asyncio.create_task(self._listen())
        try:
            self.writer.write(hello)
            last_data_s = 0.0
            while not listening.done():
                images, self._images = self._images, {}
                for image in images.values():
                    self.writer.write(image)
                if time.monotonic() - last_data_s >= _DATA_EVERY_S:
                    message, self._cursor = store.delta(self._cursor)
                    self._revision = store.revision
                    last_data_s = time.monotonic()
                    if message is not None:
                        self.writer.write(pack(encode(message)))
                    self.writer.write(pack(encode({"type": "beat", "t": time.time()})))
                await self.writer.drain()
                await self._wait(last_data_s, store)
        except (ConnectionError, BrokenPipeError):
            pass
        finally:
            listening.cancel()

    async def _wait(self, last_data_s: float, store: LiveStore) -> None:
        """Return when there is something to send: a picture at once, data at most twenty times per second, a beat at least."""
        due_s = last_data_s + (_BEAT_EVERY_S if self.up_to_date(store) else _DATA_EVERY_S)
        while not self._images and (left_s := due_s - time.monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left_s)
            due_s = last_data_s + (_BEAT_EVERY_S if self.up_to_date(store) else _DATA_EVERY_S)

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, WireError):
            while True:
                message, _ = await read_message(self.reader)
                if message.get("type") == "want":
                    self.views = {view for view in message.get("views", []) if view in VIEWS}
