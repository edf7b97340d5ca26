"""Motors: the sample stage, and a motor record whose moves are bounded in range and time."""

from __future__ import annotations

import logging
import math
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, EpicsMotor
from ophyd.status import MoveStatus
from ophyd.utils import DisconnectedError, LimitError

logger = logging.getLogger(__name__)


class TxmMotor(EpicsMotor):
    """An EPICS motor record that refuses out-of-range moves in plain words and never hangs.

    A stock `EpicsMotor` waits for ever when its IOC dies during a move. Give `timeout` (s), the longest move there is;
    a lost connection ends a move at once.
    """

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self._move_status: MoveStatus | None = None
        self.plan_offset = 0.0
        """How far the dose guard has shifted the running plan, in the motor's unit; see `position`."""
        self.motor_done_move.subscribe(self._connection_changed, event_type=self.motor_done_move.SUB_META, run=False)

    @property
    def position(self) -> float:
        """Where the motor is, in the coordinates of the running plan: shifted back by `plan_offset`.

        Plans compute relative moves from it. What is read and recorded (`user_readback`) is never shifted.
        """
        return float(super().position) - self.plan_offset

    def check_value(self, pos: float) -> None:
        """Refuse a position that is no number or outside the soft limits (dialled into LLM and HLM; 0, 0 means none).

        Raises
        ------
        ophyd.utils.LimitError
            With axis, value, unit and both limits.
        """
        low, high = float(self.low_limit_travel.get()), float(self.high_limit_travel.get())
        position = float(pos)
        if math.isfinite(position) and (low >= high or low <= position <= high):
            return
        raise LimitError(self.out_of_limits(position, low, high))

    def out_of_limits(self, position: float, low: float, high: float) -> str:
        """Return the message of a refused move; positions in the unit of the motor."""
        unit = self.egu or "(no unit)"
        limits = f"{low:g} to {high:g} {unit} ({self.prefix}.LLM, .HLM)"
        return f"{self.name}: {position:g} {unit} is outside the limits {limits}; nothing moved"

    def move(self, position: float, wait: bool = True, **kwargs: Any) -> MoveStatus:
        """Move to `position` in the motor's unit, after `check_value`."""
        self.check_value(position)
        self._move_status = status = super().move(position, wait=False, **kwargs)
        if wait:
            try:
                status.wait()
            except KeyboardInterrupt:
                self.stop()
                raise
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stop the motion; without a connection there is only something to log, so that a clean-up gets on."""
        if self.motor_stop.connected:
            super().stop(success=success)
        else:
            logger.error("%s: cannot be stopped, %s is not connected", self.name, self.prefix)
            self._done_moving(success=False)

    def _connection_changed(self, *, connected: bool = True, **_: Any) -> None:
        if not connected and self._moving:
            logger.error("%s: connection to %s lost during a move", self.name, self.prefix)
            self._moving: bool = False
            self._reset_sub(self._SUB_REQ_DONE)
            if self._move_status is not None and not self._move_status.done:
                self._move_status.set_exception(
                    DisconnectedError(f"{self.name}: connection to {self.prefix} lost during a move")
                )


class TxmStage(Device):
    """Sample stage: x, y, z in um and theta in degrees."""

    x = Cpt(TxmMotor, "X", timeout=30)
    y = Cpt(TxmMotor, "Y", timeout=30)
    z = Cpt(TxmMotor, "Z", timeout=30)
    theta = Cpt(TxmMotor, "Theta", timeout=120)

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        for motor in (self.z, self.theta):  # recorded, but not what a plot of a series is about
            motor.user_readback.kind = "normal"
