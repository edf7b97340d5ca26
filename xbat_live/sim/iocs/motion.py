"""How a simulated axis moves in real time: trapezoidal velocity profiles and an asyncio engine that runs them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_LEGS_KEPT = 16

Listener = Callable[[float, bool], Awaitable[None]]


@dataclass(frozen=True)
class Trapezoid:
    """Motion from rest to rest with constant acceleration, cruise and deceleration.

    Parameters
    ----------
    start, target : float
        Positions, any unit.
    velocity : float
        Cruise speed, unit/s, > 0. Short moves do not reach it.
    acceleration : float
        Unit/s2, > 0.
    """

    start: float
    target: float
    velocity: float
    acceleration: float

    @property
    def distance(self) -> float:
        """Length of the way, >= 0."""
        return abs(self.target - self.start)

    @property
    def ramp_s(self) -> float:
        """Duration of the acceleration, s."""
        return min(self.velocity / self.acceleration, math.sqrt(self.distance / self.acceleration))

    @property
    def duration_s(self) -> float:
        """Duration of the whole move, s."""
        peak = self.acceleration * self.ramp_s
        if peak <= 0:
            return 0.0
        return 2 * self.ramp_s + max(0.0, self.distance - peak * self.ramp_s) / peak

    def position(self, t_s: float) -> float:
        """Position `t_s` seconds after the start; the start before it, the target after the end."""
        if t_s <= 0:
            return self.start
        if t_s >= self.duration_s:
            return self.target
        ramp, end = self.ramp_s, self.duration_s
        if t_s < ramp:
            way = 0.5 * self.acceleration * t_s**2
        elif t_s <= end - ramp:
            way = self.acceleration * ramp * (t_s - 0.5 * ramp)
        else:
            way = self.distance - 0.5 * self.acceleration * (end - t_s) ** 2
        return self.start + math.copysign(way, self.target - self.start)

    def speed(self, t_s: float) -> float:
        """Signed velocity at `t_s`, unit/s."""
        inside = min(t_s, self.duration_s - t_s, self.ramp_s)
        return math.copysign(max(0.0, inside) * self.acceleration, self.target - self.start)


@dataclass(frozen=True)
class Braking:
    """Deceleration from a velocity to rest."""

    start: float
    velocity: float
    acceleration: float

    @property
    def duration_s(self) -> float:
        """Time to rest, s."""
        return abs(self.velocity) / self.acceleration

    @property
    def target(self) -> float:
        """Position of rest."""
        return self.start + 0.5 * self.velocity * self.duration_s

    def position(self, t_s: float) -> float:
        """Position `t_s` seconds after braking began."""
        t = min(max(t_s, 0.0), self.duration_s)
        return self.start + self.velocity * t - math.copysign(0.5 * self.acceleration * t * t, self.velocity)

    def speed(self, t_s: float) -> float:
        """Signed velocity at `t_s`, unit/s."""
        left = max(0.0, self.duration_s - max(t_s, 0.0))
        return math.copysign(left * self.acceleration, self.velocity)


class Axis:
    """A one-dimensional mechanism: one motion at a time, a new target during a move brakes and goes there.

    Parameters
    ----------
    position : float
        Where it stands at first.
    velocity : float
        Unit/s.
    acceleration_s : float
        Time to full speed, s (ACCL of a motor record).
    travel : tuple of float
        Hard stops (low, high).
    tick_s : float
        Interval of position updates while moving, s.
    """

    def __init__(
        self,
        *,
        position: float,
        velocity: float,
        acceleration_s: float,
        travel: tuple[float, float],
        tick_s: float = 0.02,
    ) -> None:
        self.position = position
        self.velocity = velocity
        self.acceleration_s = acceleration_s
        self.travel = travel
        self.target = position
        self.moving = False
        self._tick_s = tick_s
        self._listeners: list[Listener] = []
        self._legs: deque[tuple[float, Trapezoid | Braking]] = deque(maxlen=_LEGS_KEPT)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._stop_requested = False
        self.reading_at_rest: Callable[[float], float] | None = None
        """Where it reads to be, sent to a target; None: there."""

    def position_at(self, time_s: float) -> float:
        """Return where the axis was at `time_s` of `time.monotonic`, as an encoder latched then would: not the last tick. Any thread."""
        for start_s, leg in reversed(tuple(self._legs)):
            if start_s <= time_s:
                return min(max(leg.position(time_s - start_s), self.travel[0]), self.travel[1])
        return self.position

    def listen(self, listener: Listener) -> None:
        """Call `await listener(position, moving)` at the start, at every tick and at the end of every move.

        Parameters
        ----------
        listener : coroutine function
            Exceptions it raises are logged; the motion goes on.
        """
        self._listeners.append(listener)

    async def move(self, target: float) -> None:
        """Go to `target` (clipped to the hard stops) and return when the axis rests, there or where it was stopped.

        Parameters
        ----------
        target : float
            Position.
        """
        self.target = min(max(target, self.travel[0]), self.travel[1])
        self._stop_requested = False
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Brake and return when the axis rests."""
        self._stop_requested = True
        self._changed.set()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        self.moving = True
        try:
            while True:
                self._changed.clear()
                speed = max(self.velocity, 1e-9)
                leg = Trapezoid(self.position, self.target, speed, speed / max(self.acceleration_s, 1e-3))
                velocity = await self._follow(leg, interruptible=True)
                if velocity:
                    await self._follow(Braking(self.position, velocity, leg.acceleration), interruptible=False)
                if self._stop_requested:
                    self.target = self.position
                    break
                if not self._changed.is_set():
                    if self.reading_at_rest is not None:
                        self.position = self.reading_at_rest(self.target)
                    break
        finally:
            self.moving = False
            self._task = None
        await self._notify()

    async def _follow(self, leg: Trapezoid | Braking, *, interruptible: bool) -> float:
        """Run one leg; return the velocity at which it was interrupted, 0 at its end."""
        start_s = time.monotonic()
        self._legs.append((start_s, leg))
        await self._notify()
        while True:
            t_s = time.monotonic() - start_s
            if t_s >= leg.duration_s:
                self.position = min(max(leg.target, self.travel[0]), self.travel[1])
                return 0.0
            self.position = min(max(leg.position(t_s), self.travel[0]), self.travel[1])
            if interruptible and self._changed.is_set():
                return leg.speed(t_s)
            await self._notify()
            pause_s = min(self._tick_s, max(0.0, leg.duration_s - (time.monotonic() - start_s)))
            if interruptible:
                await _wait_for(self._changed, pause_s)
            else:
                await asyncio.sleep(pause_s)

    async def _notify(self) -> None:
        for listener in self._listeners:
            try:
                await listener(self.position, self.moving)
            except Exception:
                logger.exception("a listener of the axis failed at position %g", self.position)


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
