"""May this exposure happen? Limits against the dose that would be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbat_live.dose.exposure import DoseRefused, ExposureRequest, FloatArray
from xbat_live.dose.limits import WARN_FRACTIONS, DoseLimit, format_gy


@dataclass(frozen=True)
class Prospect:
    """Largest values on the sample inside the beam's reach.

    Attributes
    ----------
    before_gy, after_gy
        Dose now and after the exposure, Gy.
    added_gy
        Dose of the exposure, Gy.
    rate_gy_s
        Dose rate during it, Gy/s.
    """

    before_gy: float
    after_gy: float
    added_gy: float
    rate_gy_s: float


NOTHING = Prospect(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Gate:
    """Several limits at once.

    Attributes
    ----------
    limits
        All limits.
    sigma_rel
        Relative standard uncertainty of a dose. Errors of flux, area and coefficients are the same in every exposure,
        so they add linearly: the uncertainty of a total is this fraction of the total.
    k_sigma
        How many of them are kept free below a limit.
    """

    limits: tuple[DoseLimit, ...]
    sigma_rel: float = 0.0
    k_sigma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_rel <= 1:
            raise ValueError(f"sigma_rel {self.sigma_rel:g} is outside 0 .. 1; it is a fraction, write 0.15 for 15 %")
        if not 0 <= self.k_sigma <= 10:
            raise ValueError(f"k_sigma {self.k_sigma:g} is outside 0 .. 10")

    @property
    def allowance(self) -> float:
        """Factor from a dose to the dose that is compared with limits: ``1 + k sigma``."""
        return 1 + self.k_sigma * self.sigma_rel

    @property
    def lowest_dose_limit(self) -> DoseLimit | None:
        """The lowest dose limit that refuses, or None."""
        return min(
            (limit for limit in self._binding if limit.limit_gy is not None),
            key=lambda limit: limit.value,
            default=None,
        )

    @property
    def room_gy(self) -> float:
        """Dose, without uncertainty, that the lowest dose limit allows, Gy; infinite without one."""
        limit = self.lowest_dose_limit
        return math.inf if limit is None else limit.value / self.allowance

    @property
    def _binding(self) -> Sequence[DoseLimit]:
        return [limit for limit in self.limits if not limit.advisory]

    def check_stated_for(self, material: str, model: str) -> None:
        """Check that all limits can be compared with doses of `material` in the definition `model`.

        Raises
        ------
        ValueError
            One cannot; it is named.
        """
        for limit in self.limits:
            if limit.model != model:
                raise ValueError(
                    f"limit {limit.name!r} is stated in the dose definition {limit.model!r}, doses are counted in "
                    f"{model!r}; count in the limit's definition, or convert the limit"
                )
            if limit.material != material:
                raise ValueError(f"limit {limit.name!r} is for {limit.material!r}, doses are counted for {material!r}")

    def check(self, request: ExposureRequest, prospect: Prospect) -> tuple[str, ...]:
        """Return warnings, or refuse.

        Raises
        ------
        DoseRefused
            A limit would be exceeded; of several, the one exceeded by the largest factor is named.
        """
        if not self.exceeds(prospect):
            return self._warnings(prospect)
        limit = max(self._binding, key=lambda limit: self._would_be(limit, prospect) / limit.value)
        raise self._refusal(limit, request, prospect)

    def exceeds(self, prospect: Prospect) -> bool:
        """Return True when the exposure would exceed a limit that refuses."""
        return any(not self._would_be(limit, prospect) <= limit.value for limit in self._binding)

    def repeats(self, now_gy: FloatArray, added_gy: FloatArray, rate_gy_s: float) -> float:
        """Return how many times an exposure that adds `added_gy` to `now_gy` (same shape) may follow."""
        if self.exceeds(Prospect(0.0, 0.0, 0.0, rate_gy_s)):
            return 0.0
        hit = added_gy > 0
        return max(0.0, float(np.floor(np.min((self.room_gy - now_gy[hit]) / added_gy[hit]))))

    def _would_be(self, limit: DoseLimit, prospect: Prospect) -> float:
        return self.allowance * (prospect.after_gy if limit.limit_gy is not None else prospect.rate_gy_s)

    def _refusal(self, limit: DoseLimit, request: ExposureRequest, prospect: Prospect) -> DoseRefused:
        would_be = self._would_be(limit, prospect)
        rate = limit.rate_gy_s is not None
        quantity = "dose rate" if rate else "dose"
        if rate:
            remedy = "attenuate or defocus the beam"
        elif prospect.before_gy * self.allowance <= 0.01 * limit.value:
            remedy = "one exposure alone is too much: shorten it, attenuate, or raise the limit"
        else:
            remedy = f"{format_gy(prospect.before_gy)} are there already: use a fresh spot"
        spare = f", {self.k_sigma:g} sigma of {100 * self.sigma_rel:g} % included" if self.allowance > 1 else ""
        message = (
            f"{quantity} would be {format_gy(would_be, limit.unit)}{spare} "
            f"at sample ({request.x_um:.1f}, {request.y_um:.1f}) um, "
            f"above the limit {limit.name!r} of {format_gy(limit.value, limit.unit)} for {limit.material} "
            f"({limit.model}); {remedy}"
        )
        return DoseRefused(limit, would_be, request.x_um, request.y_um, message)

    def _warnings(self, prospect: Prospect) -> tuple[str, ...]:
        messages = []
        for limit in self.limits:
            if limit.limit_gy is None:
                if limit.advisory and self._would_be(limit, prospect) > limit.value:
                    messages.append(
                        f"dose rate {format_gy(prospect.rate_gy_s, 'Gy/s')} is above the advisory limit {limit.name!r}"
                    )
                continue
            levels = (*WARN_FRACTIONS, 1.0) if limit.advisory else WARN_FRACTIONS
            before, after = (self.allowance * dose / limit.value for dose in (prospect.before_gy, prospect.after_gy))
            passed = [level for level in levels if before < level <= after]
            if passed:
                kind = "advisory limit" if limit.advisory else "limit"
                messages.append(
                    f"{100 * after:.0f} % of the {kind} {limit.name!r} ({format_gy(limit.value)} for {limit.material})"
                )
        return tuple(messages)
