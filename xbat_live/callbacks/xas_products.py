"""Maps of every cube in an HDF5 file beside the frames, and the documents by which they join the stream ``xas`` of the run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

_UNITS = {
    "fractions": "",
    "r_factor": "",
    "edge_ev": "eV",
    "dose_gy": "Gy",
    "curve_dose_gy": "Gy",
    "curve_edge_ev": "eV",
}


class XasProducts:
    """Maps of the live analysis: written here, announced as StreamResource and StreamDatum when read into an Event.

    Parameters
    ----------
    folder
        Of the frames: the archive's server reads there.
    name
        Prefix of the keys.
    """

    parent = None

    def __init__(self, folder: Path, *, name: str = "xas_map") -> None:
        self.name = name
        self._path = Path(folder) / f"xas-{uuid.uuid4().hex[:12]}.h5"
        self._file: h5py.File | None = None
        self._composers: dict[str, Any] = {}
        self._rows: list[int] = []
        self._written = 0
        self._shapes: dict[str, tuple[int, ...]] = {}

    def write(self, maps: Mapping[str, npt.ArrayLike]) -> int:
        """Add one cube's maps and return their row; the shapes of the first cube hold for all."""
        arrays = {key: np.asarray(values, np.float32) for key, values in maps.items()}
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._path, "w", libver="latest")
            for key, values in arrays.items():
                self._shapes[key] = values.shape
                self._file.create_dataset(
                    key, (0, *values.shape), maxshape=(None, *values.shape), chunks=(1, *values.shape), dtype="<f4"
                )
            self._file.swmr_mode = True
        row = self._written
        for key, values in arrays.items():
            dataset = self._file[key]
            dataset.resize(row + 1, axis=0)
            dataset[row] = values
        self._file.flush()
        self._written += 1
        return row

    def select(self, row: int) -> XasProducts:
        """Let the next Event refer to `row`."""
        self._rows = [row]
        return self

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        return {
            f"{self.name}_{key}": {
                "source": f"file:{self._path.name}:{key}",
                "dtype": "array",
                "dtype_numpy": "<f4",
                "shape": list(shape),
                "external": "STREAM:",
                **({"units": _UNITS[key]} if _UNITS.get(key) else {}),
            }
            for key, shape in self._shapes.items()
        }

    def read(self) -> dict[str, Any]:
        """Return nothing: all of it is external."""
        return {}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the documents of the selected row."""
        from event_model import compose_stream_resource

        del index
        rows, self._rows = self._rows, []
        for row in rows:
            for key in self._shapes:
                if key not in self._composers:
                    document, self._composers[key] = compose_stream_resource(
                        mimetype="application/x-hdf5",
                        uri=f"file://localhost{self._path}",
                        data_key=f"{self.name}_{key}",
                        parameters={"dataset": f"/{key}", "swmr": True, "chunk_shape": [1]},
                    )
                    yield "stream_resource", dict(document)
                yield "stream_datum", dict(self._composers[key](indices={"start": row, "stop": row + 1}))
