"""Cells and limits that ship with the project, from ``presets.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from xbat_live.dose.limits import DoseLimit
from xbat_live.dose.materials import Material
from xbat_live.dose.stack import Layer, LayerStack


def cell(name: str) -> LayerStack:
    """Return the layer stack of the preset cell `name`.

    Raises
    ------
    ValueError
        Unknown name; the known ones are listed.
    """
    return _build(name)


def cell_names() -> tuple[str, ...]:
    """Return the names of all preset cells."""
    return tuple(_content()["cells"])


def cell_description(name: str) -> tuple[str, str]:
    """Return what the cell `name` is, and the source of its numbers.

    Raises
    ------
    ValueError
        Unknown name.
    """
    entry = _entry("cells", name)
    return str(entry["description"]), str(entry["source"])


def limit(name: str, material: str | None = None) -> DoseLimit:
    """Return the preset limit `name`, in the dose definition in which it was determined (`DoseLimit.model`).

    Parameters
    ----------
    name
        Name of the limit.
    material
        Material it is to protect, for limits stated for several; default: the first of them.

    Raises
    ------
    ValueError
        Unknown name, or a limit that was not stated for `material`.
    """
    entry = _entry("limits", name)
    materials: list[str] = entry["materials"]
    chosen = materials[0] if material is None else material
    if chosen not in materials:
        raise ValueError(f"limit {name!r} was stated for {', '.join(materials)}, not for {chosen!r}")
    return DoseLimit(
        name=name,
        material=chosen,
        limit_gy=entry.get("limit"),
        rate_gy_s=entry.get("rate"),
        model=entry["model"],
        source=entry["source"],
        protects=entry["protects"],
        advisory=bool(entry.get("advisory", False)),
    )


def limit_names(material: str | None = None) -> tuple[str, ...]:
    """Return the names of all preset limits, or of those stated for `material`."""
    return tuple(
        name for name, entry in _content()["limits"].items() if material is None or material in entry["materials"]
    )


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(files("xbat_live.dose").joinpath("presets.toml").read_text(encoding="utf-8"))


def _entry(kind: str, name: str) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = _content()[kind]
    if name not in entries:
        raise ValueError(f"unknown preset {name!r}; known {kind}: {', '.join(entries)}")
    return entries[name]


@cache
def _build(name: str) -> LayerStack:
    materials = {
        key: Material(item["name"], item["formula"], float(item["density"]))
        for key, item in _content()["materials"].items()
    }
    return LayerStack(
        Layer(
            layer["name"],
            float(layer["thickness"]),
            {materials[key]: fraction for key, fraction in layer["parts"].items()},
        )
        for layer in _entry("cells", name)["layers"]
    )
