"""``xbat export``: a run as a file for other programs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.bars import leaving_nothing_behind, progress_bar
from xbat_live.cli.errors import exit_on_error
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.exchange.export import Format

FORMATS = ("nexus", "dxchange", "tiff", "zarr", "csv")


def export(  # noqa: PLR0917 - options of a command
    run: Annotated[
        str, typer.Argument(help='Uid of the run, its first characters (at least 5), a scan number, or "last".')
    ],
    form: Annotated[str, typer.Option("--format", "-f", help=f"One of {', '.join(FORMATS)}.")] = "nexus",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File to write; for zarr and csv a folder. Default: run-UID with the format's ending."
        ),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Archive folder; its server is started when it does not run.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="Address of a running archive; its key in XBAT_ARCHIVE__API_KEY, or --api-key.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Key of that archive.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier export left there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON on standard output.")] = False,
) -> None:
    """Write a run into a file: frames with flats and darks, energies, positions, verdicts, dose, all tables.

    nexus: NXtomo (image_key 3: frames that were rejected), and NXxas, NXxasproc when there are several energies. dxchange: Data
    Exchange, for tomopy. tiff: OME-TIFF. zarr: for xarray. csv: the tables only. Frames are streamed; the file appears when it is
    complete, and an existing one stays unless --force is given.

    Without --archive and --uri: XBAT_ARCHIVE__URI, else the Tiled profile xbat, which `xbat serve` writes.

    Examples:  xbat export last    |    xbat export 99e47888 --format dxchange -o cell-7.h5 --archive my-cell/archive
    """
    with exit_on_error(), leaving_nothing_behind("export"):
        chosen = _format(form)
        from xbat_live.archive import open_archive, open_run
        from xbat_live.exchange.export import check_export, default_name, export_run

        if out is not None:
            check_export(out, chosen, force=force)
        client = open_archive(uri=uri, api_key=api_key, folder=archive)
        try:
            opened = open_run(client, run)
            target = out if out is not None else Path(default_name(opened.uid, chosen))
            began_s = time.monotonic()
            with progress_bar() as show:
                frames, size_bytes = export_run(opened, target, chosen, force=force, progress=show)
            elapsed_s = time.monotonic() - began_s
        finally:
            client.context.close()
    result = {"file": str(target), "format": chosen, "run": opened.uid, "frames": frames, "bytes": size_bytes}
    if as_json:
        typer.echo(json.dumps(result | {"elapsed_s": elapsed_s}, indent=1))
    elif frames:
        typer.echo(f"{target}: {frames} frames, {size_bytes / 1e6:.1f} MB, in {elapsed_s:.1f} s")
    else:
        typer.echo(f"{target}: the tables of run {opened.uid}")


def _format(text: str) -> Format:
    for form in FORMATS:
        if text.lower() == form:
            return form  # type: ignore[return-value]
    raise ConfigError(f"--format {text!r}: unknown; one of {', '.join(FORMATS)}")
