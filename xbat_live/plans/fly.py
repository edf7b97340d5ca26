"""Flights under the dose guard: one reservation for a whole kickoff, or for each of the pieces that fit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, short_uid

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused, ExposureRequest, Reservation, Settlement
from xbat_live.plans._blocking import call_in
from xbat_live.plans.exposure import ExposureFailed, set_watchdog
from xbat_live.plans.guard import HELD, DoseGuard, close_shutter, open_shutter
from xbat_live.plans.messages import sleep, wait
from xbat_live.plans.policies import Remedies, granted
from xbat_live.plans.protocols import Divisible, NeedsBeam
from xbat_live.plans.steering import hold_point

logger = logging.getLogger(__name__)

GROUP = "guarded-flight"
_LONGER_S = 30.0  # than the beam: readout and writing of many frames
_POLL_S = 0.02
_WHOLE = 0.9
REPEATS = 3


def beam_time_s(flyer: Any, beam_times: Mapping[Any, float]) -> float | None:
    """Return how long one flight of `flyer` needs the beam, s; None when nobody says so."""
    if flyer in beam_times:
        return float(beam_times[flyer])
    if isinstance(flyer, Divisible):
        return flyer.n_frames * flyer.frame_time_s
    if isinstance(flyer, NeedsBeam):
        return float(flyer.beam_time_s)
    return None


def guarded_flight(
    beamline: TxmBeamline,
    guard: DoseGuard,
    kickoffs: Sequence[Msg],
    *,
    beam_times: Mapping[Any, float] | None = None,
    remedies: Remedies | None = None,
    label: str = "flight",
    spot: int | None = None,
) -> MsgGenerator[Flown]:
    """Plan stub: reserve, open, kick off, complete, close, settle; flyers of one group share the opening.

    A single flyer that is `Divisible` is cut into pieces when the whole does not fit under the limits: as many frames as are allowed
    now, then what `remedies` say, then the next piece. The flight is over when this returns; what is left is to collect. An
    interrupted piece is taken again, with a reservation of its own, if the flyer can forget its frames (``discard``).
    A flyer that sweeps the energy says so (``energies_ev``): the mean dose per photon of all its energies is reserved.

    Parameters
    ----------
    kickoffs
        Messages ``kickoff`` of all flyers of the group.
    beam_times
        Beam time by flyer, s, for flyers that do not say it themselves.
    remedies
        What is done when the next frame is refused; None: nothing.
    label, spot
        Kept in the ledger.

    Returns
    -------
    Flown
        What was reserved and what was delivered; of several pieces the last.

    Raises
    ------
    DoseRefused
        Before the shutter moves. Pieces that were taken before can be collected.
    ExposureFailed
        A flyer did not complete in time.
    """
    flyers = [msg.obj for msg in kickoffs]
    energies = [tuple(flyer.energies_ev) for flyer in flyers if getattr(flyer, "energies_ev", ())]
    flight = _Flight(beamline, guard, tuple(kickoffs), label, remedies, spot, energies[0] if energies else ())
    times_s = [time_s for flyer in flyers if (time_s := beam_time_s(flyer, beam_times or {})) is not None]
    if len(flyers) == 1 and isinstance(flyers[0], Divisible):
        return (yield from flight.in_pieces(flyers[0]))
    return (yield from flight.whole(max(times_s)))


class Flown(NamedTuple):
    """A flight: what was reserved before it and what was delivered."""

    reservation: Reservation
    settlement: Settlement


@dataclass
class _Flight:
    beamline: TxmBeamline
    guard: DoseGuard
    kickoffs: tuple[Msg, ...]
    label: str
    remedies: Remedies | None
    spot: int | None = None
    energies_ev: tuple[float, ...] = ()

    def whole(self, needed_s: float) -> MsgGenerator[Flown]:
        """Fly once."""

        def ask() -> MsgGenerator[ExposureRequest]:
            return (yield from self._request(needed_s))

        yield from hold_point()
        reservation = yield from granted(self.guard, self.beamline, ask, self.remedies)
        settlement = yield from self._fly(reservation)
        if settlement.open_time_s < _WHOLE * needed_s:
            logger.warning("flight: shutter open for %.3f s of %.3f s", settlement.open_time_s, needed_s)
        return Flown(reservation, settlement)

    def in_pieces(self, flyer: Divisible) -> MsgGenerator[Flown]:
        """Fly in as few pieces as the limits allow."""
        left, repeats = flyer.n_frames, 0
        flown: Flown | None = None
        while left:
            yield from hold_point()
            asked = left

            def ask(most: int = left) -> MsgGenerator[ExposureRequest]:
                nonlocal asked
                each = yield from self._request(flyer.frame_time_s, frames=1)
                asked = yield from call_in(self.guard.executor, self._frames, flyer.frame_time_s, most, each)
                return (yield from self._request(asked * flyer.frame_time_s, frames=asked))

            try:
                reservation = yield from granted(self.guard, self.beamline, ask, self.remedies)
            except DoseRefused:
                if left < flyer.n_frames:  # the frames that were taken become Events, whatever the plan does now
                    yield Msg("collect", flyer, run=self.kickoffs[0].run, return_payload=False)
                raise
            interruptions = self._interruptions
            # the shutter is still closed: what takes a flyer long to prepare costs no dose
            try:
                flyer.take(asked)
            except Exception as error:
                yield from call_in(
                    self.guard.executor, self.guard.account.void, reservation.id, f"not kicked off: {error}"
                )
                raise
            settlement = yield from self._fly(reservation)
            short = settlement.open_time_s < _WHOLE * asked * flyer.frame_time_s
            if (self._interruptions != interruptions or short) and short and hasattr(flyer, "discard"):
                repeats += 1
                if repeats > REPEATS:
                    raise ExposureFailed(f"the shutter was closed early in {repeats} attempts at the same frames")
                logger.warning("a piece of %d frames was cut short and is taken again", asked)
                flyer.discard()
                continue
            repeats = 0
            left -= asked
            flown = Flown(reservation, settlement)
        assert flown is not None  # a flyer has at least one frame
        return flown

    @property
    def _interruptions(self) -> Any:
        return getattr(self.beamline.shutter, "interruptions", 0)

    def _request(self, beam_s: float, *, frames: int | None = None) -> MsgGenerator[ExposureRequest]:
        label = self.label if frames is None else f"{self.label} of {frames} frames"
        margin_s = self.guard.open_time_margin_s
        return (
            yield from self.guard.request(
                self.beamline,
                exposure_s=beam_s,
                label=label,
                spot=self.spot,
                margin_s=margin_s,
                energies_ev=self.energies_ev,
            )
        )

    def _frames(self, frame_time_s: float, most: int, one: ExposureRequest) -> int:
        """Return how many frames to ask for: as many as are allowed now, or as may be waited for, at least one."""
        margin_s = self.guard.open_time_margin_s
        wait_s = self.guard.account.time_until_allowed_s

        def request(frames: int) -> ExposureRequest:
            return one.with_delivery(frames * frame_time_s + margin_s, one.flux_ph_s)

        now = largest(most, lambda frames: wait_s(request(frames)) == 0)
        return now or largest(most, lambda frames: wait_s(request(frames)) < math.inf) or 1

    def _fly(self, reservation: Any) -> MsgGenerator[Settlement]:
        """Open, kick off, complete, close, settle, whatever happens."""
        beamline, guard = self.beamline, self.guard
        since_s, opened = time.monotonic(), False
        timeout_s = reservation.request.open_time_s + _LONGER_S

        def settle() -> MsgGenerator[Settlement]:
            return (yield from guard.settle(beamline, reservation, since_s=since_s, opened=opened))

        def settle_after(error: Exception) -> MsgGenerator[None]:
            logger.error("flight failed: %s", error)
            yield from close_shutter(beamline)
            yield from settle()

        def open_and_fly() -> MsgGenerator[None]:
            nonlocal opened
            interruptions = self._interruptions
            yield from set_watchdog(beamline, reservation.request.open_time_s)
            opening = yield from open_shutter(beamline)
            opened = opening != HELD and self._interruptions == interruptions
            beam_over_s = time.monotonic() + reservation.request.open_time_s
            group = short_uid(GROUP)
            started = []
            for msg in self.kickoffs:
                kwargs = {**msg.kwargs, "group": group}
                started.append((yield Msg("kickoff", msg.obj, *msg.args, run=msg.run, **kwargs)))
            yield from _until(group, started, timeout_s, "start")
            completed = []
            for msg in self.kickoffs:
                status = yield Msg("complete", msg.obj, group=group, run=msg.run)
                completed.append(status)
            yield from _until(group, completed, timeout_s, "complete", beamline, beam_over_s)

        exposed = bpp.finalize_wrapper(open_and_fly(), lambda: close_shutter(beamline))
        yield from bpp.contingency_wrapper(bpp.rewindable_wrapper(exposed, False), except_plan=settle_after)
        return (yield from settle())


def _until(  # noqa: PLR0917
    group: str,
    statuses: list[Any],
    timeout_s: float,
    what: str,
    beamline: TxmBeamline | None = None,
    beam_over_s: float = math.inf,
) -> MsgGenerator[None]:
    """Wait in short steps: a pause dissolves the group, but not what is under way.

    When `beam_over_s` (`time.monotonic`) has passed, the shutter is closed: all that was reserved is spent. A flyer has longer, to read
    out and to write.
    """
    waited_s = 0.0
    while True:
        yield from wait(group, _POLL_S)
        if all(status is None or status.done for status in statuses):
            return
        if beamline is not None and time.monotonic() > beam_over_s:
            yield from close_shutter(beamline)
            beamline = None
        if waited_s > timeout_s:
            raise ExposureFailed(f"a flyer did not {what} within {timeout_s:.1f} s; shutter closed, dose accounted for")
        yield from sleep(_POLL_S / 4)
        waited_s += _POLL_S


def largest(most: int, allowed: Callable[[int], bool]) -> int:
    """Return the largest n from 1 to `most` that is allowed, 0 when none is; what is allowed for n is for less as well."""
    if allowed(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if allowed(middle):
            low = middle
        else:
            high = middle
    return low
