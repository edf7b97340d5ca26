"""A run as Data Exchange (De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224), the layout that tomopy reads.

``/exchange/data`` holds the frames fit for analysis; those that are not stand in ``/rejected/data``, so that a reconstruction need not
know of them and none is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xbat_live.exchange import h5
from xbat_live.exchange.frame_set import INVALID, FrameSet, Progress
from xbat_live.exchange.nexus import iso, title_of
from xbat_live.exchange.record import RunRecord, write_record

SUFFIXES = (".h5", ".hdf5")
_STACKS = (("data", 0, "theta"), ("data_white", 1, "theta_white"), ("data_dark", 2, "theta_dark"))


def write_dxchange(path: Path, record: RunRecord, frames: FrameSet, progress: Progress | None = None) -> None:
    """Write a run into a new file; see the module for what is where.

    Raises
    ------
    ExchangeError
        No room on the disk.
    """
    with h5.new_file(path, frames.nbytes) as file:
        h5.put(file, "implements", "exchange:measurement:process")
        exchange = h5.group(file, "exchange")
        h5.put(exchange, "title", title_of(record))
        targets: dict[str, list[Any]] = {name: [] for name in frames.stacks}
        for name, key, theta in _STACKS:
            _stack(exchange, name, theta, key=key, frames=frames, targets=targets)
        _stack(h5.group(file, "rejected"), "data", "theta", key=INVALID, frames=frames, targets=targets)
        _measurement(file, record, frames)
        write_record(h5.group(file, "bluesky"), record, h5.places_of(targets))
        h5.put_frames(targets, frames, progress)


def _stack(parent: Any, name: str, theta: str, *, key: int, frames: FrameSet, targets: dict[str, list[Any]]) -> None:
    part = frames.select(key)
    if not len(part):
        return
    data = h5.empty_stack(parent, name, len(part), frames)
    data.attrs["axes"] = f"{theta}:y:x"
    suffix = theta.removeprefix("theta")
    for column, label, unit in (
        ("angle_deg", "theta", "deg"),
        ("energy_ev", "energy", "eV"),
        ("exposure_s", "exposure_time", "s"),
    ):
        if column in part:
            h5.put(parent, f"{label}{suffix}", np.nan_to_num(part[column].to_numpy(float)), unit)
    h5.put(parent, f"time{suffix}", part["time"].to_numpy(float), "s")
    if key == INVALID:
        h5.put(parent, "verdict", part["verdict"].fillna("").to_numpy(object))
    for stream in frames.stacks:
        mine = part["stream"].to_numpy(str) == stream
        targets[stream].append((data, part["row"].to_numpy(np.int64)[mine], np.flatnonzero(mine)))


def _measurement(file: Any, record: RunRecord, frames: FrameSet) -> None:
    measurement = h5.group(file, "measurement")
    h5.put(h5.group(measurement, "sample"), "name", str(record.start.get("sample", "")))
    h5.put(measurement, "start_time", iso(record.start["time"]))
    instrument = h5.group(measurement, "instrument")
    samples = frames.select(0, INVALID)
    if "energy_ev" in samples and np.isfinite(energies := samples["energy_ev"].to_numpy(float)).any():
        h5.put(h5.group(instrument, "monochromator"), "energy", float(np.nanmean(energies)), "eV")
    detector = h5.group(instrument, "detector")
    if "exposure_s" in samples and np.isfinite(exposures := samples["exposure_s"].to_numpy(float)).any():
        h5.put(detector, "exposure_time", float(np.nanmean(exposures)), "s")
    if frames.pixel_size_um is not None:
        h5.put(detector, "x_pixel_size", frames.pixel_size_um, "um")
        h5.put(detector, "y_pixel_size", frames.pixel_size_um, "um")
