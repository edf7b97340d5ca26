"""The last line of defence: closes the shutter and stops the run if a dose above the limit is ever reported.

The guard in the plan refuses before the beam opens, so this callback never acts in a sound run. It must be subscribed directly:
a buffered or exception-safe subscription would swallow the stop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from bluesky.callbacks import CallbackBase
from bluesky.utils import RequestStop

logger = logging.getLogger(__name__)


class DoseBackstop(CallbackBase):
    """Stops the run when an Event reports more dose than the limit.

    Parameters
    ----------
    close_shutter
        Closes the shutter without waiting.
    limit_gy
        Limit, Gy.
    key
        Event data key of the highest dose in the footprint, Gy.
    """

    def __init__(self, close_shutter: Callable[[], object], *, limit_gy: float, key: str = "point_dose_gy") -> None:
        super().__init__()
        self._close_shutter = close_shutter
        self._limit_gy = limit_gy
        self._key = key
        self._tighter_gy: float | None = None

    def change(self, limit_gy: float) -> None:
        """Take over another limit: a looser one at once, a tighter one from the first Event below it on.

        A place that has more already is no fault: the guard refuses further exposures there, and the plan does what its policy says.
        """
        if limit_gy >= self._limit_gy:
            self._limit_gy, self._tighter_gy = limit_gy, None
        else:
            self._tighter_gy = limit_gy

    def event(self, doc: dict[str, Any]) -> dict[str, Any]:
        """Check one Event.

        Raises
        ------
        bluesky.utils.RequestStop
            When the dose is above the limit; the shutter was told to close before.
        """
        dose_gy = float(doc["data"].get(self._key, 0.0))
        if self._tighter_gy is not None and 0 < dose_gy <= self._tighter_gy:
            self._limit_gy, self._tighter_gy = self._tighter_gy, None
        if dose_gy > self._limit_gy:
            self._close_shutter()
            message = f"dose {dose_gy:.4g} Gy is above the limit {self._limit_gy:.4g} Gy: shutter closed, run stopped"
            logger.critical(message)
            raise RequestStop(message)
        return doc
