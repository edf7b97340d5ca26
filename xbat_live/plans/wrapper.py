"""The dose guard around any plan: every exposure and every flight in it is reserved, opened, closed and settled."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseRefused, ExposureRequest
from xbat_live.plans._blocking import call_in
from xbat_live.plans.detectors import acquire_time_of, exposure_of, restore_exposures
from xbat_live.plans.exposure import DARK_GROUP, GROUP, ExposureFailed, guarded_exposure
from xbat_live.plans.fly import GROUP as FLIGHT_GROUP
from xbat_live.plans.fly import REPEATS, beam_time_s, guarded_flight
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.metadata import plain
from xbat_live.plans.policies import Remedies, inputs_of, keep_transmission
from xbat_live.plans.recorder import Promise, RunRecorder
from xbat_live.plans.shift import StageShift

logger = logging.getLogger(__name__)

_OWN_GROUPS = (GROUP, DARK_GROUP, FLIGHT_GROUP)


def dose_guard_wrapper(
    plan: MsgGenerator,
    guard: DoseGuard,
    beamline: TxmBeamline | None = None,
    *,
    detectors: Sequence[Any] = (),
    beam_times: Mapping[Any, float] | None = None,
) -> MsgGenerator:
    """Preprocessor: every trigger of the camera and every flight in `plan` is guarded, and the shutter ends closed.

    Works for stock plans (``bp.count([camera])``, ``bp.scan``, ``bp.grid_scan``, ``bp.fly``) as for others.

    * Detectors that are triggered in one group share one opening; they are triggered when the plan waits for them, or goes on to
      anything but a trigger.
    * A kickoff reserves the whole flight; it is flown to its end there, in pieces when the whole does not fit (see
      `guarded_flight`), so that the plan's own ``complete`` finds it done. A flyer that does not say how long it needs the beam flies
      with the shutter closed.
    * When an exposure is refused, the policy of the guard decides: ``halt`` raises `DoseRefused` inside the plan, before the shutter
      has moved; ``relocate`` moves the stage to a fresh spot, and all later stage positions of the plan by the same way; ``rest`` waits
      with the shutter closed; ``attenuate`` lowers the flux.
    * An exposure that was cut short by a pause, a suspender or another program is made again, with a reservation of its own.
    * Start documents get the dose account's description; decisions and the dose of each spot become Events of the run.

    The darks of `take_darks` stay dark, and exposures that are guarded already are left alone.

    Parameters
    ----------
    beamline
        The devices; None: those of the guard.
    detectors
        Further detectors that need the beam, beside the beamline's camera.
    beam_times
        Beam time by flyer, s, for flyers that are neither `Divisible` nor `NeedsBeam`.

    Raises
    ------
    DoseRefused
        From within the plan, at the exposure that would exceed a limit, when no policy helps.
    ValueError
        No beamline is known.
    """
    devices = beamline or guard.beamline
    if devices is None:
        raise ValueError("dose_guard_wrapper needs a beamline: give it one, or make the guard with beamline=...")
    release = getattr(devices.shutter, "resume", None)
    if callable(release):
        release()  # held since a plan that was paused and never resumed
    hook = _Hook(guard, devices, tuple(detectors), dict(beam_times or {}))
    guarded = bpp.finalize_wrapper(keep_transmission(hook.mutated(plan), guard, devices), hook.leave)
    return (yield from guarded)


class _Hook:
    """Takes over messages of a plan."""

    def __init__(
        self, guard: DoseGuard, beamline: TxmBeamline, detectors: tuple[Any, ...], beam_times: dict[Any, float]
    ) -> None:
        self.guard, self.beamline, self.beam_times = guard, beamline, beam_times
        self.detectors = (beamline.camera, *detectors)
        self.shift = StageShift(beamline.stage)
        self.records = RunRecorder(guard)
        self.frozen = False
        self.rewindable: Any = True
        self.waiting: list[tuple[Msg, Promise]] = []
        self.flown: set[Any] = set()
        self.windowed: set[Any] = set()
        self.remedies = Remedies(guard.policies(), self.records.tell, self.relocate)

    # -- the plan -------------------------------------------------------------------------------------------------------------------

    def mutated(self, plan: MsgGenerator) -> MsgGenerator:
        """Run `plan`; a message that is taken over is replaced by other messages."""
        response: Any = None
        error: Exception | None = None
        while True:
            try:
                msg = plan.send(response) if error is None else plan.throw(error)
            except StopIteration as stop:
                yield from self.flush()  # triggered, but never waited for
                return stop.value
            response, error = None, None
            try:
                response = yield from self.carry_out(msg)
            except GeneratorExit:
                plan.close()
                raise
            except Exception as failure:
                error = failure

    def carry_out(self, msg: Msg) -> MsgGenerator[Any]:
        """Carry out one message of the plan and return its response."""
        if not self.defers(msg):
            yield from self.flush()
        if self.defers(msg):
            promise = Promise()
            self.waiting.append((msg, promise))
            return promise
        if msg.command == "complete" and msg.obj in self.flown:
            return Promise.kept()
        if msg.command == "close_run":
            yield from self.records.end_of_run(msg.run)
        self.note(msg)
        response = yield self.translated(msg)
        if msg.command == "open_run":
            self.guard.run_uid = str(response or self.guard.run_uid)
        if msg.command in ("save", "drop"):
            if self.frozen:
                self.frozen = False
                yield Msg("rewindable", None, self.rewindable)
            yield from self.records.emit()
        return self.shift.back(msg, response)

    def defers(self, msg: Msg) -> bool:
        """Whether a message is carried out when its whole group is known."""
        if msg.command not in ("trigger", "kickoff") or str(msg.kwargs.get("group", "")).startswith(_OWN_GROUPS):
            return False
        if self.waiting:
            first = self.waiting[0][0]
            if (first.command, first.kwargs.get("group")) != (msg.command, msg.kwargs.get("group")):
                return False
        return msg.obj not in [waiting.obj for waiting, _ in self.waiting]

    def flush(self) -> MsgGenerator[None]:
        """Carry out what was deferred: with beam when one of the devices needs it, as it is otherwise."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        if self.records.bundling:
            yield from self._within_event(self._flush(waiting))
        else:
            yield from self._flush(waiting)

    def _within_event(self, plan: MsgGenerator) -> MsgGenerator[None]:
        """Run `plan` while the plan is collecting readings for an Event: what the guard reads is no part of it.

        Until the Event is saved nothing is rewound: it could not be begun anew without the messages before.
        """
        if not self.frozen:
            self.frozen = True
            self.rewindable = yield Msg("rewindable", None, None)
            yield Msg("rewindable", None, False)
        response: Any = None
        error: Exception | None = None
        while True:
            try:
                msg = plan.send(response) if error is None else plan.throw(error)
            except StopIteration:
                return
            response, error = None, None
            try:
                response = msg.obj.read() if msg.command == "read" else (yield msg)
            except GeneratorExit:
                plan.close()
                raise
            except Exception as failure:
                error = failure

    def _flush(self, waiting: list[tuple[Msg, Promise]]) -> MsgGenerator[None]:
        messages = [msg for msg, _ in waiting]
        try:
            if messages[0].command == "trigger":
                yield from self.trigger(messages)
            else:
                yield from self.kick_off(messages)
        except Exception as error:
            for _, promise in waiting:
                promise.finish(error)
            raise
        for _, promise in waiting:
            promise.finish()

    def note(self, msg: Msg) -> None:
        """Keep track of the run, of flights that are over, and of the camera's exposure."""
        self.records.note(msg)
        camera = self.beamline.camera
        if msg.command == "collect":
            self.flown.discard(msg.obj)
        own = msg.command in ("stage", "unstage", "configure") and msg.obj is camera
        if own or (msg.command == "set" and msg.obj is acquire_time_of(camera)):
            self.guard.windows_s.pop(camera.name, None)  # the plan says anew how long it exposes

    def translated(self, msg: Msg) -> Msg:
        """Return the message as it is carried out: shifted stage positions, described runs."""
        if msg.command == "open_run" and "dose" not in msg.kwargs:
            return msg._replace(kwargs={**msg.kwargs, "dose": plain(self.guard.describe())})
        return self.shift.forth(msg)

    def leave(self) -> MsgGenerator[None]:
        """Leave everything as it was found, the shutter first."""
        yield from close_shutter(self.beamline)
        yield from self.records.end_of_plan()
        self.shift.forget()
        yield from restore_exposures(self.guard, *self.windowed)

    # -- exposures ------------------------------------------------------------------------------------------------------------------

    def trigger(self, messages: list[Msg]) -> MsgGenerator[None]:
        """Carry out the triggers of one group."""
        if not any(msg.obj in self.detectors for msg in messages):
            for msg in messages:
                yield msg
            return
        wanted = []
        for msg in messages:
            wanted.append((yield from exposure_of(self.guard, msg.obj)))
            if acquire_time_of(msg.obj) is not None:
                self.windowed.add(msg.obj)
        exposure_s = max((seconds for seconds in wanted if seconds), default=0.0)
        if not exposure_s > 0:
            raise ExposureFailed(f"{messages[0].obj.name} does not say how long it exposes; the shutter stayed closed")
        for _ in range(REPEATS):
            delivery = yield from guarded_exposure(
                self.beamline,
                self.guard,
                exposure_s=exposure_s,
                label="wrapped",
                triggers=messages,
                remedies=self.remedies,
            )
            yield from self.records.pass_on_warnings()
            if not delivery.interrupted:
                return
            told = f"shutter open for {delivery.open_time_s:.4f} s of {exposure_s:.4f} s: the exposure is made again"
            yield from self.records.tell("repeat", told, open_time_s=delivery.open_time_s, exposure_s=exposure_s)
        raise ExposureFailed(
            f"the shutter was closed early in {REPEATS} attempts at one exposure; see the log for who closed it"
        )

    def kick_off(self, messages: list[Msg]) -> MsgGenerator[None]:
        """Carry out the kickoffs of one group."""
        if all(beam_time_s(msg.obj, self.beam_times) is None for msg in messages):
            for msg in messages:
                logger.warning(
                    "%s does not say how long it needs the beam: it flies with the shutter closed", msg.obj.name
                )
                yield msg
            return
        yield from guarded_flight(
            self.beamline, self.guard, messages, beam_times=self.beam_times, remedies=self.remedies
        )
        self.flown.update(msg.obj for msg in messages)
        yield from self.records.pass_on_warnings()

    def relocate(self, refusal: DoseRefused, request: ExposureRequest) -> MsgGenerator[bool]:
        """Move to a fresh spot, and the rest of the plan with it."""
        if self.guard.choose_spot is None:
            logger.warning("the policy is to relocate, but the guard has no choose_spot")
            return False
        spot = yield from call_in(self.guard.executor, self.guard.choose_spot, request.x_um, request.y_um)
        if spot is None:
            return False
        way_um = (spot[0] - request.x_um, spot[1] - request.y_um)
        reason = f"{refusal}; the plan goes on {math.hypot(*way_um):.0f} µm away, shifted by ({way_um[0]:+.1f}, {way_um[1]:+.1f}) µm"
        inputs = {**inputs_of(refusal), "to_x_um": spot[0], "to_y_um": spot[1]}
        yield from self.records.tell("relocate", reason, threshold=refusal.limit_gy, **inputs)
        yield from close_shutter(self.beamline)
        yield from self.shift.by(way_um)
        return True
