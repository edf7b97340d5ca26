"""The hub as a process."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbat_live.live.hub.security import Origins, Tokens

if TYPE_CHECKING:
    import uvicorn

LARGEST_MESSAGE = 16 * 1024
"""Bytes of one message of a viewer; commands and acknowledgements are small."""


def make_server(
    listening: socket.socket,
    folder: Path,
    *,
    feed: Path | None = None,
    origins: Iterable[str] = (),
    ready: Callable[[], None] = lambda: None,
) -> uvicorn.Server:
    """Return the server of the page; its `run` takes the listening socket.

    Parameters
    ----------
    listening
        A bound and listening TCP socket.
    folder
        Runtime folder: the runs' sockets and the tokens.
    feed
        Socket of the only run that is shown; None: the newest.
    origins
        Where a reverse proxy serves it.
    ready
        Called when the page can be loaded.

    Raises
    ------
    ValueError
        One of `origins` is none.
    PermissionError
        Others can read a token.
    """
    import uvicorn

    from xbat_live.live.hub.app import Hub, make_app

    hub = Hub(Tokens.in_folder(folder), Origins(listening.getsockname()[1], origins), folder, feed)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        make_app(hub),
        ws="websockets-sansio",
        ws_per_message_deflate=False,  # compressing images that are compressed costs 37 % of a core
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        limit_concurrency=256,
    )
    return Server(config)


def serve(listening: socket.socket, folder: Path, **options: Any) -> None:
    """Serve the page until SIGTERM or SIGINT; see `make_server`."""
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
        make_server(listening, folder, **options).run(sockets=[listening])


def listen(host: str, port: int, *, or_any: bool = False) -> socket.socket:
    """Return a listening TCP socket; children may inherit it.

    Parameters
    ----------
    port
        0: a free one.
    or_any
        When the port is taken: a free one.

    Raises
    ------
    OSError
        The port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError:
            if not or_any or not port:
                raise
            found.bind((host, 0))
        found.listen(128)
    except BaseException:
        found.close()
        raise
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    return host in ("127.0.0.1", "::1", "localhost")
