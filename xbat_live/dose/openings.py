"""What happened to the shutter while nobody wrote the ledger: reservations that a dead process left, openings by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from xbat_live.dose.account import DoseAccount
from xbat_live.dose.exposure import ExposureRequest, Settlement
from xbat_live.dose.ledger import Ledger, LedgerError

logger = logging.getLogger(__name__)

EPSILON_S = 1e-4
RESERVED_FLUX = "flux as reserved"
LEFT_NOTE = "settled by the shutter's counter after the acquisition was gone"
STRAY_REASON = "shutter open outside any exposure"


@dataclass(frozen=True)
class Left:
    """A reservation that nobody ended, and what the shutter's counter says about it.

    Attributes
    ----------
    number
        Its record number.
    open_time_s, flux_ph_s
        As reserved, s and photons/s.
    delivered_s
        Shutter-open time until the next record, s; None when it cannot be told, so that the reservation stands in full.
    counter_s
        The counter at its end, s.
    """

    number: int
    open_time_s: float
    flux_ph_s: float
    delivered_s: float | None
    counter_s: float | None


def openings_since(last_counter_s: float | None, shutter_counter_s: float, *, elsewhere_s: float = 0.0) -> float:
    """Return how long the shutter was open since the last record of a ledger, s.

    Parameters
    ----------
    last_counter_s
        The shutter's open-time counter in the last record that has one, s; None when there is none: nothing is known.
    shutter_counter_s
        The counter now, s. A smaller one means that the IOC was restarted: everything since its start counts.
    elsewhere_s
        How much of it other samples' ledgers have, s; see `counted_elsewhere_s`.
    """
    if last_counter_s is None:
        return 0.0
    restarted = shutter_counter_s < last_counter_s - 1e-9
    open_s = shutter_counter_s if restarted else shutter_counter_s - last_counter_s
    open_s -= elsewhere_s
    return open_s if open_s > EPSILON_S else 0.0


def count_openings_since(
    account: DoseAccount,
    shutter_counter_s: float,
    request: ExposureRequest,
    *,
    elsewhere_s: float = 0.0,
    reason: str = STRAY_REASON,
    degraded: str = "",
) -> float:
    """Count in `account` what the shutter was open since its last record, and return that time, s.

    For the place see `count_open_time`.

    Parameters
    ----------
    shutter_counter_s
        The shutter's open-time counter now, s.
    request
        An exposure here and now; its place, energy and flux are used, its open time is not.
    elsewhere_s
        See `openings_since`.
    reason, degraded
        Kept with the record.
    """
    open_s = openings_since(account.last_counter_s, shutter_counter_s, elsewhere_s=elsewhere_s)
    if open_s:
        count_open_time(account, request, open_s, shutter_counter_s, reason=reason, degraded=degraded)
    return open_s


def count_open_time(
    account: DoseAccount,
    request: ExposureRequest,
    open_s: float,
    shutter_counter_s: float,
    *,
    last: ExposureRequest | None = None,
    reason: str = STRAY_REASON,
    degraded: str = "",
) -> None:
    """Count an opening of `open_s` s that no exposure asked for.

    Where the stage was meanwhile is not known: it counts in full where the sample was exposed last (`last`, or by the ledger)
    and, if that is another place of the sample, at that of `request`.
    """
    last = last or account.last_on_sample
    places = [request] if last is None else [last]
    if last is not None and request.on_sample and (request.x_um, request.y_um) != (last.x_um, last.y_um):
        places.append(request)
    for place in places:
        stray = replace(
            request,
            x_um=place.x_um,
            y_um=place.y_um,
            on_sample=place.on_sample,
            open_time_s=open_s,
            label="unreserved",
            spot=None,
        )
        account.record_unreserved(stray, reason, counter_s=shutter_counter_s, degraded=degraded)
        logger.warning("%s: %.3f s, counted at sample (%.1f, %.1f) um", reason, open_s, place.x_um, place.y_um)


def left_behind(account: DoseAccount, shutter_counter_s: float | None) -> tuple[Left, ...]:
    """Return the reservations that nobody ended, oldest first, and what was delivered under each.

    An exposure ends at the latest with the next record that has a counter, for the newest one with the counter of now. A
    counter that went backwards (IOC restarted) or is missing tells nothing.

    Parameters
    ----------
    shutter_counter_s
        The shutter's open-time counter now, s; None when it cannot be read.
    """
    found = []
    columns = ("kind", "open_time_s", "flux_ph_s", "counter_s")
    for number in sorted(account.unsettled):
        rows = account.ledger.rows(columns, after=number - 1)
        _, reserved_s, flux_ph_s, before_s = next(rows)
        after_s, counted_s = shutter_counter_s, 0.0
        for kind, open_s, _, counter_s in rows:
            if counter_s is not None:
                # an opening that was counted since is in that record
                after_s, counted_s = counter_s, open_s if kind == "unreserved" else 0.0
                break
        delivered_s = None
        if before_s is not None and after_s is not None and after_s >= before_s - 1e-9:
            delivered_s = max(after_s - before_s - counted_s, 0.0)
        found.append(Left(number, reserved_s, flux_ph_s, delivered_s, after_s))
    return tuple(found)


def settle_left_behind(
    account: DoseAccount, shutter_counter_s: float | None, *, flux_ph_s: float | None = None, degraded: str = ""
) -> tuple[Settlement, ...]:
    """Settle the reservations that a dead process left with what the shutter's counter says; the others stand in full.

    Parameters
    ----------
    shutter_counter_s
        The shutter's open-time counter now, s; None when it cannot be read.
    flux_ph_s
        Flux during the newest one where it was watched, photons/s; None: as reserved.
    degraded
        Kept with that record.
    """
    left = left_behind(account, shutter_counter_s)
    settlements = []
    for item in left:
        if item.delivered_s is None:
            logger.warning("reservation %d stands in full: the shutter's counter does not tell", item.number)
            continue
        watched = flux_ph_s is not None and item is left[-1]
        settlements.append(
            account.settle(
                item.number,
                open_time_s=item.delivered_s,
                flux_ph_s=flux_ph_s if watched and flux_ph_s is not None else item.flux_ph_s,
                note=LEFT_NOTE,
                counter_s=item.counter_s,
                degraded=degraded if watched else RESERVED_FLUX,
            )
        )
    return tuple(settlements)


def counted_elsewhere_s(ledger: Ledger) -> float:
    """Return the shutter-open time that ledgers of other samples in the same folder have since this one's last record, s.

    The shutter's counter does not know which sample is in the beam. Without this, the exposures of one sample would count as
    openings by hand on the next one that is mounted.
    """
    last = _last_counter(ledger.rows_backwards(("time_unix_s", "counter_s")))
    if last is None:
        return 0.0
    since_s, counter_s = last
    total_s = 0.0
    for path in sorted(ledger.path.parent.glob("*.sqlite")):
        if path.name == ledger.path.name:
            continue
        try:
            with Ledger(path, read_only=True) as other:
                total_s += _counted_since(other, since_s, counter_s)
        except LedgerError as error:
            logger.warning("%s is left out: %s", path, error)
    return total_s


def _last_counter(rows: Iterable[tuple]) -> tuple[float, float] | None:
    for time_s, counter_s in rows:
        if counter_s is not None:
            return time_s, counter_s
    return None


def _counted_since(other: Ledger, since_s: float, counter_s: float) -> float:
    """Open time in `other` after wall-clock time `since_s`; only by a counter that went on from `counter_s`, or anew."""
    total_s, latest_s = 0.0, None
    for time_s, kind, open_s, at_s in other.rows_backwards(("time_unix_s", "kind", "open_time_s", "counter_s")):
        if time_s <= since_s:
            break
        if at_s is None or kind not in ("settle", "unreserved"):
            continue
        latest_s = at_s if latest_s is None else latest_s
        if latest_s >= counter_s and at_s < counter_s:
            break  # another life of the IOC
        total_s += open_s or 0.0
    return total_s


__all__ = [
    "Left",
    "count_open_time",
    "count_openings_since",
    "counted_elsewhere_s",
    "left_behind",
    "openings_since",
    "settle_left_behind",
]
