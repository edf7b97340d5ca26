"""Starts the hub of a run as a process of its own, and again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import xbat_live
from xbat_live.live.hub.security import Tokens
from xbat_live.live.hub.serving import is_loopback, listen

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8750
LOG_FILE = "hub.log"
_READY_S = 2.0
_AGAIN_S = 0.5
_GIVE_UP_AFTER = 5
_LIVED_S = 10.0


class HubProcess:
    """The hub beside a run; a context manager.

    The listening socket belongs to this process, so the address stays when the hub is killed and started again, and a browser that
    calls meanwhile waits instead of being refused.

    Parameters
    ----------
    folder
        Runtime folder.
    host, port
        Where it listens; a port that is taken is replaced by a free one.
    feed
        Socket of the run that is shown.
    origins
        See `xbat_live.live.hub.security.Origins`.
    tell
        Gets a line when the hub does not come back.

    Raises
    ------
    OSError
        Nothing can listen at `host`.
    PermissionError
        Others can read a token.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        feed: Path | None = None,
        origins: Iterable[str] = (),
        tell: Callable[[str], None] = logger.warning,
    ) -> None:
        self.folder, self.feed, self.origins = folder, feed, tuple(origins)
        self.tokens = Tokens.in_folder(folder)
        self._tell = tell
        self._socket = listen(host, port, or_any=True)
        self.host, self.port = self._socket.getsockname()[:2]
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page, without a token."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def url_with_token(self, role: str = "operator") -> str:
        """Return the address with a token behind ``#``, where browsers keep it to themselves; on loopback only, else without."""
        if not self.on_loopback:
            return self.url
        return f"{self.url}#k={getattr(self.tokens, role)}"

    @property
    def pid(self) -> int | None:
        """Process number; None while it is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> Self:
        """Start it; `wait_ready` waits for it."""
        self._spawn()
        self._keeper = threading.Thread(target=self._keep, name="hub-keeper", daemon=True)
        self._keeper.start()
        return self

    def wait_ready(self, timeout_s: float = _READY_S) -> bool:
        """Wait until the page can be loaded, but not longer than `timeout_s`; False when it is not."""
        process = self._process
        if process is None or process.stdout is None:
            return False
        return bool(select.select([process.stdout], [], [], timeout_s)[0])

    def stop(self) -> None:
        """End it."""
        self._ending.set()
        if self._keeper is not None:
            self._keeper.join(5.0)
            self._keeper = None
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "xbat_live.live.hub", str(self._socket.fileno()), str(self.folder)]
        command += ["--feed", str(self.feed)] if self.feed else []
        for origin in self.origins:
            command += ["--origin", origin]
        root = str(Path(xbat_live.__file__).resolve().parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(self._socket.fileno(),),
                start_new_session=True,
                env=environment,
            )

    def _keep(self) -> None:
        """Start the hub again when it died; not for ever."""
        deaths = 0
        started_s = time.monotonic()
        while not self._ending.wait(_AGAIN_S):
            process = self._process
            if process is None or process.poll() is None:
                continue
            deaths = 1 if time.monotonic() - started_s > _LIVED_S else deaths + 1
            _close_pipes(process)
            if deaths > _GIVE_UP_AFTER:
                self._tell(
                    f"the live page does not stay up; the run goes on without it ({self.folder / LOG_FILE} says why)"
                )
                self._process = None
                return
            logger.warning("the live page's process ended with code %s and is started again", process.returncode)
            started_s = time.monotonic()
            try:
                self._spawn()
            except OSError as error:
                self._tell(f"the live page cannot be started again: {error}")
                self._process = None
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(3.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
