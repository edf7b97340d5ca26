"""Figures as files: which there are, and writing them without harm to what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xbat_live.analysis.motion import MotionAnalysis
from xbat_live.analysis.run_frames import AnalysisError
from xbat_live.analysis.xas_results import XasRunAnalysis

FORMATS = (".png", ".pdf")
XAS_FIGURES = ("xas-spectra", "xas-components", "xas-maps", "xas-dose")
Maker = tuple[str, Callable[[], Any]]
RESOLUTION_DPI = 200


class FiguresUnavailable(AnalysisError):  # noqa: N818 - reads as what it says
    """matplotlib is not installed."""


def check_matplotlib() -> None:
    """Raise `FiguresUnavailable` when there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise FiguresUnavailable(
            f"figures need matplotlib ({error}); install it with: pip install 'xbat-live[figures]', or give --no-figures"
        ) from error


def figure_files(pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return the names of the files that `write_motion_figures` makes for these pairs."""
    names = ["motion-path", *(["motion-flow"] if pairs else []), *(f"deformation-{a}-{b}" for a, b in pairs)]
    return [name + suffix for name in names for suffix in FORMATS]


def write_motion_figures(
    analysis: MotionAnalysis,
    folder: Path,
    *,
    force: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """Write the figures as PNG and PDF; return the files.

    Parameters
    ----------
    folder
        Made if it is missing.
    force
        Overwrite files of the same name.

    Raises
    ------
    FiguresUnavailable
        No matplotlib.
    AnalysisError
        A file exists, or the folder cannot be written.
    """
    check_matplotlib()
    from xbat_live.analysis.figures.deformation import deformation_figure
    from xbat_live.analysis.figures.flow import flow_figure
    from xbat_live.analysis.figures.path import path_figure

    makers: list[Maker] = [("motion-path", partial(path_figure, analysis))]
    if analysis.pairs:
        makers.append(("motion-flow", partial(flow_figure, analysis)))
    makers += [(f"deformation-{pair.name}", partial(deformation_figure, pair)) for pair in analysis.pairs]
    title = f"Motion of run {analysis.run_uid}, {analysis.key}"
    return _write(makers, folder, title, analysis.parameters["xbat_live"], force=force, progress=progress)


def xas_figure_files() -> list[str]:
    """Return the names of the files that `write_xas_figures` makes."""
    return [name + suffix for name in XAS_FIGURES for suffix in FORMATS]


def write_xas_figures(
    analysis: XasRunAnalysis,
    folder: Path,
    *,
    force: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Path]:
    """Write the figures of an analysis of energy sweeps; see `write_motion_figures`."""
    check_matplotlib()
    from xbat_live.analysis.figures.xas import components_figure, dose_figure, maps_figure, spectra_figure

    drawn = (spectra_figure, components_figure, maps_figure, dose_figure)
    makers: list[Maker] = [(name, partial(draw, analysis)) for name, draw in zip(XAS_FIGURES, drawn, strict=True)]
    title = f"Energy sweeps of run {analysis.run_uid}"
    return _write(makers, folder, title, analysis.parameters["xbat_live"], force=force, progress=progress)


def _write(
    makers: Sequence[Maker],
    folder: Path,
    title: str,
    version: str,
    *,
    force: bool,
    progress: Callable[[str, int, int], None],
) -> list[Path]:
    from matplotlib import rc_context

    from xbat_live.analysis.figures.style import RC

    check_free(folder, [name + suffix for name, _ in makers for suffix in FORMATS], force=force)
    written = []
    for i, (name, make) in enumerate(makers):
        progress(f"figure {name}", i, len(makers))
        with rc_context(RC):
            figure = make()
            for suffix in FORMATS:
                target = folder / (name + suffix)
                write_whole(target, partial(_save, figure, suffix, title, version))
                written.append(target)
    progress("figures", len(makers), len(makers))
    return written


def check_free(folder: Path, names: Sequence[str], *, force: bool) -> None:
    """Make `folder` and check that none of the files is there.

    Raises
    ------
    AnalysisError
        One is, and `force` is not given; or the folder cannot be made.
    """
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise AnalysisError(f"{folder / there[0]} exists; give --force to overwrite, or another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnalysisError(f"{folder}: cannot be made ({error}); give another --out") from error


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside `target` and move it there when it is complete.

    Raises
    ------
    AnalysisError
        It cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, target)
    except OSError as error:
        raise AnalysisError(f"{target}: not written: {error}; free the disk or give another --out") from error
    finally:
        part.unlink(missing_ok=True)


def _save(figure: Any, suffix: str, title: str, version: str, part: Path) -> None:
    metadata = {"Title": title, "Creator" if suffix == ".pdf" else "Software": f"xbat_live {version}"}
    figure.savefig(part, format=suffix[1:], dpi=RESOLUTION_DPI, metadata=metadata)
    figure.set_layout_engine("none")  # laid out once, for all formats
