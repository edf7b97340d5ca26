"""What an exposure at a place of the sample that somebody points at would mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xbat_live.dose.account import DoseAccount
from xbat_live.dose.limits import format_gy

Rectangle = tuple[float, float, float, float]
"""x0, x1, y0, y1, um."""


@dataclass(frozen=True)
class Proposal:
    """An answer about a place.

    Attributes
    ----------
    x_um, y_um
        The place, sample coordinate, um.
    distance_um
        From the last exposure on the sample, um; NaN before the first.
    dose_gy, predicted_gy
        Largest dose of the primary target in the footprints there now, and after one more exposure of each, Gy.
    allowed, reason
        Whether the exposures would be granted, and what is against it, or what speaks for it.
    """

    x_um: float
    y_um: float
    distance_um: float
    dose_gy: float
    predicted_gy: float
    allowed: bool
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return the proposal as plain data (JSON)."""
        return dict(vars(self))


def propose(
    account: DoseAccount,
    place_um: tuple[float, float],
    *,
    bounds_um: Rectangle,
    stage_limits_um: Rectangle,
    offsets_um: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    forbidden_um: Sequence[Rectangle] = (),
    drift_um: tuple[float, float] = (0.0, 0.0),
) -> Proposal:
    """Return what one exposure like the last one of every field of view at `place_um` would mean; changes nothing.

    Parameters
    ----------
    account
        Dose of the sample.
    place_um
        Sample coordinate (x, y), um; fields of view lie at `offsets_um` from it, um.
    bounds_um, forbidden_um
        The sample, and zones of it that no footprint may touch (x0, x1, y0, y1), sample coordinates, um.
    stage_limits_um, drift_um
        Travel of the stage, and drift (x, y): stage position = sample coordinate + drift, um.
    """
    x_um, y_um = place_um
    last = account.last_on_sample
    distance_um = math.nan if last is None else math.dist((last.x_um, last.y_um), place_um)
    fields = [(x_um + dx, y_um + dy) for dx, dy in offsets_um]
    half_x, half_y = (size / 2 for size in account.beam.footprint_um)
    now_gy = max(account.dose_at(*field).peak_gy for field in fields)
    predicted_gy, against = now_gy, ""
    for x, y in fields:
        if not (bounds_um[0] <= x <= bounds_um[1] and bounds_um[2] <= y <= bounds_um[3]):
            x0, x1, y0, y1 = bounds_um
            against = f"({x:.1f}, {y:.1f}) um is beside the sample, which is x {x0:g} to {x1:g}, y {y0:g} to {y1:g} um"
        stage_x, stage_y = x + drift_um[0], y + drift_um[1]
        if not (
            stage_limits_um[0] <= stage_x <= stage_limits_um[1] and stage_limits_um[2] <= stage_y <= stage_limits_um[3]
        ):
            against = against or f"the stage does not reach ({stage_x:.1f}, {stage_y:.1f}) um"
        for x0, x1, y0, y1 in forbidden_um:
            if x0 - half_x < x < x1 + half_x and y0 - half_y < y < y1 + half_y:
                against = (
                    against
                    or f"the beam at ({x:.1f}, {y:.1f}) um would touch the forbidden zone x {x0:g} to {x1:g}, y {y0:g} to {y1:g} um"
                )
        if last is None:
            continue
        request = replace(last, x_um=x, y_um=y, on_sample=True)
        predicted_gy = max(predicted_gy, account.dose_at(x, y).peak_gy + account.predict(request))
        states = account.headroom(request)
        if states and not states[0].limit.advisory and not states[0].would_be <= states[0].limit.value:
            limit, would_be = states[0].limit, states[0].would_be
            against = against or (
                f"one exposure there would make {format_gy(would_be, limit.unit)}, above the limit {limit.name!r} of "
                f"{format_gy(limit.value, limit.unit)}"
            )
    away = "" if math.isnan(distance_um) else f", {distance_um:.1f} um away"
    words = f"{format_gy(now_gy)} there now, {format_gy(predicted_gy)} after one more exposure{away}"
    return Proposal(x_um, y_um, distance_um, now_gy, predicted_gy, not against, against or words)
