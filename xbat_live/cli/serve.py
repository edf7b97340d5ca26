"""``xbat serve``: the archive of past and running experiments."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.errors import exit_on_error
from xbat_live.cli.services import free_tcp_port


def serve(
    directory: Annotated[Path, typer.Argument(help="Archive folder; made if it is not there.")] = Path("archive"),
    port: Annotated[int, typer.Option(help="HTTP port on 127.0.0.1; 0 takes a free one.")] = 8751,
    frames: Annotated[
        list[Path] | None, typer.Option(help="Folder with frames to be read in place; may be repeated.")
    ] = None,
) -> None:
    """Serve an archive with Tiled: SQLite catalog, frames read in place, API key. Ctrl-C ends it.

    Examples:  xbat serve    |    xbat serve my-cell/archive --frames /data/my-cell/frames --port 8010

    In Python: from tiled.client import from_uri; client = from_uri("http://127.0.0.1:8751", api_key=...)
    """
    with exit_on_error():
        from xbat_live.archive import TiledServer

        beside = directory.resolve().parent / "frames"
        storage = frames or ([beside] if beside.is_dir() else [])
        server = TiledServer(directory, port=port or free_tcp_port(), readable_storage=storage)
        typer.echo(f"Tiled starts at {server.ui_url} (this takes some seconds)")
        with server:
            typer.echo(f"ready. In a browser: {server.settings.ui_url_with_key()}")
            typer.echo(
                f"In Python: tiled.client.from_uri({server.uri!r}, api_key=open({str(server.settings.key_file)!r}).read().strip())"
            )
            typer.echo("Ctrl-C ends it")
            _wait_for_signal()


def _wait_for_signal() -> None:
    signals = {signal.SIGINT, signal.SIGTERM}
    previous = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        signal.pause()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
