"""Monochromator: photon energy in eV and the coupled Bragg angle in degrees."""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import Device

from xbat_live.devices.stage import TxmMotor


class EnergyMotor(TxmMotor):
    """Photon energy, eV."""

    def out_of_limits(self, position: float, low: float, high: float) -> str:
        """Return the message of a refused energy (eV), with a hint when it looks like keV."""
        message = super().out_of_limits(position, low, high)
        if low <= position * 1000 <= high:
            return f"{message}; energies are in eV: did you mean {position * 1000:g} eV ({position:g} keV)?"
        return message


class Monochromator(Device):
    """Double-crystal monochromator; the IOC couples `energy` and `bragg` both ways."""

    energy = Cpt(EnergyMotor, "Energy", timeout=60)
    bragg = Cpt(TxmMotor, "Bragg", timeout=60)

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self.bragg.user_readback.kind = "normal"
