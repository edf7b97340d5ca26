"""A protocol of energy sweeps that is killed again and again, whatever it is doing: no cube twice, none missing, the dose counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from archive_fixtures import connected
from ffi_support import dose_of, simulated_electrode, start, state_of
from tiled.queries import SpecsQuery

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(400)]
KILLS = 6


def test_killed_at_random_moments_it_is_completed(tmp_path):
    rng = random.Random(7)
    with simulated_electrode(tmp_path) as (simulator, server, options):
        for _ in range(KILLS):
            runs = len(state_of(tmp_path).get("runs", ()))
            process = start(tmp_path, *options)
            while len(state_of(tmp_path).get("runs", ())) == runs:  # until it has begun
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 7.0))
            assert process.poll() is None, process.communicate()[1]
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        last = start(tmp_path, *options)
        _, errors = last.communicate(timeout=200)
        assert last.returncode == 0, errors
        simulator.terminate()  # writes the truth
        state = state_of(tmp_path)
        assert state["complete"]
        assert len(state["runs"]) == KILLS + 1
        repair = ("archive", "repair", str(tmp_path / "archive"), "--frames", str(tmp_path / "frames"))
        subprocess.run(
            [sys.executable, "-m", "xbat_live.cli.main", *repair], check=True, capture_output=True, timeout=120
        )
        numbers: list[int] = []
        with connected(server) as client:
            for run in client.search(SpecsQuery(["BlueskyRun"])).values():
                for stream in {"i0", "foil", "primary"} & set(run):
                    numbers += np.asarray(run[stream]["cube_number"].read()).astype(int).tolist()
    assert sorted(numbers + state["lost"]) == list(range(state["cubes"]))
    assert state["done"]["ocv"] == 2
    assert state["done"]["end A"] == 1
    ours_gy, got_gy = dose_of(tmp_path)
    # cubes that were cut short are counted at the mean of all energies: up to as much as they were asked for, never less
    assert 0.97 < ours_gy / got_gy < 1.5
