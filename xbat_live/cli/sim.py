"""``xbat sim``: the simulated beamline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from xbat_live.sim.settings import TwinSettings


def sim(  # noqa: PLR0917 - options of a command
    prefix: Annotated[str, typer.Option(help="PV prefix.")] = "XBAT:",
    port: Annotated[int, typer.Option(help="Channel Access port on 127.0.0.1.")] = 26064,
    seed: Annotated[int | None, typer.Option(help="Seed of sample and instabilities.")] = None,
    time_scale: Annotated[float | None, typer.Option(help="Cycling and drift run this much faster than life.")] = None,
    frames: Annotated[
        Path | None, typer.Option(help="Play recorded frames: .xrm, .tif or .h5, a file or a folder.")
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(help="txm: the X-ray microscope; rock-far, rock-near: full-field XAS imaging, two foci."),
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="Twin settings (TOML).")] = None,
    work_directory: Annotated[Path, typer.Option(help="Folder for the twin's truth files.")] = Path("xbat-sim"),
) -> None:
    """Run the simulated beamline: one physical twin behind real Channel Access PVs. Ctrl-C ends it.

    Examples:  xbat sim    |    xbat sim --time-scale 600 --seed 7    |    xbat sim --frames recorded/    |
              xbat sim --scene rock-far --time-scale 100

    In another terminal: xbat doctor --port 26064, or xbat run FILE with channel_access.port = 26064.
    """
    from xbat_live.sim.environment import PortTakenError
    from xbat_live.sim.server import run_simulator
    from xbat_live.sim.settings import TwinSettings

    if scene is not None and settings is not None:
        typer.echo("xbat: --scene and --settings exclude one another; a settings file names its scene", err=True)
        raise typer.Exit(2)
    chosen: dict[str, Any] = {"seed": seed, "time_scale": time_scale, "frames": frames.resolve() if frames else None}
    try:
        twin = replace(
            TwinSettings.load(settings) if settings else scene_of(scene),
            **{name: value for name, value in chosen.items() if value is not None},
        )
        typer.echo(f"simulated beamline {prefix} on 127.0.0.1:{port}; try: xbat doctor --port {port} --prefix {prefix}")
        typer.echo(
            f"client environment: EPICS_CA_ADDR_LIST=127.0.0.1 EPICS_CA_AUTO_ADDR_LIST=NO EPICS_CA_SERVER_PORT={port}"
        )
        run_simulator(twin, prefix=prefix, port=port, work_directory=work_directory)
    except (PortTakenError, ValueError) as error:
        typer.echo(f"xbat: {error}", err=True)
        raise typer.Exit(2) from None


def scene_of(name: str | None) -> TwinSettings:
    """Return the twin settings of a scene by its name on the command line.

    Raises
    ------
    ValueError
        Unknown name.
    """
    from xbat_live.sim.rock import FOCI, rock_settings
    from xbat_live.sim.settings import TwinSettings

    if name in (None, "txm"):
        return TwinSettings()
    known = {f"rock-{focus}": focus for focus in FOCI}
    if name not in known:
        raise ValueError(f"scene {name!r} is unknown; known: txm, {', '.join(known)}")
    return rock_settings(known[name])
