"""The potentiostat: settings, start and stop, and its readings. Everything runs in twin time."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from .properties import choice, choice_readback, number, readback, text_readback
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

_CURRENT_LIMIT_MA = 1000.0
_CAPACITY_LIMIT_MAH = 10000.0


class PotentiostatGroup(PVGroup):
    """Potentiostat. Settings apply at `Start`. Positive current charges. `CurrentSP` and `CRate` follow each other."""

    mode = choice("Mode", ("OCV", "Galvanostatic", "Hold"))
    current_setpoint = number("CurrentSP", 0.0, units="mA", low=-_CURRENT_LIMIT_MA, high=_CURRENT_LIMIT_MA, precision=6)
    c_rate = number("CRate", 0.0, units="1/h", low=-20.0, high=20.0, precision=6)
    hold_voltage = number("HoldVoltage", 3.0, units="V", high=6.0)
    cutoff_high = number("CutoffHigh", 4.3, units="V", high=6.0)
    cutoff_low = number("CutoffLow", 2.8, units="V", high=6.0)
    nominal_capacity = number("NominalCapacity", 1.0, units="mAh", low=1e-6, high=_CAPACITY_LIMIT_MAH, precision=6)
    start = choice("Start", ("Done", "Start"), doc="1 applies the settings and runs; 0 again when applied")
    stop = choice("Stop", ("Done", "Stop"), doc="1 switches the current off")
    status = choice_readback("Status", ("Idle", "Running", "Done", "Fault"))
    status_message = text_readback("StatusMessage_RBV")
    voltage = readback("Voltage_RBV", 0.0, units="V", precision=5)
    current = readback("Current_RBV", 0.0, units="mA", precision=6)
    capacity = readback("Capacity_RBV", 0.0, units="mAh", precision=6, doc="charge since the start")
    soc = readback("SOC_RBV", 0.0, precision=5, doc="mean state of charge, 0..1")

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, capacity_mah: float, **more: Any) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker = twin, worker
        self._start_capacity_mah = capacity_mah

    @nominal_capacity.startup
    async def nominal_capacity(self, instance: Any, async_lib: Any) -> None:
        """Show the cell's capacity."""
        del async_lib
        await instance.write(self._start_capacity_mah)

    @current_setpoint.putter
    async def current_setpoint(self, instance: Any, value: float) -> float:
        """Keep the C-rate in step."""
        del instance
        await self.c_rate.write(float(value) / self.nominal_capacity.value, verify_value=False)
        return float(value)

    @c_rate.putter
    async def c_rate(self, instance: Any, value: float) -> float:
        """Keep the current in step."""
        del instance
        await self.current_setpoint.write(float(value) * self.nominal_capacity.value, verify_value=False)
        return float(value)

    @nominal_capacity.putter
    async def nominal_capacity(self, instance: Any, value: float) -> float:
        """Keep the current; the C-rate follows."""
        del instance
        await self.c_rate.write(self.current_setpoint.value / float(value), verify_value=False)
        return float(value)

    @start.putter
    async def start(self, instance: Any, value: str) -> str:
        """Apply the settings and run; a refused setting gives Fault and a message."""
        del instance
        if value == "Start":
            try:
                await self._worker.call(
                    self._twin.potentiostat.start,
                    self.mode.value,
                    current_ma=self.current_setpoint.value,
                    hold_voltage_v=self.hold_voltage.value,
                    cutoff_high_v=self.cutoff_high.value,
                    cutoff_low_v=self.cutoff_low.value,
                    capacity_mah=self.nominal_capacity.value,
                )
            except ValueError as error:
                await self.status_message.write(str(error)[:255])
                await self.status.write("Fault")
            else:
                await self.status_message.write(f"{self.mode.value} started")
                await self.update()
        return "Done"

    @stop.putter
    async def stop(self, instance: Any, value: str) -> str:
        """Switch the current off."""
        del instance
        if value == "Stop":
            await self._worker.call(self._twin.potentiostat.stop)
            await self.status_message.write("stopped")
            await self.update()
        return "Done"

    async def update(self) -> None:
        """Publish fresh readings."""
        reading = await self._worker.call(self._twin.potentiostat.read)
        await self.voltage.write(reading.voltage_v)
        await self.current.write(reading.current_ma)
        await self.capacity.write(reading.capacity_mah)
        await self.soc.write(reading.soc)
        if self.status.value != reading.status:
            await self.status.write(reading.status)
