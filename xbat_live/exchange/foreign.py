"""Recorded frames of another program or beamline as a run: streams, keys and units as in docs/reference/streams.md."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live import __version__
from xbat_live.exchange.incoming import IMAGE_KEY, IncomingRun, digest_of
from xbat_live.exchange.nexus_xas import spectrum_numbers
from xbat_live.exchange.record import RunRecord, StreamRecord
from xbat_live.recordings import FrameKind, Recording, RecordingError, find_all

STREAM_OF: dict[FrameKind, str] = {"sample": "primary", "flat": "flat", "dark": "dark"}
_FRAME_TYPES: dict[FrameKind, str] = {"sample": "Normal", "flat": "FlatField", "dark": "Background"}
_FIELDS: dict[FrameKind, str] = {"sample": "A", "flat": "reference", "dark": "dark"}
_STEP_S = 1e-3  # between frames whose files name no time
_UNKNOWN = "header"
_INTEGER, _TEXT, _NUMBER = ("integer", "<i8"), ("string", "O"), ("number", "<f8")


@dataclass(frozen=True)
class ImportOptions:
    """What the files do not tell, or tell wrongly; None leaves it to them.

    Attributes
    ----------
    flats, darks
        Files with frames without the sample, and without beam.
    """

    sample: str | None = None
    energy_ev: float | None = None
    exposure_s: float | None = None
    pixel_size_um: float | None = None
    flats: tuple[Path, ...] = ()
    darks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Column:
    kind: tuple[str, str]
    unit: str
    device: str
    values: list[Any]


def run_of_frames(paths: Sequence[Path], options: ImportOptions | None = None) -> IncomingRun:
    """Make one run of the frames in `paths` (files and folders).

    Frames are in the order of the times in their headers where all have one, else of the paths, by name in a folder.

    Raises
    ------
    RecordingError
        Nothing there, unreadable, of different shapes, or references only.
    """
    options = options or ImportOptions()
    every = _with_references(paths, options)
    frames = [_corrected(recording, options) for recording in every]
    known = {recording.file for recording in frames}
    times = [recording.time_s for recording in frames]
    if all(value is not None for value in times):
        frames.sort(key=lambda recording: recording.time_s or 0.0)
    else:
        began_s = min(file.stat().st_mtime for file in known)
        frames = [replace(r, time_s=began_s + i * _STEP_S) for i, r in enumerate(frames)]
    by_stream = {name: [r for r in frames if STREAM_OF[r.kind] == name] for name in ("primary", "flat", "dark")}
    if not by_stream["primary"]:
        raise RecordingError(
            f"{paths[0]}: holds only reference frames; expected sample frames too (file names without 'ref', 'flat' or 'dark')"
        )
    streams = [_stream(name, part) for name, part in by_stream.items() if part]
    if verdicts := _verdicts(by_stream["primary"]):
        streams.append(verdicts)
    start = _start(paths, frames, by_stream, options, dated=None not in times)
    last = frames[-1]
    stop = {
        "uid": str(uuid.uuid4()),
        "time": (last.time_s or 0.0) + (last.exposure_s or 0.0),
        "run_start": start["uid"],
        "exit_status": "success",
        "reason": "",
        "num_events": {stream.name: len(stream) for stream in streams},
    }
    return IncomingRun(RunRecord(start, stop, tuple(streams)), {name: part for name, part in by_stream.items() if part})


def _with_references(paths: Sequence[Path], options: ImportOptions) -> list[Recording]:
    extra: list[tuple[tuple[Path, ...], FrameKind]] = [(options.flats, "flat"), (options.darks, "dark")]
    given = {path.resolve() for files, _ in extra for path in files}
    plain = [path for path in paths if path.resolve() not in given]
    frames = find_all([*plain, *options.flats, *options.darks])
    kinds: dict[Path, FrameKind] = {}
    for files, kind in extra:
        for path in files:
            kinds |= {r.file: kind for r in frames if r.file == path or path in r.file.parents}
    return [replace(r, kind=kinds.get(r.file, r.kind)) for r in frames]


def _corrected(recording: Recording, options: ImportOptions) -> Recording:
    told = {
        name: value
        for name in ("energy_ev", "exposure_s", "pixel_size_um")
        if (value := getattr(options, name)) is not None
    }
    return replace(recording, **told)


def _start(
    paths: Sequence[Path],
    frames: list[Recording],
    by_stream: dict[str, list[Recording]],
    options: ImportOptions,
    *,
    dated: bool,
) -> dict[str, Any]:
    files = sorted({recording.file for recording in frames})
    many_energies = len({recording.energy_ev for recording in by_stream["primary"]}) > 1
    start: dict[str, Any] = {
        "uid": str(uuid.uuid4()),
        "time": frames[0].time_s,
        "plan_name": "import",
        "plan_type": "import",
        "detectors": ["camera"],
        "sample": options.sample or _sample_name(paths[0]),
        "hints": {"dimensions": [(["mono_energy"] if many_energies else ["time"], "primary")]},
        "versions": {"xbat_live": __version__},
        "imported": {
            "files": [str(file) for file in files[:1000]],
            "n_files": len(files),
            "digest": digest_of(files),
            "time": time.time(),
            "times_are": "in the headers" if dated else "made up: the files name none; the order is theirs",
        },
    }
    if (size_um := Counter(r.pixel_size_um for r in frames).most_common(1)[0][0]) is not None:
        start["pixel_size_um"] = size_um
    return start


def _sample_name(path: Path) -> str:
    name = path.resolve().name if path.is_dir() else path.name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).strip("_.") or "imported"


def _stream(name: str, frames: list[Recording]) -> StreamRecord:
    columns = _known_columns(frames) | _motor_columns(frames)
    times = np.array([recording.time_s for recording in frames], float)
    shape, dtype = frames[0].shape, frames[0].dtype
    data_keys: dict[str, Any] = {
        IMAGE_KEY: {
            "source": f"file:{frames[0].file.name}",
            "dtype": "array",
            "dtype_numpy": dtype,
            "shape": [1, *shape],
            "external": "STREAM:",
            "units": "counts",
            "object_name": "camera",
        }
    }
    data_keys |= {key: _data_key(column) for key, column in columns.items()}
    table: dict[str, np.ndarray] = {"seq_num": np.arange(1, len(frames) + 1), "time": times}
    table |= {key: np.array(column.values, column.kind[1]) for key, column in columns.items()}
    devices = dict.fromkeys(["camera", *(column.device for column in columns.values())])
    hinted = {"mono": ["mono_energy"], "stage": ["stage_x", "stage_y"]}
    descriptor = {
        "data_keys": data_keys,
        "configuration": {device: {"data": {}, "timestamps": {}, "data_keys": {}} for device in devices},
        "hints": {d: {"fields": [key for key in hinted.get(d, []) if key in data_keys]} for d in devices},
        "time": float(times[0]),
    }
    return StreamRecord(name, descriptor, table, IMAGE_KEY)


def _known_columns(frames: list[Recording]) -> dict[str, _Column]:
    """Return what every run of frames has, and what all of these headers tell."""
    first = frames[0].kind
    n = len(frames)
    columns = {
        "camera_frame_file": _Column(_TEXT, "", "camera", [str(r.file) for r in frames]),
        "camera_frame_dataset": _Column(_TEXT, "", "camera", [f"/{r.dataset}" if r.dataset else "" for r in frames]),
        "camera_frame_index": _Column(_INTEGER, "", "camera", [r.index for r in frames]),
        "point_index": _Column(_INTEGER, "", "point", _points(frames)),
        "point_field": _Column(_TEXT, "", "point", [_FIELDS[first]] * n),
        "point_spot": _Column(_INTEGER, "", "point", [0] * n),
        "point_attempt": _Column(_INTEGER, "", "point", [0] * n),
        "point_frame_type": _Column(_TEXT, "", "point", [_FRAME_TYPES[first]] * n),
    }
    places = [recording.position_um for recording in frames]
    told = {
        "point_exposure_s": ("s", "point", [r.exposure_s for r in frames]),
        "mono_energy": ("eV", "mono", [r.energy_ev for r in frames]),
        "stage_theta": ("deg", "stage", [r.angle_deg for r in frames]),
    }
    for i, axis in enumerate("xyz"):
        told[f"stage_{axis}"] = ("um", "stage", [None if place is None else place[i] for place in places])
    for key, (unit, device, values) in told.items():
        if any(value is not None for value in values):
            columns[key] = _Column(_NUMBER, unit, device, [np.nan if value is None else value for value in values])
    return columns


def _motor_columns(frames: list[Recording]) -> dict[str, _Column]:
    """Return further motors that the headers name, as ``header_zoneplate_z``."""
    names = dict.fromkeys((name, unit) for recording in frames for name, unit, _ in recording.motors)
    columns = {}
    for name, unit in names:
        key = f"{_UNKNOWN}_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
        values = [next((v for n, u, v in r.motors if (n, u) == (name, unit)), np.nan) for r in frames]
        columns[key] = _Column(_NUMBER, unit, _UNKNOWN, values)
    return columns


def _points(frames: list[Recording]) -> list[int]:
    """Return the time point of each frame: a point is a whole spectrum where there are several energies, else a frame."""
    energies = [recording.energy_ev for recording in frames if recording.energy_ev is not None]
    if len(energies) < len(frames) or len(set(energies)) < 2:
        return list(range(len(frames)))
    return spectrum_numbers(energies)


def _verdicts(frames: list[Recording]) -> StreamRecord | None:
    """Return a stream ``analysis`` when the files mark frames as invalid; None when they mark none."""
    if all(recording.valid for recording in frames):
        return None
    columns = {
        "analysis_seq_num": _Column(_INTEGER, "", "analysis", list(range(1, len(frames) + 1))),
        "analysis_stream": _Column(_TEXT, "", "analysis", ["primary"] * len(frames)),
        "analysis_verdict": _Column(_TEXT, "", "analysis", ["unjudged" if r.valid else "invalid" for r in frames]),
        "analysis_accepted": _Column(_INTEGER, "", "analysis", [int(r.valid) for r in frames]),
        "analysis_reason": _Column(
            _TEXT, "", "analysis", ["" if r.valid else f"marked as invalid in {r.file.name}" for r in frames]
        ),
    }
    times = np.array([recording.time_s for recording in frames], float)
    table: dict[str, np.ndarray] = {"seq_num": np.arange(1, len(frames) + 1), "time": times}
    table |= {key: np.array(column.values, column.kind[1]) for key, column in columns.items()}
    descriptor = {
        "data_keys": {key: _data_key(column) for key, column in columns.items()},
        "configuration": {"analysis": {"data": {}, "timestamps": {}, "data_keys": {}}},
        "hints": {"analysis": {"fields": []}},
        "time": float(times[0]),
    }
    return StreamRecord("analysis", descriptor, table)


def _data_key(column: _Column) -> dict[str, Any]:
    told: dict[str, Any] = {
        "source": "file header",
        "dtype": column.kind[0],
        "shape": [],
        "object_name": column.device,
    }
    told |= {"units": column.unit} if column.unit else {}
    return told | ({"dtype_numpy": column.kind[1]} if column.kind != _TEXT else {})
