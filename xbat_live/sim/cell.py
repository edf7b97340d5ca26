"""The operando cell around the electrode: what its layers take from the beam, and the dose a photon leaves in the active material."""

from __future__ import annotations

import math

from xbat_live.sim.settings import TwinSettings

__all__ = ["Cell"]


class Cell:
    """Temporary stand-in until xbat_live.dose lands."""

    def __init__(self, settings: TwinSettings) -> None:
        self._settings = settings

    def dose_per_fluence(self, energy_ev: float) -> float:
        return 9151.7 / 5.3333e13

    def optical_depth(self, energy_ev: float) -> float:
        return 0.2
