"""The command line as a newcomer meets it: help with examples that work, a configuration to start from, errors with remedies."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.resources import files

import pytest
import typer
from typer.testing import CliRunner

from xbat_live.cli.main import app

VERBS = [
    "demo",
    "sim",
    "serve",
    "watch",
    "run",
    "ls",
    "doctor",
    "export",
    "import",
    "config init",
    "config show",
    "config schema",
    "config cells",
    "config limits",
    "archive repair",
    "dose show",
    "dose export",
    "dose verify",
    "dose note",
    "dose add",
    "guard",
    "plan",
    "replay",
    "analyse motion",
    "analyse xas",
    "report",
    "status",
    "pause",
    "resume",
    "relocate",
    "skip-spot",
    "limit",
    "note",
    "stop",
    "abort",
]
HEAVY = ("ophyd", "epics", "bluesky", "tiled", "caproto", "numpy", "pandas", "h5py")


def xbat(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"})


def text_of(result) -> str:
    """Output as one line: where rich wraps does not matter."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def parse(command: str) -> None:
    """Parse an ``xbat`` command without running it; raises a click error on an unknown verb or option."""
    name, *arguments = shlex.split(command)
    assert name == "xbat", command
    verb = typer.main.get_command(app)
    context = verb.make_context(name, arguments)
    while hasattr(verb, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, verb, rest = verb.resolve_command(context, rest)
        context = verb.make_context(name, rest, parent=context)


def test_help_names_every_verb_and_where_to_begin():
    result = xbat("--help")
    assert result.exit_code == 0
    text = text_of(result)
    for verb in VERBS:
        assert verb.split()[0] in text
    assert "xbat demo" in text


def test_the_list_of_verbs_is_complete():
    command = typer.main.get_command(app)
    found = []
    for name, verb in command.commands.items():
        found += [f"{name} {inner}" for inner in verb.commands] if hasattr(verb, "commands") else [name]
    assert sorted(found) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_examples_that_parse(verb):
    result = xbat(*verb.split(), "--help")
    assert result.exit_code == 0
    examples = re.search(
        r"Examples?:\s+(xbat .*?)(?= In Python:| In another terminal:| Options | Arguments |$)", text_of(result)
    )
    assert examples, f"no examples in: {result.output}"
    for example in re.split(r"\s\|\s", examples[1]):
        command = example.partition(" > ")[0].strip()
        assert command.startswith(f"xbat {verb}")
        parse(command)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_and_argument_is_explained(verb):
    command = typer.main.get_command(app)
    for name in verb.split():
        command = command.commands[name]
    unexplained = [parameter.name for parameter in command.params if not getattr(parameter, "help", "")]
    assert not unexplained
    assert command.help


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "schema"], ["--version"]])
def test_help_is_quick_because_nothing_heavy_is_imported(arguments):
    code = (
        "import sys\n"
        "from xbat_live.cli.main import app\n"
        f"sys.argv = ['xbat', *{arguments!r}]\n"
        "try:\n    app()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('IMPORTED', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.split() == ["IMPORTED"]


def test_a_wrong_option_is_told_and_ends_with_2():
    result = xbat("run", "experiment.toml", "--jsn")
    assert result.exit_code == 2
    assert "--jsn" in result.output


# --- config ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my-cell.toml"
    assert xbat("config", "init", str(path)).exit_code == 0
    return path


def test_init_writes_a_commented_file_and_says_what_is_next(tmp_path):
    path = tmp_path / "my-cell.toml"
    result = xbat("config", "init", str(path))
    assert result.exit_code == 0
    assert f"xbat doctor {path}" in text_of(result)
    assert path.read_text().count("#") > 5
    assert tomllib.loads(path.read_text())["dose"]["limit"] == "1 MGy"


def test_init_overwrites_only_when_told(file):
    file.write_text("mine")
    refused = xbat("config", "init", str(file))
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert file.read_text() == "mine"
    assert xbat("config", "init", str(file), "--force").exit_code == 0
    assert file.read_text() != "mine"


def test_show_prints_what_will_be_used(file):
    result = xbat("config", "show", str(file), "--set", "dose.limit=500 kGy", "--set", "camera.exposure=10 ms")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["dose"]["limit_gy"] == 500e3
    assert shown["camera"]["exposure_s"] == pytest.approx(0.01)
    assert shown["dose"]["open_time_margin_s"] > 0  # a default


def test_show_keeps_the_key_to_itself(file):
    result = xbat("config", "show", str(file), "--set", "archive.api_key=secret123")
    assert result.exit_code == 0
    assert "secret123" not in result.output


@pytest.mark.parametrize("name", ["experiment.toml", "demo.toml"])
def test_schema_knows_every_key_of_the_files_we_ship(name):
    result = xbat("config", "schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    content = tomllib.loads(files("xbat_live.cli").joinpath(name).read_text())
    for section, keys in content.items():
        described = schema["properties"][section]
        reference = (
            described.get("$ref")
            or described.get("items", {}).get("$ref")
            or next(iter(described.get("allOf", [{}]))).get("$ref")
        )
        if reference:
            known = schema["$defs"][reference.rpartition("/")[2]]["properties"]
            for table in keys if isinstance(keys, list) else [keys]:
                assert set(table) <= set(known)


# --- errors of `xbat run` ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('limit = "1 MGy"', "limit = 1", ["dose.limit", "1", "no unit", "kGy"]),  # nobody can tell Gy from MGy
        ('limit = "1 MGy"', 'limit = "1 mm"', ["dose.limit", "'1 mm'", "Gy", "300 kGy"]),
        ('exposure = "48 ms"', 'exposure = "2 h"', ["camera.exposure", "'2 h'", "600 s"]),  # a slip of the unit
        ('energy = "8562 eV"', 'energy = "8562 keV"', ["beam.energy", "'8562 keV'", "150000 eV"]),
        ('c_rate = "C/12"', 'c_rate = "12 mA"', ["protocol.0.c_rate", "'12 mA'", "C/12"]),
        ('name = "NMC622-cell-1"', "", ["sample.name", "missing", "xbat config init"]),
        ("n_points = 56", "n_pionts = 56", ["plan.n_pionts", "unknown key", "'n_points'"]),
        ('name = "operando_txm_series"', 'name = "tomography"', ["plan.name", "'tomography'", "xanes_series"]),
        ("[sample]", "[sample", ["not valid TOML", "line"]),
    ],
)
def test_a_bad_file_is_told_with_file_key_value_unit_and_remedy(file, old, new, told):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    result = xbat("run", str(file))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    for part in [str(file), *told]:
        assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_all_wrong_keys_are_told_at_once(file):
    file.write_text(
        file.read_text().replace('limit = "1 MGy"', "limit = 1").replace('exposure = "48 ms"', "exposure = 48")
    )
    result = xbat("run", str(file))
    assert result.exit_code == 2
    assert "dose.limit" in result.stderr
    assert "camera.exposure" in result.stderr


def test_a_missing_file_is_told_with_how_to_make_one(tmp_path):
    result = xbat("run", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "no such file" in result.stderr
    assert "xbat config init" in result.stderr


@pytest.mark.parametrize("change", ["dose.limit", "dose.limit:1 MGy"])
def test_a_change_without_a_value_is_told(file, change):
    result = xbat("run", str(file), "--set", change)
    assert result.exit_code == 2
    assert "KEY=VALUE" in text_of(result)


def test_the_command_line_wins_over_the_environment_over_the_file(file, monkeypatch):
    monkeypatch.setenv("XBAT_DOSE__LIMIT", "2 MGy")
    assert json.loads(xbat("config", "show", str(file)).stdout)["dose"]["limit_gy"] == 2e6
    shown = json.loads(xbat("config", "show", str(file), "--set", "dose.limit=3 MGy").stdout)
    assert shown["dose"]["limit_gy"] == 3e6
