"""True position of the stage: read-back plus repositioning error and backlash, and the motion during an exposure."""

from __future__ import annotations

import math
from collections import deque

from xbat_live.sim.instabilities import MotorError, Vibration
from xbat_live.sim.settings import TwinSettings

__all__ = ["AXES", "NO_MOTION", "StageModel"]

AXES = ("x", "y", "z", "theta")
NO_MOTION = Vibration(0.0, 0.0, "line")

_MAX_MOTION_PX = 40.0  # the border of the rendered field allows no more


class StageModel:
    """Four axes as the twin sees them: read-backs come in, true positions go out. Not thread-safe by itself.

    Parameters
    ----------
    settings
        Jitter, backlash and pixel size.
    """

    def __init__(self, settings: TwinSettings) -> None:
        self._pixel_um = settings.pixel_size_um
        self.readback = dict.fromkeys(AXES, 0.0)
        self._moving = dict.fromkeys(AXES, False)
        self._errors = {
            axis: MotorError(settings.seed, i, settings.jitter_um_yx[1 - i], settings.backlash_um)
            for i, axis in enumerate("xy")
        }
        self._track: deque[tuple[float, float, float]] = deque(maxlen=512)

    @property
    def true_yx_um(self) -> tuple[float, float]:
        """True stage position (y, x), um."""
        return tuple(self.readback[a] + self._errors[a].error_um for a in "yx")  # type: ignore[return-value]

    def is_moving(self, axis: str) -> bool:
        """Whether the axis was moving at its last read-back."""
        if axis not in self.readback:
            raise ValueError(f"stage axis {axis!r}: choose one of {', '.join(AXES)}")
        return self._moving[axis]

    def update(self, axis: str, position: float, moving: bool, at_s: float) -> None:
        """Take over a read-back; when the axis comes to rest, the caller follows with `settle`."""
        error = self._errors.get(axis)
        if error is not None:
            error.moved(position - self.readback[axis])
        self.readback[axis] = position
        self._moving[axis] = moving
        if moving and error is not None:
            self._track.append((at_s, *self.true_yx_um))

    def settle(self, axis: str) -> None:
        """Draw the repositioning error of an axis that came to rest."""
        error = self._errors.get(axis)
        if error is not None:
            error.stopped()

    def motion(self, start_s: float, end_s: float) -> tuple[tuple[float, float], Vibration]:
        """Mean true position (y, x) in um during an exposure, and the blur of a stage that moved meanwhile."""
        during = [(y, x) for at_s, y, x in self._track if start_s < at_s < end_s]
        if len(during) < 2:
            return self.true_yx_um, NO_MOTION
        (y0, x0), (y1, x1) = during[0], during[-1]
        extent_px = min(math.hypot(y1 - y0, x1 - x0) / self._pixel_um, _MAX_MOTION_PX)
        if extent_px < 0.5:
            return self.true_yx_um, NO_MOTION
        angle_deg = (math.degrees(math.atan2(y1 - y0, x1 - x0)) + 90.0) % 180.0 - 90.0
        return ((y0 + y1) / 2, (x0 + x1) / 2), Vibration(extent_px, angle_deg, "line")
