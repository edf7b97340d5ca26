"""One HDF5 file of camera frames in areaDetector's layout, readable while it is written (SWMR)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

DATASETS = {
    "Normal": "/entry/data/data",
    "FlatField": "/entry/data/flat",
    "Background": "/entry/data/dark",
    "DblCorrelation": "/entry/data/data",
}
FRAME_TYPES = ("Normal", "Background", "FlatField", "DblCorrelation")
_ATTRIBUTES = {"NDArrayTimeStamp": np.float64, "NDArrayUniqueId": np.int32, "FrameType": np.int32}
_RESERVE_BYTES = 1 << 20  # room for HDF5's own structures: running out inside the library leaves a broken file


class FrameWriteError(OSError):
    """A frame file could not be made or written. `errno`, `strerror` and `filename` are set."""


class FrameFile:
    """Frames of one capture.

    Datasets, all created before the file turns to SWMR: ``/entry/data/{data,flat,dark}`` (n, ny, nx) uint16, one chunk
    per frame, for frame types Normal, FlatField, Background; and one entry per frame in the order of exposure under
    ``/entry/instrument/NDAttributes``.

    Parameters
    ----------
    path : pathlib.Path
        File to make. An existing one is never overwritten.
    shape_yx : tuple of int
        Frame size.
    attributes : sequence of str
        Names of further numbers kept with every frame (NDAttributes).

    Raises
    ------
    FrameWriteError
        If the folder is missing or not writable, the disk is full, or the file exists.
    """

    def __init__(self, path: Path, shape_yx: tuple[int, int], attributes: Sequence[str] = ()) -> None:
        self.path = path
        self.shape_yx = shape_yx
        self.count = 0
        self._broken = False
        _require_space(path, _RESERVE_BYTES)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            self._file = h5py.File(path, "w", libver="latest")
        except OSError as error:
            raise _named(error, path) from error
        entry = self._file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data.attrs["signal"] = "data"
        group = entry.create_group("instrument/NDAttributes")
        entry["instrument"].attrs["NX_class"] = "NXinstrument"
        self._frames = {
            name: self._file.create_dataset(
                name, shape=(0, *shape_yx), maxshape=(None, *shape_yx), chunks=(1, *shape_yx), dtype=np.uint16
            )
            for name in dict.fromkeys(DATASETS.values())
        }
        self._attributes = {
            name: group.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(256,), dtype=dtype)
            for name, dtype in (_ATTRIBUTES | dict.fromkeys(attributes, np.float64)).items()
        }
        try:
            self._file.swmr_mode = True
            self._file.flush()
        except OSError as error:
            self._broken = True
            raise _named(error, path) from error

    def append(
        self,
        image: npt.NDArray[np.uint16],
        frame_type: str,
        *,
        unique_id: int,
        time_unix_s: float,
        attributes: Mapping[str, float] | None = None,
    ) -> None:
        """Add a frame and flush it to the operating system, where readers see it.

        Parameters
        ----------
        image : ndarray of uint16, shape (ny, nx)
            The frame.
        frame_type : str
            One of `FRAME_TYPES`; decides the dataset.
        unique_id : int
            Number of the frame.
        time_unix_s : float
            Time of exposure, s since 1970.
        attributes : mapping of str to float
            Numbers kept with the frame; one that the file was made for and that is missing becomes NaN.

        Raises
        ------
        FrameWriteError
            The frame is then not in the file.
        """
        if self._broken:
            raise FrameWriteError(errno.EIO, "an earlier write failed; start a new capture", str(self.path))
        if image.shape != self.shape_yx:
            message = f"frame of {image.shape} px, file of {self.shape_yx} px; new ROI or binning needs a new capture"
            raise FrameWriteError(errno.EINVAL, message, str(self.path))
        _require_space(self.path, image.nbytes + _RESERVE_BYTES)
        dataset = self._frames[DATASETS[frame_type]]
        n = dataset.shape[0]
        row = {
            **dict.fromkeys(self._attributes, np.nan),
            **{name: value for name, value in (attributes or {}).items() if name in self._attributes},
            "NDArrayTimeStamp": time_unix_s,
            "NDArrayUniqueId": unique_id,
            "FrameType": FRAME_TYPES.index(frame_type),
        }
        try:
            dataset.resize(n + 1, axis=0)
            dataset.id.write_direct_chunk((n, 0, 0), np.ascontiguousarray(image, dtype="<u2"))
            for name, value in row.items():
                attribute = self._attributes[name]
                attribute.resize(self.count + 1, axis=0)
                attribute[self.count] = value
            self._file.flush()
        except OSError as error:
            self._broken = True  # what HDF5 still holds in its cache cannot be trusted to reach the disk
            self._forget_after(dataset, n)
            raise _named(error, self.path) from error
        self.count += 1

    def _forget_after(self, dataset: h5py.Dataset, n: int) -> None:
        """Take back what a failed `append` announced; shrinking needs no new room."""
        with contextlib.suppress(OSError):
            dataset.resize(n, axis=0)
            for attribute in self._attributes.values():
                attribute.resize(self.count, axis=0)

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        FrameWriteError
            If what was cached could not be written.
        """
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise _named(error, self.path) from error


def _require_space(path: Path, size_bytes: int) -> None:
    try:
        disk = os.statvfs(path.parent)
    except OSError as error:
        raise _named(error, path) from error
    if disk.f_bavail * disk.f_frsize < size_bytes:
        raise FrameWriteError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        present = path.stat().st_size if path.exists() else 0
        if present + size_bytes > limit:
            raise FrameWriteError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def _named(error: Exception, path: Path) -> FrameWriteError:
    number = getattr(error, "errno", None) or errno.EIO
    return FrameWriteError(number, getattr(error, "strerror", None) or str(error) or os.strerror(number), str(path))
