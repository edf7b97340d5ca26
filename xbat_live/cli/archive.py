"""``xbat archive``: look after the archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.errors import EXIT_RUN_FAILED, exit_on_error

app = typer.Typer(help="Look after the archive.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look after the archive."""


@app.command()
def repair(
    directory: Annotated[Path, typer.Argument(help="Archive folder, as given to `xbat serve`.")] = Path("archive"),
    frames: Annotated[list[Path] | None, typer.Option(help="Folder with the frames; may be repeated.")] = None,
) -> None:
    """Insert into Tiled what its backup holds, after Tiled was away or a run was cut off. Doing it again changes nothing.

    Examples:  xbat archive repair    |    xbat archive repair my-cell/archive --frames my-cell/frames
    """
    with exit_on_error():
        from xbat_live import archive

        beside = directory.resolve().parent / "frames"
        storage = frames or ([beside] if beside.is_dir() else [])
        with archive.TiledServer(directory, readable_storage=storage) as server:
            client = archive.connect(server.uri, server.api_key)
            results = archive.repair(client, directory / "backup")
            client.context.close()
    for result in results:
        cut_off = ", cut off: a stop document was added" if result.cut_off else ""
        what = f"{result.documents} documents" if result.what == "run" else result.what
        typer.echo(f"{result.uid}  {result.action}, {what}{cut_off} {result.message}")
    typer.echo(f"{sum(result.what == 'run' for result in results)} runs in the backup")
    if any(result.action == "failed" for result in results):
        raise typer.Exit(EXIT_RUN_FAILED)
