"""One recorded frame: where it is, and what its header says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FrameKind = Literal["sample", "flat", "dark"]


class RecordingError(ValueError):
    """A file that cannot be read as frames; the message names file, what is wrong and what was expected."""


@dataclass(frozen=True)
class Recording:
    """One recorded frame: where it is and what its header says. None where neither header nor file name tell.

    Attributes
    ----------
    file, index
        File and number of the frame in it.
    shape
        Rows and columns.
    dtype
        Of the pixels, e.g. ``<u2``.
    kind
        ``sample``, ``flat`` (without the sample) or ``dark`` (without beam).
    pixel_size_um
        Pixel as read out, in the sample plane, um.
    energy_ev, exposure_s, angle_deg
        Photon energy, exposure, rotation of the sample.
    position_um
        Stage (x, y, z), um.
    time_s
        Time of exposure, Unix, s; a header without time zone is taken as local time.
    dataset
        HDF5 dataset.
    valid
        False for a frame that its file marks as invalid.
    motors
        Further motors as (name, unit, position).
    """

    file: Path
    index: int
    shape: tuple[int, int]
    dtype: str = "<u2"
    kind: FrameKind = "sample"
    pixel_size_um: float | None = None
    energy_ev: float | None = None
    exposure_s: float | None = None
    angle_deg: float | None = None
    position_um: tuple[float, float, float] | None = None
    time_s: float | None = None
    dataset: str = ""
    valid: bool = True
    motors: tuple[tuple[str, str, float], ...] = ()

    @property
    def is_reference(self) -> bool:
        """Whether it is a frame without the sample."""
        return self.kind == "flat"

    def pixels(self) -> npt.NDArray[Any]:
        """Return the pixels as they are in the file, (rows, columns).

        Raises
        ------
        RecordingError
            The file cannot be read as its header promised.
        """
        from xbat_live.recordings.find import read_all

        return next(read_all([self]))

    def read(self) -> npt.NDArray[np.float32]:
        """Return the pixels as finite float32, (rows, columns); see `pixels`."""
        return np.nan_to_num(np.asarray(self.pixels(), dtype=np.float32))
