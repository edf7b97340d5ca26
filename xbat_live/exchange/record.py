"""A run's documents as columns: what an exported file holds beside the frames, so that it can become the same run again."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.exchange.errors import ExchangeError

if TYPE_CHECKING:
    import h5py

    from xbat_live.archive import Run

VERSION = 1
Places = dict[str, tuple[list[str], list[int]]]
"""By stream, for each of its frames in the order of the Events: dataset of the exported file, and number in it."""
TIMESTAMP = "ts_"
"""Begins the columns that hold a data key's time stamps, as in Tiled."""


@dataclass(frozen=True)
class StreamRecord:
    """One stream.

    Attributes
    ----------
    name
        E.g. ``primary``.
    descriptor
        Descriptor document without its uids: data_keys, configuration, hints, object_keys.
    columns
        ``seq_num``, ``time``, a column per data key that is not a frame, and their time stamps; first axis is the Event.
    image_key
        Data key of the frames; None when the stream has none.
    """

    name: str
    descriptor: dict[str, Any]
    columns: dict[str, np.ndarray]
    image_key: str | None = None

    def __len__(self) -> int:
        return len(self.columns["seq_num"]) if "seq_num" in self.columns else 0

    def unit(self, column: str) -> str:
        """Return the unit of a column, empty when it has none."""
        if column == "time" or column.startswith(TIMESTAMP):
            return "s"
        return str(self.descriptor["data_keys"].get(column, {}).get("units") or "")


@dataclass(frozen=True)
class RunRecord:
    """All documents of a run but its frames. `stop` is empty while the run goes on."""

    start: dict[str, Any]
    stop: dict[str, Any]
    streams: tuple[StreamRecord, ...] = field(repr=False)

    def stream(self, name: str) -> StreamRecord | None:
        """Return a stream, None when there is none of that name."""
        return next((stream for stream in self.streams if stream.name == name), None)


def record_of(run: Run) -> RunRecord:
    """Read all documents of `run` from the archive.

    Raises
    ------
    ExchangeError
        A stream holds frames under several keys.
    """
    return RunRecord(run.start, run.stop, tuple(_stream(run, name) for name in run.streams))


def _stream(run: Run, name: str) -> StreamRecord:
    node = run.client[name]
    metadata = dict(node.metadata)
    data_keys = metadata["data_keys"]
    images = [key for key in node.base if data_keys.get(key, {}).get("external") is not None]
    if len(images) > 1:
        raise ExchangeError(
            f"run {run.uid[:8]}, stream {name!r} has frames under {', '.join(images)}; a run with one camera is expected"
        )
    columns: dict[str, np.ndarray] = {}
    if "internal" in node.base:
        table = node.base["internal"].read()
        for column in table.columns:
            values = table[column]
            is_text = values.dtype.kind not in "iufb"
            columns[str(column)] = values.fillna("").to_numpy(object) if is_text else values.to_numpy()
    for key in node.base:
        if key != "internal" and key not in images:
            columns[key] = np.asarray(node.base[key].read())
    return StreamRecord(name, metadata, columns, images[0] if images else None)


# --- as groups and datasets of HDF5 ---------------------------------------------------------------------------------------------------


def write_record(group: h5py.Group, record: RunRecord, places: Places) -> None:
    """Write `record` into an HDF5 group: texts ``start`` and ``stop`` (JSON) and a group per stream with a dataset per column."""
    import h5py

    group.attrs["NX_class"] = "NXcollection"
    group.attrs["description"] = "documents of the Bluesky run; xbat import makes the same run of them again"
    group.attrs["version"] = VERSION
    text = h5py.string_dtype()
    group.create_dataset("start", data=json.dumps(record.start), dtype=text)
    group.create_dataset("stop", data=json.dumps(record.stop), dtype=text)
    streams = group.create_group("streams")
    streams.attrs["NX_class"] = "NXcollection"
    for stream in record.streams:
        part = streams.create_group(stream.name)
        part.attrs["NX_class"] = "NXcollection"
        part.attrs["image_key"] = stream.image_key or ""
        part.create_dataset("descriptor", data=json.dumps(stream.descriptor), dtype=text)
        columns = part.create_group("columns")
        columns.attrs["NX_class"] = "NXcollection"
        for name, values in stream.columns.items():
            dtype = text if values.dtype.kind == "O" else None
            columns.create_dataset(name, data=values, dtype=dtype).attrs["units"] = stream.unit(name)
        if stream.name in places:
            datasets, indices = places[stream.name]
            frames = part.create_group("frames")
            frames.attrs["NX_class"] = "NXcollection"
            frames.create_dataset("dataset", data=np.array(datasets, object), dtype=text)
            frames.create_dataset("index", data=np.array(indices, np.int64)).attrs["units"] = ""


def read_record(group: h5py.Group) -> tuple[RunRecord, Places]:
    """Read what `write_record` wrote.

    Raises
    ------
    ExchangeError
        It is of a later version, or damaged.
    """
    version = int(group.attrs.get("version", 0))
    if version != VERSION:
        raise ExchangeError(
            f"{group.file.filename}: record of version {version}, this xbat_live reads version {VERSION}"
        )
    try:
        streams = tuple(_read_stream(name, part) for name, part in group["streams"].items())
        places = {
            name: (part["frames/dataset"].asstr()[()].tolist(), part["frames/index"][()].tolist())
            for name, part in group["streams"].items()
            if "frames" in part
        }
        start, stop = (json.loads(group[name].asstr()[()]) for name in ("start", "stop"))
        return RunRecord(start, stop, streams), places
    except (KeyError, ValueError, OSError) as error:
        raise ExchangeError(f"{group.file.filename}: the record of the run is damaged: {error}") from error


def _read_stream(name: str, part: h5py.Group) -> StreamRecord:
    columns = {
        key: column.asstr()[()] if column.dtype.kind == "O" else column[()] for key, column in part["columns"].items()
    }
    return StreamRecord(name, json.loads(part["descriptor"].asstr()[()]), columns, str(part.attrs["image_key"]) or None)


# --- as one compressed text -----------------------------------------------------------------------------------------------------------


def pack(record: RunRecord, places: Places) -> bytes:
    """Return `record` as gzip-compressed JSON, for formats without tables."""
    content = {
        "version": VERSION,
        "places": places,
        "start": record.start,
        "stop": record.stop,
        "streams": [
            {
                "name": stream.name,
                "descriptor": stream.descriptor,
                "image_key": stream.image_key,
                "columns": {
                    name: {"dtype": values.dtype.str, "values": values.tolist()}
                    for name, values in stream.columns.items()
                },
            }
            for stream in record.streams
        ],
    }
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def unpack(packed: bytes, source: str) -> tuple[RunRecord, Places]:
    """Return the record that `pack` made.

    Raises
    ------
    ExchangeError
        It is of a later version, or damaged; the message names `source`.
    """
    try:
        content = json.loads(gzip.decompress(packed))
        if content["version"] != VERSION:
            raise ExchangeError(
                f"{source}: record of version {content['version']}, this xbat_live reads version {VERSION}"
            )
        streams = tuple(
            StreamRecord(
                stream["name"],
                stream["descriptor"],
                {
                    name: np.array(column["values"], object if column["dtype"] == "|O" else column["dtype"])
                    for name, column in stream["columns"].items()
                },
                stream["image_key"],
            )
            for stream in content["streams"]
        )
        places = {name: (list(datasets), list(indices)) for name, (datasets, indices) in content["places"].items()}
        return RunRecord(content["start"], content["stop"], streams), places
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"{source}: the record of the run is damaged: {error}") from error


def plain(value: Any) -> Any:
    """Return a number or text of a column as JSON has it: no numpy, NaN kept."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    return value
