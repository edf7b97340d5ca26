"""Results of an analysis in Tiled, beside the runs: ``analyses/<run uid>/<kind>-<UTC time>``.

Never under the run: a container or an array directly under a run breaks ``run.documents()`` and ``run.validate()``, and repairing a run
would delete it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from xbat_live import __version__
from xbat_live.analysis.motion import MotionAnalysis
from xbat_live.analysis.run_frames import AnalysisError
from xbat_live.imaging import BoxConvergence

logger = logging.getLogger(__name__)

ROOT = "analyses"


@dataclass(frozen=True)
class StoredArray:
    """An array on its way into the archive.

    Attributes
    ----------
    values
        Any shape.
    unit
        As in the streams, e.g. ``"um"``; empty when it has none.
    dims
        A name per dimension.
    meaning
        One line.
    """

    values: np.ndarray
    unit: str
    dims: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class StoredAnalysis:
    """An analysis in the archive.

    Attributes
    ----------
    path
        E.g. ``"analyses/<uid>/motion-20261121T051447Z"``; with a browser under the archive's address, with Tiled by these keys.
    metadata
        Run, versions, parameters and all numbers, units in their names.
    client
        Tiled's client of the container.
    """

    path: str
    metadata: dict[str, Any] = field(repr=False)
    client: Any = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, e.g. ``"path/drift_yx_um"``, ``"pair-3-13/flow_yx_px"``."""
        return tuple(_names(self.client))

    def __getitem__(self, name: str) -> np.ndarray:
        """Read one array.

        Raises
        ------
        AnalysisError
            There is no such array.
        """
        node = self.client
        try:
            for key in name.split("/"):
                node = node[key]
        except KeyError as error:
            raise AnalysisError(f"{self.path} has no array {name!r}; it has {', '.join(self.names)}") from error
        return np.asarray(node.read())

    def unit(self, name: str) -> str:
        """Return the unit of an array."""
        return str(self.client[tuple(name.split("/"))].metadata["unit"])


def store_analysis(client: Any, analysis: MotionAnalysis) -> StoredAnalysis:
    """Write a motion analysis into the archive, as a new entry beside earlier ones.

    Parameters
    ----------
    client
        Of the archive's root, from `connect`.

    Raises
    ------
    AnalysisError
        The run is not in this archive, or the archive does not take it.
    """
    import httpx

    uid = analysis.run_uid
    try:
        client[uid]
    except KeyError as error:
        raise AnalysisError(f"run {uid} is not in the archive at {client.uri}; its analysis is not stored") from error
    parts = _motion_arrays(analysis)
    summary = analysis.summary()
    metadata = {
        "analysis": "motion",
        "analysis_of": uid,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "xbat_live": __version__,
        "complete": False,
        **{key: value for key, value in summary.items() if key != "run_uid"},
    }
    try:
        runs = _container(_container(client, ROOT, {"holds": "analyses of runs, by uid"}), uid, {"analysis_of": uid})
        key = _free_name(runs, f"motion-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        node = runs.create_container(key=key, metadata=metadata)
        try:
            for name, arrays in parts.items():
                part = node.create_container(key=name, metadata={"analysis_of": uid})
                for array_name, array in arrays.items():
                    part.write_array(
                        np.ascontiguousarray(array.values),
                        key=array_name,
                        metadata={"unit": array.unit, "meaning": array.meaning},
                        dims=list(array.dims),
                    )
            node.update_metadata({"complete": True})
        except BaseException:
            _remove(runs, key)
            raise
    except httpx.HTTPError as error:
        raise AnalysisError(f"the archive at {client.uri} did not take the analysis: {error}") from error
    return StoredAnalysis(f"{ROOT}/{uid}/{key}", dict(node.metadata), node)


def list_analyses(client: Any, run_uid: str, kind: str = "motion") -> list[str]:
    """Return the names of the complete analyses of a run, oldest first."""
    runs = _child(_child(client, ROOT), run_uid)
    if runs is None:
        return []
    return [name for name, node in runs.items() if name.startswith(f"{kind}-") and node.metadata.get("complete")]


def open_analysis(client: Any, run_uid: str, name: str = "last", kind: str = "motion") -> StoredAnalysis:
    """Open an analysis of a run.

    Parameters
    ----------
    client
        Of the archive's root.
    run_uid
        Full uid.
    name
        From `list_analyses`, or ``"last"``.
    kind
        What ``"last"`` is of.

    Raises
    ------
    AnalysisError
        There is none.
    """
    known = list_analyses(client, run_uid, kind)
    if not known or name not in ("last", *known):
        raise AnalysisError(f"run {run_uid[:8]} has no {kind} analysis {name!r}; it has {', '.join(known) or 'none'}")
    key = known[-1] if name == "last" else name
    node = _child(_child(client, ROOT), run_uid)[key]
    return StoredAnalysis(f"{ROOT}/{run_uid}/{key}", dict(node.metadata), node)


def _child(parent: Any, key: str) -> Any:
    """Return an entry, None when it is not there. The client of runs takes keys for uids: go past it."""
    from tiled.client.container import Container

    if parent is None:
        return None
    try:
        return Container.__getitem__(parent, key)
    except KeyError:
        return None


def _container(parent: Any, key: str, metadata: dict[str, Any]) -> Any:
    found = _child(parent, key)
    return parent.create_container(key=key, metadata=metadata) if found is None else found


def _free_name(parent: Any, name: str) -> str:
    taken = set(parent.keys())
    names = (name, *(f"{name}-{i}" for i in range(2, 1000)))
    return next(candidate for candidate in names if candidate not in taken)


def _remove(parent: Any, key: str) -> None:
    try:
        parent.delete_contents(key, recursive=True, external_only=False)
    except Exception:  # it stays behind, marked as not complete, and is not listed
        logger.warning("the incomplete analysis %s could not be removed from the archive", key)


def _names(node: Any, before: str = "") -> Iterator[str]:
    for key, child in node.items():
        if hasattr(child, "items"):
            yield from _names(child, f"{before}{key}/")
        else:
            yield before + key


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
