"""A series of the optical reflection microscope while the cell is cycled: the same verdicts and streams, and no X-ray beam."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator, short_uid

from xbat_live.devices import OpticalCamera, TxmBeamline
from xbat_live.plans.cycling import Cycling, TimedStep, advance
from xbat_live.plans.decisions import DECISION, Records
from xbat_live.plans.guard import close_shutter
from xbat_live.plans.metadata import bound_arguments, plain
from xbat_live.plans.protocols import LiveAnalysis
from xbat_live.plans.running import Clock, tell_end
from xbat_live.plans.series import Series, SeriesSummary, alarm, decide, judge
from xbat_live.plans.steering import paused_s, while_paused
from xbat_live.plans.stubs import DARK, FLAT, PRIMARY, Target
from xbat_live.versions import versions

FIELD = "A"
_FRAME_TYPE = {PRIMARY: "Normal", FLAT: "FlatField", DARK: "Background"}
_PACKAGES = ("bluesky", "ophyd", "bluesky-tiled-plugins", "numpy", "scipy")
_LIGHT_STEP = 1e-6
_SAME = 1e-3


def optical_series(
    beamline: TxmBeamline,
    analysis: LiveAnalysis,
    *,
    n_points: int = 1200,
    period_s: float = 60.0,
    duration_s: float | None = None,
    exposure_s: float = 0.02,
    lamp: float = 1.0,
    n_flats: int = 8,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Follow an electrode surface in visible light, as Sun et al. (2025) followed graphite: one judged frame every `period_s`.

    The X-ray shutter is closed at the beginning and never opened, and nothing is written to the dose ledger: a rejected
    frame is retaken without asking. Frames are judged like those of the X-ray camera, with reflectance instead of
    transmission. The stage does not move; drift is registered, not followed.

    Parameters
    ----------
    analysis
        Judges the frames of ``optical_image``.
    n_points, period_s
        Number of frames, and the time from one to the next, s.
    duration_s
        Ends the series early, s.
    exposure_s
        Exposure of the microscope's camera, s.
    lamp
        Brightness of the lamp, above 0 to 1; afterwards it is what it was before.
    n_flats
        Frames of the white reference at the start. 0 for a microscope without one: verdicts then say that smooth
        illumination is assumed, and dust that does not move with the sample stays in the frames.
    n_darks
        Frames with the lamp off, taken first.
    max_retakes
        How often a rejected frame is retaken.
    verdict_timeout_s
        Longest wait for the verdict on a frame, s; without one it is kept as ``unjudged``.
    protocol
        Steps of the potentiostat, run in parallel.

    Returns
    -------
    SeriesSummary
        As the value of the plan.

    Raises
    ------
    ValueError
        The beamline has no microscope, or `lamp` is out of range.
    """
    arguments = bound_arguments(locals())
    if beamline.optical is None:
        raise ValueError("this beamline was built without a microscope; give its prefix: DevicePrefixes(optical=...)")
    if not 0 < lamp <= 1:
        raise ValueError(f"lamp = {lamp:g}: must be above 0 and at most 1")
    run = _Run(
        beamline, beamline.optical, analysis, exposure_s, lamp, max_retakes, verdict_timeout_s, Cycling(protocol)
    )
    light = f"{n_flats} frames of the white reference" if n_flats else "no flat: smooth illumination assumed"

    @bpp.finalize_decorator(run.leave)
    @bpp.stage_decorator([run.camera, beamline.shutter])
    @bpp.run_decorator(md=_metadata(arguments, run, md))
    def inner() -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        yield from run.declare_streams()
        yield from decide(run.series, "start", f"optical series of {n_points} points, no X-ray beam; {light}")
        yield from run.take_references(n_darks=n_darks, n_flats=n_flats)
        points = run.points(Clock(n_points, period_s, duration_s))
        yield from bpp.contingency_wrapper(points, except_plan=partial(tell_end, run.series, dosed=False))
        yield from decide(run.series, "end", run.outcome)

    yield from inner()  # a run's wrapper returns the uid, not the plan's value
    return SeriesSummary(run.done, run.frames, run.rejected, 0, 0, run.outcome)


@dataclass
class _Run:
    """State of one series; has what `judge`, `decide` and `alarm` need of a `Series`."""

    beamline: TxmBeamline
    camera: OpticalCamera
    analysis: LiveAnalysis
    exposure_s: float
    lamp: float
    max_retakes: int
    verdict_timeout_s: float
    cycling: Cycling
    records: Records = field(default_factory=Records)
    spot: int = 0
    frames: int = 0
    rejected: int = 0
    rejected_in_a_row: int = 0
    alarm_after: int = 5
    done: int = 0
    outcome: str = "not started"
    lamp_before: float | None = None

    @property
    def series(self) -> Series:
        """The run as the stubs of series with beam want it: only `judge`, `decide` and `alarm` are used, which need no guard."""
        return cast(Series, self)

    def event_devices(self) -> tuple[Readable, ...]:
        """Return the devices read in every Event with a frame; the shutter is proof that it stayed closed."""
        return self.camera, self.records.point, self.beamline.stage, self.beamline.shutter

    def declare_streams(self) -> MsgGenerator[None]:
        """Declare all streams up front, so that even a run without flats or rejections has them."""
        for name in (FLAT, DARK):
            yield from bps.declare_stream(*self.event_devices(), name=name)
        yield from bps.declare_stream(*self.event_devices(), self.beamline.potentiostat, name=PRIMARY)
        yield from bps.declare_stream(self.records.analysis, name="analysis")
        yield from bps.declare_stream(self.records.decision, name=DECISION)

    def light(self, reference: str, lamp: float) -> MsgGenerator[None]:
        """Set white reference (``In`` or ``Out``) and lamp (0..1) where they are not so yet."""
        if reference == "In" or (yield from bps.rd(self.camera.reference)) != reference:
            yield from bps.abs_set(self.camera.reference, reference, wait=True)
        if abs(float((yield from bps.rd(self.camera.lamp))) - lamp) > _LIGHT_STEP:
            yield from bps.abs_set(self.camera.lamp, lamp, wait=True)

    def take_references(self, *, n_darks: int, n_flats: int) -> MsgGenerator[None]:
        """Take darks with the lamp off and flats of the white reference; afterwards the lit sample is seen."""
        self.lamp_before = float((yield from bps.rd(self.camera.lamp)))
        acquire_time = self.camera.cam.acquire_time
        if abs(float((yield from bps.rd(acquire_time))) - self.exposure_s) > _SAME * self.exposure_s:
            yield from bps.abs_set(acquire_time, self.exposure_s, wait=True)
        if n_darks:
            yield from self.light("Out", 0.0)
            yield from self._frames(DARK, "dark", n_darks)
        if n_flats:
            yield from self.light("In", self.lamp)
            yield from self._frames(FLAT, "reference", n_flats)
        yield from self.light("Out", self.lamp)

    def _frames(self, stream: str, label: str, n: int) -> MsgGenerator[None]:
        self.records.point.fill(field=label, attempt=0)
        for _ in range(n):
            yield from self.take(stream)

    def take(self, stream: str, *readables: Readable) -> MsgGenerator[None]:
        """Take one frame and save its Event in `stream`; the X-ray shutter is left alone."""
        wanted = _FRAME_TYPE[stream]
        if (yield from bps.rd(self.camera.frame_type)) != wanted:
            yield from bps.abs_set(self.camera.frame_type, wanted, wait=True)
        self.records.point.fill(
            frame_type=wanted,
            exposure_s=self.exposure_s,
            open_time_s=0.0,
            dose_reserved_gy=0.0,
            dose_delivered_gy=0.0,
            dose_gy=math.nan,  # of earlier runs: not this plan's business
        )
        yield from bps.trigger(self.camera, group=short_uid("optical"), wait=True)
        yield from bps.create(name=stream)
        for device in (*self.event_devices(), *readables):
            yield from bps.read(device)
        yield from bps.save()

    def points(self, clock: Clock) -> MsgGenerator[None]:
        """Take one judged frame whenever the clock says so, and look after the cell in between."""
        start_s, paused_before_s = time.monotonic(), (yield from paused_s())
        yield from while_paused(lambda: self.look_after_cell(time.monotonic() - start_s))
        for index in range(clock.n_points):
            passed_s, paused = time.monotonic() - start_s, (yield from paused_s()) - paused_before_s
            elapsed_s = max(index * clock.period_s + paused, passed_s)
            if clock.duration_s is not None and elapsed_s > clock.duration_s:
                self.outcome = "time is up"
                return
            yield from bps.checkpoint()
            yield from bps.sleep(elapsed_s - passed_s)
            self.records.point.fill(elapsed_s=elapsed_s)
            yield from self.look_after_cell(elapsed_s)
            yield from self.measure(index)
            self.done = index + 1
        self.outcome = "completed"

    def look_after_cell(self, now_s: float) -> MsgGenerator[None]:
        """Start the next step of the protocol when the present one has ended."""
        if started := (yield from advance(self.cycling, self.beamline.potentiostat, now_s)):
            yield from decide(self.series, "potentiostat", started)

    def measure(self, index: int) -> MsgGenerator[None]:
        """Take one frame of the sample, judge it, and retake it while it is rejected."""
        for attempt in range(self.max_retakes + 1):
            yield from bps.checkpoint()
            self.records.point.fill(index=index, field=FIELD, attempt=attempt, spot=self.spot)
            yield from self.take(PRIMARY, self.beamline.potentiostat)
            self.frames += 1
            frame = yield from judge(self.series)
            if frame is None or frame.accepted:
                self.rejected_in_a_row = 0 if frame is not None else self.rejected_in_a_row
                return
            self.rejected += 1
            self.rejected_in_a_row += 1
            if self.rejected_in_a_row >= self.alarm_after:
                yield from alarm(self.series, Target(FIELD, self.spot, math.nan, math.nan), frame)
                return
            action = "retake" if attempt < self.max_retakes else "keep_rejected"
            yield from decide(self.series, action, f"{FIELD}: {frame.reason}", verdict=frame.kind, attempt=attempt)

    def leave(self) -> MsgGenerator[None]:
        """Leave the shutter closed, the cell at rest and the light as it was; on every way out."""
        yield from close_shutter(self.beamline)
        if self.cycling.running:
            yield from bps.stop(self.beamline.potentiostat)
        if self.lamp_before is not None:
            yield from self.light("Out", self.lamp_before)


def _metadata(arguments: dict[str, Any], run: _Run, md: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "plan_name": "optical_series",
        "plan_args": plain(arguments),
        "detectors": [run.camera.name],
        "motors": [],
        "hints": {"dimensions": [(["time"], "primary")]},
        "versions": versions(*_PACKAGES),
        **(md or {}),
    }
