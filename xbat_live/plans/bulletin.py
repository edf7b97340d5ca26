"""What the dose account says, kept up to date as readable signals; and its warnings, each told once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from xbat_live.devices import DoseRecord
from xbat_live.dose import DoseAccount, ExposureRequest, Reservation, format_gy

logger = logging.getLogger(__name__)

WARN_LEVELS = (0.5, 0.8)


@dataclass(frozen=True)
class DoseWarning:
    """A limit that has come near.

    Attributes
    ----------
    limit_name, value
        The limit, and its value in its unit.
    fraction, level
        Fraction of the limit that is reached, and the level it has passed.
    message
        One sentence.
    """

    limit_name: str
    value: float
    fraction: float
    level: float
    message: str


@dataclass
class Bulletin:
    """Refreshed in the thread of the ledger, so that an exposure never waits for it.

    Attributes
    ----------
    signals
        Device to be filled; None: none.
    """

    account: DoseAccount
    signals: DoseRecord | None
    _told: set[tuple[str, str, float]] = field(default_factory=set)
    _warnings: list[DoseWarning] = field(default_factory=list)

    def refresh(self, reservation: Reservation) -> None:
        """Take up the state after a reservation or its settlement. Trouble here is logged, and no reason to end a run."""
        try:
            if reservation.warnings:
                self._warnings += self._new(reservation.request)
            if self.signals is not None:
                status = self.account.status(reservation.request)
                self.signals.fill(**{name: getattr(status, name) for name in self.signals.component_names})
        except Exception:
            logger.exception("the dose signals could not be refreshed")

    def forget(self, limit_name: str) -> None:
        """Tell the levels of a limit anew, because its value has changed."""
        self._told = {key for key in self._told if key[1] != limit_name}

    def take_warnings(self) -> tuple[DoseWarning, ...]:
        """Return the warnings since the last call."""
        warnings, self._warnings = tuple(self._warnings), []
        return warnings

    def _new(self, request: ExposureRequest) -> Iterator[DoseWarning]:
        for state in self.account.headroom(request):
            limit, reached = state.limit, state.now / state.limit.value
            levels = (*WARN_LEVELS, 1.0) if limit.advisory else WARN_LEVELS
            keys = [(request.run_uid, limit.name, level) for level in levels if reached >= level]
            if keys and keys[-1] not in self._told:
                kind = "advisory limit" if limit.advisory else "limit"
                told = f"{100 * reached:.0f} % of the {kind} {limit.name!r} of {format_gy(limit.value, limit.unit)}"
                logger.warning("%s, reservation included", told)
                yield DoseWarning(limit.name, limit.value, reached, keys[-1][2], f"{told}, reservation included")
            self._told.update(keys)
