"""What the commands of `xbat analyse` share: options, the archive, progress, and whether figures can be drawn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from xbat_live.config import ConfigError

KEY_VARIABLE = "TILED_API_KEY"

RunUid = Annotated[str, typer.Argument(help='Uid of the run, its first characters (at least 5), or "last".')]
ArchiveFolder = Annotated[
    Path, typer.Option(help="Archive folder; its server is started for the analysis. With --uri: where the key is.")
]
ArchiveUri = Annotated[
    str | None,
    typer.Option(
        help=f"Address of a running archive; its key is read from the archive folder, or from {KEY_VARIABLE}."
    ),
]
FrameFolders = Annotated[
    list[Path] | None, typer.Option(help="Folder with the frames, if not beside the archive; may be repeated.")
]
DrawFigures = Annotated[
    bool | None,
    typer.Option("--figures/--no-figures", help="Draw figures (PNG, PDF); default: if matplotlib is there."),
]
Overwrite = Annotated[bool, typer.Option("--force", help="Overwrite files in the output folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON on standard output.")]


def may_draw(figures: bool | None) -> bool:
    """Return whether figures are drawn: wanted, or not refused and matplotlib is there; raises when wanted and it is not."""
    from xbat_live.analysis.figures import FiguresUnavailable, check_matplotlib

    if figures is False:
        return False
    try:
        check_matplotlib()
    except FiguresUnavailable as error:
        if figures:
            raise
        say(f"no figures: {error}")
        return False
    return True


@contextmanager
def archive_client(archive: Path, uri: str | None, frames: list[Path] | None) -> Iterator[Any]:
    """Give a client of a served archive, or of the one in a folder, whose server is started for the time."""
    from xbat_live.archive import ArchiveSettings, TiledServer, connect

    if uri is not None:
        key_file = archive / "api_key"
        key = key_file.read_text().strip() if key_file.is_file() else os.environ.get(KEY_VARIABLE)
        client = connect(uri, key)
        try:
            yield client
        finally:
            client.context.close()
        return
    if not ArchiveSettings(archive).exists:
        raise ConfigError(
            f"{archive}: no archive there; give its folder with --archive, or --uri of one that is served"
        )
    say("starting the archive's server")
    with TiledServer.as_before(archive, readable_storage=tuple(frames) if frames else None) as server:
        client = connect(server.uri, server.api_key)
        try:
            yield client
        finally:
            client.context.close()


def say(text: str) -> None:
    """Tell on standard error."""
    typer.echo(text, err=True)


def progress(what: str, done: int, total: int) -> None:
    """Overwrite one line on a terminal; in a pipe a line per ten frames is enough."""
    if sys.stderr.isatty():
        typer.echo(f"\r\033[K{what}  {done}/{total}" + ("\n" if done == total else ""), err=True, nl=False)
    elif done < total and (total <= 10 or done % 10 == 0):
        say(f"{what}  {done + 1}/{total}")
