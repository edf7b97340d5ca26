"""Headers and pixels of TIFF frames: single pages, stacks, OME-TIFF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from xbat_live.recordings.model import FrameKind, Recording
from xbat_live.recordings.names import energy_in_name, kind_in_name

_MICROMETRES = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}
_RANK = 2


def headers(file: Path) -> list[Recording]:
    """Return the frames of a TIFF file; what OME says of pixel size, exposure and position is taken from there.

    Raises
    ------
    ValueError
        Pages that are no grey frames, or pages that the file promises and does not hold.
    """
    import tifffile

    size = file.stat().st_size
    with tifffile.TiffFile(file) as tiff:
        if not tiff.pages:
            raise ValueError("no pages; the file is damaged")
        pages: list[Recording] = []
        for page in tiff.pages:
            shape, dtype = tuple(page.shape), np.dtype(page.dtype)
            if len(shape) != _RANK or dtype.kind not in "uif":
                raise ValueError(f"page of shape {shape}, {dtype}; expected grey frames (rows, columns)")
            end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
            if end > size:
                raise ValueError(f"page {len(pages)} ends at byte {end}, the file at {size}; it is truncated")
            pages.append(Recording(file, len(pages), (shape[0], shape[1]), dtype.str, kind_in_name(file)))
        ome = tiff.ome_metadata if tiff.is_ome else None
    energy = energy_in_name(file)
    pages = [replace(page, energy_ev=energy) for page in pages]
    return _with_ome(pages, ome) if ome else pages


@contextmanager
def opened(file: Path) -> Iterator[Callable[[Recording], npt.NDArray[Any]]]:
    """Yield a function that returns the pixels of a frame of `file`, (rows, columns)."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:

        def pixels(recording: Recording) -> npt.NDArray[Any]:
            image: npt.NDArray[Any] = tiff.pages[recording.index].asarray()
            return image

        yield pixels


def _with_ome(pages: list[Recording], xml: str) -> list[Recording]:
    """Add what OME-XML says to the pages, image by image."""
    told: list[Recording] = []
    root = ElementTree.fromstring(xml)
    for image in root.findall("{*}Image"):
        pixel = image.find("{*}Pixels")
        if pixel is None:
            continue
        planes = pixel.findall("{*}Plane")
        count = int(pixel.get("SizeT", 1)) * int(pixel.get("SizeC", 1)) * int(pixel.get("SizeZ", 1))
        name = image.get("Name", "").lower()
        kind: FrameKind | None = "flat" if "flat" in name else "dark" if "dark" in name else None
        size_um = _quantity(pixel, "PhysicalSizeX", _MICROMETRES, "µm")
        for n in range(count):
            if len(told) == len(pages):
                return told
            page = pages[len(told)]
            plane = planes[n] if n < len(planes) else None
            told.append(
                replace(
                    page,
                    kind=kind or page.kind,
                    pixel_size_um=size_um,
                    exposure_s=None if plane is None else _quantity(plane, "ExposureTime", _SECONDS, "s"),
                    position_um=None if plane is None else _position(plane),
                )
            )
    return told + pages[len(told) :]


def _position(plane: ElementTree.Element) -> tuple[float, float, float] | None:
    x, y = (_quantity(plane, f"Position{axis}", _MICROMETRES, "µm") for axis in "XY")
    return None if x is None or y is None else (x, y, _quantity(plane, "PositionZ", _MICROMETRES, "µm") or 0.0)


def _quantity(element: ElementTree.Element, name: str, factors: dict[str, float], default: str) -> float | None:
    value, unit = element.get(name), element.get(f"{name}Unit", default)
    return float(value) * factors[unit] if value and unit in factors else None
