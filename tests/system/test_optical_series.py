"""The reflection microscope end to end: `xbat run` on the simulator, judged against its truth; no beam, no ledger."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from xbat_process import xbat

from xbat_live.dose import Ledger
from xbat_live.sim.environment import free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(120)]

PIXEL_UM = 0.56
N_POINTS = 40
EXPERIMENT = """
[sample]
name = "graphite"
[beam]
flux = "1e10 ph/s"
[dose]
limit = "1 MGy"
lead_time = "200 ms"
[optical]
pixel_size = "0.56 um"
exposure = "20 ms"
roi = [166, 170, 180, 300]
directory = "optical"
[plan]
name = "optical_series"
n_points = {n_points}
period = "0.1 s"
max_retakes = 1
[[protocol]]
mode = "galvanostatic"
c_rate = "C/20"
[beamline.channel_access]
port = {port}
"""
# one point every minute of the cell, as Sun et al.; more vibration, so that some is seen
TWIN = TwinSettings(time_scale=600.0, optical_vibration_probability=0.2)


@dataclass
class Run:
    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.done.stdout.splitlines()[-1])

    @property
    def truth(self) -> list[dict[str, Any]]:
        """Truth of the sample's frames, in the order taken."""
        lines = (self.folder / "twin" / "truth_optical.jsonl").read_text().splitlines()
        return [frame for frame in map(json.loads, lines) if frame["sample_index"] >= 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("optical")
    (folder / "exp.toml").write_text(EXPERIMENT.format(n_points=N_POINTS, port=(port := free_port())))
    with SimulatorProcess(TWIN, "XBAT:", port, folder / "twin"):
        process = xbat("run", str(folder / "exp.toml"), "--json")
        try:
            output, errors = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return Run(folder, subprocess.CompletedProcess("xbat run", process.returncode, output, errors))


@pytest.fixture(scope="module")
def archived(run):
    """The run as the archive holds it."""
    from tiled.client import from_uri

    from xbat_live.archive import TiledServer

    with TiledServer(run.folder / "archive", readable_storage=[run.folder / "optical"]) as server:
        server.wait_ready(timeout_s=60)
        client = from_uri(server.uri, api_key=server.api_key)
        yield client[run.result["uid"]]
        client.context.close()


def test_it_ends_well_with_the_cell_cycled(run):
    result = run.result
    assert (result["exit_status"], result["outcome"]) == ("success", "completed")
    assert (result["flats"], result["darks"]) == (8, 5)
    assert result["points"] == N_POINTS
    assert result["frames"] == N_POINTS + result["retakes"]
    assert run.truth[-1]["soc_mean"] > run.truth[0]["soc_mean"] + 0.02


def test_no_beam_and_no_reservation(run):
    assert run.result["shutter"] == "Closed"
    assert json.loads((run.folder / "twin" / "truth.jsonl").read_text() or "null") is None  # no X-ray frame at all
    with np.load(run.folder / "twin" / "truth_dose.npz") as truth:
        assert truth["dose_gy"].max() == 0
    with Ledger.for_sample(run.folder / "ledger", "graphite", read_only=True) as ledger:
        kinds = {record.entry.kind for record in ledger.records()}
    assert kinds <= {"note"}


def test_blurred_frames_are_rejected_and_retaken_and_sharp_ones_are_not(archived, run):
    accepted = archived["analysis"].read()["analysis_accepted"].values.astype(bool)
    blurred = np.array([frame["blurred"] for frame in run.truth])
    assert blurred.any()
    assert not accepted[blurred].any()
    assert accepted[~blurred].mean() >= 0.95
    assert run.result["retakes"] >= blurred.sum() / 2


def test_references_were_used(archived):
    """Flats and darks reached the analysis: no verdict states a fallback."""
    reasons = " ".join(archived["analysis"].read()["analysis_reason"].values.tolist())
    assert "no flat" not in reasons
    assert "no dark" not in reasons


def test_registered_shifts_are_right(archived, run):
    """Root mean square over accepted frames within 0.1 px, per axis, against the true way over the sample."""
    analysis = archived["analysis"].read()
    accepted = analysis["analysis_accepted"].values.astype(bool)
    shift_px = np.stack([analysis[f"analysis_shift_{axis}_px"].values for axis in "yx"], axis=1)[accepted]
    place_um = np.array([(frame["y_um"], frame["x_um"]) for frame in run.truth])[accepted]
    true_px = -(place_um - place_um[0]) / PIXEL_UM
    assert np.ptp(true_px[:, 0]) > 0.5  # there was something to register
    error = shift_px - true_px
    assert np.sqrt((error**2).mean(axis=0)).max() <= 0.1


def test_the_truth_file_is_documented(run):
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "simulator.md"
    table = page.read_text().partition("`truth_optical.jsonl`")[2].partition("`truth_dose.npz`")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(run.truth[0])


def test_frames_are_in_the_archive(archived, run):
    (file,) = (run.folder / "optical").glob("*.h5")
    for stream, dataset in (("primary", "data"), ("flat", "flat"), ("dark", "dark")):
        with h5py.File(file) as frames:
            on_disk = frames[f"/entry/data/{dataset}"][:]
        served = archived[stream]["optical_image"].read()
        np.testing.assert_array_equal(served.reshape(on_disk.shape), on_disk)
    assert on_disk.shape[1:] == (180, 300)


def test_the_start_document_says_what_it_was(archived):
    start = archived.metadata["start"]
    assert (start["plan_name"], start["pixel_size_um"]) == ("optical_series", PIXEL_UM)
    assert start["detectors"] == ["optical"]
    assert "dose" not in start
    assert set(archived) == {"primary", "flat", "dark", "analysis", "decision", "operator"}
