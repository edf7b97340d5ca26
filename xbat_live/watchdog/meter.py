"""How long the shutter was open since the last entry in the ledger, by its counter and by the clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_KNOWN = ("Closed", "Open")


def is_behind(counter_s: float | None, ledger_counter_s: float | None) -> bool:
    """Return True when a counter, s, is below what a ledger has already: it started anew, or the news of it is late."""
    return counter_s is not None and ledger_counter_s is not None and counter_s < ledger_counter_s - 1e-9


@dataclass(frozen=True)
class Due:
    """Open time that is to be entered in the ledger.

    Attributes
    ----------
    open_time_s
        How much, s.
    counter_s
        The shutter's counter that goes with it, s; None when it is not known.
    by_clock
        The clock had to stand in for the counter.
    """

    open_time_s: float
    counter_s: float | None
    by_clock: bool
    generation: int
    clock_open_s: float
    ahead_s: float


class OpenTimeMeter:
    """Shutter-open time that no record has yet.

    The shutter's own counter is exact, also over a network failure. Where it cannot be had the clock counts:

    * a position that is neither ``Open`` nor ``Closed`` counts as open while it lasts, whatever the counter says;
    * after a lost connection to a shutter that was open, all time counts as open until it is heard of again;
    * a shutter that was closed when the connection was lost counts when it is back: by its counter when that went on, and
      for the whole time when it started anew (the IOC was restarted, so nobody knows).
    """

    def __init__(self) -> None:
        self._now_s: float | None = None
        self._position: str | None = None
        self._counter_s: float | None = None  # last one heard, and when
        self._heard_s: float | None = None
        self._counted_s: float | None = None  # counter up to which the ledger has everything
        self._ahead_s = 0.0  # entered by the clock, beyond that
        self._carried_s = 0.0  # open before a restart of the IOC, and while nobody knew
        self._clock_open_s = 0.0  # by the clock since the last entry, connected: open or doubtful
        self._doubtful = False
        self._lost_s = 0.0  # since the connection was lost
        self._lost_open = False
        self._generation = 0

    def see(self, now_s: float, position: str | None, counter_s: float | None) -> None:
        """Take over what the shutter says now; None: not connected, or not confirmed.

        Parameters
        ----------
        now_s
            Monotonic time, s.
        position
            Of the shutter.
        counter_s
            Its open-time counter, s.
        """
        elapsed_s = 0.0 if self._now_s is None else max(now_s - self._now_s, 0.0)
        before, first = self._position, self._now_s is None
        if not first and before is None:
            self._lost_s += elapsed_s
        elif not first and before != "Closed":
            self._clock_open_s += elapsed_s
            self._doubtful |= before not in _KNOWN
        if position is None and before is not None:
            self._lost_open = before != "Closed"
            if self._lost_open and self._heard_s is not None:
                self._lost_s += now_s - self._heard_s
        self._now_s, self._position = now_s, position
        if position is not None and counter_s is not None:
            self._hear(now_s, counter_s)

    @property
    def counter_s(self) -> float | None:
        """The counter that was heard last, s. A lower one passes for an IOC that was restarted: `see` it only when that is sure."""
        return self._counter_s

    def uncounted_s(self) -> float:
        """Return the shutter-open time that is not in the ledger, s."""
        return self.due().open_time_s

    def due(self) -> Due:
        """Return what is to be entered now."""
        counter_s = self._counter_s if self._position is not None else None
        since_s = None if self._counter_s is None or self._counted_s is None else self._counter_s - self._counted_s
        by_clock = True
        if self._position is None:
            open_s = 0.0
            if self._lost_open:
                open_s = max((self._clock_open_s if since_s is None else since_s) + self._lost_s - self._ahead_s, 0.0)
        elif since_s is None:
            open_s = self._clock_open_s
        else:
            open_s = max(since_s - self._ahead_s, 0.0)
            by_clock = self._doubtful and self._clock_open_s > open_s
            if by_clock:
                open_s = self._clock_open_s
        ahead_s = self._ahead_s + open_s if counter_s is None else 0.0
        total_s = self._carried_s + open_s
        return Due(total_s, counter_s, by_clock or self._carried_s > 0, self._generation, self._clock_open_s, ahead_s)

    def entered(self, due: Due) -> None:
        """Note that the ledger has `due` now."""
        if due.generation != self._generation:  # the IOC was restarted while it was written
            self._carried_s = max(self._carried_s - due.open_time_s, 0.0)
            return
        if due.counter_s is not None:
            self._counted_s = due.counter_s
        self._ahead_s = due.ahead_s
        self._clock_open_s = max(self._clock_open_s - due.clock_open_s, 0.0)
        self._carried_s = 0.0
        self._doubtful = self._position not in (*_KNOWN, None)

    def follow(self, ledger_counter_s: float | None, *, heard: bool = True) -> None:
        """Take the ledger's word for how far it has counted, because another process wrote it; forget what was seen.

        Parameters
        ----------
        ledger_counter_s
            The counter in its last record, s. One above the shutter's own means that the IOC was restarted since: then
            everything since its start counts. None: nothing before now is known.
        heard
            The shutter's counter that was seen last is as new as that record. False: one below it is old news, and forgotten.
        """
        if not heard and is_behind(self._counter_s, ledger_counter_s):
            self._counter_s = None
        self._counted_s = self._counter_s if ledger_counter_s is None else ledger_counter_s
        self._check_counted()
        self._carried_s = self._clock_open_s = self._ahead_s = self._lost_s = 0.0
        self._doubtful = False

    def _hear(self, now_s: float, counter_s: float) -> None:
        if self._counter_s is not None and counter_s < self._counter_s - 1e-9:  # the IOC was restarted
            before_s = 0.0 if self._counted_s is None else self._counter_s - self._counted_s
            self._carried_s += max(before_s + self._lost_s - self._ahead_s, 0.0)
            self._counted_s, self._ahead_s, self._clock_open_s = 0.0, 0.0, 0.0
            self._generation += 1
        self._counter_s, self._heard_s = counter_s, now_s
        if self._counted_s is None:
            self._counted_s = counter_s
        self._check_counted()
        self._lost_s, self._lost_open = 0.0, False

    def _check_counted(self) -> None:
        if self._counter_s is not None and self._counted_s is not None and self._counted_s > self._counter_s + 1e-9:
            self._counted_s = 0.0
