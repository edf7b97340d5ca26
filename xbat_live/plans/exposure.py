"""One guarded exposure: reserve, open, expose, close, settle; of one camera or of all detectors of a trigger group."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, short_uid

from xbat_live.devices import OpenFor, ShutterError, TxmBeamline
from xbat_live.dose import ExposureRequest, Reservation, Settlement
from xbat_live.plans.detectors import (
    acquire_time_of,
    exposure_of,
    frame_exposure_of,
    images_of,
    set_acquire_time,
    state_of,
)
from xbat_live.plans.guard import HELD, DoseGuard, close_shutter, open_shutter
from xbat_live.plans.messages import put, read, sleep, wait
from xbat_live.plans.policies import Remedies, granted
from xbat_live.plans.steering import hold_point

logger = logging.getLogger(__name__)

POLL_S = 0.004
GROUP = "guarded-exposure"
DARK_GROUP = "dark-exposure"
_LONGER_S = 25.0  # than reserved: then a camera is given up; its own time limit (`acquisition_timeout_s`) comes first
_LEAD_FACTOR = 1.5
LONGEST_LEAD_S = 0.5
_START_S = 2.0
_START_STEP_S = 0.001
_SAME = 1e-3
_WHOLE = 0.9  # of the wanted open time; an opening that was shorter was cut short


class ExposureFailed(RuntimeError):  # noqa: N818
    """The exposure did not end as it should; the shutter was closed and the dose is accounted for."""


@dataclass(frozen=True)
class Delivery:
    """What one opening of the shutter gave.

    Attributes
    ----------
    open_time_s
        Shutter-open time by the shutter's own counter, s.
    settlement
        The ledger's answer.
    reservation
        What had been reserved.
    interrupted
        True when a pause, a stop or somebody else closed the shutter early: the frame lacks light.
    light_fraction
        Part of the exposure that the camera got: less than 1 when the shutter was closed early, or still open when the camera's
        exposure had ended.
    """

    open_time_s: float
    settlement: Settlement
    reservation: Reservation
    interrupted: bool = False
    light_fraction: float = 1.0


def guarded_exposure(
    beamline: TxmBeamline,
    guard: DoseGuard,
    *,
    exposure_s: float,
    label: str = "",
    spot: int | None = None,
    triggers: Sequence[Msg] = (),
    remedies: Remedies | None = None,
) -> MsgGenerator[Delivery]:
    """Plan stub: reserve, open, expose, close, settle.

    With a shutter that has a timed opening the camera starts first, with an exposure longer by `DoseGuard.lead_time_s`, and the
    shutter opens inside it for exactly `exposure_s`. With any other the shutter opens first, and closes as soon as the camera has
    left the state ``Acquire``.

    The section is not rewindable: a pause closes the shutter, and after a resume the exposure is not repeated behind the
    ledger's back; the frame comes out underexposed, which `Delivery.interrupted` tells. A steered plan that is paused waits here,
    before the dose is reserved (see `steering_wrapper`).

    Parameters
    ----------
    exposure_s
        Time the beam is wanted, s.
    label, spot
        Kept in the ledger with the record.
    triggers
        Trigger messages of all detectors that share the opening; empty: the beamline's camera.
    remedies
        What to do when the exposure is refused; None: nothing.

    Raises
    ------
    DoseRefused
        Before the shutter moves, when a limit would be exceeded.
    ExposureFailed
        When a detector does not finish within the reserved time and 5 s.
    ShutterError
        When the shutter did not open, or did not confirm.
    """
    yield from hold_point()
    exposure = _Exposure(beamline, guard, exposure_s, tuple(triggers) or (Msg("trigger", beamline.camera),))
    timed = yield from exposure.prepare()
    margin_s = guard.timed_margin_s if timed else guard.open_time_margin_s

    def ask() -> MsgGenerator[ExposureRequest]:
        return (yield from guard.request(beamline, exposure_s=exposure_s, label=label, spot=spot, margin_s=margin_s))

    return (yield from exposure.run((yield from granted(guard, beamline, ask, remedies))))


@dataclass
class _Exposure:
    """One opening of the shutter for the detectors of one group."""

    beamline: TxmBeamline
    guard: DoseGuard
    exposure_s: float
    triggers: tuple[Msg, ...]
    group: str = field(default_factory=lambda: short_uid(GROUP))
    statuses: list[Any] = field(default_factory=list)
    timed: bool = False
    opened: bool = False
    closed: bool = False
    interruptions: Any = 0
    since_s: float = 0.0
    enough_s: float = 0.0
    missed_s: float = 0.0  # of the opening, by the camera
    least_s: float = 0.0  # open time that a detector needs which does not show when it is done
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        devices = [msg.obj for msg in self.triggers]
        self.states = [state for device in devices if (state := state_of(device)) is not None]
        self.cameras = [device for device in devices if acquire_time_of(device) is not None]

    @property
    def _interruptions(self) -> Any:
        return getattr(self.beamline.shutter, "interruptions", 0)

    @property
    def _done(self) -> bool:
        return all(status is None or status.done for status in self.statuses)  # None: a simulator of plans

    def prepare(self) -> MsgGenerator[bool]:
        """Set the cameras; return whether the shutter is to keep the time."""
        guard = self.guard
        self.timed = (yield from self._of_equal_exposure()) and guard.is_timed(self.beamline)
        if self.timed:
            for camera in self.cameras:
                yield from set_acquire_time(guard, camera, self.exposure_s, lead_s=guard.lead_time_s)
        elif any(camera.name in guard.windows_s for camera in self.cameras):
            for camera in self.cameras:
                nominal_s = yield from frame_exposure_of(guard, camera)
                yield from set_acquire_time(guard, camera, nominal_s, lead_s=0.0)
        return self.timed

    def run(self, reservation: Reservation) -> MsgGenerator[Delivery]:
        """Expose and settle, whatever happens."""
        guard, beamline, request = self.guard, self.beamline, reservation.request
        self.interruptions, self.since_s = self._interruptions, time.monotonic()
        self.longest_s = request.open_time_s + _LONGER_S

        def settle() -> MsgGenerator[Settlement]:
            return (yield from guard.settle(beamline, reservation, since_s=self.since_s, opened=self.opened))

        def settle_after(error: Exception) -> MsgGenerator[None]:
            logger.error("exposure at (%.2f, %.2f) um failed: %s", request.x_um, request.y_um, error)
            yield from close_shutter(beamline)
            yield from settle()

        def expose() -> MsgGenerator[None]:
            yield from set_watchdog(beamline, request.open_time_s)
            yield from self._timed() if self.timed else self._plain()

        exposed = bpp.rewindable_wrapper(bpp.finalize_wrapper(expose(), self._close), False)
        yield from bpp.contingency_wrapper(exposed, except_plan=settle_after)
        return self._judged(reservation, (yield from settle()))

    def _of_equal_exposure(self) -> MsgGenerator[bool]:
        """Whether every detector of the group wants the same exposure, and can be told a longer one."""
        equal = True
        for msg in self.triggers:
            device = msg.obj
            if device in self.cameras and (yield from images_of(device)) > 1:
                equal = False
            if len(self.triggers) == 1 and device is self.beamline.camera:
                continue  # its exposure is what was asked for
            wanted_s = yield from exposure_of(self.guard, device)
            if wanted_s is not None and state_of(device) is None:
                self.least_s = max(self.least_s, wanted_s)
            if wanted_s is not None and (
                device not in self.cameras or abs(wanted_s - self.exposure_s) > _SAME * self.exposure_s
            ):
                equal = False
        return equal

    def _judged(self, reservation: Reservation, settlement: Settlement) -> Delivery:
        open_time_s, shutter = settlement.open_time_s, self.beamline.shutter
        interrupted = self._interruptions != self.interruptions or open_time_s < _WHOLE * self.exposure_s
        if self.opened and self.guard.counter_stood_still:
            raise ShutterError(
                f"{shutter.name} ({shutter.prefix}): 'Open' not confirmed, its open-time counter did not move; "
                "the exposure is accounted for in full"
            )
        if interrupted:
            logger.warning(
                "shutter open for %.4f s of %.4f s: the exposure was cut short", open_time_s, self.exposure_s
            )
        light = min(max((open_time_s if interrupted else self.exposure_s) - self.missed_s, 0.0) / self.exposure_s, 1.0)
        return Delivery(open_time_s, settlement, reservation, interrupted, light)

    def _close(self) -> MsgGenerator[None]:
        if not self.closed:
            yield from close_shutter(self.beamline)
            self.closed = True

    def _trigger_all(self) -> MsgGenerator[None]:
        for msg in self.triggers:
            kwargs = {**msg.kwargs, "group": self.group}
            self.statuses.append((yield Msg("trigger", msg.obj, *msg.args, **kwargs)))

    # -- the shutter keeps the time -------------------------------------------------------------------------------------------------

    def _timed(self) -> MsgGenerator[None]:
        yield from self._trigger_all()
        if (yield from self._started()) and self._interruptions == self.interruptions:
            self.since_s = time.monotonic()
            self.opened = True
            opening = yield from open_shutter(self.beamline, OpenFor(self.exposure_s), group=self.group)
            self.opened = opening != HELD
            if self.opened:
                yield from self._until(lambda: opening is None or opening.done)
                yield from self._check_inside()
            self.closed = True
        yield from self._until(lambda: self._done)

    def _started(self) -> MsgGenerator[bool]:
        """Wait until all cameras integrate; False when they are done before that was noticed: the frame stays dark."""
        if not self.states:
            yield from sleep(self.guard.lead_time_s / 2)
        for _ in range(round(_START_S / _START_STEP_S)):
            if (yield from self._acquiring()) == len(self.states):
                return True
            if self._done:
                return False
            yield from sleep(_START_STEP_S)
        raise ExposureFailed(f"camera did not start within {_START_S:g} s; the shutter stayed closed")

    def _check_inside(self) -> MsgGenerator[None]:
        """Tell when a camera's exposure ended before the shutter had closed: the frame lost light, the dose is right.

        By the IOCs' time stamps: this process may learn of both much later. The next exposures get a longer lead.
        """
        if self._interruptions != self.interruptions:
            return
        lead_s = self.guard.lead_time_s
        closed_at_s = float(getattr(self.beamline.shutter.status, "timestamp", 0.0) or 0.0)
        for state in self.states:
            if (yield from read(state)) == "Acquire":
                continue
            # after the value: a stamp taken before it may be that of the exposure's begin
            ended_at_s = float(getattr(state, "timestamp", 0.0) or 0.0)
            if ended_at_s < closed_at_s:
                lost_s = closed_at_s - ended_at_s
                self.missed_s = max(self.missed_s, lost_s)
                self.guard.lead_time_s = min(
                    max(self.guard.lead_time_s, _LEAD_FACTOR * (lead_s + lost_s)), LONGEST_LEAD_S
                )
                logger.warning(
                    "the camera's exposure ended %.1f ms before the shutter closed: the frame lacks light; lead_time_s of "
                    "the dose guard was %g s, it is now %g s",
                    1e3 * lost_s,
                    lead_s,
                    self.guard.lead_time_s,
                )

    def _acquiring(self) -> MsgGenerator[int]:
        """Return how many cameras integrate."""
        acquiring = 0
        for state in self.states:
            acquiring += (yield from read(state)) == "Acquire"
        return acquiring

    # -- the camera keeps the time --------------------------------------------------------------------------------------------------

    def _plain(self) -> MsgGenerator[None]:
        self.since_s = time.monotonic()
        opening = yield from open_shutter(self.beamline)
        self.opened = opening != HELD and self._interruptions == self.interruptions
        yield from self._trigger_all()
        self.enough_s = time.monotonic() + self.least_s
        yield from self._until(lambda: self._done, early=True)

    def _until(self, over: Any, *, early: bool = False) -> MsgGenerator[None]:
        """Wait in short steps, so that a pause or a stop acts within `POLL_S` seconds.

        With `early` the shutter closes when all cameras have left the state ``Acquire``: reading out and writing the frame needs no
        photons. A camera that shows no such state is closed for when the frame is on disk.
        """
        waited_s, exposing = 0.0, False
        while True:
            yield from wait(self.group, POLL_S)
            if over():
                return
            if early and self.states and not self.closed:
                acquiring = yield from self._acquiring()
                if exposing and not acquiring and time.monotonic() >= self.enough_s:
                    yield from self._close()
                exposing = exposing or acquiring > 0
            if early and not self.closed and time.monotonic() - self.since_s > self.longest_s - _LONGER_S:
                yield from self._close()  # all that was reserved is spent; the camera has longer, the beam has not
            if waited_s > self.longest_s:
                for msg in self.triggers:
                    yield from bps.stop(msg.obj)
                names = ", ".join(str(getattr(msg.obj, "prefix", "") or msg.obj.name) for msg in self.triggers)
                raise ExposureFailed(
                    f"{names} did not finish within {self.longest_s:.1f} s; shutter closed, dose accounted for"
                )
            # wait() returns at once when a pause has dissolved the group, so this sleep keeps the loop from spinning
            yield from sleep(POLL_S / 4)
            waited_s += POLL_S


def set_watchdog(beamline: TxmBeamline, longest_s: float) -> MsgGenerator[None]:
    """Plan stub: let the shutter's own watchdog bound the next opening, s, even when this process dies."""
    limit = beamline.shutter.max_open_s
    if (yield from read(limit)) != longest_s:
        yield from put(limit, longest_s)


__all__ = ["DARK_GROUP", "GROUP", "Delivery", "ExposureFailed", "guarded_exposure", "set_watchdog"]
