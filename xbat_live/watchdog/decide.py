"""What the guard does in which situation: one pure function, so that every case can be written down and tested."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

EPSILON_S = 1e-4
UNKNOWN = "its position is unknown"
GONE = "the acquisition that reserved the exposure is gone"
LIMIT = "a limit would be exceeded"


class Act(Enum):
    """What the shell is told to do."""

    CLOSE = "close"
    """Command the shutter to close, without waiting."""
    BOOK = "book"
    """Take the ledger: settle what a dead acquisition left, count what nobody reserved."""
    LEAVE = "leave"
    """End the process."""


@dataclass(frozen=True)
class Action:
    """One thing to do, and why, in words."""

    act: Act
    reason: str


@dataclass(frozen=True)
class Promise:
    """The newest reservation in the ledger that has not ended.

    Attributes
    ----------
    number
        Its record number.
    open_time_s
        Shutter-open time reserved, s.
    counter_s
        The shutter's open-time counter when it was made, s; None when it was not recorded.
    """

    number: int
    open_time_s: float
    counter_s: float | None = None


@dataclass(frozen=True)
class Rules:
    """Times of the guard, s.

    Attributes
    ----------
    grace_s
        How much longer than reserved, or how long unknown, the shutter may be before it is closed.
    count_every_s
        A hand opening is written to the ledger so often.
    retry_s
        A command to close is repeated so often.
    reaction_s
        Shutter-open time kept free below a limit for the guard to act.
    give_up_s
        A guard whose parent is gone leaves when the shutter has not been heard of for so long.
    last_word_s
        A guard that is asked to end may take so long to write down what it knows.
    """

    grace_s: float = 0.2
    count_every_s: float = 1.0
    retry_s: float = 1.0
    reaction_s: float = 0.15
    give_up_s: float = 300.0
    last_word_s: float = 3.0


@dataclass(frozen=True)
class Scene:
    """All that a decision depends on. Times are of a monotonic clock, s.

    Attributes
    ----------
    now_s
        Present time.
    position
        What the shutter says; None: not connected, or not confirmed lately. Anything but ``Closed`` counts as open.
    open_since_s
        Since when it counts as open; None while it is closed.
    unknown_since_s
        Since when it is neither ``Open`` nor ``Closed``; None when it is.
    counter_s
        The shutter's open-time counter now; None when it cannot be read.
    writer
        Another process holds the ledger: an acquisition lives.
    promise
        The newest open reservation.
    uncounted_s
        Shutter-open time that is in no record, while no acquisition lives.
    left_s
        Shutter-open time until a limit is reached, here and with the present flux; None when it is not known.
    moved
        The stage has left the place where the uncounted time was given.
    booking
        The ledger is being written in the background.
    close_sent_s
        When the last command to close was sent for the present opening; None: not yet.
    condemned
        Why the present opening was told to end before; it is told so again until it has ended. Empty: it was not.
    parent_alive
        False: the process that started this guard is gone; None: there is none, the guard stays.
    stop_for_s
        How long ago somebody asked the guard to end, s; None: nobody has.
    """

    now_s: float
    position: str | None = "Closed"
    open_since_s: float | None = None
    unknown_since_s: float | None = None
    counter_s: float | None = None
    writer: bool = False
    promise: Promise | None = None
    uncounted_s: float = 0.0
    left_s: float | None = None
    moved: bool = False
    booking: bool = False
    close_sent_s: float | None = None
    condemned: str = ""
    parent_alive: bool | None = None
    stop_for_s: float | None = None

    @property
    def is_open(self) -> bool:
        """True unless the shutter is known to be closed."""
        return self.position != "Closed"

    @property
    def open_for_s(self) -> float:
        """Time the shutter has counted as open, s."""
        return 0.0 if self.open_since_s is None else max(self.now_s - self.open_since_s, 0.0)


def decide(scene: Scene, rules: Rules) -> tuple[Action, ...]:
    """Return what to do now, most urgent first.

    The shutter is never opened. It is closed when it is open longer than reserved, when its position is unknown, when the
    acquisition that reserved is gone, and when an opening that nobody reserved would exceed a limit. An opening by hand
    within the limits is counted, not ended.
    """
    actions = []
    reason = _why_close(scene, rules)
    if reason and (scene.close_sent_s is None or scene.now_s - scene.close_sent_s >= rules.retry_s):
        actions.append(Action(Act.CLOSE, reason))
    reason = _why_book(scene, rules)
    if reason and not scene.booking:
        actions.append(Action(Act.BOOK, reason))
    reason = _why_leave(scene, rules)
    if reason:
        actions.append(Action(Act.LEAVE, reason))
    return tuple(actions)


def _why_close(scene: Scene, rules: Rules) -> str:  # noqa: PLR0911 - a table of cases
    if not scene.is_open:
        return ""
    if scene.condemned:
        return scene.condemned
    if scene.unknown_since_s is not None and scene.now_s - scene.unknown_since_s > rules.grace_s:
        return UNKNOWN
    if scene.promise is not None:
        if not scene.writer:
            return GONE
        open_s = _open_under(scene, scene.promise)
        if open_s > scene.promise.open_time_s + rules.grace_s:
            return f"it is open for {open_s:.2f} s, {scene.promise.open_time_s:.2f} s were reserved"
        return ""
    if scene.left_s is not None and scene.left_s <= rules.reaction_s and scene.open_for_s > 0:
        return LIMIT
    return ""


def _open_under(scene: Scene, promise: Promise) -> float:
    """Time the shutter was open under a reservation: by its own counter, which nothing on the way can delay, if there is one."""
    by_clock_s = scene.open_for_s
    if promise.counter_s is None or scene.counter_s is None or scene.counter_s < promise.counter_s:
        return by_clock_s
    # the counter of a shutter that counts only at the end of an opening stands still meanwhile
    by_counter_s = scene.counter_s - promise.counter_s
    return by_counter_s if by_counter_s > EPSILON_S else by_clock_s


def _why_book(scene: Scene, rules: Rules) -> str:  # noqa: PLR0911 - a table of cases
    if scene.writer:
        return ""
    if scene.promise is not None:
        if scene.position is None:
            return ""  # its counter will tell when it is heard of again
        if not scene.is_open:
            return "a reservation was left behind"
        # the command to close gets its chance first: what is settled then is all there was
        tried = scene.close_sent_s is not None and scene.open_for_s > rules.count_every_s
        return "a reservation was left behind, and the shutter does not close" if tried else ""
    if scene.uncounted_s <= EPSILON_S:
        return ""
    if not scene.is_open:
        return "an opening has ended"
    if scene.moved:
        return "the stage moved under the open shutter"
    if scene.stop_for_s is not None and scene.uncounted_s > rules.grace_s:
        return "the guard leaves"
    return "the shutter is open" if scene.uncounted_s >= rules.count_every_s else ""


def _why_leave(scene: Scene, rules: Rules) -> str:
    if scene.stop_for_s is not None:
        return "" if scene.stop_for_s < rules.last_word_s and _unfinished(scene, rules) else "asked to"
    if scene.parent_alive is not False or scene.booking:
        return ""
    if not scene.is_open and not _unfinished(scene, rules):
        return "the process that started it is gone, the shutter is closed and everything is settled"
    unheard_s = (
        0.0 if scene.unknown_since_s is None or scene.position is not None else scene.now_s - scene.unknown_since_s
    )
    if unheard_s > rules.give_up_s:
        return f"the process that started it is gone, and the shutter was not heard of for {unheard_s:.0f} s"
    return ""


def _unfinished(scene: Scene, rules: Rules) -> bool:
    """Whether there is something left to write."""
    if scene.booking:
        return True
    if scene.is_open:
        return not scene.writer and scene.promise is None and scene.uncounted_s > rules.grace_s
    return scene.promise is not None or (not scene.writer and scene.uncounted_s > EPSILON_S)
