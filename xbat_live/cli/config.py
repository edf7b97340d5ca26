"""``xbat config``: write, show and describe experiment files."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.errors import exit_on_error

app = typer.Typer(
    help="Write, show and describe experiment files (TOML, a unit on every number).", no_args_is_help=True
)


@app.command(epilog="Example: xbat config init my-cell.toml")
def init(
    file: Annotated[Path, typer.Argument(help="File to write.")] = Path("experiment.toml"),
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented experiment file to start from."""
    if file.exists() and not force:
        typer.echo(f"{file}: exists; give --force to overwrite it", err=True)
        raise typer.Exit(2)
    file.write_text(files("xbat_live.cli").joinpath("experiment.toml").read_text())
    typer.echo(f"wrote {file}; next: edit it, then: xbat doctor {file}")


@app.command(epilog='Example: xbat config show my-cell.toml --set "dose.limit=1 MGy"')
def show(
    file: Annotated[Path, typer.Argument(help="Experiment file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, wins over file and environment.")
    ] = None,
) -> None:
    """Print the configuration as it will be used, with defaults, in SI-derived base units of the key names."""
    with exit_on_error():
        from xbat_live.config import load_config

        config = load_config(file, parse_changes(changes))
    typer.echo(config.model_dump_json(indent=1, exclude={"archive": {"api_key"}}))


@app.command(epilog="Example: xbat config schema > xbat.schema.json")
def schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from xbat_live.config import ExperimentConfig

    typer.echo(json.dumps(ExperimentConfig.model_json_schema(by_alias=True), indent=1))


@app.command(epilog="Example: xbat config cells")
def cells() -> None:
    """List the layer stacks that ship with xbat_live, for sample.cell."""
    from xbat_live.dose import presets

    for name in presets.cell_names():
        what, source = presets.cell_description(name)
        layers = ", ".join(
            f"{layer.name} {layer.thickness_um:g} µm ({', '.join(material.name for material in layer.parts)})"
            for layer in presets.cell(name).layers
        )
        typer.echo(f"{name}: {what}\n    layers: {layers}\n    source: {source}")


@app.command(epilog="Example: xbat config limits")
def limits() -> None:
    """List dose limits of the literature with material, source and what they protect, for dose.limit."""
    from xbat_live.dose import presets
    from xbat_live.units import format_si

    for name in presets.limit_names():
        limit = presets.limit(name)
        advisory = ", advisory" if limit.advisory else ""
        typer.echo(
            f"{name}: {format_si(limit.value, limit.unit)} in {limit.material} (model {limit.model}{advisory})\n"
            f"    protects: {limit.protects}\n    source: {limit.source}"
        )


def parse_changes(changes: list[str] | None) -> dict[str, str]:
    """Return ``--set KEY=VALUE`` options as a mapping.

    Raises
    ------
    typer.BadParameter
        When one has no ``=``.
    """
    result = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals:
            raise typer.BadParameter(f'{change!r} is not KEY=VALUE; write e.g. --set "dose.limit=1 MGy"')
        result[key.strip()] = value.strip()
    return result
