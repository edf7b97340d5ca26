"""Channel Access for this process: which IOCs are seen, how long they are waited for. Does not load ophyd or libca."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

_MAX_ARRAY_BYTES = "20000000"  # a 2048 x 2048 image of 32 bits; must be at least the IOC's (stack.md 1.4)


class ChannelAccessError(RuntimeError):
    """Channel Access was started before with other settings; they are fixed for the life of a process."""


def channel_access_started() -> bool:
    """Return True when libca is loaded; importing ophyd does that, and from then on its variables are fixed."""
    ca = sys.modules.get("epics.ca")
    return ca is not None and getattr(ca, "libca", None) is not None


def configure_channel_access(environ: Mapping[str, str] | None = None) -> None:
    """Set the ``EPICS_CA_*`` variables of this process, before libca reads them.

    Parameters
    ----------
    environ
        Variables and values, e.g. ``{"EPICS_CA_ADDR_LIST": "127.0.0.1", ...}``. None keeps those of the shell.

    Raises
    ------
    ChannelAccessError
        When libca is loaded already and one of the values differs from the one in force.
    """
    wanted = dict(environ or {})
    if not channel_access_started():
        os.environ.update(wanted)
        os.environ.setdefault("EPICS_CA_MAX_ARRAY_BYTES", _MAX_ARRAY_BYTES)
        return
    in_force = {key: os.environ.get(key) for key in wanted}
    different = [
        f"{key}={in_force[key]!r} (wanted {value!r})" for key, value in wanted.items() if in_force[key] != value
    ]
    if different:
        raise ChannelAccessError(
            f"Channel Access runs already with {', '.join(different)}; its settings are read once, when ophyd is "
            "imported. Call configure_channel_access() before importing ophyd, or use a new process"
        )


def address_list() -> str:
    """Return the Channel Access addresses in force, for error messages."""
    addresses = os.environ.get("EPICS_CA_ADDR_LIST", "")
    automatic = os.environ.get("EPICS_CA_AUTO_ADDR_LIST", "YES").upper() != "NO"
    text = f"EPICS_CA_ADDR_LIST={addresses!r}, EPICS_CA_SERVER_PORT={os.environ.get('EPICS_CA_SERVER_PORT', '5064')}"
    return f"{text}, {'and' if automatic else 'without'} the local networks (EPICS_CA_AUTO_ADDR_LIST)"


def connection_errors() -> tuple[type[Exception], ...]:
    """Return what ophyd and pyepics raise when an IOC does not answer; whatever the name."""
    from epics import ca
    from ophyd.utils import DisconnectedError

    return (
        TimeoutError,
        DisconnectedError,
        ca.ChannelAccessException,
        ca.ChannelAccessGetFailure,
        ca.CASeverityException,
    )


def set_default_timeouts(*, connection_s: float = 5.0, read_s: float = 3.0, write_s: float = 3.0) -> None:
    """Set the timeouts of all EPICS signals made from now on; ophyd's own are 1 s, 2 s and for ever.

    Calling it again with the same values is harmless.

    Parameters
    ----------
    connection_s, read_s, write_s
        Time to connect, to read and to see a written value take effect, s.

    Raises
    ------
    ChannelAccessError
        When signals exist already that were made with other timeouts.
    """
    from ophyd.signal import EpicsSignalBase

    wanted = {"connection_timeout": connection_s, "timeout": read_s, "write_timeout": write_s}
    if all(getattr(EpicsSignalBase, f"_EpicsSignalBase__default_{name}") == value for name, value in wanted.items()):
        return
    try:
        EpicsSignalBase.set_defaults(**wanted)
    except RuntimeError as error:
        raise ChannelAccessError(
            f"timeouts {wanted} (s) come too late: EPICS signals exist already. "
            "Call set_default_timeouts() before making devices"
        ) from error


class UnitsMixin:
    """Fill in the unit of a device's signals where the IOC gives none, so that every data key in a run has one.

    A unit that the IOC does give is never changed: `TxmBeamline.check_units` compares those the arithmetic relies on.

    Attributes
    ----------
    signal_units
        Unit by attribute name of the signal.
    """

    signal_units: ClassVar[Mapping[str, str]] = {}

    def describe(self) -> dict[str, Any]:
        """Return the data keys, each with its unit."""
        return self._with_units(super().describe())  # type: ignore[misc]

    def describe_configuration(self) -> dict[str, Any]:
        """Return the data keys of the configuration, each with its unit."""
        return self._with_units(super().describe_configuration())  # type: ignore[misc]

    def _with_units(self, described: dict[str, Any]) -> dict[str, Any]:
        for attribute, unit in self.signal_units.items():
            key = described.get(getattr(self, attribute).name)
            if key is not None and not key.get("units"):
                key["units"] = unit
        return described
