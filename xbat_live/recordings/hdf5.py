"""Headers and pixels of HDF5 stacks: Data Exchange, NXtomo, areaDetector, and any file with a dataset (n, rows, columns)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from xbat_live.recordings.model import FrameKind, Recording
from xbat_live.recordings.names import energy_in_name, kind_in_name

_STACK = 3
_FACTORS = {
    "um": {"nm": 1e-3, "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6},
    "eV": {"ev": 1.0, "kev": 1e3},
    "s": {"ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0},
    "deg": {
        "deg": 1.0,
        "degree": 1.0,
        "degrees": 1.0,
        "rad": 180 / np.pi,
        "radian": 180 / np.pi,
        "radians": 180 / np.pi,
    },
}
_KINDS: dict[int, FrameKind] = {0: "sample", 1: "flat", 2: "dark", 3: "sample"}
_INVALID = 3
_EXCHANGE: tuple[tuple[str, FrameKind, str], ...] = (
    ("exchange/data", "sample", "exchange/theta"),
    ("exchange/data_white", "flat", "exchange/theta_white"),
    ("exchange/data_dark", "dark", "exchange/theta_dark"),
)
_AREA_DETECTOR: tuple[tuple[str, FrameKind, str], ...] = (
    ("entry/data/data", "sample", ""),
    ("entry/data/flat", "flat", ""),
    ("entry/data/dark", "dark", ""),
)
_DETECTOR = "measurement/instrument/detector"


@dataclass
class _Stack:
    """Frames of one dataset, and what is known of them: one value for all, one per frame, or None."""

    name: str
    kinds: FrameKind | list[FrameKind] = "sample"
    valid: list[bool] | None = None
    about: dict[str, Any] = field(default_factory=dict)


def headers(file: Path) -> list[Recording]:
    """Return the frames of an HDF5 file, without their pixels.

    Raises
    ------
    ValueError
        No stack of frames in it, or one without three dimensions.
    """
    with h5py.File(file, "r") as content:
        stacks = (
            _nxtomo(content) or _named(content, _EXCHANGE) or _named(content, _AREA_DETECTOR) or _any(content, file)
        )
        if not stacks:
            raise ValueError("no 3-D dataset; expected /exchange/data or frames (n, rows, columns)")
        return [recording for stack in stacks for recording in _recordings(file, content, stack)]


@contextmanager
def opened(file: Path) -> Iterator[Callable[[Recording], npt.NDArray[Any]]]:
    """Yield a function that returns the pixels of a frame of `file`, (rows, columns)."""
    with h5py.File(file, "r") as content:

        def pixels(recording: Recording) -> npt.NDArray[Any]:
            image: npt.NDArray[Any] = content[recording.dataset][recording.index]
            return image

        yield pixels


def _recordings(file: Path, content: h5py.File, stack: _Stack) -> Iterator[Recording]:
    data = content[stack.name]
    if data.ndim != _STACK:
        raise ValueError(f"dataset /{stack.name} of shape {data.shape}, expected (n, rows, columns)")
    n, rows, columns = data.shape
    energy_ev = energy_in_name(file)
    for i in range(n):
        about: dict[str, Any] = {
            name: value[i] if isinstance(value, list) and i < len(value) else None if isinstance(value, list) else value
            for name, value in stack.about.items()
        }
        about["energy_ev"] = about.get("energy_ev") or energy_ev
        yield Recording(
            file,
            i,
            (rows, columns),
            data.dtype.str,
            stack.kinds if isinstance(stack.kinds, str) else stack.kinds[i],
            dataset=stack.name,
            valid=stack.valid is None or stack.valid[i],
            **about,
        )


def _named(content: h5py.File, names: tuple[tuple[str, FrameKind, str], ...]) -> list[_Stack]:
    if names[0][0] not in content:
        return []
    return [
        _Stack(name, kind, about=_exchange_about(content, angles))
        for name, kind, angles in names
        if isinstance(content.get(name), h5py.Dataset) and content[name].size
    ]


def _exchange_about(content: h5py.File, angles: str) -> dict[str, Any]:
    mono = "measurement/instrument/monochromator/energy"
    pixel = next(
        (f"{_DETECTOR}/{name}" for name in ("x_pixel_size", "pixel_size") if f"{_DETECTOR}/{name}" in content), ""
    )
    return {
        "angle_deg": _values(content, angles, "deg", "deg"),
        "energy_ev": _values(content, "exchange/energy", "eV", "eV") or _values(content, mono, "eV", "keV"),
        "exposure_s": _values(content, f"{_DETECTOR}/exposure_time", "s", "s"),
        "pixel_size_um": _values(content, pixel, "um", "um"),
    }


def _nxtomo(content: h5py.File) -> list[_Stack]:
    """Return the stack of the first NXentry whose detector has an `image_key`."""
    for name, entry in content.items():
        if not isinstance(entry, h5py.Group) or "instrument" not in entry:
            continue
        for group, detector in entry["instrument"].items():
            if isinstance(detector, h5py.Group) and "image_key" in detector and "data" in detector:
                base = f"{name}/instrument/{group}"
                return [_nxtomo_stack(content, name, base)]
    return []


def _nxtomo_stack(content: h5py.File, entry: str, detector: str) -> _Stack:
    keys = [int(key) for key in content[f"{detector}/image_key"][:]]
    n = len(content[f"{detector}/data"])
    if len(keys) != n or not set(keys) <= set(_KINDS):
        raise ValueError(
            f"/{detector}/image_key has {len(keys)} keys {sorted(set(keys))} for {n} frames; expected 0 to 3"
        )
    x, y, z = (_values(content, f"{entry}/sample/{axis}_translation", "um", "m") for axis in "xyz")
    positions = None
    if isinstance(x, list) and isinstance(y, list):
        positions = list(zip(x, y, z if isinstance(z, list) else [0.0] * n, strict=True))
    energy = _values(content, f"{entry}/instrument/monochromator/energy", "eV", "keV")
    energy = energy or _values(content, f"{entry}/instrument/beam/incident_energy", "eV", "keV")
    return _Stack(
        f"{detector}/data",
        [_KINDS[key] for key in keys],
        [key != _INVALID for key in keys],
        {
            "angle_deg": _values(content, f"{entry}/sample/rotation_angle", "deg", "deg"),
            "energy_ev": energy,
            "exposure_s": _values(content, f"{detector}/count_time", "s", "s"),
            "pixel_size_um": _values(content, f"{detector}/x_pixel_size", "um", "m"),
            "position_um": positions,
        },
    )


def _any(content: h5py.File, file: Path) -> list[_Stack]:
    """Return the first 3-D dataset of numbers."""
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == _STACK and item.dtype.kind in "uif":
            found.append(name)

    content.visititems(visit)
    return [_Stack(found[0], kind_in_name(file))] if found else []


def _values(content: h5py.File, name: str, unit: str, default: str) -> float | list[float] | None:
    """Return a number or a list of numbers in `unit`; `default` is the unit of a dataset that names none."""
    item = content.get(name) if name else None
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "uif" or not item.size:
        return None
    told = item.attrs.get("units", default)
    told = told.decode() if isinstance(told, bytes) else str(told)
    factors = _FACTORS[unit]
    key = told.strip().lower()
    if key not in factors:
        raise ValueError(f"/{name} is in {told!r}, expected one of {', '.join(sorted(factors))}")
    factor = factors[key]
    values = np.asarray(item[()], float)
    if factor != 1.0:
        values = values * factor
    return float(values.ravel()[0]) if values.size == 1 else [float(value) for value in values.ravel()]
