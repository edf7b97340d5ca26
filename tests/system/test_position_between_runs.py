"""A sample that drifts between two runs: the second one exposes, and books, where the sample really is."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from faults_support import experiment

from xbat_live.dose import Entry, Ledger, SamplePosition, carried_position

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

STILL = {
    "time_scale": 120.0,
    "vibration_probability": 0.0,
    "jitter_um_yx": (0.0, 0.02),
    "backlash_um": 0.0,
    "beam_drift_um": 0.0,
    "drift_um_per_min_yx": (-0.04, 0.10),  # y, x: 12 um per minute of this test
}
BETWEEN_S = 4.0


def truth_of(bench):
    """Position on the sample of every sample frame, (n, 2) as (x, y), um."""
    bench.put("TRUTH:Flush", 1)
    lines = (bench.folder / "twin" / "truth.jsonl").read_text().splitlines()
    frames = [frame for frame in map(json.loads, lines) if frame["frame_type"] == "Normal"]
    return np.array([(frame["x_um"], frame["y_um"]) for frame in frames])


def booked(bench):
    """What the ledger has: the coordinates of the exposures of the sample, (n, 2) as (x, y), um, and their uncertainty, um."""
    with Ledger.for_sample(bench.folder / "ledger", "fault-cell", read_only=True) as ledger:
        entries = [record.entry for record in ledger.records()]
    given = [entry for entry in entries if entry.kind == "settle" and entry.on_sample]
    return np.array([(entry.x_um, entry.y_um) for entry in given]), [entry.position_sigma_um for entry in given]


def test_the_second_run_books_where_the_sample_is_by_then(tmp_path):
    with experiment(tmp_path, **STILL) as bench:
        bench.write(n_points=8)
        text = bench.file.read_text().replace('period = "0.2 s"', 'period = "0.4 s"')
        bench.file.write_text(text.replace("[plan]", '[plan]\nfields = [["0 um", "0 um"]]'))
        first = bench.run(timeout_s=90)
        assert first.returncode == 0, first.stderr
        n_first = len(truth_of(bench))
        time.sleep(BETWEEN_S)
        second = bench.run(timeout_s=90)
        assert second.returncode == 0, second.stderr
        truth, (ledger, sigma_um) = truth_of(bench), booked(bench)
    # where sample coordinates begin is the sample's place at the first frame: all else is told against it
    off_um = ledger - truth - (ledger - truth)[0]
    moved_um = np.linalg.norm(off_um[n_first])
    assert moved_um > 1.0, "the sample must have drifted between the runs for this test to mean anything"
    assert np.abs(off_um[:n_first]).max() < 0.3, "it drifts by 0.2 um in the second between booking and exposure"
    assert np.abs(off_um[n_first + 1 :]).max() < 0.3, "from its first frame on the second run knows"
    assert 0 < sigma_um[-1] < 0.05


def test_the_stage_begins_where_the_last_run_left_the_sample(tmp_path):
    """A rate that was seen for minutes is carried on: the stage is sent to where the sample is by now, not where it was mounted."""
    with experiment(tmp_path, **(STILL | {"time_scale": 1.0, "drift_um_per_min_yx": (0.0, 0.0)})) as bench:
        bench.write(n_points=1)
        ledger_file = bench.folder / "ledger"
        with Ledger.for_sample(ledger_file, "fault-cell") as ledger:
            for _ in range(6):
                ledger.append(
                    Entry(
                        "note", note="as an earlier run left it", drift_x_um=4.0, drift_y_um=-3.0, position_sigma_um=0.1
                    )
                )
            assert carried_position(ledger).last == SamplePosition(4.0, -3.0, 0.1)
        done = bench.run(timeout_s=90)
        assert done.returncode == 0, done.stderr
        truth, (ledger, sigma_um) = truth_of(bench), booked(bench)
    fields = {(round(x), round(y)) for x, y in ledger}
    assert fields == {(0, 0), (30, 0)}, "what was asked for, in sample coordinates"
    assert truth[0] == pytest.approx((4.0, -3.0), abs=0.2), "the twin's sample did not move: the stage did"
    assert sigma_um[0] == pytest.approx(0.1, abs=0.01)
