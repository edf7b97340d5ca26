"""Twin time: laboratory time stretched by a scale that may change."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["TwinClock"]


class TwinClock:
    """The integral of the time scale over laboratory time since the start. Not thread-safe by itself.

    Parameters
    ----------
    clock
        Laboratory time in s.
    scale
        Twin seconds per laboratory second.
    """

    def __init__(self, clock: Callable[[], float], scale: float) -> None:
        self.now_s = clock
        self.scale = scale
        self._reference_s = clock()
        self._base_s = 0.0

    def at(self, clock_s: float) -> float:
        """Twin time in s at laboratory time `clock_s` under the present scale."""
        return self._base_s + (clock_s - self._reference_s) * self.scale

    def set_scale(self, scale: float) -> None:
        """Change the scale from now on.

        Raises
        ------
        ValueError
            Negative or not finite.
        """
        if not 0 <= scale < math.inf:
            raise ValueError(f"time scale {scale}: must be a finite number >= 0 (twin seconds per second)")
        now_s = self.now_s()
        self._base_s = self.at(now_s)
        self._reference_s, self.scale = now_s, scale
