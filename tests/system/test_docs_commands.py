"""The documentation against the program: commands parse, examples run, tables name what there is, links lead somewhere."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STREAMS_PAGE, SIMULATOR_PAGE = DOCS / "reference" / "streams.md", DOCS / "reference" / "simulator.md"
EXECUTED = {
    DOCS / "how-to" / "read-results.md",
    DOCS / "how-to" / "guard-your-plan.md",
    DOCS / "how-to" / "steer.md",
    DOCS / "how-to" / "dose-rate-map.md",  # by tests/unit/dose/test_dose_docs.py, with what they print
    DOCS / "explanation" / "dose-model.md",  # likewise
    DOCS / "how-to" / "xas.md",  # by tests/unit/spectra/test_spectra_docs.py, with what it prints
    DOCS / "how-to" / "analyse-motion.md",  # by tests/system/test_analyse_motion.py
    DOCS / "how-to" / "export.md",  # by tests/system/test_exchange.py
    DOCS / "how-to" / "import.md",  # likewise
    DOCS / "how-to" / "use-databroker.md",  # by tests/system/test_databroker.py
}
UsageError = typer.BadParameter.__mro__[1]  # click's, wherever typer keeps click
CHEAP = ("config init", "config show", "config schema", "--help")

system = pytest.mark.system
slow = pytest.mark.timeout(300)


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in one of the languages ("" for none)."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [
        re.sub(f"^{indent}", "", body, flags=re.MULTILINE) for indent, language, body in found if language in languages
    ]


def commands(page: Path) -> list[list[str]]:
    """Return the `xbat` command lines of the page's shell blocks, without `xbat` and comments."""
    lines = [line for body in blocks(page, "", "sh", "bash", "console") for line in body.splitlines()]
    split = [shlex.split(line.partition(" > ")[0], comments=True) for line in lines if "xbat" in line]
    without_environment = [
        words[next(i for i, word in enumerate(words) if "=" not in word) :] for words in split if words
    ]
    return [words[1:] for words in without_environment if words[0] == "xbat"]


def parse(arguments: list[str]) -> None:
    """Parse without running; raises `UsageError` on an unknown verb, option or value."""
    from xbat_live.cli.main import app

    verb, name = typer.main.get_command(app), "xbat"
    context = verb.make_context(name, list(arguments))
    while hasattr(verb, "resolve_command"):
        name, verb, rest = verb.resolve_command(context, [*context._protected_args, *context.args])
        if {"--help", "-h"} & set(rest):
            return
        context = verb.make_context(name, rest, parent=context)


def tables(text: str, *first: str) -> list[list[str]]:
    """Return the rows of the tables whose head begins with the given cells."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif tuple(cells[: len(first)]) == first:
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append(cells)
    return rows


def names(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


# --- all pages ---------------------------------------------------------------------------------------------------------------------


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_commands_parse(page):
    for arguments in commands(page):
        try:
            parse(arguments)
        except UsageError as error:
            pytest.fail(f"xbat {shlex.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_sentences_parse(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for command in re.findall(r"`xbat ([^`]+)`", prose):
        try:
            parse(shlex.split(command))
        except typer.Exit:
            pass  # --help
        except UsageError as error:
            if type(error).__name__ not in (
                "MissingParameter",
                "NoArgsIsHelpError",
            ):  # a verb named without its arguments
                pytest.fail(f"xbat {command}: {error.format_message()}")


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_cheap_commands_run(page, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    xbat = [sys.executable, "-m", "xbat_live.cli.main"]
    subprocess.run(
        [*xbat, "config", "init", "my-cell.toml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    for arguments in commands(page):
        if not shlex.join(arguments).startswith(CHEAP):
            continue
        force = ["--force"] if arguments[:2] == ["config", "init"] else []
        done = subprocess.run(
            [*xbat, *arguments, *force],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        wanted = 2 if "dose.limit=1 mm" in arguments else 0  # the tutorial shows an error on purpose
        assert done.returncode == wanted, f"xbat {shlex.join(arguments)}: {done.stderr}"


def test_all_python_is_executed_by_a_test():
    assert {page for page in PAGES if blocks(page, "python", "py")} <= EXECUTED


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=page_id)
def test_configuration_blocks_are_valid(page):
    from importlib.resources import files

    from xbat_live.config import make_config

    for body in blocks(page, "toml"):
        content = tomllib.loads(files("xbat_live.cli").joinpath("experiment.toml").read_text())
        for section, keys in tomllib.loads(body).items():
            content[section] = content.get(section, {}) | keys
        make_config(content, source=str(page))


# --- streams.md against a real run -------------------------------------------------------------------------------------------------


def documented_keys() -> dict[str, dict[str, str]]:
    """Unit by data key by stream, as the page says."""
    result: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", STREAMS_PAGE.read_text(), flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        for stream in names(heading):
            rows = tables(body, "Key", "Unit", "Meaning")
            result.setdefault(stream, {}).update({names(row[0])[0]: row[1] for row in rows})
    return result


@pytest.fixture(scope="module")
def run(demo_run, demo_client):
    from xbat_live.archive import open_run

    return open_run(demo_client, demo_run.result["uid"])


@system
@slow
def test_every_data_key_is_documented_and_no_other(run):
    documented = documented_keys()
    assert set(documented) == set(run.streams)
    for stream in run.streams:
        data_keys = run.client[stream].metadata["data_keys"]
        units = {name: key.get("units") or "" for name, key in data_keys.items()}
        assert units == documented[stream], f"docs/reference/streams.md, stream {stream}"


@system
@slow
def test_every_documented_key_is_filled(run):
    table = run.analysis().filter(like="analysis_")
    void = {name for name in table.columns if all(value == "" or value != value for value in table[name].tolist())}
    assert not void


@system
@slow
def test_start_document_is_documented(run):
    documented = {
        name
        for row in tables(STREAMS_PAGE.read_text().partition("## Start document")[2], "Key", "Meaning")
        for name in names(row[0])
    }
    assert set(run.start) == documented


@system
@slow
@pytest.mark.parametrize(
    ("head", "key", "table"), [("Action", "decision_action", "decisions"), ("Verdict", "analysis_verdict", "analysis")]
)
def test_actions_and_verdicts_are_documented(run, head, key, table):
    documented = {name for row in tables(STREAMS_PAGE.read_text(), head) for name in names(row[0])}
    assert set(getattr(run, table)()[key]) <= documented


def test_actions_of_the_plans_are_documented():
    source = "".join(path.read_text() for path in (ROOT / "xbat_live" / "plans").glob("*.py"))
    told = r'(?:decide\(\s*series,|\btell\()\s*"(\w+)"'
    used = set(re.findall(told, source)) | {"retake", "keep_rejected"}
    assert used == {name for row in tables(STREAMS_PAGE.read_text(), "Action") for name in names(row[0])}


# --- simulator.md against the code -------------------------------------------------------------------------------------------------


def test_every_pv_of_the_simulator_is_documented():
    from xbat_live.sim.iocs.assembly import SimulatedBeamline
    from xbat_live.sim.settings import TwinSettings
    from xbat_live.sim.twin import Twin

    settings = TwinSettings(sensor_yx=(64, 64))
    beamline = SimulatedBeamline(Twin(settings), prefix="", work_directory=Path(), request_stop=lambda: None)
    served = set(beamline.pvdb)
    beamline.worker.close()
    documented = {name for row in tables(SIMULATOR_PAGE.read_text(), "PV") for name in names(row[0])}
    assert documented - served == set()
    assert {name for name in served if name not in documented and name.removesuffix("_RBV") not in documented} == set()


def test_twin_settings_are_documented_with_their_defaults():
    from xbat_live.sim.settings import TwinSettings

    rows = tables(SIMULATOR_PAGE.read_text(), "Key", "Default", "Meaning")
    fields = {field.name: field.default for field in dataclasses.fields(TwinSettings)}
    assert {name for row in rows for name in names(row[0])} == set(fields)
    for keys, shown, _ in rows:
        values = re.findall(r"\[[^]]*\]|[^,\s][^,]*", shown)
        for name, value in zip(names(keys), values, strict=True):
            default = fields[name]
            if isinstance(default, tuple):
                assert [float(part) for part in value.strip("[]").split(",")] == pytest.approx(
                    list(default), rel=2e-3
                ), name
            elif isinstance(default, int | float):
                assert float(value) == pytest.approx(default), name
            else:
                assert value == ("none" if default is None else str(default)), name


@system
@slow
def test_truth_files_are_documented(demo_run):
    text = SIMULATOR_PAGE.read_text().partition("## Truth files")[2].partition("## Settings")[0]
    in_lines = {name for row in tables(text, "Key") for name in names(row[0])}
    assert in_lines == set(demo_run.truth[0])
    with np.load(demo_run.folder / "twin" / "truth_dose.npz") as truth:
        assert {name for row in tables(text, "Array") for name in names(row[0])} == set(truth.files)


# --- examples run ------------------------------------------------------------------------------------------------------------------


@system
@slow
def test_reading_results_works_as_written(demo_run, demo_client, capsys):
    """All Python of read-results.md, in one go, on the demonstration's run."""
    page = DOCS / "how-to" / "read-results.md"
    names_of = {
        "uri": str(demo_client.context.api_uri),
        "api_key": (demo_run.folder / "archive" / "api_key").read_text().strip(),
        "folder": demo_run.folder,
    }
    for body in blocks(page, "python"):
        exec(compile(body, str(page), "exec"), names_of)
    assert names_of["run"].uid == demo_run.result["uid"]
    assert len(names_of["verdicts"]) == len(demo_run.truth) == len(names_of["frames"])
    assert len(names_of["relocations"]) == demo_run.result["relocations"]
    assert np.isfinite(names_of["first"]).any()
    accepted = names_of["run"].analysis()["analysis_accepted"]
    assert list(names_of["density"].frame) == [number for number, ok in enumerate(accepted, 1) if ok]
    np.testing.assert_array_equal(names_of["frame"], names_of["frames"][-1])
    assert names_of["names"][-1] == "stop"
    assert 0 < names_of["dose"].dose_gy.max() <= 300e3
    names_of["run"].catalog.context.close()
    names_of["catalog"].context.close()
    assert "kGy at" in capsys.readouterr().out


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    from xbat_live.sim.environment import free_port
    from xbat_live.sim.server import SimulatorProcess
    from xbat_live.sim.settings import TwinSettings

    with SimulatorProcess(
        TwinSettings(time_scale=600.0), "XBAT:", free_port(), tmp_path_factory.mktemp("twin")
    ) as simulator:
        yield simulator


@system
@slow
def test_guarding_a_plan_works_as_written(simulator, tmp_path):
    """The how-to on guarding, and with its names the one on steering a plan of one's own."""
    (body,) = blocks(DOCS / "how-to" / "guard-your-plan.md", "python")
    (steered,) = blocks(DOCS / "how-to" / "steer.md", "python")
    names = "beamline, RE, plan = session.beamline, session.run_engine, bp.count([camera, guard.signals], 2)\n"
    body += textwrap.indent(names + steered + "print(steering.phase)\n", "    ")
    (tmp_path / "my-cell.toml").write_text(
        '[sample]\nname = "guarded"\n[beam]\nflux = "1e10 ph/s"\n[dose]\nlimit = "1 MGy"\n'
        f"[camera]\nroi = [0, 0, 256, 256]\n[beamline.channel_access]\nport = {simulator.port}\n"
    )
    script = tmp_path / "plan.py"
    script.write_text(body + "\nprint(len(result.run_start_uids), dose_gy > 0)\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["1", "True"]


@system
@slow
def test_the_tutorials_own_run_works_as_written(simulator, tmp_path):
    """`config init`, `doctor`, `run` of the tutorial, on a simulator at another port and for fewer seconds."""
    steps = [
        words
        for words in commands(DOCS / "tutorial" / "first-run.md")
        if "my-cell.toml" in words and "show" not in words
    ]
    assert [words[0] for words in steps] == ["config", "doctor", "run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for words in steps:
        adapted = [
            word.replace("26064", str(simulator.port)).replace("plan.duration=60 s", "plan.duration=3 s")
            for word in words
        ]
        command = [sys.executable, "-m", "xbat_live.cli.main", *adapted]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"xbat {shlex.join(adapted)}: {done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert list((tmp_path / "frames").glob("*.h5"))
