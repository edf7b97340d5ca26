"""`xbat analyse motion` on the demonstration's run, as a person does it the next day; judged against the twin's truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from xbat_live.analysis import RunFrames, analyse_motion
from xbat_live.archive import ArchiveError, open_run
from xbat_live.archive.analyses import child

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
PIXEL_UM = 0.03324
PAGE = ROOT / "docs" / "how-to" / "analyse-motion.md"


@pytest.fixture(scope="module")
def arguments(demo_run, demo_client):
    return ["--uri", str(demo_client.context.api_uri), "--archive", str(demo_run.folder / "archive")]


@pytest.fixture(scope="module")
def analysed(arguments, demo_run, demo_client, tmp_path_factory):
    """Folder and printed numbers of one analysis; the session's archive is left as it was."""
    from importlib.util import find_spec

    out = tmp_path_factory.mktemp("analysis") / "figures"
    figures = "--figures" if find_spec("matplotlib") else "--no-figures"
    command = [sys.executable, "-m", "xbat_live.cli.main", "analyse", "motion", demo_run.result["uid"][:8], *arguments]
    done = subprocess.run(
        [*command, "--out", str(out), figures, "--json"],
        cwd=out.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "flow from frame 1" in done.stderr, "progress is told"
    yield out, json.loads(done.stdout)
    kept = child(child(demo_client, "analyses"), demo_run.result["uid"])
    for name in open_run(demo_client).analyses("motion"):
        kept.delete_contents(name, recursive=True, external_only=False)


@pytest.fixture(scope="module")
def stored(analysed, demo_run, demo_client):
    return open_run(demo_client, demo_run.result["uid"]).stored("motion")


def test_drift_and_jitter_are_the_twins(analysed, stored, demo_run, demo_client):
    """What the sample moved against the stage, frame by frame: the stage reading minus the twin's true position."""
    frames = [demo_run.truth[number - 1] for number in stored["path/seq_num"]]
    assert len(frames) >= 8
    true_um = np.array([[f["stage_y_um"] - f["y_um"], f["stage_x_um"] - f["x_um"]] for f in frames])
    error_um = stored["path/displacement_yx_um"] - (true_um - true_um[0])
    assert np.sqrt((error_um**2).mean()) < 0.5 * PIXEL_UM
    _, numbers = analysed
    motion = numbers["motion"]
    drift_um = frames[-1]["drift_y_um"] - frames[0]["drift_y_um"]
    assert motion["net_drift_y_um"] == pytest.approx(drift_um, abs=3 * motion["sigma_net_drift_y_um"])
    assert motion["jitter_sigma_x_um"] > 2 * motion["jitter_sigma_y_um"], "the twin jitters along x"
    assert motion["duration_min"] == pytest.approx(np.ptp(stored["path/time_s"]) / 60)


def test_arrays_stand_beside_the_run_with_units_and_provenance(stored, analysed, demo_run):
    _, numbers = analysed
    assert stored.path == numbers["stored"]
    assert re.fullmatch(rf"analyses/{demo_run.result['uid']}/motion-\d{{8}}T\d{{6}}Z", stored.path)
    assert stored.metadata["analysis_of"] == demo_run.result["uid"]
    assert stored.metadata["complete"]
    assert {"xbat_live", "parameters", "pixel_size_um", "field", "spot", "verdicts"} <= set(stored.metadata)
    assert stored.metadata["motion"] == numbers["motion"]
    assert stored.unit("path/drift_yx_um") == "um"
    np.testing.assert_allclose(
        stored["path/drift_yx_um"] + stored["path/jitter_yx_um"], stored["path/displacement_yx_um"], atol=1e-9
    )
    for first, second in numbers["parameters"]["pairs"]:
        pair = f"pair-{first}-{second}"
        flow, labels = stored[f"{pair}/flow_yx_px"], stored[f"{pair}/cluster"]
        assert flow.shape == (2, *labels.shape)
        assert stored[f"{pair}/difference_od"].shape == labels.shape
        assert set(np.unique(labels)) == {-1, 0, 1, 2, 3, 4}
        assert stored[f"{pair}/box_amplitude_px"].shape[1] == 10
        assert stored[f"{pair}/direction_fraction"].sum() == pytest.approx(1)
    with pytest.raises(ArchiveError, match="has no array 'path/drift'; it has path/"):
        stored["path/drift"]


def test_plain_tiled_reads_it_too(stored, demo_client, demo_run):
    from tiled.client import from_uri

    key = (demo_run.folder / "archive" / "api_key").read_text().strip()
    node = from_uri(f"{demo_client.context.api_uri}metadata/{stored.path}", api_key=key)
    np.testing.assert_array_equal(node["path"]["drift_yx_um"].read(), stored["path/drift_yx_um"])
    node.context.close()


def test_the_run_stays_sound_and_is_still_the_last_run(stored, demo_client, demo_run):
    run = demo_client[demo_run.result["uid"]]
    assert {"primary", "flat", "dark", "analysis", "decision"} <= set(run)
    assert not [name for name in run if name.startswith(("analyses", "motion"))]
    assert run.validate() in (None, True)
    assert [name for name, _ in run.documents()][-1] == "stop"
    assert open_run(demo_client, "last").uid == demo_run.result["uid"]
    assert open_run(demo_client).analyses("motion") == [stored.path.rpartition("/")[2]]


def test_figures_and_numbers_are_in_the_folder(analysed):
    out, numbers = analysed
    assert sorted(str(path) for path in out.iterdir()) == sorted(numbers["files"])
    assert json.loads((out / "motion.json").read_text())["motion"] == numbers["motion"]
    if any(name.endswith(".png") for name in numbers["files"]):
        first, second = numbers["parameters"]["pairs"][0]
        assert (out / f"deformation-{first}-{second}.pdf").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["last"], ["motion.json", "exists", "--force"]),
        (["last", "--out", "new", "--pairs", "1:900"], ["pair 1:900 is out of range", "accepted frames are 1 to"]),
        (["last", "--out", "new", "--pairs", "3-13"], ["'3-13' is no pair", "3:13,13:35"]),
        (
            ["last", "--out", "new", "--field", "Q"],
            ["no accepted frames of field Q", "There are field", "field A, spot 0"],
        ),
        (["deadbeef"], ["no single run 'deadbeef'"]),
    ],
)
def test_errors_say_what_and_what_to_do(changed, told, analysed, arguments, monkeypatch):
    from xbat_live.cli.main import app

    out, _ = analysed
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.chdir(out.parent)
    given = [*changed, *([] if "--out" in changed else ["--out", str(out)])]
    result = CliRunner().invoke(app, ["analyse", "motion", *given, *arguments, "--no-figures"])
    assert result.exit_code == 1, result.output
    for part in told:
        assert part in " ".join(result.stderr.split())
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_missing_frame_file_is_told(demo_run, demo_client, monkeypatch):
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)  # Tiled's client tries for 20 s
    away = demo_run.frame_file.with_suffix(".away")
    frame_file = demo_run.frame_file
    field = RunFrames(open_run(demo_client, demo_run.result["uid"])).select()
    frame_file.rename(away)
    try:
        with pytest.raises(ArchiveError, match="cannot read these frames"):
            analyse_motion(field, [(1, 2)])
    finally:
        away.rename(frame_file)
    assert field.frame(1).ndim == 2


def test_the_page_works_as_written(stored, demo_run, demo_client, capsys):
    """The Python of analyse-motion.md, on the analysis made above."""
    names = {
        "uri": str(demo_client.context.api_uri),
        "api_key": (demo_run.folder / "archive" / "api_key").read_text().strip(),
    }
    (body,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(body, str(PAGE), "exec"), names)
    assert "um" in capsys.readouterr().out
    np.testing.assert_array_equal(names["drift"], stored["path/drift_yx_um"])
    names["run"].catalog.context.close()
