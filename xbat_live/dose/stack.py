"""Layer stacks: what the beam meets, in order, and what a photon leaves in each material."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args, overload

import numpy as np
import numpy.typing as npt

from xbat_live.dose.cross_sections import (
    ELECTRONVOLT_J,
    DoseModel,
    FloatArray,
    check_energy,
    check_model,
    mass_attenuation,
    mass_energy_deposition,
)
from xbat_live.dose.materials import Material

logger = logging.getLogger(__name__)

Where = Literal["mean", "front", "back"]

MIN_THICKNESS_UM = 1e-4
MAX_THICKNESS_UM = 1e5
_MILLIMETRE_SLIP_UM = (5e-3, 5e-2)
_MILLIMETRE_DOUBT_UM = 0.5
_CM_PER_UM = 1e-4
_G_PER_KG = 1e3


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    Attributes
    ----------
    name
        Name, unique in its stack.
    thickness_um
        Thickness along the surface normal, um.
    parts
        Volume fraction by material; what is missing to 1 is void.
    thin_film
        Confirms a thickness of 5 to 500 nm. Without it 5 to 50 nm is taken for a 5 to 50 um layer written in mm and
        refused; up to 500 nm there is a warning in the log.

    Raises
    ------
    ValueError
        Thickness outside 1e-4 .. 1e5 um or suspicious (see `thin_film`), volume fractions outside (0, 1] or summing
        to more than 1, two materials of one name, no material.
    """

    name: str
    thickness_um: float
    parts: Mapping[Material, float] = field(hash=False)
    thin_film: bool = False

    def __post_init__(self) -> None:
        where = f"layer {self.name!r}"
        thickness = self.thickness_um
        if not (isinstance(self.name, str) and self.name):
            raise ValueError("a layer needs a name")
        if not MIN_THICKNESS_UM <= thickness <= MAX_THICKNESS_UM:
            raise ValueError(
                f"{where}: thickness {thickness:g} um is outside {MIN_THICKNESS_UM:g} .. {MAX_THICKNESS_UM:g} um; "
                "thicknesses are in um (1 mm = 1000 um)"
            )
        if _MILLIMETRE_SLIP_UM[0] <= thickness < _MILLIMETRE_SLIP_UM[1] and not self.thin_film:
            raise ValueError(
                f"{where}: thickness {thickness:g} um looks like millimetres; did you mean {thickness * 1000:g} um? "
                "A film that thin needs thin_film=True"
            )
        if _MILLIMETRE_SLIP_UM[1] <= thickness < _MILLIMETRE_DOUBT_UM and not self.thin_film:
            logger.warning(
                "%s: %g um is thin; if it is %g um, the thickness was given in mm", where, thickness, thickness * 1000
            )
        if not isinstance(self.parts, Mapping) or not all(isinstance(part, Material) for part in self.parts):
            raise ValueError(
                f"{where}: parts are given as {{Material: volume fraction}}, e.g. {{oxide: 0.6, electrolyte: 0.4}}"
            )
        object.__setattr__(self, "parts", dict(self.parts))
        if not self.parts:
            raise ValueError(f"{where}: no material")
        names = [material.name for material in self.parts]
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: two materials of one name: {', '.join(names)}")
        for material, fraction in self.parts.items():
            if not 0 < fraction <= 1:
                raise ValueError(
                    f"{where}: volume fraction {fraction:g} of {material.name!r} is outside (0, 1]; write 0.6 for 60 %"
                )
        total = math.fsum(self.parts.values())
        if total > 1 + 1e-9:
            raise ValueError(f"{where}: volume fractions sum to {total:g}, more than 1")

    @property
    def density_g_cm3(self) -> float:
        """Density of the layer with its pores, g/cm3."""
        return math.fsum(material.density_g_cm3 * fraction for material, fraction in self.parts.items())

    def material(self, name: str) -> Material:
        """Return the material called `name`.

        Raises
        ------
        ValueError
            Unknown name; those of the layer are listed.
        """
        for material in self.parts:
            if material.name == name:
                return material
        raise ValueError(
            f"layer {self.name!r} has no material {name!r}; it has: {', '.join(m.name for m in self.parts)}"
        )

    def linear_attenuation(self, energy_ev: FloatArray, model: DoseModel = "attenuation") -> FloatArray:
        """Return mu of the layer, 1/cm: the sum of (mu/rho) rho v over its materials. Shape of `energy_ev` (eV)."""
        total = np.zeros(energy_ev.shape)
        for material, fraction in self.parts.items():
            total = total + mass_attenuation(material.composition, energy_ev, model) * (
                material.density_g_cm3 * fraction
            )
        return total


@dataclass(frozen=True)
class LayerStack:
    """Layers in beam order.

    Attributes
    ----------
    layers
        Layers, the one the beam meets first first.
    tilt_deg
        Angle between beam and surface normal, deg; the path through every layer is thickness / cos(tilt).

    Raises
    ------
    ValueError
        No layer, two layers of one name, tilt outside [0, 85] deg.
    """

    layers: tuple[Layer, ...]
    tilt_deg: float = 0.0

    def __init__(self, layers: Iterable[Layer], tilt_deg: float = 0.0) -> None:
        if isinstance(layers, Layer):
            raise ValueError("a stack is given as a list of layers, in beam order: LayerStack([layer, ...])")
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "tilt_deg", float(tilt_deg))
        if not self.layers or not all(isinstance(layer, Layer) for layer in self.layers):
            raise ValueError("a stack needs at least one layer, and consists of layers only")
        names = [layer.name for layer in self.layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two layers of one name: {', '.join(twice)}; layers are addressed by name, so names must differ"
            )
        if not 0 <= self.tilt_deg <= 85:
            raise ValueError(f"tilt {self.tilt_deg:g} deg is outside 0 .. 85 deg")

    def layer(self, name: str) -> Layer:
        """Return the layer called `name`.

        Raises
        ------
        ValueError
            Unknown name; those of the stack are listed.
        """
        return self.layers[self._index(name)]

    @overload
    def transmission(self, energy_ev: float) -> float: ...
    @overload
    def transmission(self, energy_ev: FloatArray) -> FloatArray: ...
    def transmission(self, energy_ev: float | FloatArray) -> float | FloatArray:
        """Return the fraction of photons that passes the whole stack (total attenuation, Beer-Lambert).

        Parameters
        ----------
        energy_ev
            Scalar or array, eV.

        Returns
        -------
        float or numpy.ndarray
            0 .. 1, as `energy_ev`.

        Raises
        ------
        ValueError
            Energy outside the tables.
        """
        energies = check_energy(energy_ev)
        return _like(energy_ev, self._transmission_before(len(self.layers), energies, "attenuation"))

    @overload
    def transmission_to(self, layer_name: str, energy_ev: float) -> float: ...
    @overload
    def transmission_to(self, layer_name: str, energy_ev: FloatArray) -> FloatArray: ...
    def transmission_to(self, layer_name: str, energy_ev: float | FloatArray) -> float | FloatArray:
        """Return the fraction of photons that arrives at the front of a layer. See `transmission`."""
        index = self._index(layer_name)
        energies = check_energy(energy_ev)
        return _like(energy_ev, self._transmission_before(index, energies, "attenuation"))

    def optical_depth(self, layer_name: str, energy_ev: npt.ArrayLike, model: str = "attenuation") -> FloatArray:
        """Return mu t of a layer along the beam, (tilt included), an array of the shape of `energy_ev` (eV).

        Raises
        ------
        ValueError
            Unknown layer or model; energy outside the tables.
        """
        return self._depth(self.layer(layer_name), check_energy(energy_ev), check_model(model))

    @overload
    def dose_per_fluence(
        self, energy_ev: float, layer_name: str, material_name: str, model: str = "attenuation", where: str = "mean"
    ) -> float: ...
    @overload
    def dose_per_fluence(
        self,
        energy_ev: FloatArray,
        layer_name: str,
        material_name: str,
        model: str = "attenuation",
        where: str = "mean",
    ) -> FloatArray: ...
    def dose_per_fluence(
        self,
        energy_ev: float | FloatArray,
        layer_name: str,
        material_name: str,
        model: str = "attenuation",
        where: str = "mean",
    ) -> float | FloatArray:
        """Return the dose of one material of one layer per photon/cm2 incident on the stack.

        ``K = T_up E (kappa/rho) G(tau)``; the dose is energy per mass of that material, so porosity only acts through
        attenuation.

        Parameters
        ----------
        energy_ev
            Scalar or array, eV.
        layer_name, material_name
            Where the dose is wanted.
        model
            Dose definition: ``attenuation``, ``energy``, ``photo`` or ``legacy_jousseaume``, see
            `mass_energy_deposition`. Doses and thresholds compare only within one definition.
        where
            ``mean`` over the layer's depth, ``front`` or ``back`` surface.

        Returns
        -------
        float or numpy.ndarray
            Gy cm2 per photon, as `energy_ev`.

        Raises
        ------
        ValueError
            Unknown layer, material, model or place; energy outside the tables.
        """
        material = self.layer(layer_name).material(material_name)
        chosen = check_model(model)
        energies = check_energy(energy_ev)
        kappa = mass_energy_deposition(material.composition, energies, chosen)
        return _like(energy_ev, self._energy_fluence_gy(layer_name, energies, chosen, where) * kappa)

    @overload
    def layer_dose_per_fluence(
        self, energy_ev: float, layer_name: str, model: str = "attenuation", where: str = "mean"
    ) -> float: ...
    @overload
    def layer_dose_per_fluence(
        self, energy_ev: FloatArray, layer_name: str, model: str = "attenuation", where: str = "mean"
    ) -> FloatArray: ...
    def layer_dose_per_fluence(
        self, energy_ev: float | FloatArray, layer_name: str, model: str = "attenuation", where: str = "mean"
    ) -> float | FloatArray:
        """Return the mass mean of a layer's dose per photon/cm2, Gy cm2 per photon. See `dose_per_fluence`."""
        layer = self.layer(layer_name)
        chosen = check_model(model)
        energies = check_energy(energy_ev)
        kappa = np.zeros(energies.shape)
        for material, fraction in layer.parts.items():
            mass = material.density_g_cm3 * fraction / layer.density_g_cm3
            kappa = kappa + mass * mass_energy_deposition(material.composition, energies, chosen)
        return _like(energy_ev, self._energy_fluence_gy(layer_name, energies, chosen, where) * kappa)

    def as_dict(self) -> dict[str, object]:
        """Return the stack as plain data (JSON), complete enough to build it again."""
        return {
            "tilt_deg": self.tilt_deg,
            "layers": [
                {
                    "name": layer.name,
                    "thickness_um": layer.thickness_um,
                    **({"thin_film": True} if layer.thin_film else {}),
                    "parts": [
                        {**material.as_dict(), "volume_fraction": fraction}
                        for material, fraction in layer.parts.items()
                    ],
                }
                for layer in self.layers
            ],
        }

    @property
    def fingerprint(self) -> str:
        """Short hash of the stack's content; equal stacks have equal fingerprints."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def _index(self, name: str) -> int:
        for index, layer in enumerate(self.layers):
            if layer.name == name:
                return index
        raise ValueError(f"no layer {name!r} in the stack; it has: {', '.join(layer.name for layer in self.layers)}")

    def _depth(self, layer: Layer, energies: FloatArray, model: DoseModel) -> FloatArray:
        path_cm = layer.thickness_um * _CM_PER_UM / math.cos(math.radians(self.tilt_deg))
        return layer.linear_attenuation(energies, model) * path_cm

    def _transmission_before(self, index: int, energies: FloatArray, model: DoseModel) -> FloatArray:
        depth = np.zeros(energies.shape)
        for layer in self.layers[:index]:
            depth = depth + self._depth(layer, energies, model)
        return np.exp(-depth)

    def _energy_fluence_gy(self, layer_name: str, energies: FloatArray, model: DoseModel, where: str) -> FloatArray:
        """T_up E G(tau), in Gy g per photon: dose per fluence for a coefficient of 1 cm2/g."""
        if where not in get_args(Where):
            raise ValueError(f"unknown place {where!r} in the layer; known: {', '.join(get_args(Where))}")
        index = self._index(layer_name)
        tau = self._depth(self.layers[index], energies, model)
        if where == "front":
            weight = np.ones_like(tau)
        elif where == "back":
            weight = np.exp(-tau)
        else:
            weight = -np.expm1(-tau) / tau
        return self._transmission_before(index, energies, model) * energies * (ELECTRONVOLT_J * _G_PER_KG) * weight


def _like(asked: float | npt.ArrayLike, values: FloatArray) -> float | FloatArray:
    return float(values) if np.ndim(asked) == 0 else values
