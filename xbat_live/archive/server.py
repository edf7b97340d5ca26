"""The archive's Tiled server in a process of its own: start, wait, stop."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import xbat_live
from xbat_live.archive.serving import KEY_VARIABLE
from xbat_live.archive.settings import ArchiveError, ArchiveSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_LOG_LINES = 12


class TiledServer:
    """A Tiled server in a process of its own, gone when this process is gone.

    `start` returns at once, so that other things can start meanwhile; `wait_ready` returns when the server answers.

    Parameters
    ----------
    directory
        Folder of the archive, see `ArchiveSettings`.
    port
        TCP port on loopback; left out: a free one.
    readable_storage
        Folders with frames.
    settings
        More of `ArchiveSettings`: `host`, `api_key`, `catalog`, `streaming_cache`, `arrays`.

    Examples
    --------
    >>> with TiledServer("archive", port=8751, readable_storage=["frames"]) as server:  # doctest: +SKIP
    ...     client = connect(server.uri, server.api_key)
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        readable_storage: Iterable[Path | str] = (),
        **settings: Any,
    ) -> None:
        self.settings = ArchiveSettings(
            directory=Path(directory),
            port=_free_port() if port is None else port,
            readable_storage=tuple(Path(path) for path in readable_storage),
            **settings,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0

    @classmethod
    def as_before(cls, directory: Path | str, *, port: int | None = None, **changes: Any) -> Self:
        """Return a server with the settings of last time, see `ArchiveSettings.as_before`."""
        settings = ArchiveSettings.as_before(directory, port=_free_port() if port is None else port, **changes)
        return cls(**vars(settings))

    @property
    def uri(self) -> str:
        """What ``tiled.client.from_uri`` takes."""
        return self.settings.uri

    @property
    def ui_url(self) -> str:
        """Tiled's pages; they ask for the key, or see `ArchiveSettings.ui_url_with_key`."""
        return self.settings.ui_url

    @property
    def api_key(self) -> str:
        """The single user's key."""
        return self.settings.key()

    @property
    def pid(self) -> int | None:
        """Process number, None before `start` and after `stop`."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the process and return without waiting for it.

        Raises
        ------
        ArchiveError
            The port is taken, or a folder is missing or cannot be written.
        """
        if self._process is not None and self._process.poll() is None:
            raise ArchiveError(
                f"the archive's server runs already (process {self._process.pid}, port {self.settings.port})"
            )
        check_port(self.settings.host, self.settings.port)
        config = self.settings.prepare()
        log = self.settings.log_file
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        command = [sys.executable, "-m", "xbat_live.archive", str(config)]
        if threading.current_thread() is threading.main_thread():
            # The kernel sends this signal when the *thread* that started the child ends, so never from a helper thread;
            # there, and always in addition, the end of the pipe on stdin tells the child that its parent is gone.
            command.append("--die-with-parent")
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_child_environment(self.api_key),
                cwd=self.settings.directory,
                start_new_session=True,
            )
        self._started_s = time.monotonic()
        return self

    def wait_ready(self, timeout_s: float = 60.0) -> float:
        """Wait until the server answers a request with its key.

        Parameters
        ----------
        timeout_s
            Longest time from now, s.

        Returns
        -------
        float
            Time from `start` to the answer, s.

        Raises
        ------
        ArchiveError
            The process ended, the time is over, or another server answers at this port. The message holds the end
            of the log.
        """
        import httpx

        if self._process is None:
            raise ArchiveError("the archive's server was not started; call start() first")
        deadline = time.monotonic() + timeout_s
        headers = {"Authorization": f"Apikey {self.api_key}"}
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while True:
                if (code := self._process.poll()) is not None:
                    raise ArchiveError(
                        f"the archive's server ended with code {code} before it was ready; {self._log_tail()}"
                    )
                with contextlib.suppress(httpx.TransportError):
                    answer = http.get(f"{self.uri}/metadata/", headers=headers)
                    if answer.status_code == httpx.codes.OK:
                        return time.monotonic() - self._started_s
                    if answer.status_code == httpx.codes.UNAUTHORIZED:
                        raise ArchiveError(
                            f"another Tiled with another key answers at {self.uri}; stop it or use another port"
                        )
                if time.monotonic() > deadline:
                    raise ArchiveError(f"the archive's server is not ready after {timeout_s:g} s; {self._log_tail()}")
                time.sleep(_POLL_S)

    @property
    def why_ended(self) -> str | None:
        """Why the process ended by itself, with the end of its log; None while it runs, and after `stop`."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        return f"the archive's server ended with code {code}; {self._log_tail()}"

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask the server to end, then make it. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("the archive's server did not end within %g s and is killed", timeout_s)
            self._kill(process)
        finally:
            if process.stdin:
                process.stdin.close()

    def kill(self) -> None:
        """End the server without any farewell (SIGKILL), as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            self._kill(process)
            if process.stdin:
                process.stdin.close()

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _log_tail(self) -> str:
        try:
            lines = self.settings.log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError:
            lines = []
        return f"end of {self.settings.log_file}:\n" + "\n".join(f"  {line}" for line in lines)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def check_port(host: str, port: int) -> None:
    """Raise `ArchiveError` when nothing can listen at `host`, `port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As uvicorn does: connections of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ArchiveError(
                    f"port {port} on {host} is taken (another xbat serve?); stop what uses it or give --port"
                ) from error
            raise ArchiveError(
                f"cannot listen on {host} port {port}: {error.strerror}; give another --host or --port"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _child_environment(api_key: str) -> dict[str, str]:
    environment: dict[str, Any] = {**os.environ, KEY_VARIABLE: api_key}
    # Without compiled modules every start compiles Tiled, dask and pandas again (15 s instead of 5 s).
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    root = Path(xbat_live.__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environment.get("PYTHONPATH", ""))))
    return environment
