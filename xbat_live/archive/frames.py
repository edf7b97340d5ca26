"""Tell Tiled which frames of an HDF5 dataset belong to the Events of a stream."""

from __future__ import annotations

from typing import Any

import h5py
from bluesky_tiled_plugins.writing.consolidators import CONSOLIDATOR_REGISTRY, HDF5Consolidator, Patch
from tiled.utils import path_from_uri

HDF5_MIMETYPE = "application/x-hdf5"
_PLANE = 2  # dimensions of one frame


class EventFramesConsolidator(HDF5Consolidator):
    """Serve row ``i`` of a stream as the frame that Event ``i`` refers to.

    The plugin counts Events only. As soon as the file holds a frame without an Event (a rewound point after a pause, an
    aborted exposure, a frame just being taken), Tiled answers 422, "Can not reshape", for the whole stream, and
    ``run.validate()`` mends that by serving all rows of the file, so that row and Event no longer agree. This class
    passes the rows to the reader: as a slice (``"0:7"``) while they are without gaps, else as a list. The stock HDF5
    adapter of the server takes both, so any Tiled server can serve such runs.

    Documents without gaps give the same arrays as before; a ``slice`` that a StreamResource brings along is left alone.
    """

    def __init__(self, stream_resource: dict[str, Any], descriptor: dict[str, Any]) -> None:
        super().__init__(stream_resource, descriptor)
        self._rows: list[int] = []
        self._first_row = 0
        self._contiguous = True
        self._rows_per_event = self._sres_parameters.get("multiplier") or (
            1 if len(self.datum_shape) == _PLANE or self.datum_shape[:1] == (1,) else None
        )
        if self._sres_parameters.get("slice") or self.join_method != "stack":
            self._rows_per_event = None

    def update_from_stream_resource(self, stream_resource: dict[str, Any]) -> None:
        """Go on with another file of the same data key; its rows follow those of the file before, used or not."""
        if self._rows_per_event is not None:
            with h5py.File(path_from_uri(self.assets[-1].data_uri), "r", libver="latest", swmr=True) as file:
                self._first_row += len(file[self._sres_parameters["dataset"]])
        super().update_from_stream_resource(stream_resource)

    def consume_stream_datum(self, doc: dict[str, Any]) -> Patch:
        """Note the rows of a StreamDatum's ``indices``."""
        if (per_event := self._rows_per_event) is not None:
            for index in range(doc["indices"]["start"], doc["indices"]["stop"]):
                row = self._first_row + index * per_event
                self._contiguous &= not self._rows or row == self._rows[-1] + 1
                self._rows.extend(range(row, row + per_event))
        return super().consume_stream_datum(doc)

    def adapter_parameters(self) -> dict[str, Any]:
        """Return what the server's reader gets: dataset, SWMR, and the rows."""
        parameters: dict[str, Any] = super().adapter_parameters()
        if self._rows:
            first, last = self._rows[0], self._rows[-1]
            parameters["slice"] = f"{first}:{last + 1}" if self._contiguous else list(self._rows)
        return parameters


def use_event_frames() -> None:
    """Make `bluesky_tiled_plugins` use `EventFramesConsolidator` for HDF5 files in this process."""
    CONSOLIDATOR_REGISTRY[HDF5_MIMETYPE] = EventFramesConsolidator


def one_chunk_per_frame(resource: dict[str, Any]) -> dict[str, Any]:
    """Patch a Resource document: without it, reading one frame through Tiled reads the whole series.

    Not in the device: databroker's areaDetector handlers would refuse the unknown keyword.
    """
    if "HDF5" not in resource.get("spec", "").upper():
        return resource
    return {**resource, "resource_kwargs": {"chunk_shape": [1], **resource.get("resource_kwargs", {})}}
