"""How well a dose is known: which part is wrong in the same way in every exposure, and which part averages out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from xbat_live.dose.cross_sections import absorption_edges_ev, check_energy
from xbat_live.dose.stack import LayerStack

SIGMA_KAPPA = 0.02
SIGMA_KAPPA_AT_EDGE = 0.05
EDGE_WINDOW_EV = 50.0


@dataclass(frozen=True)
class DoseUncertainty:
    """Relative standard uncertainty of a dose, by cause.

    The choice of the dose model is none of the causes: it is a definition, kept beside every dose.

    Attributes
    ----------
    correlated_terms
        Cause -> relative uncertainty, for what is wrong by the same factor in every exposure: calibration of the flux,
        profile, area, coefficients, thicknesses. They add linearly over exposures.
    uncorrelated_terms
        The same, per exposure, for what differs from exposure to exposure: counting noise of the monitor, jitter of the
        shutter. They add in quadrature over exposures.
    sensitivities
        Layer -> d ln(dose) / d ln(thickness).
    """

    correlated_terms: dict[str, float]
    uncorrelated_terms: dict[str, float]
    sensitivities: dict[str, float]

    @property
    def terms(self) -> dict[str, float]:
        """All causes with their relative uncertainty for one exposure."""
        return self.correlated_terms | self.uncorrelated_terms

    @property
    def correlated(self) -> float:
        """Relative uncertainty that no repetition makes smaller."""
        return math.hypot(*self.correlated_terms.values())

    @property
    def uncorrelated(self) -> float:
        """Relative uncertainty of one exposure that averages out over many."""
        return math.hypot(*self.uncorrelated_terms.values())

    def total(self, exposures: int = 1) -> float:
        """Return the relative uncertainty of the sum of a number of equal exposures.

        Raises
        ------
        ValueError
            Fewer than one exposure.
        """
        if exposures < 1:
            raise ValueError(f"{exposures} exposures: at least 1 is needed")
        return math.hypot(self.correlated, self.uncorrelated / math.sqrt(exposures))

    def absolute_gy(self, doses_gy: Iterable[float]) -> float:
        """Return the uncertainty of the sum of exposures that gave `doses_gy`, Gy."""
        doses = np.asarray(list(doses_gy), dtype=np.float64)
        return float(math.hypot(self.correlated * doses.sum(), self.uncorrelated * math.hypot(*doses)))


def relative_dose_uncertainty(
    stack: LayerStack,
    energy_ev: float,
    layer_name: str,
    material_name: str | None = None,
    *,
    model: str = "attenuation",
    where: str = "mean",
    sigma_flux: float = 0.10,
    sigma_profile: float = 0.10,
    sigma_area: float = 0.05,
    sigma_kappa: float | None = None,
    sigma_thickness: float | Mapping[str, float] = 0.10,
    sigma_i0: float = 0.0,
    sigma_time: float = 0.0,
) -> DoseUncertainty:
    """Return the uncertainty of a dose of `LayerStack.dose_per_fluence` times a fluence.

    ``(sD/D)^2 = sF^2 + sp^2 + sA^2 + sk^2 + sum over layers of (d ln D / d ln t)^2 st^2``, plus what differs from
    exposure to exposure. The sensitivity to the thickness (more exactly: to mu t) of a layer upstream is ``-mu t``; to
    that of the own layer ``tau e^-tau / (1 - e^-tau) - 1`` for the mean, 0 at the front, ``-tau`` at the back.

    Parameters
    ----------
    stack, energy_ev, layer_name, material_name, model, where
        See `LayerStack.dose_per_fluence`; `material_name` None: the mass mean of the layer.
    sigma_flux
        Calibration of the flux.
    sigma_profile
        Shape of the beam and fraction of it in the field.
    sigma_area
        Pixel area, or beam size squared.
    sigma_kappa
        Mass coefficient of the material; None: 2 %, or 5 % within 50 eV of an absorption edge of it (tables differ
        by 1-4 %).
    sigma_thickness
        Thickness of the layers (one number, or by layer name; layers not named are taken as exact).
    sigma_i0, sigma_time
        Noise of the flux monitor in one exposure, jitter of its open time; relative.

    The defaults are judgement, not measurement.

    Raises
    ------
    ValueError
        Unknown layer, material, model or place, energy outside the tables, a sigma that is negative or above 1.
    """
    index = [layer.name for layer in stack.layers].index(stack.layer(layer_name).name)
    stack.dose_per_fluence(
        energy_ev, layer_name, material_name or next(iter(stack.layers[index].parts)).name, model, where
    )
    depths = {
        layer.name: float(stack.optical_depth(layer.name, energy_ev, model)) for layer in stack.layers[: index + 1]
    }
    sensitivities = {name: -depth for name, depth in depths.items()}
    tau = depths[layer_name]
    if where == "mean":
        sensitivities[layer_name] = tau / math.expm1(tau) - 1
    elif where == "front":
        sensitivities[layer_name] = 0.0
    if isinstance(sigma_thickness, Mapping):
        for name in sigma_thickness:
            stack.layer(name)
    by_layer = sigma_thickness if isinstance(sigma_thickness, Mapping) else dict.fromkeys(depths, sigma_thickness)
    kappa = _sigma_kappa(stack, energy_ev, layer_name, material_name) if sigma_kappa is None else sigma_kappa
    given = {"flux": sigma_flux, "profile": sigma_profile, "area": sigma_area, "kappa": kappa}
    noise = {"i0": sigma_i0, "time": sigma_time}
    for name, sigma in [*given.items(), *noise.items(), *by_layer.items()]:
        if not 0 <= sigma <= 1:
            raise ValueError(f"relative uncertainty {sigma:g} of {name!r} is outside 0 .. 1; write 0.1 for 10 %")
    thickness = {f"thickness of {name}": abs(sensitivities[name]) * by_layer.get(name, 0.0) for name in depths}
    return DoseUncertainty(given | thickness, noise, sensitivities)


def _sigma_kappa(stack: LayerStack, energy_ev: float, layer_name: str, material_name: str | None) -> float:
    layer = stack.layer(layer_name)
    materials = layer.parts if material_name is None else (layer.material(material_name),)
    edges = np.array(
        [edge for item in materials for element in item.composition for edge in absorption_edges_ev(element)]
    )
    near = np.abs(edges - float(check_energy(energy_ev))) <= EDGE_WINDOW_EV
    return SIGMA_KAPPA_AT_EDGE if near.any() else SIGMA_KAPPA
