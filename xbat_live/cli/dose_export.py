"""A sample's dose as files: records as CSV, maps as NumPy archive or NeXus-like HDF5."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xbat_live import __version__
from xbat_live.config import ConfigError
from xbat_live.dose import DoseAccount, DoseMap, DoseTarget, Ledger, RateMap
from xbat_live.dose.records import COLUMNS, record_from_row

FORMATS = (".csv", ".npz", ".h5")


class ExportError(ConfigError):
    """The file was not written; the message says why and what to do."""


def check_target(out: Path, *, force: bool) -> None:
    """Check that `out` has a known format and may be written.

    Raises
    ------
    ExportError
        Unknown suffix, a folder that is not there, or a file that exists.
    """
    if out.suffix not in FORMATS:
        raise ExportError(f"{out}: format {out.suffix!r} is unknown; name the file with {', '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise ExportError(f"{out}: there is no folder {out.parent}; make it first")
    if out.exists() and not force:
        raise ExportError(f"{out}: exists; give --force to overwrite it")


def write_records(ledger: Ledger, out: Path) -> int:
    """Write all records as CSV, one line each, and return their number. Units are in the names of the columns."""
    n = 0

    def write(partial: Path) -> None:
        nonlocal n
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in ledger.rows(COLUMNS):
                record_from_row(row)  # a record that cannot be read is an error here, not in somebody's spreadsheet
                writer.writerow(row)
                n += 1

    _replace(out, write)
    return n


def write_maps(account: DoseAccount, out: Path, *, sample: str) -> tuple[int, int]:
    """Write the dose maps of all materials with coordinates and units; return the maps' shape (ny, nx).

    Parameters
    ----------
    out
        ``.npz`` or ``.h5``.
    sample
        Name of the sample.
    """
    maps = {target: account.dose_map(target) for target in account.targets}
    first = next(iter(maps.values()))
    rate = account.peak_rate_map()
    description = {
        "sample": sample,
        "model": account.model,
        "stack": account.stack.as_dict(),
        "beam": account.beam.as_dict(),
        "limits": [limit.as_dict() for limit in account.limits],
        "targets": [{"layer": target.layer, "material": target.material} for target in account.targets],
        "ledger": str(account.ledger.path),
        "units": {"dose": "Gy", "rate": "Gy/s", "x": "um", "y": "um"},
        "coordinates": "sample: stage reading minus registered drift",
        "xbat_live": __version__,
    }
    if out.suffix == ".npz":
        named: dict[str, Any] = {f"dose_gy_{name_of(target)}": dose_map.dose_gy for target, dose_map in maps.items()}
        named |= {"x_um": first.x_um, "y_um": first.y_um, "peak_rate_gy_s": rate.rate_gy_s}
        named |= {"rate_x_um": rate.x_um, "rate_y_um": rate.y_um, "description": np.array(json.dumps(description))}

        def write(partial: Path) -> None:
            with partial.open("wb") as file:  # savez appends .npz to a name
                np.savez_compressed(file, **named)

    else:

        def write(partial: Path) -> None:
            _write_nexus(partial, maps, rate, description)

    _replace(out, write)
    ny, nx = first.dose_gy.shape
    return ny, nx


def name_of(target: DoseTarget) -> str:
    """Return a target as a name for arrays and groups."""
    return "".join(letter if letter.isalnum() else "_" for letter in f"{target.layer}_{target.material}")


def _write_nexus(path: Path, maps: dict[DoseTarget, DoseMap], rate: RateMap, description: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        entry = _group(file, "entry", "NXentry")
        file.attrs["default"] = "entry"
        sample = _group(entry, "sample", "NXsample")
        sample["name"] = description["sample"]
        process = _group(entry, "process", "NXprocess")
        process["program"] = "xbat_live"
        process["version"] = __version__
        for key in ("model", "ledger", "coordinates"):
            process[key] = description[key]
        for key in ("stack", "beam", "limits"):  # JSON: the classes of NeXus have no place for them
            process[key] = json.dumps(description[key])
        entry.attrs["default"] = f"dose_{name_of(next(iter(maps)))}"
        for target, dose_map in maps.items():
            group = _map(entry, f"dose_{name_of(target)}", dose_map.dose_gy, dose_map.x_um, dose_map.y_um, units="Gy")
            group.attrs["layer"], group.attrs["material"] = target.layer, target.material
            group.attrs["model"] = description["model"]
        _map(entry, "peak_rate", rate.rate_gy_s, rate.x_um, rate.y_um, units="Gy/s")


def _map(entry: Any, name: str, values: np.ndarray, x_um: np.ndarray, y_um: np.ndarray, *, units: str) -> Any:
    group = _group(entry, name, "NXdata")
    group.attrs["signal"], group.attrs["axes"] = "data", ["y", "x"]
    group.attrs["x_indices"], group.attrs["y_indices"] = 1, 0
    packing = {"compression": "gzip", "shuffle": True} if values.size else {}  # HDF5 cannot pack nothing
    group.create_dataset("data", data=values, **packing).attrs["units"] = units
    for axis, positions in (("x", x_um), ("y", y_um)):
        group.create_dataset(axis, data=positions).attrs["units"] = "um"
    return group


def _group(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _replace(out: Path, write: Callable[[Path], None]) -> None:
    """Write beside `out` and move it there when it is complete: a failed export leaves the old file, or none."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        write(partial)
        os.replace(partial, out)
    except OSError as error:
        raise ExportError(f"{out}: not written: {error}; choose another place or free the disk") from error
    finally:
        partial.unlink(missing_ok=True)
