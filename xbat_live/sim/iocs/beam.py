"""Attenuator, ion chamber before the shutter, and storage ring."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from .properties import choice, number, readback
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin


_DEAD_NA = {"Dead": 0.0, "NaN": math.nan}


class Beam(PVGroup):
    """Beam intensity: what is set and what is measured."""

    transmission = number("ATT:Transmission", 1.0, high=1.0, precision=6, doc="attenuator, transmitted fraction")
    transmission_readback = readback("ATT:Transmission_RBV", 1.0, precision=6)
    ion_chamber = readback(
        "I0:Current_RBV", 0.0, units="nA", doc="upstream of the shutter, downstream of the attenuator"
    )
    ion_chamber_fault = choice(
        "I0:Fault", ("None", "Dead", "NaN"), doc="tests: Dead reads 0 nA, NaN no number, whatever the beam"
    )
    ring = readback("RING:Current_RBV", 0.0, units="mA", doc="stored current")
    ring_fault = choice("RING:Fault", ("None", "Trip"), doc="tests: Trip loses the beam, None refills the ring")

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, **more: Any) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker = twin, worker

    @transmission.putter
    async def transmission(self, instance: Any, value: float) -> float:
        """Completes when the twin has it, so that the next reading of I0 shows it."""
        del instance
        await self._worker.call(self._twin.set_attenuation, float(value))
        await self.transmission_readback.write(float(value))
        await self.update()
        return float(value)

    @ring_fault.putter
    async def ring_fault(self, instance: Any, value: str) -> str:
        """Lose the beam or refill the ring; completes when the twin has it."""
        del instance
        await self._worker.call(self._twin.set_ring_share, 0.0 if value == "Trip" else 1.0)
        return value

    async def update(self) -> None:
        """Publish fresh readings of I0 and ring."""
        current_na, ring_ma = await self._worker.call(lambda: (self._twin.i0_na(), self._twin.ring_ma()))
        await self.ion_chamber.write(_DEAD_NA.get(str(self.ion_chamber_fault.value), current_na))
        await self.ring.write(ring_ma)
