"""A run's tables as CSV: a folder with a file per stream, one of all frames with their verdicts, and the documents as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbat_live.archive.frame_table import COLUMNS
from xbat_live.exchange.record import TIMESTAMP, RunRecord, StreamRecord, plain

if TYPE_CHECKING:
    from xbat_live.archive import Run

DOCUMENTS = "run.json"
FRAMES = "frames.csv"


def is_export(path: Path) -> bool:
    """Tell whether a folder holds nothing but tables exported from a run."""
    names = {file.name for file in path.iterdir()}
    return DOCUMENTS in names and all(name == DOCUMENTS or name.endswith(".csv") for name in names)


def write_tables(path: Path, record: RunRecord, run: Run) -> None:
    """Write the tables into a new folder. Units stand in the head of each column, in brackets."""
    path.mkdir()
    documents = {
        "start": record.start,
        "stop": record.stop,
        "descriptors": {stream.name: stream.descriptor for stream in record.streams},
    }
    (path / DOCUMENTS).write_text(json.dumps(documents, indent=1) + "\n")
    for stream in record.streams:
        _write(path / f"{stream.name}.csv", _head(stream), _rows(stream))
    primary = record.stream("primary")
    if primary is not None and len(primary):
        _frames(path / FRAMES, run, len(primary))


def _columns(stream: StreamRecord) -> list[str]:
    return [name for name, values in stream.columns.items() if not name.startswith(TIMESTAMP) and values.ndim == 1]


def _head(stream: StreamRecord) -> list[str]:
    return [_named(name, stream.unit(name)) for name in _columns(stream)]


def _rows(stream: StreamRecord) -> Any:
    return zip(*(map(plain, stream.columns[name]) for name in _columns(stream)), strict=True)


def _frames(path: Path, run: Run, n: int) -> None:
    from xbat_live.archive.frame_table import frame_table

    table = frame_table(run, "primary", n)
    keys = {c.name: next((key for key in c.keys if key in table), None) for c in COLUMNS}
    chosen = [c for c in COLUMNS if keys[c.name] is not None]
    head = ["seq_num", "time (s)", *(_named(c.name, c.unit) for c in chosen)]
    columns = [table["seq_num"], table["time"], *(table[keys[c.name]] for c in chosen)]
    _write(path, head, zip(*(map(plain, column.to_numpy()) for column in columns), strict=True))


def _named(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _write(path: Path, head: list[str], rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
