"""What can be asked of a sample's dose account about an exposure that may come; changes nothing."""

from __future__ import annotations

import math
import sys

import numpy as np
from scipy.ndimage import maximum_filter

from xbat_live.dose.account_book import AccountBook
from xbat_live.dose.exposure import ExposureRequest, FloatArray
from xbat_live.dose.gate import Outlook, Rule
from xbat_live.dose.grid import Window
from xbat_live.dose.position import POSITION_SIGMAS
from xbat_live.dose.profiles import Profile
from xbat_live.dose.status import AccountStatus, LimitState

UNLIMITED = sys.maxsize


class AccountView(AccountBook):
    """The questions of `DoseAccount`, which see for parameters and errors."""

    def predict(self, request: ExposureRequest) -> float:
        """Return the largest dose of the primary target that `request` would add on the sample, Gy."""
        with self._lock:
            return self._peaks(self._outlook(request))[2]

    def rate_gy_s(self, request: ExposureRequest) -> float:
        """Return the largest dose rate of the primary target on the sample during `request`, Gy/s."""
        return self.predict(request.with_delivery(1.0, request.flux_ph_s))

    def exposures_left(self, request: ExposureRequest) -> int:
        """Return how many times in a row `request` would be granted; `UNLIMITED` when no limit applies to it.

        Limits on mean rates are left out: they delay exposures and do not count them.
        """
        with self._lock:
            outlook = self._outlook(request)
            left = math.inf if outlook is None else self._gate.repeats(outlook)
        return UNLIMITED if math.isinf(left) else int(left)

    def headroom(self, request: ExposureRequest) -> tuple[LimitState, ...]:
        """Return where `request` stands with every limit, the uncertainty that is kept free included.

        Limits that refuse come first, and of them the one that the exposure comes nearest to (or exceeds most).
        """
        with self._lock:
            return self._gate.states(self._outlook(request))

    def allowed_flux_fraction(self, request: ExposureRequest) -> float:
        """Return the largest factor, 0 .. 1, on the flux with which `request` would be granted now; 0 when none is."""
        with self._lock:
            outlook = self._outlook(request)
            return 1.0 if outlook is None else self._gate.flux_fraction(outlook)

    def time_until_allowed_s(self, request: ExposureRequest) -> float:
        """Return after how many seconds `request` would be granted when nothing else happens.

        Returns
        -------
        float
            0 now; infinite when a dose limit or a limit on the instantaneous rate forbids it for ever.
        """
        with self._lock:
            outlook = self._outlook(request)
            if outlook is None:
                return 0.0
            wait_s = 0.0
            for rule in self._gate.refusing:
                limit, window_s = rule.limit, rule.limit.window_s
                now, added = outlook.parts(rule)
                if not self._gate.allowance * float((now + added).max()) > limit.value:
                    continue
                if window_s is None:
                    return math.inf
                room_gy = limit.value * window_s / self._gate.allowance
                reach = outlook.in_window(window_s)
                wait_s = max(
                    wait_s, self._windows.wait_s(reach, room_gy, window_s, rule.target, self.ledger.now().monotonic_s)
                )
            return wait_s

    def status(self, request: ExposureRequest | None = None) -> AccountStatus:
        """Return the state where `request` falls, or of the whole sample."""
        with self._lock:
            last = self._state.last_on_sample
            example = request or self.last_on_sample
            left = UNLIMITED if example is None else self.exposures_left(example)
            if request is None:
                window = self._state.map.on_sample(self._state.map.extent)
                rate_gy_s = 0.0 if window.empty or last is None else float(self._state.map.peak_rate(window).max())
            else:
                patch = self._state.map.reach(self._patch(request))
                window = Window(0, 0, 0, 0) if patch is None else patch.window
                rate_gy_s = self.rate_gy_s(request)
            figures = self._state.map.figures(window)
            fractions = [
                (self._gate.allowance * self._level(rule, window) / rule.limit.value, rule.limit.name)
                for rule in self._gate.refusing
            ]
            fraction, binding = max(fractions, key=lambda item: item[0], default=(0.0, ""))
            if request is not None and fractions:
                binding = self.headroom(request)[0].limit.name
            return AccountStatus(
                figures.peak_gy,
                rate_gy_s,
                self._windowed_rate(window, self._status_window_s(self._gate.rules), 0),
                fraction,
                binding,
                left,
                self._state.degraded,
                figures.percentile_gy,
            )

    # -- inside ------------------------------------------------------------------------------------------------------

    def _outlook(
        self,
        request: ExposureRequest,
        profile: Profile | None = None,
        gray_cm2: tuple[float, ...] | None = None,
        *,
        around_px: int | None = None,
    ) -> Outlook | None:
        """Return what an exposure meets on the sample; None when it misses.

        As dose that is there counts the highest one within `around_px` pixels, by default what the uncertainty of the
        sample's position calls for: the beam may be there and not here.
        """
        reach = self._state.map.reach(self._patch(request, profile, gray_cm2))
        if reach is None:
            return None
        near_px = self._position_px() if around_px is None else around_px

        def dose(target: int) -> FloatArray:
            if near_px == 0:
                return self._state.map.dose(reach.window, target)
            wide = self._state.map.on_sample(reach.window.grown(near_px))
            highest: FloatArray = maximum_filter(self._state.map.dose(wide, target), size=2 * near_px + 1)
            return highest[reach.window.within(wide)]

        def windowed(window_s: float, target: int) -> FloatArray:
            return self._windows.dose(reach.window, window_s, target, self.ledger.now().monotonic_s)

        return Outlook(request, reach, dose, windowed)

    def _position_px(self) -> int:
        """Pixels of the map by which sample coordinates may be off."""
        return round(POSITION_SIGMAS * self.position.sigma_um / self.grid_um)

    @staticmethod
    def _peaks(outlook: Outlook | None) -> tuple[float, float, float]:
        """Largest dose of the primary target in the beam's reach now, after, and added, Gy."""
        return (0.0, 0.0, 0.0) if outlook is None else outlook.dose_peaks(0)

    def _level(self, rule: Rule, window: Window) -> float:
        """Largest value in `window` now of what a rule limits."""
        if window.empty or rule.limit.kind == "rate":
            return 0.0
        if rule.limit.window_s is not None:
            return self._windowed_rate(window, rule.limit.window_s, rule.target)
        return float(self._state.map.dose(window, rule.target).max())

    def _windowed_rate(self, window: Window, window_s: float, target: int) -> float:
        if window.empty:
            return 0.0
        now_s = self.ledger.now().monotonic_s
        return float(np.max(self._windows.dose(window, window_s, target, now_s))) / window_s
