"""``xbat report``: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbat_live.cli.errors import EXIT_CONFIG, exit_on_error


def report(
    run: Annotated[
        str, typer.Argument(help='Uid, its first characters (at least 5), a scan number, or "last".')
    ] = "last",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: report-UID.html.")] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Archive folder; its server is started when it does not run.")
    ] = None,
    uri: Annotated[str | None, typer.Option(help="Address of a running archive.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key of that archive.")] = None,
) -> None:
    """Write what a run did, and what the sample got, into one HTML file that opens from disk and prints well.

    Exit codes: 0 written, 1 no archive or no such run, 2 the file cannot be written.

    Examples:  xbat report last -o report.html    |    xbat report 99e47888 --archive my-cell/archive
    """
    with exit_on_error():
        from xbat_live.archive import open as open_run
        from xbat_live.report import make_report

        opened = open_run(run, uri=uri, api_key=api_key, folder=archive)
        content = make_report(opened)
        target = out if out is not None else Path(f"report-{opened.uid[:8]}.html")
    try:
        target.write_text(content, encoding="utf-8")
    except OSError as error:
        typer.echo(f"xbat: {target} cannot be written: {error.strerror}; give another with -o", err=True)
        raise typer.Exit(EXIT_CONFIG) from error
    typer.echo(f"{target}: {len(content) / 1e6:.1f} MB")
