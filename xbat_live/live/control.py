"""The control socket of a run: JSON lines over a Unix socket in the user's runtime folder, one request, one reply.

Who can open the socket may steer: the folder is of mode 0700, so that is the user who runs the acquisition. Roles are the business of
whoever passes requests on for others (the hub).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import socketserver
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xbat_live.live.control_messages import BadRequest, Reply, Request
from xbat_live.live.runtime import runtime_directory, socket_address

logger = logging.getLogger(__name__)

MAX_LINE = 65536
MOST_CONNECTIONS = 32
_NAME = re.compile(r"^run-(\d+)\.sock$")
_ANSWER_S = 5.0
_IDLE_S = 3600.0


class RunNotReachable(ConnectionError):  # noqa: N818
    """The run does not answer: it has ended, or its process hangs."""


@dataclass(frozen=True)
class RunSocket:
    """A run that answers at its control socket.

    Attributes
    ----------
    path
        The socket.
    pid
        Process that acquires.
    status
        Its answer to ``status``: `state`, `uid`, `sample`, `plan_name`, ...
    """

    path: Path
    pid: int
    status: Mapping[str, Any]

    def is_called(self, name: str) -> bool:
        """Whether `name` is the run's process id, its sample, or the begin of its uid."""
        uid = str(self.status.get("uid", ""))
        return name in (str(self.pid), self.status.get("sample")) or (len(name) >= 4 and uid.startswith(name))

    def __str__(self) -> str:
        """One line for people."""
        told = (self.status.get(name) for name in ("sample", "plan_name", "state"))
        uid = str(self.status.get("uid", ""))[:8]
        return "  ".join(filter(None, (uid, *map(str, filter(None, told)), f"process {self.pid}")))


def find_runs(folder: Path | None = None, *, timeout_s: float = 1.0) -> list[RunSocket]:
    """Return the runs of this user that answer, the oldest first; sockets that dead processes left are removed.

    Parameters
    ----------
    folder
        Default: the user's runtime folder.
    timeout_s
        How long each is waited for, s.
    """
    found = []
    for path in sorted((folder or runtime_directory()).glob("run-*.sock"), key=_made_s):
        match = _NAME.match(path.name)
        if match is None:
            continue
        pid = int(match[1])
        try:
            with ControlClient(path, timeout_s=timeout_s) as client:
                reply = client.ask("status")
        except RunNotReachable as error:
            logger.info("%s: %s", path, error)
            if not _lives(pid):
                path.unlink(missing_ok=True)
            continue
        found.append(RunSocket(path, pid, {**reply.data, "state": reply.state}))
    return found


def _made_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class ControlClient:
    """A connection to one run; use as a context manager.

    Parameters
    ----------
    path
        Of `find_runs`.
    timeout_s
        How long a connection, and each reply, is waited for, s.

    Raises
    ------
    RunNotReachable
        Nobody listens.
    """

    def __init__(self, path: Path, *, timeout_s: float = _ANSWER_S) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with socket_address(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise RunNotReachable(f"the run at {path} does not answer ({error})") from error
        self._file = self._socket.makefile("rb")

    def ask(self, verb: str, arguments: Mapping[str, Any] | None = None, *, who: str = "", via: str = "cli") -> Reply:
        """Send a command and return the reply; a refusal is a reply with ``ok`` False.

        Raises
        ------
        RunNotReachable
            No reply in time; it is not known then whether the command was carried out.
        """
        request = Request(uuid.uuid4().hex[:12], verb, dict(arguments or {}), who, via)
        try:
            self._socket.sendall(request.line())
            for line in iter(lambda: self._file.readline(MAX_LINE), b""):
                reply = Reply.read(line)
                if reply.id in (request.id, ""):
                    return reply
        except (OSError, ValueError) as error:
            raise RunNotReachable(f"no reply to {verb} from {self.path} ({error})") from error
        raise RunNotReachable(f"the run at {self.path} has hung up, most likely because it is over")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()


Handle = Callable[[Request], Reply]


class ControlServer:
    """Listens at the control socket of this process; a context manager.

    Parameters
    ----------
    handle
        Carries out a request and returns the reply; called in a thread of its own per connection, several at a time.
    folder
        Default: the user's runtime folder.

    Raises
    ------
    RuntimeFolderError, OSError
        The socket cannot be made.
    """

    def __init__(self, handle: Handle, *, folder: Path | None = None) -> None:
        self.path = (folder or runtime_directory()) / f"run-{os.getpid()}.sock"
        self.path.unlink(missing_ok=True)  # of a dead process that had this id
        with socket_address(self.path) as name:
            self._server = _Server(name, handle)
        self.path.chmod(0o600)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and remove the socket."""
        self.path.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, name: str, handle: Handle) -> None:
        self.handle = handle
        self.free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(name, _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.error("a connection to the control socket failed: %s", sys.exc_info()[1])


class _Connection(socketserver.StreamRequestHandler):
    server: _Server
    timeout = _IDLE_S

    def handle(self) -> None:
        if not self.server.free.acquire(blocking=False):
            self._send(Reply("", False, "", f"{MOST_CONNECTIONS} connections are open already").line())
            return
        try:
            self._serve()
        except (TimeoutError, ConnectionError):
            pass  # hung up
        finally:
            self.server.free.release()

    def _serve(self) -> None:
        while line := self.rfile.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                self._send(Reply("", False, "", f"a request is a line of at most {MAX_LINE} bytes").line())
                return
            try:
                request = Request.read(line)
            except BadRequest as error:
                self._send(Reply(error.id, False, "", str(error)).line())
                continue
            try:
                reply = self.server.handle(request)
            except Exception:  # whatever it is: the run goes on, and whoever asked gets an answer
                logger.exception("%s failed", request.verb)
                reply = Reply(request.id, False, "", f"{request.verb} failed inside; the run's log says why")
            self._send(reply.line())

    def _send(self, line: bytes) -> None:
        self.connection.settimeout(_ANSWER_S)  # who does not read is hung up on
        self.wfile.write(line)
        self.connection.settimeout(self.timeout)


__all__ = [
    "MAX_LINE",
    "ControlClient",
    "ControlServer",
    "Reply",
    "Request",
    "RunNotReachable",
    "RunSocket",
    "find_runs",
]
