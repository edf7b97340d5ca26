"""``xbat ls``: which runs there are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.errors import exit_on_error
from xbat_live.config import ConfigError
from xbat_live.units import format_si, parse_quantity

if TYPE_CHECKING:
    from xbat_live.archive.search import FoundRun


def ls(  # noqa: PLR0917 - options of a command
    since: Annotated[
        str | None,
        typer.Option(help='Begun since: "today", "yesterday", an age ("6 h", "3 d"), or a date ("2026-11-21 14:30").'),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Begun before; written likewise.")] = None,
    sample: Annotated[str | None, typer.Option(help="Name of the sample; % stands for any characters.")] = None,
    plan: Annotated[str | None, typer.Option(help="Name of the plan; likewise.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help='"success", "fail", "abort", "running", or words of the reason it ended.')
    ] = None,
    min_dose: Annotated[
        str | None, typer.Option(help='Highest dose at least this, e.g. "80 kGy".', metavar="DOSE")
    ] = None,
    max_dose: Annotated[str | None, typer.Option(help="Highest dose at most this.", metavar="DOSE")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many runs, the latest.", min=1)] = 50,
    archive: Annotated[
        Path | None, typer.Option(help="Archive folder; its server is started when it does not run.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="Address of a running archive; its key in XBAT_ARCHIVE__API_KEY.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs as JSON on standard output.")] = False,
) -> None:
    """List the runs of the archive, the latest first. Options narrow it down; all that are given must fit.

    Without --archive and --uri: XBAT_ARCHIVE__URI, else the Tiled profile xbat, which `xbat serve` writes.

    Examples:  xbat ls    |    xbat ls --since yesterday --sample cell-7    |    xbat ls --min-dose "80 kGy" --outcome fail --json
    """
    with exit_on_error():
        from xbat_live.archive.finding import find_archive
        from xbat_live.archive.search import Criteria, search_runs

        criteria = Criteria(
            since_s=_time("--since", since),
            until_s=_time("--until", until),
            sample=sample,
            plan=plan,
            outcome=outcome,
            least_dose_gy=_dose("--min-dose", min_dose),
            most_dose_gy=_dose("--max-dose", max_dose),
        )
        address, key, _ = find_archive(uri=uri, folder=archive)
        runs = search_runs(address, key, criteria, limit=limit)
    if as_json:
        typer.echo(json.dumps([run.as_dict() for run in runs], indent=1))
        return
    if not runs:
        typer.echo("no run fits", err=True)
        return
    _show(runs)
    if len(runs) == limit:
        typer.echo(f"the latest {limit}; --limit shows more", err=True)


def _show(runs: list[FoundRun]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("began", "left"), ("uid", "left"), ("scan", "right"), ("sample", "left"), ("plan", "left"), ("frames", "right"),
                       ("rejected", "right"), ("dose", "right"), ("took", "right")):  # fmt: skip
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("outcome", overflow="fold")
    for run in runs:
        table.add_row(
            run.as_dict()["time"][:19].replace("T", " "),
            run.uid[:8],
            _number(run.scan_id),
            run.sample,
            run.plan,
            _number(run.frames),
            _number(run.rejected),
            "" if run.dose_gy is None else format_si(run.dose_gy, "Gy"),
            "" if run.duration_s is None else f"{run.duration_s:.0f} s",
            run.outcome,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _time(option: str, text: str | None) -> float | None:
    from xbat_live.archive.search import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def _dose(option: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(parse_quantity(text, "Gy"))
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error
