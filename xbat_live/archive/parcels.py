"""Analyses on their way into Tiled: on disk first, like the documents, so that an archive that is away costs nothing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live.archive.analyses import StoredArray, new_name, store_analysis
from xbat_live.archive.journal import lock_file

PARCEL_SUFFIX = ".npz"
_ABOUT = "about"


def pack(
    directory: Path,
    run_uid: str,
    kind: str,
    arrays: Mapping[str, StoredArray],
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write what `xbat_live.archive.store_analysis` takes into a file of its own, forced to the disk.

    Raises
    ------
    OSError
        It cannot be written.
    """
    name = new_name(kind)
    about = {
        "run_uid": run_uid,
        "kind": kind,
        "name": name,
        "metadata": dict(metadata or {}),
        "arrays": {
            path: {"unit": array.unit, "dims": list(array.dims), "meaning": array.meaning}
            for path, array in arrays.items()
        },
    }
    values: dict[str, Any] = {_ABOUT: np.array(json.dumps(about))}
    values |= {f"array:{path}": array.values for path, array in arrays.items()}
    final = directory / f"{run_uid}.{name}{PARCEL_SUFFIX}"
    partial = final.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **values)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def run_uid_of(path: Path) -> str:
    """Return the run a parcel belongs to."""
    return path.name.partition(".")[0]


def deliver(client: Any, path: Path) -> None:
    """Store a parcel beside its run and delete it. Doing it twice stores it once.

    Raises
    ------
    JournalBusyError
        Another process delivers it.
    ValueError
        The file is damaged.
    ArchiveError
        Its run is not in the archive, or the archive does not take it.
    """
    lock = lock_file(path)
    try:
        about, arrays = _unpack(path)
        store_analysis(client, about["run_uid"], about["kind"], arrays, about["metadata"], name=about["name"])
        path.unlink()
    finally:
        os.close(lock)


def _unpack(path: Path) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    try:
        with np.load(path) as file:
            about = json.loads(str(file[_ABOUT]))
            arrays = {
                name: StoredArray(file[f"array:{name}"], told["unit"], tuple(told["dims"]), told["meaning"])
                for name, told in about["arrays"].items()
            }
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is no analysis of a run ({error}); the file is damaged") from error
    return about, arrays
