"""``xbat guard``: the watchdog of a sample, in a process of its own."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.config import parse_changes
from xbat_live.cli.errors import exit_on_error


def guard(
    file: Annotated[Path, typer.Argument(help="Experiment file (TOML) of the sample in the beam.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, wins over file and environment.")
    ] = None,
    parent: Annotated[
        int | None, typer.Option(help="End by itself when this process is gone, the shutter closed, all settled.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Settle and count what is open, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per event on standard output.")] = False,
) -> None:
    """Watch the shutter, count every opening, close it when it must not be open. Never opens it.

    Counts a shutter opened by hand, and closes it at the limit; closes one that is open longer than reserved, whose position is
    unknown, or whose acquisition is gone, and settles what that one left. `xbat run` starts a guard by itself; run this one to
    have the sample watched between runs. Ctrl-C ends it. Exit codes: 0 ended as asked, or another guard watches already;
    with --once 1 when the shutter is not known to be closed, or something is unsettled; 2 wrong configuration.

    Examples:  xbat guard my-cell.toml    |    xbat guard my-cell.toml --once    |    xbat guard my-cell.toml --json
    """
    with exit_on_error():
        from xbat_live.config import load_config

        config = load_config(file, parse_changes(changes))
        from xbat_live.watchdog import run_guard

        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.CRITICAL + 1)  # its own lines say it all; the log file has the rest
        raise typer.Exit(run_guard(config, parent_pid=parent, once=once, stream=sys.stdout, as_json=as_json))
