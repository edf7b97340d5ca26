"""The hub as a web application: the page, its files, and one websocket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from xbat_live import __version__
from xbat_live.live.hub.commands import forward
from xbat_live.live.hub.security import HEADERS, Attempts, Origins, Role, Tokens
from xbat_live.live.hub.source import FeedSource
from xbat_live.live.hub.viewers import NOT_SPOKEN, TOO_FAST, Viewer
from xbat_live.live.wire import WireError, encode, parse

logger = logging.getLogger(__name__)

STATIC = Path(str(files("xbat_live.live") / "static"))
CONTROL = "run-{pid}.sock"
"""Name of a run's control socket in the runtime folder; see `xbat_live.live.control`."""
REFUSED = 4401
FULL = 4503
MOST_VIEWERS = 64
TOKEN_WITHIN_S = 5.0


@dataclass
class Hub:
    """What all requests share."""

    tokens: Tokens
    origins: Origins
    folder: Path
    feed: Path | None = None
    attempts: Attempts = field(default_factory=Attempts)
    viewers: set[Viewer] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.source = FeedSource(self.folder, self.feed, changed=self._wake)

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.wake()

    def beat(self) -> dict[str, Any]:
        """Return what is told to every viewer some times per second."""
        self.source.want(frozenset(viewer.view for viewer in self.viewers))
        age_s = self.source.age_s
        return {
            "connected": self.source.connected,
            "age_s": None if age_s is None else round(age_s, 2),
            "viewers": len(self.viewers),
            "run": self.source.name,
        }

    def control(self) -> Path | None:
        """Return the control socket of the run that is shown."""
        return None if self.source.pid is None else self.folder / CONTROL.format(pid=self.source.pid)

    async def command(self, message: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operator's command."""
        return await forward(self.control(), message)

    # -- the websocket ------------------------------------------------------------------------------------------------

    async def websocket(self, socket: WebSocket) -> None:
        """Serve one viewer."""
        address = socket.client.host if socket.client else ""
        if not self.origins.allows_origin(socket.headers.get("origin")):
            logger.warning("a websocket of origin %r is refused", socket.headers.get("origin"))
            await socket.close()  # before it is accepted: HTTP 403
            return
        await socket.accept()
        if len(self.viewers) >= MOST_VIEWERS:
            await socket.close(FULL, f"{MOST_VIEWERS} viewers look already")
            return
        with contextlib.suppress(WebSocketDisconnect):
            role = await self._admit(socket, address)
            if role is not None:
                await self._serve(socket, role)

    async def _admit(self, socket: WebSocket, address: str) -> Role | None:
        if self.attempts.blocked(address):
            await socket.close(TOO_FAST, "too many wrong tokens; wait a moment")
            return None
        token: object = socket.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            try:
                async with asyncio.timeout(TOKEN_WITHIN_S):
                    token = parse(await socket.receive_text()).get("token")
            except TimeoutError:
                await socket.close(REFUSED, "no token")
                return None
            except (WireError, KeyError) as error:
                await socket.close(NOT_SPOKEN, str(error)[:100])
                return None
        role = self.tokens.role(token)
        if role is None:
            self.attempts.failed(address)
            logger.warning("a wrong token from %s is refused", address)
            await socket.close(REFUSED, "wrong token")
        return role

    async def _serve(self, socket: WebSocket, role: Role) -> None:
        viewer = Viewer(socket, role, self.source, self.command)
        self.viewers.add(viewer)
        try:
            await socket.send_text(
                encode({"type": "welcome", "role": role, "version": __version__, **self.beat()}).decode()
            )
            await viewer.run(self.beat)
        finally:
            self.viewers.discard(viewer)


class Fence:
    """Refuses what does not call this hub by its name, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not self.origins.allows_host(Headers(scope=scope).get("host")):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
                return
            answer = PlainTextResponse(
                "unknown host name; `xbat watch --serve --origin` names others", 421, dict(HEADERS)
            )
            await answer(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)


def make_app(hub: Hub) -> ASGIApp:
    """Return the application around `hub`; it follows the acquisition while it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(hub.source.run())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def icon(request: Request) -> Response:
        return FileResponse(STATIC / "favicon.svg", media_type="image/svg+xml")

    async def health(request: Request) -> Response:
        return JSONResponse(
            {"ok": True, "version": __version__, "viewers": len(hub.viewers), "connected": hub.source.connected}
        )

    routes = [
        Route("/", page),
        Route("/favicon.ico", icon),
        Route("/health", health),
        WebSocketRoute("/live", hub.websocket),
        Mount("/static", StaticFiles(directory=STATIC, follow_symlink=False)),
    ]
    return Fence(Starlette(routes=routes, lifespan=lifespan), hub.origins)
