"""Errors that people are meant to read: every one that is named exists, and telling one loads nothing that the command did not."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from xbat_live.cli.errors import EXIT_CODES, exit_on_error
from xbat_live.exchange.errors import TargetError


@pytest.mark.parametrize(("package", "name", "code"), EXIT_CODES)
def test_each_named_error_ends_with_its_code(package, name, code, capsys):
    error = getattr(import_module(package), name)
    made = error.__new__(error)
    made.args = ("told with its remedy",)
    with pytest.raises(typer.Exit) as left, exit_on_error():
        raise made
    assert left.value.exit_code == code
    assert capsys.readouterr().err.startswith("xbat: ")


def test_a_subclass_has_the_code_of_the_first_that_fits():
    with pytest.raises(typer.Exit) as left, exit_on_error():
        raise TargetError("a file is there")
    assert left.value.exit_code == 2, "a configuration error before it is one of the archive"


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_error():
        raise ZeroDivisionError


LISTED = """
import json, sys
from typer.testing import CliRunner
from xbat_live.cli.main import app
done = CliRunner().invoke(app, ["ls", "--uri", "http://127.0.0.1:1/api/v1"])
print(json.dumps([done.exit_code, done.output, sorted(set(sys.argv[1:]) & set(sys.modules))]))
"""


def test_listing_runs_loads_neither_the_beamline_nor_the_numerics():
    """Four fifths of the time of `xbat ls` went into libraries that it does not use; of a wrong address, seconds."""
    heavy = [
        "ophyd",
        "epics",
        "bluesky",
        "tiled.client",
        "scipy",
        "numpy",
        "pandas",
        "h5py",
        "httpx",
        "pydantic_settings",
    ]
    done = subprocess.run([sys.executable, "-c", LISTED, *heavy], capture_output=True, text=True, check=True)
    code, told, loaded = json.loads(done.stdout)
    assert (code, loaded) == (1, [])
    assert "no Tiled server answers at http://127.0.0.1:1/api/v1; start it with: xbat serve" in told
