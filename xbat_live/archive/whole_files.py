"""Tell a cut-off HDF5 file from a whole one.

Frames are read in single-writer multiple-reader mode, also of finished files. In that mode HDF5 does not compare a file's length with
what its head says, and hands out zeros for what is not there.
"""

from __future__ import annotations

import os
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = (1 << 64) - 1


def cut_off(path: Path | str) -> str | None:
    """Return how much of an HDF5 file is missing at its end; None when it is whole, still being written, or no such file.

    The end that the superblock tells (HDF5 file format specification, versions 0 to 3 with addresses of 8 bytes) is compared with the
    file's length. A writer that died leaves its mark in the superblock: such a file's end is not known.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        head, size = file.read(64), os.fstat(file.fileno()).st_size
    if len(head) < 64 or head[:8] != _SIGNATURE:
        return None  # HDF5 says what it is
    version = head[8]
    if version in (0, 1):
        base, end, written = 24 + 4 * version, 40 + 4 * version, False
        of_eight = head[13] == 8
    elif version in (2, 3):
        base, end, written = 12, 28, version == 3 and bool(head[11])
        of_eight = head[9] == 8
    else:
        return None
    expected = int.from_bytes(head[end : end + 8], "little")
    if not of_eight or written or head[base : base + 8] != bytes(8) or expected in (0, _UNDEFINED):
        return None
    return f"cut off: {size} bytes of {expected}" if size < expected else None
