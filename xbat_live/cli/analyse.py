"""``xbat analyse``: what a run says, worked out after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbat_live.cli.analyse_xas import xas
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
from xbat_live.config import ConfigError

if TYPE_CHECKING:
    from xbat_live.analysis import MotionAnalysis

app = typer.Typer(help="Work out what a run says, after it.", no_args_is_help=True)

SUMMARY = "motion.json"


@app.callback()
def _group() -> None:
    """Work out what a run says, after it."""


@app.command(
    epilog="Examples:  xbat analyse motion last    |    xbat analyse motion 99e47888 --pairs 3:13,13:35 --field A --out figures    |    "
    "xbat analyse motion last --archive my-cell/archive --no-figures --json"
)
def motion(  # noqa: PLR0917 - options of a command
    run: RunUid,
    archive: ArchiveFolder = Path("archive"),
    uri: ArchiveUri = None,
    frames: FrameFolders = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Pairs of frames whose deformation is wanted, counted from 1 over the accepted frames of the field, or none. "
            "Default: first to middle, middle to last."
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Field of view; default: the one with most accepted frames.")
    ] = None,
    spot: Annotated[int | None, typer.Option(help="Spot on the sample, from 0; default: likewise.", min=0)] = None,
    energy: Annotated[str | None, typer.Option(help='Photon energy, e.g. "8562 eV"; default: likewise.')] = None,
    register: Annotated[
        bool,
        typer.Option("--register", help="Register all frames anew instead of taking the shifts recorded in the run."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and numbers; default: motion-UID.")] = None,
    figures: DrawFigures = None,
    force: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Tell drift from jitter and show how the electrode deformed: arrays into the archive, figures and numbers into a folder.

    Takes the accepted frames of one field of view. Results stand in the archive under analyses/UID/motion-TIME, beside earlier ones.
    """
    with exit_on_error():
        from xbat_live.analysis import RunFrames, analyse_motion, parse_pairs, recorded_image_to_stage, store_motion
        from xbat_live.archive import open_run

        chosen = None if pairs is None else parse_pairs(pairs)
        energy_ev = None if energy is None else _energy_ev(energy)
        drawn = may_draw(figures)
        with archive_client(archive, uri, frames) as client:
            view = open_run(client, run)
            selected = RunFrames(view).select(field=field, spot=spot, energy_ev=energy_ev)
            say(f"run {view.uid}, {selected.key}: {len(selected)} accepted frames")
            folder = out if out is not None else Path(f"motion-{view.uid[:8]}")
            _check_out(folder, chosen, len(selected), draw=drawn, force=force)
            analysis = analyse_motion(
                selected,
                chosen,
                register=register,
                image_to_stage=recorded_image_to_stage(view.start),
                progress=progress,
            )
            # Files first: an archive that died meanwhile must not take the work with it.
            files = _write(analysis, folder, draw=drawn, force=force)
            stored = store_motion(client, analysis)
    summary = analysis.summary() | {"stored": stored.path, "files": [str(file) for file in files]}
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    for line in _lines(analysis):
        typer.echo(line)
    typer.echo(f"arrays in the archive: {stored.path}")
    typer.echo(f"in {folder}: {', '.join(file.name for file in files)}")


def _lines(analysis: MotionAnalysis) -> Iterator[str]:
    numbers = analysis.path.summary()
    left_out = ", ".join(f"{n} {name}" for name, n in analysis.verdicts.items() if name != "accepted")
    yield f"{numbers['frames']} frames over {numbers['duration_min']:.4g} min" + (
        f"; left out: {left_out}" if left_out else ""
    )
    for axis in "yx":
        yield (
            f"{axis}  drift {numbers[f'net_drift_{axis}_um']:+.3f} ± {numbers[f'sigma_net_drift_{axis}_um']:.3f} µm, "
            f"{numbers[f'drift_rate_{axis}_um_per_min']:+.3g} µm/min; jitter σ {numbers[f'jitter_sigma_{axis}_um']:.3f} µm"
        )
    for pair in analysis.pairs:
        told = pair.summary()
        floor, box = told["noise_floor_rms_um"], told["representative_box_um"]
        yield (
            f"frames {pair.frames[0]} to {pair.frames[1]}: amplitude {1e3 * told['mean_amplitude_um']:.1f} nm (rms "
            f"{1e3 * told['rms_amplitude_um']:.1f} nm"
            + (f", noise {1e3 * floor:.1f} nm" if floor is not None else "")
            + f"), strain yy {100 * told['strain_yy']:+.3f} %, xx {100 * told['strain_xx']:+.3f} %, representative box "
            + (f"{box:.1f} µm" if box is not None else "larger than half the field")
            + ("; not above the noise" if pair.above_noise is False else "")
        )


def _check_out(
    folder: Path, pairs: tuple[tuple[int, int], ...] | None, n_frames: int, *, draw: bool, force: bool
) -> None:
    """Refuse before the work, not after it."""
    from xbat_live.analysis.figures import figure_files
    from xbat_live.analysis.figures.writing import check_free
    from xbat_live.analysis.motion import default_pairs

    names = figure_files(default_pairs(n_frames) if pairs is None else pairs) if draw else []
    check_free(folder, [SUMMARY, *names], force=force)


def _write(analysis: MotionAnalysis, folder: Path, *, draw: bool, force: bool) -> list[Path]:
    from xbat_live.analysis.figures import write_motion_figures
    from xbat_live.analysis.figures.writing import write_whole

    text = json.dumps(analysis.summary(), indent=1) + "\n"
    write_whole(folder / SUMMARY, lambda part: part.write_text(text))
    figures = write_motion_figures(analysis, folder, force=force, progress=progress) if draw else []
    return [folder / SUMMARY, *figures]


def _energy_ev(text: str) -> float:
    from xbat_live.units import parse_quantity

    try:
        return float(parse_quantity(text, "eV"))
    except ValueError as error:
        raise ConfigError(f"--energy {text!r}: {error}") from error


app.command(
    "xas",
    epilog="Examples:  xbat analyse xas last    |    xbat analyse xas 99e47888 --out figures --no-figures --json    |    "
    "xbat analyse xas last --config my-cell.toml --set xas.components=2",
)(xas)
