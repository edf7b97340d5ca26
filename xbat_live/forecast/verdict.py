"""GO, WARN or NO-GO: pure functions of what a walk found."""

from __future__ import annotations

from dataclasses import replace

from xbat_live.forecast.facts import Forecast, LimitUse, Refusal, Verdict
from xbat_live.forecast.ways_out import ways_out
from xbat_live.units import format_si

WARN_FRACTION = 0.8
DISK_SPARE = 1.02
CUT_SHORT = "not walked to its end"
"""How the walk of a very long plan ends that was given little time."""


def judge(forecast: Forecast) -> Forecast:
    """Return the forecast with its verdict, what binds, all reasons, and the ways out.

    NO-GO: the plan as configured cannot come to its end within the limits. WARN: it can, with relocations, rests or an
    attenuated beam; or it passes an advisory limit that was configured, or 80 % of another one; or the frames will not fit on the disk.
    GO: anything else.
    """
    if not forecast.completed:
        reasons = (_why_not(forecast), *_warnings(forecast))
        return replace(
            forecast, verdict=Verdict.NO_GO, binding=_binding(forecast), reasons=reasons, ways_out=ways_out(forecast)
        )
    reasons = _warnings(forecast)
    verdict = Verdict.WARN if reasons else Verdict.GO
    return replace(forecast, verdict=verdict, binding=_binding(forecast), reasons=reasons, ways_out=())


def refuse_or_record(forecast: Forecast, override_reason: str | None) -> dict[str, object]:
    """Return what a run's start document says of its forecast, or refuse to run.

    Parameters
    ----------
    forecast
        Of the experiment that is about to run.
    override_reason
        Why a NO-GO is run all the same; None or empty: it is not.

    Returns
    -------
    dict
        ``forecast`` (verdict, binding, frames, relocations); with a NO-GO that is overridden also ``dose_override``, the reason.

    Raises
    ------
    NoGoError
        NO-GO without a reason; the message says what binds, and the ways out.
    """
    summary = {
        "verdict": str(forecast.verdict),
        "binding": forecast.binding,
        "frames": forecast.frames,
        "relocations": forecast.relocations,
        "spots_needed": forecast.spots.needed,
        "spots_available": forecast.spots.available,
    }
    if forecast.verdict is not Verdict.NO_GO:
        return {"forecast": summary}
    reason = (override_reason or "").strip()
    if not reason:
        raise NoGoError(forecast)
    return {"forecast": summary, "dose_override": reason}


class NoGoError(Exception):
    """An experiment is not run because its forecast says NO-GO.

    Attributes
    ----------
    forecast
        The forecast.
    """

    def __init__(self, forecast: Forecast) -> None:
        lines = [f"NO-GO: {forecast.reasons[0]}", *(f"  - {way}" for way in forecast.ways_out)]
        lines.append(
            '  - or run it all the same: xbat run ... --override-dose "reason" (kept in the documents and in the ledger)'
        )
        super().__init__("\n".join(lines))
        self.forecast = forecast


def _binding(forecast: Forecast) -> str:
    if forecast.refusal is not None:
        if forecast.refusal.kind == "dose" and not forecast.refusal.first_exposure and "relocate" in forecast.policy:
            return f"fresh spots ({forecast.refusal.limit})"
        return forecast.refusal.limit
    nearest = max((use for use in forecast.limits if not use.advisory), key=lambda use: use.fraction, default=None)
    return "" if nearest is None else nearest.name


def _why_not(forecast: Forecast) -> str:
    refusal, spots = forecast.refusal, forecast.spots
    progress = f"{forecast.points} of {forecast.points_wanted} points"
    if refusal is None:
        return f"the plan ends after {progress}: {forecast.ended}"
    would_be, limit = format_si(refusal.would_be, refusal.unit), f"the {named(refusal.limit)} of {_value(refusal)}"
    if refusal.kind == "rate":
        return f"the dose rate of every exposure, {would_be}, is above {limit}"
    if refusal.dosed_before:
        return f"the first spot holds dose already: with one more exposure it would come to {would_be}, above {limit}"
    if refusal.first_exposure:
        return f"a single exposure may come to {would_be}, above {limit}"
    what = f"{limit} ends it after frame {forecast.frames}, {progress}"
    if refusal.kind == "windowed rate":
        what = f"the mean dose rate would be {would_be}; {what}"
    elif "relocate" in forecast.policy:
        what = f"the plan needs about {spots.needed} spots, the sample offers {spots.available}; {what}"
    return f"{what} (policy {', '.join(forecast.policy)})"


def named(limit: str, *, advisory: bool = False) -> str:
    """Return how a limit is spoken of: ``dose limit`` is its own name, others are quoted."""
    kind = "advisory limit" if advisory else "limit"
    return limit if limit.endswith("limit") and not advisory else f"{kind} {limit!r}"


def _value(refusal: Refusal) -> str:
    return format_si(refusal.value, refusal.unit)


def _warnings(forecast: Forecast) -> tuple[str, ...]:
    found = [_actions(forecast)] if forecast.completed and _acts(forecast) else []
    if forecast.ended == CUT_SHORT:
        found.append(f"only the first {forecast.frames} frames were looked at; `xbat plan` looks at all of them")
    found += [_near(use) for use in forecast.limits if _warns(use, forecast)]
    if forecast.disk_bytes * DISK_SPARE > forecast.disk_free_bytes:
        needed, free = format_si(forecast.disk_bytes, "B"), format_si(forecast.disk_free_bytes, "B")
        found.append(f"the frames need {needed}, the disk has {free} free")
    return tuple(found)


def _acts(forecast: Forecast) -> bool:
    return forecast.relocations + forecast.rests + forecast.attenuations > 0


def _actions(forecast: Forecast) -> str:
    """Say what the policy does, and which limit asks for it first."""
    counts = (("relocation", forecast.relocations), ("rest", forecast.rests), ("attenuation", forecast.attenuations))
    done = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts if count)
    hits = [use for use in forecast.limits if use.hit is not None and not use.advisory]
    first = min(hits, key=lambda use: use.hit.frame if use.hit else 0, default=None)
    return done if first is None else f"{done}: {_called(first)} is reached{_when(first)}"


def _warns(use: LimitUse, forecast: Forecast) -> bool:
    if not use.configured or (forecast.refusal is not None and forecast.refusal.limit == use.name):
        return False
    if use.hit is not None and not use.advisory:
        return False  # told with what the policy does about it
    return use.fraction > (1.0 if use.advisory else WARN_FRACTION)


def _near(use: LimitUse) -> str:
    if use.advisory:
        return f"passes {_called(use)}{_when(use)}"
    return f"comes to {100 * use.fraction:.0f} % of {_called(use)}"


def _called(use: LimitUse) -> str:
    return f"the {named(use.name, advisory=use.advisory)} of {format_si(use.value, use.unit)} for {use.material}"


def _when(use: LimitUse) -> str:
    return "" if use.hit is None else f" at frame {use.hit.frame}"
