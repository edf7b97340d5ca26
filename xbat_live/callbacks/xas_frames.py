"""Frames of an energy sweep while it goes on: read from the file that the camera is writing, with the encoder's energy of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from xbat_live.devices import CubeStart
from xbat_live.devices.bragg import energy_of_bragg_ev
from xbat_live.devices.energy_sweep import ENCODER_DATASET

_POLL_S = 0.01
_PATIENCE_S = 20.0
Frame = tuple[int, npt.NDArray[np.uint16], float]


class CubeCutShortError(RuntimeError):
    """The frames of a cube do not come."""


def follow_cube(
    cube: CubeStart,
    given_up: Callable[[], bool],
    *,
    spacing_angstrom: float,
    encoder_dataset: str = ENCODER_DATASET,
    patience_s: float = _PATIENCE_S,
) -> Iterator[Frame]:
    """Yield number, frame (ny, nx) and energy (eV) of a cube's frames as they appear in the file.

    Parameters
    ----------
    given_up
        Asked while a frame is waited for.
    spacing_angstrom
        Of the monochromator's crystal.
    patience_s
        Longest wait for one frame, s.

    Raises
    ------
    CubeCutShortError
        Given up, or nothing came within `patience_s`.
    """
    with _opened(cube.file, given_up, patience_s) as file:
        frames, angles = file[cube.dataset], file[encoder_dataset]
        for number in range(cube.n_frames):
            row, captured = cube.first + number, cube.first_captured + number
            deadline = time.monotonic() + patience_s
            while frames.shape[0] <= row or angles.shape[0] <= captured:
                if given_up() or time.monotonic() > deadline:
                    raise CubeCutShortError(f"cube {cube.number}: {number} of {cube.n_frames} frames came")
                time.sleep(_POLL_S)
                frames.refresh()
                angles.refresh()
            yield number, frames[row], float(energy_of_bragg_ev(angles[captured], spacing_angstrom))


def _opened(path: Path, given_up: Callable[[], bool], patience_s: float) -> Any:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return h5py.File(path, "r", libver="latest", swmr=True)
        except OSError as error:
            if given_up() or time.monotonic() > deadline:
                raise CubeCutShortError(f"{path} cannot be read: {error}") from error
            time.sleep(_POLL_S)
