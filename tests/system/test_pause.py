"""A pause in the middle of an exposure: the shutter closes, nothing is exposed twice behind the ledger's back, nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from faults_support import experiment

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_pause_and_resume(tmp_path):
    with experiment(tmp_path, vibration_probability=0.0) as bench:
        bench.write(exposure="500 ms", n_points=4)
        client = Path(__file__).with_name("pause_client.py")
        done = subprocess.run(
            [sys.executable, str(client), str(bench.file)], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        assert bench.pv("SH:Status") == "Closed"
    result = json.loads(done.stdout.splitlines()[-1])  # bluesky prints "Pausing..." before
    assert result["paused"] == "paused"
    assert result["shutter_in_pause"] == "Closed"
    assert result["exit_status"] == "success"
    # the interrupted frame is kept, judged unfit and retaken: one more frame than fields of view
    assert result["frames"] == len(result["events"]) == 2 * 4 + 1
    assert sum(verdict != "accepted" for verdict in result["verdicts"]) == 1
    # one Event per frame in the file, in order: no exposure without an Event
    (file,) = (tmp_path / "frames").glob("*.h5")
    with h5py.File(file) as frames:
        assert result["events"] == list(range(frames["/entry/data/data"].shape[0]))
    # every second of open shutter is in the ledger
    assert result["unsettled"] == 0
    assert result["open_time_s"] == pytest.approx(result["counter_s"], abs=0.01)
