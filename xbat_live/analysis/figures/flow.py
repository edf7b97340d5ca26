"""Flow between pairs of frames: fields, their overlap, enlarged regions, histograms (Sun et al. 2025, Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xbat_live.analysis.deformation import PairFlow
from xbat_live.analysis.figures.style import BLUE, RED, arrows, letter, show_density
from xbat_live.analysis.motion import MotionAnalysis

COLOURS = (BLUE, RED)
ARROWS_ACROSS, ARROWS_ENLARGED = 26, 13
ENLARGED = 0.22
"""Side of an enlarged region, as part of the shorter side."""
BINS = 60


def flow_figure(analysis: MotionAnalysis) -> Any:
    """Return the figure of the flow of the first two pairs."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    pairs = analysis.pairs[:2]
    columns = 3 if len(pairs) == 2 else 1
    figure = Figure(figsize=(4.0 * columns + (0 if columns == 3 else 1.5), 15.0))
    grid = figure.add_gridspec(4, 2 * columns, height_ratios=(1, 1, 1, 0.62))
    regions = _regions(pairs)
    pixel_um = analysis.pixel_size_um
    step = max(2, min(pairs[0].mask.shape) // ARROWS_ACROSS)
    whole_um = _common_um(pairs)
    scale: dict[int, float] = {}
    letters = iter("abcdefghijkl")
    for row in range(3):
        for column in range(columns):
            axes = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
            shown = pairs if column == 2 else (pairs[column],)
            background = shown[0]
            window_um, own_step = whole_um, step
            if row:
                top, left, side = regions[row - 1]
                window_um = (top * pixel_um, left * pixel_um, (top + side) * pixel_um, (left + side) * pixel_um)
                own_step = max(2, side // ARROWS_ENLARGED)
            if len(shown) > 1:
                own_step = own_step * 4 // 3
            show_density(
                axes,
                background.reference_od,
                pixel_um,
                origin_yx_px=background.origin_yx_px,
                window_um=window_um,
                faint=True,
            )
            for i, pair in enumerate(shown):
                colour = COLOURS[pairs.index(pair)] if len(pairs) > 1 else BLUE
                window = _window(pair, regions[row - 1]) if row else (slice(None), slice(None))
                magnification = arrows(
                    axes,
                    pair.flow,
                    pair.mask,
                    pixel_um,
                    own_step,
                    origin_yx_px=pair.origin_yx_px,
                    colour=colour,
                    magnification=scale.get(row),
                    key=i == 0,
                    window=window,
                )
                scale.setdefault(row, magnification)
            what = "overlap" if column == 2 else f"frames {shown[0].frames[0]} to {shown[0].frames[1]}"
            letter(axes, next(letters), f"R{row}: {what}" if row else f"{what}, arrows ×{scale[row]:g}")
            if row == 0:
                for i, (top, left, side) in enumerate(regions):
                    axes.add_patch(
                        Rectangle(
                            (left * pixel_um, top * pixel_um),
                            side * pixel_um,
                            side * pixel_um,
                            fill=False,
                            linewidth=1.2,
                        )
                    )
                    axes.text(left * pixel_um, top * pixel_um, f"R{i + 1}", va="bottom", fontsize=8, fontweight="bold")
            else:
                axes.set_xlabel(f"arrows ×{scale[row]:g}", loc="left", fontsize=7)
    _histograms(figure, grid, columns, pairs, letters)
    figure.suptitle(
        f"Motion within the electrode after rigid alignment: run {analysis.run_uid[:8]}, {analysis.key}", fontsize=9.5
    )
    return figure


def _common_um(pairs: tuple[PairFlow, ...]) -> tuple[float, float, float, float]:
    """Return top, left, bottom, right of what any of the pairs shows, um."""
    begins = np.array([pair.origin_yx_px for pair in pairs])
    ends = begins + [pair.mask.shape for pair in pairs]
    (top, left), (bottom, right) = begins.min(0) * pairs[0].pixel_size_um, ends.max(0) * pairs[0].pixel_size_um
    return float(top), float(left), float(bottom), float(right)


def _histograms(figure: Any, grid: Any, columns: int, pairs: tuple[PairFlow, ...], letters: Any) -> None:
    amplitude = figure.add_subplot(grid[3, :columns])
    direction = figure.add_subplot(grid[3, columns:])
    vectors = [_amplitudes_nm(pair) for pair in pairs]
    top_nm = max(float(np.percentile(values, 99.8)) for values, _ in vectors) or 1.0
    for i, (pair, (amplitudes_nm, degrees)) in enumerate(zip(pairs, vectors, strict=True)):
        name = f"frames {pair.frames[0]} to {pair.frames[1]}"
        style = {"color": COLOURS[i], "linewidth": 1.4, "linestyle": "-" if i == 0 else "--", "label": name}
        density, edges = np.histogram(amplitudes_nm, bins=BINS, range=(0, top_nm), density=True)
        amplitude.stairs(density, edges, **style)
        share, edges = np.histogram(degrees, bins=36, range=(-180, 180))
        direction.stairs(100 * share / max(share.sum(), 1), edges, **style)
        if pair.floor_rms_px is not None:
            floor_nm = 1e3 * pair.floor_rms_px * pair.pixel_size_um
            amplitude.axvline(floor_nm, color=COLOURS[i], linewidth=0.9, linestyle=":")
    if any(pair.floor_rms_px is not None for pair in pairs):
        amplitude.plot(
            [], [], color="0.4", linestyle=":", linewidth=0.9, label="rms between neighbours in time (noise)"
        )
    amplitude.set_xlabel("amplitude (nm)")
    amplitude.set_ylabel("probability density (1/nm)")
    amplitude.legend(frameon=False)
    letter(amplitude, next(letters), "amplitude on particles")
    direction.set_xlabel("direction (deg; 0 right, 90 down in the image)")
    direction.set_ylabel("share of particle pixels (%)")
    direction.set_xticks(range(-180, 181, 90))
    direction.set_ylim(bottom=0)
    letter(direction, next(letters), "direction on particles")


def _amplitudes_nm(pair: PairFlow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    dy, dx = pair.flow[:, pair.mask & np.isfinite(pair.flow).all(0)].astype(float)
    return 1e3 * pair.pixel_size_um * np.hypot(dy, dx), np.rad2deg(np.arctan2(dy, dx))


def _regions(pairs: tuple[PairFlow, ...]) -> list[tuple[int, int, int]]:
    """Return top, left and side (px of the field's first frame) of the two places where the first pair moves most, apart."""
    first = pairs[0]
    side = max(16, int(ENLARGED * min(first.mask.shape)))
    square = np.where(first.mask, (np.nan_to_num(first.flow) ** 2).sum(0), 0)
    level = ndimage.uniform_filter(square.astype(float), side, mode="constant")
    half = side // 2 + 1
    inside = np.zeros_like(first.mask)
    inside[half:-half, half:-half] = True
    for other in pairs[1:]:  # and where the others have data
        dy, dx = (int(np.rint(a - b)) for a, b in zip(first.origin_yx_px, other.origin_yx_px, strict=True))
        ny, nx = other.mask.shape
        rows, columns = np.arange(inside.shape[0]) + dy, np.arange(inside.shape[1]) + dx
        inside &= ((rows > half) & (rows < ny - half))[:, None] & ((columns > half) & (columns < nx - half))[None, :]
    level = np.where(inside, level, -1)
    found = []
    for _ in range(2):
        row, column = np.unravel_index(int(np.argmax(level)), level.shape)
        top, left = int(row) - side // 2, int(column) - side // 2
        found.append((int(top + first.origin_yx_px[0]), int(left + first.origin_yx_px[1]), side))
        level[max(0, row - side) : row + side, max(0, column - side) : column + side] = -1
    return found


def _window(pair: PairFlow, region: tuple[int, int, int]) -> tuple[slice, slice]:
    top, left, side = region
    y, x = (int(np.rint(value)) for value in (top - pair.origin_yx_px[0], left - pair.origin_yx_px[1]))
    return slice(max(0, y), max(0, y + side)), slice(max(0, x), max(0, x + side))
