"""Start the simulated beamline: in this process (`run_simulator`) or in one of its own (`SimulatorProcess`)."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .environment import channel_access_environment, require_free_port, server_environment
from .settings import TwinSettings

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1
_LOG_TAIL_LINES = 20


class SimulatorError(RuntimeError):
    """The simulator process did not start."""


def run_simulator(
    settings: TwinSettings,
    *,
    prefix: str,
    port: int,
    work_directory: Path,
    ready_file: Path | None = None,
    parent_pid: int | None = None,
) -> None:
    """Serve the simulated beamline in this process until SIGTERM, SIGINT or a put to ``TWIN:Shutdown``.

    Sets the Channel Access environment of this process. On the way out the shutter closes, the HDF5 file is closed and
    the truth files are written.

    Parameters
    ----------
    settings : TwinSettings
        What is simulated.
    prefix : str
        Prefix of all PVs, e.g. ``XBAT:``.
    port : int
        Channel Access port on 127.0.0.1, TCP and UDP; the next one is used for beacons.
    work_directory : pathlib.Path
        Gets the truth files; made if missing.
    ready_file : pathlib.Path, optional
        Written once Channel Access answers.
    parent_pid : int, optional
        End when this process is no longer the parent.

    Raises
    ------
    PortTakenError
        If the port is in use: a second IOC would otherwise silently take another TCP port.
    """
    require_free_port(port)
    if parent_pid is not None:
        _die_with_parent(parent_pid)
    os.environ.update(channel_access_environment(port) | server_environment())
    work_directory.mkdir(parents=True, exist_ok=True)
    from .iocs.host import serve  # caproto reads the environment on import
    from .played import make_twin

    serve(
        prefix=prefix,
        port=port,
        work_directory=work_directory,
        ready_file=ready_file,
        parent_pid=parent_pid,
        make_twin=lambda: make_twin(settings),
    )


def _die_with_parent(parent_pid: int) -> None:
    """Ask for SIGHUP at the parent's death. It also comes when just the forking thread ends; the host checks."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the event loop handles it
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0) != 0:
        logger.warning("PR_SET_PDEATHSIG failed (errno %d); the parent is polled instead", ctypes.get_errno())
    if os.getppid() != parent_pid:  # it died before the request
        sys.exit(1)


def settings_toml(settings: TwinSettings) -> str:
    """Write settings as TOML that `TwinSettings.load` reads back.

    Parameters
    ----------
    settings : TwinSettings
        Settings; a relative `frames` path is made absolute.

    Returns
    -------
    str
        TOML text.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Path):
        return json.dumps(str(value.absolute()))
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)


class SimulatorProcess:
    """The simulated beamline in a process of its own; a context manager that waits until Channel Access answers.

    The process has its own process group and ends with this one, even if this one is killed.

    Parameters
    ----------
    settings : TwinSettings
        What is simulated.
    prefix : str
        Prefix of all PVs.
    port : int
        Channel Access port on 127.0.0.1.
    work_directory : pathlib.Path
        Gets ``sim.toml``, ``sim.log`` and the truth files; made if missing.
    timeout_s : float
        How long to wait for readiness.
    """

    def __init__(
        self,
        settings: TwinSettings,
        prefix: str,
        port: int,
        work_directory: Path,
        *,
        timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        self.settings, self.prefix, self.port = settings, prefix, port
        self.work_directory = Path(work_directory)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        """Output of the process."""
        return self.work_directory / "sim.log"

    @property
    def pid(self) -> int:
        """Process id.

        Raises
        ------
        RuntimeError
            If the process was not started.
        """
        if self._process is None:
            raise RuntimeError("the simulator was not started; use it as a context manager or call start()")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> SimulatorProcess:
        """Start the process and wait until Channel Access answers.

        Returns
        -------
        SimulatorProcess
            Itself.

        Raises
        ------
        PortTakenError
            If the port is in use.
        SimulatorError
            If the process ended or was not ready in time; the message shows the end of its log.
        """
        require_free_port(self.port)
        self.work_directory.mkdir(parents=True, exist_ok=True)
        settings_file = self.work_directory / "sim.toml"
        settings_file.write_text(settings_toml(self.settings))
        ready_file = self.work_directory / "sim.ready"
        ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "xbat_live.sim", "--prefix", self.prefix, "--port", str(self.port)]
        command += ["--work-directory", str(self.work_directory), "--settings", str(settings_file)]
        command += ["--ready-file", str(ready_file), "--parent-pid", str(os.getpid())]
        root = str(Path(__file__).absolute().parents[2])  # also when the package is only on sys.path
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | channel_access_environment(self.port) | {"PYTHONPATH": os.pathsep.join(paths)}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_ready(ready_file)
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self, ready_file: Path) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while not ready_file.exists():
            if not self.running:
                code = self._process.returncode if self._process is not None else None
                raise SimulatorError(f"the simulator ended with code {code}; {self.log_file} says:\n{self._log_tail()}")
            if time.monotonic() > deadline_s:
                raise SimulatorError(
                    f"the simulator is not ready after {self._timeout_s:g} s; {self.log_file} says:\n{self._log_tail()}"
                )
            time.sleep(0.01)

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(nothing)"

    def terminate(self) -> int:
        """Ask for a clean end (truth flushed, files closed) and wait; kill after 10 s.

        Returns
        -------
        int
            Exit code, 0 if clean.
        """
        if self._process is None:
            return 0
        if self.running:
            self._process.terminate()
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            logger.warning(
                "the simulator (pid %d) did not end within %g s; killing it", self._process.pid, _STOP_TIMEOUT_S
            )
            return self.kill()

    def kill(self) -> int:
        """End the process at once (SIGKILL).

        Returns
        -------
        int
            Exit code.
        """
        if self._process is None:
            return 0
        if self.running:
            self._process.kill()
        return self._process.wait()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the process ends by itself.

        Parameters
        ----------
        timeout_s : float, optional
            Raise `subprocess.TimeoutExpired` after so long.

        Returns
        -------
        int
            Exit code.
        """
        return 0 if self._process is None else self._process.wait(timeout_s)

    def __enter__(self) -> SimulatorProcess:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Terminate."""
        self.terminate()
