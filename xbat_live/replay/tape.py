"""Writes a recording as the tape that the simulated beamline plays; the format is in docs/reference/simulator.md."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from xbat_live.replay.director import transmissions
from xbat_live.replay.recording import Exposure, Recording, ReplayError

VERSION = 1  # of xbat_live.sim.tape
_CELL = ("mode", "status", "voltage_v", "current_ma", "capacity_mah", "soc")
_STEPS = ("potentiostat", "phase")


def write_tape(recording: Recording, file: Path, *, energy_ev: float) -> Path:
    """Write the tape of a recording; the frames stay where they are.

    Raises
    ------
    ReplayError
        A frame cannot be read, or frames are of different shapes.
    """
    shape = _shape(recording)
    through = transmissions(recording)
    exposures = recording.exposures
    ends = [later.time_s for later in exposures[1:]] + [math.inf]
    steps_s = [decision.time_s for decision in recording.decisions if decision.action in _STEPS]
    content = {
        "version": VERSION,
        "run": recording.uid,
        "shape": shape,
        "energy_ev": energy_ev,
        "exposures": [
            _taped(exposure, through[exposure.number], any(exposure.time_s < s <= end for s in steps_s))
            for exposure, end in zip(exposures, ends, strict=True)
        ],
    }
    file.write_text(json.dumps(content))
    return file


def _taped(exposure: Exposure, transmission: float, step_follows: bool) -> dict[str, Any]:
    data = exposure.data
    cell = {name: data[f"potentiostat_{name}"] for name in _CELL if f"potentiostat_{name}" in data}
    return {
        "file": str(exposure.frame.file),
        "dataset": exposure.frame.dataset,
        "index": exposure.frame.index,
        "setpoint_um": exposure.setpoint_um,
        "stage_um": exposure.stage_um,
        "exposure_s": 0.0 if math.isnan(exposure.exposure_s) else exposure.exposure_s,
        "open_time_s": 0.0 if exposure.stream == "dark" else exposure.open_time_s,
        "light_fraction": exposure.light_fraction,
        "i0_na": float(data.get("i0_current_na", math.nan)),
        "ring_ma": float(data.get("ring_current_ma", math.nan)),
        "transmission": transmission,
        "cell": cell or None,
        "step_follows": step_follows,
    }


def _shape(recording: Recording) -> tuple[int, int]:
    """Return rows and columns of the frames, after a look at every one of them."""
    import h5py

    shapes: dict[tuple[int, int], Exposure] = {}
    open_file: h5py.File | None = None
    try:
        for exposure in recording.exposures:
            place = exposure.frame
            try:
                if open_file is None or open_file.filename != str(place.file):
                    if open_file is not None:
                        open_file.close()
                    open_file = h5py.File(place.file, "r", libver="latest", swmr=True)
                dataset = open_file[place.dataset]
                if not 0 <= place.index < dataset.shape[0]:
                    raise ValueError(f"it has {dataset.shape[0]} frames")
            except (OSError, KeyError, ValueError) as error:
                raise ReplayError(
                    f"frame {exposure.seq_num} of {exposure.stream}: {place.file}:{place.dataset}[{place.index}] cannot be read: "
                    f"{error}; restore the file from a backup"
                ) from error
            shapes.setdefault((int(dataset.shape[-2]), int(dataset.shape[-1])), exposure)
    finally:
        if open_file is not None:
            open_file.close()
    if len(shapes) != 1:
        raise ReplayError(f"the frames are of different shapes: {', '.join(f'{r}x{c}' for r, c in shapes)}")
    return next(iter(shapes))
