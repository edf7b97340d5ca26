"""Open frame files; tell a cut-off one from a whole one.

A file that grows is read in single-writer multiple-reader mode. In that mode HDF5 does not compare a file's length with what its head
says, and hands out zeros for what is not there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = (1 << 64) - 1


def open_frames(path: Path | str) -> h5py.File:
    """Open a frame file for reading, finished or still being written; a finished one is read at twice the rate.

    Raises
    ------
    OSError
        It is missing, damaged or cut off.
    """
    if told := cut_off(path):
        raise OSError(told)
    head = _head_of(path)
    growing = head is None or head.being_written
    try:
        return h5py.File(path, "r", libver="latest", swmr=growing)
    except OSError as error:
        if "SWMR read access flag" not in str(error):
            raise
        return h5py.File(path, "r", libver="latest", swmr=not growing)  # this process has it open in the other mode


def cut_off(path: Path | str) -> str | None:
    """Return how much of an HDF5 file is missing at its end; None when it is whole, still being written, or no such file.

    The end that the superblock tells is compared with the file's length. A writer that died leaves its mark in the superblock: such
    a file's end is not known.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    head = _head_of(path)
    if head is None or head.being_written or head.end is None or head.size >= head.end:
        return None
    return f"cut off: {head.size} bytes of {head.end}"


@dataclass(frozen=True)
class _Head:
    """What an HDF5 file says of itself: its length, bytes, where it is to end (None: not told), whether somebody writes to it."""

    size: int
    end: int | None
    being_written: bool


def _head_of(path: Path | str) -> _Head | None:
    """Read a superblock (HDF5 file format specification, versions 0 to 3 with addresses of 8 bytes); None for anything else."""
    with open(path, "rb") as file:
        head, size = file.read(64), os.fstat(file.fileno()).st_size
    if len(head) < 64 or head[:8] != _SIGNATURE or head[8] > 3:
        return None  # HDF5 says what it is
    version = head[8]
    old = version < 2
    base, end = (24 + 4 * version, 40 + 4 * version) if old else (12, 28)
    told = int.from_bytes(head[end : end + 8], "little")
    known = head[13 if old else 9] == 8 and head[base : base + 8] == bytes(8) and told not in (0, _UNDEFINED)
    return _Head(size, told if known else None, version == 3 and bool(head[11]))
