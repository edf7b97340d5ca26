"""One guard per sample, and whether the process that a guard waits for still lives."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_POLL_S = 0.1


class GuardLock:
    """The lock of a sample's guard; held while it watches. The file says who holds it.

    Parameters
    ----------
    ledger
        The sample's ledger; the lock is beside it.
    """

    def __init__(self, ledger: Path) -> None:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(ledger.with_name(ledger.name + ".guard.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)

    def take(self, *, stays: bool) -> bool:
        """Take the lock; False when another guard has it. `stays`: without a parent to wait for."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "stays": stays}).encode(), 0)
        return True

    def holder(self) -> tuple[int, bool]:
        """Return pid of the guard that has the lock, and whether it stays."""
        try:
            said: dict[str, Any] = json.loads(os.pread(self._fd, 200, 0))
            return int(said["pid"]), bool(said["stays"])
        except (ValueError, KeyError):  # it is just being written
            return 0, False

    def wait(self, go_on: Callable[[], bool]) -> bool:
        """Wait for the lock while `go_on` says so; False when it no longer does, or a guard that stays has it."""
        while go_on():
            if self.take(stays=False):
                return True
            if self.holder()[1]:
                return False
            time.sleep(_POLL_S)
        return False

    def __enter__(self) -> GuardLock:
        """Return the lock."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it up."""
        os.close(self._fd)


class OtherProcess:
    """A process that may end.

    Parameters
    ----------
    pid
        Its id. A later process with the same id is not mistaken for it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd: int | None
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None
        except (AttributeError, OSError):  # an old kernel
            self._fd = -1

    def lives(self) -> bool:
        """Whether it lives."""
        if self._fd is None:
            return False
        if self._fd >= 0:
            return not select.select([self._fd], [], [], 0)[0]
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
