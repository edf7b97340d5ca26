"""From documents to frames: where the frame of an Event lies on disk, and reading it while the camera still writes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

PRIMARY_DATASET = "/entry/data/data"


class FrameNotFound(LookupError):  # noqa: N818
    """The frame of an Event could not be read; the message names file, dataset and index."""


@dataclass(frozen=True)
class FrameAddress:
    """Where one frame is.

    Attributes
    ----------
    path
        HDF5 file.
    dataset
        Path inside the file; shape (n_frames, ny, nx).
    index
        First frame of the Event in `dataset`.
    """

    path: Path
    dataset: str
    index: int


class FrameLocator:
    """Follows resource and datum documents; memory stays flat because a datum is forgotten once its Event came."""

    def __init__(self, image_key: str) -> None:
        self.image_key = image_key
        self._resources: dict[str, tuple[Path, str]] = {}
        self._datums: dict[str, tuple[str, int]] = {}

    def resource(self, doc: dict[str, Any]) -> None:
        """Remember a file."""
        path = (
            Path(doc["root"], str(doc["resource_path"]).lstrip("/")) if doc.get("root") else Path(doc["resource_path"])
        )
        self._resources[doc["uid"]] = (path, doc["resource_kwargs"].get("dataset", PRIMARY_DATASET))

    def datum(self, doc: dict[str, Any]) -> None:
        """Remember the place of the frames of one Event."""
        self._datums[doc["datum_id"]] = (doc["resource"], int(doc["datum_kwargs"].get("point_number", 0)))

    def locate(self, event: dict[str, Any]) -> FrameAddress:
        """Return the address of the Event's frame.

        Raises
        ------
        FrameNotFound
            When the Event holds no frame of `image_key`, or its datum was never seen.
        """
        datum_id = event["data"].get(self.image_key)
        if datum_id not in self._datums:
            raise FrameNotFound(
                f"event {event['seq_num']} refers to no known frame under {self.image_key!r} ({datum_id!r})"
            )
        resource_uid, index = self._datums.pop(datum_id)
        path, dataset = self._resources[resource_uid]
        return FrameAddress(path, dataset, index)


class FrameReader:
    """Reads frames from files in single-writer multiple-reader mode; for use in one thread.

    Parameters
    ----------
    patience_s
        How long to wait for a frame that is announced but not yet visible, s.
    """

    def __init__(self, patience_s: float = 2.0) -> None:
        self.patience_s = patience_s
        self._path: Path | None = None
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._rows: dict[str, int] = {}

    def read(self, address: FrameAddress) -> NDArray[np.uint16]:
        """Return the frame, shape (ny, nx), in the file's dtype.

        Raises
        ------
        FrameNotFound
            File, dataset or index is not there after `patience_s`.
        """
        deadline_s = time.monotonic() + self.patience_s
        while True:
            try:
                dataset = self._dataset(address)
                if address.index >= self._rows.get(address.dataset, 0):
                    dataset.refresh()
                    self._rows[address.dataset] = dataset.shape[0]
                if address.index < self._rows[address.dataset]:
                    frame: NDArray[np.uint16] = dataset[address.index]
                    return frame
                problem = f"only {self._rows[address.dataset]} frames there"
            except (OSError, KeyError) as error:
                problem = str(error)
                self._release()
            if time.monotonic() > deadline_s:
                raise FrameNotFound(f"{address.path}:{address.dataset}[{address.index}] cannot be read: {problem}")
            time.sleep(0.005)

    def _dataset(self, address: FrameAddress) -> h5py.Dataset:
        file = self._open(address.path)
        if address.dataset not in self._datasets:  # looking a dataset up takes longer than reading a small frame
            self._datasets[address.dataset] = file[address.dataset]
        return self._datasets[address.dataset]

    def _open(self, path: Path) -> h5py.File:
        if self._path != path:
            self._release()
        if self._file is None:
            self._file = h5py.File(path, "r", libver="latest", swmr=True)
            self._path = path
        return self._file

    def close(self) -> None:
        """Let go of the file."""
        self._release()

    def _release(self) -> None:
        self._datasets.clear()
        self._rows.clear()
        if self._file is not None:
            self._file.close()
        self._file = self._path = None
