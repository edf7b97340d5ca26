"""The frames of a run on their way out: which there are, what each of them is, and their pixels one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.archive import ArchiveError, Run
from xbat_live.archive.frame_stack import LocalFrames
from xbat_live.archive.frame_table import COLUMNS, frame_table
from xbat_live.archive.unreadable import REMEDY
from xbat_live.archive.whole_files import open_frames
from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.record import TIMESTAMP, RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive import Frames

Progress = Callable[[str, int, int], None]
"""Gets what is done, how much of it, and of how much."""

PRIMARY, FLAT, DARK = "primary", "flat", "dark"
IMAGE_KEYS = {PRIMARY: 0, FLAT: 1, DARK: 2}
"""As in NXtomo."""
INVALID = 3
LEAST_LIGHT = 0.98
_BLOCK_BYTES = 32 << 20
_EXTRA = {
    "open_time_s": "point_open_time_s",
    "dose_reserved_gy": "point_dose_reserved_gy",
    "dose_delivered_gy": "point_dose_delivered_gy",
    "i0_current_na": "i0_current_na",
    "ring_current_ma": "ring_current_ma",
    "light_fraction": "point_light_fraction",
}


@dataclass(frozen=True)
class FrameSet:
    """All frames of a run.

    Attributes
    ----------
    stacks
        By stream.
    table
        A row per frame, stream by stream (dark, flat, primary) in the order of the Events: ``stream``, ``row`` in its stack,
        ``seq_num``, ``time`` (Unix, s), ``image_key`` (0 sample, 1 flat, 2 dark, 3 not fit for analysis), ``verdict``, and what is
        known of `xbat_live.archive.frame_table.COLUMNS`.
    shape_yx, dtype
        Of a frame.
    pixel_size_um
        Pixel as read out, um; None when the run does not tell.
    """

    stacks: dict[str, Frames]
    table: pd.DataFrame
    shape_yx: tuple[int, int]
    dtype: np.dtype[Any]
    pixel_size_um: float | None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def nbytes(self) -> int:
        """Size of all pixels, bytes."""
        return len(self) * self.shape_yx[0] * self.shape_yx[1] * self.dtype.itemsize

    def select(self, *image_keys: int) -> pd.DataFrame:
        """Return the rows of the table with one of the keys."""
        return self.table[self.table["image_key"].isin(image_keys)]

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Return a column of numbers, shape (n,), None when no frame has it."""
        if name not in self.table:
            return None
        values: NDArray[np.float64] = self.table[name].to_numpy(float)
        return None if np.isnan(values).all() else values


@dataclass(frozen=True)
class WithTables(Run):
    """A run whose tables are at hand: asking the archive for them once is enough."""

    record: RunRecord | None = None

    def events(self, stream: str = PRIMARY) -> pd.DataFrame:
        """Return the values of a stream's Events; see `Run.events`."""
        import pandas as pd

        found = None if self.record is None else self.record.stream(stream)
        if found is None:
            return super().events(stream)
        plain = {name: values for name, values in found.columns.items() if values.ndim == 1}
        return pd.DataFrame({name: values for name, values in plain.items() if not name.startswith(TIMESTAMP)})


def frame_set(run: Run, record: RunRecord) -> FrameSet:
    """Return the frames of `run`, none of them read yet.

    Raises
    ------
    ExchangeError
        No frames, or frames of different shapes.
    ArchiveError
        Events and frames do not belong together.
    """
    import pandas as pd

    run = WithTables(**{item.name: getattr(run, item.name) for item in fields(run)}, record=record)
    streams = [s.name for s in record.streams if s.image_key is not None and s.name in IMAGE_KEYS and len(s)]
    stacks = {name: run.frame_stack(name) for name in streams}
    if not stacks:
        raise ExchangeError(f"run {run.uid[:8]} has no frames; its tables can be exported: --format csv")
    shapes = {(stack.shape[1:], str(stack.dtype)) for stack in stacks.values()}
    if len(shapes) > 1:
        raise ExchangeError(
            f"run {run.uid[:8]}: flats, darks and frames differ in shape or kind of number: {sorted(shapes)}"
        )
    first = next(iter(stacks.values()))
    table = pd.concat([_labelled(run, name, len(stack)) for name, stack in stacks.items()], ignore_index=True)
    # Frames of one stream lie together: Tiled then reads an exported file in place, a stretch of rows per stream.
    table = table.sort_values(["stream", "row"], kind="stable", ignore_index=True)
    size_um = run.start.get("pixel_size_um")
    binning = _binning(record, next(iter(stacks)))
    return FrameSet(
        stacks,
        table,
        (first.shape[1], first.shape[2]),
        np.dtype(first.dtype),
        None if not size_um else float(size_um) * binning,
    )


def _labelled(run: Run, stream: str, n: int) -> pd.DataFrame:
    import pandas as pd

    known = frame_table(run, stream, n)
    columns: dict[str, Any] = {
        "stream": stream,
        "row": known["row"],
        "seq_num": known["seq_num"],
        "time": known["time"],
        "image_key": IMAGE_KEYS[stream],
        "verdict": known["verdict"] if stream == PRIMARY else "",
    }
    for column in COLUMNS:
        key = next((key for key in column.keys if key in known), None)
        if key is not None and column.name not in ("verdict", "accepted"):
            columns[column.name] = known[key]
    columns |= {name: known[key] for name, key in _EXTRA.items() if key in known}
    table = pd.DataFrame(columns)
    unfit = ~known["accepted"] if stream == PRIMARY else pd.Series(data=False, index=table.index)
    if stream != DARK and "light_fraction" in table:
        unfit = unfit | (table["light_fraction"].astype(float) < LEAST_LIGHT)
    table.loc[unfit.to_numpy(bool), "image_key"] = INVALID
    # A point that was rewound has two Events of one number, of which the first does not count: its frame was taken all the same.
    events = run.events(stream)
    superseded = sorted(set(range(n)) - set(table["row"]))
    if superseded:
        rest = pd.DataFrame({"row": superseded, "time": events["time"].to_numpy()[superseded]})
        rest["seq_num"] = events["seq_num"].to_numpy()[superseded]
        table = pd.concat(
            [table, rest.assign(stream=stream, image_key=INVALID, verdict="superseded")], ignore_index=True
        )
    return table


def _binning(record: RunRecord, stream: str) -> int:
    found = record.stream(stream)
    configuration = {} if found is None else found.descriptor.get("configuration", {})
    values = {key: value for device in configuration.values() for key, value in device.get("data", {}).items()}
    return max(next((int(value) for key, value in values.items() if key.endswith("_bin_x")), 1), 1)


def frame_bytes(frames: FrameSet, stream: str) -> Iterator[tuple[int, Any]]:
    """Yield (row, pixels) of every frame of a stream, in blocks of 32 MB: never the whole stack.

    Pixels are a buffer of the frame's bytes, as they lie in the file, or an array (ny, nx).

    Raises
    ------
    ArchiveError
        The file cannot be read.
    """
    stack = frames.stacks[stream]
    raw = _raw_chunks(frames, stream)
    if raw is not None:
        yield from raw
        return
    each = max(int(_BLOCK_BYTES // max(frames.nbytes // max(len(frames), 1), 1)), 1)
    for start in range(0, len(stack), each):
        for offset, image in enumerate(stack[start : min(start + each, len(stack))]):
            yield start + offset, np.ascontiguousarray(image)


def _raw_chunks(frames: FrameSet, stream: str) -> Iterator[tuple[int, bytes]] | None:
    """Return the frames' chunks as they lie in a local file; None when there is none such: then they go through HDF5 or Tiled.

    Twice as fast as reading arrays: a chunk is not copied into an array and out of it again.
    """
    local = frames.stacks[stream].local
    if local is None:
        return None
    with _readable(local) as data:
        suits = (
            data.chunks == (1, *frames.shape_yx)
            and data.dtype == frames.dtype
            and not data.id.get_create_plist().get_nfilters()
        )
        rows = np.arange(len(data))[local.rows]
    if not suits:
        return None

    def chunks() -> Iterator[tuple[int, bytes]]:
        with _readable(local) as data:
            for number, row in enumerate(rows):
                yield number, _chunk(local, data, int(row))

    return chunks()


@contextmanager
def _readable(local: LocalFrames) -> Iterator[Any]:
    try:
        file = open_frames(local.path)
    except OSError as error:
        raise _unreadable(local, error) from error
    with file:
        yield file[local.dataset]


def _chunk(local: LocalFrames, data: Any, row: int) -> bytes:
    try:
        found: bytes = data.id.read_direct_chunk((row, 0, 0))[1]
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(local, error) from error
    return found


def _unreadable(local: LocalFrames, error: Exception) -> ArchiveError:
    # Not left to what writes the export: it would take this for a failure of the disk that it writes to.
    return ArchiveError(f"cannot read the frames: {local.path}, dataset {local.dataset}: {error}; {REMEDY}")
