"""Figures of motion (like Figs 2 to 4 of Sun et al. 2025) and of energy sweeps (like those of the LiNiO2 paper).

They need matplotlib (optional extra ``figures``).
"""

from xbat_live.analysis.figures.writing import (
    FiguresUnavailable,
    check_matplotlib,
    figure_files,
    write_motion_figures,
    write_xas_figures,
    xas_figure_files,
)

__all__ = [
    "FiguresUnavailable",
    "check_matplotlib",
    "figure_files",
    "write_motion_figures",
    "write_xas_figures",
    "xas_figure_files",
]
