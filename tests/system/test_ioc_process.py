"""Life and death of the simulator process."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from xbat_live.sim.environment import PortTakenError, free_port
from xbat_live.sim.server import SimulatorError, SimulatorProcess
from xbat_live.sim.settings import TwinSettings

pytestmark = pytest.mark.system
running_ioc = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["running_ioc"]
SMALL = TwinSettings(sensor_yx=(64, 64), sample_size_um=(40.0, 40.0))


def alive(pid):
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_dead(pid, timeout_s=20.0):
    deadline_s = time.monotonic() + timeout_s
    while alive(pid):
        assert time.monotonic() < deadline_s, f"process {pid} still lives after {timeout_s} s"
        time.sleep(0.02)


def test_second_start_on_the_port_is_refused_with_a_remedy(tmp_path):
    port = free_port()
    with SimulatorProcess(SMALL, "A:", port, tmp_path / "a") as first:
        with pytest.raises(PortTakenError, match=rf"port {port} is taken.*--port"):
            SimulatorProcess(SMALL, "B:", port, tmp_path / "b").start()
        command = [sys.executable, "-m", "xbat_live.sim", "--port", str(port), "--work-directory", str(tmp_path / "c")]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert refused.returncode == 3
        assert f"port {port} is taken" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert first.running


def test_port_is_free_again_after_the_end(tmp_path):
    port = free_port()
    for _ in range(2):
        with SimulatorProcess(SMALL, "A:", port, tmp_path):
            pass


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "TWIN:Shutdown"])
def test_clean_end_closes_shutter_and_file_and_writes_the_truth(tmp_path, way):
    with running_ioc(tmp_path) as ioc:
        simulator = ioc.simulator
        ioc.put("CAM:HDF1:FilePath", str(tmp_path))
        ioc.put("CAM:HDF1:FileName", "t")
        ioc.put("CAM:HDF1:Capture", 1)
        ioc.put("CAM:cam1:AcquireTime", 0.001)
        ioc.put("CAM:cam1:Acquire", 1)
        ioc.put("SH:Cmd", "Open")
        ioc.put("CAM:cam1:AcquireTime", 60.0)
        ioc.send("TXM:Theta", 170.0)  # ends in the middle of a move
        ioc.send("CAM:cam1:Acquire", 1)  # and of an exposure
        ioc.eventually("CAM:cam1:Acquire_RBV", 1)
        if way.startswith("SIG"):
            os.kill(simulator.pid, getattr(signal, way))
        else:
            ioc.send("TWIN:Shutdown", 1)
        assert simulator.wait(20.0) == 0, simulator.log_file.read_text()
    with h5py.File(tmp_path / "t_000000.h5", "r") as file:  # closed: opens without SWMR
        assert file["/entry/data/data"].shape[0] == 1
    assert (tmp_path / "truth.jsonl").read_text().count("\n") == 1
    assert (tmp_path / "truth_dose.npz").exists()
    assert "Traceback" not in simulator.log_file.read_text()


def test_log_of_a_normal_life_is_short(tmp_path):
    with running_ioc(tmp_path) as ioc:
        ioc.put("TXM:X", 10.0)
        ioc.put("CAM:cam1:Acquire", 1)
    lines = ioc.simulator.log_file.read_text().splitlines()
    assert len(lines) <= 3, lines


PARENT = """
import sys, time
from pathlib import Path
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings
settings = TwinSettings(sensor_yx=(64, 64), sample_size_um=(40.0, 40.0))
simulator = SimulatorProcess(settings, "K:", int(sys.argv[1]), Path(sys.argv[2]))
print(simulator.start().pid, flush=True)
time.sleep(600)
"""


def test_kill_of_the_parent_ends_the_simulator(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PARENT, str(free_port()), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_dead(pid)
    assert (tmp_path / "truth.jsonl").exists()  # and it ended cleanly


def test_end_of_the_starting_thread_does_not_end_the_simulator(tmp_path):
    """Linux sends the parent-death signal at the end of the thread that forked."""
    import threading

    simulator = SimulatorProcess(SMALL, "T:", free_port(), tmp_path)
    thread = threading.Thread(target=simulator.start)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert simulator.running
    assert simulator.terminate() == 0


def test_start_that_fails_shows_the_log(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("xbat_live.sim.server.settings_toml", lambda settings: "seeed = 1\n")
    with pytest.raises(SimulatorError, match="seed"):
        SimulatorProcess(SMALL, "A:", free_port(), tmp_path / "work").start()
