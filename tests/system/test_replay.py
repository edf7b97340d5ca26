"""`xbat replay` on the demonstration's run: by documents and against IOCs; and on frames of which nothing else is known."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from xbat_live.archive import TiledServer, connect

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "replay.md"
SSRL = Path(os.environ.get("XBAT_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "txm-ssrl-6-2c"
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(400)]


def replayed(*arguments, cwd=None, timeout_s=240):
    """Run `xbat replay`; return exit code, report (None without) and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "xbat_live.cli.main", "replay", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    report = json.loads(done.stdout) if done.stdout.startswith("{") else None
    return done.returncode, report, done.stdout + done.stderr


def digest(run):
    """The sample's records, whatever SQLite does to its file when it is read."""
    import sqlite3

    (file,) = (run.folder / "ledger").glob("*.sqlite")
    with sqlite3.connect(file) as ledger:
        return hashlib.sha256(repr(ledger.execute("SELECT * FROM records").fetchall()).encode()).hexdigest()


def test_a_replay_against_iocs_decides_as_the_run_did(demo_run):
    before = digest(demo_run)
    code, report, said = replayed(demo_run.result["uid"], "--archive", demo_run.folder / "archive", "--json")
    assert code == 0, said
    assert report["agrees"]
    assert report["counts"]["same"] == len(demo_run.result["decisions"])
    assert report["counts"]["different"] == report["counts"]["new"] == report["counts"]["missing"] == 0
    assert report["same_verdicts"] == demo_run.result["frames"]
    assert set(report["served"]) == {"recorded"}
    assert digest(demo_run) == before


def test_a_replay_of_documents_with_half_the_limit_says_where_it_would_have_relocated(demo_run):
    (command,) = (
        line for line in PAGE.read_text().splitlines() if "--documents --set" in line and line.startswith("xbat")
    )
    before = digest(demo_run)
    code, report, said = replayed(*shlex.split(command)[2:], "--archive", demo_run.folder / "archive", "--json")
    assert code == 1, said
    assert not report["agrees"]
    first = next(item for item in report["decisions"] if item["action"] == "relocate" and item["replayed"])
    assert first["replayed"]["threshold"] == 60e3
    assert first["replayed"]["inputs"]["would_be"] > 60e3
    taken = first["replayed"]["frame"]
    assert report["would_have"][0].startswith(f"would have relocated at frame {taken + 1}")
    assert report["first_stand_in"] == taken + 1  # before that every picture is a recorded one
    assert digest(demo_run) == before
    with TiledServer(demo_run.folder / "archive", readable_storage=[demo_run.folder / "frames"]) as server:
        server.wait_ready(timeout_s=90)
        client = connect(server.uri, server.api_key)
        stored = client[report["stored"]]
        decisions = stored["decision"].base["internal"].read()
        from xbat_live.archive import open_run

        assert stored.metadata["start"]["analysis_of"] == demo_run.result["uid"]
        assert "relocate" in set(decisions["decision_action"])
        assert set(decisions["decision_status"]) <= {"same", "different", "new"}
        assert len(stored["analysis"].base["internal"].read()) >= taken
        assert open_run(client, "last").uid == demo_run.result["uid"]  # a replay is no measurement
        client.context.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "dose.limits_gy=1 MGy"], r"dose\.limits_gy: unknown key; did you mean"),
        (["--set", "dose.limit=1 mm"], "not convertible to Gy"),
    ],
)
def test_a_wrong_key_or_unit_is_refused(demo_run, arguments, told):
    code, _, said = replayed("last", "--documents", *arguments, "--archive", demo_run.folder / "archive")
    assert code == 2
    assert re.search(told, said)
    assert "Traceback" not in said


def write_stack(folder, *, flats=2, samples=3):
    """TIFF frames of a texture, and references."""
    rng = np.random.default_rng(5)
    scene = rng.normal(0.0, 1.0, (96, 128))
    for _ in range(3):
        scene = (scene + np.roll(scene, 1, 0) + np.roll(scene, 1, 1) + np.roll(scene, -1, 0)) / 4
    folder.mkdir()
    light = 4000.0
    for number in range(flats):
        tifffile.imwrite(folder / f"a_ref_{number:03d}.tif", rng.poisson(light, scene.shape).astype(np.uint16))
    for number in range(samples):
        frame = rng.poisson(light * np.exp(-0.5 - 0.4 * scene / scene.std()))
        tifffile.imwrite(folder / f"b_{number:03d}.tif", np.minimum(frame, 65535).astype(np.uint16))


def test_frames_alone_are_replayed(tmp_path):
    write_stack(tmp_path / "recorded")
    code, report, said = replayed("recorded/", "--documents", "--json", cwd=tmp_path)
    assert code == 0, said
    assert report["frames"] == 3
    assert [item["action"] for item in report["decisions"]][:: len(report["decisions"]) - 1] == ["start", "end"]
    assert any("no flux" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("empty/", lambda folder: folder.mkdir(), "no frames"),
        ("gone.tif", lambda path: None, "no such file"),
        ("samples/", lambda folder: write_stack(folder, flats=0), "no reference frames"),
    ],
)
def test_frames_that_cannot_be_replayed_are_refused(tmp_path, name, make, told):
    make(tmp_path / name)
    code, _, said = replayed(name, "--documents", cwd=tmp_path)
    assert code == 2
    assert told in said
    assert "Traceback" not in said


@pytest.mark.skipif(not SSRL.is_dir(), reason=f"real frames not found in {SSRL} (set XBAT_SHARED_DATA)")
def test_real_frames_of_ssrl_are_replayed():
    code, report, said = replayed(SSRL, "--documents", "--json")
    assert code == 0, said
    assert report["frames"] == 6
    assert report["plan_name"] == "xanes_series"
