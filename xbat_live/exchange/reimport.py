"""An exported run, read back: its documents as they were, and where its frames are in the export."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.incoming import IncomingRun, digest_of
from xbat_live.exchange.ome_tiff import RECORD_TAG
from xbat_live.exchange.record import Places, RunRecord, read_record, unpack
from xbat_live.exchange.zarr_store import RECORD
from xbat_live.recordings import FrameKind, Recording
from xbat_live.recordings.find import HDF5, TIFF, ZARR

_RECORD_GROUPS = ("entry/bluesky", "bluesky")
_KINDS: dict[str, FrameKind] = {"flat": "flat", "dark": "dark"}


def exported_run(path: Path) -> IncomingRun | None:
    """Return the run that `path` was exported from; None when it was not exported from a run.

    Raises
    ------
    ExchangeError
        It was, but the file is damaged.
    """
    suffix = path.suffix.lower()
    if suffix in HDF5:
        return _from_hdf5(path)
    if suffix in TIFF:
        return _from_tiff(path)
    if suffix == ZARR and path.is_dir():
        return _from_zarr(path)
    return None


def _from_hdf5(path: Path) -> IncomingRun | None:
    try:
        with h5py.File(path, "r") as file:
            name = next((name for name in _RECORD_GROUPS if name in file and "streams" in file[name]), None)
            if name is None:
                return None
            record, places = read_record(file[name])
            kinds = {dataset: file[dataset] for datasets, _ in places.values() for dataset in set(datasets)}
            shapes = {dataset: (data.shape, data.dtype.str) for dataset, data in kinds.items()}
    except (OSError, KeyError) as error:
        raise ExchangeError(f"{path}: cannot be read as HDF5: {error}; the file is truncated or damaged") from error
    return _incoming(path, record, places, shapes)


def _from_tiff(path: Path) -> IncomingRun | None:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            tag = tiff.pages[0].tags.get(RECORD_TAG) if len(tiff.pages) else None
            if tag is None:
                return None
            record, places = unpack(bytes(tag.value), str(path))
            page = tiff.pages[0]
            shape = ((len(tiff.pages), *page.shape), np.dtype(page.dtype).str)
            size, end = path.stat().st_size, max(tiff.pages[-1].dataoffsets)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise ExchangeError(f"{path}: cannot be read as TIFF: {error}; the file is truncated or damaged") from error
    if end >= size:
        raise ExchangeError(f"{path}: its last page begins at byte {end}, the file ends at {size}; it is truncated")
    return _incoming(path, record, places, {"": shape})


def _from_zarr(path: Path) -> IncomingRun | None:
    import zarr

    try:
        root: Any = zarr.open_group(path, mode="r")
        if RECORD not in root:
            return None
        record, places = unpack(np.asarray(root[RECORD]).tobytes(), str(path))
        shapes = {name: (root[name].shape, root[name].dtype.str) for names, _ in places.values() for name in set(names)}
    except (OSError, KeyError, ValueError) as error:
        raise ExchangeError(f"{path}: cannot be read as Zarr: {error}; the store is damaged") from error
    return _incoming(path, record, places, shapes)


def _incoming(
    path: Path, record: RunRecord, places: Places, shapes: dict[str, tuple[tuple[int, ...], str]]
) -> IncomingRun:
    """Give the run a uid of its own: the original may be in the same archive."""
    frames = {}
    for stream, (datasets, indices) in places.items():
        told = record.stream(stream)
        if told is None or len(told) != len(indices):
            raise ExchangeError(
                f"{path}: {len(indices)} frames for the Events of stream {stream!r}; the file is damaged"
            )
        found = []
        for dataset, index in zip(datasets, indices, strict=True):
            (n, rows, columns), dtype = shapes[dataset]
            if not 0 <= index < n:
                raise ExchangeError(
                    f"{path}: frame {index} of {dataset or 'the file'}, which has {n}; the file is truncated"
                )
            kind: FrameKind = _KINDS.get(stream, "sample")
            found.append(Recording(path, index, (rows, columns), dtype, kind, dataset=dataset.strip("/")))
        frames[stream] = found
    imported = {
        "files": [str(path)],
        "n_files": 1,
        "digest": digest_of(_files(path)),
        "time": time.time(),
        "run": record.start["uid"],
    }
    start = {**record.start, "uid": str(uuid.uuid4()), "imported": imported}
    stop = record.stop or {
        "time": max((float(s.columns["time"][-1]) for s in record.streams if len(s)), default=start["time"]),
        "exit_status": "fail",
        "reason": "the run was going on when it was exported",
        "num_events": {s.name: len(s) for s in record.streams},
    }
    stop = {**stop, "uid": str(uuid.uuid4()), "run_start": start["uid"]}
    return IncomingRun(replace(record, start=start, stop=stop), frames)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
