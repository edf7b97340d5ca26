"""The TXM sample stage: motor records X, Y, Z (um) and Theta (deg)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from ..played import PlayedTwin
from .motion import Axis
from .motor import MotorRecord, MotorSettings
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

TRAVEL_UM = 5000.0
PLAYED_TRAVEL_UM = 1e6
_OVERTRAVEL = 1.02  # the hard stops are a little outside the soft limits

AxisName = Literal["x", "y", "z", "theta"]


class Stage:
    """Four axes that carry the sample; tells the twin where they are.

    Parameters
    ----------
    prefix : str
        PV prefix of the stage, e.g. ``XBAT:TXM:``.
    twin : Twin
        Gets `set_stage` at every readback and `prepare` when the stage rests.
    worker : TwinWorker
        Runs those calls.
    """

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker) -> None:
        self._twin, self._worker = twin, worker
        self.axes: dict[AxisName, Axis] = {}
        self.records: list[MotorRecord] = []
        self._add(prefix + "X", "x", "um", TRAVEL_UM, 2000.0)
        self._add(prefix + "Y", "y", "um", TRAVEL_UM, 2000.0)
        self._add(prefix + "Z", "z", "um", 2000.0, 1000.0)
        self._add(prefix + "Theta", "theta", "deg", 180.0, 90.0)

    def _add(self, name: str, axis_name: AxisName, units: str, limit: float, velocity: float) -> None:
        if isinstance(self._twin, PlayedTwin) and units == "um":
            limit = PLAYED_TRAVEL_UM  # another beamline's stage may go farther than this one
        travel = (-limit * _OVERTRAVEL, limit * _OVERTRAVEL)
        speed = self._twin.settings.playback_speed
        axis = Axis(position=0.0, velocity=velocity * speed, acceleration_s=0.02 / speed, travel=travel)
        if isinstance(self._twin, PlayedTwin):
            axis.reading_at_rest = partial(self._twin.rest_um, axis_name)
        settings = MotorSettings(units, 4, (-limit, limit), f"sample stage {axis_name}")
        self.records.append(MotorRecord(name, axis=axis, settings=settings))
        self.axes[axis_name] = axis

        async def moved(position: float, moving: bool) -> None:
            self._worker.post(self._twin.set_stage, axis_name, position, moving)
            if not moving and not any(other.moving for other in self.axes.values()):
                self._worker.prepare(self._twin.prepare)

        axis.listen(moved)
