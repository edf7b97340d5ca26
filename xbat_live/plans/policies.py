"""What to do when an exposure is refused: rest, attenuate, relocate, halt; in the order the user wants."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused, ExposureRequest, Reservation
from xbat_live.plans._blocking import call_in
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.messages import put, read, sleep

logger = logging.getLogger(__name__)

_REST_STEP_S = 0.5
_REST_MORE_S = 0.002  # the clock of the account must be past the moment, not at it
_SPARE = 0.99  # of the allowed flux: the chamber is noisy
_FOLLOW_S = 3.0  # within which the chamber shows what the attenuator does
_FOLLOW_STEP_S = 0.05
_USELESS = 0.98  # a fraction of the flux that changes nothing
_MOST = {"rest": 1000, "attenuate": 3, "relocate": 5}  # times for one exposure

Ask = Callable[[], MsgGenerator[ExposureRequest]]


class Tell(Protocol):
    """Records a decision: what, why, against which threshold, from which inputs."""

    def __call__(self, action: str, reason: str, *, threshold: float = math.nan, **inputs: Any) -> MsgGenerator[None]:
        """Plan stub: record it."""


@dataclass
class Remedies:
    """The policies of a plan.

    Attributes
    ----------
    policies
        In the order they are tried; when none helps, the exposure stays refused. ``halt`` ends the list.
    tell
        Records what is done.
    relocate
        Goes to a fresh place; returns False when there is none. May raise instead, when the plan has to start its point anew.
    """

    policies: Sequence[str]
    tell: Tell
    relocate: Callable[[DoseRefused, ExposureRequest], MsgGenerator[bool]]

    def help(
        self,
        guard: DoseGuard,
        beamline: TxmBeamline,
        refusal: DoseRefused,
        request: ExposureRequest,
        tried: Counter[str],
    ) -> MsgGenerator[bool]:
        """Plan stub: try the policies; True when it is worth asking again. `tried` counts them for one exposure."""
        notes = []
        for policy in self.policies:
            helped = False
            if policy == "halt":
                break
            tried[policy] += 1
            if tried[policy] > _MOST[policy]:
                continue
            if policy == "rest":
                helped = yield from rest(guard, beamline, refusal, request, self.tell)
            elif policy == "attenuate":
                helped = yield from attenuate(guard, beamline, refusal, request, self.tell)
            elif policy == "relocate":
                helped = yield from self.relocate(refusal, request)
                notes += [] if helped else ["no fresh spot left"]
            if helped:
                return True
        reason = "; ".join((*notes, str(refusal)))
        yield from self.tell("halt", reason, threshold=refusal.limit_gy, **inputs_of(refusal))
        return False


def inputs_of(refusal: DoseRefused) -> dict[str, Any]:
    """Return what a refusal was decided from, for the decision record."""
    return {
        "limit": refusal.limit.name,
        "kind": refusal.kind,
        "would_be": refusal.would_be_gy,
        "unit": refusal.unit,
        "x_um": refusal.x_um,
        "y_um": refusal.y_um,
        "flux_reserved_ph_s": refusal.flux_ph_s,  # between two exposures the beam may have been another
    }


def granted(guard: DoseGuard, beamline: TxmBeamline, ask: Ask, remedies: Remedies | None) -> MsgGenerator[Reservation]:
    """Plan stub: reserve what `ask` asks for, after each remedy anew.

    Raises
    ------
    DoseRefused
        When no remedy helps. The shutter has not moved.
    """
    tried: Counter[str] = Counter()
    while True:
        request = yield from ask()
        try:
            return (yield from guard.reserve(beamline, request))
        except DoseRefused as refusal:
            if remedies is None or not (yield from remedies.help(guard, beamline, refusal, request, tried)):
                raise


def rest(
    guard: DoseGuard, beamline: TxmBeamline, refusal: DoseRefused, request: ExposureRequest, tell: Tell
) -> MsgGenerator[bool]:
    """Plan stub: keep the shutter closed until the windowed rate allows the exposure; False when it never will."""
    wait_s = float((yield from call_in(guard.executor, guard.account.time_until_allowed_s, request)))
    if not 0 < wait_s < math.inf:
        return False
    yield from close_shutter(beamline)
    reason = f"{refusal}; rest of {wait_s:.1f} s with the shutter closed"
    yield from tell("rest", reason, threshold=refusal.limit_gy, **inputs_of(refusal), wait_s=wait_s)
    while 0 < wait_s < math.inf:
        yield from sleep(min(wait_s + _REST_MORE_S, _REST_STEP_S))
        wait_s = float((yield from call_in(guard.executor, guard.account.time_until_allowed_s, request)))
    return wait_s == 0


def attenuate(
    guard: DoseGuard, beamline: TxmBeamline, refusal: DoseRefused, request: ExposureRequest, tell: Tell
) -> MsgGenerator[bool]:
    """Plan stub: attenuate the beam until the exposure is allowed; False when too little flux would be left."""
    fraction = float((yield from call_in(guard.executor, guard.account.allowed_flux_fraction, request)))
    before = float((yield from read(beamline.attenuator.transmission)))
    after = before * fraction * _SPARE
    full = before if guard.full_transmission is None else guard.full_transmission
    if fraction >= _USELESS or after < guard.least_flux_fraction * full:
        return False
    yield from close_shutter(beamline)
    reason = f"{refusal}; beam attenuated to {100 * fraction * _SPARE:.1f} % of its flux, transmission {before:.4g} to {after:.4g}"
    inputs = {**inputs_of(refusal), "fraction": fraction, "transmission_before": before, "transmission_after": after}
    yield from tell("attenuate", reason, threshold=refusal.limit_gy, **inputs)
    yield from put(beamline.attenuator, after)
    for _ in range(round(_FOLLOW_S / _FOLLOW_STEP_S)):  # the chamber is published at its own pace
        if (yield from guard.flux(beamline)) * guard.flux_headroom <= request.flux_ph_s * fraction:
            return True
        yield from sleep(_FOLLOW_STEP_S)
    logger.warning("the ion chamber did not follow the attenuator within %g s", _FOLLOW_S)
    return True


def keep_transmission(plan: MsgGenerator, guard: DoseGuard, beamline: TxmBeamline) -> MsgGenerator:
    """Preprocessor: set the attenuator back at the end to what it was at the begin, when `plan` has changed it."""
    before, outer = float((yield from read(beamline.attenuator.transmission))), guard.full_transmission
    guard.full_transmission = before if outer is None else outer

    def restore() -> MsgGenerator[None]:
        guard.full_transmission = outer
        now = float((yield from read(beamline.attenuator.transmission)))
        if abs(now - before) > 1e-3 * before:
            yield from close_shutter(beamline)
            yield from put(beamline.attenuator, before)

    return (yield from bpp.finalize_wrapper(plan, restore))
