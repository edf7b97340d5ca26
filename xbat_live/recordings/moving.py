"""A recorded picture as it would have been with the stage elsewhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def moved(frame: npt.NDArray[np.uint16], shift_yx_px: tuple[float, float]) -> npt.NDArray[np.uint16]:
    """Return a frame (rows, columns) whose content is moved by `shift_yx_px`: cubic spline, mirrored at the borders."""
    from scipy.ndimage import shift

    image = shift(frame.astype(np.float32), shift_yx_px, order=3, mode="mirror")
    return np.clip(np.rint(image), 0, np.iinfo(np.uint16).max).astype(np.uint16)
