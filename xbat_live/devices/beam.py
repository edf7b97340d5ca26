"""The beam: attenuator, ion chamber upstream of the shutter, storage ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.status import Status
from ophyd.utils import LimitError

from xbat_live.devices.epics import UnitsMixin


class Attenuator(UnitsMixin, Device):
    """Attenuator; `transmission` is a fraction, 0 to 1."""

    transmission = Cpt(EpicsSignal, "Transmission_RBV", write_pv="Transmission", auto_monitor=True, tolerance=1e-4)

    signal_units: ClassVar[Mapping[str, str]] = {"transmission": "1"}

    def check_value(self, value: float) -> None:
        """Refuse a transmission outside 0 to 1.

        Raises
        ------
        ophyd.utils.LimitError
            With a hint when it looks like per cent.
        """
        if 0 <= float(value) <= 1:
            return
        hint = f"; did you mean {value / 100:g} ({value:g} %)?" if 1 < float(value) <= 100 else ""
        raise LimitError(f"{self.name}: transmission {value:g} is outside 0 to 1 (a fraction){hint}")

    def set(self, value: float) -> Status:
        """Set the transmission (fraction); done when the readback follows."""
        self.check_value(value)
        return self.transmission.set(value)


class IonChamber(UnitsMixin, Device):
    """Ion chamber I0 upstream of the fast shutter; its current is proportional to the flux before the cell.

    Read without a monitor: the dose account needs the value of now.
    """

    current_na = Cpt(EpicsSignalRO, "Current_RBV", kind="hinted")

    signal_units: ClassVar[Mapping[str, str]] = {"current_na": "nA"}


class StorageRing(UnitsMixin, Device):
    """Storage ring."""

    current_ma = Cpt(EpicsSignalRO, "Current_RBV", auto_monitor=True)

    signal_units: ClassVar[Mapping[str, str]] = {"current_ma": "mA"}
