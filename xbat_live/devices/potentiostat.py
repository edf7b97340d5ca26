"""Potentiostat: steps of a cycling protocol, and what the cell does. Positive current charges the cell."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import ophyd
from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.status import Status

from xbat_live.devices.epics import UnitsMixin

logger = logging.getLogger(__name__)

_MODE = {"ocv": "OCV", "galvanostatic": "Galvanostatic", "hold": "Hold"}
_CONFIRM_S = 3.0
_POLL_S = 0.01


class PotentiostatError(RuntimeError):
    """The potentiostat did not take a step, or reports a fault."""


@dataclass(frozen=True)
class PotentiostatStep:
    """One step of a protocol.

    Attributes
    ----------
    mode
        ``ocv`` (no current), ``galvanostatic`` (constant current) or ``hold`` (constant voltage).
    c_rate_per_h
        Rate of a galvanostatic step in units of the nominal capacity, 1/h; negative discharges.
    current_ma
        Current of a galvanostatic step instead of a rate, mA; negative discharges.
    hold_v
        Voltage of a hold, V.
    cutoff_low_v, cutoff_high_v
        The potentiostat ends the step by itself at these cell voltages, V.
    """

    mode: Literal["ocv", "galvanostatic", "hold"]
    c_rate_per_h: float | None = None
    current_ma: float | None = None
    hold_v: float | None = None
    cutoff_low_v: float = 2.8
    cutoff_high_v: float = 4.9

    def __post_init__(self) -> None:
        if self.mode not in _MODE:
            raise ValueError(f"potentiostat mode {self.mode!r} is unknown; one of {', '.join(_MODE)}")
        if self.mode == "galvanostatic" and (self.c_rate_per_h is None) == (self.current_ma is None):
            raise ValueError("a galvanostatic step needs either c_rate_per_h (1/h) or current_ma (mA)")
        if self.mode == "hold" and self.hold_v is None:
            raise ValueError("a hold step needs hold_v (V)")
        if self.cutoff_low_v >= self.cutoff_high_v:
            raise ValueError(
                f"cutoff_low_v {self.cutoff_low_v:g} V is not below cutoff_high_v {self.cutoff_high_v:g} V"
            )
        if self.hold_v is not None and not self.cutoff_low_v <= self.hold_v <= self.cutoff_high_v:
            raise ValueError(
                f"hold_v {self.hold_v:g} V is outside the cut-offs {self.cutoff_low_v:g} to {self.cutoff_high_v:g} V"
            )

    def settings(self) -> dict[str, float | str]:
        """Return the values to write, by attribute of `Potentiostat`, in the order of writing."""
        values: dict[str, float | str] = {"cutoff_low_v": self.cutoff_low_v, "cutoff_high_v": self.cutoff_high_v}
        if self.mode == "galvanostatic":
            if self.current_ma is not None:
                values |= {"c_rate_per_h": 0.0, "current_setpoint_ma": self.current_ma}
            elif self.c_rate_per_h is not None:
                values |= {"c_rate_per_h": self.c_rate_per_h}
        elif self.mode == "hold" and self.hold_v is not None:
            values["hold_v"] = self.hold_v
        return {**values, "mode": _MODE[self.mode]}

    def __str__(self) -> str:
        what = {
            "ocv": "open circuit",
            "galvanostatic": f"{self.current_ma:g} mA"
            if self.current_ma is not None
            else _c_rate(self.c_rate_per_h or 0.0),
            "hold": f"hold {self.hold_v or 0:g} V",
        }[self.mode]
        return f"{what}, cut-offs {self.cutoff_low_v:g} to {self.cutoff_high_v:g} V"


def _c_rate(per_h: float) -> str:
    """Write a C-rate as people say it: C/12, 2 C, discharge at C/12."""
    size = abs(per_h)
    text = f"{size:g} C" if size >= 1 or size == 0 else f"C/{1 / size:.4g}"
    return f"discharge at {text}" if per_h < 0 else text


class Potentiostat(UnitsMixin, Device):
    """A potentiostat channel with one cell.

    ``bps.abs_set(potentiostat, step)`` starts a step and is done when the potentiostat runs it; the step then ends by
    itself.
    """

    mode = Cpt(EpicsSignal, "Mode", string=True, auto_monitor=True)
    current_setpoint_ma = Cpt(EpicsSignal, "CurrentSP", kind="omitted")
    c_rate_per_h = Cpt(EpicsSignal, "CRate", kind="omitted")
    hold_v = Cpt(EpicsSignal, "HoldVoltage", kind="omitted")
    cutoff_high_v = Cpt(EpicsSignal, "CutoffHigh", kind="omitted")
    cutoff_low_v = Cpt(EpicsSignal, "CutoffLow", kind="omitted")
    nominal_capacity_mah = Cpt(EpicsSignal, "NominalCapacity", kind="config")
    start_command = Cpt(EpicsSignal, "Start", kind="omitted")
    stop_command = Cpt(EpicsSignal, "Stop", kind="omitted")
    status = Cpt(EpicsSignalRO, "Status", string=True, auto_monitor=True)
    voltage_v = Cpt(EpicsSignalRO, "Voltage_RBV", auto_monitor=True, kind="hinted")
    current_ma = Cpt(EpicsSignalRO, "Current_RBV", auto_monitor=True)
    capacity_mah = Cpt(EpicsSignalRO, "Capacity_RBV", auto_monitor=True)
    soc = Cpt(EpicsSignalRO, "SOC_RBV", auto_monitor=True)

    signal_units: ClassVar[Mapping[str, str]] = {
        "current_setpoint_ma": "mA",
        "c_rate_per_h": "1/h",
        "hold_v": "V",
        "cutoff_high_v": "V",
        "cutoff_low_v": "V",
        "nominal_capacity_mah": "mAh",
        "voltage_v": "V",
        "current_ma": "mA",
        "capacity_mah": "mAh",
        "soc": "1",
    }

    def start(self, step: PotentiostatStep) -> Status:
        """Write the settings of `step` and start it.

        Returns
        -------
        ophyd.status.Status
            Done when the potentiostat reports ``Running`` (or ``Done``: a cut-off is exceeded already). It fails with a
            `PotentiostatError` when a setting is not taken, on ``Fault``, or when nothing starts within 3 s.
        """
        status = Status(self)

        def apply() -> None:
            try:
                self._apply(step)
            except Exception as error:
                status.set_exception(
                    PotentiostatError(f"{self.name} ({self.prefix}): step '{step}' was not started: {error}")
                )
            else:
                status.set_finished()

        ophyd.cl.thread_class(target=apply, name=f"{self.name}-start", daemon=True).start()
        return status

    def set(self, value: PotentiostatStep) -> Status:
        """Start a step; see `start`."""
        return self.start(value)

    def stop(self, *, success: bool = False) -> None:
        """End the running step: the cell is left at open circuit.

        Parameters
        ----------
        success
            The RunEngine says True when it pauses, or ends a plan well, and stops all that it has set. The cell is then
            left to its protocol; a cell does not stop ageing because somebody pressed Ctrl-C.
        """
        if success:
            return
        if self.stop_command.connected:
            self.stop_command.put(1, wait=False)
        else:
            logger.error("%s: cannot be stopped, %s is not connected", self.name, self.prefix)

    def _apply(self, step: PotentiostatStep) -> None:
        for attribute, value in step.settings().items():
            getattr(self, attribute).set(value).wait(timeout=_CONFIRM_S + 1)
        started = self.start_command
        started.put(1, wait=True, use_complete=True, timeout=_CONFIRM_S)
        deadline = time.monotonic() + _CONFIRM_S
        while (state := str(self.status.get(use_monitor=False))) not in {"Running", "Done"}:
            if state == "Fault":
                raise PotentiostatError("it reports Fault; look at its front panel")
            if time.monotonic() > deadline:
                raise PotentiostatError(f"status is still {state!r} after {_CONFIRM_S:g} s")
            time.sleep(_POLL_S)
