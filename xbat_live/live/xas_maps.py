"""Maps and curves that the live analysis of energy sweeps has written beside the frames, as small pictures for those who watch."""

from __future__ import annotations

import base64
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from xbat_live.live.feed import LiveFeed

logger = logging.getLogger(__name__)

STREAM = "xas"
PREFIX = "xas_map_"
CURVE = "curve_"
LARGEST_PX = 96
_LOW, _HIGH = 0.02, 0.98
_UNITS = {"edge_ev": "eV", "dose_gy": "Gy"}


@dataclass(frozen=True)
class _Dataset:
    """Where the arrays of one data key are."""

    key: str
    file: Path
    name: str


class XasMaps:
    """A callback for the documents of a run: shows `xas_maps` after every Event of the stream ``xas``.

    Costs the RunEngine an append; files are read in a thread, and whatever goes wrong is logged.
    """

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="live-xas")
        self._forget()

    def _forget(self) -> None:
        self._streams: dict[str, str] = {}
        self._datasets: dict[str, _Dataset] = {}
        self._rows: dict[str, int] = {}

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document; raises nothing."""
        try:
            self._take(name, doc)
        except Exception:
            logger.exception("maps of energy sweeps cannot be shown")

    def _take(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            self._forget()
        elif name == "descriptor":
            self._streams[doc["uid"]] = doc["name"]
        elif name == "stream_resource" and doc["data_key"].startswith(PREFIX):
            path = Path(unquote(urlsplit(doc["uri"]).path))
            key = doc["data_key"].removeprefix(PREFIX)
            self._datasets[doc["uid"]] = _Dataset(key, path, doc["parameters"]["dataset"])
        elif name == "stream_datum" and doc["stream_resource"] in self._datasets:
            self._rows[doc["stream_resource"]] = doc["indices"]["stop"] - 1
        elif name == "event" and self._streams.get(doc["descriptor"]) == STREAM and self._rows:
            wanted = [(self._datasets[uid], row) for uid, row in self._rows.items()]
            self._rows = {}
            self._worker.submit(self._show, wanted, doc["data"].get("xas_number"))

    def _show(self, wanted: list[tuple[_Dataset, int]], number: Any) -> None:
        try:
            self._feed.show(xas_maps={"number": number, **read_maps(wanted)})
        except Exception:
            logger.exception("maps of energy sweeps cannot be shown")

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)


def read_maps(wanted: list[tuple[_Dataset, int]]) -> dict[str, Any]:
    """Return ``maps``, a list of `thumbnail`, and ``curves``: lists of numbers by name, where all of them are known.

    Raises
    ------
    OSError, KeyError
        A file cannot be read.
    """
    import h5py

    maps: list[dict[str, Any] | None] = []
    curves: dict[str, NDArray[np.float64]] = {}
    for dataset, row in wanted:
        with h5py.File(dataset.file, "r", libver="latest", swmr=True) as file:
            values = np.asarray(file[dataset.name][row], np.float64)
        if dataset.key.startswith(CURVE):
            curves[dataset.key.removeprefix(CURVE)] = values
        elif values.ndim == 3:
            maps += [thumbnail(f"{dataset.key} {n}", part, "") for n, part in enumerate(values, 1)]
        else:
            maps.append(thumbnail(dataset.key, values, _UNITS.get(dataset.key, "")))
    shortest = min(map(len, curves.values()), default=0)
    known = [n for n in range(shortest) if all(np.isfinite(values[n]) for values in curves.values())]
    return {
        "maps": [item for item in maps if item is not None],
        "curves": {name: [float(values[n]) for n in known] for name, values in curves.items()},
    }


def thumbnail(name: str, values: NDArray[np.float64], unit: str) -> dict[str, Any] | None:
    """Return a map (ny, nx) as 8 bit: ``levels`` is base64 of ny rows of nx bytes, 0 not known, 1 to 255 from `low` to `high`.

    None when nothing of it is known.
    """
    factor = max(-(-max(values.shape) // LARGEST_PX), 1)
    ny, nx = (size // factor * factor for size in values.shape)
    blocks = values[:ny, :nx].reshape(ny // factor, factor, nx // factor, factor)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    small = np.where(known, blocks, 0.0).sum(axis=(1, 3)) / np.maximum(count, 1)
    inside = count > 0
    if not inside.any():
        return None
    low, high = (float(value) for value in np.quantile(small[inside], (_LOW, _HIGH)))
    span = high - low if high > low else 1.0
    levels = np.zeros(small.shape, np.uint8)
    levels[inside] = 1 + np.rint(254 * np.clip((small[inside] - low) / span, 0, 1)).astype(np.uint8)
    return {
        "name": name,
        "unit": unit,
        "low": low,
        "high": high,
        "ny": levels.shape[0],
        "nx": levels.shape[1],
        "levels": base64.b64encode(levels.tobytes()).decode(),
    }
