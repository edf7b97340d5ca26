"""What to change so that a NO-GO becomes possible, with numbers that are safe: each of them alone is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from xbat_live.forecast.facts import Exposing, Forecast, Refusal
from xbat_live.units import format_si

SHORTEST_EXPOSURE_S = 1e-4
_LEAST_ATTENUATION = 1e-3


def ways_out(forecast: Forecast) -> tuple[str, ...]:
    """Return at least two ways out of a NO-GO that a limit causes, the gentlest first; what there is when something else ended it."""
    refusal = forecast.refusal
    if refusal is None:
        return tuple(_shorter(forecast))
    if refusal.kind == "rate":
        return tuple(_slower(forecast, refusal))
    if refusal.kind == "windowed rate":
        return tuple(_rarer(forecast, refusal))
    if refusal.dosed_before:
        return tuple(_elsewhere(forecast, refusal))
    return tuple(_less(forecast, refusal))


def _shorter(forecast: Forecast) -> Iterator[str]:
    if forecast.points > 0:
        yield f"measure fewer points: {forecast.points} fit (plan.n_points, {forecast.points_wanted} now)"
    if forecast.plan == "move_every_scan":
        yield "a larger area or a smaller step (plan.area, plan.step), if the sample allows"
        yield "go round the area again: plan.revisit = true"


def _slower(forecast: Forecast, refusal: Refusal) -> Iterator[str]:
    factor = _down(refusal.value / refusal.would_be)
    yield _attenuate(forecast, factor)
    yield f"widen the beam: {1 / factor:.3g} times its area at the same flux (beam.size)"
    yield _raise_limit(forecast, refusal, refusal.would_be)


def _rarer(forecast: Forecast, refusal: Refusal) -> Iterator[str]:
    if "rest" not in forecast.policy:
        policy = ", ".join(f'"{name}"' for name in ("rest", *forecast.policy))
        yield f"rest until the mean allows the next exposure: dose.policy = [{policy}]"
    yield _attenuate(forecast, _down(refusal.value / refusal.would_be))
    yield _raise_limit(forecast, refusal, refusal.would_be)


def _elsewhere(forecast: Forecast, refusal: Refusal) -> Iterator[str]:
    if forecast.spots.available > 0:
        yield "start at a fresh spot: change plan.spot (`xbat dose show` lists what was dosed)"
    yield _raise_limit(forecast, refusal, refusal.would_be)
    yield "use a fresh sample, under a name of its own (sample.name)"


def _less(forecast: Forecast, refusal: Refusal) -> Iterator[str]:
    """Ways out when there is too much dose for the spots there are."""
    how, spots = forecast.exposing, forecast.spots
    fit = 0 if refusal.first_exposure else spots.frames_per_spot
    needed = frames_needed_per_spot(forecast)
    room = _load(how, fit) if fit else _load(how, 1) * refusal.value / refusal.would_be
    if not refusal.first_exposure and forecast.points > 0:
        yield f"measure fewer points: {forecast.points} fit (plan.n_points, {forecast.points_wanted} now)"
    if refusal.first_exposure:
        yield from _less_margin(how, room)
    shorter_s = shorter_exposure_s(how, needed, room)
    if shorter_s is not None:
        yield f"shorten the exposure from {format_si(how.exposure_s, 's')} to {_config(shorter_s, 's')} (camera.exposure)"
    factor = _down(room / _load(how, needed))
    if factor >= _LEAST_ATTENUATION:
        yield _attenuate(forecast, factor)
    if not refusal.first_exposure and forecast.policy == ("halt",):
        if spots.available >= spots.needed:
            yield 'move on to fresh spots: dose.policy = "relocate"'
    elif not refusal.first_exposure:
        yield f"a larger sample or fewer forbidden zones: {spots.needed} spots are needed, {spots.available} are there"
    yield _raise_limit(forecast, refusal, refusal.value * _load(how, needed) / room)


def frames_needed_per_spot(forecast: Forecast) -> int:
    """Return how many frames of one field of view every spot has to allow for the plan to reach its end."""
    if forecast.refusal is not None and forecast.refusal.first_exposure:
        return 1
    spots = forecast.spots
    per_point = forecast.frames / max(forecast.points, 1) / spots.fields if forecast.points else 1.0
    in_all = math.ceil(per_point * forecast.points_wanted)
    there = max(spots.available, 1) if "relocate" in forecast.policy else 1
    again = 1 if there > 1 and spots.fields > 1 else 0  # a relocation starts over with the first field
    return math.ceil(in_all / there) + again


def shorter_exposure_s(how: Exposing, frames: int, room: float) -> float | None:
    """Return the longest exposure, s, with which `frames` come to no more than `room` (see `_load`); None when there is none."""
    fixed = (frames - 1) * how.extra_s + how.flux_headroom * how.margin_s
    longest_s = _down((room / how.flux_ph_s - fixed) / (frames - 1 + how.flux_headroom))
    return longest_s if SHORTEST_EXPOSURE_S <= longest_s < how.exposure_s else None


def _less_margin(how: Exposing, room: float) -> Iterator[str]:
    longest_s = _down(room / how.flux_ph_s / how.flux_headroom - how.exposure_s)
    if how.extra_s < longest_s < how.margin_s and how.margin_s > how.exposure_s:
        old = format_si(how.margin_s, "s")
        yield f"reserve less open time beyond the exposure: {old} to {_config(longest_s, 's')} (dose.open_time_margin)"


def _load(how: Exposing, frames: int) -> float:
    """Return what `frames` exposures of one place come to at the last one's reservation, in photons through the open shutter."""
    delivered_s, reserved_s = how.exposure_s + how.extra_s, how.exposure_s + how.margin_s
    return how.flux_ph_s * (max(frames - 1, 0) * delivered_s + how.flux_headroom * reserved_s)


def _attenuate(forecast: Forecast, factor: float) -> str:
    flux_ph_s = forecast.exposing.flux_ph_s
    return f'attenuate the beam to {factor:.2g} of its flux (try: beam.flux = "{_down(flux_ph_s * factor):.3g} ph/s")'


def _raise_limit(forecast: Forecast, refusal: Refusal, value: float) -> str:
    own = {"dose limit": "dose.limit", "dose rate limit": "dose.rate_limit"}
    key = own.get(refusal.limit, f"dose.limits, {refusal.limit!r}")
    old, new = format_si(refusal.value, refusal.unit), _config(_up(value), refusal.unit)
    return f"raise the limit from {old} to {new} ({key}), if the question allows"


def _config(value: float, unit: str) -> str:
    return f'"{format_si(value, unit)}"'


def _down(value: float) -> float:
    """Round down to two digits."""
    return _rounded(value, math.floor)


def _up(value: float) -> float:
    """Round up to two digits."""
    return _rounded(value, math.ceil)


def _rounded(value: float, to_integer: Callable[[float], int]) -> float:
    if not value > 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    slack = 1e-9 if to_integer is math.floor else -1e-9
    return float(f"{to_integer(value / unit + slack) * unit:.6g}")
