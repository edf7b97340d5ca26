"""The frame pipeline as a callback: judges each frame in a worker while the plan waits for that verdict."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from bluesky.callbacks import CallbackBase
from numpy.typing import NDArray

from xbat_live.callbacks.frames import FrameAddress, FrameLocator, FrameReader
from xbat_live.callbacks.landmarks import Landmarks
from xbat_live.callbacks.running_mean import RunningMean, same_light
from xbat_live.callbacks.tracking import DriftTracker, Recognised, TrackedPosition
from xbat_live.dose.position import SamplePosition
from xbat_live.imaging import FramePipeline, FrameVerdict

logger = logging.getLogger(__name__)

FLATS_AVERAGED = 8
LEAST_LIGHT = 0.98
DARKS_AVERAGED = 64


@dataclass(frozen=True)
class AnalysedFrame:
    """Verdict on one frame, its registered place, and the dose its spot has by now.

    Attributes
    ----------
    seq_num
        Sequence number of the frame's Event in ``primary``.
    dose_gy, dose_limit_gy
        Highest dose in the frame's footprint after it, and the limit, Gy.
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    """

    seq_num: int
    verdict: FrameVerdict
    position: TrackedPosition
    dose_gy: float
    dose_limit_gy: float

    @property
    def accepted(self) -> bool:
        """True when the frame is fit for analysis."""
        return self.verdict.accepted

    @property
    def kind(self) -> str:
        """``accepted``, or why not."""
        return self.verdict.kind

    @property
    def reason(self) -> str:
        """One sentence for people."""
        return self.verdict.reason

    def record(self) -> dict[str, Any]:
        """Values of the `analysis` stream; see `xbat_live.devices.AnalysisRecord`."""
        verdict, blur, place = self.verdict, self.verdict.blur, self.position
        return {
            "seq_num": self.seq_num,
            "verdict": verdict.kind,
            "accepted": int(verdict.accepted),
            "reason": verdict.reason,
            "shift_y_px": verdict.shift_yx_px[0],
            "shift_x_px": verdict.shift_yx_px[1],
            "sigma_y_px": verdict.sigma_yx_px[0],
            "sigma_x_px": verdict.sigma_yx_px[1],
            "confidence": verdict.confidence,
            "keyframe_id": verdict.keyframe_id,
            "blur_score": blur.score,
            "blur_extent_px": blur.extent_px,
            "blur_extent_um": blur.extent_um,
            "blur_angle_deg": blur.angle_deg,
            "blur_kind": blur.kind,
            "sample_y_um": place.sample_yx_um[0],
            "sample_x_um": place.sample_yx_um[1],
            "drift_y_um": place.drift_yx_um[0],
            "drift_x_um": place.drift_yx_um[1],
            "drift_rate_y_um_min": place.rate_yx_um_per_min[0],
            "drift_rate_x_um_min": place.rate_yx_um_per_min[1],
            "jitter_y_um": place.jitter_yx_um[0],
            "jitter_x_um": place.jitter_yx_um[1],
            "jitter_rms_y_um": place.jitter_rms_yx_um[0],
            "jitter_rms_x_um": place.jitter_rms_yx_um[1],
            "dose_gy": self.dose_gy,
            "dose_fraction": self.dose_gy / self.dose_limit_gy,
            "elapsed_ms": verdict.elapsed_ms,
        }


@dataclass(frozen=True)
class JudgedFrame:
    """A frame as it was judged, for a live view.

    Attributes
    ----------
    frame
        Counts, shape (ny, nx).
    key
        Field of view (spot, field, energy).
    flat, dark
        What it was corrected with, shape (ny, nx), counts; None: there was none.
    judged
        The verdict.
    event
        Its Event.
    """

    frame: NDArray[np.uint16]
    key: str
    flat: NDArray[np.float32] | None
    dark: NDArray[np.float32] | None
    judged: AnalysedFrame
    event: dict[str, Any]


@dataclass(frozen=True)
class EventKeys:
    """Names of the Event data that the analysis needs."""

    image: str = "camera_image"
    stage_x: str = "stage_x"
    stage_y: str = "stage_y"
    energy: str = "mono_energy"
    spot: str = "point_spot"
    field: str = "point_field"
    dose: str = "point_dose_gy"
    exposure: str = "point_exposure_s"
    light: str = "point_light_fraction"
    i0: str = "i0_current_na"


OPTICAL_KEYS = EventKeys(image="optical_image", i0="optical_lamp")
"""Those of the reflection microscope: its lamp is what the ion chamber is to the beam."""


class FrameAnalysis(CallbackBase):
    """Reads every frame announced by an Event, judges it and keeps the verdict for the plan.

    Subscribe it directly (not buffered): by the time the plan's ``save`` returns, `latest` is the future of that frame.

    Parameters
    ----------
    make_pipeline
        Makes a frame pipeline for frames of shape (ny, nx); there is one per energy, because contrast inverts across an edge.
    tracker
        Joins shifts and stage readings into drift.
    dose_limit_gy
        Limit that the dose in the records is compared with, Gy.
    show
        Called in the worker with every judged frame; must return at once. Its errors are logged.
    landmarks
        Views of the sample from run to run; None: none are kept.
    """

    def __init__(
        self,
        make_pipeline: Callable[[tuple[int, int]], FramePipeline],
        tracker: DriftTracker,
        *,
        dose_limit_gy: float,
        reader: FrameReader | None = None,
        keys: EventKeys | None = None,
        show: Callable[[JudgedFrame], object] | None = None,
        landmarks: Landmarks | None = None,
    ) -> None:
        super().__init__()
        self._landmarks, self._places = landmarks, set[str]()
        self.keys = keys or EventKeys()
        self.tracker = tracker
        self._make_pipeline = make_pipeline
        self.dose_limit_gy = dose_limit_gy
        self._show = show
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="frame-analysis")
        self._reader = reader or FrameReader()
        self._locator = FrameLocator(self.keys.image)
        self._streams: dict[str, str] = {}
        self._pipelines: dict[float, FramePipeline] = {}
        self._dark = RunningMean(DARKS_AVERAGED)
        self._flats: dict[float, RunningMean] = {}
        self._flat_light: dict[float, tuple[float, float]] = {}
        self._latest: Future[AnalysedFrame] | None = None
        self._lock = threading.Lock()
        self._flats_waiting = 0
        self._new_flats: set[float] = set()

    def latest(self) -> Future[AnalysedFrame]:
        """Return the verdict to come for the primary Event emitted last.

        Raises
        ------
        RuntimeError
            When there was none.
        """
        if self._latest is None:
            raise RuntimeError(
                "no frame has been announced yet: is the analysis subscribed to the RunEngine, and the camera read in 'primary'?"
            )
        return self._latest

    @property
    def position(self) -> SamplePosition:
        """Where the sample is now: registered drift, before the first frame as the last run lets expect."""
        return self.tracker.position(time.time())

    @property
    def drift_um(self) -> tuple[float, float]:
        """Drift (x, y) of `position`, um."""
        position = self.position
        return position.drift_x_um, position.drift_y_um

    @property
    def begun_drift_um(self) -> tuple[float, float]:
        """Drift (x, y) that the last run left, carried on to now, um."""
        carried = self.tracker.carried
        if carried is None:
            return 0.0, 0.0
        begun = carried.after(time.time() - self.tracker.carried_at_s)
        return begun.drift_x_um, begun.drift_y_um

    @property
    def feedback_ok(self) -> bool:
        """False once stage corrections were seen to move the image the wrong way."""
        return self.tracker.feedback.ok

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Remember which stream a descriptor is of."""
        self._streams[doc["uid"]] = doc["name"]

    def resource(self, doc: dict[str, Any]) -> None:
        """Remember a file."""
        self._locator.resource(doc)

    def datum(self, doc: dict[str, Any]) -> None:
        """Remember the place of a frame."""
        self._locator.datum(doc)

    def event(self, doc: dict[str, Any]) -> dict[str, Any]:
        """Hand the frame of an Event to the worker."""
        stream = self._streams[doc["descriptor"]]
        if self.keys.image not in doc["data"]:
            return doc
        address = self._locator.locate(doc)
        if stream == "dark":
            self._worker.submit(self._report, self._take_dark, address)
        elif stream == "flat":
            with self._lock:
                self._flats_waiting += 1
            self._worker.submit(self._report, self._take_flat, address, doc["data"])
        elif stream == "primary":
            self._latest = self._worker.submit(self._judge, address, doc)
        return doc

    def close(self) -> None:
        """Finish what is under way and let go of the file."""
        self._worker.submit(self._reader.close)
        self._worker.shutdown(wait=True)

    def _report(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception:
            logger.exception(
                "a reference frame could not be used; the last good one, or the stated fallback, stays in use"
            )

    def _read(self, address: FrameAddress) -> NDArray[np.uint16]:
        return self._reader.read(address)

    def _take_dark(self, address: FrameAddress) -> None:
        self._dark.add(self._read(address))
        for pipeline in self._pipelines.values():
            pipeline.set_dark(self._dark.mean)

    def _take_flat(self, address: FrameAddress, data: dict[str, Any]) -> None:
        with self._lock:
            self._flats_waiting -= 1
            last = not self._flats_waiting
        try:
            self._add_flat(address, data)
        finally:
            if last:  # while more wait (a replay hands them over as fast as they are read) only their mean is kept
                self._use_flats()

    def _use_flats(self) -> None:
        for energy_ev in self._new_flats:
            self._pipelines[energy_ev].set_flat(self._flats[energy_ev].mean)
        self._new_flats.clear()

    def _add_flat(self, address: FrameAddress, data: dict[str, Any]) -> None:
        if (fraction := self._light_fraction(data)) < LEAST_LIGHT:
            logger.warning("a flat got %.0f %% of its light and is not used", 100 * fraction)
            return
        frame = self._read(address)
        energy_ev = self._energy(data)
        pipeline = self._pipeline(energy_ev, (frame.shape[0], frame.shape[1]))
        if energy_ev not in self._flats:
            pipeline.reset()  # what was registered without a flat is registered anew with one
        light = self._light(data)
        before = self._flat_light.get(energy_ev)
        if before is None or not same_light(light, before):
            self._flats[energy_ev], self._flat_light[energy_ev] = RunningMean(FLATS_AVERAGED), light
        flat = self._flats[energy_ev]
        flat.add(frame)
        self._new_flats.add(energy_ev)

    def _light_fraction(self, data: dict[str, Any]) -> float:
        light = float(data.get(self.keys.light, 1.0))
        return 1.0 if math.isnan(light) else light

    def _light(self, data: dict[str, Any]) -> tuple[float, float]:
        """Exposure, s, and ion chamber, nA: flats are averaged only while both stay."""
        return float(data.get(self.keys.exposure, 0.0)), float(data.get(self.keys.i0, 0.0))

    def _energy(self, data: dict[str, Any]) -> float:
        return round(float(data.get(self.keys.energy, 0.0)), 1)

    def _pipeline(self, energy_ev: float, shape: tuple[int, ...]) -> FramePipeline:
        if energy_ev not in self._pipelines:
            pipeline = self._make_pipeline((shape[0], shape[1]))
            if self._dark.count:
                pipeline.set_dark(self._dark.mean)
            self._pipelines[energy_ev] = pipeline
        return self._pipelines[energy_ev]

    def _judge(self, address: FrameAddress, event: dict[str, Any]) -> AnalysedFrame:
        self._use_flats()
        data = event["data"]
        frame = self._read(address)
        energy_ev = self._energy(data)
        key = f"{data[self.keys.spot]}/{data[self.keys.field]}/{energy_ev}"
        pipeline = self._pipeline(energy_ev, frame.shape)
        exposure_s = float(data.get(self.keys.exposure, 0.0))
        if energy_ev > 0 and exposure_s > 0:
            pipeline.set_conditions(energy_ev, exposure_s)
        flat_s, _ = self._flat_light.get(energy_ev, (exposure_s, 0.0))
        scale = exposure_s / flat_s if exposure_s > 0 and flat_s > 0 else 1.0
        verdict = pipeline.process(frame, key, beam_scale=scale, light_fraction=self._light_fraction(data))
        stage_yx_um = np.array([data[self.keys.stage_y], data[self.keys.stage_x]], float)
        time_s = float(event["time"])
        place = f"{data[self.keys.spot]}-{data[self.keys.field]}"
        recognised = None
        if verdict.accepted and place not in self._places:
            self._places.add(place)
            recognised = self._recognise(frame, energy_ev, stage_yx_um, time_s)
        position = self.tracker.update(key, time_s, verdict, stage_yx_um, recognised=recognised)
        if verdict.accepted:
            self._keep(place, frame, energy_ev, position.sample_yx_um)
        judged = AnalysedFrame(
            int(event["seq_num"]), verdict, position, float(data[self.keys.dose]), self.dose_limit_gy
        )
        self._hand_on(frame, key, energy_ev, judged, event)
        return judged

    def _hand_on(
        self, frame: NDArray[np.uint16], key: str, energy_ev: float, judged: AnalysedFrame, event: dict[str, Any]
    ) -> None:
        """Show a frame to whoever watches; the means are replaced and never written to, so they go as they are."""
        if self._show is None:
            return
        flat = self._flats.get(energy_ev)
        dark = self._dark.mean if self._dark.count else None
        try:
            self._show(JudgedFrame(frame, key, None if flat is None else flat.mean, dark, judged, event))
        except Exception:
            logger.exception("the live view cannot be given a frame")
            self._show = None

    def _recognise(
        self, frame: NDArray[np.uint16], energy_ev: float, stage_yx_um: NDArray[np.float64], time_s: float
    ) -> Recognised | None:
        """Look whether an earlier run has seen what the first frame of a field shows, and tell what it moved by."""
        if self._landmarks is None or energy_ev not in self._flats:
            return None
        expected = self.tracker.position(time_s)
        expected_yx_um = stage_yx_um - (expected.drift_y_um, expected.drift_x_um)
        flat, dark = self._flats[energy_ev].mean, self._dark_mean(frame)
        found = self._landmarks.recognise(frame, flat, dark, energy_ev, expected_yx_um)
        if found is not None:
            moved_um = expected_yx_um - found.sample_yx_um
            logger.info("an earlier run has seen this place; the sample is (%+.2f, %+.2f) um (y, x) off", *moved_um)
        return found

    def _keep(self, place: str, frame: NDArray[np.uint16], energy_ev: float, sample_yx_um: NDArray[np.float64]) -> None:
        if self._landmarks is not None and energy_ev in self._flats:
            self._landmarks.keep(
                place,
                frame,
                self._flats[energy_ev].mean,
                self._dark_mean(frame),
                energy_ev=energy_ev,
                sample_yx_um=sample_yx_um,
                sigma_um=self.tracker.sigma_um,
            )

    def _dark_mean(self, frame: NDArray[np.uint16]) -> NDArray[np.float32]:
        return self._dark.mean if self._dark.mean.shape == frame.shape else np.zeros(frame.shape, np.float32)
