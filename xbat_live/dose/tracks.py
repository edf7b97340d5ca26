"""What is tracked in an account: one or several materials of one stack, in one dose definition."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from xbat_live.dose.cross_sections import check_model
from xbat_live.dose.limits import DoseLimit
from xbat_live.dose.stack import LayerStack

MODEL_VERSIONS = {"attenuation": 1, "photo": 1, "legacy_jousseaume": 1, "energy": 2}
"""Raised when a definition comes to give other numbers, so that older records are converted. energy 2: Klein-Nishina integrated."""
_FACTORS_KEPT = 50_000
_SWEEPS_KEPT = 64


@dataclass(frozen=True)
class DoseTarget:
    """A material of a layer whose dose is tracked.

    Attributes
    ----------
    layer, material
        Their names in the stack.
    """

    layer: str
    material: str

    def __str__(self) -> str:
        return f"{self.material} in {self.layer}"


@dataclass(frozen=True)
class Tracks:
    """The targets of an account, and the dose per fluence of each.

    Attributes
    ----------
    stack
        What the beam meets.
    model
        Dose definition.
    targets
        What is tracked; the first is the primary one.

    Raises
    ------
    ValueError
        Unknown layer, material or model; a target named twice.
    """

    stack: LayerStack
    model: str
    targets: tuple[DoseTarget, ...]
    _factors: OrderedDict[float, tuple[float, ...]] = field(default_factory=OrderedDict, compare=False, repr=False)
    _sweeps: OrderedDict[tuple[float, ...], tuple[float, ...]] = field(
        default_factory=OrderedDict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        check_model(self.model)
        for target in self.targets:
            self.stack.layer(target.layer).material(target.material)
        if len(set(self.targets)) != len(self.targets):
            raise ValueError(f"a target is named twice: {', '.join(map(str, self.targets))}")

    @property
    def primary(self) -> DoseTarget:
        """The target that is reported where only one is."""
        return self.targets[0]

    def index(self, target: DoseTarget | None) -> int:
        """Return the position of a target; None is the primary one.

        Raises
        ------
        ValueError
            It is not tracked; those that are, are listed.
        """
        if target is None:
            return 0
        if target not in self.targets:
            raise ValueError(f"{target} is not tracked in this account; tracked: {', '.join(map(str, self.targets))}")
        return self.targets.index(target)

    def of_material(self, material: str, layer: str = "") -> tuple[int, ...]:
        """Return the positions of the targets of a material, in one layer or (empty) in any."""
        return tuple(
            number
            for number, target in enumerate(self.targets)
            if target.material == material and layer in ("", target.layer)
        )

    def limited_by(self, limit: DoseLimit) -> tuple[int, ...]:
        """Return the positions of the targets that a limit is for.

        Raises
        ------
        ValueError
            The limit is in another dose definition, or nothing it is for is tracked; the remedy is named.
        """
        if limit.model != self.model:
            raise ValueError(
                f"limit {limit.name!r} is stated in the dose definition {limit.model!r}, doses are counted in "
                f"{self.model!r}; count in the limit's definition, or convert the limit"
            )
        found = self.of_material(limit.material, limit.layer)
        if found:
            return found
        layers = [
            layer.name
            for layer in self.stack.layers
            if limit.layer in ("", layer.name) and any(part.name == limit.material for part in layer.parts)
        ]
        remedy = (
            " or ".join(f"also=[DoseTarget({layer!r}, {limit.material!r})]" for layer in layers)
            if layers
            else f"nothing: the stack has no such material in {limit.layer or 'any layer'}; correct the limit"
        )
        where = f" in layer {limit.layer!r}" if limit.layer else ""
        counted = ", ".join(f"{target.material!r} in {target.layer!r}" for target in self.targets)
        raise ValueError(
            f"limit {limit.name!r} is for {limit.material!r}{where}, doses are counted for {counted}; add {remedy}"
        )

    def gray_cm2(self, energy_ev: float) -> tuple[float, ...]:
        """Return the dose per fluence of all targets at an energy, Gy cm2 per photon; kept for the energies last used."""
        known = self._factors.get(energy_ev)
        if known is None:
            known = tuple(
                float(self.stack.dose_per_fluence(energy_ev, target.layer, target.material, self.model))
                for target in self.targets
            )
            self._keep(energy_ev, known)
        return known

    def mean_gray_cm2(self, energies_ev: tuple[float, ...]) -> tuple[float, ...]:
        """Return the mean of `gray_cm2` over energies that last equally long: a sweep is never counted at one energy."""
        if len(energies_ev) == 1:
            return self.gray_cm2(energies_ev[0])
        known = self._sweeps.get(energies_ev)
        if known is None:
            energies = np.asarray(energies_ev, dtype=np.float64)
            known = tuple(
                float(np.mean(self.stack.dose_per_fluence(energies, target.layer, target.material, self.model)))
                for target in self.targets
            )
            self._sweeps[energies_ev] = known
            while len(self._sweeps) > _SWEEPS_KEPT:
                self._sweeps.popitem(last=False)
        return known

    def prepare(self, energies_ev: Iterable[float]) -> None:
        """Compute the dose per fluence for many energies at once; `gray_cm2` then has the very same numbers at hand."""
        wanted = [energy_ev for energy_ev in dict.fromkeys(energies_ev) if energy_ev not in self._factors]
        if len(wanted) < 2:
            return
        energies = np.asarray(wanted, dtype=np.float64)
        columns = [
            self.stack.dose_per_fluence(energies, target.layer, target.material, self.model) for target in self.targets
        ]
        for energy_ev, *known in zip(wanted, *columns, strict=True):
            self._keep(energy_ev, tuple(map(float, known)))

    def _keep(self, energy_ev: float, factors: tuple[float, ...]) -> None:
        self._factors[energy_ev] = factors
        while len(self._factors) > _FACTORS_KEPT:
            self._factors.popitem(last=False)

    @property
    def definition(self) -> str:
        """Stack, model and primary target as JSON: what the dose per fluence of a record was computed with."""
        content = {
            "version": MODEL_VERSIONS[self.model],
            "model": self.model,
            "layer": self.primary.layer,
            "material": self.primary.material,
            "stack": self.stack.as_dict(),
        }
        return json.dumps(content, sort_keys=True)

    @property
    def model_id(self) -> str:
        """Short hash of `definition`."""
        return hashlib.sha256(self.definition.encode()).hexdigest()[:16]


def targets_of(primary: DoseTarget, also: Iterable[DoseTarget]) -> tuple[DoseTarget, ...]:
    """Return the primary target and the others, each once."""
    return tuple(dict.fromkeys((primary, *also)))
