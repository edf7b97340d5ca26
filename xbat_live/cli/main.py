"""``xbat``: one verb per task, one file per verb."""

from __future__ import annotations

from typing import Annotated

import typer

from xbat_live import __version__
from xbat_live.cli import (
    analyse,
    archive,
    config,
    demo,
    doctor,
    dose,
    export,
    guard,
    import_,
    log,
    ls,
    plan,
    replay,
    report,
    run,
    serve,
    sim,
    steer,
    watch,
)

app = typer.Typer(
    name="xbat",
    help="Dose-aware acquisition and live analysis for operando X-ray imaging of batteries.",
    epilog="New here? `xbat demo` runs everything on a simulated beamline. At a beamline: `xbat config init`, `xbat doctor`, `xbat run`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xbat_live {__version__}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up what all verbs share."""
    log.to_terminal(verbose)


app.command()(demo.demo)
app.command()(sim.sim)
app.command()(serve.serve)
app.command()(plan.plan)
app.command()(run.run)
app.command()(ls.ls)
app.command()(replay.replay)
app.command()(watch.watch)
app.command()(report.report)
app.command()(guard.guard)
app.command()(steer.status)
app.command()(steer.pause)
app.command()(steer.resume)
app.command()(steer.relocate)
app.command(name="skip-spot")(steer.skip_spot)
app.command()(steer.limit)
app.command()(steer.note)
app.command()(steer.stop)
app.command()(steer.abort)
app.command()(doctor.doctor)
app.command()(export.export)
app.command("import")(import_.import_)
app.add_typer(config.app, name="config")
app.add_typer(dose.app, name="dose")
app.add_typer(analyse.app, name="analyse")
app.add_typer(archive.app, name="archive")

if __name__ == "__main__":
    app()
