"""A run on its way into the archive: its documents, and where each frame is now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xbat_live.exchange.record import RunRecord
from xbat_live.recordings import Recording

IMAGE_KEY = "camera_image"


@dataclass(frozen=True)
class IncomingRun:
    """A run on its way in.

    Attributes
    ----------
    record
        Its documents. The start document says under ``imported`` where it comes from.
    frames
        By stream the frames, one per Event and in that order.
    left_out
        What was found and is not part of the run, one line each.
    """

    record: RunRecord
    frames: dict[str, list[Recording]] = field(repr=False)
    left_out: tuple[str, ...] = ()


def digest_of(files: Sequence[Path]) -> str:
    """Return what tells files apart without reading them through: names, sizes and times of change."""
    told = hashlib.sha256()
    for file in sorted(set(files)):
        status = file.stat()
        told.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return told.hexdigest()[:32]
