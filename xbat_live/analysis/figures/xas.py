"""Figures of an analysis of energy sweeps, like figures 5 to 8 and 10 to 14 of the LiNiO2 paper (La Porta et al.)."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbat_live.analysis.figures.style import (
    BLUE,
    CLUSTER_COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    letter,
    show_image,
    time_axis,
)
from xbat_live.analysis.xas_results import CubeGroup, XasRunAnalysis

_COMPONENT_COLOURS = (BLUE, ORANGE, GREEN, *CLUSTER_COLOURS[3:])
_NEAR_EDGE_EV = (-35.0, 110.0)
_MGY, _KGY = 1e6, 1e3


def spectra_figure(analysis: XasRunAnalysis) -> Any:
    """Return spectra by phase, histogram and map of the dose rate, and the evolution at low and at high dose rate (figures 5, 9, 10)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 7.2))
    (groups, histogram), (low, high) = figure.subplots(2, 2)
    for colour, group in zip(_COMPONENT_COLOURS, analysis.groups, strict=False):
        groups.plot(group.energy_ev, group.spectrum, color=colour, label=f"{group.name} ({len(group.numbers)} cubes)")
    groups.set_xlabel("nominal energy (eV)")
    groups.set_ylabel("absorbance")
    groups.legend(frameon=False)
    letter(groups, "a", "average of the lit field")
    masks = analysis.masks
    histogram.stairs(masks.counts, masks.edges_gy_s / _KGY, fill=True, color=BLUE)
    histogram.set_xlabel("dose rate (kGy/s)")
    histogram.set_ylabel("binned pixels")
    letter(histogram, "b", "dose rate")
    inset, scale = histogram.inset_axes((0.52, 0.5, 0.46, 0.48)), histogram.inset_axes((0.55, 0.46, 0.4, 0.03))
    shown = show_image(inset, masks.rate_gy_s / _KGY, masks.pixel_size_um or 1.0, cmap="viridis")
    figure.colorbar(shown, cax=scale, orientation="horizontal", label="kGy/s")
    evolution = analysis.evolution
    for axes, name, rows, interval in (
        (low, "c", evolution.low, analysis.low),
        (high, "d", evolution.high, analysis.high),
    ):
        _lines(figure, axes, analysis, rows)
        first, last = masks.edges_gy_s[interval : interval + 2] / _KGY
        letter(axes, name, f"pixels with {first:.3g} to {last:.3g} kGy/s")
    figure.suptitle(_title(analysis), fontsize=9.5)
    return figure


def components_figure(analysis: XasRunAnalysis) -> Any:
    """Return the component spectra and their fractions at low and at high dose rate along the charge (figures 6, 11)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6))
    spectra, low, high = figure.subplots(1, 3)
    evolution = analysis.evolution
    for number, (colour, spectrum) in enumerate(zip(_COMPONENT_COLOURS, analysis.components, strict=False), 1):
        spectra.plot(analysis.component_energy_ev, spectrum, color=colour, label=f"component {number}")
    spectra.set_xlabel("energy (eV)")
    spectra.set_ylabel("normalised absorbance")
    spectra.legend(frameon=False)
    letter(spectra, "a", "component spectra")
    times, label = time_axis(evolution.time_s)
    for axes, name, fractions, which in (
        (low, "b", evolution.low_fractions, analysis.low),
        (high, "c", evolution.high_fractions, analysis.high),
    ):
        for colour, fraction in zip(_COMPONENT_COLOURS, fractions.T, strict=False):
            axes.plot(times, 100 * fraction, "o-", color=colour, markersize=2.5, linewidth=1)
        axes.set_xlabel(label)
        axes.set_ylabel("fraction (%)")
        axes.set_ylim(-3, 103)
        first, last = analysis.masks.edges_gy_s[which : which + 2] / _KGY
        letter(axes, name, f"pixels with {first:.3g} to {last:.3g} kGy/s")
        if np.isfinite(evolution.voltage_v).any():
            voltage = axes.twinx()
            voltage.plot(times, evolution.voltage_v, "--", color="black", linewidth=1)
            voltage.set_ylabel("cell voltage (V)")
            voltage.spines["right"].set_visible(True)
    figure.suptitle(_title(analysis), fontsize=9.5)
    return figure


def maps_figure(analysis: XasRunAnalysis) -> Any:
    """Return the maps of fractions (or edge energies), R-factor and dose of every phase (figures 7, 12, 14, S6)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    k = len(analysis.components)
    columns = [f"component {number}" for number in range(1, k + 1)] + ["edge (eV)", "R-factor", "dose (MGy)"]
    figure = Figure(figsize=(2.3 * len(columns), 1.9 * len(analysis.groups) + 0.6))
    grid = figure.subplots(len(analysis.groups), len(columns), squeeze=False)
    pixel_um = analysis.masks.pixel_size_um or 1.0
    edges = np.concatenate([group.edge_ev[np.isfinite(group.edge_ev)] for group in analysis.groups])
    limits_ev = np.percentile(edges, [2, 98]) if edges.size else (0.0, 1.0)
    highest_mgy = max(float(np.nanmax(group.dose_gy)) for group in analysis.groups) / _MGY
    misfits = np.concatenate([group.r_factor[np.isfinite(group.r_factor)] for group in analysis.groups])
    misfit = float(np.percentile(misfits, 98)) if misfits.size else 1.0
    for row, group in zip(grid, analysis.groups, strict=True):
        shown: list[tuple[Any, dict[str, Any]]] = [
            (image, {"vmin": 0, "vmax": 1, "cmap": "viridis"}) for image in group.fractions
        ]
        shown += [
            (group.edge_ev, {"vmin": limits_ev[0], "vmax": limits_ev[1], "cmap": "cividis"}),
            (group.r_factor, {"vmin": 0, "vmax": misfit, "cmap": "magma"}),
            (group.dose_gy / _MGY, {"vmin": 0, "vmax": highest_mgy, "cmap": "inferno"}),
        ]
        for axes, (image, options), title in zip(row, shown, columns, strict=True):
            if not np.isfinite(image).any():
                axes.set_axis_off()
                continue
            handle = show_image(axes, image, pixel_um, **options)
            letter(axes, group.name, title)
            if group is analysis.groups[-1]:  # one scale for a column
                figure.colorbar(handle, ax=axes, location="bottom", shrink=0.9, ticks=MaxNLocator(3))
    figure.suptitle(_title(analysis), fontsize=9.5)
    return figure


def dose_figure(analysis: XasRunAnalysis) -> Any:
    """Return fractions against dose at the irradiated spot, with the threshold, and its dose map (figures 8, 13, 14)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8))
    against, dose = figure.subplots(1, 2, width_ratios=(1.5, 1))
    group: CubeGroup = analysis.irradiated
    curve, threshold = analysis.curve, analysis.threshold
    if curve is not None:
        for number, (colour, values, sigma) in enumerate(
            zip(_COMPONENT_COLOURS, curve.fraction, curve.sigma, strict=False), 1
        ):
            against.errorbar(
                curve.dose_gy / _MGY,
                100 * values,
                100 * sigma,
                fmt="o",
                color=colour,
                markersize=3,
                label=f"component {number}",
            )
        against.set_ylim(-3, 103)
    else:
        good = np.isfinite(group.edge_ev) & np.isfinite(group.dose_gy)
        against.plot(group.dose_gy[good] / _MGY, group.edge_ev[good], ".", color=BLUE, markersize=1.5, label="edge")
    against.set_ylabel("fraction (%)" if curve is not None else "edge energy (eV)")
    against.set_xlabel("local dose (MGy)")
    if threshold.found:
        low, high = (limit / _MGY for limit in threshold.interval_gy)
        against.axvline(threshold.value_gy / _MGY, color=PURPLE, linewidth=1.2)
        right = min(high, against.get_xlim()[1])
        against.axvspan(low, right, color=PURPLE, alpha=0.15, linewidth=0)
        told = f"threshold {threshold.value_gy / _MGY:.3g} MGy ({low:.3g} to {high:.3g}, 95 %)"
    else:
        told = f"no threshold: {threshold.reason}"
    against.legend(frameon=False, loc="best")
    letter(against, "a", told)
    shown = show_image(dose, group.dose_gy / _MGY, analysis.masks.pixel_size_um or 1.0, cmap="inferno")
    figure.colorbar(shown, ax=dose, shrink=0.8, label="MGy")
    letter(dose, "b", f"dose at #{group.place}, {group.name}")
    figure.suptitle(_title(analysis), fontsize=9.5)
    return figure


def _lines(figure: Any, axes: Any, analysis: XasRunAnalysis, rows: Any) -> None:
    """Draw spectra from the first cube (blue) to the last (yellow), near the edge."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    evolution = analysis.evolution
    times, label = time_axis(evolution.time_s)
    colours = Normalize(float(times[0]), float(max(times[-1], times[0] + 1e-9)))
    e0_ev = float(evolution.grid_ev[np.argmax(np.gradient(rows[0], evolution.grid_ev))])
    near = (evolution.grid_ev > e0_ev + _NEAR_EDGE_EV[0]) & (evolution.grid_ev < e0_ev + _NEAR_EDGE_EV[1])
    for at, row in zip(times, rows, strict=True):
        axes.plot(evolution.grid_ev[near], row[near], color=colormaps["viridis"](colours(at)), linewidth=0.7)
    axes.set_xlabel("energy (eV)")
    axes.set_ylabel("normalised absorbance")
    figure.colorbar(ScalarMappable(colours, "viridis"), ax=axes, label=label, shrink=0.85)


def _title(analysis: XasRunAnalysis) -> str:
    return f"Energy sweeps of run {analysis.run_uid[:8]}"
