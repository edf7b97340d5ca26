"""Find recorded frames in files and folders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from xbat_live.recordings.model import Recording, RecordingError

logger = logging.getLogger(__name__)

XRADIA = {".xrm", ".txrm"}
TIFF = {".tif", ".tiff"}
ZARR = ".zarr"
HDF5 = {".h5", ".hdf5", ".hdf", ".nxs"}
EXPECTED = "expected Xradia .xrm/.txrm, .tif/.tiff, HDF5 .h5/.hdf5/.nxs or .zarr frames"
_PIXEL_TOLERANCE = 0.05


def find_recordings(path: Path) -> list[Recording]:
    """List the sample and reference frames in a file, or in the files of a directory in order of name.

    References are files with ``ref`` or ``flat`` as a word of their name, or HDF5 ``/exchange/data_white``. Frames of a
    pixel size other than the most common one (overviews, mosaics) are left out with a warning; darks are left out.

    Raises
    ------
    RecordingError
        Nothing there, unreadable, or frames of different shapes; the message names the file and what was expected.
    """
    return [recording for recording in find_all([path]) if recording.kind != "dark"]


def find_all(paths: Sequence[Path]) -> list[Recording]:
    """List all frames in files and directories, darks among them; see `find_recordings`."""
    recordings = [recording for path in paths for file in frame_files(path) for recording in _headers(file)]
    where = paths[0] if len(paths) == 1 else f"{len(paths)} files"
    if not recordings:
        raise RecordingError(f"{where}: no frames found; {EXPECTED}")
    usual = Counter(r.pixel_size_um for r in recordings).most_common(1)[0][0]
    kept = [r for r in recordings if _same_pixel(r.pixel_size_um, usual)]
    for name in sorted({r.file.name for r in recordings} - {r.file.name for r in kept}):
        logger.warning("%s: left out, its pixel size is not %s um as in most frames of %s", name, usual, where)
    shape = kept[0].shape
    for recording in kept:
        if recording.shape != shape:
            raise RecordingError(
                f"{recording.file}: frame of {_size(recording.shape)}, expected {_size(shape)}"
                f" (rows x columns) as in {kept[0].file.name}; frames of one shape belong together"
            )
    return kept


def frame_files(path: Path) -> list[Path]:
    """Return `path`, or the files with frames of a directory in order of name.

    Raises
    ------
    RecordingError
        Nothing there.
    """
    if path.is_dir() and path.suffix.lower() != ZARR:
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in XRADIA | TIFF | HDF5)
        if not files:
            raise RecordingError(f"{path}: no frames in this directory; {EXPECTED}")
        return files
    if path.exists():
        return [path]
    raise RecordingError(f"{path}: no such file or directory; {EXPECTED}")


def read_all(recordings: Iterable[Recording]) -> Iterator[npt.NDArray[Any]]:
    """Yield the pixels of frames as they are in their files, (rows, columns); a file is opened once for all its frames in a row.

    Raises
    ------
    RecordingError
        A file cannot be read as its header promised.
    """
    for file, frames in groupby(recordings, key=lambda recording: recording.file):
        with ExitStack() as stack:
            pixels: Callable[[Recording], npt.NDArray[Any]] | None = None
            for recording in frames:
                try:
                    pixels = pixels or stack.enter_context(_reader(file).opened(file))
                    image = pixels(recording)
                except Exception as error:  # whatever the format's library raises is told with file and frame
                    raise RecordingError(f"{file}: frame {recording.index} cannot be read: {error}") from error
                if image.shape != recording.shape:
                    raise RecordingError(
                        f"{file}: frame {recording.index} is {image.shape}, expected {recording.shape} (rows, columns)"
                    )
                yield image


def _reader(file: Path) -> ModuleType:
    # Each format's library is loaded where a file of it is met.
    from xbat_live.recordings import hdf5, tiff, xradia, zarr_store

    suffix = file.suffix.lower()
    if suffix in XRADIA:
        return xradia
    if suffix in TIFF:
        return tiff
    if suffix in HDF5:
        return hdf5
    if suffix == ZARR:
        return zarr_store
    raise RecordingError(f"{file}: unknown kind of file {suffix!r}; {EXPECTED}")


def _headers(file: Path) -> list[Recording]:
    reader = _reader(file)
    try:
        found: list[Recording] = reader.headers(file)
    except ImportError as error:
        raise RecordingError(
            f"{file}: reading it needs a package that is not installed: {error}; pip install 'xbat-live[frames]'"
        ) from error
    except Exception as error:  # whatever the format's library raises is told with the file's name
        raise RecordingError(f"{file}: cannot be read as {file.suffix.lower()} frames: {error}") from error
    return found


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]} px"


def _same_pixel(size_um: float | None, usual_um: float | None) -> bool:
    if size_um is None or usual_um is None:
        return size_um == usual_um
    return abs(size_um / usual_um - 1.0) < _PIXEL_TOLERANCE
