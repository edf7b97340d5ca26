"""The loop of the guard process: look, decide, act. It is told what to do by `decide` and never waits for anything."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from xbat_live.dose import LedgerError, format_gy
from xbat_live.dose.flux_history import FluxMean
from xbat_live.dose.limits import LimitChange
from xbat_live.watchdog.beam_watch import Look
from xbat_live.watchdog.booking import Booked, Bookkeeper, Job, Place
from xbat_live.watchdog.decide import EPSILON_S, UNKNOWN, Act, Rules, Scene, decide
from xbat_live.watchdog.meter import Due, OpenTimeMeter, is_behind
from xbat_live.watchdog.report import Teller
from xbat_live.watchdog.tail import LedgerTail

BUSY_S, IDLE_S = 0.05, 0.1
_RETRY_S = 2.0
_CONNECT_S = 3.0
_ALARM_S = 10.0
_MOVED_SHARE = 0.2  # of the footprint
_MOVED_EVERY_S = 0.2
_LEFT_EVERY_S = 0.5
HAND_OPENING = "shutter opened outside any exposure"


class Eyes(Protocol):
    """What the loop needs of `BeamWatch`."""

    def look(self) -> Look:
        """See `BeamWatch`."""

    def counter_now(self) -> float | None:
        """See `BeamWatch`."""

    def place(self) -> Place | None:
        """See `BeamWatch`."""

    def flux(self, t0_s: float, t1_s: float) -> FluxMean:
        """See `BeamWatch`."""

    def flux_now(self) -> FluxMean:
        """See `BeamWatch`."""

    def close_shutter(self) -> bool:
        """See `BeamWatch`."""

    def wait_for_change(self, timeout_s: float) -> None:
        """See `BeamWatch`."""


class GuardService:
    """Watches one sample until it is told to leave.

    Parameters
    ----------
    eyes
        Shutter, flux, stage.
    tail
        The ledger as others write it.
    keeper
        Writes it when nobody else does.
    writes
        Tells whether another process writes a ledger in this folder.
    teller, rules
        Where events go, and the times of decisions.
    footprint_um
        Width of the beam, um: a stage that moved by a fifth of it is at another place.
    parent_alive
        Tells whether the process that started this one lives; None: there is none.
    clock
        Monotonic clock, s.
    """

    def __init__(
        self,
        eyes: Eyes,
        tail: LedgerTail,
        keeper: Bookkeeper,
        *,
        writes: Callable[[], bool],
        teller: Teller,
        rules: Rules,
        footprint_um: float,
        parent_alive: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._eyes, self._tail, self._keeper, self._writes = eyes, tail, keeper, writes
        self._teller, self._rules, self._footprint_um = teller, rules, footprint_um
        self._parent_alive, self._clock = parent_alive, clock
        self._meter = OpenTimeMeter()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="guard-ledger")
        self._booking: tuple[Future[Booked | None], Due] | None = None
        self._asking: Future[float] | None = None
        self._stopped_s: float | None = None
        self._followed = -1
        self._close_sent_s: float | None = None
        self._condemned = ""
        self._alarmed_s = -math.inf
        self._not_before_s = -math.inf  # the ledger could not be written: not again before
        self._place: Place | None = None  # where the uncounted time is given
        self._since_s = clock()  # of the uncounted time
        self._watched = False
        self._was_open = True  # nothing is known: what is found open was not seen to be opened
        self._opened_at_s: float | None = None
        self._told_open = False
        self._left_s: float | None = None
        self._limits_followed: Mapping[str, LimitChange] = {}
        self._asked_s = -math.inf
        self._seen_position: str | None = None
        self._heard = False
        self._started_s = clock()
        self.last_look: Look | None = None

    def request_stop(self) -> None:
        """Ask the loop to end in order; from a signal handler."""
        self._stopped_s = self._stopped_s or self._clock()

    def run(self) -> None:
        """Look, decide and act until it is time to leave."""
        try:
            while self.step():
                busy = self._was_open or self._booking is not None or self._tail.promise is not None
                self._eyes.wait_for_change(BUSY_S if busy else IDLE_S)
        finally:
            self._worker.shutdown(wait=True)
            self._keeper.close()
            self._tail.close()

    @property
    def settled(self) -> bool:
        """Whether the shutter is closed and nothing is to be written."""
        look = self.last_look
        known = look is not None and look.position == "Closed" and look.counter_s is not None
        idle = self._booking is None and self._tail.promise is None
        return known and idle and self._meter.uncounted_s() <= EPSILON_S

    def step(self) -> bool:
        """Do one round; False when the guard leaves."""
        self._collect()
        now_s = self._clock()
        look = self._not_behind(self._eyes.look(), self._meter.counter_s)
        # after it: reserved is on disk before the shutter opens
        look = self.last_look = self._follow_ledger(now_s, look)
        self._meter.see(now_s, look.position, look.counter_s)
        scene = self._scene(now_s, look)
        self._notice(scene)
        for action in decide(scene, self._rules):
            if action.act is Act.CLOSE:
                self._close(scene, action.reason)
            elif action.act is Act.BOOK:
                self._book(scene, look, action.reason)
            else:
                self._leave(scene, action.reason)
                return False
        self._ask_for_left(scene)
        return True

    # -- looking -----------------------------------------------------------------------------------------------------

    def _scene(self, now_s: float, look: Look) -> Scene:
        is_open = look.position != "Closed"
        promise, uncounted_s = self._tail.promise, self._meter.uncounted_s()
        self._follow_limits()
        interesting = is_open or promise is not None or uncounted_s > EPSILON_S
        writer = interesting and self._others_write()
        if not is_open or look.opened_at_s != self._opened_at_s:
            self._close_sent_s, self._condemned = None, ""
            self._told_open, self._opened_at_s = False, look.opened_at_s
        if not is_open:
            self._left_s = None
        elif not self._was_open:
            self._watched = not writer and promise is None
            self._place, self._since_s = self._eyes.place(), min(look.opened_at_s or now_s, now_s)
        self._was_open = is_open
        moved = is_open and not writer and self._has_moved(now_s)
        return Scene(
            now_s=now_s,
            position=look.position,
            open_since_s=look.opened_at_s if is_open else None,
            unknown_since_s=look.unknown_since_s if self._introduced(now_s, look) else None,
            counter_s=look.counter_s,
            writer=writer,
            promise=promise,
            uncounted_s=uncounted_s,
            left_s=None if self._left_s is None else self._left_s - uncounted_s,
            moved=moved,
            booking=self._booking is not None or now_s < self._not_before_s,
            close_sent_s=self._close_sent_s,
            condemned=self._condemned,
            parent_alive=None if self._parent_alive is None else self._parent_alive(),
            stop_for_s=None if self._stopped_s is None else now_s - self._stopped_s,
        )

    def _others_write(self) -> bool:
        return not self._keeper.holding and self._booking is None and self._writes()

    def _follow_limits(self) -> None:
        """Take the limits that a living run has changed; they are that run's, and go with it."""
        changed = self._tail.changed_limits
        limits = changed if changed and self._others_write() else {}
        if limits != self._limits_followed:
            self._limits_followed, self._left_s, self._asking, self._asked_s = limits, None, None, -math.inf
            told = ", ".join(f"{change.name} {format_gy(change.value, change.unit)}" for change in limits.values())
            text = (
                f"limits that the run has changed: {told}" if limits else "the limits of the experiment file hold again"
            )
            self._teller.tell("limits", text, limits={change.name: change.value for change in limits.values()})

    def _introduced(self, now_s: float, look: Look) -> bool:
        """Whether the shutter was heard of once, or had the time: until then a guard that starts does not command it."""
        if not self._heard and look.position is not None and look.counter_s is not None:
            text = f"shutter {look.position}, open for {look.counter_s:.3f} s by its counter"
            self._teller.tell("heard", text, position=look.position, counter_s=look.counter_s)
            self._heard = True
        return self._heard or now_s - self._started_s > _CONNECT_S

    def _has_moved(self, now_s: float) -> bool:
        place, before = self._eyes.place(), self._place
        if place is None or before is None or now_s - self._since_s < _MOVED_EVERY_S:
            return False
        way_um = math.dist((place.x_um, place.y_um), (before.x_um, before.y_um))
        return way_um > _MOVED_SHARE * self._footprint_um

    def _follow_ledger(self, now_s: float, look: Look) -> Look:
        """Read what was written; return the look, with a counter as new as the ledger's."""
        try:
            grown = self._tail.poll()
        except LedgerError as error:
            self._teller.once("ledger", f"unreadable: {error}", f"the ledger cannot be read, trying on: {error}")
            return look
        self._teller.forget("ledger")
        if grown:
            self._worker.submit(self._keeper.refresh)
        last_s = self._tail.last_counter_s
        look, published_s = self._not_behind(look, last_s), look.counter_s
        if look.counter_s is None and published_s is not None:  # it does not answer: next time
            return look
        if self._tail.foreign_records != self._followed:  # another process has written, or this is the first look
            self._followed = self._tail.foreign_records
            self._meter.see(now_s, look.position, look.counter_s)
            self._meter.follow(last_s, heard=look.counter_s is not None)
        return look

    def _not_behind(self, look: Look, known_s: float | None) -> Look:
        """Return the look, with a counter that was asked for when the published one is below what is known, s.

        Late news of the shutter must not pass for an IOC that was restarted: all its openings would count again. Only a counter that is
        below it when it is asked for has started anew. None when the shutter does not answer.
        """
        return replace(look, counter_s=self._eyes.counter_now()) if is_behind(look.counter_s, known_s) else look

    def _notice(self, scene: Scene) -> None:
        """Tell what has changed."""
        heard = scene.position is not None
        if not heard and scene.unknown_since_s is not None:
            self._teller.once(
                "shutter", "lost", "the shutter is not heard of; it counts as open until it is", level=logging.ERROR
            )
        elif heard and self._teller.forget("shutter"):
            self._teller.tell("returned", f"the shutter is heard of again: {scene.position}")
        before, self._seen_position = self._seen_position, scene.position
        if not scene.is_open and before not in ("Closed", None):
            if self._told_open or (scene.promise is None and before != "Open"):
                self._teller.tell("closed", "shutter Closed", position="Closed")
        elif heard and scene.promise is None and not self._told_open and scene.open_for_s > self._rules.grace_s:
            self._told_open = True
            who = "while an acquisition lives" if scene.writer else "and nobody has reserved that; it is counted"
            text = f"shutter {scene.position}, {who}"
            self._teller.tell("opened", text, level=logging.WARNING, position=scene.position)

    # -- acting ------------------------------------------------------------------------------------------------------

    def _close(self, scene: Scene, reason: str) -> None:
        again = self._close_sent_s is not None
        self._close_sent_s = scene.now_s
        # A position that is known again is judged anew.
        self._condemned = "" if reason == UNKNOWN else reason
        sent = self._eyes.close_shutter()
        if not again:
            text = f"shutter told to close: {reason}" if sent else f"shutter cannot be told to close: {reason}"
            level = logging.WARNING if sent else logging.CRITICAL
            self._teller.tell("closing", text, level=level, reason=reason, sent=sent)
        elif scene.now_s - self._alarmed_s > _ALARM_S:
            self._alarmed_s = scene.now_s
            self._teller.tell(
                "stuck",
                f"the shutter does not close (position {scene.position or 'not known'}, open for {scene.open_for_s:.1f} s): "
                "close the beam by hand",
                level=logging.CRITICAL,
                open_for_s=round(scene.open_for_s, 2),
            )

    def _book(self, scene: Scene, look: Look, reason: str) -> None:
        due = self._meter.due()
        closed_s = look.closed_at_s if not scene.is_open and look.closed_at_s is not None else scene.now_s
        flux = self._eyes.flux(min(self._since_s, closed_s), closed_s)
        if not self._watched and scene.promise is None:
            now = self._eyes.flux_now()
            flux = now if now.flux_ph_s > flux.flux_ph_s else flux
        # A reservation's opening was watched when the guard saw it begin.
        watched = self._watched or (scene.promise is not None and self._since_s > self._started_s)
        job = Job(due, self._place or self._eyes.place(), flux, watched, HAND_OPENING, more_follows=scene.is_open)
        self._place, self._since_s = self._eyes.place(), scene.now_s
        logging.getLogger(__name__).debug("booking: %s", reason)
        self._booking = self._worker.submit(self._keeper.book, job), due

    def _collect(self) -> None:
        """Take the result of the last booking."""
        if self._booking is None or not self._booking[0].done():
            return
        (future, due), self._booking = self._booking, None
        try:
            booked = future.result()
        except Exception as error:  # whatever it is: the guard goes on closing the shutter
            self._not_before_s = self._clock() + _RETRY_S
            text = f"the ledger cannot be written, trying on: {error}"
            self._teller.once("booking", str(error), text, level=logging.CRITICAL)
            if not isinstance(error, LedgerError):
                logging.getLogger(__name__).exception("booking failed", exc_info=error)
            return
        if booked is None:
            return
        self._teller.forget("booking")
        self._meter.entered(due)
        for number in booked.standing:
            self._tail.forget(number)
        self._left_s = booked.left_s
        self._report(booked)

    def _report(self, booked: Booked) -> None:
        for item in booked.settled:
            self._teller.tell(
                "settled",
                f"reservation {item.reservation_id} of a dead acquisition settled: open for {item.open_time_s:.3f} s, "
                f"{format_gy(item.delivered_gy)} delivered",
                level=logging.WARNING,
                reservation=item.reservation_id,
                open_time_s=item.open_time_s,
                dose_gy=item.delivered_gy,
            )
        for number in booked.standing:
            self._teller.once(
                f"reservation {number}",
                "standing",
                f"reservation {number} of a dead acquisition stands in full: the shutter's counter does not tell",
                level=logging.WARNING,
                reservation=number,
            )
        if booked.counted_s > 0:
            left = "" if math.isinf(booked.left_s) else f", {booked.left_s:.1f} s left below the limit"
            flagged = f" (flux: {booked.degraded})" if booked.degraded else ""
            self._teller.tell(
                "counted",
                f"open for {booked.counted_s:.3f} s without reservation{flagged}: {format_gy(booked.counted_gy)} counted, "
                f"{format_gy(booked.peak_gy)} there now{left}",
                level=logging.WARNING,
                open_time_s=booked.counted_s,
                dose_gy=booked.counted_gy,
                peak_gy=booked.peak_gy,
                degraded=booked.degraded,
            )

    def _ask_for_left(self, scene: Scene) -> None:
        """Find out in the background how much an opening that nobody reserved may still give."""
        if self._asking is not None:
            if not self._asking.done():
                return
            asking, self._asking = self._asking, None
            try:
                self._left_s = asking.result()
            except Exception as error:
                self._teller.once("view", str(error), f"the limits cannot be watched, trying on: {error}")
            else:
                self._teller.forget("view")
        wanted = scene.is_open and scene.promise is None and self._left_s is None
        if (wanted or self._asked_s < 0) and self._booking is None and scene.now_s - self._asked_s > _LEFT_EVERY_S:
            self._asked_s = scene.now_s  # the first time only to be quick later
            flux_ph_s = self._eyes.flux_now().flux_ph_s
            self._asking = self._worker.submit(
                self._keeper.open_time_left_s, self._eyes.place(), flux_ph_s, self._limits_followed
            )

    def _leave(self, scene: Scene, reason: str) -> None:
        values: dict[str, Any] = {"position": scene.position, "uncounted_s": round(scene.uncounted_s, 3)}
        if scene.is_open:
            where = f"the shutter is {scene.position or 'not known'}, which counts as OPEN, and nobody watches it now"
            self._teller.tell("leaving", f"guard leaves ({reason}); {where}", level=logging.CRITICAL, **values)
        else:
            self._teller.tell("leaving", f"guard leaves ({reason}); the shutter is closed", **values)
