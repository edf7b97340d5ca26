"""areaDetector's NDFileHDF5 plugin (``HDF1:``), stream mode, over `FrameFile`."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .hdf5_writer import FrameFile, FrameWriteError
from .properties import (
    PATH_LENGTH,
    SettingsGroup,
    choice,
    choice_readback,
    choice_setting,
    label,
    label_setting,
    readback,
    setting,
    text_readback,
    text_setting,
)
from .worker import TwinWorker

_NO_YES = ("No", "Yes")
_WRITE_STATUS = ("Write OK", "Write error")


class FilePlugin(SettingsGroup):
    """Streams frames to HDF5.

    `Capture` = 1 makes the file (with LazyOpen: the first frame does). A frame counts once it is on disk. Callbacks
    always block.
    """

    enable = choice_setting("EnableCallbacks", ("Disable", "Enable"), "Enable")
    blocking = choice_setting("BlockingCallbacks", _NO_YES, "Yes")
    array_port = label_setting("NDArrayPort", "CAM1")
    array_counter = setting("ArrayCounter", 0, low=0, high=2**31 - 1)
    dropped_arrays = setting("DroppedArrays", 0, low=0, high=2**31 - 1)
    auto_increment = choice_setting("AutoIncrement", _NO_YES, "Yes")
    auto_save = choice_setting("AutoSave", _NO_YES)
    create_directory = setting("CreateDirectory", 0, low=-64, high=64)
    file_path = text_setting("FilePath", "/tmp/")
    file_name = text_setting("FileName", "frames")
    file_template = text_setting("FileTemplate", "%s%s_%6.6d.h5")
    file_number = setting("FileNumber", 0, low=0, high=2**31 - 1)
    file_format = choice_setting("FileFormat", ("HDF5",))
    write_mode = choice_setting("FileWriteMode", ("Single", "Capture", "Stream"), "Stream")
    num_capture = setting("NumCapture", 0, low=0, high=2**31 - 1)
    capture = choice_setting("Capture", ("Done", "Capture"))
    swmr_mode = choice_setting("SWMRMode", ("Off", "On"), "On")
    lazy_open = choice_setting("LazyOpen", _NO_YES)
    write_file = choice("WriteFile", ("Done", "Write"))
    plugin_type = label("PluginType_RBV", "NDFileHDF5")
    port_name = label("PortName_RBV", "FILE1")
    size0 = readback("ArraySize0_RBV", 0, doc="columns")
    size1 = readback("ArraySize1_RBV", 0, doc="rows")
    size2 = readback("ArraySize2_RBV", 0)
    dimensions = readback("NDimensions_RBV", 2)
    path_exists = choice_readback("FilePathExists_RBV", _NO_YES, "Yes")
    full_name = text_readback("FullFileName_RBV")
    num_captured = readback("NumCaptured_RBV", 0, doc="frames in the open file, on disk")
    write_status = choice_readback("WriteStatus", _WRITE_STATUS)
    write_message = text_readback("WriteMessage")
    swmr_supported = choice_readback("SWMRSupported_RBV", ("Not Supported", "Supported"), "Supported")
    swmr_active = choice_readback("SWMRActive_RBV", ("Off", "Active"))

    def __init__(
        self, prefix: str, *, worker: TwinWorker, shape_yx: tuple[int, int], attributes: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(prefix, **more)
        self._attributes = tuple(attributes)
        self._worker = worker
        self._shape_yx = shape_yx
        self._file: FrameFile | None = None
        self._target: Path | None = None  # a capture is on

    @size1.startup
    async def size1(self, instance: Any, async_lib: Any) -> None:
        """Publish real sizes, so that clients need no warm-up."""
        del instance, async_lib
        await self.show_shape(self._shape_yx)

    async def show_shape(self, shape_yx: tuple[int, int]) -> None:
        """Publish the frame size.

        Parameters
        ----------
        shape_yx : tuple of int
            Rows and columns.
        """
        self._shape_yx = shape_yx
        await self.size0.write(shape_yx[1])
        await self.size1.write(shape_yx[0])

    @property
    def wants_frames(self) -> bool:
        """Whether a capture is on and the plugin enabled."""
        return self._target is not None and self.enable.readback.value == "Enable"

    def write_frame(
        self,
        image: npt.NDArray[np.uint16],
        frame_type: str,
        unique_id: int,
        time_unix_s: float,
        attributes: Mapping[str, float] | None = None,
    ) -> FrameWriteError | None:
        """Write one frame (in the frame thread).

        Parameters
        ----------
        image : ndarray of uint16, shape (ny, nx)
            The frame.
        frame_type : str
            Decides the dataset.
        unique_id : int
            Its number.
        time_unix_s : float
            Time of exposure.
        attributes : mapping of str to float
            See `FrameFile.append`.

        Returns
        -------
        FrameWriteError or None
            Why the frame is not in the file.
        """
        try:
            if self._file is None:
                if self._target is None:
                    return None
                self._file = FrameFile(self._target, (image.shape[0], image.shape[1]), self._attributes)
            self._file.append(image, frame_type, unique_id=unique_id, time_unix_s=time_unix_s, attributes=attributes)
        except FrameWriteError as error:
            return error
        return None

    async def wrote(self, error: FrameWriteError | None) -> None:
        """Publish the outcome of `write_frame`.

        Parameters
        ----------
        error : FrameWriteError or None
            What it returned.
        """
        if error is not None:
            await self._show_error("write", error)
            return
        count = self._file.count if self._file is not None else 0
        if self.write_status.value != _WRITE_STATUS[0]:
            await self._show_ok()
        await self.array_counter.readback.write(self.array_counter.readback.value + 1)
        await self.num_captured.write(count)
        if 0 < self.num_capture.readback.value <= count:
            await self.end_capture()
            await self.capture.setpoint.write("Done", verify_value=False)
            await self.capture.readback.write("Done")

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

        Raises
        ------
        ValueError
            If it cannot be.
        """
        if name == "Capture":
            if value == "Done":
                await self.end_capture()
                return value
            return "Capture" if await self._begin_capture() else "Done"
        if name in {"FilePath", "FileName", "FileTemplate"} and len(str(value).encode()) >= PATH_LENGTH:
            raise ValueError(f"{name} of {len(value)} characters: at most {PATH_LENGTH - 1}")
        if name == "FilePath":
            return await self._accept_path(str(value))
        return value

    async def end_capture(self) -> None:
        """Close the file, if one is open."""
        self._target = None
        file, self._file = self._file, None
        if file is not None:
            try:
                await self._worker.render(file.close)
            except FrameWriteError as error:
                await self._show_error("close", error)
            await self.swmr_active.write("Off")

    async def _accept_path(self, value: str) -> str:
        path = value if value.endswith("/") else value + "/"
        levels = int(self.create_directory.readback.value)

        def prepare() -> tuple[bool, OSError | None]:
            error = None
            if levels < 0:
                try:
                    _make_levels(Path(path), -levels)
                except OSError as refused:
                    error = refused
            return os.path.isdir(path), error

        exists, error = await self._worker.render(prepare)
        if error is not None:
            await self._show_error("create folder", error)
        await self.path_exists.write("Yes" if exists else "No")
        return path

    async def _begin_capture(self) -> bool:
        if self._target is not None:
            return True
        await self.num_captured.write(0)
        try:
            path = Path(
                self.file_template.readback.value
                % (self.file_path.readback.value, self.file_name.readback.value, int(self.file_number.readback.value))
            )
            if self.write_mode.readback.value != "Stream":
                mode = self.write_mode.readback.value
                raise FrameWriteError(errno.ENOTSUP, f"FileWriteMode {mode} is not simulated; use Stream", str(path))
            if self.lazy_open.readback.value == "No":
                shape_yx = self._shape_yx
                self._file = await self._worker.render(lambda: FrameFile(path, shape_yx, self._attributes))
        except (TypeError, ValueError) as error:
            template = self.file_template.readback.value
            await self._show_error(
                "open", FrameWriteError(errno.EINVAL, f"FileTemplate {template!r}: {error}", template)
            )
            return False
        except FrameWriteError as error:
            await self._show_error("open", error)
            return False
        self._target = path
        await self._show_ok()
        await self.full_name.write(str(path))
        if self.auto_increment.readback.value == "Yes":
            number = int(self.file_number.readback.value) + 1  # as ADCore: the number of the next file
            await self.file_number.setpoint.write(number, verify_value=False)
            await self.file_number.readback.write(number)
        await self.swmr_active.write("Active")
        return True

    async def _show_ok(self) -> None:
        await self.write_status.write(_WRITE_STATUS[0])
        await self.write_message.write("")

    async def _show_error(self, action: str, error: OSError) -> None:
        symbol = errno.errorcode.get(error.errno or 0, "")
        message = f"cannot {action} {error.filename}: {error.strerror} (errno {error.errno} {symbol})"
        self.log.warning("HDF1: %s", message)
        await self.write_message.write(message[: PATH_LENGTH - 1])
        await self.write_status.write(_WRITE_STATUS[1])


def _make_levels(path: Path, levels: int) -> None:
    """Create at most `levels` missing folders at the end of `path` (ADCore: a negative CreateDirectory)."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    if len(missing) > levels:
        raise FileNotFoundError(
            errno.ENOENT, f"{len(missing)} folders missing, CreateDirectory allows {levels}", str(path)
        )
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
