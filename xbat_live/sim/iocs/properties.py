"""Short, strict spellings of caproto properties used by every IOC group of the simulated beamline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caproto import ChannelType
from caproto.server import (
    PVGroup,
    PvpropertyDouble,
    PvpropertyEnum,
    PvpropertyEnumRO,
    SubGroup,
    get_pv_pair_wrapper,
    pvproperty,
)

_pair = get_pv_pair_wrapper(setpoint_suffix="", readback_suffix="_RBV")
PATH_LENGTH = 512


class Choice(PvpropertyEnum):
    """An enum whose value is always one of its strings.

    caproto keeps whatever the client wrote (an index, a numpy integer, any string); code that compares it with a string
    then silently takes the wrong branch.
    """

    async def verify_value(self, data: Any) -> str:
        """Normalise an index or string to the enum's string, then run the putter.

        Parameters
        ----------
        data : int or str
            What was written.

        Returns
        -------
        str
            The accepted choice.

        Raises
        ------
        ValueError
            If it is not one of the choices.
        """
        if isinstance(data, str):
            text = data
        else:
            index = int(data)
            text = self.enum_strings[index] if 0 <= index < len(self.enum_strings) else str(index)
        if text not in self.enum_strings:
            raise ValueError(f"{self.pvname}: {text!r} is not one of {', '.join(self.enum_strings)}")
        result = await super().verify_value(text)
        return text if result is None else result


class RecordValue(PvpropertyDouble):
    """VAL of a record that judges its limits itself; caproto only publishes them as control limits."""

    async def verify_value(self, data: Any) -> Any:
        """Hand the value to the putter as it is.

        Parameters
        ----------
        data : float
            What was written.

        Returns
        -------
        float
            What the putter made of it.
        """
        if self.putter is None:
            return data
        return await self.putter(self, data)


def choice(name: str, options: Sequence[str], value: str | None = None, **more: Any) -> Any:
    """Writable enum, starting at `value` or the first option."""
    return pvproperty(
        name=name, dtype=Choice, enum_strings=tuple(options), value=value or options[0], alarm_group=name, **more
    )


def choice_readback(name: str, options: Sequence[str], value: str | None = None, **more: Any) -> Any:
    """Read-only enum, starting at `value` or the first option."""
    return pvproperty(name=name, dtype=PvpropertyEnumRO, enum_strings=tuple(options), value=value or options[0], **more)


def number(
    name: str, value: float, *, units: str = "", low: float = 0.0, high: float = 0.0, precision: int = 4, **more: Any
) -> Any:
    """Writable double; a put outside low to high is refused (equal limits: none). Its alarm is its own."""
    return pvproperty(
        name=name,
        value=float(value),
        dtype=float,
        units=units,
        precision=precision,
        lower_ctrl_limit=low,
        upper_ctrl_limit=high,
        alarm_group=name,
        **more,
    )


def readback(name: str, value: float | int, *, units: str = "", precision: int = 4, **more: Any) -> Any:
    """Read-only double or integer, as the type of `value`."""
    if isinstance(value, int):
        return pvproperty(name=name, value=value, dtype=int, units=units, read_only=True, **more)
    return pvproperty(name=name, value=value, dtype=float, units=units, precision=precision, read_only=True, **more)


def text_readback(name: str, value: str = "", *, length: int = PATH_LENGTH) -> Any:
    """Read-only long string (CHAR waveform)."""
    return pvproperty(name=name, value=value, dtype=str, max_length=length, string_encoding="utf-8", read_only=True)


def label(name: str, value: str) -> Any:
    """Read-only short string (DBR_STRING, 39 characters)."""
    return pvproperty(name=name, value=value, dtype=ChannelType.STRING, read_only=True)


class SettingsGroup(PVGroup):
    """A group of setpoints with readbacks; a subclass decides in `accept` what becomes of a new value."""

    async def accept(self, name: str, value: Any) -> Any:
        """Check, change and apply a new setting.

        Parameters
        ----------
        name : str
            PV name of the setting without prefix, e.g. ``AcquireTime``.
        value : object
            What the client wrote, within the limits of the PV.

        Returns
        -------
        object
            The value that setpoint and readback get.
        """
        del name
        return value


def _accepting_putter(name: str) -> Any:
    async def put(pair: Any, instance: Any, value: Any) -> Any:
        del instance
        accepted = await pair.parent.accept(name, value)
        if pair.readback.value != accepted:
            await pair.readback.write(accepted)
        return accepted

    return put


def setting(
    name: str, value: float | int, *, units: str = "", low: float = 0.0, high: float = 0.0, precision: int = 6
) -> SubGroup:
    """Setpoint and ``_RBV`` of a number; integer if `value` is one. A put outside low to high is refused."""
    more: dict[str, Any] = {} if isinstance(value, int) else {"precision": precision}
    return _pair(
        name=name,
        value=value,
        dtype=type(value),
        units=units,
        lower_ctrl_limit=low,
        upper_ctrl_limit=high,
        put=_accepting_putter(name),
        **more,
    )


def choice_setting(name: str, options: Sequence[str], value: str | None = None) -> SubGroup:
    """Setpoint and ``_RBV`` of an enum."""
    strings, start = tuple(options), value or options[0]
    members = {
        "setpoint": pvproperty(name="", dtype=Choice, enum_strings=strings, value=start, put=_accepting_putter(name)),
        "readback": choice_readback("_RBV", strings, start),
    }
    return SubGroup(type(f"{name}Pair", (PVGroup,), members), prefix=name)


def text_setting(name: str, value: str = "", *, length: int = PATH_LENGTH) -> SubGroup:
    """Setpoint and ``_RBV`` of a long string (CHAR waveform)."""
    return _pair(
        name=name, value=value, dtype=str, max_length=length, string_encoding="utf-8", put=_accepting_putter(name)
    )


def label_setting(name: str, value: str) -> SubGroup:
    """Setpoint and ``_RBV`` of a short string (DBR_STRING)."""
    return _pair(name=name, value=value, dtype=ChannelType.STRING, put=_accepting_putter(name))
