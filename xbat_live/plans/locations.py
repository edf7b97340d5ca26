"""Known places on the sample, visited by a plan: what they got, until when, and how far dosed sample is from them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.utils import MsgGenerator

from xbat_live.dose import DoseAccount, DoseMap, DoseRefused, FootprintDose, format_gy
from xbat_live.plans._blocking import call_in
from xbat_live.plans.guard import close_shutter
from xbat_live.plans.policies import Remedies, inputs_of
from xbat_live.plans.series import LimitBelowOneFrame, Series, SpotSkipped, decide, measure_field
from xbat_live.plans.steering import SKIP_SPOT
from xbat_live.plans.stubs import Target, move_to_spot, take_flats

FRESH_FRACTION = 0.01
"""Fraction of the lowest dose limit that still counts as no dose to speak of."""
REST_STEP_S = 1.0
_REST_MORE_S = 0.002  # the account's clock must be past the moment, not at it

FieldsUm = Sequence[tuple[float, float]]
ONE_FIELD: FieldsUm = ((0.0, 0.0),)


@dataclass
class Location:
    """One place on the sample.

    Attributes
    ----------
    label
        Field label of its frames; several fields of view get a number appended.
    index
        Number of the spot in the records, from 0.
    x_um, y_um
        Sample coordinate, um.
    exposures
        Frames taken here in this run.
    retired
        Why it is measured no more; empty while it is in use.
    """

    label: str
    index: int
    x_um: float
    y_um: float
    exposures: int = 0
    retired: str = ""

    def __str__(self) -> str:
        return f"{self.label} ({self.x_um:.1f}, {self.y_um:.1f}) µm"

    def target(self, number: int, fields_um: FieldsUm) -> Target:
        """Return field of view `number` of `fields_um`, offsets (x, y), um, from here."""
        label = self.label if len(fields_um) == 1 else f"{self.label}{number + 1}"
        return Target(label, self.index, self.x_um + fields_um[number][0], self.y_um + fields_um[number][1])


_SAME_TRANSMISSION = 1e-3  # relative: a readback is never quite what was set


@dataclass
class Flats:
    """Takes flats when the last one is older than `ttl_s` seconds or was taken through another attenuator.

    `reference_um` is the stage position (x, y) for them, um.
    """

    reference_um: tuple[float, float]
    n: int
    ttl_s: float
    _taken_s: float = -math.inf
    _transmission: float = 1.0

    def when_due(self, series: Series) -> MsgGenerator[None]:
        """Plan stub: take `n` flats if it is time; the next `visit` brings the sample back."""
        transmission = float((yield from bps.rd(series.beamline.attenuator.transmission)))
        same_beam = abs(transmission - self._transmission) <= _SAME_TRANSMISSION * self._transmission
        if same_beam and time.monotonic() - self._taken_s < self.ttl_s:
            return
        yield from take_flats(
            series.beamline,
            series.guard,
            series.records.point,
            reference_um=self.reference_um,
            exposure_s=series.exposure_s,
            n=self.n,
        )
        self._taken_s, self._transmission = time.monotonic(), transmission


def visit(
    series: Series, location: Location, *, fields_um: FieldsUm = ONE_FIELD, frames: int = 1
) -> MsgGenerator[None]:
    """Plan stub: take `frames` judged frames of every field of view at `location`, unless it is retired.

    When the guard refuses, or the operator wants it, the location is retired: it is not moved, because its history is what the experiment
    is about.

    Raises
    ------
    LimitBelowOneFrame
        The first exposure was refused at a place without dose to speak of.
    """
    if location.retired:
        return
    try:
        yield from measure_at(series, location, fields_um=fields_um, frames=frames, orders=(SKIP_SPOT,))
    except DoseRefused as refusal:
        if not location.exposures and (yield from is_fresh(series, location)):
            raise LimitBelowOneFrame(f"the first exposure of {location} was refused: {refusal}") from refusal
        location.retired = str(refusal)
        inputs = {**inputs_of(refusal), "exposures": location.exposures}
        yield from decide(series, "retire", f"{location}: {refusal}", threshold=refusal.limit_gy, **inputs)
    except SpotSkipped as skipped:
        location.retired = str(skipped)
        yield from decide(series, "retire", f"{location}: {skipped}", exposures=location.exposures)


def measure_at(
    series: Series,
    location: Location,
    *,
    fields_um: FieldsUm = ONE_FIELD,
    frames: int = 1,
    rest_s: float = 0.0,
    remedies: Remedies | None = None,
    orders: Sequence[str] = (),
) -> MsgGenerator[None]:
    """Plan stub: take `frames` judged frames of every field of view at `location`; a windowed rate limit is waited for.

    Parameters
    ----------
    fields_um
        Offsets (x, y) of the fields of view, um.
    rest_s
        Least time with the shutter closed after every frame, s.
    remedies
        What is done when an exposure is refused nevertheless; None: nothing.
    orders
        See `measure_field`.

    Raises
    ------
    DoseRefused
        The shutter has not moved, and nothing was tried after it.
    SpotChanged, SpotSkipped
        An order was given.
    """
    series.spot, series.spot_um = location.index, (location.x_um, location.y_um)
    for number in range(len(fields_um)):
        target = location.target(number, fields_um)
        yield from move_to_spot(series.beamline, target, drift_um=series.applied_drift_um)
        for _ in range(frames):
            taken = series.frames
            try:
                yield from rest_until_allowed(series)
                yield from measure_field(series, target, remedies=remedies, orders=orders)
            finally:
                location.exposures += series.frames - taken
            yield from rest(rest_s)


def dose_here(series: Series, location: Location) -> MsgGenerator[FootprintDose]:
    """Plan stub: return the dose in the beam's footprint at `location`, by the ledger."""
    return (yield from call_in(series.guard.executor, series.guard.account.dose_at, location.x_um, location.y_um))


def is_fresh(series: Series, location: Location) -> MsgGenerator[bool]:
    """Plan stub: return True when no pixel of the footprint there has more than `FRESH_FRACTION` of the lowest dose limit."""
    dose = yield from dose_here(series, location)
    return dose.peak_gy <= fresh_below_gy(series.guard.account)


def fresh_below_gy(account: DoseAccount) -> float:
    """Return the dose, Gy, up to which sample is fresh; 0 when there is no dose limit."""
    limit_gy = account.lowest_limit_gy
    return 0.0 if limit_gy is None else FRESH_FRACTION * limit_gy


def tell_dose(series: Series, location: Location) -> MsgGenerator[None]:
    """Plan stub: record in the stream ``decision`` what `location` has received so far."""
    dose = yield from dose_here(series, location)
    yield from decide(
        series,
        "spot_dose",
        f"{location}: {format_gy(dose.peak_gy)} after {location.exposures} exposures",
        threshold=series.guard.lowest_limit_gy,
        label=location.label,
        x_um=location.x_um,
        y_um=location.y_um,
        exposures=location.exposures,
        peak_gy=dose.peak_gy,
        percentile_gy=dose.percentile_gy,
        mean_gy=dose.mean_gy,
    )


def rest_until_allowed(series: Series) -> MsgGenerator[float]:
    """Plan stub: keep the shutter closed until windowed rate limits allow one exposure here; return the seconds that took.

    Returns at once when another kind of limit forbids it: the exposure itself then raises `DoseRefused`, with the reason.
    """
    account, executor = series.guard.account, series.guard.executor

    def wait_s() -> MsgGenerator[float]:
        request = yield from series.guard.request(series.beamline, exposure_s=series.exposure_s)
        return float((yield from call_in(executor, account.time_until_allowed_s, request)))

    left_s = yield from wait_s()
    rested_s = 0.0
    if 0 < left_s < math.inf:
        yield from close_shutter(series.beamline)
        reason = f"the mean dose rate over the window has to fall: rest of {left_s:.1f} s with the shutter closed"
        yield from decide(series, "rest", reason, rest_s=left_s)
    while 0 < left_s < math.inf:
        step_s = min(left_s + _REST_MORE_S, REST_STEP_S)
        yield from rest(step_s)
        rested_s += step_s
        left_s = yield from wait_s()
    return rested_s


def rest(duration_s: float) -> MsgGenerator[None]:
    """Plan stub: wait with the shutter closed, in steps that a pause or a suspender can repeat without harm."""
    while duration_s > 0:
        yield from bps.checkpoint()
        yield from bps.sleep(min(duration_s, REST_STEP_S))
        duration_s -= REST_STEP_S


def clearance_um(
    dose_map: DoseMap, x_um: float, y_um: float, *, footprint_um: tuple[float, float], above_gy: float
) -> float:
    """Return the distance from a footprint to the nearest pixel with dose.

    Parameters
    ----------
    dose_map
        Of the account.
    x_um, y_um
        Middle of the footprint, sample coordinate, um.
    footprint_um
        Its size (x, y), um.
    above_gy
        Pixels up to this dose do not count, Gy.

    Returns
    -------
    float
        um, from the footprint's edge to the pixel's middle; 0 when such a pixel is inside, infinite when there is none.
    """
    rows, columns = np.nonzero(dose_map.dose_gy > above_gy)
    if not rows.size:
        return math.inf
    beside_x = np.maximum(np.abs(dose_map.x_um[columns] - x_um) - footprint_um[0] / 2, 0.0)
    beside_y = np.maximum(np.abs(dose_map.y_um[rows] - y_um) - footprint_um[1] / 2, 0.0)
    return float(np.hypot(beside_x, beside_y).min())


def check_apart(positions_um: FieldsUm, fields_um: FieldsUm, footprint_um: tuple[float, float]) -> None:
    """Check that no two positions share dose.

    Parameters
    ----------
    positions_um, fields_um
        Positions (x, y), and the fields of view as offsets from each, um.
    footprint_um
        Size (x, y) of what one field irradiates, um.

    Raises
    ------
    ValueError
        Two footprints of different positions overlap.
    """
    positions, fields = np.asarray(positions_um, float), np.asarray(fields_um, float)
    offsets = (fields[:, None] - fields[None]).reshape(-1, 2)
    for i in range(len(positions) - 1):
        apart = np.abs(positions[i + 1 :, None] - positions[i] + offsets)
        shared = ~(apart >= np.asarray(footprint_um) * (1 - 1e-9)).any(axis=2).all(axis=1)
        if shared.any():
            j = i + 1 + int(np.argmax(shared))
            raise ValueError(
                f"positions ({positions[i][0]:g}, {positions[i][1]:g}) and ({positions[j][0]:g}, {positions[j][1]:g}) µm "
                f"share dose: a field of view irradiates {footprint_um[0]:.1f} x {footprint_um[1]:.1f} µm; move them farther apart"
            )
