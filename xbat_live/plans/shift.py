"""A plan at another place than it was written for: its stage positions, shifted."""

from __future__ import annotations

from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from xbat_live.devices import TxmStage
from xbat_live.plans.messages import read


class StageShift:
    """Shifts the x and y positions that a plan sets, without the plan knowing.

    The plan goes on in its own coordinates: absolute targets are shifted on their way out, and positions that relative moves are
    computed from (``position`` of a `TxmMotor`, answers to ``locate``) are shifted back. What is read into Events is never shifted.
    """

    def __init__(self, stage: TxmStage) -> None:
        self._axes = (stage.x, stage.y)
        self.offset_um = (0.0, 0.0)

    def forth(self, msg: Msg) -> Msg:
        """Return a message of the plan as it is carried out."""
        if msg.command == "set" and msg.args and (offset_um := self._of(msg.obj)):
            return msg._replace(args=(msg.args[0] + offset_um, *msg.args[1:]))
        return msg

    def back(self, msg: Msg, response: Any) -> Any:
        """Return the response to a message as the plan has to see it."""
        if msg.command == "locate" and isinstance(response, dict) and (offset_um := self._of(msg.obj)):
            return {name: value - offset_um for name, value in response.items()}
        return response

    def by(self, way_um: tuple[float, float]) -> MsgGenerator[None]:
        """Plan stub: move the stage by `way_um` (x, y), um, and the rest of the plan with it."""
        targets: list[Any] = []
        for axis, way in zip(self._axes, way_um, strict=True):
            if way:
                # from where it is, not from where it was sent: the way was chosen from the position that is read
                targets += [axis, float((yield from read(axis.user_readback))) + way]
        if targets:
            yield from bps.mv(*targets)
        self._become((self.offset_um[0] + way_um[0], self.offset_um[1] + way_um[1]))

    def forget(self) -> None:
        """End the shift with the plan; the stage stays where it is."""
        self._become((0.0, 0.0))

    def _become(self, offset_um: tuple[float, float]) -> None:
        self.offset_um = offset_um
        for axis, offset in zip(self._axes, offset_um, strict=True):
            if hasattr(axis, "plan_offset"):
                axis.plan_offset = offset

    def _of(self, device: Any) -> float:
        for axis, offset_um in zip(self._axes, self.offset_um, strict=True):
            if device is axis or device is getattr(axis, "user_setpoint", None):
                return offset_um
        return 0.0
