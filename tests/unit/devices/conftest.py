"""Devices without an IOC: ophyd's fake signals, and an areaDetector reduced to what the client can see of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# a unit test searches no network for PVs that do not exist; libca reads this when ophyd is imported
os.environ.setdefault("EPICS_CA_ADDR_LIST", "127.0.0.1")
os.environ.setdefault("EPICS_CA_AUTO_ADDR_LIST", "NO")

from ophyd.sim import make_fake_device

from xbat_live.devices import FastShutter, TxmCamera, TxmMotor

FakeCameraBase = make_fake_device(TxmCamera)
FakeShutterBase = make_fake_device(FastShutter)


class FakeCamera(FakeCameraBase):
    """A camera whose acquisitions end when the test says so.

    Attributes
    ----------
    pending
        Completion callbacks of acquisitions that were started, oldest first.
    hold
        Keep acquisitions pending; otherwise they end at once, in a thread of their own.
    frames_per_acquisition
        What the file plugin captures each time.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.pending: list[Callable[..., None]] = []
        self.hold = False
        self.frames_per_acquisition = 1

    def _start_acquisition(self, done: Callable[..., None]) -> None:
        self.pending.append(done)
        if not self.hold:
            threading.Thread(target=self.finish, daemon=True).start()

    def finish(self, frames: int | None = None) -> None:
        """End the oldest acquisition after `frames` frames."""
        self.capture(self.frames_per_acquisition if frames is None else frames)
        self.pending.pop(0)()

    def capture(self, frames: int) -> None:
        """Let the file plugin capture frames."""
        self.hdf1.num_captured.sim_put(self.hdf1.num_captured.get() + frames)


class FakeShutter(FakeShutterBase):
    """A shutter that obeys at once unless it is `stuck`; remembers its commands."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.commands: list[str] = []
        self.stuck = False
        self.status.sim_put("Closed")
        self.command.sim_set_putter(self._obey)

    def _obey(self, value: str, *args: object, **kwargs: object) -> None:
        self.commands.append(value)
        if not self.stuck:
            self.status.sim_put("Open" if value == "Open" else "Closed")

    def _send(self, command: str, done: Callable[..., None]) -> None:
        self.command.put(command)
        threading.Thread(target=done, daemon=True).start()


def prepare_camera(camera: FakeCamera, *, shape_yx: tuple[int, int] = (6, 8)) -> FakeCamera:
    """Give the fake signals the values a fresh areaDetector has."""
    cam, hdf1, image = camera.cam, camera.hdf1, camera.image
    ny, nx = shape_yx
    for signal, choices in (
        (cam.frame_type, ("Normal", "Background", "FlatField", "DblCorrelation")),
        (hdf1.enable, ("Disable", "Enable")),
        (hdf1.blocking_callbacks, ("No", "Yes")),
        (hdf1.auto_increment, ("No", "Yes")),
        (hdf1.auto_save, ("No", "Yes")),
        (hdf1.file_write_mode, ("Single", "Capture", "Stream")),
        (hdf1.swmr_mode, ("Off", "On")),
        (image.enable, ("Disable", "Enable")),
        (image.blocking_callbacks, ("No", "Yes")),
    ):
        signal.sim_set_enum_strs(choices)
    for signal, value in (
        (cam.acquire, 0),
        (cam.acquire_time, 0.01),
        (cam.acquire_period, 0.0),
        (cam.num_images, 1),
        (cam.image_mode, 0),
        (cam.array_callbacks, 1),
        (cam.frame_type, 0),
        (cam.data_type, "UInt16"),
        (cam.data_type_disabled, 0),
        (cam.port_name, "CAM1"),
        (cam.size_y, ny),
        (cam.size_x, nx),
        (cam.max_size_y, 100),
        (cam.max_size_x, 200),
        (cam.min_y, 0),
        (cam.min_x, 0),
        (cam.bin_y, 1),
        (cam.bin_x, 1),
        (cam.num_exposures, 1),
        (cam.trigger_mode, 0),
        (cam.model, "fake"),
        (cam.manufacturer, "fake"),
        (cam.array_size.array_size_y, ny),
        (cam.array_size.array_size_x, nx),
        (cam.array_size.array_size_z, 0),
        (hdf1.array_size.depth, 0),
        (hdf1.array_size.height, ny),
        (hdf1.array_size.width, nx),
        (hdf1.height, ny),
        (hdf1.width, nx),
        (hdf1.plugin_type, "NDFileHDF5 ver1"),
        (hdf1.port_name, "FILE1"),
        (hdf1.nd_array_port, "CAM1"),
        (hdf1.enable, 1),
        (hdf1.blocking_callbacks, 1),
        (hdf1.create_directory, 0),
        (hdf1.auto_increment, 1),
        (hdf1.array_counter, 0),
        (hdf1.auto_save, 0),
        (hdf1.num_capture, 0),
        (hdf1.num_captured, 0),
        (hdf1.file_template, "%s%s_%6.6d.h5"),
        (hdf1.file_write_mode, 0),
        (hdf1.file_number, 1),
        (hdf1.file_path_exists, 1),
        (hdf1.full_file_name, ""),
        (hdf1.swmr_mode, 1),
        (hdf1.capture, 0),
        (hdf1.write_status, 0),
        (hdf1.write_message, ""),
        (image.plugin_type, "NDPluginStdArrays"),
        (image.port_name, "Image1"),
        (image.nd_array_port, "CAM1"),
        (image.enable, 1),
        (image.blocking_callbacks, 0),
    ):
        signal.sim_put(value)

    def start_capture(value: object, *args: object, **kwargs: object) -> None:
        if value:
            hdf1.num_captured.sim_put(0)
            hdf1.full_file_name.sim_put(f"{hdf1.file_path.get()}/{hdf1.file_name.get()}_000000.h5")
        hdf1.capture.sim_put(value)

    hdf1.capture.sim_set_putter(start_capture)
    return camera


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[FakeCamera]:
    """A fresh fake camera, unstaged."""
    made = prepare_camera(FakeCamera("FAKE:", name="camera", frame_directory=tmp_path / "frames"))
    yield made
    made.hold = False


@pytest.fixture
def shutter() -> FakeShutter:
    """A closed fake shutter that confirms within 0.1 s or not at all."""
    return FakeShutter("FAKE:SH:", name="shutter", move_timeout_s=0.1)


def fake_motor(cls: type[TxmMotor], *, name: str, unit: str, limits: tuple[float, float]) -> TxmMotor:
    """A fake motor with soft limits."""
    motor = make_fake_device(cls)("FAKE:M", name=name, timeout=5)
    motor.motor_egu.sim_put(unit)
    motor.low_limit_travel.sim_put(limits[0])
    motor.high_limit_travel.sim_put(limits[1])
    motor.user_setpoint.sim_set_limits(limits)
    motor.user_readback.sim_put(limits[0])
    return motor


@pytest.fixture
def make_motor() -> Callable[..., TxmMotor]:
    """Return `fake_motor`."""
    return fake_motor
