"""Dose and dose-rate limits."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

from xbat_live.dose.cross_sections import check_model

WARN_FRACTIONS = (0.5, 0.8)
"""Fractions of a limit at which a reservation carries a warning."""

_CHANGE = re.compile(r"limit (?P<name>.+) = (?P<value>[-+.e\d]+) (?P<unit>Gy(?:/s)?)")

LimitKind = Literal["dose", "rate", "windowed rate"]


@dataclass(frozen=True)
class DoseLimit:
    """A limit on the dose or on the dose rate of one material, in one dose definition.

    Attributes
    ----------
    name
        Shown in every refusal.
    material
        Material it protects.
    limit_gy
        Largest dose, Gy; None for a rate limit.
    rate_gy_s
        Largest dose rate, Gy/s; None for a dose limit. Without `window_s` it limits the instantaneous rate, with it the
        mean rate.
    model
        Dose definition in which the number was determined; see `LayerStack.dose_per_fluence`.
    source
        Where the number comes from.
    protects
        The scientific question that a dose above the limit would spoil.
    advisory
        An advisory limit warns and never refuses.
    layer
        Layer whose material it protects; empty: every layer in which that material is tracked.
    window_s
        Only with `rate_gy_s`: the limit is on the mean rate in any running window of this length, s. None: on the
        instantaneous rate.

    Raises
    ------
    ValueError
        Not exactly one of `limit_gy` and `rate_gy_s`, a value that is not positive and finite, a window without a
        rate or not positive, or an unknown model.
    """

    name: str
    material: str
    limit_gy: float | None = None
    rate_gy_s: float | None = None
    model: str = "attenuation"
    source: str = ""
    protects: str = ""
    advisory: bool = False
    layer: str = ""
    window_s: float | None = None

    def __post_init__(self) -> None:
        check_model(self.model)
        if (self.limit_gy is None) == (self.rate_gy_s is None):
            raise ValueError(f"limit {self.name!r}: give either limit_gy (Gy) or rate_gy_s (Gy/s)")
        if not 0 < self.value < float("inf"):
            raise ValueError(f"limit {self.name!r}: {self.value:g} {self.unit} is not a positive, finite limit")
        if self.window_s is None:
            return
        if self.rate_gy_s is None:
            raise ValueError(f"limit {self.name!r}: window_s goes with rate_gy_s, a dose limit has no window")
        if not 0 < self.window_s < math.inf:
            raise ValueError(f"limit {self.name!r}: window {self.window_s:g} s must be positive and finite")

    @property
    def kind(self) -> LimitKind:
        """What is limited: ``dose``, ``rate`` (instantaneous) or ``windowed rate`` (mean)."""
        if self.limit_gy is not None:
            return "dose"
        return "rate" if self.window_s is None else "windowed rate"

    @property
    def value(self) -> float:
        """The limit, in `unit`."""
        return (
            self.limit_gy
            if self.limit_gy is not None
            else self.rate_gy_s
            if self.rate_gy_s is not None
            else float("nan")
        )

    @property
    def unit(self) -> str:
        """Unit of the limit: ``Gy`` or ``Gy/s``."""
        return "Gy" if self.limit_gy is not None else "Gy/s"

    def with_value(self, value: float) -> DoseLimit:
        """Return the same limit with another value, in `unit`."""
        return replace(self, **{"limit_gy" if self.kind == "dose" else "rate_gy_s": float(value)})  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        """Return the limit as plain data (JSON)."""
        return asdict(self)


class LimitChange(NamedTuple):
    """A limit `name` has become `value`, in `unit`: Gy or Gy/s."""

    name: str
    value: float
    unit: str


def change_label(limit: DoseLimit) -> str:
    """Return how a ledger's note says to programs that a limit has this value from now on, for its run."""
    return f"limit {limit.name} = {limit.value!r} {limit.unit}"


def read_change(label: str) -> LimitChange | None:
    """Return what a note of `change_label` says; None: it is no such note."""
    found = _CHANGE.fullmatch(label)
    return None if found is None else LimitChange(found["name"], float(found["value"]), found["unit"])


def format_gy(value: float, unit: str = "Gy") -> str:
    """Write a dose or dose rate with three digits and an SI prefix, e.g. ``320 kGy``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
