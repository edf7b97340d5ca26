"""areaDetector's camera driver (``cam1:``): settings, triggers, exposures in real time, abort."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from caproto.server import PvpropertyEnumRO, pvproperty

from ..frame_source import FrameSource
from ..truth import Roi
from .file_plugin import FilePlugin
from .hdf5_writer import FRAME_TYPES, FrameWriteError
from .image_plugin import ImagePlugin
from .properties import (
    SettingsGroup,
    choice,
    choice_readback,
    choice_setting,
    label,
    readback,
    setting,
    text_readback,
)
from .shutter import Shutter
from .worker import TwinWorker

_DATA_TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
_MAX_SIZE = 8192
_LATE_S = 0.05  # of the event loop, behind the start of the next frame of a sequence
_GEOMETRY = {"SizeX", "SizeY", "MinX", "MinY", "BinX", "BinY"}


class Camera(SettingsGroup):
    """A camera of the beamline. Putting `Acquire` completes when the frames are taken and, if captured, on disk (busy record).

    Trigger modes: Internal exposes at once; Software waits for ``SoftwareTrigger`` = 1; External for the next opening
    of the fast shutter. `NumExposures` stays 1.
    """

    acquire = choice_setting("Acquire", ("Done", "Acquire"))
    acquire_time = setting("AcquireTime", 0.1, units="s", low=1e-5, high=3600.0)
    acquire_period = setting("AcquirePeriod", 0.0, units="s", low=0.0, high=3600.0)
    array_callbacks = choice_setting("ArrayCallbacks", ("Disable", "Enable"), "Enable")
    array_counter = setting("ArrayCounter", 0, low=0, high=2**31 - 1)
    image_mode = choice_setting("ImageMode", ("Single", "Multiple", "Continuous"))
    trigger_mode = choice_setting("TriggerMode", ("Internal", "External", "Software"))
    software_trigger = choice("SoftwareTrigger", ("Done", "Trigger"))
    num_images = setting("NumImages", 1, low=1, high=2**31 - 1)
    num_exposures = setting("NumExposures", 1, low=1, high=2**31 - 1)
    frame_type = choice_setting("FrameType", FRAME_TYPES)
    size_x = setting("SizeX", 0, low=1, high=_MAX_SIZE)
    size_y = setting("SizeY", 0, low=1, high=_MAX_SIZE)
    min_x = setting("MinX", 0, low=0, high=_MAX_SIZE)
    min_y = setting("MinY", 0, low=0, high=_MAX_SIZE)
    bin_x = setting("BinX", 1, low=1, high=64)
    bin_y = setting("BinY", 1, low=1, high=64)
    data_type = choice("DataType", _DATA_TYPES, "UInt16")
    data_type_readback = pvproperty(
        name="DataType_RBV", dtype=PvpropertyEnumRO, enum_strings=_DATA_TYPES, value="UInt16", record="mbbi"
    )
    color_mode = choice_setting("ColorMode", ("Mono",))
    max_size_x = readback("MaxSizeX_RBV", 0)
    max_size_y = readback("MaxSizeY_RBV", 0)
    array_size_x = readback("ArraySizeX_RBV", 0)
    array_size_y = readback("ArraySizeY_RBV", 0)
    array_size_z = readback("ArraySizeZ_RBV", 0)
    array_size = readback("ArraySize_RBV", 0, units="bytes")
    num_images_counter = readback("NumImagesCounter_RBV", 0)
    num_exposures_counter = readback("NumExposuresCounter_RBV", 0)
    manufacturer = label("Manufacturer_RBV", "xbat_live")
    model = label("Model_RBV", "simulated TXM camera")
    port_name = label("PortName_RBV", "CAM1")
    detector_state = choice_readback(
        "DetectorState_RBV",
        ("Idle", "Acquire", "Readout", "Correct", "Saving", "Aborting", "Error", "Waiting"),
    )
    status_message = text_readback("StatusMessage_RBV", "Idle")

    def __init__(
        self,
        prefix: str,
        *,
        source: FrameSource,
        worker: TwinWorker,
        sensor_yx: tuple[int, int],
        files: FilePlugin,
        images: ImagePlugin,
        shutter: Shutter,
        model: str = "simulated TXM camera",
        attributes_at: Callable[[float], Mapping[str, float]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(prefix, **more)
        self._source, self._worker, self._shutter = source, worker, shutter
        self._model = model
        self._attributes_at = attributes_at or (lambda time_s: {})
        self._sensor_yx = sensor_yx
        self._files, self._images = files, images
        self._task: asyncio.Task[None] | None = None
        self._abort = asyncio.Event()
        self._triggered = asyncio.Event()
        self._roi = Roi(0, 0, *sensor_yx)
        self._bin_yx = (1, 1)

    # ---- settings
    @max_size_x.startup
    async def max_size_x(self, instance: Any, async_lib: Any) -> None:
        """Publish the model, the sensor and its full frame."""
        del async_lib
        await self.model.write(self._model)
        await instance.write(self._sensor_yx[1])
        await self.max_size_y.write(self._sensor_yx[0])
        await self._show_geometry()

    @data_type.putter
    async def data_type(self, instance: Any, value: str) -> str:
        """Refuse anything but the 16 bits of the sensor."""
        del instance
        if value != "UInt16":
            raise ValueError(f"DataType {value}: this camera delivers UInt16 only")
        return value

    @software_trigger.putter
    async def software_trigger(self, instance: Any, value: str) -> str:
        """Release one exposure that waits in trigger mode Software."""
        del instance
        if value == "Trigger":
            self._triggered.set()
        return "Done"

    async def accept(self, name: str, value: Any) -> Any:
        """Apply a setting.

        Parameters
        ----------
        name : str
            PV name.
        value : object
            Wanted value.

        Returns
        -------
        object
            The value that holds.
        """
        if name == "Acquire":
            return await self._command(str(value))
        if name == "NumExposures":
            return 1
        if name in _GEOMETRY:
            return await self._accept_geometry(name, int(value))
        return value

    async def _accept_geometry(self, name: str, value: int) -> int:
        """Keep the region on the sensor, as ADBase does: a start moves inside, a size shrinks to what is left."""
        if self._task is not None:
            return int(self._geometry()[name])  # not during an acquisition
        wanted = self._geometry() | {name: value}
        for axis, sensor in (("X", self._sensor_yx[1]), ("Y", self._sensor_yx[0])):
            bins = min(wanted[f"Bin{axis}"], sensor)
            start = min(wanted[f"Min{axis}"], sensor - bins)
            size = max(bins, min(wanted[f"Size{axis}"], sensor - start) // bins * bins)
            wanted |= {f"Bin{axis}": bins, f"Min{axis}": start, f"Size{axis}": size}
        self._roi = Roi(wanted["MinY"], wanted["MinX"], wanted["SizeY"], wanted["SizeX"])
        self._bin_yx = (wanted["BinY"], wanted["BinX"])
        await self._show_geometry(except_for=name)
        return wanted[name]

    def _geometry(self) -> dict[str, int]:
        roi, (bin_y, bin_x) = self._roi, self._bin_yx
        return {
            "MinY": roi.min_y,
            "MinX": roi.min_x,
            "SizeY": roi.size_y,
            "SizeX": roi.size_x,
            "BinY": bin_y,
            "BinX": bin_x,
        }

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self._roi.size_y // self._bin_yx[0], self._roi.size_x // self._bin_yx[1]

    async def _show_geometry(self, except_for: str = "") -> None:
        pairs = (self.size_x, self.size_y, self.min_x, self.min_y, self.bin_x, self.bin_y)
        for name, pair in zip(("SizeX", "SizeY", "MinX", "MinY", "BinX", "BinY"), pairs, strict=True):
            value = self._geometry()[name]
            if name != except_for and (pair.setpoint.value != value or pair.readback.value != value):
                await pair.setpoint.write(value, verify_value=False)
                await pair.readback.write(value, verify_value=False)
        rows, columns = self.shape_yx
        await self.array_size_x.write(columns)
        await self.array_size_y.write(rows)
        await self.array_size.write(2 * rows * columns)
        await self._files.show_shape((rows, columns))
        await self._images.show_shape((rows, columns))

    # ---- acquisition
    async def _command(self, value: str) -> str:
        if value == "Done":
            await self.abort()
            return "Done"
        if self._task is None:
            self._abort.clear()
            self._triggered.clear()
            self._task = asyncio.get_running_loop().create_task(self._acquire())
            await self.acquire.setpoint.write("Acquire", verify_value=False)
        await asyncio.shield(self._task)
        return "Done" if self._task is None else "Acquire"

    async def abort(self) -> None:
        """End the acquisition; an exposure in progress gives no frame. Returns when it has ended."""
        if self._task is not None:
            self._abort.set()
            await asyncio.shield(self._task)

    async def _acquire(self) -> None:
        mode = self.image_mode.readback.value
        wanted = {"Single": 1, "Multiple": int(self.num_images.readback.value)}.get(mode)
        await self.acquire.readback.write("Acquire")
        await self.num_images_counter.write(0)
        message = "Done"
        delivery: asyncio.Task[None] | None = None
        try:
            taken = 0
            next_start_s = time.monotonic()
            while wanted is None or taken < wanted:
                start_s = await self._start_of_exposure(next_start_s)
                if start_s is None:
                    break
                exposure_s = float(self.acquire_time.readback.value)
                frame_type = str(self.frame_type.readback.value)
                if not await self._exposed(start_s, exposure_s):
                    break
                taken += 1
                if wanted is None or taken < wanted:
                    # the end of an exposure is a point in time, however late the event loop notices it
                    next_start_s = start_s + max(float(self.acquire_period.readback.value), exposure_s)
                else:
                    await self._show_state("Readout", "Reading out")
                if delivery is not None and delivery.done():
                    delivery.result()
                delivery = asyncio.get_running_loop().create_task(
                    self._deliver_after(delivery, (start_s, start_s + exposure_s), frame_type, taken)
                )
                if wanted is None:
                    await delivery  # nobody counts these frames: they must not pile up
            if delivery is not None:
                await self._show_state("Readout", "Reading out")
                await delivery
            if self._abort.is_set():
                message = "Acquisition aborted"
        except Exception as error:
            self.log.exception("acquisition failed")
            message = f"Acquisition failed: {error}"
        finally:
            await self.status_message.write(message)
            await self.detector_state.write("Error" if "failed" in message else "Idle")
            self._task = None
            await self.acquire.readback.write("Done")

    async def _start_of_exposure(self, earliest_s: float) -> float | None:
        """Wait for period and trigger; return the start of the exposure, None if aborted."""
        mode = self.trigger_mode.readback.value
        if mode == "Internal":
            if not await self._pause_until(earliest_s):
                return None
        else:
            await self._show_state("Waiting", f"waiting for {mode.lower()} trigger")
            trigger = self._triggered.wait() if mode == "Software" else self._shutter.wait_for_opening()
            if not await self._unless_aborted(trigger):
                return None
            self._triggered.clear()
        await self._show_state("Acquire", "Acquiring")
        return earliest_s if mode == "Internal" and self._running_on(earliest_s) else time.monotonic()

    async def _exposed(self, start_s: float, exposure_s: float) -> bool:
        """Return at the end of the exposure; False if it was aborted."""
        return await self._pause_until(start_s + exposure_s)

    @staticmethod
    def _running_on(earliest_s: float) -> bool:
        """Whether an exposure follows the one before without a gap: the sensor's clock starts it, not this event loop."""
        return 0.0 <= time.monotonic() - earliest_s < _LATE_S

    async def _show_state(self, state: str, message: str) -> None:
        if self.detector_state.value != state:
            await self.detector_state.write(state)
            await self.status_message.write(message)

    async def _pause_until(self, deadline_s: float) -> bool:
        """Sleep; False as soon as the acquisition is aborted."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return not self._abort.is_set()
        return await self._unless_aborted(asyncio.sleep(left_s))

    async def _unless_aborted(self, event: Any) -> bool:
        waiting = asyncio.ensure_future(event)
        aborted = asyncio.ensure_future(self._abort.wait())
        try:
            await asyncio.wait({waiting, aborted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            aborted.cancel()
        return not self._abort.is_set()

    async def _deliver_after(
        self, before: asyncio.Task[None] | None, interval_s: tuple[float, float], frame_type: str, taken: int
    ) -> None:
        """Read out one frame while the next one is exposed; frames keep their order."""
        if before is not None:
            await before
        await self._deliver(*interval_s, frame_type, taken)

    async def _deliver(self, start_s: float, end_s: float, frame_type: str, taken: int) -> None:
        unique_id = int(self.array_counter.readback.value) + 1
        callbacks = self.array_callbacks.readback.value == "Enable"
        save = callbacks and self._files.wants_frames
        image, error = await self._worker.render(self._take, start_s, end_s, frame_type, unique_id, save)
        if save:
            await self._files.wrote(error)
        if callbacks:
            await self._images.show(image, unique_id)
        await self.array_counter.setpoint.write(unique_id, verify_value=False)
        await self.array_counter.readback.write(unique_id)
        await self.num_images_counter.write(taken)

    def _take(
        self, start_s: float, end_s: float, frame_type: str, unique_id: int, save: bool
    ) -> tuple[npt.NDArray[np.uint16], FrameWriteError | None]:
        """Render and write one frame, in the frame thread."""
        time_unix_s = time.time() - (time.monotonic() - start_s)
        frame = self._source.expose(start_s, end_s, self._roi, self._bin_yx, frame_type)
        if not save:
            return frame.image, None
        attributes = self._attributes_at((start_s + end_s) / 2)
        return frame.image, self._files.write_frame(frame.image, frame_type, unique_id, time_unix_s, attributes)
