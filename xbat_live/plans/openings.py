"""What the shutter's open-time counter says about the time before this process: dead reservations, openings by hand."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from xbat_live.dose import DoseAccount, ExposureRequest

logger = logging.getLogger(__name__)

_NOISE_S = 1e-4  # of the shutter's counter


@dataclass(frozen=True)
class Opening:
    """Open time that is not settled yet.

    Attributes
    ----------
    open_time_s
        How long, s.
    counter_s
        The counter after it, s.
    flux_ph_s
        Flux that was reserved, photons/s; 0 for an opening without a reservation.
    reservation
        The reservation it belongs to; None: to none.
    """

    open_time_s: float
    counter_s: float
    flux_ph_s: float = 0.0
    reservation: int | None = None


def take_over(account: DoseAccount, request: ExposureRequest, counter_s: float) -> None:
    """Count what happened while nobody reserved, before the first reservation of a process, `request`.

    A reservation that a dead process left is settled with what the shutter's counter, now `counter_s` s, says it has become.
    """
    for opening in openings_before(account, counter_s):
        if opening.reservation is not None:
            account.settle(
                opening.reservation,
                open_time_s=opening.open_time_s,
                flux_ph_s=opening.flux_ph_s,
                note="left by an acquisition that ended; settled by the next one",
                counter_s=opening.counter_s,
                degraded="flux as reserved",
            )
        elif opening.open_time_s > _NOISE_S:
            count_stray(account, request, opening.open_time_s, counter_s)


def count_stray(
    account: DoseAccount,
    request: ExposureRequest,
    open_time_s: float,
    counter_s: float,
    last: ExposureRequest | None = None,
) -> None:
    """Count an opening of `open_time_s` s that no exposure asked for.

    Where the stage was meanwhile is not known, so it counts in full where the sample was exposed last (`last`, or by the ledger) and,
    if that is another place of the sample, at the present `request`.
    """
    last = last or account.last_on_sample
    places = [request] if last is None else [last]
    if last is not None and request.on_sample and (request.x_um, request.y_um) != (last.x_um, last.y_um):
        places.append(request)
    for place in places:
        logger.warning(
            "the shutter was open for %.3f s outside any exposure; counted at sample (%.1f, %.1f) um",
            open_time_s,
            place.x_um,
            place.y_um,
        )
        stray = replace(
            request,
            x_um=place.x_um,
            y_um=place.y_um,
            on_sample=place.on_sample,
            open_time_s=open_time_s,
            label="unreserved",
            spot=None,
        )
        account.record_unreserved(stray, "shutter open outside any exposure", counter_s=counter_s)


def openings_before(account: DoseAccount, counter_s: float) -> Iterator[Opening]:
    """Yield what has to be settled or counted before the first reservation of a process.

    Parameters
    ----------
    counter_s
        The shutter's open-time counter now, s.

    Notes
    -----
    The counter belongs to the shutter, a ledger to a sample: open time that ledgers of other samples in the same folder account for is
    not counted here. A counter that is lower than before was restarted with its IOC: reservations then stand in full, and all it shows
    is counted, because nothing is known about it.
    """
    left = [(number, *_reserved(account, number)) for number in account.unsettled]
    known = [(number, at_s, flux) for number, at_s, flux in left if at_s is not None and at_s <= counter_s]
    for index, (number, at_s, flux_ph_s) in enumerate(known):
        until_s = known[index + 1][1] if index + 1 < len(known) else counter_s
        yield Opening(until_s - at_s, until_s, flux_ph_s, number)
    last_s = account.last_counter_s
    if known or last_s is None:
        return
    if len(left) > len(known):
        logger.warning(
            "%d reservation(s) of an earlier process stand in full: the shutter's counter was restarted", len(left)
        )
    if last_s > counter_s:
        last_s = 0.0
    base_s = max([last_s, *(value for value in _counters_of_others(account.ledger.path) if value <= counter_s)])
    yield Opening(counter_s - base_s, counter_s)


def _reserved(account: DoseAccount, number: int) -> tuple[float | None, float]:
    """Return counter, s, and flux, photons/s, of a reservation."""
    entry = next(iter(account.ledger.records(after=number - 1))).entry
    return entry.counter_s, float(entry.flux_ph_s or 0.0)


def _counters_of_others(path: Path) -> Iterator[float]:
    """Yield the last counter in every other ledger of the folder; one that cannot be read has nothing to say."""
    for other in path.parent.glob(f"*{path.suffix}"):
        if other == path:
            continue
        try:
            with closing(sqlite3.connect(f"{other.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
                row = connection.execute(
                    "SELECT counter_s FROM records WHERE counter_s IS NOT NULL ORDER BY seq DESC LIMIT 1"
                ).fetchone()
        except sqlite3.Error as error:
            logger.info("%s: no counter to be had (%s)", other, error)
            continue
        if row is not None:
            yield float(row[0])
