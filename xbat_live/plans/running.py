"""The run around a series: stage, open the run, darks, the points on their clock, and the shutter closed on every way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Readable
from bluesky.utils import IllegalMessageSequence, MsgGenerator, RequestAbort, RequestStop

from xbat_live.plans.cycling import Cycling, TimedStep, advance
from xbat_live.plans.decisions import DECISION, SPOTS, save_spots
from xbat_live.plans.detectors import prepare_exposures, restore_exposures
from xbat_live.plans.guard import close_shutter
from xbat_live.plans.policies import keep_transmission
from xbat_live.plans.series import NoFreshSpot, Series, SeriesSummary, decide
from xbat_live.plans.steering import paused_s, while_paused
from xbat_live.plans.stubs import DARK, FLAT, PRIMARY, event_devices, take_darks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clock:
    """When the points of a series are due.

    Attributes
    ----------
    n_points
        Number of points.
    period_s
        From the start of one point to the start of the next, s; a point that takes longer delays the next one, and a pause all that follow.
    duration_s
        No point starts after this time, s, pauses included; None for no end but `n_points`.
    """

    n_points: int
    period_s: float
    duration_s: float | None = None


def run_series(
    series: Series,
    point: Callable[[int], MsgGenerator[None]],
    *,
    clock: Clock,
    title: str,
    n_darks: int,
    protocol: Sequence[TimedStep],
    metadata: dict[str, Any],
) -> MsgGenerator[SeriesSummary]:
    """Run `point(index)` for every point of the clock as one run, with the potentiostat's protocol beside it.

    Parameters
    ----------
    point
        Measures one point; the streams are declared and the camera is staged by then.
    title
        For the decision record that starts the series.
    n_darks
        Frames with the shutter closed, taken first.
    """
    beamline, guard, cycling = series.beamline, series.guard, Cycling(protocol)
    ending, elapsed_s = (0, "not started"), 0.0

    def cycle_cell(now_s: float) -> MsgGenerator[None]:
        if started := (yield from advance(cycling, beamline.potentiostat, now_s)):
            yield from decide(series, "potentiostat", started)

    def points() -> MsgGenerator[tuple[int, str]]:
        nonlocal elapsed_s
        start_s, paused_before_s = time.monotonic(), (yield from paused_s())
        yield from while_paused(lambda: cycle_cell(time.monotonic() - start_s))
        for index in range(clock.n_points):
            # one time per point, kept in its Events: what depends on it is decided again the same way in a replay
            passed_s, paused = time.monotonic() - start_s, (yield from paused_s()) - paused_before_s
            elapsed_s = max(index * clock.period_s + paused, passed_s)
            if clock.duration_s is not None and elapsed_s > clock.duration_s:
                return index, "time is up"
            yield from bps.checkpoint()
            yield from bps.sleep(elapsed_s - passed_s)
            if (
                yield from paused_s()
            ) - paused_before_s > paused:  # while it waited: the point begins when the run goes on
                elapsed_s = max(elapsed_s, time.monotonic() - start_s)
            series.records.point.fill(index=index, spot=series.spot, elapsed_s=elapsed_s)
            yield from cycle_cell(elapsed_s)
            try:
                yield from point(index)
            except NoFreshSpot as halt:
                return index, str(halt)
        return clock.n_points, "completed"

    def counted() -> MsgGenerator[None]:
        nonlocal ending
        ending = yield from points()

    def leave() -> MsgGenerator[None]:
        yield from while_paused(None)
        yield from close_shutter(beamline)
        if cycling.running:
            yield from bps.stop(beamline.potentiostat)
        yield from restore_exposures(guard, beamline.camera)

    @bpp.finalize_decorator(leave)
    @bpp.stage_decorator([beamline.camera, beamline.shutter])
    @bpp.run_decorator(md=metadata)
    def inner() -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        yield from declare_streams(series)
        yield from prepare_exposures(beamline, guard, series.exposure_s)
        yield from decide(series, "start", title, threshold=guard.lowest_limit_gy)
        yield from take_darks(beamline, guard, series.records.point, n=n_darks)
        yield from bpp.contingency_wrapper(
            keep_transmission(counted(), guard, beamline), except_plan=partial(tell_end, series)
        )
        yield from decide(series, "end", ending[1], elapsed_s=elapsed_s)
        yield from save_spots(guard, series.records.spot)

    yield from inner()  # a run's wrapper returns the uid, not the plan's value
    done, outcome = ending
    return SeriesSummary(done, series.frames, series.rejected, series.relocations, series.corrections, outcome)


def declare_streams(series: Series) -> MsgGenerator[None]:
    """Declare all streams of a series up front, so that even a run without flats or rejections has them."""
    devices: tuple[Readable, ...] = event_devices(series.beamline, series.guard, series.records.point)
    for name in (FLAT, DARK):
        yield from bps.declare_stream(*devices, name=name)
    yield from bps.declare_stream(*devices, *series.readables, name=PRIMARY)
    yield from bps.declare_stream(series.records.analysis, name="analysis")
    yield from bps.declare_stream(series.records.decision, name=DECISION)
    yield from bps.declare_stream(series.records.spot, name=SPOTS)


def tell_end(series: Series, error: Exception, *, dosed: bool = True) -> MsgGenerator[None]:
    """Plan stub: record that `error` ends the run, and where it was `dosed` the dose of its spots; whatever fails here is logged.

    Bluesky's stop document says ``success`` after a stop by the operator, and holds no reason then: this record does.
    """
    what = {RequestStop: "stopped by the operator", RequestAbort: "aborted by the operator"}.get(type(error))
    try:
        try:
            yield from bps.drop()  # an Event may have been begun
        except IllegalMessageSequence:
            pass
        yield from decide(series, "end", what or f"failed: {error}")
        if dosed:
            yield from save_spots(series.guard, series.records.spot)
    except Exception:  # it must not hide what ended the run
        logger.exception("the end of the run could not be recorded")
