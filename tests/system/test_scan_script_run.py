"""A scan script of SSRL beamline 6-2c runs against the simulated IOCs: order, energies, exposures, references out of the beam."""

from __future__ import annotations

import json

import h5py
import pytest
from faults_support import experiment
from scripts import scan_script
from typer.testing import CliRunner

from xbat_live.cli.main import app

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(180)]


def test_a_short_script_runs_against_the_iocs(tmp_path):
    script = tmp_path / "scan-script_XANES.txt"
    text = scan_script([8320.0, 8345.0], frames=2, references=2, exposure_s=0.05, reference_exposure_s=0.03)
    script.write_text(text)
    with experiment(tmp_path, vibration_probability=0.0, time_scale=1.0) as bench:
        like = bench.write()
        like.rename(tmp_path / "like.toml")
        arguments = [
            "import",
            str(script),
            "--like",
            str(tmp_path / "like.toml"),
            "-o",
            str(bench.file),
            "--reference",
            "-250 um",
            "0 um",
        ]
        made = CliRunner().invoke(app, arguments)
        assert made.exit_code == 0, made.output
        done = bench.run(timeout_s=120)
        assert done.returncode == 0, done.stderr
        assert bench.pv("SH:Status") == "Closed"
        assert float(bench.pv("MONO:Energy.RBV")) == pytest.approx(8345)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["points"], result["frames"], result["flats"]) == (2, 4, 4)
    assert result["outcome"] == "completed"
    (file,) = (tmp_path / "frames").glob("*.h5")
    with h5py.File(file) as frames:
        kinds = frames["entry/instrument/NDAttributes/FrameType"][:].tolist()
        counts = {name: frames[f"entry/data/{name}"][:].mean() for name in ("data", "flat", "dark")}
    dark, flat, sample = 1, 2, 0
    assert kinds == [dark] * 5 + [flat] * 2 + [sample] * 4 + [flat] * 2, "the script's order"
    # 8 % tolerance: noise of the beam; the sample takes at least that much light away
    assert (counts["flat"] - counts["dark"]) / 0.03 > 1.08 * (counts["data"] - counts["dark"]) / 0.05
