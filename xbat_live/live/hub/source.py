"""The hub's side of the acquisition: finds the run, connects, connects again, and keeps what is shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xbat_live.live.runtime import socket_address
from xbat_live.live.store import LiveStore
from xbat_live.live.wire import WireError, encode, pack, pack_binary, read_message

logger = logging.getLogger(__name__)

FEEDS = "*.feed"
_LOOK_EVERY_S = 0.25
_HELLO_S = 2.0


class FeedSource:
    """Keeps a `LiveStore` and the newest pictures up to date from one acquisition at a time.

    Parameters
    ----------
    folder
        Where acquisitions have their sockets; the newest one that answers is shown.
    path
        Only this socket.
    changed
        Called when there is something new.

    Attributes
    ----------
    images
        By view: (number, websocket message).
    pid
        Process of the acquisition; None: there is none now.
    """

    def __init__(self, folder: Path, path: Path | None = None, *, changed: Callable[[], None]) -> None:
        self.folder, self.path = folder, path
        self.store = LiveStore()
        self.images: dict[str, tuple[int, bytes]] = {}
        self.pid: int | None = None
        self.name = ""
        self._changed = changed
        self._heard_s: float | None = None
        self._wanted: frozenset[str] = frozenset()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether an acquisition is connected."""
        return self._writer is not None

    @property
    def age_s(self) -> float | None:
        """Time since the acquisition was last heard, s; None: never."""
        return None if self._heard_s is None else time.monotonic() - self._heard_s

    def want(self, views: frozenset[str]) -> None:
        """Ask for pictures of these views only."""
        if views != self._wanted:
            self._wanted = views
            self._ask()

    def _ask(self) -> None:
        if self._writer is not None:
            self._writer.write(pack(encode({"type": "want", "views": sorted(self._wanted)})))

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            for path in await asyncio.to_thread(self._candidates):
                if await self._follow(path):
                    break
            await asyncio.sleep(_LOOK_EVERY_S)

    def _candidates(self) -> list[Path]:
        if self.path is not None:
            return [self.path]
        found = []
        for path in self.folder.glob(FEEDS):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    async def _follow(self, path: Path) -> bool:
        """Show what comes from `path` until it ends; False when nobody is there."""
        try:
            with socket_address(path) as name:
                reader, writer = await asyncio.open_unix_connection(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error)
            return False
        try:
            hello, _ = await asyncio.wait_for(read_message(reader), _HELLO_S)
            self.pid, self.name = int(hello["pid"]), str(hello["name"])
            self._writer, self._heard_s = writer, time.monotonic()
            logger.info("run %s, process %d", self.name, self.pid)
            self._ask()
            while True:
                message, body = await read_message(reader)
                self._take(message, body)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return True
        except (WireError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s: %s", path, error)
            return True
        finally:
            self._writer = self.pid = None
            writer.close()
            self._changed()

    def _take(self, message: dict[str, Any], body: bytes) -> None:
        self._heard_s = time.monotonic()
        kind = message.get("type")
        if kind == "data":
            if message["reset"]:
                self.images.clear()
            self.store.apply(message)
        elif kind == "frame":
            self.images[str(message["view"])] = (int(message["seq"]), pack_binary(encode(message), body))
        elif kind != "beat":
            return
        self._changed()
