"""A burst of frames as a flyer: many frames in one go, with one opening of the shutter, divisible by the dose guard."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bluesky.protocols import Readable
from ophyd.device import Staged
from ophyd.status import DeviceStatus, Status

from xbat_live.devices.camera import TxmCamera
from xbat_live.devices.completion import completed_after

logger = logging.getLogger(__name__)

FRAME_KEY = "frame"


class FrameBurst:
    """Takes `n_frames` frames one after the other; an ordinary bluesky flyer: ``bp.fly([burst])``.

    Each frame becomes an Event with the camera's keys, ``<name>_frame`` (its number in the flight, from 0) and the keys of
    `also`. Under `dose_guard_wrapper` a burst that would exceed a limit is cut into pieces (`take`); all pieces are
    collected together. The camera is staged by the flyer unless the plan has done so.

    Parameters
    ----------
    camera
        Takes the frames, areaDetector's ``ImageMode`` Multiple.
    name
        Of the flyer.
    n_frames
        Frames of one flight.
    exposure_s
        Exposure of a frame, s.
    period_s
        From the start of a frame to that of the next, s; None: exposures follow each other without a gap.
    stream
        Name of the stream of the Events.
    also
        Read once per piece, when its frames are on disk, and kept with each of them: stage, energy, dose.

    Raises
    ------
    ValueError
        No frames, or an exposure that is not positive or longer than the period.
    """

    parent = None

    def __init__(
        self,
        camera: TxmCamera,
        *,
        name: str = "burst",
        n_frames: int = 10,
        exposure_s: float = 0.048,
        period_s: float | None = None,
        stream: str = "primary",
        also: Sequence[Readable] = (),
    ) -> None:
        if n_frames < 1:
            raise ValueError(f"{name}: {n_frames} frames; a burst has at least one")
        if not exposure_s > 0:
            raise ValueError(f"{name}: exposure {exposure_s:g} s is not positive")
        if period_s is not None and period_s < exposure_s:
            raise ValueError(f"{name}: period {period_s:g} s is shorter than the exposure of {exposure_s:g} s")
        self.camera, self.name, self.stream, self.also = camera, name, stream, tuple(also)
        self.n_frames, self.exposure_s, self.period_s = n_frames, exposure_s, period_s
        self._taken = 0
        self._acquisition: DeviceStatus | None = None
        self._before: list[tuple[Any, Any]] = []
        self._staged_here = False
        self._pieces: list[list[dict[str, Any]]] = []
        self._assets: list[tuple[str, dict[str, Any]]] = []

    @property
    def frame_time_s(self) -> float:
        """Time of the beam per frame, s."""
        return self.exposure_s if self.period_s is None else self.period_s

    # -- what the dose guard uses

    def take(self, n: int) -> None:
        """Prepare the next `kickoff` for `n` frames: everything that takes time is done here, before the shutter opens.

        Raises
        ------
        ValueError
            `n` is below 1.
        """
        if n < 1:
            raise ValueError(f"{self.name}: {n} frames; a piece has at least one")
        if self.camera._staged != Staged.yes:  # noqa: SLF001
            self.camera.prepare_frames()
            self.camera.stage()
            self._staged_here = True
        cam = self.camera.cam
        wanted = (
            (cam.acquire_time, self.exposure_s),
            (cam.acquire_period, self.frame_time_s),
            (cam.num_images, n),
            (cam.image_mode, 1),
        )
        if not self._before:
            self._before = [(signal, signal.get()) for signal, _ in wanted]
        for signal, value in wanted:
            if signal.get() != value:
                signal.set(value).wait()
        self._taken = n

    def discard(self) -> None:
        """Forget the frames of the last piece; they stay in the file without an Event."""
        if self._pieces:
            datums = {event["data"][self._image_key] for event in self._pieces.pop()}
            self._assets = [item for item in self._assets if item[1].get("datum_id") not in datums]

    # -- flyer

    def kickoff(self) -> Status:
        """Start acquiring."""
        if not self._taken:
            self.take(self.n_frames)
        self._acquisition = self.camera.acquire_burst(self._taken)
        started = Status(obj=self)
        started.set_finished()
        return started

    def complete(self) -> Status:
        """Return the status that is done when all frames are on disk.

        Raises
        ------
        RuntimeError
            Nothing was kicked off.
        """
        if self._acquisition is None:
            raise RuntimeError(f"{self.name}: kick it off before completing it")
        acquisition, self._acquisition = self._acquisition, None
        return completed_after(self, acquisition, self._keep)

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of the Events, by stream."""
        keys = dict(self.camera.describe())
        image = keys[self._image_key]
        keys[self._image_key] = {**image, "shape": (1, *tuple(image["shape"])[1:])}  # an Event has one frame
        source = f"SIM:{self.name}"
        keys[f"{self.name}_{FRAME_KEY}"] = {"source": source, "dtype": "integer", "shape": []}
        for device in self.also:
            keys.update(device.describe())
        return {self.stream: keys}

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield Resource and Datum documents of the frames since the last collection."""
        assets, self._assets = self._assets, []
        yield from assets

    def collect(self) -> Iterator[dict[str, Any]]:
        """Yield one Event per frame since the last collection, and put the camera back."""
        pieces, self._pieces = self._pieces, []
        events = [event for piece in pieces for event in piece]
        for number, event in enumerate(events):
            key = f"{self.name}_{FRAME_KEY}"
            event["data"][key], event["timestamps"][key] = number, event["time"]
            yield event
        self.leave()

    def stop(self, *, success: bool = False) -> None:
        """Stop acquiring."""
        self.camera.stop(success=success)

    def leave(self) -> None:
        """Restore the camera's settings, and unstage it when it was staged here."""
        before, self._before, self._taken = self._before, [], 0
        for signal, value in reversed(before):
            signal.set(value).wait()
        if self._staged_here:
            self._staged_here = False
            self.camera.unstage()

    # -- inside

    @property
    def _image_key(self) -> str:
        return str(self.camera._image_name)  # noqa: SLF001

    def _keep(self) -> None:
        """Make the Events of the frames that have just come."""
        self._assets += self.camera.collect_asset_docs()
        data: dict[str, Any] = {}
        timestamps: dict[str, float] = {}
        for device in self.also:
            for key, reading in device.read().items():
                data[key], timestamps[key] = reading["value"], reading["timestamp"]
        now_s = time.time()
        frames = self.camera.last_frames
        names = [signal.name for signal in (self.camera.frame_file, self.camera.frame_dataset, self.camera.frame_index)]
        events = []
        for number, (datum_id, address) in enumerate(frames):
            at_s = now_s - (len(frames) - number) * self.frame_time_s
            own = dict(
                zip(
                    (self._image_key, *names),
                    (datum_id, str(address.file), address.dataset, address.index),
                    strict=True,
                )
            )
            events.append(
                {
                    "time": at_s,
                    "data": data | own,
                    "timestamps": timestamps | dict.fromkeys(own, at_s),
                    "filled": {self._image_key: False},
                }
            )
        self._pieces.append(events)
