"""The browsers and programs that look: each gets what is new when it has shown what it got before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from xbat_live.live.hub.security import Rate, Role
from xbat_live.live.hub.source import FeedSource
from xbat_live.live.store import Cursor
from xbat_live.live.wire import VIEWS, WireError, encode, parse

logger = logging.getLogger(__name__)

POLICY, TOO_FAST, NOT_SPOKEN = 4403, 4429, 4400
DATA_EVERY_S = 0.1
BEAT_EVERY_S = 0.5
SEND_WITHIN_S = 10.0
MESSAGES_PER_S, MESSAGES_AT_ONCE = 40.0, 80.0
COMMANDS_PER_S, COMMANDS_AT_ONCE = 2.0, 6.0

Forward = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Viewer:
    """One websocket after its token was accepted.

    Two lanes, data and pictures, and in each at most one message that was not acknowledged: a viewer that does not keep up gets the
    newest picture when it is ready for it, and its memory here does not grow.

    Parameters
    ----------
    forward
        Sends a command to the run and returns the answer; for operators.
    """

    def __init__(self, socket: WebSocket, role: Role, source: FeedSource, forward: Forward) -> None:
        self.socket, self.role, self.source = socket, role, source
        self.view = "raw"
        self.name = ""
        self.frames_sent = 0
        self._forward = forward
        self._news = asyncio.Event()
        self._cursor: Cursor | None = None
        self._revision = -1
        self._seq = 0
        self._data_out: int | None = None
        self._frame_out: int | None = None
        self._frame_shown: tuple[str, int] | None = None
        self._last_data_s = self._last_beat_s = 0.0
        self._messages = Rate(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        self._commands = Rate(COMMANDS_PER_S, COMMANDS_AT_ONCE)
        self._sending = asyncio.Lock()
        self._forwarding: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    async def run(self, beat: Callable[[], dict[str, Any]]) -> None:
        """Serve until the other side leaves, or breaks the rules."""
        tasks = [asyncio.create_task(work) for work in (self._receive(), self._send(beat))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):
                    task.result()
        finally:
            for task in (*tasks, *self._forwarding):
                task.cancel()
            await asyncio.gather(*tasks, *self._forwarding, return_exceptions=True)

    # -- out ----------------------------------------------------------------------------------------------------------

    async def _send(self, beat: Callable[[], dict[str, Any]]) -> None:
        while True:
            self._news.clear()
            now_s = time.monotonic()
            if self._frame_out is None and (image := self.source.images.get(self.view)):
                number, message = image
                if self._frame_shown != (self.view, number):
                    self._frame_out, self._frame_shown = number, (self.view, number)
                    self.frames_sent += 1
                    await self._put(message)
            store = self.source.store
            if (
                self._data_out is None
                and self._revision != store.revision
                and now_s - self._last_data_s >= DATA_EVERY_S
            ):
                self._revision, self._last_data_s = store.revision, now_s
                news, self._cursor = store.delta(self._cursor)
                if news is not None:
                    self._seq += 1
                    self._data_out = self._seq
                    await self._put(encode(news | {"seq": self._seq}).decode())
            if now_s - self._last_beat_s >= BEAT_EVERY_S:
                self._last_beat_s = now_s
                await self._put(encode({"type": "beat", "t": time.time(), **beat()}).decode())
            waits_for_data = self._data_out is None and self._revision != store.revision
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), DATA_EVERY_S if waits_for_data else BEAT_EVERY_S)

    async def _put(self, message: bytes | str) -> None:
        async with self._sending, asyncio.timeout(SEND_WITHIN_S):
            if isinstance(message, str):
                await self.socket.send_text(message)
            else:
                await self.socket.send_bytes(message)

    # -- in -----------------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            text = await self.socket.receive_text()
            if not self._messages.allows():
                await self.socket.close(TOO_FAST, "too many messages")
                return
            try:
                await self._take(parse(text))
            except (WireError, KeyError, TypeError, ValueError) as error:
                await self.socket.close(NOT_SPOKEN, str(error)[:100])
                return

    async def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "ack":
            if message.get("seq") == self._data_out:
                self._data_out = None
            if message.get("frame") == self._frame_out:
                self._frame_out = None
            self.wake()
        elif kind == "view":
            if message.get("view") not in VIEWS:
                raise WireError(f"view must be one of {', '.join(VIEWS)}")
            self.view = message["view"]
            self.wake()
        elif kind == "command":
            task = asyncio.create_task(self._command(message))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)
        else:
            raise WireError(f"type {kind!r} is unknown")

    async def _command(self, message: dict[str, Any]) -> None:
        """Forward a command; the answer goes to who gave it, whatever it is."""
        number = str(message.get("id", ""))[:64]
        if self.role != "operator":
            answer: dict[str, Any] = {
                "ok": False,
                "message": "this token may look, not steer; open the page with the operator's",
            }
        elif not self._commands.allows():
            answer = {"ok": False, "message": "too many commands at once; wait a second"}
        else:
            answer = await self._forward(message)
        await self._put(encode({"type": "reply", **answer, "id": number, "verb": message.get("verb")}).decode())
