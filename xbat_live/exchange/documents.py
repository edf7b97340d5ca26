"""A run's record and the places of its frames as Bluesky documents."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np

from xbat_live.exchange.placing import HDF5_TYPE, PlacedFrames
from xbat_live.exchange.record import TIMESTAMP, RunRecord, StreamRecord, plain
from xbat_live.recordings import Recording

Document = tuple[str, dict[str, Any]]


def documents(record: RunRecord, frames: dict[str, PlacedFrames]) -> Iterator[Document]:
    """Yield the documents of a run: start, per stream a descriptor, stream resources, events and stream datums, and stop."""
    run_uid = record.start["uid"]
    yield "start", record.start
    for stream in record.streams:
        descriptor_uid = str(uuid.uuid4())
        placed = frames.get(stream.name)
        yield "descriptor", _descriptor(stream, descriptor_uid, run_uid, placed)
        if not len(stream):
            continue
        yield from _events(_located(stream, placed), descriptor_uid)
        if placed is not None and stream.image_key is not None:
            yield from _frames(placed, stream, run_uid, descriptor_uid)
    yield "stop", record.stop


def uri_of(recording: Recording) -> str:
    """Return the address of a frame's file."""
    return f"file://localhost{quote(str(recording.file.resolve()))}"


def _descriptor(stream: StreamRecord, uid: str, run_uid: str, placed: PlacedFrames | None) -> dict[str, Any]:
    data_keys = {name: dict(told) for name, told in stream.descriptor["data_keys"].items()}
    if placed is not None and stream.image_key is not None:
        first = placed.frames[0]
        leading = [] if placed.mimetype != HDF5_TYPE else [1]
        data_keys[stream.image_key] |= {
            "external": "STREAM:",
            "shape": [*leading, *first.shape],
            "dtype_numpy": first.dtype,
        }
    devices: dict[str, list[str]] = {}
    for name, told in data_keys.items():
        devices.setdefault(told.get("object_name", "unknown"), []).append(name)
    return {
        "uid": uid,
        "run_start": run_uid,
        "name": stream.name,
        "time": stream.descriptor["time"],
        "data_keys": data_keys,
        "object_keys": devices,
        "configuration": stream.descriptor.get("configuration", {}),
        "hints": stream.descriptor.get("hints", {}),
    }


def _located(stream: StreamRecord, placed: PlacedFrames | None) -> dict[str, np.ndarray]:
    """Return the columns, with the frames' files as they are now."""
    columns = dict(stream.columns)
    if placed is None or stream.image_key is None:
        return columns
    device = stream.image_key.removesuffix("_image")
    told: dict[str, list[Any]] = {
        "file": [str(r.file.resolve()) for r in placed.frames],
        "dataset": [f"/{r.dataset.strip('/')}" if r.dataset else "" for r in placed.frames],
        "index": [r.index for r in placed.frames],
    }
    for name, values in told.items():
        if (key := f"{device}_frame_{name}") in columns:
            columns[key] = np.array(values, object if name != "index" else np.int64)
    return columns


def _events(columns: dict[str, np.ndarray], descriptor_uid: str) -> Iterator[Document]:
    keys = [name for name in columns if name not in ("seq_num", "time") and not name.startswith(TIMESTAMP)]
    stamps = {key: columns.get(f"{TIMESTAMP}{key}", columns["time"]) for key in keys}
    for i, (number, time_s) in enumerate(zip(columns["seq_num"], columns["time"], strict=True)):
        yield (
            "event",
            {
                "uid": str(uuid.uuid4()),
                "descriptor": descriptor_uid,
                "seq_num": int(number),
                "time": float(time_s),
                "data": {key: plain(columns[key][i]) for key in keys},
                "timestamps": {key: float(stamps[key][i]) for key in keys},
                "filled": {},
            },
        )


def _frames(placed: PlacedFrames, stream: StreamRecord, run_uid: str, descriptor_uid: str) -> Iterator[Document]:
    """Yield a stream resource per file and a stream datum per row of frames without gaps."""
    numbers = stream.columns["seq_num"]
    at = 0
    whole = placed.mimetype != HDF5_TYPE  # a file per frame: all of them are one resource
    for _, group in groupby(placed.frames, key=lambda recording: None if whole else recording.file):
        frames = list(group)
        resource = {
            "uid": str(uuid.uuid4()),
            "run_start": run_uid,
            "data_key": stream.image_key,
            "mimetype": placed.mimetype,
            "uri": uri_of(frames[0]),
            "parameters": {"template": "", "files": [uri_of(frame) for frame in frames]}
            if whole
            else {"dataset": f"/{frames[0].dataset.strip('/')}", "swmr": False, "chunk_shape": [1], "multiplier": 1},
        }
        yield "stream_resource", resource
        rows = list(range(len(frames))) if whole else [frame.index for frame in frames]
        for first, last in _runs(rows):
            yield (
                "stream_datum",
                {
                    "uid": str(uuid.uuid4()),
                    "stream_resource": resource["uid"],
                    "descriptor": descriptor_uid,
                    "indices": {"start": rows[first], "stop": rows[last] + 1},
                    "seq_nums": {"start": int(numbers[at + first]), "stop": int(numbers[at + last]) + 1},
                },
            )
        at += len(frames)


def _runs(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) positions of the stretches in which `rows` count up by one."""
    first = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield first, i - 1
            first = i
