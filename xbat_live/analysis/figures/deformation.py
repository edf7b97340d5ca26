"""Deformation of one pair: differential map, amplitude, direction, regions, compass, representative box (Sun et al. 2025, Fig. 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from xbat_live.analysis.deformation import PairFlow
from xbat_live.analysis.figures.style import (
    AMPLITUDE_MAP,
    BLUE,
    CLUSTER_COLOURS,
    DIFFERENCE_MAP,
    DIRECTION_MAP,
    arrows,
    density_name,
    duration,
    letter,
    nice,
    show_density,
    show_image,
)

ARROWS_ACROSS = 22
SMOOTHED_PX = 1.5
BAR: Any = {"shrink": 0.85, "location": "bottom"}


def deformation_figure(pair: PairFlow) -> Any:
    """Return the figure of one pair."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17.0, 8.2))
    grid = figure.add_gridspec(2, 5)
    panels = [
        figure.add_subplot(grid[row, column]) for row in range(2) for column in range(5) if (row, column) != (1, 1)
    ]
    reference, change, amplitude, direction, field, regions, histogram, turn, size = panels
    compass = figure.add_subplot(grid[1, 1], projection="polar")
    show_density(reference, pair.reference_od, pair.pixel_size_um)
    letter(reference, "a", f"frame {pair.frames[0]}, {density_name(reflection=pair.reflection)}")
    _difference(figure, change, pair)
    _maps(figure, amplitude, direction, pair)
    show_density(field, pair.reference_od, pair.pixel_size_um, faint=True)
    step = max(2, min(pair.mask.shape) // ARROWS_ACROSS)
    scale = arrows(field, pair.flow, pair.mask, pair.pixel_size_um, step)
    letter(field, "e", f"flow on particles, arrows ×{scale:g}")
    _clusters(regions, pair)
    _compass(compass, pair)
    _histogram(histogram, pair)
    _boxes(turn, size, pair)
    figure.suptitle(
        f"Deformation from frame {pair.frames[0]} to {pair.frames[1]} ({duration(pair.elapsed_s)}), rigid shift "
        f"y {pair.rigid_shift_yx_px[0]:+.2f} px, x {pair.rigid_shift_yx_px[1]:+.2f} px taken off; "
        f"mean strain yy {100 * pair.strain[0][0]:+.3f} %, xx {100 * pair.strain[1][1]:+.3f} %",
        fontsize=9.5,
    )
    return figure


def _difference(figure: Any, axes: Any, pair: PairFlow) -> None:
    # Shot noise of single pixels hides what is wider: smoothed for the eye, the archive holds it as it is.
    known = np.isfinite(pair.difference)
    smooth = ndimage.gaussian_filter(np.where(known, pair.difference, 0.0), SMOOTHED_PX)
    smooth = np.where(known, smooth, np.nan)
    limit = float(np.nanpercentile(np.abs(smooth), 99.5)) or 1.0
    shown = show_image(axes, smooth, pair.pixel_size_um, cmap=DIFFERENCE_MAP, vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=axes, label=f"change of {density_name(reflection=pair.reflection)}", **BAR)
    step = max(2, min(pair.mask.shape) // 12)
    arrows(axes, pair.flow, pair.mask, pair.pixel_size_um, step, colour="black", key=False)
    meaning = "red darker, blue brighter" if pair.reflection else "red appeared, blue gone"
    letter(axes, "b", f"difference: {meaning}")


def _maps(figure: Any, amplitude: Any, direction: Any, pair: PairFlow) -> None:
    length_nm = 1e3 * pair.pixel_size_um * np.hypot(*pair.flow)
    top_nm = float(np.nanpercentile(length_nm, 99.5)) or 1.0
    shown = show_image(amplitude, length_nm, pair.pixel_size_um, cmap=AMPLITUDE_MAP, vmin=0, vmax=top_nm)
    figure.colorbar(shown, ax=amplitude, label="amplitude (nm)", **BAR)
    letter(amplitude, "c", "amplitude")
    degrees = np.rad2deg(np.arctan2(pair.flow[0], pair.flow[1]))
    shown = show_image(direction, degrees, pair.pixel_size_um, cmap=DIRECTION_MAP, vmin=-180, vmax=180)
    figure.colorbar(shown, ax=direction, label="direction (deg; 0 right, 90 down)", ticks=range(-180, 181, 90), **BAR)
    letter(direction, "d", "direction")


def _clusters(axes: Any, pair: PairFlow) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    clusters, pixel_um = pair.clusters, pair.pixel_size_um
    n = len(clusters.fraction)
    colours = [CLUSTER_COLOURS[i % len(CLUSTER_COLOURS)] for i in range(n)]
    show_image(
        axes,
        np.ma.masked_less(clusters.labels, 0),
        pixel_um,
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=n - 0.5,
    )
    axes.set_facecolor("0.93")
    handles = []
    for i in range(n):
        dy, dx = clusters.centres_yx_px[i] * pixel_um * 1e3
        handles.append(
            Patch(color=colours[i], label=f"{100 * clusters.fraction[i]:.0f} %: x {dx:+.0f}, y {dy:+.0f} nm")
        )
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, frameon=False, fontsize=6.5)
    letter(axes, "f", f"{n} regions of common motion")


def _compass(axes: Any, pair: PairFlow) -> None:
    compass = pair.compass
    axes.set_theta_direction(-1)  # as in the image: 90 deg points down
    lengths_nm = 1e3 * pair.pixel_size_um * compass.amplitude_px
    colours = [CLUSTER_COLOURS[i % len(CLUSTER_COLOURS)] for i in compass.cluster]
    angles = np.deg2rad(compass.direction_deg)
    axes.vlines(angles, 0, lengths_nm, colors=colours, linewidth=0.6, alpha=0.8)
    axes.scatter(angles, lengths_nm, c=colours, s=4, zorder=3)
    top_nm = float(lengths_nm.max()) or 1.0
    ring_nm = nice(top_nm / 2)
    axes.set_rgrids(np.arange(ring_nm, top_nm * 1.05, ring_nm), angle=-22)
    axes.set_rmax(top_nm * 1.05)
    axes.set_thetagrids(range(0, 360, 45), labels=["0°", "45°", "90°\n(down)", "135°", "180°", "−135°", "−90°", "−45°"])
    axes.grid(color="0.85")
    letter(axes, "g", "compass (nm), colours as (f)")


def _histogram(axes: Any, pair: PairFlow) -> None:
    statistics, pixel_nm = pair.statistics, 1e3 * pair.pixel_size_um
    axes.stairs(
        statistics.amplitude_density / pixel_nm, statistics.amplitude_edges_px * pixel_nm, fill=True, color=BLUE
    )
    mean_nm = statistics.mean_amplitude_px * pixel_nm
    axes.axvline(mean_nm, color="black", linewidth=1, label=f"mean {mean_nm:.1f} nm")
    if pair.floor_rms_px is not None:
        floor_nm = pair.floor_rms_px * pixel_nm
        axes.axvline(
            floor_nm,
            color="black",
            linewidth=1,
            linestyle=":",
            label=f"noise: rms between\nneighbours {floor_nm:.1f} nm",
        )
    axes.set_xlabel("amplitude (nm)")
    axes.set_ylabel("probability density (1/nm)")
    axes.legend(frameon=False)
    letter(axes, "h", "amplitude on particles")


def _boxes(turn: Any, size: Any, pair: PairFlow) -> None:
    boxes, pixel_um = pair.convergence, pair.pixel_size_um
    sides_um = boxes.box_sizes_px * pixel_um
    degrees = (boxes.mean_direction_deg - boxes.whole_direction_deg + 180) % 360 - 180
    amplitudes_nm = boxes.mean_amplitude_px * pixel_um * 1e3
    whole_nm = boxes.whole_amplitude_px * pixel_um * 1e3
    turn.plot(sides_um, degrees, color="0.65", linewidth=0.7)
    turn.axhline(0, color="black", linewidth=1)
    band: Any = {"color": BLUE, "alpha": 0.25, "linewidth": 0, "label": "rms"}
    turn.fill_between(sides_um, -boxes.direction_deviation_deg, boxes.direction_deviation_deg, **band)
    turn.set_ylabel(f"direction − that of the field ({boxes.whole_direction_deg:.0f}°) (deg)")
    turn.set_ylim(-185, 185)
    turn.set_yticks(range(-180, 181, 90))
    size.plot(sides_um, amplitudes_nm, color="0.65", linewidth=0.7)
    size.axhline(whole_nm, color="black", linewidth=1)
    deviation_nm = boxes.amplitude_deviation_px * pixel_um * 1e3
    size.fill_between(sides_um, whole_nm - deviation_nm, whole_nm + deviation_nm, **band)
    size.set_ylabel("mean amplitude (nm)")
    for axes, name, what in ((turn, "i", "direction"), (size, "j", "amplitude")):
        axes.set_xlabel("side of the box (µm)")
        if boxes.representative_um is not None:
            label = f"representative: {boxes.representative_um:.1f} µm"
            axes.axvline(boxes.representative_um, color="black", linestyle="--", linewidth=1, label=label)
        axes.legend(frameon=False)
        letter(axes, name, f"{what}, {boxes.mean_amplitude_px.shape[1]} random boxes")
