"""Why frames cannot be read: asked of the server once, told with the file and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbat_live.archive.upload import OUTSIDE, explain, why_unreadable
from xbat_live.archive.whole_files import cut_off, open_frames

REMEDY = "bring the file back, or restore it from a backup"
_HDF5 = "application/x-hdf5"
_SERVER_ERROR, _GONE = 500, "FileNotFoundError"


def file_behind(array: Any) -> tuple[Path, str | None] | None:
    """Return the one file that Tiled reads `array` from, and the dataset in it if it is HDF5; None when there are several or none."""
    from tiled.utils import path_from_uri

    sources = array.data_sources()
    if not sources or len(sources) != 1 or len(sources[0].assets) != 1:
        return None
    try:
        path = Path(path_from_uri(sources[0].assets[0].data_uri))
    except ValueError:
        return None
    dataset = sources[0].parameters.get("dataset")
    return path, str(dataset) if dataset is not None and sources[0].mimetype == _HDF5 else None


def refusal(array: Any, run: Any) -> str | None:
    """Return why the first value of `array` cannot be read through the server; None: it can.

    Asked once: Tiled's own client repeats for half a minute what the server cannot answer.
    """
    import httpx

    item = getattr(array, "item", None)
    if not isinstance(item, dict):
        return None  # not served
    link = item["links"]["full"]
    behind = file_behind(array)
    if behind is not None and behind[1] is not None and behind[0].is_file():
        if told := wrong_with(behind[0], behind[1], array.shape[0]):
            return f"{behind[0]}: {told}; {REMEDY}"
    try:
        answer = array.context.http_client.get(
            link,
            params={"slice": ",".join("0:1" for _ in array.shape)},
            headers={"Accept": "application/octet-stream", "Connection": "close"},  # after an error the server drops it
        )
    except httpx.HTTPError:
        return None  # of the network, not of the file: that passes, and Tiled's client waits for it
    if answer.status_code < _SERVER_ERROR:
        return None
    return explain_unreadable(array, run, f"the server answers {answer.status_code}")


def explain_unreadable(array: Any, run: Any, otherwise: str) -> str:
    """Return file, what is wrong with it (`otherwise` where neither the file nor the server tells) and the remedy."""
    behind = file_behind(array)
    if behind is None:
        return why_unreadable(run) or otherwise
    path, dataset = behind
    reason = wrong_with(path, dataset, array.shape[0]) if dataset is not None and path.is_file() else None
    reason = reason or why_unreadable(run) or otherwise
    if OUTSIDE in reason:
        return reason  # with a remedy of its own
    return f"{path}: {'no such file' if _GONE in reason else reason}; {REMEDY}"


def wrong_with(path: Path, dataset: str, n: int) -> str | None:
    """Return what is wrong with an HDF5 file that is to hold `n` frames or more in `dataset`; None when nothing is seen."""
    try:
        if told := cut_off(path):
            return told
        with open_frames(path) as file:
            if dataset not in file:
                return f"it has no dataset {dataset}"
            found = len(file[dataset])
            return f"{found} frames in {dataset}, {n} were recorded" if found < n else None
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        return explain(error)
