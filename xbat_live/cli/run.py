"""``xbat run``: run an experiment file."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli import log
from xbat_live.cli.config import parse_changes
from xbat_live.cli.display import Display
from xbat_live.cli.errors import EXIT_INTERRUPTED, EXIT_RUN_FAILED, exit_on_error
from xbat_live.cli.live import GUARD_DETAIL, TILED_DETAIL, Checklist, live_page
from xbat_live.cli.services import archive_for, tell_guard, watched
from xbat_live.units import format_si

LOG_FILE = Path("xbat.log")
FORECAST_S = 5.0
HINT = "Ctrl-C ends the run safely; xbat pause, relocate, limit, note, stop from any terminal"

if TYPE_CHECKING:
    from xbat_live.callbacks import RunState
    from xbat_live.config import ExperimentConfig
    from xbat_live.live.feed import LiveFeed
    from xbat_live.plans import SeriesSummary
    from xbat_live.session import Session
    from xbat_live.watchdog import GuardProcess


def run(
    file: Annotated[Path, typer.Argument(help="Experiment file (TOML); make one with `xbat config init`.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, wins over file and environment.")
    ] = None,
    override_dose: Annotated[
        str | None,
        typer.Option(
            help="Run although the forecast says NO-GO; the REASON is kept in the documents and the ledger.",
            metavar="REASON",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output; the last is the result.")
    ] = False,
) -> None:
    """Run an experiment: guarded exposures, live verdicts, frames and results in Tiled.

    Refused when the forecast (`xbat plan`) says NO-GO, unless --override-dose gives a reason; the limits hold all the same.
    Ctrl-C once stops in order with the shutter closed, twice aborts. Exit codes: 0 done, 1 the run failed, 2 wrong
    configuration, 3 a device is missing, 130 ended by the operator.

    Examples:  xbat run my-cell.toml    |    xbat run my-cell.toml --set "dose.limit=1 MGy" --json
    """
    display = Display(as_json=as_json)
    with exit_on_error():
        from xbat_live.config import load_config

        config = load_config(file, parse_changes(changes))
        with live_page(config.live, display, name=config.sample.name) as feed:
            checklist = Checklist(feed)
            checklist.tell("Guard", "starting", GUARD_DETAIL)
            checklist.tell("Tiled", "starting", TILED_DETAIL)
            with watched(config) as guard, archive_for(config, display) as config:
                checklist.tell("Guard", "ok" if guard is not None else "off", GUARD_DETAIL)
                checklist.tell("Tiled", "ok" if config.archive.uri else "off", TILED_DETAIL)
                state, summary, error = acquire(config, display, guard, override_dose=override_dose, feed=feed)
    display.result(state, outcome=summary.outcome if summary else str(error))
    tell_summary(display, state, summary)
    leave_on(error, display)


def tell_summary(display: Display, state: RunState, summary: SeriesSummary | None) -> None:
    """Say in one line what the run did."""
    if summary is None:
        return
    facts = f"{summary.points} points, {summary.frames} frames, {summary.rejected} rejected (kept and marked)"
    if state.with_beam:
        facts += (
            f", {summary.corrections} drift corrections, {summary.relocations} relocations, "
            f"{format_si(state.dose_gy, 'Gy')} at the last spot"
        )
    display.say(f"{facts}; {summary.outcome}", style="bold")


def leave_on(error: Exception | None, display: Display) -> None:
    """End the command with the exit code of a run's error; return when there is none."""
    if error is None:
        return
    from xbat_live.cli.interrupt import Interrupted

    if isinstance(error, Interrupted):
        display.say(str(error), style="bold yellow")
        raise typer.Exit(EXIT_INTERRUPTED)
    display.say(f"run failed: {error}", style="bold red")
    display.say(f"details: {LOG_FILE} beside the experiment file")
    raise typer.Exit(EXIT_RUN_FAILED)


def acquire(
    config: ExperimentConfig,
    display: Display,
    guard: GuardProcess | None = None,
    *,
    override_dose: str | None = None,
    feed: LiveFeed | None = None,
) -> tuple[RunState, SeriesSummary | None, Exception | None]:
    """Run the configured plan once, with `guard` watching, and show it through `feed`.

    Returns
    -------
    state
        The run as its documents told it.
    summary
        The plan's value; None when it failed.
    error
        Why it failed; `Interrupted` when the operator ended it.

    Raises
    ------
    ConfigError, PreflightError, NoGoError, BeamlineConnectionError, LedgerError
        Before the run.
    """
    from xbat_live.devices import configure_channel_access

    configure_channel_access(config.beamline.channel_access.environment())  # before anything imports ophyd
    from bluesky.utils import FailedStatus

    from xbat_live import preflight
    from xbat_live.callbacks import RunProgress
    from xbat_live.cli.interrupt import run_interruptibly
    from xbat_live.cli.steered import steered
    from xbat_live.session import open_session

    log.to_file(config.path(LOG_FILE))
    progress = RunProgress()
    summary: SeriesSummary | None = None
    error: Exception | None = None
    with open_session(config, progress=progress, feed=feed, tell=display.say) as session:
        preflight.check(config, session.beamline)
        session.metadata |= look_ahead(session, display, override_dose)
        tell_guard(guard, display)
        try:
            # bluesky prints of pausing on standard output, which is the records'
            with (
                display.showing(feed, HINT),
                steered(session, progress),
                redirect_stdout(sys.stderr),
            ):
                summary = run_interruptibly(
                    session.run_engine,
                    session.plan(),
                    session.beamline.shutter.pause,
                    display.say,
                    ended_by=lambda: session.steering.ended_by,
                )
        except Exception as failure:  # whatever ended the plan is told to the operator
            # a failed status says which device; what went wrong is its cause
            cause = failure.__cause__ if isinstance(failure, FailedStatus) else None
            error = cause if isinstance(cause, Exception) else failure
        progress.state.shutter = "not known to be closed" if session.beamline.shutter.is_open else "Closed"
    return progress.state, summary, error


def look_ahead(session: Session, display: Display, override_reason: str | None) -> dict[str, object]:
    """Forecast the run, refuse a NO-GO that nobody overrides, and return what the start document says of it.

    Raises
    ------
    NoGoError
        See there.
    """
    if session.config.uses_microscope:
        return {}  # no beam, no dose
    from xbat_live.forecast import forecast, refuse_or_record

    timed = session.beamline.shutter.has_timed_opening
    found = forecast(session.config, timed_shutter=timed, at_most_s=FORECAST_S)
    told = refuse_or_record(found, override_reason)
    if reason := told.get("dose_override"):
        session.guard.account.note(f"dose override: {reason}; the forecast said {found.reasons[0]}")
        display.say(f"forecast NO-GO, overridden: {reason}", style="bold yellow")
    else:
        display.say(f"forecast {'; '.join((str(found.verdict), *found.reasons))}")
    return told
