"""``xbat watch``: look at a run that is under way."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.errors import EXIT_CONFIG, EXIT_NO_RUN, EXIT_RUN_FAILED
from xbat_live.cli.steer import RunOption, choose

if TYPE_CHECKING:
    from xbat_live.live.hub.security import Tokens

LOOK_S = 1.0
"""Silence of a run is looked for this often, s."""


def watch(  # noqa: PLR0917 - typer gives them by name
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the live page, for this run and those to come.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; anything but loopback belongs behind a proxy with TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.", min=0, max=65535)] = 8750,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin at which a reverse proxy serves the page, e.g. https://beamline.example.org; may be repeated."
        ),
    ] = None,
    run: RunOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
) -> None:
    """Watch a run of this user in this terminal, or with --serve in the browser. The run does not notice.

    In the terminal until the run is over, or Ctrl-C; plain lines in a pipe. With --serve the page shows the newest run, and the next
    one when that is over; `xbat run` and `xbat demo` serve a page of their own while they run, this one stays. Exit codes: 0 ended
    as asked, or the run is over, 1 its process ended before the run did; port or runtime folder cannot be used, 2 wrong option, or
    several runs, 3 no run.

    Examples:  xbat watch    |    xbat watch --run my-cell --json    |    xbat watch --serve --port 8760
    """
    if serve:
        serve_page(host, port, origin or [])
    else:
        watch_here(run, as_json=as_json)


def watch_here(run: str | None, *, as_json: bool) -> None:
    """Show a run in this terminal until it is over, or Ctrl-C."""
    from xbat_live.cli.display import Display
    from xbat_live.cli.terminal import TerminalView
    from xbat_live.live.following import FeedClient, FeedNotReachable
    from xbat_live.live.terminal import OVER

    display = Display(as_json=as_json)
    view = TerminalView(
        display.console, display.say, records_to=display.records_to, hint="Ctrl-C leaves; the run goes on"
    )
    try:
        with FeedClient(feed_of(run)) as feed, view:
            for message in feed.messages(LOOK_S):
                view.take(message)
    except FeedNotReachable as error:
        typer.echo(f"xbat: {error}; `xbat status` tells what runs are going on", err=True)
        raise typer.Exit(EXIT_NO_RUN) from error
    except KeyboardInterrupt:
        typer.echo("xbat: no longer watched; the run goes on (`xbat stop` ends it)", err=True)
        return
    if view.store.state.get("state") not in OVER:
        typer.echo("xbat: the process ended before its run did; its own terminal and xbat.log say why", err=True)
        raise typer.Exit(EXIT_RUN_FAILED)


def feed_of(run: str | None) -> Path:
    """Return the feed of the run that is meant, also while it is still starting; end the command when it is not clear which."""
    from xbat_live.live.following import SUFFIX, find_feeds
    from xbat_live.live.runtime import RuntimeFolderError

    if run is None:
        with suppress(RuntimeFolderError):  # told below
            feeds = find_feeds()
            if len(feeds) == 1:
                return feeds[0]
    return choose(run).path.with_suffix(SUFFIX)


def serve_page(host: str, port: int, origins: list[str]) -> None:
    """Serve the live page until Ctrl-C."""
    from xbat_live.live.hub.security import Origins, Tokens
    from xbat_live.live.hub.serving import is_loopback, listen
    from xbat_live.live.hub.serving import serve as serve_hub
    from xbat_live.live.runtime import RuntimeFolderError, runtime_directory

    try:
        Origins(port, origins)
    except ValueError as error:
        typer.echo(f"xbat: --origin {error}", err=True)
        raise typer.Exit(EXIT_CONFIG) from error
    try:
        folder = runtime_directory()
        tokens = Tokens.in_folder(folder)
        listening = listen(host, port)
    except (OSError, RuntimeFolderError) as error:
        typer.echo(
            f"xbat: no live page at {host} port {port}: {error}; give another --port, or stop what uses it", err=True
        )
        raise typer.Exit(EXIT_RUN_FAILED) from error
    with listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
        serve_hub(
            listening,
            folder,
            origins=origins,
            ready=lambda: _say_where(address, folder, tokens if is_loopback(host) else None),
        )


def _say_where(address: str, folder: Path, tokens: Tokens | None) -> None:
    if tokens is None:
        typer.echo(f"Live page  {address}   tokens in {folder}: operator.token steers, viewer.token only looks")
        typer.echo("this is not encrypted: put a reverse proxy with TLS before it (docs/how-to/watch-live.md)")
    else:
        typer.echo(f"Live page  {address}#k={tokens.operator}   (steers)")
        typer.echo(f"           {address}#k={tokens.viewer}   (only looks)")
    typer.echo("Ctrl-C ends it; runs are not touched")
