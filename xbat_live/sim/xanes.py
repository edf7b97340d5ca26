"""Attenuation of the active material near the Ni K edge: tables and a near-edge shape by state of charge."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["EDGE_EV", "EDGE_SHIFT_EV", "NickelOxide", "normalised_xanes"]

EDGE_EV = 8344.0  # half height of the lithiated oxide; the metal's first inflection is at 8333 eV
EDGE_SHIFT_EV = 2.5  # Ni2+/3+ -> Ni4+ on full charge
_STEP_WIDTH_EV = 1.9
_TABULATED_EDGE_EV = 8333.0
_CM_PER_UM = 1e-4


def normalised_xanes(energy_ev: float, soc: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the normalised Ni K absorption (0 before, 1 far above the edge) at `energy_ev` for `soc` (any shape).

    Step, pre-edge peak, white line and a damped oscillation, all moving by `EDGE_SHIFT_EV` between state of charge 0
    and 1.
    """
    soc = np.asarray(soc, dtype=np.float64)
    above = energy_ev - (EDGE_EV + EDGE_SHIFT_EV * soc)
    step = 0.5 * (1.0 + np.tanh(above / _STEP_WIDTH_EV))
    pre_edge = 0.03 * np.exp(-np.square((above + 11.0) / 1.5))
    white_line = (0.62 - 0.10 * soc) * np.exp(-np.square((above - 5.8) / 3.6))
    wave_number = np.sqrt(0.2625 * np.maximum(above, 0.0))  # 1/angstrom
    exafs = -0.16 * np.sin(2 * 1.9 * wave_number - 0.6) * np.exp(-0.02 * wave_number**2 - 0.25 * wave_number)
    return step * (1.0 + exafs * np.clip((above - 8.0) / 15.0, 0.0, 1.0)) + pre_edge + white_line


class NickelOxide:
    """LiNi0.6Mn0.2Co0.2O2: linear attenuation in 1/um with the near-edge shape on its Ni step.

    Cross sections: xraydb (Elam). Below the Ni edge the Ni table is continued by a power law; the difference of both
    above it is the step that the normalised shape multiplies. More than 400 eV above the edge the table holds as it is.
    """

    DENSITY_G_CM3 = 4.7
    COMPOSITION: ClassVar[dict[str, float]] = {"Li": 1.0, "Ni": 0.6, "Mn": 0.2, "Co": 0.2, "O": 2.0}

    def __init__(self) -> None:
        from xbat_live.dose import (
            Layer,
            Material,
        )  # imports cross sections when first asked: not at the start of the simulator

        formula = "".join(f"{element}{count:g}" for element, count in self.COMPOSITION.items())
        weight = Material("oxide", formula, self.DENSITY_G_CM3).composition
        self._nickel_share = weight["Ni"]
        self._nickel_layer = Layer("Ni", 1.0, {Material("Ni", "Ni", 1.0): 1.0})
        others = {Material(e, e, w): 1.0 / len(weight) for e, w in weight.items() if e != "Ni"}
        self._other_layer = Layer("others", 1.0, others)
        self._other_factor = float(len(weight))
        low, high = self._nickel_table(8000.0), self._nickel_table(8300.0)
        self._slope = math.log(high / low) / math.log(8300.0 / 8000.0)
        self._below = high

    def mu_per_um(self, energy_ev: float, soc: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Linear attenuation in 1/um at `energy_ev` for states of charge `soc` (any shape)."""
        others = float(self._other_layer.linear_attenuation(np.array(energy_ev))) * self._other_factor
        return (others + self._nickel_share * self._nickel(energy_ev, soc)) * (self.DENSITY_G_CM3 * _CM_PER_UM)

    def _nickel_table(self, energy_ev: float) -> float:
        """Tabulated Ni mass attenuation in cm2/g (the layer has density 1 g/cm3)."""
        return float(self._nickel_layer.linear_attenuation(np.array(energy_ev)))

    def _nickel(self, energy_ev: float, soc: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Ni mass attenuation in cm2/g."""
        if not 8200.0 < energy_ev < _TABULATED_EDGE_EV + 400.0:
            return np.full(np.shape(soc), self._nickel_table(energy_ev))
        continued = self._below * (energy_ev / 8300.0) ** self._slope
        # Where the table is still below its edge, its step is continued downwards with the slope of the pre-edge.
        at = max(energy_ev, _TABULATED_EDGE_EV + 1.0)
        step = self._nickel_table(at) - self._below * (at / 8300.0) ** self._slope
        return continued + step * normalised_xanes(energy_ev, soc)
