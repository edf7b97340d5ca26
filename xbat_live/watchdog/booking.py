"""Writes the ledger when nobody else does, and asks it how much a hand opening may still give."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from xbat_live.dose import UNLIMITED, DoseAccount, ExposureRequest, Ledger, LedgerLocked, Settlement
from xbat_live.dose.flux_history import FluxMean
from xbat_live.dose.limits import LimitChange
from xbat_live.dose.openings import counted_elsewhere_s, left_behind, openings_since, settle_left_behind
from xbat_live.watchdog.meter import Due, is_behind

logger = logging.getLogger(__name__)

EPSILON_S = 1e-4
STEP_S = 0.05
"""Resolution of the open time that is left below a limit, s."""


@dataclass(frozen=True)
class Place:
    """What is in the beam: stage reading, um, and energy, eV."""

    x_um: float
    y_um: float
    energy_ev: float


@dataclass(frozen=True)
class Job:
    """What is to be written.

    Attributes
    ----------
    due
        Open time that nobody reserved.
    place
        Where the beam is; None when the stage was never heard of.
    flux
        Mean flux during the uncounted time.
    watched
        The guard saw the opening and where the stage was.
    reason
        Kept with the record.
    more_follows
        The shutter is still open: the ledger is kept.
    """

    due: Due
    place: Place | None
    flux: FluxMean
    watched: bool
    reason: str
    more_follows: bool


@dataclass(frozen=True)
class Booked:
    """What was written.

    Attributes
    ----------
    settled
        Reservations of a dead acquisition.
    standing
        Numbers of those that stand in full, because nothing is known.
    counted_s, counted_gy
        Open time that nobody reserved, s, and the largest dose it gave, Gy.
    peak_gy
        Largest dose at that place now, Gy.
    left_s
        Open time until a limit is reached, s.
    """

    settled: tuple[Settlement, ...]
    standing: tuple[int, ...]
    counted_s: float
    counted_gy: float
    peak_gy: float
    left_s: float
    degraded: str = ""


class Bookkeeper:
    """Opens the ledger for moments only; the caller sees to it that one job runs at a time.

    Parameters
    ----------
    path
        The ledger; it is made when something must be recorded.
    open_account
        Opens it for writing without waiting; raises `LedgerLocked` while another process has it.
    make_account
        Makes an account on a ledger that is open.
    counter_now
        Asks the shutter for its open-time counter, s; None when it does not answer.
    outline_um, energy_ev
        Size (x, y) of the sample, um, and photon energy where the monochromator was never heard of, eV.
    """

    def __init__(
        self,
        path: Path,
        *,
        open_account: Callable[[], AbstractContextManager[DoseAccount]],
        make_account: Callable[[Ledger], DoseAccount],
        counter_now: Callable[[], float | None],
        outline_um: tuple[float, float],
        energy_ev: float,
    ) -> None:
        self.path = path
        self._open_account, self._make_account, self._counter_now = open_account, make_account, counter_now
        self._outline_um, self._energy_ev = outline_um, energy_ev
        self._held: tuple[ExitStack, DoseAccount] | None = None
        self._view: tuple[ExitStack, DoseAccount] | None = None
        self._viewed_with: Mapping[str, LimitChange] = {}

    @property
    def holding(self) -> bool:
        """Whether this process has the ledger."""
        return self._held is not None

    def book(self, job: Job) -> Booked | None:
        """Settle what was left, count what was not reserved; None: not now, another process has the ledger or has just had it.

        Raises
        ------
        LedgerError
            Not written; the job may be tried again.
        """
        fresh = self._held is None
        try:
            account = self._take()
        except LedgerLocked:
            return None
        try:
            if is_behind(job.due.counter_s, account.last_counter_s) and self._is_late(account.last_counter_s):
                self.release()
                return None
            booked = self._book(account, job, fresh=fresh)
        except BaseException:
            self.release()
            raise
        if not job.more_follows:
            self.release()
        return booked

    def open_time_left_s(
        self, place: Place | None, flux_ph_s: float, limits: Mapping[str, LimitChange] = MappingProxyType({})
    ) -> float:
        """Return how long the shutter may be open here before a limit is reached, s; by a view that takes no lock.

        Parameters
        ----------
        place, flux_ph_s
            Where, and with which flux, photons/s.
        limits
            Limits that the run which is going on has changed, by name.

        Raises
        ------
        LedgerError
            The ledger cannot be read.
        """
        account = self._held[1] if self._held is not None else self._look(limits)
        return self._left_s(account, self._request(account, place, flux_ph_s))

    def refresh(self) -> None:
        """Forget the view, because the ledger has grown; the next question reads it again."""
        if self._view is not None:
            self._view[0].close()
        self._view = None

    def release(self) -> None:
        """Give the ledger to whoever wants it."""
        held, self._held = self._held, None
        if held is not None:
            held[0].close()

    def close(self) -> None:
        """Give everything up."""
        self.release()
        self.refresh()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _is_late(self, last_counter_s: float | None) -> bool:
        """Tell a counter that is behind the ledger because the news of it is late from one that started anew."""
        now_s = self._counter_now()
        return now_s is None or not is_behind(now_s, last_counter_s)

    def _take(self) -> DoseAccount:
        if self._held is None:
            stack = ExitStack()
            account = stack.enter_context(self._open_account())
            self._held = stack, account
            self.refresh()
        return self._held[1]

    def _look(self, limits: Mapping[str, LimitChange]) -> DoseAccount:
        if limits != self._viewed_with:
            self.refresh()
        if self._view is None:
            with ExitStack() as stack:
                if self.path.is_file():
                    ledger = stack.enter_context(Ledger(self.path, read_only=True))
                else:  # an account needs one; nothing is made beside the experiment for a question
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xbat-guard-"))
                    ledger = stack.enter_context(Ledger(Path(folder) / "none.sqlite"))
                account = self._make_account(ledger)
                for change in limits.values():
                    try:
                        account.take_limit(change.name, change.value)
                    except ValueError as error:  # the run was given another experiment file than the guard
                        logger.warning("a limit that the run has changed is not watched: %s", error)
                self._view, self._viewed_with = (stack.pop_all(), account), limits
        return self._view[1]

    def _book(self, account: DoseAccount, job: Job, *, fresh: bool) -> Booked:
        due = job.due
        had_none = account.last_counter_s is None
        settled = self._settle(account, job) if fresh else ()
        standing = tuple(account.unsettled) if fresh else ()
        elsewhere_s = counted_elsewhere_s(account.ledger) if fresh else 0.0
        if due.counter_s is None or had_none:
            open_s = due.open_time_s - sum(item.open_time_s for item in settled)
        else:
            open_s = openings_since(account.last_counter_s, due.counter_s, elsewhere_s=elsewhere_s)
            if due.by_clock:
                open_s = max(open_s, due.open_time_s - sum(item.open_time_s for item in settled))
        request = self._request(account, job.place, job.flux.flux_ph_s)
        counted_gy, peak_gy = 0.0, 0.0
        if open_s > EPSILON_S:
            for place in self._places(account, request, watched=job.watched):
                given = replace(place, open_time_s=open_s, label="unreserved")
                result = account.record_unreserved(
                    given, job.reason, counter_s=due.counter_s, degraded=job.flux.degraded
                )
                counted_gy, peak_gy = max(counted_gy, result.delivered_gy), max(peak_gy, result.peak_total_gy)
        else:
            open_s = 0.0
        left_s = self._left_s(account, request) if job.more_follows else math.inf
        return Booked(settled, standing, open_s, counted_gy, peak_gy, left_s, job.flux.degraded)

    def _settle(self, account: DoseAccount, job: Job) -> tuple[Settlement, ...]:
        left = left_behind(account, job.due.counter_s)
        if not left:
            return ()
        # A flux that was only guessed does not replace the one that was reserved with.
        reserved_ph_s = left[-1].flux_ph_s
        flux_ph_s = max(job.flux.flux_ph_s, reserved_ph_s) if job.flux.degraded else job.flux.flux_ph_s
        return settle_left_behind(
            account,
            job.due.counter_s,
            flux_ph_s=flux_ph_s if job.watched else None,
            degraded=job.flux.degraded if job.watched else "",
        )

    def _request(self, account: DoseAccount, place: Place | None, flux_ph_s: float) -> ExposureRequest:
        """Return an exposure here, of `STEP_S`, with the sample where the last run left it."""
        position, last = account.position, account.last_on_sample
        if place is not None:
            x_um, y_um = place.x_um - position.drift_x_um, place.y_um - position.drift_y_um
            energy_ev = place.energy_ev
        elif last is not None:
            x_um, y_um, energy_ev = last.x_um, last.y_um, last.energy_ev
        else:
            x_um, y_um, energy_ev = 0.0, 0.0, self._energy_ev
        reach = account.beam.footprint_um
        on_sample = all(
            abs(centre) <= (size + width) / 2
            for centre, size, width in zip((x_um, y_um), self._outline_um, reach, strict=True)
        )
        return ExposureRequest(x_um, y_um, energy_ev, STEP_S, flux_ph_s, label="watched", on_sample=on_sample)

    @staticmethod
    def _places(account: DoseAccount, request: ExposureRequest, *, watched: bool) -> list[ExposureRequest]:
        """Where it counts: here when it was watched; else where the sample was exposed last, and here too."""
        last = account.last_on_sample
        if watched or last is None:
            return [request]
        there = replace(request, x_um=last.x_um, y_um=last.y_um, on_sample=True)
        same = math.dist((there.x_um, there.y_um), (request.x_um, request.y_um)) < 1e-6
        return [there] if same or not request.on_sample else [there, request]

    @staticmethod
    def _left_s(account: DoseAccount, request: ExposureRequest) -> float:
        if not request.on_sample or request.flux_ph_s <= 0:
            return math.inf
        if account.time_until_allowed_s(request) > 0:
            return 0.0
        left = account.exposures_left(request)
        return math.inf if left >= UNLIMITED else left * STEP_S
