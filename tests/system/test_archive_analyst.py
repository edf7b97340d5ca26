"""The day after, from another process: an analyst with only Tiled's address and key; `xbat serve` and the profile it writes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]


def analyst(script, **environment):
    """Run Python in a process of its own, away from any folder of the experiment; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ONE_LINE_EACH = """
import json, sys
import numpy as np
import xbat_live as xb

run = xb.open("last")
frames = run.frames(accepted=True, aligned=True, normalised=True)
verdicts = run.analysis()
decisions = run.decisions()
dose = run.dose_map("NMC622")
cell = run.electrochemistry()

one = frames.isel(frame=[0, -1]).values
print(json.dumps({
    "uid": run.uid,
    "frames": frames.shape,
    "finite": float(np.isfinite(one[0]).mean()),
    "typical": float(np.nanmedian(one[0])),
    "verdicts": verdicts["analysis_accepted"].tolist(),
    "relocations": int((decisions["decision_action"] == "relocate").sum()),
    "peak_gy": float(dose.max()),
    "dose_units": dose.units,
    "highest_of_frames_gy": float(run.frames().dose_gy.max()),
    "same_times": bool((cell.sel(frame=frames.frame).time == frames.time).all()),
    "voltage": [float(cell.voltage_v.min()), float(cell.voltage_v.max()), cell.voltage_v.units],
    "soc_rises": bool(np.diff(cell.state_of_charge[[0, -1]])[0] > 0),
    "through_tiled": bool((run.frame_stack(direct=False)[0] == run.frame_stack()[0]).all()),
}))
"""


def test_everything_in_one_line_each(demo_run, demo_client):
    key = (demo_run.folder / "archive" / "api_key").read_text().strip()
    told = analyst(ONE_LINE_EACH, XBAT_ARCHIVE__URI=str(demo_client.context.api_uri), XBAT_ARCHIVE__API_KEY=key)
    assert told["uid"] == demo_run.result["uid"]
    assert told["frames"][0] == sum(told["verdicts"])
    assert len(told["verdicts"]) == len(demo_run.truth)
    assert told["finite"] == 1, "the first frame is not moved"
    assert 0.05 < told["typical"] < 3, "an optical density"
    assert told["relocations"] == demo_run.result["relocations"]
    assert told["peak_gy"] == pytest.approx(demo_run.true_dose_gy.max(), rel=0.15)
    assert told["peak_gy"] >= told["highest_of_frames_gy"] * 0.999, "fields overlap; no frame saw more than there is"
    assert told["dose_units"] == "Gy"
    assert told["same_times"]
    assert 2.8 <= told["voltage"][0] < told["voltage"][1] <= 4.9
    assert told["voltage"][2] == "V"
    assert told["soc_rises"]
    assert told["through_tiled"]


def test_the_demo_is_listed_with_its_dose_and_outcome(demo_run, demo_client):
    key = (demo_run.folder / "archive" / "api_key").read_text().strip()
    command = [sys.executable, "-m", "xbat_live.cli.main", "ls", "--since", "1 d", "--min-dose", "10 kGy", "--json"]
    environment = {"XBAT_ARCHIVE__URI": str(demo_client.context.api_uri), "XBAT_ARCHIVE__API_KEY": key}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=60)
    (told,) = [run for run in json.loads(done.stdout) if run["uid"] == demo_run.result["uid"]]
    assert told["sample"] == "demo-electrode"
    assert told["frames"] == len(demo_run.truth)
    assert told["rejected"] == sum(n for name, n in demo_run.result["verdicts"].items() if name != "accepted")
    assert told["relocations"] == demo_run.result["relocations"]
    assert told["outcome"] == demo_run.result["outcome"]
    wrong = subprocess.run(
        command, env=os.environ | environment | {"XBAT_ARCHIVE__API_KEY": "wrong"}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "refuses the API key" in wrong.stderr


BY_PROFILE = """
import json
from tiled.client import from_profile
client = from_profile("xbat")
client.create_container(key="mine")
print(json.dumps([str(client.context.api_uri), len(client)]))
"""


def test_served_in_the_foreground_with_a_profile_and_without_the_key_in_sight(tmp_path):
    profiles, archive = tmp_path / "profiles", tmp_path / "archive"
    (tmp_path / "frames").mkdir()
    environment = {"PYTHONPATH": str(ROOT), "TILED_PROFILES": str(profiles), "PYTHONDONTWRITEBYTECODE": ""}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "xbat_live.cli.main", "serve", str(archive), "--port", "0"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        lines = []
        try:
            for line in server.stdout:
                lines.append(line)
                if line.startswith("Ctrl-C"):
                    break
            key = (archive / "api_key").read_text().strip()
            uri, entries = analyst(BY_PROFILE, TILED_PROFILES=str(profiles))
        finally:
            server.send_signal(signal.SIGINT)
            lines.append(server.communicate(timeout=30)[0])
    told = "".join(lines)
    assert server.returncode == 0, told
    assert uri.rstrip("/") in told
    assert entries == 1
    assert key not in told
    assert key not in (archive / "tiled.log").read_text()
    for file in (archive / "api_key", profiles / "xbat.yml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "127.0.0.1" in uri, "loopback, unless told otherwise"
