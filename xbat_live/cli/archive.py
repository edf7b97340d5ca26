"""``xbat archive``: look after the archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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

        client, stop = _served(directory, frames)
        try:
            results = archive.repair(client, directory / "backup")
        finally:
            client.context.close()
            stop()
    for result in results:
        cut_off = ", cut off: a stop document was added" if result.cut_off else ""
        what = f"{result.documents} documents" if result.what == "run" else result.what
        typer.echo(f"{result.uid}  {result.action}, {what}{cut_off} {result.message}")
    typer.echo(f"{sum(result.what == 'run' for result in results)} runs in the backup")
    if any(result.action == "failed" for result in results):
        raise typer.Exit(EXIT_RUN_FAILED)


def _served(directory: Path, frames: list[Path] | None) -> tuple[Any, Callable[[], None]]:
    """Return a client of the archive in `directory` and what ends its server, if it was started here."""
    from xbat_live import archive

    settings = archive.ArchiveSettings(directory)
    if (uri := archive.running_uri(settings.directory)) is not None:
        return archive.connect(uri, settings.key()), lambda: None
    server = archive.TiledServer.as_before(directory, readable_storage=tuple(frames) if frames else None)
    server.start()
    try:
        server.wait_ready()
        return archive.connect(server.uri, server.api_key), server.stop
    except BaseException:
        server.stop()
        raise
