"""What an operator wants of a running plan, and where the plan is with it: a mailbox between the operator's threads and the plan.

The RunEngine is never told to pause: the plan itself stops at its next safe place (see `steering_wrapper`), so that it can go on
writing Events while it is paused. What protects the sample, closing the shutter, does not wait for the plan.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bluesky.utils import Msg, MsgGenerator

ORDER, HOLD, IDLE, HELD = "order", "hold", "idle", "held"
RELOCATE, SKIP_SPOT = "relocate", "skip_spot"


class SteeringRefused(RuntimeError):  # noqa: N818
    """The run cannot do that now; the message says why."""


class Phase(StrEnum):
    """Where a run is, as its operator sees it."""

    READY = "READY"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RELOCATING = "RELOCATING"
    STOPPING = "STOPPING"
    ABORTING = "ABORTING"
    ENDED = "ENDED"


@dataclass(frozen=True)
class Order:
    """A change of place that the plan is to make between two exposures.

    Attributes
    ----------
    kind
        ``relocate`` or ``skip_spot``.
    who
        Who wants it.
    spot_um
        Sample coordinate (x, y), um; None: the nearest fresh spot.
    """

    kind: str
    who: str
    spot_um: tuple[float, float] | None = None


@dataclass(frozen=True)
class Remark:
    """What becomes an Event of the stream ``operator``: the fields of `xbat_live.devices.OperatorRecord`."""

    values: dict[str, Any] = field(default_factory=dict)


class Steering:
    """Operator's wishes for one run; may be used from several threads.

    Parameters
    ----------
    hold_beam
        Closes the shutter at once and keeps it closed; from any thread, without waiting.
    release_beam
        Lets the shutter be opened again; it does not open by itself.
    abort
        Ends the run at once, given a reason; it may block, and is called in a thread of its own.
    """

    def __init__(
        self,
        *,
        hold_beam: Callable[[], object] = lambda: None,
        release_beam: Callable[[], object] = lambda: None,
        abort: Callable[[str], object] = lambda reason: None,
    ) -> None:
        self._hold_beam, self._release_beam, self._abort = hold_beam, release_beam, abort
        self._lock = threading.RLock()
        self._began = self._ended = False
        self._pause = self._at_once = self._holding = False
        self._stop = self._aborted = False
        self._order: Order | None = None
        self._moving = False
        self._remarks: deque[Remark] = deque()
        self._changed: Future[None] = Future()
        self.accepts: frozenset[str] | None = None
        """The orders that the plan can carry out; None: it has not come to its first place for one."""

    # -- the operator's side, any thread ---------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where the run is."""
        with self._lock:
            if self._ended:
                return Phase.ENDED
            if self._aborted:
                return Phase.ABORTING
            if self._stop:
                return Phase.STOPPING
            if self._pause:
                return Phase.PAUSED if self._holding else Phase.PAUSING
            if self._order is not None or self._moving:
                return Phase.RELOCATING
            return Phase.RUNNING if self._began else Phase.READY

    @property
    def ended_by(self) -> str:
        """``stop`` or ``abort`` when the operator ended the run that way, else empty."""
        return "abort" if self._aborted else "stop" if self._stop else ""

    def pause(self, *, at_once: bool = False) -> str:
        """Stop exposing: after the frame under way, or `at_once`, which closes the shutter before this returns.

        Asking `at_once` for a pause that was asked for later makes it one. Return what happens, in words.

        Raises
        ------
        SteeringRefused
            The run is over or ending, or paused already.
        """
        with self._lock:
            self._check_going("pause")
            if self.phase is Phase.PAUSED:
                raise SteeringRefused("the run is paused already")
            if self._pause and (self._at_once or not at_once):
                raise SteeringRefused("a pause is under way already; to escalate: pause --now, stop or abort")
            self._pause = True
            if at_once:
                self._at_once = True
                self._hold_beam()
            self._tell_phase()
        if at_once:
            return "shutter told to close; the exposure under way is cut short, counted by the shutter's counter, and marked"
        return "the frame under way is finished first"

    def resume(self) -> str:
        """Go on after a pause, or take back one that has not come about. Return what happens, in words.

        Raises
        ------
        SteeringRefused
            The run is not paused, or it is over or ending.
        """
        with self._lock:
            self._check_going("resume")
            if not self._pause:
                raise SteeringRefused("the run is not paused")
            self._pause = self._at_once = False
            self._release_beam()
            self._tell_phase()
        return "the run goes on; an exposure that was cut short is taken again while retakes are left"

    def order(self, order: Order) -> str:
        """Have the plan change its place before its next exposure. Return what happens, in words.

        Raises
        ------
        SteeringRefused
            The plan cannot, has not begun, or is ending; or another change of place is under way.
        """
        with self._lock:
            self._check_going(order.kind)
            if self.accepts is None:
                raise SteeringRefused("the plan has not come to its first exposure of the sample yet; try again then")
            if order.kind not in self.accepts:
                known = ", ".join(sorted(self.accepts)) or "none of them"
                raise SteeringRefused(f"this plan keeps its places; of relocate and skip_spot it knows {known}")
            if self._order is not None:
                raise SteeringRefused("a change of place is under way already")
            self._order = order
            self._tell_phase()
            paused = self._pause
        return "the stage moves when the run is resumed" if paused else "the stage moves before the next exposure"

    def stop(self) -> str:
        """End the run in order after the frame under way; what was measured is kept. Return what happens, in words.

        Raises
        ------
        SteeringRefused
            The run is over or ending.
        """
        with self._lock:
            self._check_going("stop")
            self._stop = True
            self._tell_phase()
        return "the frame under way is finished, then the run ends in order with the shutter closed"

    def abort(self, reason: str) -> str:
        """End the run now: the shutter is told to close before this returns. Return what happens, in words.

        Raises
        ------
        SteeringRefused
            The run is over, or aborting already.
        """
        with self._lock:
            if self._aborted or self._ended or not self._began:
                self._check_going("abort")
            self._aborted = True
            self._hold_beam()
            self._tell_phase()
        return "shutter told to close; the run ends at once"

    def carry_out_abort(self, reason: str) -> None:
        """End the run that `abort` has condemned; separate, so that the command is acknowledged and noted before."""
        threading.Thread(target=self._abort, args=(reason,), name="abort", daemon=True).start()

    def remark(self, **values: Any) -> None:
        """Leave an Event for the stream ``operator``; see `xbat_live.devices.OperatorRecord` for its fields."""
        with self._lock:
            self._remarks.append(Remark(values))
            self._notify()

    # -- the plan's side -------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Note that the plan begins."""
        with self._lock:
            self._began, self._ended = True, False
            self._notify()

    def end(self) -> None:
        """Note that the plan is over."""
        with self._lock:
            self._ended = True
            self._release_beam()
            self._notify()

    def changed(self) -> Future[None]:
        """Return a future that is done when something has changed since this call."""
        with self._lock:
            return self._changed

    @property
    def must_pause(self) -> bool:
        """The plan has to pause."""
        return self._pause and not self.must_end

    @property
    def must_end(self) -> bool:
        """The plan has to end."""
        return self._stop or self._aborted

    def hold(self) -> None:
        """Note that the plan has come to its safe place: nothing is exposed until `leave_hold`."""
        with self._lock:
            self._holding = True
            self._hold_beam()
            self._tell_phase()

    def leave_hold(self) -> None:
        """Note that the plan goes on."""
        with self._lock:
            self._holding = False
            if not self._pause:
                self._release_beam()

    def take_order(self, accepts: frozenset[str]) -> Order | None:
        """Return the change of place that is wanted; the plan is at a place where it can make one of `accepts`."""
        with self._lock:
            self.accepts = accepts
            if self._order is not None and self._order.kind in accepts:
                order, self._order, self._moving = self._order, None, True
                return order
            if self._moving:
                self._moving = False
                self._tell_phase()
            return None

    def next_remark(self) -> Remark | None:
        """Return the oldest remark that is not written yet; it stays until `wrote`."""
        with self._lock:
            return self._remarks[0] if self._remarks else None

    def wrote(self, remark: Remark) -> None:
        """Note that a remark was written."""
        with self._lock:
            if self._remarks and self._remarks[0] is remark:
                self._remarks.popleft()

    # -- inside ----------------------------------------------------------------------------------------------------------------------

    def _check_going(self, what: str) -> None:
        phase = self.phase
        if phase in (Phase.READY, Phase.ENDED):
            raise SteeringRefused(f"{what}: the run {'has not begun' if phase is Phase.READY else 'is over'}")
        if phase in (Phase.STOPPING, Phase.ABORTING):
            raise SteeringRefused(f"{what}: the run is {phase.lower()}" + ("; abort ends it now" if self._stop else ""))

    def _tell_phase(self) -> None:
        self.remark(command="state", state=str(self.phase), ok=1)

    def _notify(self) -> None:
        done, self._changed = self._changed, Future()
        done.set_result(None)


# -- what plans say to `steering_wrapper`; without one these are null messages ----------------------------------------------------------


def take_order(*accepts: str) -> MsgGenerator[Order | None]:
    """Plan stub: ask for a change of place, at a place of the plan where one of `accepts` can be carried out."""
    return (yield Msg("null", None, steering=ORDER, accepts=frozenset(accepts)))


def hold_point() -> MsgGenerator[None]:
    """Plan stub: stay here while the run is paused, whatever has been begun; no Event is written meanwhile."""
    yield Msg("null", None, steering=HOLD)


def while_paused(stub: Callable[[], MsgGenerator[None]] | None) -> MsgGenerator[None]:
    """Plan stub: have `stub` run about every second while the run is paused, for what goes on without beam; None: no more."""
    yield Msg("null", None, steering=IDLE, stub=stub)


def paused_s() -> MsgGenerator[float]:
    """Plan stub: return for how long this plan has been paused in all, s."""
    return float((yield Msg("null", None, steering=HELD)) or 0.0)
