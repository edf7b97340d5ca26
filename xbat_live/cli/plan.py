"""``xbat plan``: what a run will do, before there is beam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.config import parse_changes
from xbat_live.cli.errors import exit_on_error
from xbat_live.config import ConfigError

EXIT_NO_GO = 1

if TYPE_CHECKING:
    from xbat_live.forecast import Forecast


def plan(  # noqa: PLR0917 - typer's way to have options
    file: Annotated[Path, typer.Argument(help="Experiment file (TOML); make one with `xbat config init`.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, wins over file and environment.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the forecast as JSON on standard output.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Leave the sample's dose ledger out, as if nothing had been dosed.")
    ] = False,
    timed_shutter: Annotated[
        bool,
        typer.Option(
            "--timed-shutter/--no-timed-shutter",
            help="Whether the shutter keeps the time of an opening itself (PV OpenFor).",
        ),
    ] = True,
    reject: Annotated[
        float,
        typer.Option(help="Fraction of the frames assumed to be rejected (blurred), 0 to below 1.", min=0, max=0.95),
    ] = 0.0,
) -> None:
    """Say what a run will do, without beam: time, frames, dose of every material, when limits bind, spots; GO, WARN or NO-GO.

    It walks the plan that `xbat run` would run, message by message, with the same dose guard and limits on a copy of the sample's
    ledger. Needs no beamline. Exit codes: 0 GO or WARN, 1 NO-GO, 2 wrong configuration.

    Examples:  xbat plan my-cell.toml    |    xbat plan my-cell.toml --set "dose.limit=250 kGy" --reject 0.05 --json
    """
    with exit_on_error():
        from xbat_live.config import load_config

        config = load_config(file, parse_changes(changes))
        if config.uses_microscope:
            raise ConfigError(f"{file}: plan.name = {config.plan.name!r} uses no beam: there is no dose to forecast")
        from xbat_live.forecast import forecast

        found = forecast(config, fresh=fresh, reject=reject, timed_shutter=timed_shutter)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
    else:
        _show(found)
    raise typer.Exit(EXIT_NO_GO if found.verdict == "NO-GO" else 0)


def _show(found: Forecast) -> None:
    from rich.console import Console

    from xbat_live.forecast.show import lines

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 100
    for item in lines(found):
        console.print(item)
