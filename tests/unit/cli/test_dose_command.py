"""``xbat dose``: what it says of a ledger is what the account says; reading never disturbs a run; nothing is written by accident."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from xbat_live.cli.dose_report import writer_of
from xbat_live.cli.main import app
from xbat_live.config import load_config
from xbat_live.dose import DoseTarget, ExposureRequest, Ledger
from xbat_live.dose_setup import make_account

EXPERIMENT = """
[sample]
name = "cell-7"
[beam]
flux = "1e10 ph/s"
[dose]
limit = "1 MGy"
rate_limit = "500 kGy/s"
[[dose.limits]]
preset = "electrolyte_radiolysis"
[[dose.limits]]
name = "mean rate"
rate = "2 kGy/s"
window = "10 min"
"""


def xbat(*arguments: str, **options):
    environment = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["dose", *map(str, arguments)], env=environment, **options)


def exposure(x_um, y_um, **changes):
    values = {
        "energy_ev": 8562.0,
        "open_time_s": 0.05,
        "flux_ph_s": 1e10,
        "run_uid": "run-aaaa-bbbb",
        "label": "primary A",
    }
    return ExposureRequest(x_um, y_um, **values | changes)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my-cell.toml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def config(file):
    return load_config(file)


@pytest.fixture
def ledger_path(tmp_path):
    return tmp_path / "ledger" / "cell-7.sqlite"


@pytest.fixture
def used(config, ledger_path):
    """Eight frames at one spot, three at another, one degraded, a note, and one reservation that nobody settled."""
    with Ledger(ledger_path) as ledger:
        account = make_account(config, ledger)
        for x_um, n in ((0.0, 8), (50.0, 3)):
            for number in range(n):
                reservation = account.reserve(exposure(x_um, 0.0))
                degraded = "ring current" if (x_um, number) == (50.0, 2) else ""
                account.settle(reservation.id, open_time_s=0.05, flux_ph_s=1e10, degraded=degraded)
        account.note("mounted upside down")
        account.reserve(exposure(-50.0, 0.0))
    return ledger_path


def read_account(config, path):
    ledger = Ledger(path, read_only=True)
    return make_account(config, ledger), ledger


# --- show --------------------------------------------------------------------------------------------------------------


def test_show_agrees_with_the_account(file, config, used):
    report = json.loads(xbat("show", file, "--json").stdout)
    account, ledger = read_account(config, used)
    with ledger:
        for item in report["materials"]:
            dose = account.dose_map(DoseTarget(item["layer"], item["material"])).dose_gy
            assert item["peak_gy"] == pytest.approx(dose.max())
            dosed = dose[dose > 0.01 * dose.max()]
            assert item["percentile_gy"] == pytest.approx(np.percentile(dosed, 99.9))
            assert item["mean_gy"] == pytest.approx(dosed.mean())
            assert item["dosed_area_um2"] == pytest.approx(dosed.size)
        assert len(report["materials"]) == len(account.targets) == 2
        assert report["unsettled"][0]["seq"] == account.unsettled[0]


def test_show_tells_the_share_of_every_limit(file, used):
    report = json.loads(xbat("show", file, "--json").stdout)
    limits = {limit["name"]: limit for limit in report["limits"]}
    assert set(limits) == {"dose limit", "dose rate limit", "electrolyte_radiolysis", "mean rate"}
    peak_gy = report["materials"][0]["peak_gy"]
    assert limits["dose limit"]["reached"] == pytest.approx(1.1 * peak_gy)  # 2 sigma of 5 % are kept free
    assert limits["dose limit"]["fraction"] == pytest.approx(1.1 * peak_gy / 1e6)
    assert limits["dose rate limit"]["reached"] == pytest.approx(1.1 * peak_gy / 8 / 0.05, rel=1e-3)
    assert limits["mean rate"]["reached"] == pytest.approx(
        1.1 * peak_gy / 600, rel=1e-3
    )  # all of it in the last 10 min
    (electrolyte,) = [item for item in report["materials"] if item["material"] == "electrolyte"]
    assert limits["electrolyte_radiolysis"]["reached"] == pytest.approx(1.1 * electrolyte["peak_gy"])


def test_show_lists_spots_the_most_dosed_first(file, used):
    spots = json.loads(xbat("show", file, "--json").stdout)["spots"]
    assert [(spot["x_um"], spot["exposures"]) for spot in spots] == [(0.0, 8), (50.0, 3)]
    assert spots[0]["dose_gy"] > spots[1]["dose_gy"] > 0
    assert [spot["open_time_s"] for spot in spots] == pytest.approx([0.4, 0.15])


def test_show_for_people_fits_80_columns(file, used):
    result = xbat("show", file)
    assert result.exit_code == 0, result.output
    table = [line for line in result.stdout.splitlines() if not line.startswith("ledger")]  # a path is not broken
    assert max(map(len, table)) <= 80
    for part in [
        "NMC622 in cathode",
        "electrolyte_radiolysis *",
        "mean rate over 600 s",
        "open reservations",
        "ring current",
    ]:
        assert part in result.stdout
    assert "mounted upside down" in result.stdout
    assert re.search(r"dose limit +1 MGy +[\d.]+ kGy +\d+ %", result.stdout)
    assert "\x1b" not in result.output  # no colour codes in a pipe


def test_show_without_the_experiment_file(file, config, used):
    alone = json.loads(xbat("show", "--ledger", used, "--json").stdout)
    with_file = json.loads(xbat("show", file, "--json").stdout)
    assert alone["materials"][0]["peak_gy"] == pytest.approx(with_file["materials"][0]["peak_gy"], rel=1e-9)
    assert {item["material"] for item in alone["materials"]} == {item["material"] for item in with_file["materials"]}
    assert alone["limits"] == []
    assert "limits: unknown" in xbat("show", "--ledger", used).stdout


def test_show_of_a_ledger_that_was_only_begun(file, config, ledger_path):
    with Ledger(ledger_path) as ledger:
        make_account(config, ledger)
    result = xbat("show", file)
    assert result.exit_code == 0, result.output
    assert "no dose on the sample" in result.stdout
    assert "open reservations (they count in full): none" in result.stdout


def test_last_shows_so_many_records(file, used):
    assert [r["kind"] for r in json.loads(xbat("show", file, "--json", "--last", "2").stdout)["last"]] == [
        "reserve",
        "note",
    ]


@pytest.fixture
def writer(used):
    """Another process that holds the ledger, as a run does, and writes when told."""
    code = (
        "import sys\nfrom xbat_live.dose import Entry, Ledger\n"
        f"with Ledger({str(used)!r}) as ledger:\n"
        "    print('ready', flush=True)\n"
        "    for line in sys.stdin:\n        ledger.append(Entry('note', note=line.strip())); print('done', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_show_works_while_a_run_is_writing_and_names_it(file, used, writer):
    writer.stdin.write("during the run\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "done\n"
    result = xbat("show", file)
    assert result.exit_code == 0, result.output
    assert "during the run" in result.stdout
    if writer_of(used) is not None:  # /proc/locks is there
        assert f"process {writer.pid} is writing" in result.stdout


def test_nobody_writes_when_nobody_writes(used):
    assert writer_of(used) is None


# --- export ------------------------------------------------------------------------------------------------------------


def test_all_records_as_csv(file, used, tmp_path):
    out = tmp_path / "records.csv"
    result = xbat("export", out, file)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    with Ledger(used, read_only=True) as ledger:
        records = list(ledger.records())
    assert [int(row["seq"]) for row in rows] == [record.seq for record in records]
    assert [row["kind"] for row in rows] == [record.entry.kind for record in records]
    assert float(rows[0]["open_time_s"]) == 0.05
    assert rows[22]["note"] == "mounted upside down"


@pytest.mark.parametrize("by", ["experiment", "ledger"])
def test_maps_for_numpy(file, config, used, tmp_path, by):
    out = tmp_path / "dose.npz"
    result = xbat("export", out, *([file] if by == "experiment" else ["--ledger", used]))
    assert result.exit_code == 0, result.output
    account, ledger = read_account(config, used)
    with ledger, np.load(out) as saved:
        dose_map = account.dose_map()
        dose, x_um, y_um = saved["dose_gy_cathode_NMC622"], saved["x_um"], saved["y_um"]
        assert dose.max() == pytest.approx(dose_map.dose_gy.max())
        row, column = np.unravel_index(dose.argmax(), dose.shape)
        assert abs(x_um[column]) < 25
        assert abs(y_um[row]) < 25
        assert json.loads(str(saved["description"]))["model"] == "attenuation"


def test_maps_as_nexus(file, config, used, tmp_path):
    out = tmp_path / "dose.h5"
    assert xbat("export", out, file).exit_code == 0
    account, ledger = read_account(config, used)
    with ledger, h5py.File(out) as saved:
        group = saved[saved.attrs["default"]]
        group = group[group.attrs["default"]]  # the chain a NeXus reader follows
        assert group.attrs["NX_class"] == "NXdata"
        data = group[group.attrs["signal"]]
        assert data.attrs["units"] == "Gy"
        assert (group.attrs["material"], group.attrs["model"]) == ("NMC622", "attenuation")
        np.testing.assert_array_equal(data[:], account.dose_map().dose_gy)
        for axis, length in zip(group.attrs["axes"], data.shape, strict=True):
            assert group[axis].shape == (length,)
            assert group[axis].attrs["units"] == "um"
        assert json.loads(saved["entry/process/stack"][()])["layers"]
        assert saved["entry/sample/name"][()] == b"cell-7"
        assert saved["entry/peak_rate/data"].attrs["units"] == "Gy/s"


def test_export_of_an_empty_ledger(file, config, ledger_path, tmp_path):
    with Ledger(ledger_path) as ledger:
        make_account(config, ledger)
    for name in ("dose.h5", "dose.npz", "records.csv"):
        result = xbat("export", tmp_path / name, file)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["records.csv", "dose.npz", "dose.h5"])
def test_export_overwrites_only_when_told(file, used, tmp_path, name):
    out = tmp_path / name
    out.write_text("mine")
    refused = xbat("export", out, file)
    assert refused.exit_code == 2
    assert str(out) in refused.stderr
    assert "--force" in refused.stderr
    assert out.read_text() == "mine"
    assert xbat("export", out, file, "--force").exit_code == 0
    assert out.read_bytes() != b"mine"
    assert [path.name for path in tmp_path.glob("*.part")] + [path.name for path in tmp_path.glob(".*.part")] == []


@pytest.mark.parametrize(
    ("name", "told"), [("dose.xlsx", [".xlsx", ".csv, .npz, .h5"]), ("none/dose.h5", ["no folder", "none"])]
)
def test_export_to_nowhere_is_told(file, used, tmp_path, name, told):
    result = xbat("export", tmp_path / name, file)
    assert result.exit_code == 2
    for part in told:
        assert part in result.stderr


# --- verify ------------------------------------------------------------------------------------------------------------


def test_a_sound_ledger(file, used):
    result = xbat("verify", file)
    assert (result.exit_code, "sound" in result.stdout, "24 records" in result.stdout) == (0, True, True)
    report = json.loads(xbat("verify", "--ledger", used, "--json").stdout)
    assert (report["records"], report["problems"]) == (24, [])


def test_a_gap_in_the_records_is_a_problem_with_a_remedy(file, used):
    with sqlite3.connect(used) as connection:  # somebody tampered
        connection.execute("DROP TRIGGER records_no_delete")
        connection.execute("DELETE FROM records WHERE seq = 6")
    connection.close()
    result = xbat("verify", file)
    assert result.exit_code == 1
    assert "problem:" in result.stdout
    assert "backup" in result.stderr
    assert json.loads(xbat("verify", file, "--json").stdout)["problems"]


def test_a_damaged_file_is_told_with_a_remedy(file, used):
    content = bytearray(used.read_bytes())
    content[0:16] = b"not a database!!"
    used.write_bytes(content)
    result = xbat("verify", file)
    assert result.exit_code == 1
    assert str(used) in result.stderr
    assert "backup" in result.stderr
    assert "Traceback" not in result.output


# --- note and add ------------------------------------------------------------------------------------------------------


def test_a_note_is_appended(file, used):
    result = xbat("note", "I0 replaced", file)
    assert result.exit_code == 0, result.output
    with Ledger(used, read_only=True) as ledger:
        last = list(ledger.records())[-1]
    assert (last.entry.kind, last.entry.note) == ("note", "I0 replaced")
    assert str(last.seq) in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["note", "too early"], ["add", "--dose", "1 kGy", "--reason", "before", "--yes"]],
    ids=["note", "add"],
)
def test_nothing_is_written_while_a_run_is_writing_and_the_run_is_named(file, used, writer, monkeypatch, arguments):
    monkeypatch.setattr("xbat_live.cli.dose.WAIT_S", 0.0)
    with Ledger(used, read_only=True) as ledger:
        before = len(list(ledger.records()))
    result = xbat(*arguments, file)
    assert result.exit_code == 1
    assert "when the run has ended" in result.stderr
    if writer_of(used) is not None:
        assert f"process {writer.pid}" in result.stderr
    with Ledger(used, read_only=True) as ledger:
        assert len(list(ledger.records())) == before


def test_a_note_makes_no_ledger_for_a_misspelt_sample(file, ledger_path):
    result = xbat("note", "hello", file)
    assert result.exit_code == 2
    assert "no such ledger" in result.stderr
    assert not ledger_path.exists()


def test_an_empty_note_is_refused(file, used):
    assert xbat("note", "  ", file).exit_code == 2


@pytest.mark.parametrize(
    ("at", "size"), [("10 um, -20 um", "50 um, 40 um"), ("10 um -20 um", "0.05 mm 40um"), ("-90 um, 0", "50 um, 40 um")]
)
def test_dose_from_elsewhere_on_a_place(file, config, ledger_path, at, size):
    result = xbat("add", file, "--dose", "120 kGy", "--at", at, "--size", size, "--reason", "alignment", "--yes")
    assert result.exit_code == 0, result.output
    account, ledger = read_account(config, ledger_path)
    with ledger:
        x_um = -90.0 if at.startswith("-90") else 10.0
        dose_map = account.dose_map()
        assert dose_map.dose_gy.max() == pytest.approx(120e3)
        dosed_x = dose_map.x_um[(dose_map.dose_gy > 0).any(axis=0)]
        assert abs(dosed_x.mean() - x_um) <= 1.0
        assert dosed_x.max() - dosed_x.min() == pytest.approx(50.0, abs=1.5)
        (record,) = ledger.records()
        assert (record.entry.kind, record.entry.note) == ("prior", "alignment")


def test_dose_from_elsewhere_on_the_whole_sample_before_the_first_run(file, config, ledger_path):
    result = xbat("add", file, "--dose", "0.4 MGy", "--reason", "diffraction", "--yes")
    assert result.exit_code == 0, result.output
    assert "whole sample" in result.stdout
    assert "400 kGy" in result.stdout
    account, ledger = read_account(config, ledger_path)
    with ledger:
        assert account.dose_at(80.0, -70.0).mean_gy == pytest.approx(400e3)


def test_adding_asks_and_no_means_no(file, ledger_path, monkeypatch):
    monkeypatch.setattr("xbat_live.cli.dose._is_terminal", lambda: True)
    result = xbat("add", file, "--dose", "1 MGy", "--reason", "before", input="n\n")
    assert result.exit_code == 1
    assert "1 MGy in NMC622 on the whole sample of cell-7" in result.output
    assert not ledger_path.exists()
    assert xbat("add", file, "--dose", "1 MGy", "--reason", "before", input="y\n").exit_code == 0
    assert ledger_path.exists()


def test_without_a_terminal_nobody_is_asked(file, ledger_path):
    result = xbat("add", file, "--dose", "1 MGy", "--reason", "before")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert not ledger_path.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--dose", "1.2", "--reason", "r"], ["--dose", "'1.2'", "no unit", "kGy"]),
        (["--dose", "1.2 mm", "--reason", "r"], ["--dose", "Gy"]),
        (["--dose", "-3 kGy", "--reason", "r"], ["--dose", "smallest"]),
        (["--dose", "1 kGy", "--reason", " "], ["--reason"]),
        (["--dose", "1 kGy", "--reason", "r", "--at", "1 um, 2 um"], ["--at", "--size", "together"]),
        (["--dose", "1 kGy", "--reason", "r", "--at", "1 um", "--size", "5 um, 5 um"], ["--at", "pair"]),
        (["--dose", "1 kGy", "--reason", "r", "--at", "1 um, 2 um", "--size", "5, 5"], ["--size", "no unit"]),
        (["--dose", "1 kGy", "--reason", "r", "--material", "gold"], ["gold", "tracked"]),
    ],
)
def test_wrong_options_are_told_with_value_and_remedy(file, ledger_path, options, told):
    result = xbat("add", file, *options, "--yes")
    assert result.exit_code == 2, result.output
    for part in told:
        assert part in result.stderr
    assert "Traceback" not in result.output
    if ledger_path.exists():
        with Ledger(ledger_path, read_only=True) as ledger:
            assert list(ledger.records()) == []


# --- which ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["show"], ["verify"], ["note", "x"], ["export", "out.csv"]])
def test_no_file_and_no_ledger_is_told(verb):
    result = xbat(*verb)
    assert result.exit_code == 2
    assert "--ledger" in result.stderr


def test_a_ledger_given_as_experiment_is_told(used):
    result = xbat("show", used)
    assert result.exit_code == 2
    assert f"--ledger {used}" in result.stderr


@pytest.mark.parametrize("verb", [["show"], ["verify"]])
def test_a_sample_without_a_ledger_is_told(file, verb):
    result = xbat(*verb, file)
    assert result.exit_code == 1
    assert "first run" in result.stderr


# --- the page about it -------------------------------------------------------------------------------------------------


def test_every_command_of_the_page_works_as_written(file, used, tmp_path, monkeypatch):
    page = Path(__file__).parents[3] / "docs" / "how-to" / "keep-the-ledger.md"
    commands = [
        shlex.split(line.partition(" > ")[0], comments=True)
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("xbat dose ")
    ]
    used.rename(used.with_name("NMC622-cell-1.sqlite"))
    file.write_text(file.read_text().replace("cell-7", "NMC622-cell-1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xbat_live.cli.dose._is_terminal", lambda: True)
    for words in commands:
        result = xbat(*words[2:], input="y\n")
        assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
    assert {words[2] for words in commands} == {"show", "export", "verify", "note", "add"}
    assert {"dose.h5", "dose.npz", "records.csv"} <= {path.name for path in tmp_path.iterdir()}
