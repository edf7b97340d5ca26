"""Reads recorded frames ahead of the plan, and as they would have been with the stage elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from xbat_live.callbacks import FrameAddress, FrameReader
from xbat_live.config import ExperimentConfig
from xbat_live.recordings.moving import moved
from xbat_live.session import image_to_stage_yx

_AHEAD = 4


class MovingReader(FrameReader):
    """A reader that moves the content of the frames it was told to, and reads what comes next in a thread of its own.

    Parameters
    ----------
    order
        Frames in the order of recording. A replay asks for most of them in this order.

    Attributes
    ----------
    shifts
        Shift of the content (y, x), px, by frame; used once.
    """

    def __init__(self, order: Sequence[FrameAddress] = ()) -> None:
        super().__init__()
        self.shifts: dict[FrameAddress, tuple[float, float]] = {}
        self._order = tuple(order)
        self._places = {address: place for place, address in enumerate(self._order)}
        self._ahead: dict[FrameAddress, Future[NDArray[np.uint16]]] = {}
        self._helper, self._helping = FrameReader(), ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def read(self, address: FrameAddress) -> NDArray[np.uint16]:
        """See `FrameReader`."""
        if (place := self._places.get(address)) is None:
            frame = super().read(address)
        else:
            wanted = self._order[place : place + 1 + _AHEAD]
            self._ahead = {key: future for key, future in self._ahead.items() if key in wanted}
            for key in wanted:
                if key not in self._ahead:
                    self._ahead[key] = self._helping.submit(self._helper.read, key)
            frame = self._ahead.pop(address).result()
        shift = self.shifts.pop(address, None)
        return frame if shift is None else moved(frame, shift)

    def close(self) -> None:
        """See `FrameReader`."""
        self._ahead.clear()
        self._helping.shutdown(wait=True, cancel_futures=True)
        self._helper.close()
        super().close()


def content_shift_px(config: ExperimentConfig, stage_shift_um: tuple[float, float]) -> tuple[float, float]:
    """Return how far the content moves (y, x), px, when the stage stands `stage_shift_um` (x, y), um, from where it was.

    The sample goes with the stage, so that the content moves by minus as much.
    """
    to_image = np.linalg.inv(image_to_stage_yx(config)) / config.camera.pixel_size_um
    y_px, x_px = -to_image @ np.array(stage_shift_um[::-1])
    return float(y_px), float(x_px)
