"""areaDetector's NDPluginStdArrays (``image1:``): the last frame as an array PV, for display."""

# caproto's way: the decorated hook of a property has the property's name
# mypy: disable-error-code="no-redef"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from caproto import ChannelType
from caproto.server import pvproperty

from .properties import SettingsGroup, choice_setting, label, label_setting, readback, setting


class ImagePlugin(SettingsGroup):
    """Last frame. Channel Access knows no unsigned 16 bits: they travel as DBR_SHORT, clients view them as ``<u2``."""

    enable = choice_setting("EnableCallbacks", ("Disable", "Enable"), "Enable")
    blocking = choice_setting("BlockingCallbacks", ("No", "Yes"), "Yes")
    array_port = label_setting("NDArrayPort", "CAM1")
    array_counter = setting("ArrayCounter", 0, low=0, high=2**31 - 1)
    dropped_arrays = setting("DroppedArrays", 0, low=0, high=2**31 - 1)
    plugin_type = label("PluginType_RBV", "NDPluginStdArrays")
    port_name = label("PortName_RBV", "Image1")
    size0 = readback("ArraySize0_RBV", 0, doc="columns")
    size1 = readback("ArraySize1_RBV", 0, doc="rows")
    size2 = readback("ArraySize2_RBV", 0)
    dimensions = readback("NDimensions_RBV", 2)
    unique_id = readback("UniqueId_RBV", 0)

    def __init__(self, prefix: str, *, shape_yx: tuple[int, int], **more: Any) -> None:
        super().__init__(prefix, **more)
        self._shape_yx = shape_yx

    @size1.startup
    async def size1(self, instance: Any, async_lib: Any) -> None:
        """Publish real sizes at the start."""
        del instance, async_lib
        await self.show_shape(self._shape_yx)

    async def show_shape(self, shape_yx: tuple[int, int]) -> None:
        """Publish the frame size.

        Parameters
        ----------
        shape_yx : tuple of int
            Rows and columns.
        """
        await self.size0.write(shape_yx[1])
        await self.size1.write(shape_yx[0])

    async def show(self, image: npt.NDArray[np.uint16], unique_id: int) -> None:
        """Publish a frame, if enabled.

        Parameters
        ----------
        image : ndarray of uint16, shape (ny, nx)
            The frame.
        unique_id : int
            Its number.
        """
        if self.enable.readback.value != "Enable":
            return
        bits = np.ascontiguousarray(image, dtype="<u2").view("<i2").ravel()
        await self.array_data.write(bits, verify_value=False)
        await self.unique_id.write(unique_id)
        await self.array_counter.readback.write(self.array_counter.readback.value + 1)


def image_plugin_class(sensor_yx: tuple[int, int]) -> type[ImagePlugin]:
    """Make the plugin for a sensor: the length of the array PV is fixed when the class is made.

    Parameters
    ----------
    sensor_yx : tuple of int
        Rows and columns of the sensor.

    Returns
    -------
    type
        Subclass of `ImagePlugin` with ``ArrayData`` of full size (pyepics makes a scalar of a waveform of length 1).
    """
    pixels = sensor_yx[0] * sensor_yx[1]
    array_data = pvproperty(
        name="ArrayData",
        dtype=ChannelType.INT,
        value=np.zeros(pixels, np.int16),
        max_length=pixels,
        read_only=True,
        max_subscription_backlog=2,  # slow viewers skip frames instead of filling memory
    )
    return type("SizedImagePlugin", (ImagePlugin,), {"array_data": array_data})
