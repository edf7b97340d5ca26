"""Starts the guard process of a run: detached, so that it outlives the run however that ends."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from xbat_live.config import ExperimentConfig
from xbat_live.watchdog.report import LOG_FILE

logger = logging.getLogger(__name__)

SMALL = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Environment that keeps the process small: it computes next to nothing."""
READY_S = 5.0
STOP_S = 5.0


class GuardProcess:
    """A guard that was started by this process; a context manager that ends it in order.

    Attributes
    ----------
    state
        ``starting``; ``watching``; ``standby`` (another run's guard watches still, this one takes over from it); ``other``
        (a guard that stays watches this sample already); ``failed``.
    note
        What it said, in words.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready_fd: int) -> None:
        self._process, self._ready_fd = process, ready_fd
        self._heard = b""
        self.state, self.note = "starting", ""

    @property
    def pid(self) -> int:
        """Process id of the guard that was started."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether that process lives."""
        return self._process.poll() is None

    def wait_ready(self, timeout_s: float = READY_S) -> bool:
        """Wait until a guard watches; False when it does not after `timeout_s`, or has failed."""
        deadline_s = time.monotonic() + timeout_s
        while self.state == "starting":
            left_s = max(deadline_s - time.monotonic(), 0.0)
            readable, _, _ = select.select([self._ready_fd], [], [], left_s)
            if not readable:
                return False
            piece = os.read(self._ready_fd, 4096)
            self._heard += piece
            if not piece:
                self.state, self.note = "failed", f"the guard ended at its start; {LOG_FILE} says why"
            elif self._heard.endswith(b"\n"):
                said: dict[str, Any] = json.loads(self._heard)
                self.state, self.note = str(said["state"]), str(said["note"])
        return self.state != "failed"

    def stop(self, timeout_s: float = STOP_S) -> int | None:
        """Ask the guard to end in order and wait; it writes down what it knows.

        Returns
        -------
        int or None
            Its exit code; None when it goes on after `timeout_s`: it is left alone, it ends by itself.
        """
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("the guard (pid %d) goes on; it ends by itself", self.pid)
            code = None
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1
        return code

    def __enter__(self) -> GuardProcess:
        """Return the guard."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()


def start_guard(config: ExperimentConfig, parent_pid: int | None = None, *, wait_s: float = 0.0) -> GuardProcess:
    """Start the guard of a run in a process and session of its own.

    It survives this process, however that ends, and then leaves by itself when the shutter is closed and everything is
    settled. Only one guard watches a sample: one that stays is left to it, that of an earlier run is taken over from.

    Parameters
    ----------
    config
        The experiment; what the guard needs of it is written beside the ledger, as ``SAMPLE.guard.json``.
    parent_pid
        Process whose end it waits for; None: this one.
    wait_s
        Wait so long until it watches, s; `GuardProcess.wait_ready` does it later.

    Raises
    ------
    OSError
        It cannot be started, or the folder of the ledger cannot be written.
    """
    from xbat_live.watchdog.config_file import write_config

    folder = config.path(config.dose.ledger_directory)
    file = write_config(config, folder / f"{config.sample.name}.guard.json")
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", "xbat_live.watchdog", str(file)]
    command += ["--parent", str(os.getpid() if parent_pid is None else parent_pid), "--ready-fd", str(write_fd)]
    root = str(Path(__file__).absolute().parents[2])  # also when the package is only on sys.path
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with (config.path(LOG_FILE)).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                pass_fds=(write_fd,),
                cwd=folder,
                env=os.environ | SMALL | {"PYTHONPATH": os.pathsep.join(paths)},
            )
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    guard = GuardProcess(process, read_fd)
    if wait_s > 0:
        guard.wait_ready(wait_s)
    return guard
