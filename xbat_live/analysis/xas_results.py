"""What an analysis of energy sweeps found: averages and maps by phase, their evolution, the dose threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.dose import DoseMasks
from xbat_live.spectra import DoseCurve, ShiftMap, Threshold

Float = NDArray[np.float64]

IRRADIATED = "C"


@dataclass(frozen=True, eq=False)
class CubeGroup:
    """The average of the cubes of one phase, and its maps on binned pixels.

    Attributes
    ----------
    name, place
        Phase and place, e.g. ``end C`` and ``C``.
    numbers
        Of the cubes.
    place_time_s
        Mean time that the place had been in the beam, s.
    energy_ev, spectrum
        Nominal energies (n,), eV, and the absorbance averaged over the lit field (n,).
    fractions, fraction_sigma
        Of every component, (k, ny, nx); k is 0 while the components are not known. NaN where masked.
    r_factor, edge_ev, edge_sigma_ev
        (ny, nx); eV.
    dose_gy
        Dose rate times `place_time_s`, (ny, nx), Gy.
    """

    name: str
    place: str
    numbers: tuple[int, ...]
    place_time_s: float
    energy_ev: Float
    spectrum: Float
    fractions: Float
    fraction_sigma: Float
    r_factor: Float
    edge_ev: Float
    edge_sigma_ev: Float
    dose_gy: Float

    @property
    def masked_count(self) -> int:
        """Pixels without an edge."""
        return int(np.isnan(self.edge_ev).sum())

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain data, units in the names."""
        lit = np.isfinite(self.edge_ev)
        means = np.nanmean(self.fractions, axis=(1, 2)) if len(self.fractions) else []
        return {
            "cubes": len(self.numbers),
            "place": self.place,
            "place_time_s": self.place_time_s,
            "edge_ev": float(np.median(self.edge_ev[lit])) if lit.any() else None,
            "fractions": [float(value) for value in means],
            "r_factor": float(np.nanmedian(self.r_factor)) if len(self.fractions) else None,
            "largest_dose_gy": float(np.nanmax(self.dose_gy)),
            "masked_pixels": self.masked_count,
        }


@dataclass(frozen=True, eq=False)
class Evolution:
    """Averages of the pixels of low and of high dose rate in every cube of the irradiated spot.

    Attributes
    ----------
    number, time_s, place_time_s, voltage_v, state_of_charge
        Of the cubes, (n,); time since the first of them.
    phase
        Of each.
    grid_ev
        True energies, (m,), eV.
    low, high
        Normalised absorbance, (n, m).
    low_fractions, high_fractions
        (n, k).
    """

    number: NDArray[np.int64]
    phase: tuple[str, ...]
    time_s: Float
    place_time_s: Float
    voltage_v: Float
    state_of_charge: Float
    grid_ev: Float
    low: Float
    high: Float
    low_fractions: Float
    high_fractions: Float


@dataclass(frozen=True, eq=False)
class XasRunAnalysis:
    """What a protocol of energy sweeps says.

    Attributes
    ----------
    run_uid, run_uids
        The run that was asked for, and all that hold cubes of the protocol.
    masks
        Dose-rate map (Gy/s) and its intervals.
    low, high
        Numbers of the intervals that stand for low and high dose rate.
    shift
        Energy calibration of every pixel.
    component_energy_ev, components
        True energies (m,), eV, and component spectra (k, m), normalised; empty when the sample did not change.
    groups
        Averages and maps by phase, in the order of the protocol.
    evolution
        Of the irradiated spot.
    curve
        Fraction of every component against dose at the irradiated spot; None without components.
    threshold
        Dose from which on the last component falls behind.
    notes
        What was left out, and why.
    """

    run_uid: str
    run_uids: tuple[str, ...]
    masks: DoseMasks
    low: int
    high: int
    shift: ShiftMap
    component_energy_ev: Float
    components: Float
    groups: tuple[CubeGroup, ...]
    evolution: Evolution
    curve: DoseCurve | None
    threshold: Threshold
    notes: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def irradiated(self) -> CubeGroup:
        """The last group of the irradiated spot."""
        return next(group for group in reversed(self.groups) if group.place == IRRADIATED)

    def summary(self) -> dict[str, Any]:
        """Return all numbers as plain data, units in the names."""
        edges = self.masks.edges_gy_s
        value = self.threshold.value_gy
        return {
            "run_uid": self.run_uid,
            "run_uids": list(self.run_uids),
            "largest_dose_rate_gy_s": float(np.nanmax(self.masks.rate_gy_s)),
            "low_rate_gy_s": [float(edges[self.low]), float(edges[self.low + 1])],
            "high_rate_gy_s": [float(edges[self.high]), float(edges[self.high + 1])],
            "components": len(self.components),
            "groups": {group.name: group.summary() for group in self.groups},
            "threshold_gy": float(value) if np.isfinite(value) else None,
            "threshold_interval_gy": [_plain(limit) for limit in self.threshold.interval_gy],
            "threshold_reason": self.threshold.reason,
            "notes": list(self.notes),
            "parameters": self.parameters,
        }


def _plain(value: float) -> float | str | None:
    """JSON has no infinity."""
    if np.isnan(value):
        return None
    return float(value) if np.isfinite(value) else "open"
