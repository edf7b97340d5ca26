"""Dose-hindered reaction: how far it has gone at every place, behind the bulk where the dose is above a threshold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from xbat_live.sim.clock import TwinClock
    from xbat_live.sim.settings import TwinSettings

__all__ = ["HinderedReaction", "lag_of_dose"]

_Float64 = npt.NDArray[np.float64]

_LARGEST_LAG = 0.85
_LAG_SCALE = 1.2
_STEP_S = 0.1  # of laboratory time
_RELAXATION_S = 120.0  # twin time within which a place follows
FULL_SOC = 0.88
"""State of charge of the whole cell at which the reaction is complete: that of the charge to 4.3 V."""


def lag_of_dose(dose_gy: npt.ArrayLike, threshold_gy: float) -> _Float64:
    """Return by how much the progress stays behind the bulk: 0 up to the threshold, then ``0.85 (1 - exp(-(D/D_thr - 1) / 1.2))``."""
    excess = np.maximum(np.asarray(dose_gy, dtype=np.float64) / threshold_gy - 1.0, 0.0)
    return np.asarray(_LARGEST_LAG * (1.0 - np.exp(-excess / _LAG_SCALE)))


class HinderedReaction:
    """Progress of the reaction, 0 to 1, on the grid of the dose truth.

    The irradiated part of the electrode is a few per cent of it: what happens there does not change the cell's voltage. Each
    place follows the bulk with a lag that its dose decides; the dose acts on its neighbourhood as well (`damage_spread_um`).
    With a time scale, one second of beam counts for as many seconds as the cell's clock: the threshold in delivered dose is
    then smaller by that factor.

    Parameters
    ----------
    settings
        ``damage_threshold_gy`` (at a time scale of 1), ``damage_spread_um``, ``dose_grid_um``.
    shape
        Of the grid of the dose truth.
    """

    def __init__(self, settings: TwinSettings, shape: tuple[int, int]) -> None:
        self.progress: _Float64 = np.zeros(shape)
        self._effect_gy: _Float64 = np.zeros(shape)
        self._seen_gy: _Float64 = np.zeros(shape)
        self._spread_px = settings.damage_spread_um / settings.dose_grid_um
        self._threshold_gy = settings.damage_threshold_gy
        self._time_s = 0.0
        self._begun = False
        self._advanced_s = -math.inf

    def at(
        self, clock: TwinClock, clock_s: float, bulk_soc: float, dose_gy: _Float64, *, exact: bool = False
    ) -> _Float64:
        """Return the progress at `clock_s`, a new array when it has changed; not more than some times a second unless `exact`.

        Parameters
        ----------
        clock
            Twin time and its scale.
        bulk_soc
            State of charge of the cell.
        dose_gy
            What has been delivered by now.
        """
        if exact or clock_s - self._advanced_s >= _STEP_S:
            self._advanced_s = clock_s
            self._advance(clock.at(clock_s), bulk_soc, dose_gy, clock.scale)
        return self.progress

    def _advance(self, twin_time_s: float, bulk_soc: float, dose_gy: _Float64, time_scale: float) -> None:
        bulk = min(max(bulk_soc / FULL_SOC, 0.0), 1.0)
        self._effect_gy += (dose_gy - self._seen_gy) * time_scale
        np.copyto(self._seen_gy, dose_gy)
        effect = self._effect_gy
        if self._spread_px > 0 and effect.any():
            from scipy.ndimage import gaussian_filter

            effect = gaussian_filter(effect, self._spread_px, mode="nearest")
        target = np.maximum(bulk - lag_of_dose(effect, self._threshold_gy), 0.0)
        passed_s, self._time_s = max(twin_time_s - self._time_s, 0.0), twin_time_s
        share = 1.0 - math.exp(-passed_s / _RELAXATION_S) if self._begun else 1.0
        self._begun = True
        self.progress = self.progress + share * (target - self.progress)
