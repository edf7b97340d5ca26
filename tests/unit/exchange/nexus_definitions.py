"""Application definitions of NeXus (NXtomo 2.0, NXxas 1.0, NXxasproc 1.0, from nexusformat/definitions) as tables, and a check.

A row: path of a group (``name:class`` or ``:class`` for any name) or field (``name``), kind of value, dimensions by symbol, kind of unit,
allowed values, whether it is required.
"""

from dataclasses import dataclass

import h5py
import numpy as np

LENGTHS, ANGLES = {"m", "mm", "um", "nm"}, {"deg", "degree", "rad"}


@dataclass(frozen=True)
class Field:
    path: str
    kind: str = "text"  # text, int, float, number
    dims: tuple[str, ...] = ()
    units: frozenset[str] | None = None
    values: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class Group:
    path: str
    required: bool = True


INSTRUMENT, DETECTOR = ":NXinstrument", ":NXinstrument/detector:NXdetector"
NXTOMO = (
    Field("definition", values=("NXtomo",)),
    Field("title", required=False),
    Field("start_time", required=False),
    Group("instrument:NXinstrument"),
    Field(":NXinstrument/:NXsource/probe", values=("neutron", "x-ray", "electron"), required=False),
    Group(DETECTOR),
    Field(f"{DETECTOR}/data", "number", ("nFrames", "xsize", "ysize")),
    Field(f"{DETECTOR}/image_key", "int", ("nFrames",)),
    Field(f"{DETECTOR}/x_pixel_size", "float", (), frozenset(LENGTHS), required=False),
    Field(f"{DETECTOR}/y_pixel_size", "float", (), frozenset(LENGTHS), required=False),
    Group("sample:NXsample"),
    Field(":NXsample/name"),
    Field(":NXsample/rotation_angle", "float", ("nFrames",), frozenset(ANGLES)),
    Field(":NXsample/x_translation", "float", ("nFrames",), frozenset(LENGTHS), required=False),
    Field(":NXsample/y_translation", "float", ("nFrames",), frozenset(LENGTHS), required=False),
    Field(":NXsample/z_translation", "float", ("nFrames",), frozenset(LENGTHS), required=False),
    Field("control:NXmonitor/data", "float", ("nFrames",), required=False),
    Group("data:NXdata"),
    Field(":NXdata/data", "number", ("nFrames", "xsize", "ysize")),
    Field(":NXdata/rotation_angle", "float", ("nFrames",)),
    Field(":NXdata/image_key", "int", ("nFrames",)),
)
NXXAS = (
    Field("definition", values=("NXxas",)),
    Field("title"),
    Field("start_time"),
    Group(INSTRUMENT),
    Field(f"{INSTRUMENT}/:NXsource/type"),
    Field(f"{INSTRUMENT}/:NXsource/name"),
    Field(f"{INSTRUMENT}/:NXsource/probe", values=("x-ray",)),
    Field(f"{INSTRUMENT}/monochromator:NXmonochromator/energy", "float", ("np",), frozenset({"eV", "keV"})),
    Field(f"{INSTRUMENT}/incoming_beam:NXdetector/data", "int", ("np",)),
    Field(f"{INSTRUMENT}/absorbed_beam:NXdetector/data", "int", ("np",)),
    Field(":NXsample/name"),
    Field(":NXmonitor/mode", values=("monitor", "timer")),
    Field(":NXmonitor/preset", "float"),
    Field(":NXmonitor/data", "int", ("np",)),
    Field(":NXdata/energy", "float", ("np",)),
    Field(":NXdata/absorbed_beam", "int", ("np",)),
)
NXXASPROC = (
    Field("definition", values=("NXxasproc",)),
    Field("title"),
    Field(":NXsample/name"),
    Field("XAS_data_reduction:NXprocess/program"),
    Field(":NXprocess/version"),
    Field(":NXprocess/date"),
    Field(":NXprocess/parameters:NXparameters/raw_file"),
    Field(":NXdata/energy", "float", ("np",)),
    Field(":NXdata/data", "float", ("np",)),
)
_KINDS = {"int": "iu", "float": "f", "number": "iuf", "text": "O"}


def violations(entry: h5py.Group, definition) -> list[str]:
    """What of `definition` the entry lacks or has otherwise; empty when it conforms."""
    found, sizes = [], {}
    if entry.attrs.get("NX_class") != "NXentry":
        found.append(f"{entry.name}: NX_class is not NXentry")
    for rule in definition:
        item = _find(entry, rule.path)
        if item is None:
            if rule.required:
                found.append(f"{rule.path}: missing")
            continue
        if isinstance(rule, Field):
            found += [f"{rule.path}: {what}" for what in _wrong(item, rule, sizes)]
    return found


def _wrong(item, rule, sizes):
    if item.dtype.kind not in _KINDS[rule.kind]:
        yield f"{item.dtype} is no {rule.kind}"
    if rule.dims and len(rule.dims) != item.ndim:
        yield f"{item.ndim} dimensions, expected {rule.dims}"
    elif rule.dims:
        for name, n in zip(rule.dims, item.shape, strict=True):
            if sizes.setdefault(name, n) != n:
                yield f"{name} is {n}, elsewhere {sizes[name]}"
    if rule.units is not None and item.attrs.get("units") not in rule.units:
        yield f"unit {item.attrs.get('units')!r}, expected one of {sorted(rule.units)}"
    if rule.values and item.asstr()[()] not in rule.values:
        yield f"{item.asstr()[()]!r}, expected one of {rule.values}"


def _find(entry, path):
    here = [entry]
    for part in path.split("/"):
        name, _, kind = part.partition(":")
        following = []
        for group in here:
            if not isinstance(group, h5py.Group):
                continue
            for key, item in group.items():
                if name and key != name:
                    continue
                if not kind or item.attrs.get("NX_class") == kind:
                    following.append(item)
        here = following
    return here[0] if here else None


def default_plot(file: h5py.File) -> h5py.Dataset:
    """Follow the chain of `default` attributes to the signal that a viewer shows."""
    group = file
    while "default" in group.attrs:
        group = group[group.attrs["default"]]
    assert group.attrs["NX_class"] == "NXdata"
    axes = group.attrs["axes"]
    signal = group[group.attrs["signal"]]
    assert len(axes) == signal.ndim
    for i, axis in enumerate(axes):
        assert group[axis].shape == (signal.shape[i],), f"axis {axis} does not fit the signal"
        assert np.isfinite(group[axis][:]).all()
    return signal


def without_units(file: h5py.File) -> list[str]:
    """Numeric datasets that have no attribute `units`."""
    missing = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and "units" not in item.attrs:
            missing.append(name)

    file.visititems(visit)
    return missing
