"""The frames of a stream as one array that reads what is asked for: from the file where it is at hand, else through Tiled."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.archive.settings import ArchiveError
from xbat_live.archive.unreadable import REMEDY, explain_unreadable, file_behind, refusal
from xbat_live.archive.upload import explain
from xbat_live.archive.whole_files import open_frames

_STACK = 4  # dimensions of what Tiled serves: (event, frame of the event, y, x)


@dataclass(frozen=True)
class Frames:
    """Frames of a stream, read when they are indexed.

    ``frames[3]`` is the frame of the fourth Event, (ny, nx); ``frames[2:5]`` is (3, ny, nx);
    ``frames[:, y0:y1, x0:x1]`` reads only that part of each frame.

    Attributes
    ----------
    shape
        (number of Events, ny, nx).
    dtype
        As in the file, e.g. uint16.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    _array: Any = field(repr=False)
    _run: Any = field(repr=False)
    _file: LocalFrames | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def file(self) -> Path | None:
        """The HDF5 file that is read directly; None when the frames come through Tiled."""
        return None if self._file is None else self._file.path

    @property
    def local(self) -> LocalFrames | None:
        """Where the frames are in an HDF5 file on this machine; None when they come through Tiled."""
        return self._file

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read; see the class.

        Raises
        ------
        ArchiveError
            The file cannot be read: it is missing, damaged or outside the server's readable_storage.
        """
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, int | np.integer) and not -len(self) <= first < len(self):
            raise IndexError(f"frame {first}: there are {len(self)}")
        if self._file is not None:
            return self._file.read(first, tuple(rest))
        assert self._served
        inner = (0,) if len(self._array.shape) == _STACK else ()
        try:
            return np.asarray(self._array[(first, *inner, *rest)])
        except Exception as error:  # the server's refusals and the network's failures, of several libraries
            if isinstance(error, IndexError | TypeError):
                raise
            reason = explain_unreadable(self._array, self._run, explain(error))
            raise ArchiveError(f"cannot read these frames: {reason}") from error

    @cached_property
    def _served(self) -> bool:
        """True; raises `ArchiveError` when the server cannot read the frames. Asked until it can."""
        if reason := refusal(self._array, self._run):
            raise ArchiveError(f"cannot read these frames: {reason}")
        return True


@dataclass
class LocalFrames:
    """Rows of a dataset in an HDF5 file on this machine, also while the file is written (SWMR).

    Attributes
    ----------
    path, dataset
        Where they are.
    rows
        Row of the dataset by Event; a slice when they are without gaps.
    """

    path: Path
    dataset: str
    rows: slice | NDArray[np.int64]
    _data: Any = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(self, first: Any, rest: tuple[Any, ...] = ()) -> NDArray[Any]:
        """Read frames by number of their Event; raises `ArchiveError` when the file is missing or damaged."""
        with self._lock:
            try:
                return self._read(first, rest)
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                self._data = None
                raise ArchiveError(
                    f"cannot read these frames: {self.path}, dataset {self.dataset}: {error}; the file is missing or damaged, {REMEDY}"
                ) from error

    def _read(self, first: Any, rest: tuple[Any, ...]) -> NDArray[Any]:
        if self._data is None:
            self._data = open_frames(self.path)[self.dataset]
        where = _rows(self.rows, first, self._data)
        # What HDF5 can pick by itself, it does; the rest is left to numpy.
        plain = all(
            isinstance(part, int | np.integer) or (isinstance(part, slice) and (part.step or 1) > 0) for part in rest
        )
        inside = rest if plain else ()
        if isinstance(where, int | slice):
            found = np.asarray(self._data[(where, *inside)])
        elif len(where) == 0:
            found = np.asarray(self._data[(slice(0, 0), *inside)])
        else:
            unique, back = np.unique(where, return_inverse=True)  # HDF5 takes increasing rows only
            found = np.asarray(self._data[(unique, *inside)])[back]
        return found if plain else found[rest if isinstance(where, int) else (slice(None), *rest)]

    def check(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> bool:
        """Tell whether the file is here, whole, and holds what the archive says."""
        try:
            with open_frames(self.path) as file:
                data = file[self.dataset]
                last = self.rows.stop if isinstance(self.rows, slice) else int(np.max(self.rows, initial=-1)) + 1
                return bool(
                    data.ndim == 3 and data.shape[1:] == shape[1:] and data.dtype == dtype and len(data) >= last
                )
        except (OSError, KeyError, RuntimeError):
            return False


def _rows(rows: slice | NDArray[np.int64], first: Any, data: Any) -> Any:
    if isinstance(rows, slice):
        n, offset = rows.stop - rows.start, rows.start
        if isinstance(first, int | np.integer):
            where: Any = offset + int(first) % n
        elif isinstance(first, slice):
            start, stop, step = first.indices(n)
            where = slice(offset + start, offset + stop, step) if step > 0 else offset + np.arange(start, stop, step)
        else:
            where = offset + np.arange(n)[first]
    else:
        where = rows[first]
        where = int(where) if np.ndim(where) == 0 else where
    last = where.stop - 1 if isinstance(where, slice) else int(np.max(where, initial=-1))
    if last >= len(data):
        data.refresh()  # the file grows while the run goes on
    return where


def local_frames(array: Any, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> LocalFrames | None:
    """Return direct access to the file behind Tiled's `array`; None when it is not on this machine or is not one plain HDF5 dataset."""
    path, dataset = file_behind(array) or (None, None)
    if path is None or dataset is None:
        return None
    rows = _parse_rows(array.data_sources()[0].parameters.get("slice"), shape[0])
    if rows is None:
        return None
    found = LocalFrames(path, dataset, rows)
    return found if found.check(shape, dtype) else None


def _parse_rows(text: Any, n: int) -> slice | NDArray[np.int64] | None:
    """Return the rows that `EventFramesConsolidator` wrote; None for any other slice."""
    if text is None or text == "":
        return slice(0, n)
    if isinstance(text, str):
        start, separator, stop = text.partition(":")
        if not (separator and start.isdigit() and stop.isdigit()):
            return None
        rows: slice | NDArray[np.int64] = slice(int(start), int(stop))
        return rows if int(stop) - int(start) == n else None
    listed = np.asarray(text, np.int64)
    return listed if listed.shape == (n,) else None
