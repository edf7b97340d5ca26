"""The camera's HDF5 file plugin and the documents that say where each frame lies."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from ophyd.areadetector.filestore_mixins import FileStoreHDF5, resource_factory
from ophyd.areadetector.plugins import HDF5Plugin_V34

from xbat_live.devices.epics import connection_errors

logger = logging.getLogger(__name__)

PRIMARY_DATASET = "/entry/data/data"
FRAME_DATASETS: Mapping[str, str] = MappingProxyType(
    {"Normal": PRIMARY_DATASET, "FlatField": "/entry/data/flat", "Background": "/entry/data/dark"}
)
"""Dataset by frame type, as in ``hdf5_layout.xml``."""
SINGLE_DATASET: Mapping[str, str] = MappingProxyType({})
"""For a detector without that layout: all frames go to ``/entry/data/data``."""

_MAX_PATH = 255  # areaDetector's MAX_FILENAME_LEN is 256 with the closing zero
_POLL_S = 0.005
_MAX_LAG_S = 5.0  # of readbacks behind the end of the acquisition


class FrameWriteError(OSError):
    """A frame is not on disk; the message names file, folder, what the IOC says, and the remedy."""


@dataclass(frozen=True)
class FrameAddress:
    """Where a frame lies.

    Attributes
    ----------
    file
        HDF5 file, as this machine sees it.
    dataset
        Dataset in the file, shape (n, ny, nx), uint16, counts.
    index
        First frame of the point along the first axis.
    """

    file: Path
    dataset: str
    index: int


@dataclass(frozen=True)
class FrameRows:
    """Where the frames of one acquisition lie, or will lie.

    Attributes
    ----------
    file
        HDF5 file, as this machine sees it.
    dataset
        Dataset in the file, shape (n, ny, nx), uint16, counts.
    first, count
        Rows of the dataset.
    first_captured
        The same in datasets with one entry per frame of the file, whatever its type (NDAttributes).
    """

    file: Path
    dataset: str
    first: int
    count: int
    first_captured: int


class FrameFilePlugin(HDF5Plugin_V34, FileStoreHDF5):
    """HDF5 plugin that writes one file per staging and tells each frame's place by what the plugin has really captured.

    Each dataset has its own Resource document: spec ``AD_HDF5`` for ``/entry/data/data``, spec ``HDF5`` with the
    keyword ``dataset`` for the others. A datum's ``point_number`` counts within its dataset and comes from NumCaptured,
    so a frame that belongs to no Event (aborted exposure, rewound plan) never shifts those after it.

    With a real areaDetector: load ``hdf5_layout.xml`` of this package into the plugin (XMLFileName) and give the camera
    an NDAttribute ``FrameDestination`` with the dataset's path (see the comment in that file), or leave the IOC as it
    is and give `datasets` = `SINGLE_DATASET`. For reading frames while the file is open, switch on SWMRMode and set
    NumFramesFlush to 1.

    Parameters
    ----------
    datasets
        Dataset by frame type; a frame type that is missing goes to ``/entry/data/data``.
    write_path_template
        Folder for the files as the IOC sees it, absolute. No ``%`` codes: one folder.
    """

    lazy_wait_for_connection = False

    def __init__(self, *args: Any, datasets: Mapping[str, str] = FRAME_DATASETS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.datasets = datasets
        self._frames_per_point = 1
        self.stage_sigs["swmr_mode"] = 1  # frames are read while the file is open
        self.stage_sigs.move_to_end("capture")
        self._begin()

    def _begin(self) -> None:
        self._captured = 0
        self._rows: Counter[str] = Counter()
        self._last_dataset = PRIMARY_DATASET
        self._factories: dict[str, Any] = {}

    def dataset_of(self, frame_type: str) -> str:
        """Return the dataset that frames of `frame_type` go to."""
        return self.datasets.get(frame_type, PRIMARY_DATASET)

    # -- staging

    def stage(self) -> None:
        """Open a new file; the camera's settings are in force by then.

        Raises
        ------
        FrameWriteError
            When the folder or the file cannot be used.
        """
        self._begin()
        self._make_folder()
        try:
            super().stage()
        except Exception as error:
            if not self._answers():
                raise
            if isinstance(error, OSError) or self._write_failed():
                raise FrameWriteError(self._complaint("the frame file cannot be opened")) from error
            raise
        name = PurePath(str(self.full_file_name.get())).name
        if name:  # FileNumber may count differently from what ophyd assumes; the IOC knows the name
            self._fn = os.path.join(self.read_path_template, name)
        self._datum_uids[self.parent._image_name] = []  # noqa: SLF001

    def unstage(self) -> Any:
        """Close the file and restore the settings."""
        unstaged = super().unstage()
        self._begin()
        return unstaged

    def forget_staging(self) -> None:
        """Give up what staging remembers, because the IOC is gone and cannot be restored."""
        self._original_vals.clear()
        self._asset_docs_cache.clear()
        self._datum_uids.clear()
        self._locked_key_list = False
        self._resource_uid = None
        self._begin()

    def _generate_resource(self, resource_kwargs: dict[str, Any]) -> None:
        # called by FileStoreHDF5.stage(); Resources are made per dataset when its first frame comes
        self._frames_per_point = int(resource_kwargs["frame_per_point"])

    def _make_folder(self) -> None:
        folder = self.write_path_template
        if len(folder) > _MAX_PATH:
            raise FrameWriteError(
                f"{self.parent.name}: folder {folder!r} has {len(folder)} characters; at most {_MAX_PATH}"
            )
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:  # the IOC may see a disk that this machine does not: it has the last word
            logger.info("folder %s cannot be made from here (%s)", folder, error)

    # -- frames

    def begin_point(self, frame_type: str) -> None:
        """Note what was captured since the last point (frames of no Event), and what kind of frame comes next."""
        captured = int(self.num_captured.get())
        orphans = captured - self._captured
        if orphans < 0:
            raise FrameWriteError(
                self._complaint(f"the IOC started a new file ({captured} frames after {self._captured})")
            )
        if orphans:
            logger.warning("%s: %d frame(s) in %s belong to no event", self.parent.name, orphans, self._last_dataset)
        self._rows[self._last_dataset] += orphans
        self._captured = captured
        self._last_dataset = self.dataset_of(frame_type)

    def end_point(self, key: str) -> FrameAddress:
        """Wait until the frames of the point are on disk and make the datum for data key `key`.

        Raises
        ------
        FrameWriteError
            When the plugin reports a write error, or has captured less than was asked for.
        """
        ((_, address),) = self.end_points(key, 1)
        return address

    def next_rows(self, n: int) -> FrameRows:
        """Return where the `n` frames of the point that has begun will lie; see `begin_point`."""
        dataset = self._last_dataset
        return FrameRows(Path(self._fn), dataset, self._rows[dataset], n, self._captured)

    def end_rows(self, n: int) -> FrameRows:
        """Wait until the `n` frames of one acquisition are on disk, without a datum for each; return where they lie.

        For flyers that describe their frames by StreamDatum documents.

        Raises
        ------
        FrameWriteError
            See `end_point`.
        """
        captured = self._wait_captured(n)
        dataset = self._last_dataset
        first = self._rows[dataset] + captured - self._captured - n
        self._rows[dataset] = first + n
        self._captured = captured
        return FrameRows(Path(self._fn), dataset, first, n, captured - n)

    def end_points(self, key: str, points: int) -> list[tuple[str, FrameAddress]]:
        """Do the same for `points` points that were taken in one go.

        Returns
        -------
        list of (str, FrameAddress)
            Datum and place of each. The last one is what `read` gives.

        Raises
        ------
        FrameWriteError
            See `end_point`.
        """
        return self._register(key, self._wait_captured(self._frames_per_point * points), points)

    def _wait_captured(self, asked: int) -> int:
        """Return how many frames are in the file when `asked` more than before are."""
        deadline = time.monotonic() + _MAX_LAG_S
        while (captured := int(self.num_captured.get())) < self._captured + asked:
            if self._write_failed() or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        else:
            if not self._write_failed():
                return captured
        raise FrameWriteError(self._complaint(f"{captured - self._captured} of {asked} frame(s) written"))

    def _register(self, key: str, captured: int, points: int) -> list[tuple[str, FrameAddress]]:
        dataset, per_point = self._last_dataset, self._frames_per_point
        # if more came than asked for, the last ones are those of these points
        first = self._rows[dataset] + captured - self._captured - per_point * points
        self._rows[dataset] = first + per_point * points
        self._captured = captured
        point, rest = divmod(first, per_point)
        if rest:
            raise FrameWriteError(
                self._complaint(f"an aborted point left {rest} of {per_point} frames; stage again for a new file")
            )
        if dataset not in self._factories:
            self._factories[dataset] = self._new_resource(dataset)
        # a datum that was never collected belongs to an exposure that never became an Event
        kept = [item for item in self._asset_docs_cache if item[0] != "datum"]
        self._asset_docs_cache.clear()
        self._asset_docs_cache.extend(kept)
        places = []
        for number in range(points):
            datum = self._factories[dataset]({"point_number": point + number})
            self._asset_docs_cache.append(("datum", datum))
            places.append((datum["datum_id"], FrameAddress(Path(self._fn), dataset, first + number * per_point)))
        self._datum_uids[key] = [{"value": places[-1][0], "timestamp": time.time()}]
        return places

    def _new_resource(self, dataset: str) -> Any:
        primary = dataset == PRIMARY_DATASET
        keywords: dict[str, Any] = {"frame_per_point": self._frames_per_point}
        document, factory = resource_factory(
            spec=self.filestore_spec if primary else "HDF5",
            root=str(self.reg_root),
            resource_path=str(PurePath(self._fn).relative_to(self.reg_root)),
            resource_kwargs=keywords if primary else {"dataset": dataset, **keywords},
            path_semantics=self.path_semantics,
        )
        self._asset_docs_cache.append(("resource", document))
        return factory

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any] | None) -> None:
        """Do nothing: a datum is made when its frame is on disk (`end_point`), not when the exposure starts."""

    def read(self) -> dict[str, Any]:
        """Return the reference to the last frame.

        Raises
        ------
        RuntimeError
            Before the first trigger of this staging.
        """
        if any(not readings for readings in self._datum_uids.values()):
            raise RuntimeError(f"{self.parent.name}: there is no frame yet; trigger the camera before reading it")
        reading: dict[str, Any] = super().read()
        return reading

    # -- errors

    def _answers(self) -> bool:
        return bool(self.write_status.connected or self.num_captured.connected)

    def _write_failed(self) -> bool:
        return self.write_status.get(as_string=False) not in (0, "0", "Write OK")

    def _complaint(self, what: str) -> str:
        try:
            says = str(self.write_message.get(as_string=True)).strip() or "nothing"
            file = str(self.full_file_name.get()) or "(none yet)"
            exists = "" if self.file_path_exists.get() else "; the IOC does not see this folder"
        except connection_errors() as error:
            says, file, exists = f"no answer ({error})", str(self._fn), ""
        return (
            f"{self.parent.name}: {what}; file {file}, folder {self.write_path_template}{exists}; "
            f"the IOC says: {says}. "
            "Check space and rights of that folder for the IOC's account, or give another one (camera.directory)"
        )
