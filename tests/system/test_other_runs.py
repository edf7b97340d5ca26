"""Other runs on real parts: XANES images, recorded frames, a stock Bluesky plan under the dose guard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from faults_support import experiment
from xbat_process import xbat

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

RECORDED = Path(os.environ.get("XBAT_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "txm-ssrl-6-2c"


def test_xanes_series(tmp_path):
    """Two energies across the Ni K edge: a flat at each, frames of one energy registered against each other."""
    with experiment(tmp_path, vibration_probability=0.0, time_scale=1.0) as bench:
        text = bench.write(n_points=2).read_text()
        text = text.replace(
            "[plan]", '[plan]\nname = "xanes_series"\nenergies = ["8320 eV", "8345 eV"]\nfields = [["0 um", "0 um"]]'
        )
        bench.file.write_text(text)
        done = bench.run(timeout_s=120)
        assert done.returncode == 0, done.stderr
        assert bench.pv("SH:Status") == "Closed"
        assert float(bench.pv("MONO:Energy.RBV")) == pytest.approx(8345)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["frames"], result["flats"], result["verdicts"]) == (4, 4, {"accepted": 4})
    (file,) = (tmp_path / "frames").glob("*.h5")
    with h5py.File(file) as frames:
        data, flat, dark = (frames[f"/entry/data/{name}"][:].astype(float) for name in ("data", "flat", "dark"))
    density = -np.log((data - dark.mean(0)).clip(1) / (flat - dark.mean(0)).clip(1)).mean(axis=(1, 2))
    assert density[1] > 1.2 * density[0]  # nickel absorbs more above its edge
    assert density[3] > 1.2 * density[2]


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded frames at {RECORDED}")
def test_recorded_frames_through_the_whole_loop(tmp_path):
    process = xbat("demo", "--seconds", "15", "--json", "--directory", str(tmp_path), "--frames", str(RECORDED))
    try:
        output, errors = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["exit_status"] == "success"
    assert result["verdicts"]["accepted"] >= 10
    (file,) = Path(result["directory"], "frames").glob("*.h5")
    with h5py.File(file) as frames:
        assert frames["/entry/data/data"].shape[1:] == (1024, 1024)  # as recorded


STOCK_PLAN = """
import json, sys
from pathlib import Path
from xbat_live.config import load_config
from xbat_live.devices import configure_channel_access
config = load_config(Path(sys.argv[1]), {"dose.policy": "halt"})
configure_channel_access(config.beamline.channel_access.environment())
import bluesky.plans as bp
from xbat_live.dose import DoseRefused
from xbat_live.plans import dose_guard_wrapper
from xbat_live.session import open_session
with open_session(config) as session:
    events = []
    session.run_engine.subscribe(lambda name, doc: events.append(doc["seq_num"]), "event")
    plan = bp.scan([session.beamline.camera], session.beamline.stage.x, -1, 1, 50)
    try:
        session.run_engine(dose_guard_wrapper(plan, session.guard, session.beamline))
        refused = ""
    except DoseRefused as refusal:
        refused = str(refusal)
    left = session.guard.account.dose_map().dose_gy.max()
    print(json.dumps({"events": len(events), "refused": refused, "peak_gy": left}))
"""


def test_a_stock_scan_under_the_guard_ends_before_the_exposure_that_would_exceed_the_limit(tmp_path):
    with experiment(tmp_path) as bench:
        bench.write(limit="200 kGy")
        client = tmp_path / "stock.py"
        client.write_text(STOCK_PLAN)
        done = subprocess.run(
            [sys.executable, str(client), str(bench.file)], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        assert bench.pv("SH:Status") == "Closed"
        bench.put("TRUTH:Flush", 1)
        with np.load(tmp_path / "twin" / "truth_dose.npz") as truth:
            assert truth["dose_gy"].max() <= 200e3
    result = json.loads(done.stdout.splitlines()[-1])
    assert "200 kGy" in result["refused"]
    assert 1 <= result["events"] < 50
    assert 100e3 < result["peak_gy"] <= 200e3
