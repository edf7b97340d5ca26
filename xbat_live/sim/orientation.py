"""How the camera is mounted: mirrored and rotated images, with regions and binning that follow."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from xbat_live.sim.imager import Imager, Shot
from xbat_live.sim.render import SceneState
from xbat_live.sim.truth import Roi

__all__ = ["OrientedImager"]

_T = TypeVar("_T", bound=np.generic)
_MIRROR, _TURN = "mirror columns", "quarter turn"
_STEPS: dict[str, tuple[str, ...]] = {
    "upright": (),
    "flip_x": (_MIRROR,),
    "flip_y": (_MIRROR, _TURN, _TURN),
    "rotate_90": (_TURN,),
    "rotate_180": (_TURN, _TURN),
    "rotate_270": (_TURN, _TURN, _TURN),
    "transpose": (_MIRROR, _TURN),
}


class OrientedImager:
    """A camera whose image is mirrored or rotated against the scene of another one.

    Parameters
    ----------
    imager
        The upright camera.
    orientation
        ``flip_x`` (columns reversed), ``flip_y``, ``rotate_90`` (counter-clockwise, as `numpy.rot90`), ``rotate_180``,
        ``rotate_270`` or ``transpose``.
    sensor_yx
        Rows and columns of the sensor; a quarter turn needs a square one.

    Raises
    ------
    ValueError
        Unknown orientation, or a quarter turn of a sensor that is not square.
    """

    def __init__(self, imager: Imager, orientation: str, sensor_yx: tuple[int, int]) -> None:
        if orientation not in _STEPS:
            raise ValueError(f"image_orientation = {orientation!r}: known are {', '.join(_STEPS)}")
        self._imager = imager
        self._steps = _STEPS[orientation]
        self._sensor_yx = sensor_yx
        if self._steps.count(_TURN) % 2 and sensor_yx[0] != sensor_yx[1]:
            raise ValueError(f"image_orientation = {orientation!r}: needs a square sensor, not {sensor_yx} px")

    def expose(self, state: SceneState, shot: Shot) -> tuple[npt.NDArray[np.uint16], float]:
        """See `Imager`."""
        image, photons = self._imager.expose(state, self._in_scene(shot))
        return self._seen(image), photons

    def expected_counts(self, state: SceneState, shot: Shot) -> npt.NDArray[np.float32]:
        """See `Imager`."""
        return self._seen(self._imager.expected_counts(state, self._in_scene(shot)))

    def prepare(self, state: SceneState, shot: Shot) -> None:
        """See `Imager`."""
        self._imager.prepare(state, self._in_scene(shot))

    def _seen(self, image: npt.NDArray[_T]) -> npt.NDArray[_T]:
        for step in self._steps:
            image = image[:, ::-1] if step == _MIRROR else np.rot90(image)
        return np.ascontiguousarray(image)

    def _in_scene(self, shot: Shot) -> Shot:
        """Return the shot of the upright camera that shows what `shot` asks for."""
        roi, bin_yx = shot.roi, shot.bin_yx
        rows_columns = self._sensor_yx
        for step in reversed(self._steps):
            far_x = rows_columns[1] - roi.min_x - roi.size_x
            far_y = rows_columns[0] - roi.min_y - roi.size_y
            if step == _MIRROR:
                roi = Roi(roi.min_y, far_x, roi.size_y, roi.size_x)
            else:
                roi = Roi(roi.min_x, far_y, roi.size_x, roi.size_y)
                bin_yx = (bin_yx[1], bin_yx[0])
                rows_columns = (rows_columns[1], rows_columns[0])
        return replace(shot, roi=roi, bin_yx=bin_yx)
