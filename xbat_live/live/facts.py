"""What the page is told once of an experiment: outline, beam, limits, literature, how dose is counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xbat_live.config import ExperimentConfig

if TYPE_CHECKING:
    from xbat_live.dose import DoseLimit


def describe(config: ExperimentConfig) -> dict[str, Any]:
    """Return the value `experiment` of the live view, plain data with units in the names."""
    from xbat_live import dose
    from xbat_live.dose_setup import make_beam, make_limits, make_stack

    sample, plan = config.sample, config.plan
    beam = make_beam(config)
    stack = make_stack(config)
    limits = make_limits(config)
    materials = {sample.material, *(limit.material for limit in limits)}
    presets = [
        dose.presets.limit(name, material)
        for material in sorted(materials)
        for name in dose.presets.limit_names(material)
    ]
    energy_ev = config.beam.energy_ev
    factor = stack.dose_per_fluence(energy_ev, sample.layer, sample.material, config.dose.model)
    return {
        "with_beam": not config.uses_microscope,
        "sample": sample.name,
        "material": sample.material,
        "layer": sample.layer,
        "outline_um": list(sample.size_um),
        "forbidden_um": [list(zone) for zone in sample.forbidden_um],
        "beam_fwhm_um": list(beam.fwhm_um),
        "footprint_um": list(beam.footprint_um),
        "pixel_size_um": config.optical.pixel_size_um if config.uses_microscope else config.camera.pixel_size_um,
        **limits_shown(limits),
        "literature": [limit.as_dict() for limit in presets],
        "deadband_um": _deadband_um(),
        "correct_drift": plan.correct_drift,
        "dose": {
            "model": config.dose.model,
            "sigma_rel": config.dose.sigma,
            "k_sigma": config.dose.k_sigma,
            "flux_ph_s": config.beam.flux_ph_s,
            "i0_reference_na": config.beam.i0_reference_na,
            "energy_ev": energy_ev,
            "gy_cm2": factor,
            "peak_per_cm2": beam.profile.peak_per_cm2,
            "electrolyte_ratio": _electrolyte_ratio(stack, sample.layer, energy_ev, config.dose.model, factor),
        },
    }


def limits_shown(limits: Iterable[DoseLimit]) -> dict[str, Any]:
    """Return what is shown of the limits in force; a part of `describe`, and changed with them."""
    from xbat_live.dose_setup import OWN_LIMIT, OWN_RATE_LIMIT

    every = tuple(limits)
    return {
        "dose_limit_gy": next((limit.limit_gy for limit in every if limit.name == OWN_LIMIT), None),
        "rate_limit_gy_s": next((limit.rate_gy_s for limit in every if limit.name == OWN_RATE_LIMIT), None),
        "limits": [limit.as_dict() for limit in every],
    }


def _deadband_um() -> float:
    from xbat_live.plans.series import DriftPolicy

    return DriftPolicy.deadband_um


def _electrolyte_ratio(stack: Any, layer: str, energy_ev: float, model: str, factor: float) -> float | None:
    """Return dose of the electrolyte in the layer of the sample over that of its material; None: there is none."""
    try:
        return float(stack.dose_per_fluence(energy_ev, layer, "electrolyte", model)) / factor
    except (ValueError, KeyError):
        return None
