"""Dose given within the last seconds or minutes, for limits on mean rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from xbat_live.dose.grid import FloatArray, Window
from xbat_live.dose.planes import Planes
from xbat_live.dose.profiles import Profile
from xbat_live.dose.sample_map import Patch, SampleMap

CLOCK_GRAIN_S = 1e-6
"""An exposure leaves a window this much early, so that waiting exactly the time that was told is enough."""
_ROUNDING = 1e-9


class Given(NamedTuple):
    """An exposure that ended at `time_s` (s, monotonic); `gray_cm2` is photons times dose per fluence per target."""

    time_s: float
    x_um: float
    y_um: float
    profile: Profile
    gray_cm2: tuple[float, ...]
    open_time_s: float


def share(open_time_s: float, window_s: float) -> float:
    """Return the part of an exposure's dose that falls into any one window; below 1 when it is longer than that."""
    return min(1.0, window_s / open_time_s) if open_time_s > 0 else 1.0


class RunningSum:
    """Dose of one target within a running window.

    An exposure counts in full, at the time it ended, until it has left the window. What leaves is subtracted, so the sum
    carries rounding errors of the order of 1e-16 of what passed through; it starts from 0 again whenever it is empty.
    """

    def __init__(self, sample_map: SampleMap, window_s: float, target: int) -> None:
        self.window_s, self.target = window_s, target
        self._map = sample_map
        self._inside: deque[Given] = deque()
        self._planes = Planes(1)

    def add(self, given: Given) -> None:
        """Count an exposure; calls must be in the order of time."""
        self._inside.append(given)
        self._deposit(given, 1.0)

    def expire(self, now_s: float) -> None:
        """Stop counting what has left the window."""
        gone = now_s - self.window_s + CLOCK_GRAIN_S
        while self._inside and self._inside[0].time_s <= gone:
            given = self._inside.popleft()
            if self._inside:
                self._deposit(given, -1.0)
            else:
                self._planes.clear()

    def read(self, window: Window) -> FloatArray:
        """Return the dose on `window`, (ny, nx) Gy."""
        return np.maximum(self._planes.read(window, 0), 0.0)

    @property
    def touched(self) -> Window:
        """Pixels with dose."""
        return self._planes.touched

    def leaving(self) -> Iterator[tuple[float, Patch]]:
        """Return time of leaving, s, and dose of all exposures inside, the next to leave first."""
        for given in self._inside:
            yield given.time_s + self.window_s, self.patch(given)

    def patch(self, given: Given) -> Patch:
        """Return where an exposure falls, with the part of its dose that counts in one window."""
        part = share(given.open_time_s, self.window_s)
        gray_cm2 = tuple(value * part for value in given.gray_cm2)
        return self._map.spread(given.profile, given.x_um, given.y_um, gray_cm2)

    def _deposit(self, given: Given, sign: float) -> None:
        patch = self.patch(given)
        factor = sign * patch.gray_cm2[self.target]
        for view, source in self._planes.parts(patch.window):
            view[0] += patch.kernel[source] * factor


class Windows:
    """Running sums over the windows that limits ask for, and reservations on top of them.

    Parameters
    ----------
    sample_map
        Makes patches.
    wanted
        Window, s, and target of every sum.
    """

    def __init__(self, sample_map: SampleMap, wanted: Iterable[tuple[float, int]]) -> None:
        self._sums = {key: RunningSum(sample_map, *key) for key in wanted}
        self._held: dict[int, tuple[Given, bool]] = {}
        self._now_s = 0.0

    @property
    def longest_s(self) -> float:
        """The longest window, s."""
        return max((window_s for window_s, _ in self._sums), default=0.0)

    def add(self, given: Given) -> None:
        """Count an exposure that ended."""
        for total in self._sums.values():
            total.add(given)

    def hold(self, number: int, given: Given, *, ended: bool) -> None:
        """Count a reservation.

        It counts until it is released, or, for one whose process is known to have ended by `given.time_s`, until that
        time has left the window.
        """
        self._held[number] = (given, ended)

    def release(self, number: int) -> None:
        """Stop counting a reservation."""
        self._held.pop(number, None)

    def dose(self, window: Window, window_s: float, target: int, now_s: float) -> FloatArray:
        """Return what fell on `window` within the last `window_s` seconds, (ny, nx) Gy, reservations included."""
        self._now_s = max(self._now_s, now_s)  # time goes one way
        total = self._sums[window_s, target]
        total.expire(self._now_s)
        dose = total.read(window)
        for given, ended in self._held.values():
            if not ended or given.time_s > self._now_s - window_s + CLOCK_GRAIN_S:
                _add(dose, window, total.patch(given), target)
        return dose

    def extent(self, window_s: float, target: int) -> Window:
        """Return all pixels that a sum has touched."""
        total = self._sums[window_s, target]
        extent = total.touched
        for given, _ in self._held.values():
            extent = extent.union(total.patch(given).window)
        return extent

    def wait_s(self, reach: Patch, room_gy: float, window_s: float, target: int, now_s: float) -> float:
        """Return after how many seconds the dose in the window has room for `reach`, when nothing else happens.

        Parameters
        ----------
        reach
            The exposure on the sample, with the dose that counts in one window.
        room_gy
            Largest dose in the window, Gy.
        window_s, target
            Which sum.
        now_s
            Monotonic time, s. Open reservations are taken to end now.

        Returns
        -------
        float
            0 when there is room; infinite when the exposure alone is too much.
        """
        added = reach.dose(target)
        if not added.max() <= room_gy:
            return float("inf")
        dose = self.dose(reach.window, window_s, target, now_s)
        if not (dose + added).max() > room_gy:
            return 0.0
        total = self._sums[window_s, target]
        leaving = list(total.leaving())
        for given, ended in self._held.values():
            leaving.append(((given.time_s if ended else self._now_s) + window_s, total.patch(given)))
        leaving.sort(key=lambda item: item[0])
        leaves_s = self._now_s
        for leaves_s, patch in leaving:
            if leaves_s > self._now_s + CLOCK_GRAIN_S and _add(dose, reach.window, patch, target, -1.0):
                if (dose + added).max() <= room_gy * (1 - _ROUNDING):
                    break
        return max(leaves_s - self._now_s, 0.0)


def _add(dose: FloatArray, window: Window, patch: Patch, target: int, sign: float = 1.0) -> bool:
    """Add a patch where it meets `window`; return whether it does."""
    common = window.intersect(patch.window)
    if common.empty:
        return False
    dose[common.within(window)] += patch.within(common).dose(target) * sign
    return True


def total_dose(sample_map: SampleMap, exposures: Iterable[Given], window_s: float, target: int) -> Planes:
    """Return one plane with the dose of `exposures` in a window of `window_s` seconds, added up afresh."""
    total = RunningSum(sample_map, window_s, target)
    for given in exposures:
        total.add(given)
    return total._planes  # noqa: SLF001
