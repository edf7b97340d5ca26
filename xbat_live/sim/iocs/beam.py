"""Attenuator, ion chamber before the shutter, and storage ring."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from .properties import number, readback
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin


class Beam(PVGroup):
    """Beam intensity: what is set and what is measured."""

    transmission = number("ATT:Transmission", 1.0, high=1.0, precision=6, doc="attenuator, transmitted fraction")
    transmission_readback = readback("ATT:Transmission_RBV", 1.0, precision=6)
    ion_chamber = readback(
        "I0:Current_RBV", 0.0, units="nA", doc="upstream of the shutter, downstream of the attenuator"
    )
    ring = readback("RING:Current_RBV", 0.0, units="mA", doc="stored current")

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

    async def update(self) -> None:
        """Publish fresh readings of I0 and ring."""
        current_na, ring_ma = await self._worker.call(lambda: (self._twin.i0_na(), self._twin.ring_ma()))
        await self.ion_chamber.write(current_na)
        await self.ring.write(ring_ma)
