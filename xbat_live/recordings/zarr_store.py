"""Headers and pixels of Zarr stores: every array (n, rows, columns) of a group is a stack of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.recordings.model import Recording
from xbat_live.recordings.names import energy_in_name, kind_in_name

_STACK = 3


def headers(file: Path) -> list[Recording]:
    """Return the frames of a Zarr store, without their pixels; arrays named flat or dark hold such frames.

    Raises
    ------
    ValueError
        No stack of frames in it.
    """
    import zarr

    root = zarr.open_group(file, mode="r")
    stacks = {name: array for name, array in root.arrays() if array.ndim == _STACK and array.dtype.kind in "uif"}
    if not stacks:
        raise ValueError("no array (n, rows, columns)")
    energy = energy_in_name(file)
    return [
        Recording(
            file,
            i,
            (array.shape[1], array.shape[2]),
            array.dtype.str,
            kind_in_name(Path(name)),
            energy_ev=energy,
            dataset=name,
        )
        for name, array in sorted(stacks.items())
        for i in range(array.shape[0])
    ]


@contextmanager
def opened(file: Path) -> Iterator[Callable[[Recording], npt.NDArray[Any]]]:
    """Yield a function that returns the pixels of a frame of `file`, (rows, columns)."""
    import zarr

    root: Any = zarr.open_group(file, mode="r")
    yield lambda recording: np.asarray(root[recording.dataset][recording.index])
