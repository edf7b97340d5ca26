"""Exposure strategies that keep the dose rate low: rests between exposures, and an attenuated beam."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.locations import ONE_FIELD, FieldsUm, Flats, Location, measure_at, tell_dose
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import (
    ANYWHERE,
    DriftPolicy,
    LimitBelowOneFrame,
    NoFreshSpot,
    Series,
    SeriesSummary,
    SpotChanged,
    decide,
    follow_drift,
    measure_spot,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FOLLOW_S = 3.0
_FOLLOW_STEP_S = 0.05
_FOLLOW_WITHIN = 0.2


def intermittent_series(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    rest_s: float = 0.0,
    n_points: int = 56,
    period_s: float = 0.0,
    duration_s: float | None = None,
    exposure_s: float = 0.048,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fields_um: FieldsUm = ONE_FIELD,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 900.0,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    policy: str | Sequence[str] = "relocate",
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Expose with rests, so that the mean dose rate in any window stays below the account's windowed rate limit.

    How long to rest is asked of the account before every exposure: it knows what every record of the ledger has given inside the window,
    whichever run that was. At a dose limit the series relocates or halts as `operando_txm_series` does.

    Parameters
    ----------
    rest_s
        Least time with the shutter closed after every exposure, s, whatever the account allows.
    others
        As in `operando_txm_series`.

    Raises
    ------
    ValueError
        When nothing asks for a rest: no `rest_s`, and no limit of the account has a window.
    LimitBelowOneFrame
        When the limits do not allow one exposure of a fresh spot.
    """
    arguments = bound_arguments(locals())
    if not rest_s > 0 and not any(limit.window_s for limit in guard.account.limits if not limit.advisory):
        raise ValueError("nothing to rest for: give rest_s, or the account a dose rate limit with a window (window_s)")
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    flats, here = Flats(reference_um, n_flats, flat_ttl_s), Location("A", 0, *spot_um)

    def point(index: int) -> MsgGenerator[None]:
        nonlocal here
        yield from flats.when_due(series)
        yield from follow_drift(series)
        fresh, measured = False, False
        while not measured:
            remedies = series.remedies(moving=not fresh)
            try:
                yield from measure_at(
                    series, here, fields_um=fields_um, rest_s=rest_s, remedies=remedies, orders=ANYWHERE
                )
                measured = True
            except SpotChanged as change:
                yield from tell_dose(series, here)
                fresh, here = change.fresh, Location("A", series.spot, *series.spot_um)
            except DoseRefused as refusal:
                if fresh and not here.exposures:
                    raise LimitBelowOneFrame(f"the first exposure of a fresh spot was refused: {refusal}") from refusal
                raise NoFreshSpot(f"no exposure is allowed any more: {refusal}") from refusal
        yield from tell_dose(series, here)

    return (
        yield from run_series(
            series,
            point,
            clock=Clock(n_points, period_s, duration_s),
            title=f"intermittent series of {n_points} points",
            n_darks=n_darks,
            protocol=protocol,
            metadata=run_metadata("intermittent_series", arguments, beamline, guard, md),
        )
    )


def attenuated(beamline: TxmBeamline, plan: MsgGenerator[T], *, transmission: float) -> MsgGenerator[T]:
    """Preprocessor: run any plan with the attenuator at `transmission` (0 to 1), and put it back afterwards.

    The shutter is closed first whenever the attenuator moves, on every way out as well: a sample that was promised an attenuated beam
    never sees the full one because the attenuator left too early.

    Raises
    ------
    ValueError
        A transmission outside 0 to 1, or 0.
    """
    if not 0 < transmission <= 1:
        raise ValueError(f"transmission {transmission:g} is outside 0 to 1; it is a fraction, write 0.1 for 10 %")
    before = float((yield from bps.rd(beamline.attenuator.transmission)))

    def attenuator_to(value: float) -> MsgGenerator[None]:
        now = float((yield from bps.rd(beamline.attenuator.transmission)))
        i0_na = float((yield from bps.rd(beamline.i0.current_na)))
        yield from close_shutter(beamline)
        yield from bps.abs_set(beamline.attenuator, value, wait=True)
        if now > 0 and i0_na > 0:
            yield from _chamber_follows(beamline, i0_na * value / now)

    def inside() -> MsgGenerator[T]:
        yield from attenuator_to(transmission)
        return (yield from plan)

    return (yield from bpp.finalize_wrapper(inside(), lambda: attenuator_to(before)))


def _chamber_follows(beamline: TxmBeamline, expected_na: float) -> MsgGenerator[None]:
    """Wait until the ion chamber shows the new transmission: the dose of the next exposure is reserved with what it says."""
    i0_na = math.inf
    for _ in range(round(_FOLLOW_S / _FOLLOW_STEP_S)):
        i0_na = float((yield from bps.rd(beamline.i0.current_na)))
        if abs(i0_na - expected_na) <= _FOLLOW_WITHIN * expected_na:
            return
        yield from bps.sleep(_FOLLOW_STEP_S)
    logger.warning(
        "the ion chamber reads %.3g nA %g s after the attenuator moved, %.3g nA were expected; "
        "is it downstream of the attenuator?",
        i0_na,
        _FOLLOW_S,
        expected_na,
    )


def attenuated_series(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    transmission: float,
    keep_counts: bool = False,
    n_points: int = 56,
    period_s: float = 900.0,
    duration_s: float | None = None,
    exposure_s: float = 0.048,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fields_um: FieldsUm = ONE_FIELD,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 0.0,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    policy: str | Sequence[str] = "relocate",
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Run an operando series with the beam attenuated from its first to its last exposure; the attenuator is put back afterwards.

    Parameters
    ----------
    transmission
        Of the attenuator during the run, 0 to 1.
    keep_counts
        Lengthen the exposure by ``1 / transmission``: the same dose per frame at a lower dose rate. Otherwise the dose falls with the rate.
    others
        As in `operando_txm_series`.

    Raises
    ------
    ValueError
        A transmission outside 0 to 1.
    LimitBelowOneFrame
        When the limit does not allow one exposure of a fresh spot.
    """
    arguments = bound_arguments(locals())
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    series.readables = (*series.readables, beamline.attenuator)
    if keep_counts and transmission > 0:
        series.exposure_s = exposure_s / transmission
    flats = Flats(reference_um, n_flats, flat_ttl_s)

    def point(index: int) -> MsgGenerator[None]:
        if index == 0:
            reason = f"transmission {transmission:g} for this run, exposures of {series.exposure_s:g} s"
            yield from decide(series, "attenuate", reason, threshold=transmission)
        yield from flats.when_due(series)
        yield from follow_drift(series)
        taken = series.frames
        yield from measure_spot(series, fields_um)
        here = Location("A", series.spot, *series.spot_um, exposures=series.frames - taken)
        yield from tell_dose(series, here)

    run = run_series(
        series,
        point,
        clock=Clock(n_points, period_s, duration_s),
        title=f"attenuated series of {n_points} points, transmission {transmission:g}",
        n_darks=n_darks,
        protocol=protocol,
        metadata=run_metadata("attenuated_series", arguments, beamline, guard, md),
    )
    return (yield from attenuated(beamline, run, transmission=transmission))
