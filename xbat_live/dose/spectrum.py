"""Light of more than one energy: energy scans, harmonics, any spectrum, as weighted sums of doses per photon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbat_live.dose.cross_sections import MAX_ENERGY_EV, FloatArray, check_energy
from xbat_live.dose.stack import LayerStack


def normalised_weights(weights: npt.ArrayLike | None, number: int, what: str = "weights") -> FloatArray:
    """Return weights that sum to 1.

    Parameters
    ----------
    weights
        One per energy, not negative, in any unit; None: all equal.
    number
        How many there have to be.
    what
        What they are called in an error.

    Raises
    ------
    ValueError
        Another number of weights, one that is negative or not finite, or none that is positive.
    """
    if weights is None:
        return np.full(number, 1.0 / number)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (number,):
        raise ValueError(f"{what}: shape {values.shape} does not fit {number} energies; give one number per energy")
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise ValueError(f"{what}: {values[wrong][0]:g} is not possible; they are finite and not negative")
    if not values.sum() > 0:
        raise ValueError(f"{what}: all are 0")
    return values / values.sum()


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Photons over energies.

    Attributes
    ----------
    energy_ev
        Photon energies, (n,), eV.
    weight
        Photons at each energy, (n,), any unit; kept as fractions of all photons. None: all equal.

    Raises
    ------
    ValueError
        Energies outside the tables, weights that do not fit or are negative.

    Examples
    --------
    >>> Spectrum([8300.0, 8400.0], [1, 3]).mean_energy_ev
    8375.0
    """

    energy_ev: FloatArray
    weight: FloatArray

    def __init__(self, energy_ev: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> None:
        energies = np.atleast_1d(check_energy(energy_ev)).copy()
        if energies.ndim != 1:
            raise ValueError(f"the energies of a spectrum are a list, not an array of shape {energies.shape}")
        weights = normalised_weights(weight, energies.size)
        for array in (energies, weights):
            array.setflags(write=False)
        object.__setattr__(self, "energy_ev", energies)
        object.__setattr__(self, "weight", weights)

    @classmethod
    def scan(
        cls, energy_ev: npt.ArrayLike, dwell_s: npt.ArrayLike | None = None, flux_ph_s: npt.ArrayLike | None = None
    ) -> Spectrum:
        """Return the photons of an energy scan.

        Parameters
        ----------
        energy_ev
            Energies, eV.
        dwell_s
            Shutter-open time at each, s; None: equal (Eq. 3 of the LiNiO2 paper).
        flux_ph_s
            Flux at each, photons/s; None: the same.

        Raises
        ------
        ValueError
            See `Spectrum`.
        """
        number = np.size(energy_ev)
        return cls(
            energy_ev,
            normalised_weights(dwell_s, number, "dwell_s") * normalised_weights(flux_ph_s, number, "flux_ph_s"),
        )

    def with_harmonics(self, fractions: Mapping[int, float]) -> Spectrum:
        """Return the spectrum with harmonics that a monochromator lets through.

        Parameters
        ----------
        fractions
            Order -> fraction of ALL photons that is in it, e.g. ``{3: 0.01}``; the rest is in the fundamental.

        Raises
        ------
        ValueError
            Orders below 2, fractions outside [0, 1) or summing to 1 or more, or a harmonic beyond the tables.
        """
        for order, fraction in fractions.items():
            if not (order == int(order) and order >= 2):
                raise ValueError(f"harmonic of order {order} is not possible; orders are 2, 3, ...")
            if not 0 <= fraction < 1:
                raise ValueError(f"fraction {fraction:g} in harmonic {order} is outside [0, 1); write 0.01 for 1 %")
            if float(self.energy_ev.max()) * order > MAX_ENERGY_EV:
                raise ValueError(f"harmonic {order} of {self.energy_ev.max():g} eV is beyond {MAX_ENERGY_EV:g} eV")
        fundamental = 1.0 - sum(fractions.values())
        if not fundamental > 0:
            raise ValueError(f"fractions in harmonics sum to {1 - fundamental:g}; nothing is left for the fundamental")
        orders = {1: fundamental, **fractions}
        return Spectrum(
            np.concatenate([self.energy_ev * order for order in orders]),
            np.concatenate([self.weight * fraction for fraction in orders.values()]),
        )

    @property
    def mean_energy_ev(self) -> float:
        """Mean photon energy, eV."""
        return float(self.weight @ self.energy_ev)

    def dose_per_fluence(
        self, stack: LayerStack, layer_name: str, material_name: str, model: str = "attenuation", where: str = "mean"
    ) -> float:
        """Return the mean of `LayerStack.dose_per_fluence` over all photons, Gy cm2 per photon."""
        return float(self.weight @ stack.dose_per_fluence(self.energy_ev, layer_name, material_name, model, where))

    def layer_dose_per_fluence(
        self, stack: LayerStack, layer_name: str, model: str = "attenuation", where: str = "mean"
    ) -> float:
        """Return the mean of `LayerStack.layer_dose_per_fluence` over all photons, Gy cm2 per photon."""
        return float(self.weight @ stack.layer_dose_per_fluence(self.energy_ev, layer_name, model, where))

    def transmission_to(self, stack: LayerStack, layer_name: str) -> float:
        """Return the fraction of all photons that arrives at the front of a layer."""
        return float(self.weight @ stack.transmission_to(layer_name, self.energy_ev))


def scan_dose_per_fluence(
    stack: LayerStack,
    energy_ev: npt.ArrayLike,
    layer_name: str,
    material_name: str,
    *,
    dwell_s: npt.ArrayLike | None = None,
    harmonics: Mapping[int, float] | None = None,
    model: str = "attenuation",
    where: str = "mean",
) -> float:
    """Return the dose of a whole energy scan per photon/cm2 given in all of it, Gy cm2 per photon.

    A scan across an absorption edge is never to be evaluated at one energy: at the nickel edge the dose per photon of
    NMC622 jumps by 2.2.

    Parameters
    ----------
    stack, layer_name, material_name, model, where
        See `LayerStack.dose_per_fluence`.
    energy_ev
        Energies of the scan, eV.
    dwell_s
        Shutter-open time at each energy, s; None: equal.
    harmonics
        See `Spectrum.with_harmonics`.

    Raises
    ------
    ValueError
        See `Spectrum` and `LayerStack.dose_per_fluence`.
    """
    spectrum = Spectrum.scan(energy_ev, dwell_s)
    if harmonics:
        spectrum = spectrum.with_harmonics(harmonics)
    return spectrum.dose_per_fluence(stack, layer_name, material_name, model, where)
