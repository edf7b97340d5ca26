"""Drift feedback against the twin's true position, with an upright, a turned and a mirrored camera. A sign error cannot pass here."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from faults_support import experiment

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


PERIOD_S, TIME_SCALE = 0.5, 120.0  # a point per minute of twin time
STILL: dict[str, Any] = {
    "time_scale": TIME_SCALE,
    "vibration_probability": 0.0,
    "jitter_um_yx": (0.0, 0.02),
    "backlash_um": 0.0,
    "beam_drift_um": 0.0,
    "drift_um_per_min_yx": (-0.04, 0.10),  # y, x: um per point
}
N_POINTS = 14
HELD_UM = 0.3

CLIENT = """
import json, sys
from pathlib import Path
from xbat_live.config import load_config
from xbat_live.devices import configure_channel_access
config = load_config(Path(sys.argv[1]), json.loads(sys.argv[2]))
configure_channel_access(config.beamline.channel_access.environment())
from xbat_live.session import open_session

with open_session(config) as session:
    decisions, streams = [], {}
    def listen(name, doc):
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        if name == "event" and streams[doc["descriptor"]] == "decision":
            data = doc["data"]
            decisions.append([data["decision_action"], data["decision_reason"], json.loads(data["decision_inputs"])])
    session.run_engine.subscribe(listen)
    result = session.run_engine(session.plan()).plan_result
    print(json.dumps({
        "decisions": decisions, "outcome": result.outcome, "frames": result.frames, "corrections": result.corrections,
        "open_time_s": session.beamline.shutter.open_time_s.get(use_monitor=False),
        "ledger_gy": session.guard.account.dose_at(0.0, 0.0).peak_gy,
    }))
"""


@dataclass
class Run:
    """What a client told, and the truth of its sample frames, each (n, 2) as (x, y), um."""

    told: dict[str, Any]
    position_um: np.ndarray
    stage_um: np.ndarray
    drift_um: np.ndarray

    def inputs(self, action: str) -> list[dict[str, Any]]:
        return [inputs for name, _, inputs in self.told["decisions"] if name == action]


class Bench:
    """Runs plans on one simulator, each in a process of its own."""

    def __init__(self, simulated) -> None:
        self.simulated = simulated
        self.seen = 0
        simulated.write(limit="100 MGy", n_points=N_POINTS)
        text = simulated.file.read_text().replace('period = "0.2 s"', f'period = "{PERIOD_S} s"')
        simulated.file.write_text(text.replace("[plan]", '[plan]\nfields = [["0 um", "0 um"]]'))
        (simulated.folder / "client.py").write_text(CLIENT)

    def run(self, **changes: Any) -> Run:
        overrides = {name.replace("__", "."): value for name, value in changes.items()}
        done = subprocess.run(
            [
                sys.executable,
                str(self.simulated.folder / "client.py"),
                str(self.simulated.file),
                json.dumps(overrides),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert self.simulated.pv("SH:Status") == "Closed"
        self.simulated.put("TRUTH:Flush", 1)
        lines = (self.simulated.folder / "twin" / "truth.jsonl").read_text().splitlines()
        frames = [json.loads(line) for line in lines[self.seen :]]
        self.seen = len(lines)
        frames = [frame for frame in frames if frame["frame_type"] == "Normal"]

        def both(name: str) -> np.ndarray:
            return np.array([[frame[name.format("x")], frame[name.format("y")]] for frame in frames])

        told = json.loads(done.stdout.splitlines()[-1])
        assert told["frames"] == len(frames)
        return Run(told, both("{}_um"), both("stage_{}_um"), both("drift_{}_um"))


def excursion_um(run: Run) -> float:
    """Farthest that the true position was from where the run began, um."""
    return float(np.hypot(*(run.position_um - run.position_um[0]).T).max())


def assert_held(run: Run) -> None:
    """The stage moved with the drift, so that the sample stayed in place: both from the twin's truth."""
    drifted = run.drift_um[-1] - run.drift_um[0]
    moved = run.stage_um[-1] - run.stage_um[0]
    assert np.hypot(*drifted) > 3 * HELD_UM  # without feedback the test would fail
    assert (moved * drifted > 0).all(), "a stage that follows the drift moves the way the sample drifts"
    assert moved == pytest.approx(drifted, abs=HELD_UM)
    assert excursion_um(run) < HELD_UM
    assert run.told["corrections"] >= 5
    assert not run.inputs("stop_correcting")


def test_an_upright_camera_holds_the_true_position(tmp_path):
    with experiment(tmp_path, **STILL) as simulated:
        assert_held(Bench(simulated).run())


def test_a_camera_turned_by_90_degrees_holds_the_true_position(tmp_path):
    # The matrix is not symmetric: transposed it is that of a camera turned the other way, a sign error in both axes.
    with experiment(tmp_path, **(STILL | {"image_orientation": "rotate_90"})) as simulated:
        assert_held(Bench(simulated).run(**{"camera.image_to_stage": [[0.0, -1.0], [1.0, 0.0]]}))


def test_a_mirrored_camera_is_stopped_then_calibrated_then_holds(tmp_path):
    with experiment(tmp_path, **(STILL | {"image_orientation": "flip_x"})) as simulated:
        bench = Bench(simulated)

        # configured as upright: corrections in x make it worse, are stopped, undone, and do not come back
        wrong = bench.run()
        (stopped,) = wrong.inputs("stop_correcting")
        assert abs(stopped["undone_x_um"]) > 0.5
        assert wrong.told["outcome"] == "completed"
        assert HELD_UM < excursion_um(wrong) < 5.0
        assert np.abs(wrong.stage_um[-1]) == pytest.approx([0.0, 0.0], abs=0.01)

        # measured: mirrored in x, and the dose of the frames is in the ledger
        calibrated = bench.run(plan__name="calibrate_stage")
        (decision,) = calibrated.inputs("calibrate")
        assert decision["determinant"] < -3 * decision["determinant_sigma"]
        assert decision["orientation"] == "mirrored in x"
        assert np.array(decision["fitted"]) == pytest.approx(np.diag([-1.0, 1.0]), abs=0.1)
        # 11 moves; on a loaded machine an exposure may lack light, which is seen and taken again
        assert calibrated.told["frames"] >= decision["frames"] >= 11
        assert calibrated.told["ledger_gy"] > wrong.told["ledger_gy"]
        line = calibrated.told["outcome"].partition("[camera] ")[2]

        # configured as measured: the sign is right in both axes
        assert_held(bench.run(**{"camera.image_to_stage": tomllib.loads(line)["image_to_stage"]}))
