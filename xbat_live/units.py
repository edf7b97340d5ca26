"""Quantities with units in configuration files: ``"48 ms"``, ``"5 MGy"``, ``"33.24 nm"``, ``"C/12"``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from pint import UnitRegistry

_C_RATE = re.compile(r"^\s*(?P<times>\d+(?:\.\d+)?)?\s*C\s*(?:/\s*(?P<per>\d+(?:\.\d+)?))?\s*$")


_NUMBER_AND_UNIT = re.compile(r"^\s*(?P<number>[+-]?\d+\.?\d*(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-zµ/*0-9]+)\s*$")
_PREFIXED = {"n": -9, "u": -6, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9}
_FACTORS: dict[str, dict[str, int | float]] = {
    "s": {"s": 0, "ms": -3, "us": -6, "µs": -6},
    "um": {"um": 0, "µm": 0, "nm": -3, "mm": 3},
    "eV": {"eV": 0, "keV": 3},
    "ph/s": {"ph/s": 0},
    "nA": {"nA": 0, "uA": 3, "µA": 3, "pA": -3},
    "mA": {"mA": 0, "uA": -3, "µA": -3, "A": 3},
    "V": {"V": 0, "mV": -3},
    "Gy": {f"{prefix}Gy": power for prefix, power in _PREFIXED.items()},
    "Gy/s": {f"{prefix}Gy/s": power for prefix, power in _PREFIXED.items()},
}
_LONGER = {"s": {"min": 60.0, "h": 3600.0, "d": 86400.0}}


def _usual(text: str, unit: str) -> float | None:
    """Return the magnitude of a number with one of the usual units; None for all else, which pint reads (0.4 s to load)."""
    match = _NUMBER_AND_UNIT.match(text)
    if match is None:
        return None
    number, written = match["number"], match["unit"]
    if written in _LONGER.get(unit, {}):
        return float(number) * _LONGER[unit][written]
    power = _FACTORS.get(unit, {}).get(written)
    if power is None:
        return None
    mantissa, _, exponent = number.lower().partition("e")
    return float(f"{mantissa}e{int(exponent or 0) + power}")  # correctly rounded: 33.24 nm is 0.03324 um


@cache
def _registry() -> UnitRegistry:
    from pint import UnitRegistry  # 0.3 s: only when a quantity is parsed

    registry: UnitRegistry = UnitRegistry()
    registry.define("photon = count = ph")
    return registry


def parse_quantity(  # noqa: PLR0912
    value: object, unit: str, *, minimum: float | None = None, maximum: float | None = None
) -> float:
    """Return the magnitude of `value` in `unit`.

    Parameters
    ----------
    value
        A string with a number and a unit of the same dimension as `unit`, e.g. ``"48 ms"`` for ``"s"``. A bare number is
        refused, because nobody can tell 48 ms from 48 s by looking at it; zero needs no unit.
    unit
        Unit of the result, as pint writes it.
    minimum, maximum
        Allowed range in `unit`, inclusive.

    Raises
    ------
    ValueError
        No unit, unknown unit, wrong dimension, not finite, or outside the range. The message holds the value and the remedy.
    """
    example = f'"{_EXAMPLES.get(unit, f"1 {unit}")}"'
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a quantity; write a number with its unit, e.g. {example}")
    if isinstance(value, int | float):
        if value != 0:
            raise ValueError(f"{value!r} has no unit; write e.g. {example}")
        magnitude = 0.0
    elif (usual := _usual(value, unit)) is not None:
        magnitude = usual
    else:
        from pint import DimensionalityError, UndefinedUnitError

        try:
            quantity = _registry().Quantity(value)
            if quantity.unitless and unit != "" and quantity.magnitude != 0:
                raise ValueError(f"{value!r} has no unit; write e.g. {example}")
            magnitude = float(quantity.to(unit).magnitude) if not quantity.unitless else float(quantity.magnitude)
        except DimensionalityError as error:
            raise ValueError(f"{value!r} is not convertible to {unit}; write e.g. {example}") from error
        except UndefinedUnitError as error:
            raise ValueError(f"{value!r}: unknown unit ({error}); write e.g. {example}") from error
        except Exception as error:  # pint raises tokenizer errors of several kinds on text that is no quantity
            if "has no unit" in str(error):
                raise
            raise ValueError(f"{value!r} is not a quantity; write a number with its unit, e.g. {example}") from error
    if not math.isfinite(magnitude):
        raise ValueError(f"{value!r} is not finite; write e.g. {example}")
    if minimum is not None and magnitude < minimum:
        hint = _mix_up(magnitude, unit, minimum, maximum)
        raise ValueError(f"{value!r} is below the smallest allowed value {minimum:g} {unit}{hint}")
    if maximum is not None and magnitude > maximum:
        hint = _mix_up(magnitude, unit, minimum, maximum)
        raise ValueError(f"{value!r} is above the largest allowed value {maximum:g} {unit}{hint}")
    return magnitude


def _mix_up(magnitude: float, unit: str, minimum: float | None, maximum: float | None) -> str:
    """Guess a wrong prefix, the commonest slip: keV for eV, mm for um."""
    low, high = minimum if minimum is not None else -math.inf, maximum if maximum is not None else math.inf
    for factor, name in ((1e3, "k"), (1e-3, "m")):
        if low <= magnitude * factor <= high:
            return f"; did you mean {magnitude:g} {name}{unit}?"
    return ""


def parse_c_rate(value: object) -> float:
    """Return a C-rate in 1/h from ``"C/12"``, ``"2C"`` or ``"0.5 C"``.

    Raises
    ------
    ValueError
        When `value` is not of that form, or zero.
    """
    match = _C_RATE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is not a C-rate; write e.g. "C/12" or "2C"')
    rate = float(match["times"] or 1.0) / float(match["per"] or 1.0) if float(match["per"] or 1.0) else math.inf
    if not 0 < rate < math.inf:
        raise ValueError(f'{value!r} is not a usable C-rate; write e.g. "C/12"')
    return rate


_EXAMPLES = {
    "s": "48 ms", "um": "33.24 nm", "eV": "8562 eV", "Gy": "300 kGy", "Gy/s": "1 kGy/s", "ph/s": "1e10 ph/s", "nA": "100 nA",
    "mA": "500 mA", "V": "4.3 V", "mAh": "0.1 mAh", "deg": "5 deg", "um/min": "1 um/min", "g/cm**3": "4.7 g/cm**3",
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """Annotation of a pydantic field: a float in `unit`, written in files as a string with a unit (see `parse_quantity`)."""

    unit: str
    minimum: float | None = None
    maximum: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse before the float is checked."""

        def parse(value: object) -> float:
            return parse_quantity(value, self.unit, minimum=self.minimum, maximum=self.maximum)

        return core_schema.no_info_before_validator_function(parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the string for editors."""
        example = _EXAMPLES.get(self.unit, f"1 {self.unit}")
        return {"type": "string", "description": f"a quantity convertible to {self.unit}", "examples": [example]}


@dataclass(frozen=True)
class CRateQuantity:
    """Annotation of a pydantic field: a C-rate in 1/h, written as ``"C/12"``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse before the float is checked."""
        return core_schema.no_info_before_validator_function(parse_c_rate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the string for editors."""
        return {"type": "string", "description": "a C-rate", "examples": ["C/12", "2C"]}


def format_si(value: float, unit: str) -> str:
    """Write `value` (in `unit`) with three significant digits and an SI prefix, e.g. ``format_si(3.2e5, "Gy") == "320 kGy"``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
