"""``xbat demo``: everything at once on a simulated beamline, for a newcomer's first minute."""

from __future__ import annotations

import time
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live import __version__
from xbat_live.cli.display import Display
from xbat_live.cli.errors import exit_on_error
from xbat_live.cli.live import GUARD_DETAIL, TILED_DETAIL, Checklist, live_page
from xbat_live.cli.run import acquire, leave_on, tell_summary
from xbat_live.cli.services import profile_for, watched, with_archive
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.config import ExperimentConfig
    from xbat_live.watchdog import GuardProcess

TIME_SCALE = 600.0
MOST_POINTS = 80
"""More do not fit on the demo's sample below its limit; a longer demonstration takes them at longer intervals."""


def demo(  # noqa: PLR0917 - the options of a command
    seconds: Annotated[float, typer.Option(help="How long the operando run goes on, s.", min=5, max=3600)] = 60.0,
    directory: Annotated[Path, typer.Option(help="Everything is kept below this folder; delete it freely.")] = Path(
        "xbat-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulated sample and its instabilities.")] = 1,
    frames: Annotated[
        Path | None, typer.Option(help="Play recorded frames (.xrm, .tif, .h5) instead of the simulated sample.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the live page.")] = True,
    port: Annotated[int, typer.Option(help="Port of the live page; a taken one is replaced.", min=0, max=65535)] = 8750,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output; the last is the result.")
    ] = False,
) -> None:
    """Run a dose-aware operando TXM series on a simulated beamline: real EPICS, real HDF5, real Tiled, no hardware.

    Frames blurred by vibration are rejected and retaken, the sample's drift is followed, and at the dose limit the beam moves
    to a fresh spot. Ends by itself, with the shutter closed. Exit code 0 when the run succeeded.

    Examples:  xbat demo    |    xbat demo --seconds 20 --json    |    xbat demo --frames recorded/
    """
    display = Display(as_json=as_json)
    folder = (directory / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    display.say(f"xbat_live {__version__}, demo session in {folder} (delete freely; nothing leaves this machine)")
    from xbat_live.config import LiveSection

    with exit_on_error(), ExitStack() as stack:
        feed = stack.enter_context(live_page(LiveSection(enabled=page, port=port), display, name="demo"))
        feed.show(banner="SIMULATED BEAMLINE")
        checklist = Checklist(feed)
        config, guard = start_services(stack, display, checklist, folder, seconds=seconds, seed=seed, frames=frames)
        display.say(
            f"operando run, {seconds:g} s, {TIME_SCALE:g} times faster than life; Ctrl-C ends it safely", style="bold"
        )
        state, summary, error = acquire(config, display, guard, feed=feed)
        display.say("run ended, shutter closed")
    relative = _shortest(folder)
    display.result(
        state,
        outcome=summary.outcome if summary else str(error),
        directory=str(folder),
        archive=str(config.path(config.archive.directory)),
        frames_directory=str(config.path(config.camera.directory)),
        ledger_directory=str(config.path(config.dose.ledger_directory)),
        truth_directory=str(folder / "twin"),
    )
    tell_summary(display, state, summary)
    _tell_where(display, relative)
    leave_on(error, display)


def start_services(
    stack: ExitStack,
    display: Display,
    checklist: Checklist,
    folder: Path,
    *,
    seconds: float,
    seed: int,
    frames: Path | None,
) -> tuple[ExperimentConfig, GuardProcess | None]:
    """Start Tiled, the simulated beamline and its guard side by side; they end with `stack`. Return the experiment to run on them."""
    from xbat_live.archive import TiledServer
    from xbat_live.sim.environment import free_port
    from xbat_live.sim.server import SimulatorProcess
    from xbat_live.sim.settings import TwinSettings

    port = free_port()
    settings = TwinSettings(seed=seed, time_scale=TIME_SCALE, frames=frames.resolve() if frames else None)
    config = demo_config(folder, port=port, seconds=seconds, seed=seed, frames=frames)
    frame_folder = config.path(config.camera.directory)
    frame_folder.mkdir(parents=True, exist_ok=True)
    tiled = TiledServer(config.path(config.archive.directory), port=free_port(), readable_storage=[frame_folder])
    checklist.tell("Tiled", "starting", TILED_DETAIL)
    checklist.tell("IOCs", "starting", "TXM stage, camera, monochromator, potentiostat, shutter")
    tiled.start()
    stack.callback(tiled.stop)
    key_hint = f"{tiled.ui_url}   API key in {tiled.settings.key_file}"
    display.say(f"Tiled   {tiled.settings.ui_url_with_key() if display.console.is_terminal else key_hint}")
    stack.enter_context(profile_for(tiled, config.archive.profile, display))
    stack.enter_context(
        SimulatorProcess(settings, prefix=config.beamline.prefix, port=port, work_directory=folder / "twin")
    )
    display.say(
        "ok  IOCs    TXM stage, camera, monochromator, potentiostat, shutter (EPICS on loopback)", style="green"
    )
    checklist.tell("IOCs", "ok", "TXM stage, camera, monochromator, potentiostat, shutter")
    checklist.tell("Guard", "starting", GUARD_DETAIL)
    guard = stack.enter_context(watched(config))
    tiled.wait_ready(timeout_s=90)
    display.say("ok  Tiled   answers", style="green")
    checklist.tell("Tiled", "ok", TILED_DETAIL)
    checklist.tell("Guard", "ok", GUARD_DETAIL)
    return with_archive(config, tiled.uri, tiled.api_key), guard


def demo_config(folder: Path, *, port: int, seconds: float, seed: int, frames: Path | None) -> ExperimentConfig:
    """Write the demo's experiment file into `folder`, for the simulated beamline at `port`, and return its configuration."""
    text = files("xbat_live.cli").joinpath("demo.toml").read_text()
    n_points = min(max(int(seconds), 1), MOST_POINTS)
    changes = {
        "beamline.channel_access.port": port,
        "plan.duration": f"{seconds:g} s",
        "plan.n_points": n_points,
        "plan.period": f"{max(seconds / n_points, 1.0):g} s",
        "operator": f"xbat demo, seed {seed}",
    }
    if frames is not None:
        from xbat_live.recordings import find_recordings

        try:
            pixel_um = find_recordings(frames)[0].pixel_size_um
        except (OSError, ValueError) as error:
            raise ConfigError(f"--frames {frames}: {error}") from error
        changes |= {"camera.roi": None} | ({"camera.pixel_size": f"{pixel_um} um"} if pixel_um else {})
    file = folder / "experiment.toml"
    file.write_text(text)
    from xbat_live.config import load_config

    return load_config(file, changes)


def _tell_where(display: Display, folder: Path) -> None:
    display.say("look at the results:")
    for line in (
        f"  xbat serve {folder / 'archive'}        # then open the printed address",
        f"  frames      {folder / 'frames'}        # HDF5: /entry/data/data, flat, dark",
        f"  dose ledger {folder / 'ledger'}",
    ):
        display.console.print(line, soft_wrap=True)


def _shortest(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
