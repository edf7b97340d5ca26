"""What the simulated cameras get their frames from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from .truth import Roi

__all__ = ["FrameSource", "Picture"]


class Picture(Protocol):
    """What a camera gets from its source."""

    @property
    def image(self) -> npt.NDArray[np.uint16]:
        """Counts (rows, columns)."""


class FrameSource(Protocol):
    """What a camera looks at: the X-ray side of the twin, or the optical microscope."""

    def expose(
        self, start_s: float, end_s: float, roi: Roi, bin_yx: tuple[int, int] = (1, 1), frame_type: str = "Normal"
    ) -> Picture:
        """Return the frame of an exposure from `start_s` to `end_s` by `time.monotonic`."""
