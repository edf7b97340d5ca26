"""A run as a Zarr store (format 2, read by every Zarr library): frames one chunk each, with labels, as `xarray.open_zarr` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xbat_live import __version__
from xbat_live.archive.frame_table import COLUMNS
from xbat_live.exchange.frame_set import DARK, FLAT, INVALID, PRIMARY, FrameSet, Progress, frame_bytes
from xbat_live.exchange.nexus import title_of
from xbat_live.exchange.places import check_room
from xbat_live.exchange.record import RunRecord, pack

SUFFIXES = (".zarr",)
_DIMENSIONS = {PRIMARY: "frame", FLAT: "flat_frame", DARK: "dark_frame"}
_NAMES = {PRIMARY: "counts", FLAT: "flat", DARK: "dark"}
_MARK = "xbat_run"
RECORD = "record"
"""Array with the run's documents (see `xbat_live.exchange.record.pack`)."""


def is_export(path: Path) -> bool:
    """Tell whether a folder is a Zarr store that was exported from a run."""
    attributes = path / ".zattrs"
    return attributes.is_file() and _MARK in attributes.read_text(errors="replace")


def write_zarr(path: Path, record: RunRecord, frames: FrameSet, progress: Progress | None = None) -> None:
    """Write a run into a new folder; see the module for what is where.

    Raises
    ------
    ExchangeError
        No room on the disk.
    """
    import zarr

    check_room(path.parent, frames.nbytes)
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs.update(
        {
            _MARK: record.start["uid"],
            "title": title_of(record),
            "creator": f"xbat_live {__version__}",
            "Conventions": "CF-1.11",
        }
    )
    places = {
        stream: ([_NAMES[stream]] * len(stack), list(range(len(stack)))) for stream, stack in frames.stacks.items()
    }
    packed = np.frombuffer(pack(record, places), np.uint8)
    _put(root, RECORD, packed, "record_byte", "documents of the run, gzip-compressed JSON")
    done = 0
    for stream in frames.stacks:
        part = frames.table[frames.table["stream"] == stream]
        dimension, name = _DIMENSIONS[stream], _NAMES[stream]
        _labels(root, part, dimension, "" if stream == PRIMARY else f"{name}_")
        data = root.create_array(
            name,
            shape=(len(part), *frames.shape_yx),
            dtype=frames.dtype,
            chunks=(1, *frames.shape_yx),
            compressors=None,
            fill_value=None,  # xarray takes a fill value for missing data: 0 counts would become NaN
        )
        data.attrs.update(
            {"_ARRAY_DIMENSIONS": [dimension, "y", "x"], "units": "counts", "long_name": f"{stream} frames"}
        )
        for row, pixels in frame_bytes(frames, stream):
            data[row] = np.frombuffer(pixels, frames.dtype).reshape(frames.shape_yx)
            done += 1
            if progress:
                progress("frames", done, len(frames))
    for axis, n in zip("yx", frames.shape_yx, strict=True):
        size_um = frames.pixel_size_um
        middle = (np.arange(n) - (n - 1) / 2) * (size_um or 1.0)
        unit = "px" if size_um is None else "um"
        _put(root, axis, middle, axis, "distance from the middle of the frame", units=unit)
    zarr.consolidate_metadata(root.store)


def _labels(root: Any, part: Any, dimension: str, prefix: str) -> None:
    time_s = part["time"].to_numpy(float)
    _put(root, f"{prefix}time", time_s, dimension, "time of the Event", units="seconds since 1970-01-01")
    _put(root, dimension, part["seq_num"].to_numpy(np.int64), dimension, "seq_num of the frame's Event")
    for column in COLUMNS:
        if column.name in part and part[column.name].dtype.kind in "iuf":
            values = part[column.name].to_numpy()
            _put(root, f"{prefix}{column.name}", values, dimension, column.meaning, units=column.unit)
    accepted = (part["image_key"].to_numpy() != INVALID).astype(np.int8)
    _put(root, f"{prefix}accepted", accepted, dimension, "1 when the frame is fit for analysis")
    for name in ("verdict", "field"):
        if name in part:
            _flags(root, f"{prefix}{name}", part[name].fillna("").astype(str).to_numpy(str), dimension)


def _flags(root: Any, name: str, texts: Any, dimension: str) -> None:
    """Write texts as numbers with their meanings (CF conventions): texts in Zarr are read by few libraries."""
    meanings, codes = np.unique(texts, return_inverse=True)
    _put(root, name, codes.astype(np.int16), dimension, f"{name}: see flag_meanings")
    told = [str(meaning).replace(" ", "_") or "none" for meaning in meanings]
    root[name].attrs.update({"flag_values": list(range(len(told))), "flag_meanings": " ".join(told)})


def _put(root: Any, name: str, values: Any, dimension: str, meaning: str, *, units: str = "") -> None:
    made = root.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=values.shape or (1,), compressors=None, fill_value=None
    )
    made[...] = values
    made.attrs.update({"_ARRAY_DIMENSIONS": [dimension], "long_name": meaning} | ({"units": units} if units else {}))
