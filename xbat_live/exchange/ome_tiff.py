"""A run as OME-TIFF: images ``frames``, ``rejected``, ``flat`` and ``dark``, a plane per frame with exposure, position and time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.frame_set import DARK, FLAT, INVALID, FrameSet, Progress, frame_bytes
from xbat_live.exchange.nexus import iso
from xbat_live.exchange.places import check_room
from xbat_live.exchange.record import Places, RunRecord, pack

SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff")
RECORD_TAG = 65042
"""Private TIFF tag with the run's documents (see `xbat_live.exchange.record.pack`)."""
_UNDEFINED = 7
_IMAGES = (("frames", 0), ("rejected", INVALID), (FLAT, 1), (DARK, 2))


def write_ome_tiff(path: Path, record: RunRecord, frames: FrameSet, progress: Progress | None = None) -> None:
    """Write a run into a new file (BigTIFF); see the module for what is where.

    Raises
    ------
    ExchangeError
        No room on the disk, tifffile not installed, or a kind of number that OME does not know.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ExchangeError(f"OME-TIFF needs tifffile: {error}; pip install 'xbat-live[frames]'") from error
    parts = [(name, part) for name, key in _IMAGES if len(part := frames.select(key))]
    packed = pack(record, _places(parts))
    check_room(path.parent, frames.nbytes + len(packed) + (8 << 20))
    tags = [(RECORD_TAG, _UNDEFINED, len(packed), packed, True)]
    counter = itertools.count(1)
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        for name, part in parts:

            def pixels(part: Any = part) -> Iterator[NDArray[Any]]:
                for image in _ordered(frames, part):
                    yield image
                    if progress:
                        progress("frames", next(counter), len(frames))

            try:
                writer.write(
                    pixels(),
                    shape=(len(part), *frames.shape_yx),
                    dtype=frames.dtype,
                    photometric="minisblack",
                    metadata=_metadata(name, part, record, frames),
                    extratags=tags,
                )
            except tifffile.OmeXmlError as error:
                raise ExchangeError(
                    f"{path.name}: OME-TIFF cannot hold these frames: {error}; choose --format nexus"
                ) from error
            tags = []


def _places(parts: list[tuple[str, Any]]) -> Places:
    """Return the page of each frame."""
    pages: dict[str, dict[int, int]] = {}
    at = 0
    for _, part in parts:
        for stream, row in zip(part["stream"], part["row"], strict=True):
            pages.setdefault(str(stream), {})[int(row)] = at
            at += 1
    return {stream: ([""] * len(found), [found[row] for row in sorted(found)]) for stream, found in pages.items()}


def _ordered(frames: FrameSet, part: Any) -> Iterator[NDArray[Any]]:
    """Yield the frames of `part`, which is in the order of stream and row."""
    sources = {stream: frame_bytes(frames, stream) for stream in part["stream"].unique()}
    for stream, row in zip(part["stream"], part["row"], strict=True):
        for number, pixels in sources[stream]:
            if number == row:
                yield np.frombuffer(pixels, frames.dtype).reshape(frames.shape_yx)
                break


def _metadata(name: str, part: Any, record: RunRecord, frames: FrameSet) -> dict[str, Any]:
    time_s = part["time"].to_numpy(float)
    planes: dict[str, Any] = {}
    for key, column, unit in (
        ("ExposureTime", "exposure_s", "s"),
        ("PositionX", "stage_x_um", "µm"),
        ("PositionY", "stage_y_um", "µm"),
        ("PositionZ", "stage_z_um", "µm"),
    ):
        if column in part and np.isfinite(part[column].to_numpy(float)).all():
            planes[key], planes[f"{key}Unit"] = part[column].to_numpy(float).tolist(), [unit] * len(part)
    if np.isfinite(time_s).all():
        planes["DeltaT"], planes["DeltaTUnit"] = (time_s - record.start["time"]).tolist(), ["s"] * len(part)
    told: dict[str, Any] = {
        "axes": "TYX",
        "Name": name,
        "AcquisitionDate": iso(record.start["time"])[:19],
        "Description": f"run {record.start['uid']}",
        "Plane": planes,
    }
    if frames.pixel_size_um is not None:
        for axis in "XY":
            told[f"PhysicalSize{axis}"], told[f"PhysicalSize{axis}Unit"] = frames.pixel_size_um, "µm"
    annotations = {
        label: " ".join(f"{value:.9g}" for value in part[column].to_numpy(float))
        for column, label in (("energy_ev", "energy (eV)"), ("angle_deg", "angle (deg)"), ("dose_gy", "dose (Gy)"))
        if column in part
    }
    if name == "rejected":
        annotations["verdict"] = "; ".join(part["verdict"].fillna("").astype(str))
    if annotations:
        told["MapAnnotation"] = annotations
    return told
