"""What the twin knows and the analysis must find: records per frame, and the files tests read afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Frame", "FrameTruth", "Roi", "TruthLog"]


@dataclass(frozen=True)
class Roi:
    """Region of the sensor in unbinned pixels: first row and column, height and width."""

    min_y: int
    min_x: int
    size_y: int
    size_x: int

    def check_on(self, sensor_yx: tuple[int, int], bin_yx: tuple[int, int]) -> None:
        """Check that the region lies on a sensor and that `bin_yx` fits.

        Raises
        ------
        ValueError
            It does not.
        """
        rows, columns = sensor_yx
        inside = 0 <= self.min_y <= rows - self.size_y and 0 <= self.min_x <= columns - self.size_x
        if not inside or self.size_y < bin_yx[0] or self.size_x < bin_yx[1] or min(bin_yx) < 1:
            raise ValueError(
                f"{self} px with binning {bin_yx}: must lie within the sensor of {rows}x{columns} px (rows x columns)"
            )


@dataclass(frozen=True)
class FrameTruth:
    """Truth of one frame.

    Attributes
    ----------
    frame_number
        Counts every frame from 0.
    sample_index
        Counts frames of type "Normal" that saw beam, from 0; -1 for other frames.
    x_um, y_um
        Sample coordinate under the field centre, everything included.
    stage_x_um, stage_y_um, drift_x_um, drift_y_um, jitter_x_um, jitter_y_um
        Stage read-back, drift, and position error of the motors (repositioning and backlash):
        ``x_um = stage_x_um + jitter_x_um - drift_x_um``.
    blur_extent_px, blur_angle_deg, blurred
        Vibration: ``sqrt(12)`` times the standard deviation of the motion in unbinned px (the full length of a line
        kernel); direction from +columns towards +rows, -90..90 deg.
    photons_per_px
        Mean detected photons per (binned) pixel, before noise.
    """

    frame_number: int
    sample_index: int
    time_unix: float
    twin_time_s: float
    frame_type: str
    x_um: float
    y_um: float
    stage_x_um: float
    stage_y_um: float
    drift_x_um: float
    drift_y_um: float
    jitter_x_um: float
    jitter_y_um: float
    blur_extent_px: float
    blur_angle_deg: float
    blurred: bool
    soc_mean: float
    energy_ev: float
    open_time_s: float
    photons_per_px: float


@dataclass(frozen=True)
class Frame:
    """One detector frame, uint16 (rows, columns), with its truth."""

    image: npt.NDArray[np.uint16]
    truth: FrameTruth


class TruthLog:
    """Frame truths of a session and the writer of the truth files."""

    def __init__(self) -> None:
        self.frames: list[FrameTruth] = []

    def append(self, truth: FrameTruth) -> None:
        """Add the truth of a new frame."""
        self.frames.append(truth)

    def write(self, directory: Path, maps: Mapping[str, npt.ArrayLike]) -> None:
        """Write ``truth.jsonl`` (a line per frame) and ``truth_dose.npz`` (`maps`) into `directory`, each by renaming.

        Raises
        ------
        OSError
            The directory cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(
            json.dumps(dataclasses.asdict(frame)) + "\n" for frame in sorted(self.frames, key=lambda f: f.frame_number)
        )
        partial = directory / "truth.jsonl.part"
        partial.write_text(lines)
        partial.replace(directory / "truth.jsonl")
        partial = directory / "truth_dose.part.npz"
        np.savez(partial, allow_pickle=False, **dict(maps))
        partial.replace(directory / "truth_dose.npz")
