"""``xbat status``, ``pause``, ``resume``, ``relocate``, ``limit``, ``note``, ``stop``, ``abort``: steer a run from any terminal."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbat_live.cli.errors import EXIT_NO_RUN, EXIT_REFUSED, EXIT_USAGE

if TYPE_CHECKING:
    from xbat_live.live.control import Reply, RunSocket

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run", metavar="NAME", help="Which run: its sample, its uid (4 characters or more), or its process id."
    ),
]
WhoOption = Annotated[str | None, typer.Option("--who", help="Who gives the command. Default: the user's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the reply as one line of JSON.")]


def pause(
    now: Annotated[bool, typer.Option("--now", help="Close the shutter at once, in the middle of a frame.")] = False,
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause the run after the frame under way; with --now at once.

    The shutter stays closed until `xbat resume`; the cell is cycled on. A frame that was cut short is counted, marked and taken
    again. Asking with --now for a pause that is under way makes it a sharper one.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat pause    |    xbat pause --now    |    xbat pause --run my-cell
    """
    _command("pause", {"now": now}, run, who, as_json=as_json)


def resume(run: RunOption = None, who: WhoOption = None, as_json: JsonOption = False) -> None:
    """Go on with a run that is paused or about to pause.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat resume    |    xbat resume --who "night shift"
    """
    _command("resume", {}, run, who, as_json=as_json)


def relocate(  # noqa: PLR0917 - typer gives them by name
    x_um: Annotated[float | None, typer.Argument(metavar="[X", help="Sample coordinate x, um.")] = None,
    y_um: Annotated[float | None, typer.Argument(metavar="Y]", help="Sample coordinate y, um.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Only tell the distance and the dose there; nothing moves.")
    ] = False,
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on at another place of the sample: at (X, Y), or at the nearest fresh spot.

    The stage moves between two exposures. Refused, with the reason, where the dose limits, the stage or a forbidden zone do not allow
    it. Put -- before a negative number.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat relocate    |    xbat relocate -- -40 25    |    xbat relocate --dry 40 25
    """
    if (x_um is None) != (y_um is None) or (dry and x_um is None):
        raise typer.BadParameter("give both X and Y, in um" + (", with --dry" if dry else ", or neither"))
    place = {} if x_um is None else {"x_um": x_um, "y_um": y_um}
    _command("propose" if dry else "relocate", place, run, who, as_json=as_json)


def skip_spot(run: RunOption = None, who: WhoOption = None, as_json: JsonOption = False) -> None:
    """Leave the present spot for the next one; plans with places of their own retire it.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat skip-spot    |    xbat skip-spot --run my-cell
    """
    _command("skip_spot", {}, run, who, as_json=as_json)


def limit(  # noqa: PLR0917 - typer gives them by name
    value: Annotated[str, typer.Argument(help='The limit with its unit, e.g. "1.5 MGy" or "2 kGy/s".')],
    name: Annotated[str, typer.Option("--name", help="Which limit; default: the one of that unit.")] = "",
    confirm: Annotated[bool, typer.Option("--confirm", help="Really loosen it.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why it is loosened; kept in the run and the ledger.")] = "",
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a dose limit of the run: a tighter one holds at once, a looser one needs --confirm and --reason.

    The experiment file is not changed. The change stands in the ledger and in the run's stream `operator`.

    Exit codes: 0 done, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat limit 1.5MGy    |    xbat limit "6 MGy" --confirm --reason "lattice only, agreed with PI"
    """
    arguments = {"value": value, "name": name, "confirm": confirm, "reason": reason}
    _command("limit", arguments, run, who, as_json=as_json)


def note(
    text: Annotated[str, typer.Argument(help="The remark.")],
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a remark into the run and the sample's ledger.

    Exit codes: 0 done, 1 refused, 2 wrong option or several runs, 3 no run.

    Examples:  xbat note "cell looks swollen"    |    xbat note "refill at 14:10" --who eva
    """
    _command("note", {"text": text}, run, who, as_json=as_json)


def stop(
    reason: Annotated[str, typer.Option("--reason", help="Kept in the run.")] = "",
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the run in order after the frame under way; everything measured is kept.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run. `xbat run` itself ends with 130.

    Examples:  xbat stop    |    xbat stop --reason "beam time is over"
    """
    _command("stop", {"reason": reason}, run, who, as_json=as_json)


def abort(
    reason: Annotated[str, typer.Option("--reason", help="Kept in the run.")] = "",
    run: RunOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close the shutter and end the run at once, whatever it is doing; what was measured is kept.

    Exit codes: 0 done or under way, 1 refused, 2 wrong option or several runs, 3 no run. `xbat run` itself ends with 130.

    Examples:  xbat abort    |    xbat abort --reason "coolant leak"
    """
    _command("abort", {"reason": reason}, run, who, as_json=as_json)


def status(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Say what runs are going on, and how the one that is meant stands.

    Exit codes: 0 told, 2 wrong option or several runs, 3 no run.

    Examples:  xbat status    |    xbat status --json    |    xbat status --run my-cell
    """
    found = choose(run)
    if as_json:
        typer.echo(json.dumps({**found.status, "pid": found.pid}))
        return
    for name, value in told(found.status):
        typer.echo(f"{name:<12} {value}")


def told(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a status says, for people: (name, value with unit)."""
    from xbat_live.units import format_si

    def dose(name: str) -> str:
        value = status.get(name)
        return "unknown" if value is None else format_si(float(value), "Gy")

    lines = [
        ("state", str(status.get("state", ""))),
        ("run", f"{status.get('plan_name', '')}  {status.get('uid', '')}"),
        ("sample", str(status.get("sample", ""))),
        ("points", f"{status.get('points', 0)} of {status.get('n_points', 0)}"),
        ("frames", f"{status.get('frames', 0)}, {status.get('rejected', 0)} rejected"),
        ("spot", f"{int(status.get('spot') or 0) + 1}"),
        ("dose", f"{dose('dose_gy')} of {dose('dose_limit_gy')} at this spot"),
        ("process", str(status.get("pid", ""))),
    ]
    return [(name, value) for name, value in lines if value.strip()]


def choose(name: str | None) -> RunSocket:
    """Return the run that is meant, or end the command: no run, or it is not clear which."""
    from xbat_live.live.control import find_runs
    from xbat_live.live.runtime import RuntimeFolderError

    try:
        runs = find_runs()
    except RuntimeFolderError as error:
        typer.echo(f"xbat: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    found = [run for run in runs if name is None or run.is_called(name)]
    if len(found) == 1:
        return found[0]
    if not runs:
        typer.echo("xbat: no run of this user is going on here; start one with `xbat run`", err=True)
    elif not found:
        typer.echo(f"xbat: no run is called {name!r}; going on:", err=True)
    else:
        typer.echo("xbat: several runs are going on; say which with --run:", err=True)
    for run in runs:
        typer.echo(f"  {run}", err=True)
    raise typer.Exit(EXIT_USAGE if len(found) > 1 else EXIT_NO_RUN)


def _command(verb: str, arguments: Mapping[str, Any], run: str | None, who: str | None, *, as_json: bool) -> None:
    """Send a command to a run, print the reply, and end with the exit code for it."""
    from xbat_live.live.control import ControlClient, RunNotReachable

    found = choose(run)
    try:
        with ControlClient(found.path, timeout_s=30.0) as client:
            reply = client.ask(verb, arguments, who=who or user())
    except RunNotReachable as error:
        typer.echo(f"xbat: {error}", err=True)
        raise typer.Exit(EXIT_NO_RUN) from error
    if as_json:
        typer.echo(reply.line().decode().strip())
    else:
        typer.echo(_sentence(verb, reply), err=not reply.ok)
    if not reply.ok:
        raise typer.Exit(EXIT_REFUSED)


def _sentence(verb: str, reply: Reply) -> str:
    return f"{reply.state or '?'}: {reply.message}" if reply.ok else f"{verb} refused ({reply.state}): {reply.message}"


def user() -> str:
    """Return the name that commands of this terminal are noted under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "unknown"
