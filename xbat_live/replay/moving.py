"""Reads recorded frames as they would have been with the stage elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbat_live.callbacks import FrameAddress, FrameReader
from xbat_live.config import ExperimentConfig
from xbat_live.recordings.moving import moved
from xbat_live.session import image_to_stage_yx


class MovingReader(FrameReader):
    """A reader that moves the content of the frames it was told to.

    Attributes
    ----------
    shifts
        Shift of the content (y, x), px, by frame; used once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shifts: dict[FrameAddress, tuple[float, float]] = {}

    def read(self, address: FrameAddress) -> NDArray[np.uint16]:
        """See `FrameReader`."""
        frame = super().read(address)
        shift = self.shifts.pop(address, None)
        return frame if shift is None else moved(frame, shift)


def content_shift_px(config: ExperimentConfig, stage_shift_um: tuple[float, float]) -> tuple[float, float]:
    """Return how far the content moves (y, x), px, when the stage stands `stage_shift_um` (x, y), um, from where it was.

    The sample goes with the stage, so that the content moves by minus as much.
    """
    to_image = np.linalg.inv(image_to_stage_yx(config)) / config.camera.pixel_size_um
    y_px, x_px = -to_image @ np.array(stage_shift_um[::-1])
    return float(y_px), float(x_px)
