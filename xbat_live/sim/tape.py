"""A recorded run as the simulated beamline plays it: one JSON file that lists the exposures, frames in HDF5 files."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.recordings.moving import moved

__all__ = ["VERSION", "Tape", "TapedExposure"]

VERSION = 1
_CELL = {
    "mode": "OCV",
    "status": "Idle",
    "voltage_v": 0.0,
    "current_ma": 0.0,
    "capacity_mah": 0.0,
    "soc": 0.0,
}


@dataclass(frozen=True)
class TapedExposure:
    """One recorded exposure.

    Attributes
    ----------
    file, dataset, index
        Its frame.
    setpoint_um, stage_um
        Where the stage was sent and what it read (x, y), um.
    exposure_s, open_time_s
        Exposure and time the shutter was open, s; 0 for darks.
    light_fraction
        Part of the exposure's light that the camera got.
    i0_na, ring_ma, transmission
        Readings of the beam; transmission of the attenuator.
    cell
        Readings of the potentiostat: mode, status, voltage_v, current_ma, capacity_mah, soc.
    step_follows
        The potentiostat's step had ended before the next exposure.
    """

    file: Path
    dataset: str
    index: int
    setpoint_um: tuple[float, float]
    stage_um: tuple[float, float]
    exposure_s: float
    open_time_s: float
    light_fraction: float
    i0_na: float
    ring_ma: float
    transmission: float
    cell: dict[str, Any]
    step_follows: bool

    @property
    def missed_s(self) -> float:
        """Time of the opening that the camera missed, s; 0 when the shutter was closed early instead."""
        if self.open_time_s < 0.9 * self.exposure_s:
            return 0.0
        return max(0.0, (1.0 - self.light_fraction) * self.exposure_s)


class Tape:
    """The exposures of a recorded run.

    Parameters
    ----------
    file
        Written by `xbat replay`; see docs/reference/simulator.md.

    Raises
    ------
    ValueError
        The file cannot be read, or is no tape of this version.
    """

    def __init__(self, file: Path) -> None:
        try:
            content = json.loads(file.read_text())
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, expected {VERSION}")
            self.shape: tuple[int, int] = (int(content["shape"][0]), int(content["shape"][1]))
            self.energy_ev = float(content["energy_ev"])
            self.exposures = [_exposure(item) for item in content["exposures"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: cannot be played: {error}; expected a tape that `xbat replay` wrote") from error

    def frame(self, number: int, shift_yx_px: tuple[float, float] = (0.0, 0.0)) -> npt.NDArray[np.uint16]:
        """Return a recorded frame (rows, columns), its content moved by `shift_yx_px`; mirrored where nothing was recorded.

        Raises
        ------
        ValueError
            The file cannot be read.
        """
        import h5py

        exposure = self.exposures[number]
        try:
            with h5py.File(exposure.file, "r", locking=False) as file:
                frame = np.asarray(file[exposure.dataset][exposure.index], dtype=np.uint16)
        except (OSError, KeyError, ValueError, IndexError) as error:
            where = f"{exposure.file}:{exposure.dataset}[{exposure.index}]"
            raise ValueError(f"recorded frame {where} cannot be read: {error}") from error
        return frame if shift_yx_px == (0.0, 0.0) else moved(frame, shift_yx_px)


def _exposure(item: dict[str, Any]) -> TapedExposure:
    values = {field.name: item[field.name] for field in fields(TapedExposure)}
    values["file"] = Path(values["file"])
    values["setpoint_um"], values["stage_um"] = tuple(values["setpoint_um"]), tuple(values["stage_um"])
    values["cell"] = _CELL | (values["cell"] or {})
    return TapedExposure(**values)
