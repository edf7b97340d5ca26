"""The whole beamline under one prefix: makes the IOC groups around one twin and keeps their readings fresh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..played import PlayedTwin
from .beam import Beam
from .camera import Camera
from .file_plugin import FilePlugin
from .image_plugin import image_plugin_class
from .monochromator import ENCODER, Monochromator
from .optical import OpticalStation
from .played import Cue, PlayedCamera, PlayedShutter
from .potentiostat import PotentiostatGroup
from .shutter import Shutter
from .stage import Stage
from .truth import Truth, TwinControl
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

logger = logging.getLogger(__name__)
UPDATE_S = 0.1


class SimulatedBeamline:
    """All PVs of the simulated beamline.

    Parameters
    ----------
    twin : Twin
        The physical model.
    prefix : str
        Prefix of all PVs.
    work_directory : pathlib.Path
        For the truth files.
    request_stop : callable
        Called on ``TWIN:Shutdown``.
    """

    def __init__(
        self,
        twin: Twin,
        *,
        prefix: str,
        work_directory: Path,
        request_stop: Callable[[], None],
    ) -> None:
        self._twin, self._work_directory = twin, work_directory
        self.worker = TwinWorker()
        both: dict[str, Any] = {"twin": twin, "worker": self.worker}
        sensor_yx, settings = twin.sensor_yx, twin.settings  # recorded frames bring their own sensor
        self.stage = Stage(prefix + "TXM:", **both)
        self.monochromator = Monochromator(
            prefix + "MONO:", start_ev=settings.energy_ev, sweeping=settings.scene == "rock", **both
        )
        played = isinstance(twin, PlayedTwin)
        self.shutter = (PlayedShutter if played else Shutter)(prefix + "SH:", **both)
        self.beam = Beam(prefix, **both)
        self.potentiostat = PotentiostatGroup(prefix + "POT:", capacity_mah=settings.capacity_mah, **both)
        self.control = TwinControl(
            prefix + "TWIN:", seed=settings.seed, time_scale=settings.time_scale, request_stop=request_stop, **both
        )
        self.files = FilePlugin(prefix + "CAM:HDF1:", worker=self.worker, shape_yx=sensor_yx, attributes=[ENCODER])
        self.images = image_plugin_class(sensor_yx)(prefix + "CAM:image1:", shape_yx=sensor_yx)
        self.camera = (PlayedCamera if played else Camera)(
            prefix + "CAM:cam1:",
            sensor_yx=sensor_yx,
            files=self.files,
            images=self.images,
            shutter=self.shutter,
            source=twin,
            worker=self.worker,
            attributes_at=self.monochromator.attributes_at,
        )
        if isinstance(self.camera, PlayedCamera):
            self.camera.after_frame = self.potentiostat.update
        self.optical = OpticalStation(prefix + "OPT:", twin=twin, shutter=self.shutter)
        self.cue = Cue(prefix + "TWIN:", twin=twin, worker=self.worker, shown=(self.beam, self.potentiostat))
        self.truth = Truth(
            prefix + "TRUTH:", directory=work_directory, also=(self.optical.microscope.write_truth,), **both
        )

    @property
    def pvdb(self) -> dict[str, Any]:
        """Every PV by its full name."""
        groups: list[Any] = [
            *self.stage.records,
            *self.monochromator.records,
            self.shutter,
            self.beam,
            self.potentiostat,
            self.control,
            self.cue,
            self.truth,
            self.files,
            self.images,
            self.camera,
            *self.optical.groups,
        ]
        return {name: pv for group in groups for name, pv in group.pvdb.items()}

    async def keep_updated(self) -> None:
        """Publish readings at 10 Hz until cancelled; a failing one is logged once and does not stop the others."""
        self.worker.prepare(self._twin.prepare)  # so that the first frame does not wait for the sample to be made
        loop = asyncio.get_running_loop()
        failed: set[str] = set()
        next_s = loop.time()
        while True:
            for group in (self.shutter, self.beam, self.potentiostat, self.control, self.truth):
                try:
                    await group.update()
                except Exception:
                    name = type(group).__name__
                    if name not in failed:
                        failed.add(name)
                        logger.exception("%s cannot be updated", name)
            next_s = max(next_s + UPDATE_S, loop.time())
            await asyncio.sleep(next_s - loop.time())

    async def shut_down(self) -> None:
        """Close the shutter, end acquisitions, close the file, write the truth, end the threads."""
        await self.shutter.close()
        await self.camera.abort()
        await self.files.end_capture()
        await self.optical.shut_down()
        try:
            await self.truth.write()
        except OSError:
            logger.exception("the truth files cannot be written to %s", self._work_directory)
        self.worker.close()
