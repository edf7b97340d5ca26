"""A simulated beamline and an experiment on it, in a folder of their own; clients run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbat_live.dose import Ledger, LedgerError
from xbat_live.sim.environment import channel_access_environment, free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings

# Several simulators and tests share two cores: with the default of 60 ms an exposure now and then loses light and is taken again.
LEAD_TIME = "200 ms"
EXPERIMENT = """
[sample]
name = "fault-cell"
[beam]
flux = "1e10 ph/s"
[camera]
exposure = "{exposure}"
roi = [185, 173, 654, 678]
[dose]
limit = "{limit}"
lead_time = "{lead_time}"
[plan]
n_points = {n_points}
period = "0.2 s"
n_darks = 1
flat_time_to_live = "1 h"
[beamline.channel_access]
port = {port}
[archive]
enabled = {archive}
[live]
enabled = false
"""


@dataclass
class Experiment:
    """An experiment file on a running simulator."""

    folder: Path
    simulator: SimulatorProcess

    @property
    def file(self) -> Path:
        return self.folder / "exp.toml"

    def write(
        self, *, exposure="48 ms", limit="100 MGy", n_points=1000, archive=False, more="", lead_time=LEAD_TIME
    ) -> Path:
        text = EXPERIMENT.format(
            exposure=exposure,
            limit=limit,
            lead_time=lead_time,
            n_points=n_points,
            port=self.simulator.port,
            archive=str(archive).lower(),
        )
        self.file.write_text(text + more)
        return self.file

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start ``xbat run`` on the file."""
        return subprocess.Popen(
            [sys.executable, "-m", "xbat_live.cli.main", "run", str(self.file), "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONFAULTHANDLER": "1"} | (env or {}),
        )

    def run(
        self, *arguments: str, timeout_s: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``xbat run`` to its end."""
        process = self.start(*arguments, env=env)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def pv(self, name: str) -> str:
        """Read a PV below the prefix, from a process of its own."""
        code = f"import epics; print(epics.caget({self.simulator.prefix + name!r}, as_string=True, timeout=5))"
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | channel_access_environment(self.simulator.port),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return answer.stdout.strip()

    def put(self, name: str, value: Any) -> None:
        """Write a PV below the prefix, from a process of its own."""
        code = f"import epics; assert epics.caput({self.simulator.prefix + name!r}, {value!r}, wait=True, timeout=10)"
        environment = os.environ | channel_access_environment(self.simulator.port)
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=30, check=True)

    def counts(self) -> dict[str, int]:
        """Number of ledger records by kind."""
        counts: dict[str, int] = {}
        with Ledger.for_sample(self.folder / "ledger", "fault-cell", read_only=True) as ledger:
            for record in ledger.records():
                kind = record.entry.kind
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def wait_for_exposures(self, n: int, process: subprocess.Popen[str] | None = None) -> None:
        """Wait until `n` exposures were settled."""

        def enough() -> bool:
            assert process is None or process.poll() is None, process.communicate()
            try:
                return self.counts().get("settle", 0) >= n
            except LedgerError:  # not there yet, or just being made
                return False

        wait_until(enough, 60)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll until `condition` holds."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.05)


@contextmanager
def experiment(folder: Path, **settings: Any) -> Iterator[Experiment]:
    """Yield an experiment on a simulator that ends with the block."""
    twin = TwinSettings(**({"time_scale": 600.0} | settings))
    with SimulatorProcess(twin, "XBAT:", free_port(), folder / "twin") as simulator:
        yield Experiment(folder, simulator)
