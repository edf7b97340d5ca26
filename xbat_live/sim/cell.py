"""The operando cell around the electrode: what its layers take from the beam, and the dose a photon leaves."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from xbat_live.sim.settings import TwinSettings

if TYPE_CHECKING:
    from xbat_live.dose import LayerStack

__all__ = ["Cell"]


class Cell:
    """Layer stack of the twin, read from the dose presets when first needed (cross sections import slowly).

    Parameters
    ----------
    settings
        Preset, active layer and active material.
    """

    def __init__(self, settings: TwinSettings) -> None:
        self._settings = settings
        self._factors: dict[float, float] = {}
        self._depths: dict[float, float] = {}

    def dose_per_fluence(self, energy_ev: float) -> float:
        """Dose in the active material per fluence on the cell, Gy cm2/ph: mean over the layer, attenuation model."""
        key = round(energy_ev, 2)
        if key not in self._factors:
            factor = self._stack.dose_per_fluence(key, self._settings.active_layer, self._settings.active_material)
            self._factors[key] = float(factor)
        return self._factors[key]

    def optical_depth(self, energy_ev: float) -> float:
        """Optical depth of everything in the cell but the active material, whose thickness the sample map holds."""
        key = round(energy_ev, 2)
        if key not in self._depths:
            self._depths[key] = -math.log(float(self._inactive.transmission(key)))
        return self._depths[key]

    @cached_property
    def _stack(self) -> LayerStack:
        from xbat_live.dose import presets

        return presets.cell(self._settings.cell_preset)

    @cached_property
    def _inactive(self) -> LayerStack:
        """The stack with voids where the active material was."""
        from xbat_live.dose import Layer, LayerStack

        layers = []
        for layer in self._stack.layers:
            parts = {m: share for m, share in layer.parts.items() if m.name != self._settings.active_material}
            if parts:
                layers.append(Layer(layer.name, layer.thickness_um, parts))
        return LayerStack(layers)
