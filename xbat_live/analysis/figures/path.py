"""The path of the sample: frames, displacement with drift and jitter, histograms (Sun et al. 2025, Fig. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbat_live.analysis.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    density_name,
    letter,
    overlay,
    show_density,
    show_image,
    time_axis,
)
from xbat_live.analysis.motion import MotionAnalysis

AXES = (("vertical (y)", BLUE), ("horizontal (x)", ORANGE))


def path_figure(analysis: MotionAnalysis) -> Any:
    """Return the figure of displacement, drift and jitter."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.5, 9.6))
    grid = figure.subplots(3, 3, height_ratios=(1.15, 1, 0.85))
    _frames(grid[0], analysis)
    path, pixel_um = analysis.path, analysis.pixel_size_um
    times, label = time_axis(path.time_s)
    for axis, (axes, (name, colour)) in enumerate(zip(grid[1], AXES, strict=False)):
        moved, drift = path.displacement_yx_um[:, axis], path.drift_yx_um[:, axis]
        sigma = path.sigma_drift_yx_um[:, axis]
        axes.plot(times, moved, "o", color=colour, markersize=3.5, label="displacement")
        axes.plot(times, drift, color="black", linewidth=1.2, label="drift")
        axes.fill_between(
            times, drift - 2 * sigma, drift + 2 * sigma, color="black", alpha=0.15, linewidth=0, label="drift ± 2σ"
        )
        axes.set_xlabel(label)
        axes.set_ylabel(f"{name} displacement (µm)")
        axes.legend(loc="best", frameon=False)
        second = axes.secondary_yaxis("right", functions=(lambda um: um / pixel_um, lambda px: px * pixel_um))
        second.set_ylabel("(px)", fontsize=7)
        second.spines["right"].set_visible(True)
        letter(
            axes,
            "de"[axis],
            f"drift {path.net_drift_yx_um[axis]:+.2f} µm ({path.mean_rate_yx_um_per_min[axis]:+.2g} µm/min),\n"
            f"      jitter σ {path.jitter_sigma_yx_um[axis]:.2g} µm",
        )
    _track(figure, grid[1][2], analysis, times, label)
    for axis, (name, colour) in enumerate(AXES):
        axes = grid[2][axis]
        histogram = path.displacement_histogram_yx[axis]
        axes.stairs(histogram.counts, histogram.edges_um, fill=True, color=colour)
        axes.set_xlabel(f"{name} displacement (µm)")
        axes.set_ylabel("frames")
        letter(axes, "gh"[axis], f"{name} displacement")
    axes = grid[2][2]
    for axis, (name, colour) in enumerate(AXES):
        histogram = path.jitter_histogram_yx[axis]
        axes.stairs(
            histogram.counts,
            histogram.edges_um,
            color=colour,
            linewidth=1.5,
            label=name,
            linestyle="-" if axis == 0 else "--",
        )
    axes.set_xlabel("jitter: displacement − drift (µm)")
    axes.set_ylabel("frames")
    axes.legend(frameon=False)
    letter(axes, "i", "jitter")
    for axes in grid[2]:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(
        f"Motion of the sample against the stage: run {analysis.run_uid[:8]}, {analysis.key}, {len(path.time_s)} frames",
        fontsize=9.5,
    )
    return figure


def _frames(row: Any, analysis: MotionAnalysis) -> None:
    first, last = analysis.parameters["shown_frames"]
    pixel_um = analysis.pixel_size_um
    for axes, name, image, number in ((row[0], "a", analysis.first_od, first), (row[1], "b", analysis.last_od, last)):
        show_density(axes, image, pixel_um)
        letter(axes, name, f"frame {number}, {density_name(reflection=analysis.reflection)}")
    show_image(row[2], overlay(analysis.first_od, analysis.last_od), pixel_um)
    letter(row[2], "c", f"overlap: {first} orange, {last} blue, both dark")


def _track(figure: Any, axes: Any, analysis: MotionAnalysis, times: Any, label: str) -> None:
    path = analysis.path
    y, x = path.displacement_yx_um.T
    axes.plot(x, y, color="0.75", linewidth=0.7, zorder=1)
    points = axes.scatter(x, y, c=times, cmap="viridis", s=14, zorder=2)
    axes.plot(path.drift_yx_um[:, 1], path.drift_yx_um[:, 0], color="black", linewidth=1.2, zorder=3, label="drift")
    axes.plot(
        x[0],
        y[0],
        marker="s",
        color="none",
        markeredgecolor=GREEN,
        markersize=8,
        zorder=4,
        linestyle="none",
        label="start",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_yaxis()  # as in the image: y downwards
    axes.set_xlabel("x displacement (µm)")
    axes.set_ylabel("y displacement (µm), down as in the image")
    axes.legend(loc="best", frameon=False)
    figure.colorbar(points, ax=axes, label=label, shrink=0.8)
    travelled = float(np.hypot(np.diff(x), np.diff(y)).sum())
    letter(axes, "f", f"path, {travelled:.2f} µm in all")
