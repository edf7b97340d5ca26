"""Figures as files: which there are, and writing them without harm to what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xbat_live.analysis.motion import MotionAnalysis
from xbat_live.analysis.run_frames import AnalysisError

FORMATS = (".png", ".pdf")
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
    from matplotlib import rc_context

    from xbat_live.analysis.figures.deformation import deformation_figure
    from xbat_live.analysis.figures.flow import flow_figure
    from xbat_live.analysis.figures.path import path_figure
    from xbat_live.analysis.figures.style import RC

    names = figure_files([pair.frames for pair in analysis.pairs])
    check_free(folder, names, force=force)
    makers: list[tuple[str, Callable[[], Any]]] = [("motion-path", partial(path_figure, analysis))]
    if analysis.pairs:
        makers.append(("motion-flow", partial(flow_figure, analysis)))
    makers += [(f"deformation-{pair.name}", partial(deformation_figure, pair)) for pair in analysis.pairs]
    written = []
    for i, (name, make) in enumerate(makers):
        progress(f"figure {name}", i, len(makers))
        with rc_context(RC):
            figure = make()
            for suffix in FORMATS:
                target = folder / (name + suffix)
                write_whole(target, partial(_save, figure, suffix, analysis))
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


def _save(figure: Any, suffix: str, analysis: MotionAnalysis, part: Path) -> None:
    title = f"Motion of run {analysis.run_uid}, {analysis.key}"
    metadata = {
        "Title": title,
        "Creator" if suffix == ".pdf" else "Software": f"xbat_live {analysis.parameters['xbat_live']}",
    }
    figure.savefig(part, format=suffix[1:], dpi=RESOLUTION_DPI, metadata=metadata)
    figure.set_layout_engine("none")  # laid out once, for all formats
