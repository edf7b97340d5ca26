"""Figures of a motion analysis, like Figs 2 to 4 of Sun et al. 2025. Needs matplotlib (optional extra ``figures``)."""

from xbat_live.analysis.figures.writing import (
    FiguresUnavailable,
    check_matplotlib,
    figure_files,
    write_motion_figures,
)

__all__ = ["FiguresUnavailable", "check_matplotlib", "figure_files", "write_motion_figures"]
