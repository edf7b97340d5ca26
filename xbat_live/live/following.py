"""Follow a run from another process of this user: connects to its feed as a hub does, and asks for no pictures."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xbat_live.live.runtime import runtime_directory, socket_address
from xbat_live.live.wire import MOST_BODY, MOST_HEADER, WireError, encode, pack, parse

SUFFIX = ".feed"
"""Of a run's socket in the runtime folder, `run-PID.feed`."""
_TWO = struct.Struct(">II")
_ANSWER_S = 5.0


class FeedNotReachable(ConnectionError):  # noqa: N818
    """Nobody serves this feed, or it is not spoken there what is spoken here."""


class FeedClient:
    """A connection to the feed of one run; use as a context manager.

    Parameters
    ----------
    path
        Its socket.
    timeout_s
        How long the connection and the rest of a message that has begun are waited for, s.

    Raises
    ------
    FeedNotReachable
        See there.
    """

    def __init__(self, path: Path, *, timeout_s: float = _ANSWER_S) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with socket_address(path) as name:
                self._socket.connect(name)
            hello = self._read()
            self.pid, self.name = int(hello["pid"]), str(hello["name"])
            self._socket.sendall(pack(encode({"type": "want", "views": []})))
        except (OSError, EOFError, WireError, KeyError, ValueError) as error:
            self._socket.close()
            raise FeedNotReachable(f"the run at {path} does not answer ({error})") from error

    def messages(self, every_s: float) -> Iterator[dict[str, Any] | None]:
        """Yield messages as they come, and None after `every_s` without one, until the run's process closes the feed."""
        while True:
            try:
                if not select.select([self._socket], [], [], every_s)[0]:
                    yield None
                    continue
                message = self._read()
            except (EOFError, OSError, WireError):
                return
            yield message

    def _read(self) -> dict[str, Any]:
        header, body = _TWO.unpack(self._exactly(_TWO.size))
        if header > MOST_HEADER or body > MOST_BODY:
            raise WireError(f"a message of {header} + {body} bytes")
        message = parse(self._exactly(header))
        self._exactly(body)
        return message

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                raise EOFError("it hung up")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_feeds(folder: Path | None = None) -> list[Path]:
    """Return the feeds that answer, in this user's runtime folder unless another is given; also of runs that are still starting."""
    found = []
    for path in sorted((folder or runtime_directory()).glob(f"run-*{SUFFIX}")):
        with contextlib.suppress(FeedNotReachable), FeedClient(path, timeout_s=1.0):
            found.append(path)
    return found
