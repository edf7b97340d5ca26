"""Dose of every material of the stack, from what a walk gave where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xbat_live import dose
from xbat_live.config import ExperimentConfig
from xbat_live.forecast.account import Exposures, Place
from xbat_live.forecast.facts import MaterialDose


@dataclass(frozen=True)
class Doses:
    """Doses after a walk.

    Attributes
    ----------
    config
        The experiment.
    account
        Charged with everything.
    places
        What each place got.
    opening_s
        Returns the open time of an exposure, s.
    """

    config: ExperimentConfig
    account: dose.DoseAccount
    places: dict[Place, Exposures]
    opening_s: Callable[[float], float]

    def materials(self) -> tuple[MaterialDose, ...]:
        """Return the doses of all materials, on the place that got most; those that are tracked first."""
        most = max(self.places.values(), key=self.primary_gy, default=self.one_exposure())
        tracked = self.account.targets
        primary = tracked[0]
        peak = {target: self.account.dose_at(most.x_um, most.y_um, target).peak_gy for target in tracked}
        found = [self._material(most, target, peak[target], True) for target in tracked]
        scale = peak[primary] / max(self._dose_gy(most, primary), 1e-300)
        for layer in self.account.stack.layers:
            for material in layer.parts:
                target = dose.DoseTarget(layer.name, material.name)
                if target not in tracked:
                    found.append(self._material(most, target, scale * self._dose_gy(most, target), False))
        return tuple(found)

    def one_exposure(self) -> Exposures:
        """Stand for the exposures of a plan that gets none."""
        config, open_s = self.config, self.opening_s(self.config.camera.exposure_s)
        x_um, y_um = (sum(parts) for parts in zip(config.plan.spot_um, config.plan.fields_um[0], strict=True))
        return Exposures(x_um, y_um, 0, 1, open_s, {first_energy_ev(config): open_s * config.beam.flux_ph_s})

    def _material(self, place: Exposures, target: dose.DoseTarget, spot_gy: float, tracked: bool) -> MaterialDose:
        photons = place.photons or {}
        mean_photons = sum(photons.values()) / max(place.exposures, 1)
        per_frame = [mean_photons * self.gray(target, energy_ev) for energy_ev in photons]
        open_s = place.open_time_s / max(place.exposures, 1)
        return MaterialDose(
            target.layer, target.material, max(per_frame), sum(per_frame), spot_gy, max(per_frame) / open_s, tracked
        )

    def gray(self, target: dose.DoseTarget, energy_ev: float) -> float:
        """Return the peak dose per photon, Gy."""
        per_fluence = float(
            self.account.stack.dose_per_fluence(energy_ev, target.layer, target.material, self.account.model)
        )
        return self.account.beam.profile.peak_per_cm2 * per_fluence

    def _dose_gy(self, place: Exposures, target: dose.DoseTarget) -> float:
        return sum(photons * self.gray(target, energy_ev) for energy_ev, photons in (place.photons or {}).items())

    def primary_gy(self, place: Exposures) -> float:
        """Return the dose that a place got in the walk, of the primary target, without its neighbours, Gy."""
        return self._dose_gy(place, self.account.targets[0])


def first_energy_ev(config: ExperimentConfig) -> float:
    """Return the photon energy that a plan begins with, eV."""
    visited_ev = config.plan.visited_ev if config.plan.name in ("xanes_series", "scripted_series") else ()
    return visited_ev[0] if visited_ev else config.beam.energy_ev
