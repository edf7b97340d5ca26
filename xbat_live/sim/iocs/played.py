"""Camera and shutter of a beamline that plays a recorded run, and the cue that says which exposure comes next."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from caproto.server import PVGroup, pvproperty

from ..played import PlayedTwin
from ..tape import TapedExposure
from ..twin import Twin
from .camera import Camera
from .shutter import Shutter
from .worker import TwinWorker

_SHOWN_S = 0.004  # that a client sees the camera exposing
_OPENING_S = 0.002
_PATIENCE_S = 20.0  # for the shutter; then the frame is delivered all the same
_LOOK_S = 0.001
_LATE_S = 0.05  # the end of a cut exposure is on its way to the clients before the shutter's


class Cue(PVGroup):
    """Which recorded exposure is played next; refused by a beamline that plays none."""

    cue = pvproperty(
        name="Cue",
        value=[-1.0, 0.0, 0.0],
        dtype=float,
        max_length=3,
        doc="xbat sim that plays a run: number of the exposure to play next, and how far its content is moved (y, x), px",
    )

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, shown: Sequence[Any], **more: Any) -> None:
        super().__init__(prefix, **more)
        self._twin, self._worker, self._shown = twin, worker, shown

    @cue.putter
    async def cue(self, instance: Any, value: Any) -> Any:
        """Read the frame and publish the exposure's readings; completes when both is done."""
        del instance
        if not isinstance(self._twin, PlayedTwin):
            raise ValueError("Cue: this beamline plays no recorded run")
        number, *shift = (float(item) for item in value)
        await self._worker.call(self._twin.cue, int(number), (shift[0], shift[1]))
        for group in self._shown:
            await group.update()
        return value


def _cued(twin: Any) -> TapedExposure | None:
    exposure: TapedExposure | None = twin.cued
    return exposure


class PlayedCamera(Camera):
    """Exposes for as long as the shutter wants, because the picture is a recorded one; loses as much light as was lost."""

    after_frame: Callable[[], Awaitable[None]] | None = None
    """Called before a frame is announced: what the recording went on with is shown by then."""
    _was_open = False

    async def _show_state(self, state: str, message: str) -> None:
        exposure = _cued(self._source)
        if state == "Acquire" and exposure is not None and exposure.open_time_s <= 0:
            return  # done before a client saw it expose: the shutter stayed closed, and stays closed again
        await super()._show_state(state, message)

    async def _acquire(self) -> None:
        await super()._acquire()
        if isinstance(self._shutter, PlayedShutter):  # it is idle: its state changes no more
            self._shutter.camera_stamp_s = float(self.detector_state.timestamp)
            self._shutter.camera_ended.set()

    async def _deliver(self, start_s: float, end_s: float, frame_type: str, taken: int) -> None:
        await super()._deliver(start_s, end_s, frame_type, taken)
        if self.after_frame is not None:
            await self.after_frame()

    async def _start_of_exposure(self, earliest_s: float) -> float | None:
        if isinstance(self._shutter, PlayedShutter):  # before a client can know that the camera exposes
            self._shutter.done.clear()
            self._shutter.lost.clear()
            self._shutter.camera_ended.clear()
            self._was_open = self._shutter.is_open
        return await super()._start_of_exposure(earliest_s)

    async def _exposed(self, start_s: float, exposure_s: float) -> bool:
        exposure = _cued(self._source)
        shutter = self._shutter
        if exposure is None or exposure.open_time_s <= 0 or self._was_open or not isinstance(shutter, PlayedShutter):
            return await self._pause_until(time.monotonic() + _SHOWN_S)
        end_s = time.monotonic() + max(_PATIENCE_S, exposure_s)
        waiting = shutter.lost if exposure.missed_s > 0 else shutter.done
        while not waiting.is_set() and time.monotonic() < end_s:
            if not await self._pause_until(time.monotonic() + _LOOK_S):
                return False
        return True


class PlayedShutter(Shutter):
    """Is open for a moment, and says that it was open as long as it was in the recorded exposure."""

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, **more: Any) -> None:
        super().__init__(prefix, twin=twin, worker=worker, **more)
        self.done = asyncio.Event()
        self.lost = asyncio.Event()
        self.camera_ended = asyncio.Event()
        self.camera_stamp_s = 0.0

    async def _show_status(self) -> None:
        exposure, closed = _cued(self._twin), not self.is_open  # now: it may change while a position is published
        if exposure is not None and exposure.missed_s > 0 and closed and self.fault.value != "Unknown":
            # so long after the camera's exposure had ended, by the stamps that clients compare
            await self.status.write("Closed", timestamp=self.camera_stamp_s + exposure.missed_s)
            await asyncio.sleep(_LATE_S)  # the stamp is with the clients before they hear that the opening is over
        else:
            await super()._show_status()
        if closed:
            self.done.set()
            self.lost.set()

    async def _open(self, *, for_s: float = 0.0) -> None:
        exposure = _cued(self._twin)
        if exposure is None or not for_s:
            await super()._open(for_s=for_s)
            return
        if exposure.missed_s > 0:
            await super()._open()
            self._arm(0.0)  # the watchdog would not wait for what follows
            self._ends_as(exposure.open_time_s)
            self.lost.set()  # the camera ends before the shutter closes
            await asyncio.wait_for(self.camera_ended.wait(), _PATIENCE_S)
            await asyncio.sleep(_LATE_S)
            await self._close(time.monotonic())
        else:
            await super()._open(for_s=max(min(for_s, _OPENING_S), 1e-4))
            self._ends_as(exposure.open_time_s)

    def _ends_as(self, open_time_s: float) -> None:
        """Let the counter stop where the recorded opening ended, however long this one takes."""
        if self._opened_s is not None:
            self._ends_s = self._opened_s + open_time_s

    async def _close(self, at_s: float, *, by_watchdog: bool = False) -> None:
        exposure = _cued(self._twin)
        if exposure is not None and self._opened_s is not None:
            at_s = self._opened_s + exposure.open_time_s  # by its own clock
        await super()._close(at_s, by_watchdog=by_watchdog)
