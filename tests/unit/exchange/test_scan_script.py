"""SSRL scan scripts: read as they stand, turned into an experiment that says what became what, forecast in full."""

import json
import os
from pathlib import Path

import pytest
from scripts import scan_info, scan_script
from typer.testing import CliRunner

from xbat_live.cli.main import app
from xbat_live.config import load_config
from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.scan_script import check_scan_info, is_scan_info, is_scan_script, read_scan_script
from xbat_live.exchange.script_experiment import experiment_toml

SHARED = (
    Path(os.environ.get("XBAT_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "txm-ssrl-6-2c"
)
ENERGIES_EV = [8250.0 + 7 * i for i in range(62)]
TEMPLATE = """
[sample]
name = "cell"
[beam]
flux = "1e9 ph/s"
[camera]
exposure = "48 ms"
[dose]
limit = "25 MGy"
[plan]
n_points = 3
[[protocol]]
mode = "ocv"
duration = "1 h"
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "scan-script_XANES.txt"
    path.write_text(scan_script(ENERGIES_EV))
    return path


def xbat(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_script_is_read_as_it_stands(script):
    read = read_scan_script(script)
    assert (len(read.energies_ev), len(read.samples), len(read.references)) == (62, 186, 620)
    assert {shot.exposure_s for shot in read.samples} == {0.5}
    assert {shot.exposure_s for shot in read.references} == {0.3}
    assert {shot.binning for shot in read.exposures} == {2}
    steps = read.steps()
    assert [(step.n, step.is_reference) for step in steps[:4]] == [(10, True), (3, False), (3, False), (10, True)]
    assert [step.energy_ev for step in steps[:4]] == [8250.0, 8250.0, 8257.0, 8257.0]
    assert read.moves["t"] == (6.97,)
    assert len(read.moves["zpz"]) == 62


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sete 8333\nsetexp 0.5\nmoveto x 1\nmoveto y 1\nshutter open\n", r":5: unknown command 'shutter'"),
        ("sete high\n", r":1: sete needs a number, not 'high'"),
        ("setexp -1\n", r":1: setexp -1 must be above 0"),
        ("sete nan\n", r":1: sete needs a number"),
        ("moveto x\n", r":1: moveto needs a motor and a position"),
        ("setexp 1\nmoveto x 1\nmoveto y 1\ncollect a.xrm\n", r":4: collect before the energy is set \(sete\)"),
        ("sete 8333\nmoveto x 1\nmoveto y 1\ncollect a.xrm\n", r":4: collect before the exposure is set"),
        ("sete 8333\nsetexp 1\ncollect a.xrm\n", r":3: collect before the position is set"),
        ("sete 8333\nsetexp 1\nmoveto x 1\nmoveto y 1\ncollect a_ref_1.xrm\n", "no exposure of the sample"),
        ("sete 8333\nsetexp 1\nmoveto x 1\nmoveto y 1\ncollect\n", r":5: collect needs the name of one file"),
    ],
)
def test_what_is_wrong_in_a_script_is_told_with_file_and_line(tmp_path, text, told):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(ExchangeError, match=rf"bad\.txt.*{told.removeprefix(':') if told[0] == ':' else told}"):
        read_scan_script(path)


def test_files_are_told_apart(tmp_path, script):
    info, notes = tmp_path / "ScanInfo.txt", tmp_path / "notes.txt"
    info.write_text(scan_info(script.read_text()))
    notes.write_text("set the cell to 4.2 V\n")
    assert [is_scan_script(path) for path in (script, info, notes)] == [True, False, False]
    assert [is_scan_info(path) for path in (script, info, notes)] == [False, True, False]


def test_a_scan_info_that_differs_is_told(tmp_path, script):
    info = tmp_path / "ScanInfo.txt"
    text = scan_info(script.read_text())
    info.write_text(text)
    assert check_scan_info(read_scan_script(script), info) == []
    info.write_text(text.replace("NEXPOSURES   3", "NEXPOSURES   5", 1) + "rep01_one_more.xrm\n")
    first, second = check_scan_info(read_scan_script(script), info)
    assert "rep01_one_more.xrm is not in the script" in first
    assert "NEXPOSURES is 5, the script takes [3] frames per energy" in second


def test_the_experiment_says_what_became_what(script):
    text, notes = experiment_toml(read_scan_script(script), TEMPLATE)
    told = "\n".join(notes)
    for fact in (
        "stage (0, 0)",
        "13500.2 um away) is stage (250, 0) um",
        "zpz",
        "no such motor here",
        "t 6.97",
        "setbinning 2",
    ):
        assert fact in told
    assert all(f"# {note}" in text for note in notes)
    assert 'exposure = "0.5 s"\n[dose]' in text, "the camera begins with the script's exposure"


def test_sample_positions_become_offsets(tmp_path):
    text = "sete 8333\nsetexp 1\n"
    for x, y in ((100.0, 50.0), (130.0, 50.0), (100.1, 50.0)):
        text += f"moveto x {x}\nmoveto y {y}\ncollect a_{x}.xrm\n"
    path = tmp_path / "script.txt"
    path.write_text(text)
    assert [step.at_um for step in read_scan_script(path).steps()] == [(0.0, 0.0), (30.0, 0.0), (0.0, 0.0)]


def test_the_whole_script_is_forecast(tmp_path, script):
    (tmp_path / "like.toml").write_text(TEMPLATE)
    done = xbat("import", script, "--like", tmp_path / "like.toml", "-o", tmp_path / "scan.toml")
    assert done.exit_code == 0, done.output
    plan = load_config(tmp_path / "scan.toml").plan
    assert (plan.name, len(plan.visited_ev), plan.n_points) == ("scripted_series", 62, 62)
    told = xbat("plan", tmp_path / "scan.toml", "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["points"], found["frames"], found["flats"]) == (62, 186, 620)
    assert found["beam_on_s"] == pytest.approx(186 * 0.5 + 620 * 0.3, rel=0.01)


def test_an_experiment_is_not_overwritten_unasked(tmp_path, script):
    (tmp_path / "scan.toml").write_text("precious")
    done = xbat("import", script, "-o", tmp_path / "scan.toml")
    assert (done.exit_code, (tmp_path / "scan.toml").read_text()) == (2, "precious")
    assert "exists; give --force" in done.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real scan script at {SHARED} (set XBAT_SHARED_DATA)")
def test_the_real_script():
    read = read_scan_script(SHARED / "scan-script_XANES.txt")
    assert (len(read.energies_ev), len(read.samples), len(read.references)) == (62, 186, 620)
    assert (read.energies_ev[0], read.energies_ev[-1]) == (8250.0, 8690.0)
    assert check_scan_info(read, SHARED / "ScanInfo.txt") == []
