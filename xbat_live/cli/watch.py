"""``xbat watch``: look at a run that is under way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.errors import EXIT_CONFIG, EXIT_RUN_FAILED

if TYPE_CHECKING:
    from xbat_live.live.hub.security import Tokens


def watch(
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
) -> None:
    """Watch a run of this user. With --serve in the browser: the page shows the newest run, and the next one when that is over.

    `xbat run` and `xbat demo` serve a page of their own while they run. This one stays, and can be restarted at any time; the run
    does not notice. Ctrl-C ends it. Exit codes: 0 ended as asked, 1 the port or the runtime folder cannot be used, 2 wrong option.

    Examples:  xbat watch --serve    |    xbat watch --serve --port 8760    |    xbat watch --serve --origin https://beamline.example.org
    """
    if not serve:
        typer.echo("xbat: say how: xbat watch --serve", err=True)
        raise typer.Exit(EXIT_CONFIG)
    serve_page(host, port, origin or [])


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
