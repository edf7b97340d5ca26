"""``xbat serve``: the archive of past and running experiments."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.errors import exit_on_error
from xbat_live.cli.services import archive_server, free_tcp_port
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.archive import TiledServer


def serve(  # noqa: PLR0917 - options of a command
    directory: Annotated[
        Path,
        typer.Argument(help="Archive folder, made if it is not there; or an experiment file (.toml) that names it."),
    ] = Path("archive"),
    port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8751,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in, the key still protects it.")
    ] = "127.0.0.1",
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with frames to be read in place; may be repeated. Default: as last time, and `frames` beside the archive."
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            help="postgresql://USER:PASSWORD@HOST/DATABASE instead of SQLite.",
            envvar="XBAT_ARCHIVE__CATALOG",
            show_envvar=True,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="redis://HOST:PORT/0 for live views instead of memory.",
            envvar="XBAT_ARCHIVE__STREAMING_CACHE",
            show_envvar=True,
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help='Tiled profile that points here; "" writes none.', metavar="NAME")
    ] = "xbat",
) -> None:
    """Serve an archive with Tiled: frames read in place, API key, SQLite catalog or PostgreSQL. Ctrl-C ends it.

    Analysts then read with xbat_live.open("last"), tiled.client.from_profile("xbat") or a browser.

    Examples:  xbat serve    |    xbat serve my-cell.toml    |    xbat serve my-cell/archive --frames /data/my-cell/frames --port 8010
    """
    with exit_on_error():
        server = _server(directory, port or free_tcp_port(), host, frames, catalog, cache)
        server.start()
        typer.echo(f"Tiled starts at {server.ui_url} (this takes some seconds)")
        try:
            server.wait_ready()
            _tell(server)
            if profile:
                _install(server, profile)
            typer.echo("Ctrl-C ends it")
            _wait_for_signal()
        finally:
            server.stop()


def _server(  # noqa: PLR0917
    directory: Path, port: int, host: str, frames: list[Path] | None, catalog: str | None, cache: str | None
) -> TiledServer:
    from xbat_live.archive import TiledServer

    if directory.suffix == ".toml":
        if frames:
            raise ConfigError(f"{directory} names the folders of the frames; give no --frames with an experiment file")
        changes = {"archive.catalog": catalog, "archive.streaming_cache": cache}
        from xbat_live.config import load_config

        config = load_config(directory, {key: value for key, value in changes.items() if value is not None})
        return archive_server(config, port=port, host=host)
    return TiledServer.as_before(
        directory,
        port=port,
        host=host,
        readable_storage=tuple(frames) if frames else None,
        catalog=catalog,
        streaming_cache=cache,
    )


def _tell(server: TiledServer) -> None:
    """Say where it is; the key itself only to a person, never into a file."""
    key_file = server.settings.key_file
    if sys.stdout.isatty():
        typer.echo(f"ready. In a browser: {server.settings.ui_url_with_key()}")
    else:
        typer.echo(f"ready. In a browser: {server.ui_url}   API key in {key_file}")
    typer.echo(f"In Python: tiled.client.from_uri({server.uri!r}, api_key=open({str(key_file)!r}).read().strip())")


def _install(server: TiledServer, name: str) -> None:
    from xbat_live.archive import ArchiveError, install_profile

    try:
        file = install_profile(server.uri, server.api_key, directory=server.settings.directory, name=name)
    except ArchiveError as error:  # a convenience: never a reason not to serve
        typer.echo(f"xbat: {error}", err=True)
    else:
        typer.echo(f"Tiled profile {name!r} in {file}")


def _wait_for_signal() -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    previous = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        signal.pause()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
