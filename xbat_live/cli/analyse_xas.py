"""``xbat analyse xas``: component spectra, maps and the dose threshold of a run of energy sweeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xbat_live.cli.analysing import (
    ArchiveFolder,
    ArchiveUri,
    AsJson,
    DrawFigures,
    FrameFolders,
    Overwrite,
    RunUid,
    archive_client,
    may_draw,
    progress,
    say,
)
from xbat_live.cli.errors import exit_on_error

if TYPE_CHECKING:
    from xbat_live.analysis import XasRunAnalysis
    from xbat_live.config import ExperimentConfig

SUMMARY = "xas.json"


def xas(  # noqa: PLR0917 - options of a command
    run: RunUid,
    archive: ArchiveFolder = Path("archive"),
    uri: ArchiveUri = None,
    frames: FrameFolders = None,
    config: Annotated[
        Path | None, typer.Option(help="Experiment file in place of the one that the run holds.", dir_okay=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help='Another value for the analysis, e.g. --set xas.components=2 or --set "xas.bin=8".'),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and numbers; default: xas-UID.")] = None,
    figures: DrawFigures = None,
    force: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find component spectra, maps and the dose threshold of a protocol of energy sweeps (operando_ffi_xas).

    Takes all cubes of the protocol, also those of earlier runs that this one went on from. Results stand in the archive under
    analyses/UID/xas-TIME, beside earlier ones.
    """
    with exit_on_error():
        from xbat_live.analysis import analyse_xas, protocol_cubes, store_xas
        from xbat_live.archive import open_run
        from xbat_live.sweep_setup import xas_settings

        drawn = may_draw(figures)
        with archive_client(archive, uri, frames) as client:
            view = open_run(client, run)
            protocol = protocol_cubes(view)
            settings = xas_settings(_configuration(view, config, changes or []))
            say(f"run {view.uid}: {len(protocol.cubes)} cubes in {len(protocol.run_uids)} run(s)")
            folder = out if out is not None else Path(f"xas-{view.uid[:8]}")
            _check_out(folder, draw=drawn, force=force)
            analysis = analyse_xas(protocol, settings, progress=progress)
            # Files first: an archive that died meanwhile must not take the work with it.
            files = _write(analysis, folder, draw=drawn, force=force)
            stored = store_xas(client, analysis)
    summary = analysis.summary() | {"stored": stored.path, "files": [str(file) for file in files]}
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    for line in _lines(analysis):
        typer.echo(line)
    typer.echo(f"arrays in the archive: {stored.path}")
    typer.echo(f"in {folder}: {', '.join(file.name for file in files)}")


def _configuration(view: Any, file: Path | None, changes: list[str]) -> ExperimentConfig:
    from xbat_live.cli.config import parse_changes
    from xbat_live.config import ConfigError, load_config, make_config

    overrides = parse_changes(changes)
    if file is not None:
        return load_config(file, overrides)
    content = view.start.get("config")
    if not isinstance(content, dict):
        raise ConfigError(
            f"run {view.uid[:8]} holds no configuration (it was not run by `xbat run`); name its experiment file: --config FILE"
        )
    return make_config(content, source=f"run {view.uid[:8]}, with --set", overrides=overrides)


def _lines(analysis: XasRunAnalysis) -> Iterator[str]:
    from xbat_live.dose import format_gy

    told = analysis.summary()
    rate = told["largest_dose_rate_gy_s"]
    yield f"dose rate up to {format_gy(rate)}/s; {told['components']} component spectra"
    for name, group in told["groups"].items():
        fractions = " ".join(f"{100 * value:.1f} %" for value in group["fractions"])
        edge = f"edge {group['edge_ev']:.2f} eV" if group["edge_ev"] is not None else "no edge"
        yield (
            f"{name}: {group['cubes']} cubes, up to {format_gy(group['largest_dose_gy'])}, {edge}"
            + (f", components {fractions}" if fractions else "")
            + f"; {group['masked_pixels']} pixels masked"
        )
    threshold = analysis.threshold
    if threshold.found:
        low, high = (format_gy(limit) for limit in threshold.interval_gy)
        yield f"threshold: {format_gy(threshold.value_gy)} ({low} to {high}, 95 %)"
    else:
        yield f"no threshold: {threshold.reason}"
    for note in analysis.notes:
        yield f"note: {note}"


def _check_out(folder: Path, *, draw: bool, force: bool) -> None:
    """Refuse before the work, not after it."""
    from xbat_live.analysis.figures import xas_figure_files
    from xbat_live.analysis.figures.writing import check_free

    check_free(folder, [SUMMARY, *(xas_figure_files() if draw else [])], force=force)


def _write(analysis: XasRunAnalysis, folder: Path, *, draw: bool, force: bool) -> list[Path]:
    from xbat_live.analysis.figures import write_xas_figures
    from xbat_live.analysis.figures.writing import write_whole

    text = json.dumps(analysis.summary(), indent=1) + "\n"
    write_whole(folder / SUMMARY, lambda part: part.write_text(text))
    drawn = write_xas_figures(analysis, folder, force=force, progress=progress) if draw else []
    return [folder / SUMMARY, *drawn]
