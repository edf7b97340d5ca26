"""Where the sample is between two runs: the drift that the last runs registered, carried on, and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbat_live.dose.exposure import FloatArray
from xbat_live.dose.ledger import Ledger, Moment

PACE_UM_PER_MIN = 0.01
"""Drift rate that is allowed for where none was registered, um/min; Sun et al. (2025) saw 5.2 um in 840 min."""
POSITION_SIGMAS = 3.0
"""How many standard deviations of the position are kept free."""
_HISTORY_S = 12 * 3600.0
_ROWS = 5_000
_LOOKED_AT = 20_000
_LEAST_SPAN_S = 60.0
_LEAST_POINTS = 5
_COLUMNS = ("time_unix_s", "time_monotonic_s", "boot_id", "run_uid", "kind")
_POSITION = ("drift_x_um", "drift_y_um", "position_sigma_um")


@dataclass(frozen=True)
class SamplePosition:
    """Drift of the sample against the stage: sample coordinate = stage reading - drift.

    Attributes
    ----------
    drift_x_um, drift_y_um
        Drift, um.
    sigma_um
        Standard uncertainty of a sample coordinate, against those of the exposures before, um.

    Raises
    ------
    ValueError
        Not finite, or a negative uncertainty.
    """

    drift_x_um: float = 0.0
    drift_y_um: float = 0.0
    sigma_um: float = 0.0

    def __post_init__(self) -> None:
        for name in ("drift_x_um", "drift_y_um", "sigma_um"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not (math.isfinite(self.drift_x_um) and math.isfinite(self.drift_y_um) and 0 <= self.sigma_um < math.inf):
            raise ValueError(
                f"drift ({self.drift_x_um:g}, {self.drift_y_um:g}) um with uncertainty {self.sigma_um:g} um is not possible"
            )


@dataclass(frozen=True)
class CarriedPosition:
    """The position that the last runs left, and how it goes on.

    A rate that was registered over a time T is trusted for about T: it is carried on as ``rate T (1 - exp(-t / T))``,
    because thermal and mechanical drift dies away.

    Attributes
    ----------
    last
        As recorded with the last exposure.
    age_s
        Time since then when this was read, s.
    rate_xy_um_per_min
        Drift rate within the last runs; (0, 0) when none could be told.
    known_s
        Time T over which it was registered, s; 0: not at all.
    """

    last: SamplePosition
    age_s: float
    rate_xy_um_per_min: tuple[float, float] = (0.0, 0.0)
    known_s: float = 0.0

    def doubted(self) -> CarriedPosition:
        """Return what is left when the drift was registered wrongly: none, as uncertain as it was large."""
        off_um = math.hypot(self.last.drift_x_um, self.last.drift_y_um)
        return CarriedPosition(SamplePosition(sigma_um=math.hypot(self.last.sigma_um, off_um)), self.age_s)

    def after(self, seconds: float = 0.0) -> SamplePosition:
        """Return the position to be expected `seconds` s after this was read, with its uncertainty.

        A third of what was carried on counts as standard uncertainty, and where no rate is known `PACE_UM_PER_MIN`.
        """
        gap_s = max(self.age_s + seconds, 0.0)
        if self.known_s <= 0:
            extra_um = PACE_UM_PER_MIN * gap_s / 60
            return SamplePosition(
                self.last.drift_x_um, self.last.drift_y_um, math.hypot(self.last.sigma_um, extra_um / POSITION_SIGMAS)
            )
        minutes = self.known_s * -math.expm1(-gap_s / self.known_s) / 60
        x_um, y_um = (rate * minutes for rate in self.rate_xy_um_per_min)
        # What lies beyond the time the rate was seen for is unknown again, at the usual pace.
        beyond_um = PACE_UM_PER_MIN * max(gap_s - self.known_s, 0.0) / 60
        extra_um = math.hypot(x_um, y_um) / POSITION_SIGMAS + beyond_um / POSITION_SIGMAS
        return SamplePosition(
            self.last.drift_x_um + x_um, self.last.drift_y_um + y_um, math.hypot(self.last.sigma_um, extra_um)
        )


def begun_position(dose: Mapping[str, Any]) -> CarriedPosition | None:
    """Return the position that a run began with, from the entry ``dose`` of its start document; None: it was not kept, or 0."""
    try:
        begun = SamplePosition(**dose.get("position", {}))
    except (TypeError, ValueError):
        return None
    return None if begun == SamplePosition() else CarriedPosition(begun, age_s=0.0)


def carried_position(ledger: Ledger, moment: Moment | None = None) -> CarriedPosition | None:
    """Read from a ledger what is known of the sample's position.

    Parameters
    ----------
    ledger
        The sample's ledger.
    moment
        Now; default: the ledger's clocks. Ages are told by the monotonic clock within one boot of the machine, else by the
        wall clock; a record from the future (a clock that was set back) is of now.

    Returns
    -------
    CarriedPosition or None
        None when no exposure was recorded with a position: the coordinates begin anew.
    """
    now = moment or ledger.now()
    ages_s: list[float] = []
    drifts_um: list[tuple[float, float]] = []
    runs: list[str] = []
    last: tuple[SamplePosition, float] | None = None
    for row in _with_position(ledger):
        wall_s, monotonic_s, boot, run, _, x_um, y_um, sigma_um = row
        age_s = max(now.monotonic_s - monotonic_s if boot == ledger.boot_id else now.wall_s - wall_s, 0.0)
        if last is None:
            last = SamplePosition(x_um, y_um, sigma_um or 0.0), age_s
        if age_s > last[1] + _HISTORY_S or len(ages_s) >= _ROWS:
            break
        ages_s.append(age_s)
        drifts_um.append((x_um, y_um))
        runs.append(run)
    if last is None:
        return None
    rate, known_s = _pooled_rate(np.array(ages_s), np.array(drifts_um), runs)
    return CarriedPosition(last[0], last[1], rate, known_s)


def _with_position(ledger: Ledger) -> Iterable[tuple]:
    """Rows of the records that tell a position, the last one first; a ledger that has none is not read to its beginning."""
    found = False
    for number, row in enumerate(ledger.rows_backwards(_COLUMNS + _POSITION)):
        if row[-3] is not None and row[-2] is not None:
            found = True
            yield row
        elif not found and number >= _LOOKED_AT:
            return


def _pooled_rate(ages_s: FloatArray, drifts_um: FloatArray, runs: list[str]) -> tuple[tuple[float, float], float]:
    """Slope common to all runs, each with an offset of its own (what happened between runs is an assumption, not data)."""
    weight, moments = 0.0, np.zeros(2)
    names = np.array(runs)
    for run in dict.fromkeys(runs):
        chosen = names == run
        if chosen.sum() < _LEAST_POINTS:
            continue
        minutes = -ages_s[chosen] / 60
        minutes = minutes - minutes.mean()
        weight += float(minutes @ minutes)
        moments += minutes @ (drifts_um[chosen] - drifts_um[chosen].mean(axis=0))
    span_s = float(ages_s.max() - ages_s.min())
    if weight <= 0 or span_s < _LEAST_SPAN_S:
        return (0.0, 0.0), 0.0
    x_rate, y_rate = moments / weight
    return (float(x_rate), float(y_rate)), span_s


__all__ = ["PACE_UM_PER_MIN", "POSITION_SIGMAS", "CarriedPosition", "SamplePosition", "carried_position"]
