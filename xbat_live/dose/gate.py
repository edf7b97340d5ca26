"""May this exposure happen? Limits against the dose that would be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xbat_live.dose.exposure import DoseRefused, ExposureRequest, FloatArray
from xbat_live.dose.limits import WARN_FRACTIONS, DoseLimit, format_gy
from xbat_live.dose.sample_map import Patch
from xbat_live.dose.status import LimitState
from xbat_live.dose.windows import share

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rule:
    """A limit, and one target that it is for."""

    limit: DoseLimit
    target: int


class Outlook:
    """An exposure on the sample, and what is there already.

    Parameters
    ----------
    request
        The exposure.
    reach
        Where it falls on the sample.
    dose
        Returns the dose of a target there now, (ny, nx) Gy.
    windowed
        Returns what a target was given there within a window of so many seconds, (ny, nx) Gy.
    """

    def __init__(
        self,
        request: ExposureRequest,
        reach: Patch,
        dose: Callable[[int], FloatArray],
        windowed: Callable[[float, int], FloatArray],
    ) -> None:
        self.request, self.reach = request, reach
        self._dose, self._windowed = dose, windowed
        self._now: dict[int, FloatArray] = {}
        self._added: dict[int, FloatArray] = {}
        self._peaks: dict[int, tuple[float, float, float]] = {}

    def now(self, target: int) -> FloatArray:
        """Return the dose of a target now, (ny, nx) Gy."""
        if target not in self._now:
            self._now[target] = self._dose(target)
        return self._now[target]

    def added(self, target: int) -> FloatArray:
        """Return the dose that the exposure adds, (ny, nx) Gy."""
        if target not in self._added:
            self._added[target] = self.reach.dose(target)
        return self._added[target]

    def dose_peaks(self, target: int) -> tuple[float, float, float]:
        """Return the largest dose of a target now, after the exposure, and added by it, Gy."""
        if target not in self._peaks:
            now, added = self.now(target), self.added(target)
            self._peaks[target] = float(now.max()), float((now + added).max()), float(added.max())
        return self._peaks[target]

    def in_window(self, window_s: float) -> Patch:
        """Return the exposure with the part of its dose that counts in one window of `window_s` seconds."""
        part = share(self.request.open_time_s, window_s)
        return self.reach._replace(gray_cm2=tuple(value * part for value in self.reach.gray_cm2))

    def parts(self, rule: Rule) -> tuple[FloatArray, FloatArray]:
        """Return what is there and what is added, in the quantity that a rule limits; arrays, or rates of size 1."""
        limit, target = rule.limit, rule.target
        if limit.kind == "dose":
            return self.now(target), self.added(target)
        if limit.window_s is None:
            seconds = self.request.open_time_s
            rate_gy_s = self.dose_peaks(target)[2] / seconds if seconds > 0 else 0.0
            return np.zeros(1), np.array([rate_gy_s])
        window_s = limit.window_s
        part = share(self.request.open_time_s, window_s)
        return self._windowed(window_s, target) / window_s, self.added(target) * (part / window_s)


@dataclass(frozen=True)
class Gate:
    """Several limits at once.

    Decisions are taken on the largest value of any pixel of the sample inside the beam's reach. That is stricter than a
    percentile of the footprint: no pixel ever goes above a limit. The 99.9th percentile is reported (`FootprintDose`,
    `AccountStatus`), because thresholds of the literature are about areas, not pixels.

    Attributes
    ----------
    rules
        All limits, each with the targets it is for.
    sigma_rel
        Relative standard uncertainty of a dose. Errors of flux, area and coefficients are the same in every exposure,
        so they add linearly: the uncertainty of a total is this fraction of the total.
    k_sigma
        How many of them are kept free below a limit.
    """

    rules: tuple[Rule, ...]
    sigma_rel: float = 0.0
    k_sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_rel <= 1:
            raise ValueError(f"sigma_rel {self.sigma_rel:g} is outside 0 .. 1; it is a fraction, write 0.15 for 15 %")
        if not 0 <= self.k_sigma <= 10:
            raise ValueError(f"k_sigma {self.k_sigma:g} is outside 0 .. 10")

    @property
    def allowance(self) -> float:
        """Factor from a dose to the dose that is compared with limits: ``1 + k sigma``."""
        return 1 + self.k_sigma * self.sigma_rel

    def lowest_dose_limit(self, target: int = 0) -> DoseLimit | None:
        """Return the lowest dose limit of a target that refuses, or None."""
        return min(
            (rule.limit for rule in self.refusing if rule.target == target and rule.limit.kind == "dose"),
            key=lambda limit: limit.value,
            default=None,
        )

    @property
    def refusing(self) -> Sequence[Rule]:
        """Rules of the limits that refuse."""
        return [rule for rule in self.rules if not rule.limit.advisory]

    def states(self, outlook: Outlook | None) -> tuple[LimitState, ...]:
        """Return where the exposure stands with every limit: those that refuse first, the nearest to it first."""
        states: dict[DoseLimit, LimitState] = {}
        for rule in self.rules:
            now, would_be = self._levels(rule, outlook)
            state = LimitState(rule.limit, now, would_be, would_be / rule.limit.value)
            known = states.get(rule.limit)
            if known is None or state.fraction > known.fraction:
                states[rule.limit] = state
        return tuple(
            sorted(states.values(), key=lambda state: (state.limit.advisory, -state.fraction, state.limit.value))
        )

    def check(self, request: ExposureRequest, states: Sequence[LimitState]) -> tuple[str, ...]:
        """Return warnings, or refuse.

        Raises
        ------
        DoseRefused
            A limit would be exceeded; of several, the one exceeded by the largest factor is named.
        """
        if states and not states[0].limit.advisory and not states[0].would_be <= states[0].limit.value:
            raise self._refusal(states[0], request)
        return _warnings(states)

    def repeats(self, outlook: Outlook) -> float:
        """Return how many times in a row the exposure may follow, by dose and instantaneous rate; may be infinite."""
        repeats = math.inf
        for rule in self.refusing:
            now, added = outlook.parts(rule)
            if rule.limit.kind == "rate" and self.allowance * added[0] > rule.limit.value:
                return 0.0
            if rule.limit.kind == "dose" and (added > 0).any():
                repeats = min(repeats, math.floor(self._room(rule, now, added)))
        return max(0.0, repeats)

    def flux_fraction(self, outlook: Outlook) -> float:
        """Return the largest factor, 0 .. 1, on the flux with which the exposure would be granted."""
        fraction = 1.0
        for rule in self.refusing:
            now, added = outlook.parts(rule)
            if (added > 0).any():
                fraction = min(fraction, self._room(rule, now, added))
        return 1.0 if fraction >= 1 else max(0.0, fraction * (1 - _ROUNDING))

    def _room(self, rule: Rule, now: FloatArray, added: FloatArray) -> float:
        """How many times `added` fits on top of `now` everywhere."""
        hit = added > 0
        return float(np.min((rule.limit.value / self.allowance - now[hit]) / added[hit]))

    def _levels(self, rule: Rule, outlook: Outlook | None) -> tuple[float, float]:
        if outlook is None:
            return 0.0, 0.0
        if rule.limit.kind == "dose":
            now_gy, after_gy, _ = outlook.dose_peaks(rule.target)
            return self.allowance * now_gy, self.allowance * after_gy
        now, added = outlook.parts(rule)
        return self.allowance * float(now.max()), self.allowance * float((now + added).max())

    def _refusal(self, state: LimitState, request: ExposureRequest) -> DoseRefused:
        limit = state.limit
        if limit.kind == "rate":
            quantity, remedy = "dose rate", "attenuate or defocus the beam"
        elif limit.kind == "windowed rate":
            quantity, remedy = f"mean dose rate in {limit.window_s:g} s", "wait, attenuate, or use a fresh spot"
        elif state.now <= 0.01 * limit.value:
            quantity, remedy = (
                "dose",
                "one exposure alone is too much: shorten it, attenuate, or raise the limit",
            )
        else:
            there = format_gy(state.now / self.allowance)
            quantity, remedy = "dose", f"{there} are there already: use a fresh spot"
        spare = f", {self.k_sigma:g} sigma of {100 * self.sigma_rel:g} % included" if self.allowance > 1 else ""
        message = (
            f"{quantity} would be {format_gy(state.would_be, limit.unit)}{spare} "
            f"at sample ({request.x_um:.1f}, {request.y_um:.1f}) um, "
            f"above the limit {limit.name!r} of {format_gy(limit.value, limit.unit)} for {limit.material} "
            f"({limit.model}); {remedy}"
        )
        return DoseRefused(limit, state.would_be, request.x_um, request.y_um, message, flux_ph_s=request.flux_ph_s)


def _warnings(states: Sequence[LimitState]) -> tuple[str, ...]:
    messages = []
    for state in states:
        limit, kind = state.limit, "advisory limit" if state.limit.advisory else "limit"
        if limit.kind != "dose":
            if limit.advisory and state.fraction > 1:
                quantity = "dose rate" if limit.window_s is None else f"mean dose rate in {limit.window_s:g} s"
                messages.append(f"{quantity} {format_gy(state.would_be, 'Gy/s')} is above the {kind} {limit.name!r}")
            continue
        levels = (*WARN_FRACTIONS, 1.0) if limit.advisory else WARN_FRACTIONS
        if any(state.now / limit.value < level <= state.fraction for level in levels):
            messages.append(
                f"{100 * state.fraction:.0f} % of the {kind} {limit.name!r} ({format_gy(limit.value)} for {limit.material})"
            )
    return tuple(messages)
