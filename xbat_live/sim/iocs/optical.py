"""The optical reflection microscope (``OPT:``): lamp and white reference beside the same camera groups as the X-ray one."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caproto.server import PVGroup

from ..optical import OpticalMicroscope
from .camera import Camera
from .file_plugin import FilePlugin
from .image_plugin import image_plugin_class
from .properties import choice, number
from .shutter import Shutter
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin


class Illumination(PVGroup):
    """Light of the microscope. No dose: no X-ray shutter is involved."""

    lamp = number("Lamp", 1.0, high=1.0, doc="brightness of the lamp, 0 to 1")
    reference = choice("Reference", ("Out", "In"), doc="white reference in the light path instead of the sample")

    def __init__(self, prefix: str, *, microscope: OpticalMicroscope, **more: Any) -> None:
        super().__init__(prefix, **more)
        self._microscope = microscope

    @lamp.putter
    async def lamp(self, instance: Any, value: float) -> float:
        """Set the lamp; the next frame sees it."""
        del instance
        self._microscope.set_lamp(float(value))
        return float(value)

    @reference.putter
    async def reference(self, instance: Any, value: str) -> str:
        """Swing the white reference in or out; the next frame sees it."""
        del instance
        self._microscope.set_reference(value == "In")
        return value


class OpticalStation:
    """The microscope's PV groups and the threads its frames are made in: the X-ray camera never waits for them.

    Parameters
    ----------
    prefix : str
        Prefix of the microscope's PVs.
    twin : Twin
        The physical model.
    shutter : Shutter
        Its openings are the external trigger, as for the X-ray camera.
    """

    def __init__(self, prefix: str, *, twin: Twin, shutter: Shutter) -> None:
        self.microscope = OpticalMicroscope(twin)
        self._worker = TwinWorker()
        sensor_yx = self.microscope.sensor_yx
        self.illumination = Illumination(prefix, microscope=self.microscope)
        self.files = FilePlugin(prefix + "HDF1:", worker=self._worker, shape_yx=sensor_yx)
        self.images = image_plugin_class(sensor_yx)(prefix + "image1:", shape_yx=sensor_yx)
        self.camera = Camera(
            prefix + "cam1:",
            source=self.microscope,
            worker=self._worker,
            sensor_yx=sensor_yx,
            files=self.files,
            images=self.images,
            shutter=shutter,
            model="simulated microscope camera",
        )

    @property
    def groups(self) -> tuple[PVGroup, ...]:
        """All its PV groups."""
        return self.illumination, self.files, self.images, self.camera

    async def shut_down(self) -> None:
        """End acquisitions, close the file, end the threads."""
        await self.camera.abort()
        await self.files.end_capture()
        self._worker.close()
