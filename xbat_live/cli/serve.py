"""``xbat serve``: the archive of past and running experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.errors import exit_on_error


def serve(
    directory: Annotated[Path, typer.Argument(help="Archive folder; made if it is not there.")] = Path("archive"),
    port: Annotated[int, typer.Option(help="HTTP port on 127.0.0.1; 0 takes a free one.")] = 8000,
    frames: Annotated[list[Path] | None, typer.Option(help="Folder with frames to be read in place; may be repeated.")] = None,
) -> None:
    """Serve an archive with Tiled: SQLite catalog, frames read in place, API key. Ctrl-C ends it.

    Examples:  xbat serve    |    xbat serve xbat-demo/archive --frames xbat-demo/frames --port 8010

    In Python: from tiled.client import from_uri; client = from_uri("http://127.0.0.1:8000", api_key=...)
    """
    with exit_on_error():
        from xbat_live.archive import TiledServer

        storage = frames or [directory.resolve().parent / "frames"]
        with TiledServer(directory, port=port, readable_storage=storage) as server:
            typer.echo(f"Tiled starts at {server.ui_url} (first start takes some seconds)")
            server.wait_ready(timeout_s=120)
            typer.echo(f"ready; the API key is in {server.api_key_file}")
            server.wait()
