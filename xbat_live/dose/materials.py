"""Materials: a name, a composition, a density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from xbat_live.dose.cross_sections import parse_formula

MAX_DENSITY_G_CM3 = 25.0
_FRACTION_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Material:
    """A material of a layer.

    Attributes
    ----------
    name
        Name under which its dose is asked for.
    formula
        Chemical formula (``"LiNiO2"``), or formula -> mass fraction for a mixture (``{"C3H4O3": 0.3, "C4H8O3": 0.7}``).
    density_g_cm3
        Density of the material itself (not of the porous layer), g/cm3.

    Raises
    ------
    ValueError
        Empty name, unknown element, mass fractions that do not sum to 1, density outside (0, 25] g/cm3.
    """

    name: str
    formula: str | Mapping[str, float] = field(compare=False)
    density_g_cm3: float
    _composition: tuple[tuple[str, float], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise ValueError("a material needs a name")
        if not isinstance(self.formula, str | Mapping) or not isinstance(self.density_g_cm3, Real):
            raise ValueError(
                f"material {self.name!r}: expected Material(name, formula, density in g/cm3), got formula {self.formula!r} "
                f"and density {self.density_g_cm3!r}"
            )
        if not 0 < self.density_g_cm3 <= MAX_DENSITY_G_CM3:
            hint = (
                f"; did you mean {self.density_g_cm3 / 1000:g} (given in kg/m3)?"
                if self.density_g_cm3 > MAX_DENSITY_G_CM3
                else ""
            )
            raise ValueError(
                f"material {self.name!r}: density {self.density_g_cm3:g} g/cm3 is outside "
                f"(0, {MAX_DENSITY_G_CM3:g}] g/cm3{hint}"
            )
        if isinstance(self.formula, str):
            parts: dict[str, float] = {self.formula: 1.0}
        else:
            parts = dict(self.formula)
            object.__setattr__(self, "formula", parts)
        total = math.fsum(parts.values())
        if not abs(total - 1) <= _FRACTION_TOLERANCE or not all(fraction > 0 for fraction in parts.values()):
            hint = "; write 0.6 for 60 %" if abs(total - 100) <= 1 else ""
            raise ValueError(
                f"material {self.name!r}: mass fractions {parts} sum to {total:g}; they must be positive and sum to 1{hint}"
            )
        elements: dict[str, float] = {}
        for formula, fraction in parts.items():
            for element, mass in parse_formula(formula).items():
                elements[element] = elements.get(element, 0.0) + mass * fraction / total
        object.__setattr__(self, "_composition", tuple(sorted(elements.items())))

    @property
    def composition(self) -> dict[str, float]:
        """Mass fraction by element symbol; sums to 1."""
        return dict(self._composition)

    def as_dict(self) -> dict[str, object]:
        """Return name, formula and density as plain data (JSON)."""
        return {"name": self.name, "formula": self.formula, "density_g_cm3": self.density_g_cm3}
