"""The TXM camera: an areaDetector whose trigger ends when the frame is on disk, and never hangs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from ophyd import Component as Cpt
from ophyd.areadetector.base import ADComponent, EpicsSignalWithRBV, NDDerivedSignal
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.detectors import DetectorBase
from ophyd.areadetector.plugins import ImagePlugin
from ophyd.device import Staged
from ophyd.signal import EpicsSignalRO
from ophyd.status import DeviceStatus

from xbat_live.devices.epics import UnitsMixin, connection_errors
from xbat_live.devices.file_store import FRAME_DATASETS, FrameAddress, FrameFilePlugin, FrameRows
from xbat_live.devices.soft import SoftSignal
from xbat_live.devices.trigger import TRIGGER_MARGIN_S, SafeSingleTrigger

logger = logging.getLogger(__name__)


class Roi(NamedTuple):
    """Part of the sensor that is read, unbinned pixels, (y, x) order."""

    min_y: int
    min_x: int
    size_y: int
    size_x: int


class StampedState(EpicsSignalRO):
    """A monitored text whose value and time stamp belong together.

    ophyd takes the value from the client library and the stamp from its own, later, callback: a state that has just changed would come
    with the stamp of the one before.
    """

    def get(self, **kwargs: Any) -> Any:
        """Return the last value that came with its stamp; the present one until one has."""
        value = super().get(**kwargs)
        return self._readback if isinstance(self._readback, str) and kwargs.get("use_monitor") is not False else value


class TxmCam(UnitsMixin, CamBase):
    """The camera driver (cam1)."""

    lazy_wait_for_connection = False

    _default_configuration_attrs = (
        *CamBase._default_configuration_attrs,  # noqa: SLF001 - ophyd's way to extend them
        "min_y",
        "min_x",
        "size_y",
        "size_x",
        "bin_y",
        "bin_x",
    )
    acquire_time = ADComponent(EpicsSignalWithRBV, "AcquireTime", auto_monitor=True)
    acquire_period = ADComponent(EpicsSignalWithRBV, "AcquirePeriod", auto_monitor=True)
    num_images = ADComponent(EpicsSignalWithRBV, "NumImages", auto_monitor=True)
    frame_type = ADComponent(EpicsSignalWithRBV, "FrameType", string=True, auto_monitor=True, kind="omitted")
    detector_state = ADComponent(StampedState, "DetectorState_RBV", string=True, auto_monitor=True, kind="omitted")
    size_x = ADComponent(EpicsSignalWithRBV, "SizeX")
    size_y = ADComponent(EpicsSignalWithRBV, "SizeY")
    max_size_x = ADComponent(EpicsSignalRO, "MaxSizeX_RBV")
    max_size_y = ADComponent(EpicsSignalRO, "MaxSizeY_RBV")

    signal_units: ClassVar[Mapping[str, str]] = {
        "acquire_time": "s",
        "acquire_period": "s",
        "min_y": "px",
        "min_x": "px",
        "size_y": "px",
        "size_x": "px",
    }


class FrameImagePlugin(ImagePlugin):
    """Live image over Channel Access, for display only: monitors of images lose frames. Off while staged."""

    lazy_wait_for_connection = False

    shaped_image = Cpt(
        NDDerivedSignal,
        derived_from="array_data",
        shape=("array_size.height", "array_size.width"),  # ophyd's own puts a depth of 0 first for mono images
        num_dimensions=2,
        kind="omitted",
        lazy=True,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.disable_on_stage()  # a full copy of every frame over Channel Access costs 30 ms a point

    def frame(self) -> npt.NDArray[np.uint16]:
        """Return the last image, (ny, nx) uint16, counts."""
        image = np.asarray(self.shaped_image.get())
        # Channel Access has no unsigned short: the bits come as a signed one
        return image.view("<u2") if image.dtype.itemsize == 2 else image.astype("<u2")


class TxmCamera(SafeSingleTrigger, DetectorBase):
    """Camera of a TXM, by areaDetector (ADCore) names: ``cam1:``, ``HDF1:``, ``image1:`` below the prefix.

    Read in a plan it gives ``<name>_image`` (a reference, shape (num_images, ny, nx), uint16, counts) and where that
    frame lies: ``<name>_frame_file``, ``<name>_frame_dataset``, ``<name>_frame_index`` (the row of the dataset, also
    right when frames of aborted exposures lie in between). `frame_type` (``Normal``, ``FlatField``, ``Background``)
    chooses the dataset.

    Works with any areaDetector 3.4 or later; see `FrameFilePlugin` for the optional layout of frame types.

    Parameters
    ----------
    frame_directory
        Folder for the HDF5 files, the same for the IOC and for this machine; made when missing.
    datasets
        Dataset by frame type.
    """

    lazy_wait_for_connection = False

    cam = ADComponent(TxmCam, "cam1:")
    hdf1 = ADComponent(FrameFilePlugin, "HDF1:", write_path_template="/")
    image = ADComponent(FrameImagePlugin, "image1:", kind="omitted")
    frame_file = Cpt(SoftSignal, value="")
    frame_dataset = Cpt(SoftSignal, value="")
    frame_index = Cpt(SoftSignal, value=-1)

    _default_read_attrs = ("hdf1", "frame_file", "frame_dataset", "frame_index")

    def __init__(
        self,
        prefix: str = "",
        *,
        frame_directory: str | Path = "/tmp",
        datasets: Mapping[str, str] = FRAME_DATASETS,
        image_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, **kwargs)
        self._image_name = image_name or f"{self.name}_image"
        self._roi: Roi | None = None
        self._roi_before: Roi | None = None
        self._points = 1
        self._documented = True
        self.last_rows: FrameRows | None = None
        """Where the frames of the last `acquire_rows` lie."""
        self.last_frames: tuple[tuple[str, FrameAddress], ...] = ()
        """Datum and place of each frame of the last acquisition."""
        self.hdf1.datasets = datasets
        self.frame_directory = Path(frame_directory)
        self.stage_sigs["cam.num_images"] = 1

    @property
    def frame_directory(self) -> Path:
        """Folder for the HDF5 files, absolute."""
        return self._frame_directory

    @frame_directory.setter
    def frame_directory(self, directory: str | Path) -> None:
        self._frame_directory = Path(directory).absolute()
        self.hdf1.write_path_template = str(self._frame_directory)

    @property
    def frame_type(self) -> EpicsSignalWithRBV:
        """Signal that chooses the dataset of the next frames."""
        return self.cam.frame_type

    @property
    def exposure_s(self) -> EpicsSignalWithRBV:
        """Signal of the exposure time, s."""
        return self.cam.acquire_time

    def prepare_frames(self, *, exposure_s: float | None = None, roi: Roi | None = None, num_images: int = 1) -> None:
        """Say how frames shall be from the next staging on; unstaging restores what was before.

        Parameters
        ----------
        exposure_s
            Exposure time, s. None leaves it.
        roi
            Part of the sensor. None leaves it.
        num_images
            Frames per trigger.
        """
        self.stage_sigs["cam.num_images"] = num_images
        if exposure_s is not None:
            if not exposure_s > 0:
                raise ValueError(f"{self.name}: exposure {exposure_s:g} s is not positive")
            self.stage_sigs["cam.acquire_time"] = exposure_s
        self._roi = None if roi is None else Roi(*roi)

    @property
    def last_frame(self) -> FrameAddress | None:
        """Where the last frame lies; None before the first."""
        if self.frame_index.get() < 0:
            return None
        return FrameAddress(Path(self.frame_file.get()), str(self.frame_dataset.get()), int(self.frame_index.get()))

    def make_data_key(self) -> dict[str, Any]:
        """Return the data key of the image: (num_images, ny, nx), with type and unit."""
        return {**super().make_data_key(), "units": "counts"}

    # -- acquisition

    def acquire_burst(self, n: int) -> DeviceStatus:
        """Take `n` frames in one go; each becomes a point of its own (`last_frames`).

        The camera is staged with one frame per point, and its number of images is `n` by now.

        Returns
        -------
        ophyd.status.DeviceStatus
            Done when all are on disk; see `SafeSingleTrigger.trigger`.
        """
        self._points = n
        try:
            return self.trigger()
        except Exception:
            self._points = 1
            raise

    def acquire_rows(self, n: int) -> tuple[DeviceStatus, FrameRows]:
        """Take `n` frames in one go that become rows of the file without a datum each: for flyers with StreamDatum documents.

        Returns
        -------
        status
            Done when all are on disk; see `SafeSingleTrigger.trigger`. `last_rows` tells where they lie then.
        rows
            Where they will lie: the file can be followed from now on.
        """
        self._documented = False
        try:
            status = self.acquire_burst(n)
        except Exception:
            self._documented = True
            raise
        return status, self.hdf1.next_rows(n)

    def acquisition_timeout_s(self) -> float:
        """Return exposure time (or period, when longer) times images plus 20 s."""
        each_s = max(float(self.cam.acquire_time.get()), float(self.cam.acquire_period.get()))
        return each_s * max(int(self.cam.num_images.get()), 1) + TRIGGER_MARGIN_S

    def before_acquisition(self) -> None:
        """Account for frames that came since the last trigger."""
        self.hdf1.begin_point(str(self.cam.frame_type.get()))

    def after_acquisition(self) -> None:
        """Find the frame on disk.

        Raises
        ------
        FrameWriteError
            When it is not there.
        """
        points, self._points = self._points, 1
        if not self._documented:
            self._documented = True
            self.last_rows = self.hdf1.end_rows(points)
            return
        self.last_frames = tuple(self.hdf1.end_points(self._image_name, points))
        address = self.last_frames[-1][1]
        self.frame_file.put(str(address.file))
        self.frame_dataset.put(address.dataset)
        self.frame_index.put(address.index)

    def stop(self, *, success: bool = False) -> None:
        """Stop acquiring; without a connection there is only something to log."""
        if self.cam.acquire.connected:
            self.cam.acquire.put(0, wait=False)
        else:
            logger.error("%s: cannot be stopped, %s is not connected", self.name, self.prefix)

    # -- staging

    def stage(self) -> list[object]:
        """Apply the settings and open a new file.

        Raises
        ------
        FrameWriteError
            When the file cannot be opened; settings are restored then.
        """
        self.frame_index.put(-1)
        if self._roi is not None:
            self._roi_before = self._read_roi()
            self._write_roi(self._roi)
        try:
            self._prime()
            staged: list[object] = super().stage()
        except Exception:
            self._restore_roi()
            raise
        return staged

    def unstage(self) -> list[object]:
        """Close the file and restore the settings; gives up when the IOC is gone, and hides no earlier error."""
        if self.cam.acquire.connected:
            try:
                unstaged: list[object] = super().unstage()
                self._restore_roi()
                return unstaged
            except connection_errors() as error:
                logger.error("%s: settings of %s were not restored: %s", self.name, self.prefix, error)
        elif self._staged != Staged.no:
            logger.error("%s: settings were not restored, %s is not connected", self.name, self.prefix)
        self._roi_before = None
        self._take()
        self.hdf1.forget_staging()
        for device in (self, *(walked for _, walked in self.walk_subdevices(include_lazy=False))):
            device._original_vals.clear()  # noqa: SLF001
            device._staged = Staged.no  # noqa: SLF001
        return [self]

    def _read_roi(self) -> Roi:
        cam = self.cam
        return Roi(*(int(signal.get()) for signal in (cam.min_y, cam.min_x, cam.size_y, cam.size_x)))

    def _write_roi(self, roi: Roi) -> None:
        limits = int(self.cam.max_size_y.get()), int(self.cam.max_size_x.get())
        for axis, first, size, limit in zip("yx", roi[:2], roi[2:], limits, strict=True):
            if first < 0 or size < 1 or first + size > limit:
                raise ValueError(f"{self.name}: ROI {axis} {first} + {size} px leaves the sensor of {limit} px")
        cam = self.cam
        # areaDetector shortens a size that does not fit behind the present minimum: so minimum 0 first
        steps = ((cam.min_y, 0), (cam.min_x, 0), (cam.size_y, roi.size_y), (cam.size_x, roi.size_x))
        for signal, value in (*steps, (cam.min_y, roi.min_y), (cam.min_x, roi.min_x)):
            if int(signal.get()) != value:
                signal.set(value).wait()

    def _restore_roi(self) -> None:
        if self._roi_before is not None:
            before, self._roi_before = self._roi_before, None
            self._write_roi(before)

    def _prime(self) -> None:
        """Send one frame through the file plugin when it has not seen one of the present size.

        areaDetector lays out the file by the last array; the shutter is closed at this time, so this costs no dose.
        """
        hdf1, cam = self.hdf1, self.cam
        axes = ((cam.size_y, cam.bin_y), (cam.size_x, cam.bin_x))
        wanted = tuple(int(size.get()) // max(int(binning.get()), 1) for size, binning in axes)
        seen = int(hdf1.height.get()), int(hdf1.width.get())
        if seen == wanted:
            return
        logger.info("%s: one frame to set up the file plugin (saw %s, wanted %s)", self.name, seen, wanted)
        settings = ((cam.array_callbacks, 1), (hdf1.enable, 1), (cam.num_images, 1), (cam.image_mode, 1))
        before = [(signal, signal.get()) for signal, _ in settings]
        try:
            for signal, value in settings:
                signal.set(value).wait()
            cam.acquire.put(1, wait=True, use_complete=True, timeout=self.acquisition_timeout_s())
        finally:
            for signal, value in reversed(before):
                signal.set(value).wait()
