"""What the HDF5 exports have in common: groups with a class, datasets with a unit, frames written chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xbat_live.exchange.frame_set import FrameSet, Progress, frame_bytes
from xbat_live.exchange.places import check_room
from xbat_live.exchange.record import Places

_MARGIN_BYTES = 8 << 20  # for HDF5's own structures and the tables


@contextmanager
def new_file(path: Path, size_bytes: int) -> Iterator[h5py.File]:
    """Make an HDF5 file that will hold `size_bytes` of pixels; a failed write is told when it happens, not at the end.

    Raises
    ------
    ExchangeError
        There is no room for it.
    OSError, RuntimeError
        The disk became full nevertheless.
    """
    check_room(path.parent, size_bytes + _MARGIN_BYTES)
    file = h5py.File(path, "w", libver="latest")
    try:
        yield file
        file.flush()
    finally:
        file.close()


def group(parent: Any, name: str, nx_class: str | None = None) -> Any:
    """Make a group, of a NeXus class if one is named."""
    made = parent.create_group(name)
    if nx_class is not None:
        made.attrs["NX_class"] = nx_class
    return made


def put(parent: Any, name: str, value: Any, units: str | None = None) -> Any:
    """Write a dataset: numbers with their unit (``""`` for none), or text."""
    if isinstance(value, str):
        return parent.create_dataset(name, data=value, dtype=h5py.string_dtype())
    values = np.asarray(value)
    if values.dtype.kind in "OUT":
        return parent.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
    made = parent.create_dataset(name, data=values)
    made.attrs["units"] = units or ""
    return made


Targets = Mapping[str, list[tuple[Any, NDArray[np.int64], NDArray[np.int64]]]]
"""By stream: dataset, rows of the stream that belong there, and their numbers in it."""


def places_of(targets: Targets) -> Places:
    """Return where the frames of each stream go, in the order of its rows."""
    found: Places = {}
    for stream, parts in targets.items():
        told = {int(row): (data.name, int(at)) for data, rows, ats in parts for row, at in zip(rows, ats, strict=True)}
        in_order = [told[row] for row in sorted(told)]
        found[stream] = ([name for name, _ in in_order], [at for _, at in in_order])
    return found


def put_frames(
    targets: Targets,
    frames: FrameSet,
    progress: Progress | None,
    *,
    totals: NDArray[np.float64] | None = None,
) -> None:
    """Write frames into datasets made by `empty_stack`, one by one.

    Parameters
    ----------
    targets
        Where each frame goes.
    totals
        Filled with the sum of the pixels of every frame, in the order of ``frames.table``; None: not wanted.
    """
    done, total = 0, sum(len(rows) for parts in targets.values() for _, rows, _ in parts)
    number = {(s, int(r)): i for i, (s, r) in enumerate(zip(frames.table["stream"], frames.table["row"], strict=True))}
    for stream, parts in targets.items():
        places = {int(row): (data, int(at)) for data, rows, ats in parts for row, at in zip(rows, ats, strict=True)}
        for row, pixels in frame_bytes(frames, stream):
            if row not in places:
                continue
            data, at = places[row]
            data.id.write_direct_chunk((at, 0, 0), pixels)
            if totals is not None:
                counts = np.frombuffer(pixels, frames.dtype)
                totals[number[stream, row]] = counts.sum(dtype=np.float64)
            done += 1
            if progress:
                progress("frames", done, total)


def empty_stack(parent: Any, name: str, n: int, frames: FrameSet) -> Any:
    """Make a dataset for `n` frames, one chunk per frame, in counts."""
    shape = (n, *frames.shape_yx)
    made = parent.create_dataset(name, shape, frames.dtype, chunks=(1, *frames.shape_yx))
    made.attrs["units"] = "counts"
    return made
