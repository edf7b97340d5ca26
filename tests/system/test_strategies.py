"""Exposure strategies on the simulated beamline: the twin, which knows nothing of the ledger, has got what was meant."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from faults_support import experiment

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(120)]

CLIENT = """
import json, sys
from pathlib import Path
from xbat_live.config import load_config
from xbat_live.devices import configure_channel_access
config = load_config(Path(sys.argv[1]))
configure_channel_access(config.beamline.channel_access.environment())
from xbat_live.dose import next_spot
from xbat_live.plans import strategies, low_rate, fresh_spots
from xbat_live.session import open_session

GRADED = dict(locations_um=((-60.0, 60.0), (0.0, 60.0), (60.0, 60.0)), exposures_s=(0.1, 0.2, 0.8), exposure_s=0.1)

with open_session(config) as session:
    account, decisions, streams = session.guard.account, [], {}
    def listen(name, doc):
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        if name == "event" and streams[doc["descriptor"]] == "decision":
            decisions.append((doc["data"]["decision_action"], json.loads(doc["data"]["decision_inputs"])))
    session.run_engine.subscribe(listen)

    def choose(x_um, y_um):
        return next_spot(account, (x_um, y_um), footprint_um=account.beam.footprint_um, guard_um=5.0, bounds_um=(-100, 100, -100, 100),
                         stage_limits_um=(-1e6, 1e6, -1e6, 1e6), step_um=5.0)

    def run(plan, **options):
        session.beamline.camera.prepare_frames(exposure_s=options["exposure_s"])
        plan = plan(session.beamline, session.guard, session.analysis, choose, n_darks=1, **options)
        result = session.run_engine(plan).plan_result
        return {"outcome": result.outcome, "frames": result.frames}

    told = {
        "graded": run(strategies.graded_exposure, n_points=2, period_s=0.0, **GRADED),
        "attenuated": run(low_rate.attenuated_series, transmission=0.1, n_points=2, period_s=0.0, exposure_s=0.1,
                          spot_um=(-60.0, 0.0), max_retakes=0),
        "fresh": run(fresh_spots.fresh_spots_protocol, spot_um=(0.0, -20.0), n_ocv=1, n_fresh=2, c_rate_per_h=4.0, charge_timeout_s=2.0,
                     hold_s=1.0, guard_um=5.0, exposure_s=0.05),
        "decisions": decisions,
        "transmission": session.beamline.attenuator.transmission.get(use_monitor=False),
        "potentiostat": session.beamline.potentiostat.mode.get(use_monitor=False),
        "ledger_gy": {place: account.dose_at(*map(float, place.split())).peak_gy for place in ("-60 60", "0 60", "60 60", "-60 0")},
        "unsettled": len(account.unsettled),
    }
    print(json.dumps(told))
"""


def test_strategies_give_the_sample_what_was_meant(tmp_path):
    with experiment(tmp_path, vibration_probability=0.0, jitter_um_yx=(0.0, 0.0)) as bench:
        bench.write(limit="100 MGy")
        script = tmp_path / "client.py"
        script.write_text(CLIENT)
        done = subprocess.run(
            [sys.executable, str(script), str(bench.file)], capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        assert bench.pv("SH:Status") == "Closed"
        bench.put("TRUTH:Flush", 1)
        with np.load(tmp_path / "twin" / "truth_dose.npz") as truth:
            dose_gy, x_um, y_um = truth["dose_gy"], truth["x_um"], truth["y_um"]
    told = json.loads(done.stdout.splitlines()[-1])

    def true_gy(place: str) -> float:
        x, y = map(float, place.split())
        near = np.ix_(np.abs(y_um - y) < 12, np.abs(x_um - x) < 12)
        return float(np.median(dose_gy[near]))

    # locations with different exposure: the twin has the ratio of the exposures
    places = ("-60 60", "0 60", "60 60")
    true = [true_gy(place) for place in places]
    assert [value / true[0] for value in true] == pytest.approx([1, 2, 8], rel=0.1)
    assert told["graded"] == {"outcome": "completed", "frames": 2 * (1 + 2 + 8)}
    # a tenth of the beam, a tenth of the dose: two frames of 0.1 s each, as at the first location
    assert told["attenuated"] == {"outcome": "completed", "frames": 2}
    assert true_gy("-60 0") == pytest.approx(0.1 * true[0], rel=0.15)
    assert told["transmission"] == pytest.approx(1.0)
    # the ledger is never below the twin
    for place in (*places, "-60 0"):
        assert told["ledger_gy"][place] >= 0.97 * true_gy(place)
    assert told["unsettled"] == 0
    # fresh spots: dose of every spot told, distances measured, the cell left at open circuit
    assert told["fresh"]["outcome"] == "completed"
    moves = [inputs for action, inputs in told["decisions"] if action == "move"]
    assert len(moves) == 2
    assert all(inputs["clearance_um"] >= 5.0 for inputs in moves)
    last = {inputs["label"]: inputs for action, inputs in told["decisions"] if action == "spot_dose"}
    assert last["A"]["exposures"] == last["B"]["exposures"] == 2
    assert last["C"]["exposures"] >= 4
    for label in "AB":
        assert true_gy(f"{last[label]['x_um']} {last[label]['y_um']}") < true_gy("0 -20")
    assert told["potentiostat"] == "OCV"
