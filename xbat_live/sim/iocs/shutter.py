"""The fast shutter: commands, timed openings, status, open-time counter stamped here, and a hardware watchdog."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from .properties import choice, choice_readback, number, readback
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

TRAVEL_S = 0.003
_MAX_OPEN_S = 86400.0


class Shutter(PVGroup):
    """Fast shutter. All times are of this process' monotonic clock.

    A `Cmd` put completes when the shutter has moved. A put of `OpenFor` opens for exactly that time and completes when the
    shutter is closed again, for whatever reason; while the shutter is open already it is refused. `MaxOpen` acts like the
    independent hardware it stands for: it closes the shutter that many seconds after it opened, also when commands are
    ignored (`Fault` = Stuck); so does the timer of `OpenFor`.
    """

    command = choice("Cmd", ("Close", "Open"), doc="commands the shutter; completes when it has moved")
    status = choice_readback("Status", ("Closed", "Open", "Unknown"), doc="limit switches")
    open_time = readback("OpenTime_RBV", 0.0, units="s", precision=6, doc="cumulative open time")
    open_count = readback("OpenCount_RBV", 0, doc="openings")
    last_open_time = readback("LastOpenTime_RBV", 0.0, units="s", precision=6, doc="duration of the last opening")
    max_open = number(
        "MaxOpen", 0.0, units="s", high=_MAX_OPEN_S, doc="watchdog: closes by itself so long after opening; 0 = never"
    )
    open_for = number(
        "OpenFor",
        0.0,
        units="s",
        low=0.0,
        high=_MAX_OPEN_S,
        precision=6,
        doc="opens so long; completes when closed again",
    )
    watchdog_trips = readback("WatchdogTrips_RBV", 0, doc="closings by the watchdog")
    fault = choice(
        "Fault", ("None", "Stuck", "Unknown"), doc="tests: Stuck ignores commands, Unknown loses the limit switches"
    )

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, **more: Any) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker = twin, worker
        self._opened_s: float | None = None
        self._total_s = 0.0
        self._alarm_clock: asyncio.TimerHandle | None = None
        self._ends_s = math.inf  # of the opening, if nothing ends it before
        self._open_for_s = 0.0
        self._lock = asyncio.Lock()
        self._opening = asyncio.Condition()
        self._closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the beam passes."""
        return self._opened_s is not None

    async def wait_for_opening(self) -> None:
        """Return at the next opening (the camera's external trigger)."""
        async with self._opening:
            await self._opening.wait()

    @command.putter
    async def command(self, instance: Any, value: str) -> str:
        """Move and complete."""
        del instance
        async with self._lock:  # commands are carried out in their order
            await asyncio.sleep(TRAVEL_S)
            if self.fault.value != "Stuck":
                if value == "Open":
                    await self._open()
                else:
                    await self._close(time.monotonic())
        return value

    @open_for.putter
    async def open_for(self, instance: Any, value: float) -> float:
        """Open for `value` s; complete when closed again."""
        del instance
        async with self._lock:
            if self.is_open:
                raise ValueError(f"OpenFor {float(value):g} s: the shutter is open already; close it first")
            await asyncio.sleep(TRAVEL_S)
            if self.fault.value == "Stuck" or float(value) <= 0:
                return float(value)
            self._closed.clear()
            await self._open(for_s=float(value))
        await self._closed.wait()  # without the lock: a command to close ends it
        return float(value)

    @max_open.putter
    async def max_open(self, instance: Any, value: float) -> float:
        """Arm the watchdog anew, for an opening in progress too."""
        del instance
        self._arm(float(value))
        return float(value)

    @fault.putter
    async def fault(self, instance: Any, value: str) -> str:
        """Simulate a fault."""
        del instance
        await self.status.write("Unknown" if value == "Unknown" else self._position())
        return value

    async def close(self) -> None:
        """Close at once, whatever the fault (end of the simulation)."""
        await self._close(time.monotonic())

    async def update(self) -> None:
        """Let the open-time counter run while the shutter is open; its final value comes with the closing.

        It never runs beyond the end that the opening has: a counter that goes back means that the IOC was restarted.
        """
        if self._opened_s is not None:
            until_s = min(time.monotonic(), self._ends_s)
            await self.open_time.write(self._total_s + max(until_s - self._opened_s, 0.0))

    def _position(self) -> str:
        return "Open" if self.is_open else "Closed"

    async def _open(self, *, for_s: float = 0.0) -> None:
        if self.is_open:
            return
        self._opened_s = now_s = time.monotonic()
        self._open_for_s = for_s
        self._arm(float(self.max_open.value))
        self._worker.post(self._twin.open_shutter, now_s)
        await self._show_status()
        await self.open_count.write(self.open_count.value + 1)
        async with self._opening:
            self._opening.notify_all()

    async def _close(self, at_s: float, *, by_watchdog: bool = False) -> None:
        if self._opened_s is None:
            return
        last_s = max(0.0, at_s - self._opened_s)
        self._opened_s = None
        self._open_for_s = 0.0
        self._total_s += last_s
        self._arm(0.0)
        self._worker.post(self._twin.close_shutter, at_s)
        # counters before status: who sees Closed reads the final open time
        await self.last_open_time.write(last_s)
        await self.open_time.write(self._total_s)
        if by_watchdog:
            await self.watchdog_trips.write(self.watchdog_trips.value + 1)
            await self.command.write("Close", verify_value=False)
        await self._show_status()
        self._closed.set()

    async def _show_status(self) -> None:
        await self.status.write("Unknown" if self.fault.value == "Unknown" else self._position())

    def _arm(self, max_open_s: float) -> None:
        """Set the timer to whichever comes first: the watchdog or the end of a timed opening."""
        if self._alarm_clock is not None:
            self._alarm_clock.cancel()
            self._alarm_clock = None
        self._ends_s = math.inf
        if self._opened_s is None:
            return
        by_watchdog = max_open_s > 0 and not 0 < self._open_for_s <= max_open_s
        left_s = max_open_s if by_watchdog else self._open_for_s
        if left_s > 0:
            # a limit set in the middle of an opening cannot act in the past
            deadline_s = self._ends_s = max(self._opened_s + left_s, time.monotonic())
            loop = asyncio.get_running_loop()
            at_s = deadline_s - time.monotonic() + loop.time()
            self._alarm_clock = loop.call_at(at_s, self._trip, deadline_s, by_watchdog)

    def _trip(self, deadline_s: float, by_watchdog: bool) -> None:
        # hardware would be on time: the stamp is the deadline, however late the event loop is
        self._trip_task = asyncio.get_running_loop().create_task(self._close(deadline_s, by_watchdog=by_watchdog))
