"""Charts as inline SVG: lines, points and bars with axes, units and marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from xbat_live.report.png import colours

FloatArray = NDArray[np.float64]
WIDTH, HEIGHT = 720.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 14.0, 24.0, 42.0


@dataclass(frozen=True)
class Trace:
    """One set of points.

    Attributes
    ----------
    x, y
        Numbers of equal length; points that are not finite are left out.
    kind
        ``line``, ``points`` or ``bars``.
    colour, name
        Of the trace; a name makes an entry in the legend.
    shade
        Numbers 0 to 1 that colour each point; empty: all in `colour`.
    """

    x: FloatArray | Sequence[float]
    y: FloatArray | Sequence[float]
    kind: str = "line"
    colour: str = "#0b6fa4"
    name: str = ""
    shade: FloatArray | Sequence[float] = ()


def chart(
    traces: Sequence[Trace],
    x_label: str,
    y_label: str,
    *,
    marks: Sequence[tuple[float, str]] = (),
    lines: Sequence[tuple[float, str]] = (),
    equal: bool = False,
) -> str:
    """Return a chart as an ``svg`` element; a sentence when there is nothing to draw.

    Parameters
    ----------
    marks
        Vertical lines: (x, text).
    lines
        Horizontal lines: (y, text).
    equal
        Same scale along x and y, for places.
    """
    data = [(t, *_finite(t)) for t in traces]
    xs = np.concatenate([x for _, x, _, _ in data]) if data else np.array([])
    if not xs.size:
        return "<p class=none>Nothing of this was recorded.</p>"
    ys = np.concatenate([y for _, _, y, _ in data])
    height = HEIGHT * (1.6 if equal else 1.0)
    x0, x1 = _range(xs, ())
    y0, y1 = _range(ys, [y for y, _ in lines], zero=any(t.kind == "bars" for t in traces))
    plot_w, plot_h = WIDTH - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    if equal:
        scale = min(plot_w / (x1 - x0), plot_h / (y1 - y0))
        x0, x1 = (x0 + x1) / 2 - plot_w / scale / 2, (x0 + x1) / 2 + plot_w / scale / 2
        y0, y1 = (y0 + y1) / 2 - plot_h / scale / 2, (y0 + y1) / 2 + plot_h / scale / 2

    def px(x: float) -> float:
        return round(_LEFT + (x - x0) / (x1 - x0) * plot_w, 2)

    def py(y: float) -> float:
        return round(_TOP + (y1 - y) / (y1 - y0) * plot_h, 2)

    parts = [
        f'<svg{" class=tall" if equal else ""} viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        f'aria-label="{escape(y_label)} against {escape(x_label)}">'
    ]
    for x in ticks(x0, x1):
        parts.append(f'<line class=grid x1="{px(x)}" x2="{px(x)}" y1="{_TOP}" y2="{_TOP + plot_h}"/>')
        parts.append(f'<text x="{px(x)}" y="{_TOP + plot_h + 15}" text-anchor="middle">{x:.6g}</text>')
    for y in ticks(y0, y1):
        parts.append(f'<line class=grid x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{py(y)}" y2="{py(y)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{py(y) + 4}" text-anchor="end">{y:.6g}</text>')
    for x, text in marks:
        if x0 <= x <= x1:
            parts.append(f'<line class=mark x1="{px(x)}" x2="{px(x)}" y1="{_TOP}" y2="{_TOP + plot_h}"/>')
            parts.append(f'<text class=mark x="{px(x) + 3}" y="{_TOP + 10}">{escape(text)}</text>')
    for y, text in lines:
        parts.append(f'<line class=limit x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{py(y)}" y2="{py(y)}"/>')
        parts.append(f'<text class=limit x="{_LEFT + 4}" y="{py(y) - 4}">{escape(text)}</text>')
    for trace, along, up, shade in data:
        parts.append(_drawn(trace, [px(v) for v in along], [py(v) for v in up], shade, base=py(max(y0, 0.0))))
    names = [trace for trace in traces if trace.name]
    for number, trace in enumerate(names):
        at = _LEFT + 8 + number * 150
        parts.append(f'<rect x="{at}" y="7" width="10" height="10" fill="{trace.colour}"/>')
        parts.append(f'<text x="{at + 14}" y="16">{escape(trace.name)}</text>')
    parts.append(f'<text x="{_LEFT + plot_w / 2}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    middle = _TOP + plot_h / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )
    return "".join((*parts, "</svg>"))


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return round numbers from `low` to `high`, at most `most` and two more."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _finite(trace: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(trace.x, float), np.asarray(trace.y, float)
    good = np.isfinite(x) & np.isfinite(y)
    shade = np.asarray(trace.shade, float)[good] if len(trace.shade) else np.array([])
    return x[good], y[good], shade


def _range(values: np.ndarray, more: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    everything = [float(values.min()), float(values.max()), *more, *([0.0] if zero else [])]
    low, high = min(everything), max(everything)
    spare = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return (low if zero and low == 0 else low - spare), high + spare


def _drawn(trace: Trace, x: list[float], y: list[float], shade: np.ndarray, *, base: float) -> str:
    if trace.kind == "line":
        points = " ".join(f"{a},{b}" for a, b in zip(x, y, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{trace.colour}" stroke-width="1.6"/>'
    if trace.kind == "bars":
        wide = max(min(np.diff(x), default=20.0) - 1, 1.0)
        return "".join(
            f'<rect x="{a - wide / 2:.2f}" y="{b}" width="{wide:.2f}" height="{max(base - b, 0):.2f}" fill="{trace.colour}"/>'
            for a, b in zip(x, y, strict=True)
        )
    tints = [f"rgb({r},{g},{b})" for r, g, b in colours(shade)] if shade.size else [trace.colour] * len(x)
    return "".join(
        f'<circle cx="{a}" cy="{b}" r="3.2" fill="{tint}" stroke="#333" stroke-width=".4"/>'
        for a, b, tint in zip(x, y, tints, strict=True)
    )
