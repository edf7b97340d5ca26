"""How the figures look: colours that colour-blind readers tell apart (Okabe and Ito), scale bars, arrows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
CLUSTER_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, "#F0E442", "#000000")
DIFFERENCE_MAP, AMPLITUDE_MAP, DIRECTION_MAP = "RdBu_r", "viridis", "twilight"

RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text stays text
    "image.interpolation": "none",
}


def letter(axes: Any, name: str, title: str = "") -> None:
    """Title a panel with its letter."""
    axes.set_title(f"({name}) {title}", loc="left")


def nice(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at most `value`."""
    if not value > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power)


def length(value_um: float) -> str:
    """Return a length with the unit that suits it."""
    return f"{1e3 * value_um:g} nm" if value_um < 0.9995 else f"{value_um:g} µm"


def duration(time_s: float) -> str:
    """Return a time with the unit that suits it."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if abs(time_s) >= 2 * seconds:
            return f"{time_s / seconds:.3g} {unit}"
    return f"{time_s:.3g} s"


def time_axis(time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return times in the unit that suits them, and the axis label."""
    span_s = float(np.ptp(time_s))
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if span_s >= 4 * seconds:
            return time_s / seconds, f"time ({unit})"
    return time_s, "time (s)"


def show_image(
    axes: Any,
    image: NDArray[Any],
    pixel_um: float,
    *,
    origin_yx_px: tuple[float, float] = (0, 0),
    window_um: tuple[float, float, float, float] | None = None,
    **kwargs: Any,
) -> Any:
    """Show an image in um, row axis downwards, without ticks and with a scale bar; of `window_um` (top, left, bottom, right) if given."""
    ny, nx = image.shape[:2]
    y0, x0 = (value * pixel_um for value in origin_yx_px)
    shown = axes.imshow(image, extent=(x0, x0 + nx * pixel_um, y0 + ny * pixel_um, y0), **kwargs)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    if window_um is not None:
        top, left, bottom, right = window_um
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
    scale_bar(axes)
    return shown


def show_density(axes: Any, od: NDArray[Any], pixel_um: float, *, faint: bool = False, **kwargs: Any) -> Any:
    """Show an optical density in grey: particles dark, as in a micrograph; faint as a background. Options as of `show_image`."""
    low, high = np.nanpercentile(od, [0.5, 99.5])
    return show_image(
        axes,
        od,
        pixel_um,
        cmap="gray_r",
        vmin=low,
        vmax=high + (1.6 * (high - low) if faint else 0),
        **kwargs,
    )


def scale_bar(axes: Any) -> None:
    """Draw a bar of a round length, about a quarter of the width, at the lower left."""
    left, right = sorted(axes.get_xlim())
    bottom, top = axes.get_ylim()  # inverted: bottom is the larger
    width, height = right - left, bottom - top
    bar_um = nice(0.27 * width)
    x, y = left + 0.05 * width, bottom - 0.06 * height
    for colour, thickness in (("white", 5.0), ("black", 2.5)):
        axes.plot([x, x + bar_um], [y, y], color=colour, linewidth=thickness, solid_capstyle="butt")
    axes.text(
        x + bar_um / 2,
        y - 0.02 * height,
        length(bar_um),
        ha="center",
        va="bottom",
        fontsize=7,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
    )


def arrows(
    axes: Any,
    flow: NDArray[Any],
    mask: NDArray[np.bool_],
    pixel_um: float,
    step_px: int,
    *,
    origin_yx_px: tuple[float, float] = (0, 0),
    colour: Any = BLUE,
    magnification: float | None = None,
    key: bool = True,
    key_x: float = 0.82,
    window: tuple[slice, slice] = (slice(None), slice(None)),
) -> float:
    """Draw the flow on a grid, on the mask only; return the magnification of the arrows.

    By default nine in ten arrows are at most 1.6 steps of the grid long.
    """
    rows, columns = (np.arange(n)[part] for n, part in zip(mask.shape, window, strict=True))
    grid = np.ix_(rows[step_px // 2 :: step_px], columns[step_px // 2 :: step_px])
    y, x = np.broadcast_arrays(*grid)
    on = mask[grid]
    dy, dx = (component[grid][on] * pixel_um for component in flow)
    if magnification is None:
        typical_um = float(np.percentile(np.hypot(dy, dx), 90)) if dy.size else 0.0
        magnification = nice(1.6 * step_px * pixel_um / typical_um) if typical_um > 0 else 1.0
    quiver = axes.quiver(
        (x[on] + 0.5 + origin_yx_px[1]) * pixel_um,
        (y[on] + 0.5 + origin_yx_px[0]) * pixel_um,
        dx,
        dy,
        angles="xy",
        scale_units="xy",
        scale=1 / magnification,
        color=colour,
        width=0.004,
        headwidth=4,
        headlength=4.5,
        headaxislength=4,
    )
    if key and dy.size:
        shown_um = nice(float(np.percentile(np.hypot(dy, dx), 90)) or 1e-3)
        axes.quiverkey(
            quiver,
            key_x,
            -0.045,
            shown_um,
            length(shown_um),
            labelpos="E",
            coordinates="axes",
            fontproperties={"size": 7},
        )
    return magnification


def overlay(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Blend two images: what only the first has is orange, only the second blue, both dark; shape (ny, nx, 3)."""
    low, high = np.nanpercentile(np.stack([first, second]), [0.5, 99.5])
    a, b = (np.clip((image - low) / max(high - low, 1e-9), 0, 1) for image in (first, second))
    # white paper, from which each image takes the complement of its colour
    orange, blue = np.array([0.90, 0.62, 0.0]), np.array([0.0, 0.45, 0.70])
    return np.clip((1 - a[..., None] * (1 - orange)) * (1 - b[..., None] * (1 - blue)), 0, 1)


def density_name(*, reflection: bool) -> str:
    """Return what the images show: the reflection microscope has no optical density."""
    return "-log reflectance" if reflection else "optical density"
