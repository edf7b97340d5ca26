"""Analyses as arrays in the archive."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbat_live.analysis.motion import MotionAnalysis
from xbat_live.analysis.xas_results import XasRunAnalysis
from xbat_live.archive.analyses import StoredAnalysis, StoredArray, store_analysis
from xbat_live.imaging import BoxConvergence

KIND, XAS_KIND = "motion", "xas"


def store_motion(client: Any, analysis: MotionAnalysis) -> StoredAnalysis:
    """Write a motion analysis into the archive, as a new entry beside earlier ones.

    Parameters
    ----------
    client
        Of the archive's root, from `connect`.

    Raises
    ------
    ArchiveError
        The run is not in this archive, or the archive does not take it.
    """
    arrays = {
        f"{part}/{name}": array for part, named in _motion_arrays(analysis).items() for name, array in named.items()
    }
    numbers = {key: value for key, value in analysis.summary().items() if key != "run_uid"}
    return store_analysis(client, analysis.run_uid, KIND, arrays, numbers)


def store_xas(client: Any, analysis: XasRunAnalysis) -> StoredAnalysis:
    """Write an analysis of energy sweeps into the archive, as a new entry beside earlier ones; see `store_motion`."""
    arrays = {f"{part}/{name}": array for part, named in _xas_arrays(analysis).items() for name, array in named.items()}
    numbers = {key: value for key, value in analysis.summary().items() if key != "run_uid"}
    return store_analysis(client, analysis.run_uid, XAS_KIND, arrays, numbers)


def _xas_arrays(analysis: XasRunAnalysis) -> dict[str, dict[str, StoredArray]]:
    a, plane, masks, evolution = StoredArray, ("y", "x"), analysis.masks, analysis.evolution
    parts: dict[str, dict[str, StoredArray]] = {
        "dose_rate": {
            "rate_gy_s": a(masks.rate_gy_s, "Gy/s", plane, "dose rate on binned pixels"),
            "edges_gy_s": a(masks.edges_gy_s, "Gy/s", ("edge",), "edges of the intervals"),
            "counts": a(masks.counts, "", ("interval",), "pixels in each"),
            "interval": a(masks.labels, "", plane, "interval of each pixel; -1: none"),
        },
        "calibration": {
            "shift_ev": a(analysis.shift.shift_ev, "eV", plane, "true energy minus nominal energy"),
            "sigma_ev": a(analysis.shift.sigma_ev, "eV", plane, "its standard uncertainty"),
        },
        "evolution": {
            "cube_number": a(evolution.number, "", ("cube",), "cubes of the irradiated spot"),
            "time_s": a(evolution.time_s, "s", ("cube",), "time since the first of them"),
            "place_time_s": a(evolution.place_time_s, "s", ("cube",), "time in the beam"),
            "voltage_v": a(evolution.voltage_v, "V", ("cube",), "of the cell"),
            "state_of_charge": a(evolution.state_of_charge, "", ("cube",), "of the cell, 0 to 1"),
            "energy_ev": a(evolution.grid_ev, "eV", ("energy",), "true energy"),
            "low_rate_spectra": a(evolution.low, "", ("cube", "energy"), "normalised, pixels of low dose rate"),
            "high_rate_spectra": a(evolution.high, "", ("cube", "energy"), "normalised, pixels of high dose rate"),
        },
    }
    if len(analysis.components):
        by_cube = ("cube", "component")
        parts["evolution"] |= {
            "low_rate_fractions": a(evolution.low_fractions, "", by_cube, "pixels of low dose rate"),
            "high_rate_fractions": a(evolution.high_fractions, "", by_cube, "pixels of high dose rate"),
        }
        parts["components"] = {
            "energy_ev": a(analysis.component_energy_ev, "eV", ("energy",), "true energy"),
            "spectra": a(analysis.components, "", ("component", "energy"), "normalised"),
        }
    if (curve := analysis.curve) is not None:
        by_dose = ("component", "dose")
        parts["against_dose"] = {
            "dose_gy": a(curve.dose_gy, "Gy", ("dose",), "mean dose of the pixels of each interval"),
            "fractions": a(curve.fraction, "", by_dose, "their mean fractions"),
            "sigma": a(curve.sigma, "", by_dose, "standard uncertainty"),
            "count": a(curve.count, "", by_dose, "pixels"),
        }
    for group in analysis.groups:
        maps = {
            "energy_ev": a(group.energy_ev, "eV", ("energy",), "nominal energy"),
            "spectrum": a(group.spectrum, "", ("energy",), "mean absorbance of the lit field"),
            "r_factor": a(group.r_factor, "", plane, "misfit of the components"),
            "edge_ev": a(group.edge_ev, "eV", plane, "edge energy at half height"),
            "edge_sigma_ev": a(group.edge_sigma_ev, "eV", plane, "its standard uncertainty"),
            "dose_gy": a(group.dose_gy, "Gy", plane, "dose rate times time in the beam"),
        }
        if len(group.fractions):
            by_map = ("component", *plane)
            maps |= {
                "fractions": a(group.fractions, "", by_map, "of every component"),
                "fraction_sigma": a(group.fraction_sigma, "", by_map, "standard uncertainty"),
            }
        parts[f"group-{group_key(group.name)}"] = maps
    return parts


def group_key(name: str) -> str:
    """Return the name of a group for files and keys, e.g. ``end-C``."""
    return name.replace(",", "").replace(" ", "-")


def _motion_arrays(analysis: MotionAnalysis) -> dict[str, dict[str, StoredArray]]:
    path, a = analysis.path, StoredArray
    by_frame, plane = ("frame", "yx"), ("y", "x")
    parts: dict[str, dict[str, StoredArray]] = {
        "path": {
            "seq_num": a(analysis.seq_num, "", ("frame",), "seq_num of the frame's Event in primary"),
            "time_s": a(path.time_s, "s", ("frame",), "time since the first frame"),
            "image_shift_yx_px": a(path.image_shift_yx_px, "px", by_frame, "content shift against the first frame"),
            "sigma_yx_px": a(path.sigma_yx_px, "px", by_frame, "its standard uncertainty"),
            "stage_yx_um": a(path.stage_yx_um, "um", by_frame, "stage reading"),
            "displacement_yx_um": a(
                path.displacement_yx_um, "um", by_frame, "sample against stage since the first frame"
            ),
            "drift_yx_um": a(path.drift_yx_um, "um", by_frame, "slow part of the displacement"),
            "sigma_drift_yx_um": a(path.sigma_drift_yx_um, "um", by_frame, "its standard uncertainty"),
            "jitter_yx_um": a(path.jitter_yx_um, "um", by_frame, "displacement minus slow part"),
            "rate_yx_um_per_min": a(path.rate_yx_um_per_min, "um/min", by_frame, "rate of the slow part"),
        },
        "frames": {
            "first_od": a(analysis.first_od, "", plane, "optical density of the first frame used"),
            "last_od": a(analysis.last_od, "", plane, "optical density of the last frame used"),
        },
    }
    for what, histograms in (("displacement", path.displacement_histogram_yx), ("jitter", path.jitter_histogram_yx)):
        for axis, histogram in zip("yx", histograms, strict=True):
            name = f"{what}_{axis}_histogram"
            parts["path"][f"{name}_edges_um"] = a(histogram.edges_um, "um", ("edge",), f"bins of the {what} in {axis}")
            parts["path"][f"{name}_counts"] = a(histogram.counts, "", ("bin",), "frames in each bin")
    for pair in analysis.pairs:
        statistics, clusters, compass = pair.statistics, pair.clusters, pair.compass
        parts[f"pair-{pair.name}"] = {
            "flow_yx_px": a(pair.flow, "px", ("yx", *plane), "displacement after the rigid shift"),
            "reference_od": a(pair.reference_od, "", plane, "optical density of the first frame"),
            "moving_od": a(pair.moving_od, "", plane, "optical density of the second, moved back by whole pixels"),
            "difference_od": a(pair.difference, "", plane, "second minus first after the rigid shift"),
            "mask": a(pair.mask.astype(np.uint8), "", plane, "1 on particles"),
            "cluster": a(clusters.labels, "", plane, "region of common motion, largest first; -1 beside particles"),
            "cluster_centre_yx_px": a(clusters.centres_yx_px, "px", ("cluster", "yx"), "mean displacement"),
            "cluster_fraction": a(clusters.fraction, "", ("cluster",), "share of the particles"),
            "amplitude_edges_px": a(statistics.amplitude_edges_px, "px", ("edge",), "bins of the amplitude"),
            "amplitude_density": a(statistics.amplitude_density, "1/px", ("bin",), "probability per px"),
            "direction_edges_deg": a(
                statistics.direction_edges_deg, "deg", ("edge",), "bins, from +x towards +y (rows)"
            ),
            "direction_fraction": a(statistics.direction_fraction, "", ("bin",), "share of the moving pixels"),
            "direction_amplitude_px": a(statistics.direction_amplitude_px, "px", ("bin",), "mean amplitude"),
            "compass_place_yx_px": a(compass.place_yx_px, "px", ("needle", "yx"), "place of the needles"),
            "compass_amplitude_px": a(compass.amplitude_px, "px", ("needle",), "length of the needles"),
            "compass_direction_deg": a(
                compass.direction_deg, "deg", ("needle",), "direction, from +x towards +y (rows)"
            ),
            "compass_cluster": a(compass.cluster, "", ("needle",), "region of the needles"),
            **_box_arrays(pair.convergence),
        }
    return parts


def _box_arrays(boxes: BoxConvergence) -> dict[str, StoredArray]:
    a, by_box = StoredArray, ("box", "region")
    return {
        "box_size_px": a(boxes.box_sizes_px, "px", ("box",), "side of the boxes"),
        "box_amplitude_px": a(boxes.mean_amplitude_px, "px", by_box, "mean amplitude in each box"),
        "box_direction_deg": a(boxes.mean_direction_deg, "deg", by_box, "direction of the mean in each box"),
        "box_amplitude_deviation_px": a(boxes.amplitude_deviation_px, "px", ("box",), "rms deviation from the field"),
        "box_direction_deviation_deg": a(
            boxes.direction_deviation_deg, "deg", ("box",), "rms deviation from the field"
        ),
    }
