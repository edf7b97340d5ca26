"""An EPICS motor record on a simulated axis: the fields and rules that clients of a real one rely on."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caproto.server import PVGroup, pvproperty

from .motion import Axis
from .properties import RecordValue


@dataclass(frozen=True)
class MotorSettings:
    """What a motor record shows of its axis.

    Parameters
    ----------
    units : str
        EGU.
    precision : int
        PREC, decimals.
    limits : tuple of float
        Soft limits (LLM, HLM) in dial units.
    description : str
        DESC.
    tweak : float
        TWV.
    """

    units: str
    precision: int
    limits: tuple[float, float]
    description: str
    tweak: float = 1.0


def _same(value: float) -> float:
    return value


def _choice(field: Any, value: Any) -> str:
    """Enum string of what was written to, or is in, an enum field."""
    return value if isinstance(value, str) else str(field.enum_strings[int(value)])


def _forward(method: str) -> Any:
    """Field putter that calls a method of the record's group (caproto gives it the group of the fields)."""

    async def put(fields: Any, instance: Any, value: Any) -> Any:
        return await getattr(fields.parent.group, method)(instance, value)

    return put


class MotorRecord(PVGroup):
    """A motor record. Dial positions are the axis' own, or a monotonic function of them (Bragg angle of energy).

    Parameters
    ----------
    prefix : str
        Record name.
    axis : Axis
        The mechanism; several records may show the same one.
    settings : MotorSettings
        Units and limits.
    from_axis, to_axis : callable
        Dial value of an axis position, and back.
    """

    motor = pvproperty(value=0.0, name="", record="motor", dtype=RecordValue, precision=3)

    def __init__(
        self,
        prefix: str,
        *,
        axis: Axis,
        settings: MotorSettings,
        from_axis: Callable[[float], float] = _same,
        to_axis: Callable[[float], float] = _same,
        **more: Any,
    ) -> None:
        super().__init__(prefix, **more)
        self.axis = axis
        self.settings = settings
        self._from_axis, self._to_axis = from_axis, to_axis
        self._own = from_axis is _same
        self._direction, self._offset = 1.0, 0.0
        self._commanded: float | None = None
        self._paused_target: float | None = None
        self._resume = asyncio.Event()
        self._resume.set()
        self._showed_moving = False
        axis.listen(self._axis_moved)

    # ---- user <-> dial
    @property
    def dial(self) -> float:
        """Dial position of the axis."""
        return self._from_axis(self.axis.position)

    def user_of(self, dial: float) -> float:
        """User value of a dial value."""
        return dial * self._direction + self._offset

    def dial_of(self, user: float) -> float:
        """Dial value of a user value."""
        return (user - self._offset) * self._direction

    # ---- record processing
    @motor.startup
    async def motor(self, instance: Any, async_lib: Any) -> None:
        """Fill the fields once the server runs."""
        del async_lib
        fields, settings = instance.field_inst, self.settings
        await instance.write_metadata(units=settings.units, precision=settings.precision)
        for field in fields.pvdb.values():
            if hasattr(field, "precision"):
                await field.write_metadata(precision=settings.precision)
            if hasattr(field, "units") and field.pvspec.name in {"RBV", "HLM", "LLM", "DVAL", "DRBV", "OFF", "TWV"}:
                await field.write_metadata(units=settings.units)
        await fields.engineering_units.write(settings.units)
        await fields.description.write(settings.description[:40])
        await fields.velocity.write(self.axis.velocity, verify_value=False)
        await fields.max_velocity.write(self.axis.velocity)
        await fields.seconds_to_velocity.write(self.axis.acceleration_s, verify_value=False)
        await fields.tweak_step_size.write(settings.tweak)
        await fields.motor_step_size.write(10.0**-settings.precision)
        await fields.dial_low_limit.write(settings.limits[0])
        await fields.dial_high_limit.write(settings.limits[1])
        await fields.limit_violation.write(0)
        await self._publish_limits()
        await instance.write(self.user_of(self.dial), verify_value=False)
        await self._publish_position()

    @motor.putter
    async def motor(self, instance: Any, value: Any) -> float:
        """VAL: move and complete when the axis rests; with SET, define the position instead."""
        value = float(value)
        fields = instance.field_inst
        if _choice(fields.set_use_switch, fields.set_use_switch.value) == "Set":
            return await self._define_position(value)
        low, high = fields.user_low_limit.value, fields.user_high_limit.value
        limited = low != high
        if not math.isfinite(value) or (limited and not low <= value <= high):
            await fields.limit_violation.write(1)
            return float(instance.value)
        await fields.limit_violation.write(0)
        if _choice(fields.stop_pause_move_go, fields.stop_pause_move_go.value) == "Stop":
            return float(instance.value)
        self._commanded = value
        await instance.write(value, verify_value=False)
        await self._resume.wait()
        await fields.direction_of_travel.write(1 if value >= fields.user_readback_value.value else 0)
        await self.axis.move(self._to_axis(self.dial_of(value)))
        return float(instance.value)

    async def _axis_moved(self, position: float, moving: bool) -> None:
        del position
        fields = self.motor.field_inst
        if moving and not self._showed_moving:
            self._showed_moving = True
            await fields.done_moving_to_value.write(0)
            await fields.motor_is_moving.write(1)
        if moving and self._commanded is None and not self._is_at(self.axis.target):
            await self._show_target()  # moved through the other record of this axis
        await self._publish_position()
        if not moving:
            self._showed_moving = False
            self._commanded = None
            if not self._is_at(self.axis.position):
                await self._show_target()  # stopped on the way
            await fields.motor_is_moving.write(0)
            await fields.done_moving_to_value.write(1)

    def _is_at(self, axis_position: float) -> bool:
        return abs(self.motor.value - self.user_of(self._from_axis(axis_position))) < 1e-9

    async def _show_target(self) -> None:
        user = self.user_of(self._from_axis(self.axis.target))
        await self.motor.write(user, verify_value=False)

    async def _publish_position(self) -> None:
        fields, dial = self.motor.field_inst, self.dial
        await fields.user_readback_value.write(self.user_of(dial))
        await fields.dial_readback_value.write(dial)
        low, high = sorted((self._from_axis(self.axis.travel[0]), self._from_axis(self.axis.travel[1])))
        at_high, at_low = int(dial >= high), int(dial <= low)
        if self._direction < 0:
            at_high, at_low = at_low, at_high
        if fields.user_high_limit_switch.value != at_high:
            await fields.user_high_limit_switch.write(at_high)
        if fields.user_low_limit_switch.value != at_low:
            await fields.user_low_limit_switch.write(at_low)

    async def _publish_limits(self) -> None:
        fields = self.motor.field_inst
        low, high = sorted(self.user_of(f.value) for f in (fields.dial_low_limit, fields.dial_high_limit))
        await fields.user_low_limit.write(low, verify_value=False)
        await fields.user_high_limit.write(high, verify_value=False)
        await self._show_limits(low, high)

    async def _show_limits(self, low: float, high: float) -> None:
        await self.motor.write_metadata(
            lower_ctrl_limit=low, upper_ctrl_limit=high, lower_disp_limit=low, upper_disp_limit=high
        )

    async def _define_position(self, value: float) -> float:
        fields = self.motor.field_inst
        if _choice(fields.offset_freeze_switch, fields.offset_freeze_switch.value) == "Variable":
            self._offset = value - self.dial * self._direction
            await fields.user_offset.write(self._offset, verify_value=False)
            await self._publish_limits()
        elif self._own:  # frozen offset: redefine the dial, as the motor record does
            self.axis.position = self.axis.target = self.dial_of(value)
        await self._publish_position()
        return value

    # ---- fields that act
    async def put_stop(self, field: Any, value: Any) -> int:
        """STOP: brake and complete at rest."""
        del field
        if value:
            await self.axis.stop()
        return 0

    async def put_velocity(self, field: Any, value: Any) -> float:
        """VELO: kept unless positive, and on a record that only shows another one's axis."""
        if not (self._own and float(value) > 0):
            return float(field.value)
        self.axis.velocity = float(value)
        return float(value)

    async def put_acceleration(self, field: Any, value: Any) -> float:
        """ACCL: kept unless positive, and on a record that only shows another one's axis."""
        if not (self._own and float(value) > 0):
            return float(field.value)
        self.axis.acceleration_s = float(value)
        return float(value)

    async def put_offset(self, field: Any, value: Any) -> float:
        """OFF: shift the user coordinate; nothing moves."""
        del field
        self._offset = float(value)
        await self._redefined()
        return float(value)

    async def put_direction(self, field: Any, value: Any) -> str:
        """DIR: turn the user coordinate round; nothing moves."""
        text = _choice(field, value)
        self._direction = -1.0 if text == "Neg" else 1.0
        await self._redefined()
        return text

    async def _redefined(self) -> None:
        await self._publish_limits()
        await self.motor.write(self.user_of(self.dial), verify_value=False)
        await self._publish_position()

    async def put_high_limit(self, field: Any, value: Any) -> float:
        """HLM."""
        del field
        fields = self.motor.field_inst
        end = fields.dial_high_limit if self._direction > 0 else fields.dial_low_limit
        await end.write(self.dial_of(float(value)))
        await self._show_limits(float(fields.user_low_limit.value), float(value))
        return float(value)

    async def put_low_limit(self, field: Any, value: Any) -> float:
        """LLM."""
        del field
        fields = self.motor.field_inst
        end = fields.dial_low_limit if self._direction > 0 else fields.dial_high_limit
        await end.write(self.dial_of(float(value)))
        await self._show_limits(float(value), float(fields.user_high_limit.value))
        return float(value)

    async def put_spmg(self, field: Any, value: Any) -> str:
        """SPMG: Stop and Pause brake; Go (or Move) after Pause goes on to the target."""
        text = _choice(field, value)
        if text in {"Stop", "Pause"}:
            self._paused_target = self._commanded if text == "Pause" else None
            if text == "Pause":
                self._resume.clear()
            else:
                self._resume.set()
            await self.axis.stop()
        else:
            self._resume.set()
            target, self._paused_target = self._paused_target, None
            if target is not None:
                self._resumed = asyncio.get_running_loop().create_task(self.motor.write(target))
        return text

    async def put_tweak_forward(self, field: Any, value: Any) -> int:
        """TWF: move by +TWV."""
        del field, value
        await self.motor.write(self.motor.value + self.motor.field_inst.tweak_step_size.value)
        return 0

    async def put_tweak_reverse(self, field: Any, value: Any) -> int:
        """TWR: move by -TWV."""
        del field, value
        await self.motor.write(self.motor.value - self.motor.field_inst.tweak_step_size.value)
        return 0

    motor.fields.stop.putter(_forward("put_stop"))
    motor.fields.velocity.putter(_forward("put_velocity"))
    motor.fields.seconds_to_velocity.putter(_forward("put_acceleration"))
    motor.fields.user_offset.putter(_forward("put_offset"))
    motor.fields.user_direction.putter(_forward("put_direction"))
    motor.fields.user_high_limit.putter(_forward("put_high_limit"))
    motor.fields.user_low_limit.putter(_forward("put_low_limit"))
    motor.fields.stop_pause_move_go.putter(_forward("put_spmg"))
    motor.fields.tweak_motor_forward.putter(_forward("put_tweak_forward"))
    motor.fields.tweak_motor_reverse.putter(_forward("put_tweak_reverse"))
