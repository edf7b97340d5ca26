"""The guard process against a real IOC: what it has in the ledger is what the twin's own dose integral says."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbat_live.config import ExperimentConfig, load_config
from xbat_live.dose import Ledger, LedgerError
from xbat_live.dose_setup import make_account
from xbat_live.sim.environment import free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings
from xbat_live.watchdog import GuardProcess, start_guard

pytestmark = pytest.mark.system
Client = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["Client"]

EXPERIMENT = """
[sample]
name = "{sample}"
size = ["60 um", "60 um"]
[beam]
flux = "1e10 ph/s"
ring_reference = "500 mA"
[dose]
limit = "{limit}"
sigma = 0.0
[beamline.channel_access]
port = {port}
"""
STILL = {
    "sensor_yx": (96, 128),
    "sample_size_um": (60.0, 60.0),
    "vibration_probability": 0.0,
    "jitter_um_yx": (0.0, 0.0),
    "backlash_um": 0.0,
    "drift_um_per_min_yx": (0.0, 0.0),
    "beam_drift_um": 0.0,
}
# An acquisition reduced to what the ledger sees of it: reserve, open, and then nothing more.
ACQUISITION = """
import os, sys, time
from pathlib import Path
from xbat_live.config import load_config
from xbat_live.dose import ExposureRequest
from xbat_live.dose_setup import open_account
config = load_config(Path(sys.argv[1]))
os.environ.update(config.beamline.channel_access.environment())
import epics
pv = {name: epics.PV("XBAT:SH:" + name) for name in ("Cmd", "OpenTime_RBV", "MaxOpen")}
for one in pv.values():
    one.wait_for_connection(10)
with open_account(config) as account:
    request = ExposureRequest(0.0, 0.0, 8562.0, float(sys.argv[2]), 1.02e10, run_uid="killed")
    account.reserve(request, counter_s=pv["OpenTime_RBV"].get(use_monitor=False))
    pv["MaxOpen"].put(float(sys.argv[3]), wait=True)
    pv["Cmd"].put("Open", wait=True)
    print("open", flush=True)
    time.sleep(60)
"""


@dataclass
class Bench:
    """A simulated beamline, a client of it, and an experiment."""

    folder: Path
    simulator: SimulatorProcess
    client: Any
    config: ExperimentConfig
    file: Path
    before_gy: np.ndarray | float = 0.0
    openings_before: int = 0
    counter_before_s: float = 0.0

    def open_time_s(self) -> float:
        """Shutter-open time of this test by the shutter."""
        return self.client.get("SH:OpenTime_RBV") - self.counter_before_s

    @contextlib.contextmanager
    def guarded(self, parent_pid: int | None = None) -> Iterator[GuardProcess]:
        """A guard that watches, and has heard of the shutter."""
        guard = start_guard(self.config, parent_pid)
        try:
            assert guard.wait_ready(30), guard.note
            if guard.state == "watching":
                self.wait_for_log("by its counter")
            yield guard
        finally:
            guard.stop()
            if guard.running:
                os.kill(guard.pid, signal.SIGKILL)

    def ledger_gy(self) -> float:
        """Largest dose by the ledger, as anybody would read it."""
        with Ledger.for_sample(self.folder / "ledger", self.config.sample.name, read_only=True) as ledger:
            return float(make_account(self.config, ledger).dose_map().dose_gy.max())

    def records(self, kind: str) -> list[Any]:
        try:
            with Ledger.for_sample(self.folder / "ledger", self.config.sample.name, read_only=True) as ledger:
                return [record.entry for record in ledger.records() if record.entry.kind == kind]
        except LedgerError:
            return []

    def truth(self) -> np.ndarray:
        self.client.put("TRUTH:Flush", 1)
        with np.load(self.simulator.work_directory / "truth_dose.npz") as truth:
            return truth["dose_gy"]

    def twin_gy(self) -> float:
        """Largest dose by the twin, of this test."""
        return float((self.truth() - self.before_gy).max())

    def opened(self) -> int:
        return self.client.get("SH:OpenCount_RBV") - self.openings_before

    def log(self) -> str:
        file = self.folder / "xbat-guard.log"
        return file.read_text() if file.exists() else ""

    def wait_for(self, condition, what: str, timeout_s: float = 20) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"{what}: not after {timeout_s} s\n{self.log()}"
            time.sleep(0.05)

    def wait_for_log(self, text: str) -> None:
        self.wait_for(lambda: text in self.log(), f"log says {text!r}")

    def open_for(self, seconds: float) -> float:
        """Open by hand; return how long it was, by the shutter."""
        before_s = self.open_time_s()
        self.client.put("SH:Cmd", "Open")
        time.sleep(seconds)
        self.client.put("SH:Cmd", "Close")
        return self.open_time_s() - before_s

    def open_time_counted(self) -> float:
        return sum(entry.open_time_s for entry in self.records("unreserved"))

    def wait_until_counted(self) -> None:
        """Wait until the ledger has all that the shutter's counter says."""
        counter_s = self.client.get("SH:OpenTime_RBV")

        def counted() -> bool:
            entries = self.records("unreserved")
            return bool(entries) and entries[-1].counter_s is not None and entries[-1].counter_s >= counter_s - 1e-6

        self.wait_for(counted, f"counted up to {counter_s:.3f} s")


def experiment_file(folder: Path, port: int, limit: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "exp.toml"
    file.write_text(EXPERIMENT.format(port=port, limit=limit, sample="cell"))
    return file


@contextlib.contextmanager
def a_bench(folder: Path, *, limit: str = "100 MGy", **settings: Any) -> Iterator[Bench]:
    """A simulator of its own."""
    with SimulatorProcess(TwinSettings(**STILL | settings), "XBAT:", free_port(), folder / "twin") as simulator:
        file = experiment_file(folder, simulator.port, limit)
        client = Client(simulator.port, "XBAT:")
        try:
            yield Bench(folder, simulator, client, load_config(file), file)
        finally:
            client.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Bench]:
    with a_bench(tmp_path_factory.mktemp("watchdog")) as made:
        yield made


@pytest.fixture
def bench(shared, tmp_path) -> Iterator[Bench]:
    """A sample of its own on the simulator of this module, without faults, shutter closed."""
    client = shared.client
    for name, value in (("SH:Fault", "None"), ("I0:Fault", "None"), ("RING:Fault", "None"), ("SH:MaxOpen", 0.0)):
        client.put(name, value)
    client.put("SH:Cmd", "Close")
    client.put("TXM:X", 0.0)
    file = experiment_file(tmp_path, shared.simulator.port, "100 MGy")
    made = Bench(tmp_path, shared.simulator, client, load_config(file), file)
    made.before_gy, made.openings_before = made.truth(), client.get("SH:OpenCount_RBV")
    made.counter_before_s = client.get("SH:OpenTime_RBV")
    yield made
    client.put("SH:Fault", "None")
    client.put("SH:Cmd", "Close")


def start_acquisition(bench: Bench, open_time_s: float, max_open_s: float) -> subprocess.Popen[str]:
    """Reserve and open in a process of its own; returns when the shutter is open."""
    arguments = [sys.executable, "-c", ACQUISITION, str(bench.file), str(open_time_s), str(max_open_s)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_shutter_opened_by_hand_is_counted(bench):
    """Also one that is opened for a moment only, and when no ledger exists yet; nobody closes it for that."""
    with bench.guarded():
        assert not bench.records("unreserved")
        bench.open_for(1.3)
        bench.wait_until_counted()
        first = bench.ledger_gy()
        assert first == pytest.approx(bench.twin_gy(), rel=0.05)
        bench.client.put("TXM:X", 12.0)
        bench.open_for(0.1)
        bench.wait_until_counted()
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)
        assert bench.records("unreserved")[-1].x_um == pytest.approx(12.0)
        assert bench.opened() == 2
        assert {entry.degraded for entry in bench.records("unreserved")} == {None}
    assert "told to close" not in bench.log()


def test_an_acquisition_killed_in_a_long_exposure(bench):
    """SIGKILL: the guard closes long before the shutter's own watchdog would, and settles what was delivered."""
    process = start_acquisition(bench, open_time_s=30.0, max_open_s=30.0)
    with bench.guarded(process.pid) as guard:
        process.kill()
        process.communicate()
        killed_s = time.monotonic()
        bench.client.eventually("SH:Status", "Closed", text=True)
        assert time.monotonic() - killed_s < 5.0
        bench.wait_for(lambda: bench.records("settle"), "settled")
        (settled,), (reserved,) = bench.records("settle"), bench.records("reserve")
        truth, ledger = bench.twin_gy(), bench.ledger_gy()
        assert 0.97 * truth <= ledger <= 1.05 * truth
        assert settled.open_time_s == pytest.approx(bench.open_time_s(), abs=1e-6)
        assert settled.open_time_s < reserved.open_time_s
        bench.wait_for(lambda: not guard.running, "the guard leaves, its parent is gone")
        assert guard.stop() == 0


def test_a_shutter_open_longer_than_reserved_is_closed_while_the_acquisition_lives(bench):
    process = start_acquisition(bench, open_time_s=1.5, max_open_s=0.0)
    opened_s = time.monotonic()
    try:
        with bench.guarded(process.pid):
            watched_after_s = time.monotonic() - opened_s  # it cannot close what it does not watch yet
            bench.client.eventually("SH:Status", "Closed", text=True)
            assert 1.7 <= bench.open_time_s() < max(1.5, watched_after_s) + 2.0
            bench.wait_for_log("1.50 s were reserved")
            assert not bench.records("settle")  # that is for the acquisition, which lives
            process.kill()
            bench.wait_for(lambda: bench.records("settle"), "settled")
            assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)
    finally:
        process.kill()
        process.communicate()


def test_a_shutter_that_sticks_open_keeps_counting_and_is_closed_when_it_can_be(bench):
    process = start_acquisition(bench, open_time_s=20.0, max_open_s=0.0)
    bench.client.put("SH:Fault", "Stuck")
    with bench.guarded(process.pid):
        process.kill()
        process.communicate()
        bench.wait_for_log("does not close")
        bench.wait_for(lambda: len(bench.records("unreserved")) >= 2, "counted while it sticks")
        assert bench.client.get("SH:Status", text=True) == "Open"
        bench.client.put("SH:Fault", "None")
        bench.client.eventually("SH:Status", "Closed", text=True)
        bench.wait_until_counted()
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)


def test_an_unknown_shutter_counts_as_open(bench):
    """Its limit switches are lost while it is closed: nobody can know that, so the time counts."""
    with bench.guarded():
        bench.client.put("SH:Fault", "Unknown")
        started_s = time.monotonic()
        bench.wait_for(lambda: bench.open_time_counted() > 0.9, "counted")
        bench.wait_for_log("its position is unknown")
        bench.client.put("SH:Fault", "None")
        unknown_s = time.monotonic() - started_s
        time.sleep(0.5)
        counted_s = bench.open_time_counted()
        assert 0.9 <= counted_s <= unknown_s + 0.5
        opened_s = bench.open_for(0.5)
        assert opened_s >= 0.45
        bench.wait_until_counted()
        assert bench.open_time_counted() == pytest.approx(counted_s + opened_s, abs=0.2)


def test_dead_ion_chamber_is_replaced_by_the_ring_current(bench):
    with bench.guarded():
        bench.client.put("I0:Fault", "Dead")
        time.sleep(0.3)
        bench.open_for(1.2)
        bench.wait_until_counted()
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)
        assert {entry.degraded for entry in bench.records("unreserved")} == {"ring current"}


def test_ring_trip_and_refill_during_an_opening(bench):
    with bench.guarded():
        bench.client.put("SH:Cmd", "Open")
        time.sleep(0.9)
        bench.client.put("RING:Fault", "Trip")
        time.sleep(1.5)
        bench.client.put("RING:Fault", "None")
        time.sleep(0.9)
        bench.client.put("SH:Cmd", "Close")
        bench.wait_until_counted()
        assert bench.open_time_s() > 3.2
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.1)
        assert bench.ledger_gy() >= 0.98 * bench.twin_gy()


def test_top_up_during_an_opening(tmp_path):
    """A ring that loses 30 % in 1.2 s and is filled up every 1.2 s."""
    with a_bench(tmp_path, ring_lifetime_h=3.6 / 3600, ring_top_up_min=1.2 / 60) as bench, bench.guarded():
        bench.open_for(3.0)
        bench.wait_until_counted()
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)


def test_a_hand_opening_is_ended_at_the_limit(tmp_path):
    with a_bench(tmp_path, limit="400 kGy") as bench, bench.guarded():
        time.sleep(0.5)  # so that it knows its limits
        bench.client.put("SH:Cmd", "Open")
        bench.client.eventually("SH:Status", "Closed", text=True)
        bench.wait_until_counted()
        assert 250e3 < bench.twin_gy() <= 400e3
        assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)
        bench.wait_for_log("a limit would be exceeded")
        bench.client.put("SH:Cmd", "Open")  # again: there is next to nothing left
        bench.client.eventually("SH:Status", "Closed", text=True)
        assert bench.twin_gy() <= 400e3 * 1.05


def test_ioc_killed_and_restarted_with_the_shutter_open(tmp_path):
    """Until it is heard of again the shutter counts as open; the guard lives on and counts what follows."""
    with a_bench(tmp_path) as bench, bench.guarded():
        bench.client.put("SH:Cmd", "Open")
        time.sleep(0.6)
        bench.simulator.kill()
        dead_s = time.monotonic()
        bench.wait_for_log("not heard of")
        time.sleep(1.5)
        assert bench.open_time_counted() > 1.0
        bench.simulator.start()
        back_s = time.monotonic()
        bench.wait_for_log("heard of again")
        bench.client.eventually("SH:Status", "Closed", text=True)
        time.sleep(1.0)
        counted_s = bench.open_time_counted()
        assert 0.6 + back_s - dead_s - 0.5 <= counted_s <= 0.6 + time.monotonic() - dead_s
        opened_s = bench.open_for(0.5)
        assert opened_s >= 0.45
        bench.wait_until_counted()
        assert bench.open_time_counted() == pytest.approx(counted_s + opened_s, abs=0.2)
        assert bench.ledger_gy() >= bench.twin_gy()


def test_opening_while_no_guard_watched_is_counted_at_its_start(bench):
    with bench.guarded():
        bench.open_for(0.5)
        bench.wait_until_counted()
    bench.open_for(0.7)
    verb = "import typer; from xbat_live.cli.guard import guard; typer.run(guard)"
    command = [sys.executable, "-c", verb, str(bench.file), "--once", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in events] == ["watching", "heard", "counted", "leaving"]
    assert bench.ledger_gy() == pytest.approx(bench.twin_gy(), rel=0.05)


def test_one_guard_per_sample_and_the_next_run_takes_over(bench):
    """Two runs one after the other, the first one killed: there is always one guard, never two."""
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    first = start_guard(bench.config, parent.pid, wait_s=30)
    assert first.state == "watching"
    with bench.guarded() as second:
        assert second.state == "standby"
        assert str(first.pid) in second.note
        parent.kill()
        parent.wait()
        bench.wait_for(lambda: not first.running, "the first guard leaves")
        assert first.stop() == 0
        bench.wait_for(lambda: bench.log().count("by its counter") == 2, "the second guard watches")
        bench.open_for(0.3)
        bench.wait_until_counted()
        assert bench.open_time_counted() == pytest.approx(0.3, abs=0.15)
        second.stop()
        assert not second.running


def test_guard_asked_to_end_says_when_the_shutter_is_open(bench):
    with bench.guarded() as guard:
        bench.client.put("SH:Cmd", "Open")
        time.sleep(0.7)
        assert guard.stop() == 0
        assert "counts as OPEN, and nobody watches it now" in bench.log()
        assert bench.client.get("SH:Status", text=True) == "Open"
        assert bench.open_time_counted() > 0.5
        bench.client.put("SH:Cmd", "Close")
