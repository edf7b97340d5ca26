"""Control of the twin (``TWIN:``) and its truth (``TRUTH:``); for tests only, the analysis never reads it."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from .properties import choice, choice_readback, number, readback
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

_SHUTDOWN_DELAY_S = 0.05  # lets the answer to the put out


class TwinControl(PVGroup):
    """Time scale, seed, readiness and the way out."""

    time_scale = number("TimeScale", 1.0, high=1e6, doc="twin seconds per laboratory second for slow processes")
    time = readback("Time_RBV", 0.0, units="s", precision=3, doc="twin time")
    seed = readback("Seed_RBV", 0)
    ready = choice_readback("Ready_RBV", ("No", "Yes"))
    shutdown = choice("Shutdown", ("No", "Yes"), doc="1: write the truth, close files, exit")

    def __init__(
        self,
        prefix: str,
        *,
        twin: Twin,
        worker: TwinWorker,
        seed: int,
        time_scale: float,
        request_stop: Callable[[], None],
        **more: Any,
    ) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker = twin, worker
        self._seed, self._time_scale = seed, time_scale
        self._request_stop = request_stop

    @ready.startup
    async def ready(self, instance: Any, async_lib: Any) -> None:
        """Show the settings; from here on everything answers."""
        del async_lib
        await self.seed.write(self._seed)
        await self.time_scale.write(self._time_scale, verify_value=False)
        await instance.write("Yes")

    @time_scale.putter
    async def time_scale(self, instance: Any, value: float) -> float:
        """Completes when the twin has it."""
        del instance
        await self._worker.call(self._twin.set_time_scale, float(value))
        return float(value)

    @shutdown.putter
    async def shutdown(self, instance: Any, value: str) -> str:
        """Ask the server to end."""
        del instance
        if value == "Yes":
            asyncio.get_running_loop().call_later(_SHUTDOWN_DELAY_S, self._request_stop)
        return value

    async def update(self) -> None:
        """Publish twin time."""
        await self.time.write(await self._worker.call(self._twin.twin_time_s))


class Truth(PVGroup):
    """What really happened; for tests."""

    drift_x = readback("DriftX_RBV", 0.0, units="um", precision=5)
    drift_y = readback("DriftY_RBV", 0.0, units="um", precision=5)
    position_x = readback("PositionX_RBV", 0.0, units="um", precision=5, doc="sample coordinate under the field centre")
    position_y = readback("PositionY_RBV", 0.0, units="um", precision=5)
    peak_dose = readback("PeakDose_RBV", 0.0, units="Gy", precision=1, doc="active material, attenuation model")
    open_time = readback("OpenTime_RBV", 0.0, units="s", precision=6)
    flush = choice("Flush", ("Done", "Flush"), doc="1: write the truth files; completes when they are written")

    def __init__(
        self,
        prefix: str,
        *,
        twin: Twin,
        worker: TwinWorker,
        directory: Path,
        also: Sequence[Callable[[Path], object]] = (),
        **more: Any,
    ) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker, self._directory = twin, worker, directory
        self._writers = (twin.write_truth, *also)

    @flush.putter
    async def flush(self, instance: Any, value: str) -> str:
        """Write the truth files."""
        del instance
        if value == "Flush":
            await self.write()
            await self.update()
        return "Done"

    async def write(self) -> None:
        """Write all truth files.

        Raises
        ------
        OSError
            The directory cannot be written.
        """
        for write in self._writers:
            await self._worker.render(write, self._directory)

    async def update(self) -> None:
        """Publish the present truth."""
        twin = self._twin

        def read() -> tuple[tuple[float, float], tuple[float, float], float, float]:
            return twin.drift_um(), twin.position_um(), twin.peak_dose_gy(), twin.open_time_s

        drift, position, peak_gy, open_s = await self._worker.call(read)
        await self.drift_x.write(drift[0])
        await self.drift_y.write(drift[1])
        await self.position_x.write(position[0])
        await self.position_y.write(position[1])
        await self.peak_dose.write(peak_gy)
        await self.open_time.write(open_s)
