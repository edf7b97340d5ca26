"""The cubes of a stream, read frame by frame: from the file where it is at hand, else through Tiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.archive.frame_stack import LocalFrames, local_frames
from xbat_live.archive.settings import ArchiveError
from xbat_live.archive.upload import explain, why_unreadable

_CUBES = 4  # dimensions: (event, energy, y, x)
_AT_ONCE = 16


@dataclass(frozen=True)
class Cubes:
    """Energy sweeps of a stream, one per Event; nothing is read before it is asked for.

    Attributes
    ----------
    shape
        (Events, energies, ny, nx).
    dtype
        As in the file, e.g. uint16.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    _array: Any = field(repr=False)
    _run: Any = field(repr=False)
    _file: LocalFrames | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    def frames(self, number: int) -> Iterator[NDArray[Any]]:
        """Yield the frames (ny, nx) of cube `number`, from 0, in the order in which they were taken; few are in memory.

        Raises
        ------
        IndexError
            There is no such cube.
        ArchiveError
            The file cannot be read: it is missing, damaged or outside the server's readable_storage.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"cube {number}: there are {len(self)}")
        energies = self.shape[1]
        for first in range(0, energies, _AT_ONCE):
            yield from self._read(number, first, min(first + _AT_ONCE, energies))

    def _read(self, number: int, first: int, last: int) -> NDArray[Any]:
        if self._file is not None:
            begin = number * self.shape[1]
            return self._file.read(slice(begin + first, begin + last))
        try:
            return np.asarray(self._array[number, first:last])
        except Exception as error:  # the server's refusals and the network's failures, of several libraries
            reason = why_unreadable(self._run) or explain(error)
            raise ArchiveError(f"the archive cannot read cube {number}: {reason}") from error


def cubes_of(run: Any, array: Any, what: str) -> Cubes:
    """Return the cubes behind Tiled's `array` of `run` (its client).

    Raises
    ------
    ArchiveError
        They are no cubes; `what` tells which they are.
    """
    if len(array.shape) != _CUBES or array.shape[1] < 2:
        raise ArchiveError(f"{what} is of shape {tuple(array.shape)}: no energy sweeps, (Events, energies, ny, nx)")
    shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]), int(array.shape[3]))
    flat = (shape[0] * shape[1], shape[2], shape[3])
    return Cubes(shape, array.dtype, array, run, local_frames(array, flat, array.dtype))
