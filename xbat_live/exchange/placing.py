"""Where imported frames stay: in their own files where Tiled can read them, else in an HDF5 file beside the archive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from xbat_live.exchange import h5
from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.frame_set import Progress
from xbat_live.exchange.places import replacing
from xbat_live.recordings import Recording, read_all
from xbat_live.recordings.find import HDF5, TIFF

_DATASETS = {"primary": "entry/data/data", "flat": "entry/data/flat", "dark": "entry/data/dark"}


@dataclass(frozen=True)
class PlacedFrames:
    """Frames of one stream where Tiled reads them.

    Attributes
    ----------
    mimetype
        ``application/x-hdf5``, or ``multipart/related;type=image/tiff`` for a file per frame.
    frames
        One per Event.
    """

    mimetype: str
    frames: list[Recording]


HDF5_TYPE, TIFF_TYPE = "application/x-hdf5", "multipart/related;type=image/tiff"


def in_place(frames: list[Recording]) -> PlacedFrames | None:
    """Return the frames of a stream where they are, None when Tiled could not read them there.

    HDF5: one dataset per file, rows in the order of the Events. TIFF: a file per frame.
    """
    suffixes = {recording.file.suffix.lower() for recording in frames}
    if suffixes <= HDF5:
        parts = [list(part) for _, part in groupby(frames, key=lambda r: (r.file, r.dataset))]
        whole = len({part[0].file for part in parts}) == len(parts)
        rising = all(a.index < b.index for part in parts for a, b in pairwise(part))
        several = len(parts) > 1 and len({part[0].dataset for part in parts}) > 1
        return PlacedFrames(HDF5_TYPE, frames) if whole and rising and not several else None
    if suffixes <= TIFF and len({recording.file for recording in frames}) == len(frames):
        return PlacedFrames(TIFF_TYPE, frames) if all(_single_page(recording) for recording in frames) else None
    return None


def _single_page(recording: Recording) -> bool:
    import tifffile

    with tifffile.TiffFile(recording.file) as tiff:
        return len(tiff.pages) == 1


def copied(streams: dict[str, list[Recording]], out: Path, progress: Progress | None = None) -> dict[str, PlacedFrames]:
    """Copy frames into a new HDF5 file in the camera's layout, one at a time, and return where they are.

    Raises
    ------
    ExchangeError
        No room, or frames of different kinds of number in one stream.
    RecordingError
        A file cannot be read.
    """
    total, done = sum(map(len, streams.values())), 0
    size = sum(r.shape[0] * r.shape[1] * np.dtype(r.dtype).itemsize for part in streams.values() for r in part)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial, h5.new_file(partial, size) as file:
        for stream, frames in streams.items():
            dtypes = {recording.dtype for recording in frames}
            if len(dtypes) > 1:
                raise ExchangeError(f"{frames[0].file} and others: pixels of {', '.join(sorted(dtypes))} in one run")
            shape = frames[0].shape
            data = file.create_dataset(
                _DATASETS[stream], (len(frames), *shape), np.dtype(dtypes.pop()), chunks=(1, *shape)
            )
            data.attrs["units"] = "counts"
            for row, image in enumerate(read_all(frames)):
                data.id.write_direct_chunk((row, 0, 0), np.ascontiguousarray(image))
                done += 1
                if progress:
                    progress("frames", done, total)
    return {
        stream: PlacedFrames(
            HDF5_TYPE,
            [replace(r, file=out.resolve(), index=row, dataset=_DATASETS[stream]) for row, r in enumerate(frames)],
        )
        for stream, frames in streams.items()
    }
