"""``xbat replay``: decide a past run again, on its documents or against simulated IOCs that play it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbat_live.cli.config import parse_changes
from xbat_live.cli.errors import EXIT_CONFIG, exit_on_error

if TYPE_CHECKING:
    from xbat_live.config import ExperimentConfig
    from xbat_live.replay import Outcome, Recording

EXIT_DIFFERS = 1
DEMOS = Path("xbat-demo")
PREFIX = "REPLAY:"
PLAYBACK_SPEED = 50.0
"""Of the simulated motors."""


def replay(  # noqa: PLR0917 - options of a command
    run: Annotated[
        str,
        typer.Argument(
            help='Uid of the run, its first characters, scan number, or "last"; or a file or folder of frames.'
        ),
    ] = "last",
    documents: Annotated[
        bool,
        typer.Option(
            "--documents/--iocs",
            help="Decide again on the recorded documents, at once; or run the plan again against simulated IOCs that play the run.",
        ),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help='KEY=VALUE: another parameter than the run had, e.g. "dose.limit=2 MGy".'),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(help="Of the IOCs' clock: 1 is the run's own pace, 0 as fast as it goes.", min=0, max=1e6),
    ] = 0.0,
    archive: Annotated[Path | None, typer.Option(help="Folder of the archive; its server is started.")] = None,
    uri: Annotated[str | None, typer.Option(help="Address of a running archive.")] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Experiment file, for a run that does not hold its configuration.")
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store/--no-store", help="--documents: write the result into the archive, linked to the run."),
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON into this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")] = False,
) -> None:
    """Decide a past run again and compare every decision with the recorded one: same, different, new, missing.

    With --iocs (the default) simulated IOCs play the run's frames, positions, flux, ring and potentiostat, and its plan runs again
    against them. With --documents the recorded documents go through the same analysis, dose account and plan, without IOCs, as fast
    as they can be worked off (demonstration: some 50 times). Both take parameters by --set. The sample's real ledger is only read.

    Exit codes: 0 every decision is the recorded one, 1 some are not, 2 the run cannot be replayed or an option is wrong.

    Examples:  xbat replay last    |    xbat replay 99e47888 --documents --set "dose.limit=2 MGy"    |    xbat replay recorded/ --documents
    """
    with exit_on_error(), _replay_errors(), ExitStack() as stack:
        port = 0 if documents else _own_channel_access()  # before anything imports ophyd
        from xbat_live.replay import compare, load_frames, replay_config, replay_documents, show

        if out is not None and out.exists() and not force:
            raise typer.BadParameter(f"{out} exists; --force overwrites it")
        if documents and speed:
            raise typer.BadParameter("--speed is of the simulated beamline's clock; with --documents there is none")
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xbat-replay-")))
        wanted = parse_changes(changes)
        client = None
        if _names_files(run):
            recording = load_frames(Path(run), scratch=scratch, config_file=config_file, progress=_told)
        else:
            recording, client = _load(run, archive, uri, scratch, config_file)
        config = replay_config(recording, wanted, file=config_file)
        begin_s = time.monotonic()
        if documents:
            outcome = replay_documents(recording, config, progress=_progress)
        else:
            outcome = _with_iocs(recording, config, scratch, port=port, speed=speed)
        took_s = time.monotonic() - begin_s
        comparison = compare(recording, outcome)
        report = show.as_dict(recording, outcome, comparison, took_s=took_s) | {"changes": wanted}
        if documents and store and client is not None:
            from xbat_live.replay.linked import store_replay

            report["stored"] = store_replay(client, recording, config, wanted, outcome, comparison)
        text = json.dumps(report, indent=1, default=str)
        if out is not None:
            out.write_text(text + "\n")
        if as_json:
            typer.echo(text)
        else:
            for line in show.lines(recording, outcome, comparison, took_s=took_s):
                typer.echo(line)
            if "stored" in report:
                typer.echo(f"in the archive: run {report['stored'][:8]}, analysis of {recording.uid[:8]}")
    raise typer.Exit(0 if comparison.agrees else EXIT_DIFFERS)


def _own_channel_access() -> int:
    """Confine Channel Access to a free port of this machine, before anything imports ophyd; return the port."""
    from xbat_live.config import ChannelAccess
    from xbat_live.devices import configure_channel_access
    from xbat_live.sim.environment import free_port

    port = free_port()
    configure_channel_access(ChannelAccess(port=port).environment())
    return port


def _with_iocs(recording: Recording, config: ExperimentConfig, scratch: Path, *, port: int, speed: float) -> Outcome:
    """Start the simulated beamline that plays the recording, and run the plan against it."""
    from xbat_live.replay.configuring import first_energy_ev, with_beamline
    from xbat_live.sim.server import SimulatorProcess
    from xbat_live.sim.settings import TwinSettings

    config = with_beamline(config, prefix=PREFIX, port=port, frames=scratch / "frames")
    from xbat_live.cli.interrupt import run_interruptibly
    from xbat_live.replay.iocs import replay_on_iocs
    from xbat_live.replay.tape import write_tape

    tape = write_tape(recording, scratch / "tape.json", energy_ev=first_energy_ev(recording, config))
    settings = TwinSettings(recording=tape, playback_speed=PLAYBACK_SPEED)
    _say("the simulated beamline plays the run")
    with SimulatorProcess(settings, PREFIX, port, scratch / "sim"), redirect_stdout(sys.stderr):

        def run(engine: Any, plan: Any, close: Any) -> Any:
            return run_interruptibly(engine, plan, close, _say)

        return replay_on_iocs(recording, config, speed=speed, run=run, progress=_progress)


def _names_files(run: str) -> bool:
    """Tell a file or folder from the name of a run."""
    return "/" in run or Path(run).suffix != "" or Path(run).exists()


def _load(
    run: str, archive: Path | None, uri: str | None, scratch: Path, config_file: Path | None
) -> tuple[Recording, Any]:
    """Return the recording, and the client of the archive it is from."""
    from xbat_live.archive import open_archive
    from xbat_live.replay import load_run

    folder = archive if archive is not None or uri is not None else _nearest_archive()
    if folder is not None:
        _say(f"archive {folder}")
    client = open_archive(folder=folder) if folder is not None else open_archive(uri=uri)
    return load_run(client, run, scratch=scratch, config_file=config_file, progress=_told), client


def _nearest_archive() -> Path | None:
    """Return the archive in this folder, else that of the last demo; None: the one of the Tiled profile is meant."""
    candidates = [Path("archive"), *sorted(DEMOS.glob("*/archive"), reverse=True)]
    return next((folder for folder in candidates if (folder / "catalog.db").is_file()), None)


@contextmanager
def _replay_errors() -> Iterator[None]:
    from xbat_live.replay import ReplayError

    try:
        yield
    except ReplayError as error:
        typer.echo(f"xbat: {error}", err=True)
        raise typer.Exit(EXIT_CONFIG) from None


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _told(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{what}  {done}/{total}" + ("\n" if done == total else ""), err=True, nl=False)
    elif done == total or done % 100 == 0:
        _say(f"{what}  {done}/{total}")


def _progress(done: int, total: int) -> None:
    _told("frames replayed", done, total)
