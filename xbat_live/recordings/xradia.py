"""Headers and pixels of Xradia ``.xrm`` and ``.txrm`` files: OLE containers with a stream per quantity.

Layout as found in files of SSRL beamline 6-2c and of laboratory instruments; there is no public description of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.recordings.model import Recording
from xbat_live.recordings.names import energy_in_name, kind_in_name

DTYPES = {5: "<u2", 10: "<f4"}
_IMAGES_PER_FOLDER = 100
_DATE_FORMATS = ("%m/%d/%y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%y %H:%M:%S.%f")
_DATE_LENGTHS = (40, 23, 17)
_NAME_LENGTHS, _UNIT_LENGTHS = (25, 24, 32), (15, 16, 5, 8)
_LIGHT = "ImageInfo/IonChamberCurrent"


def headers(file: Path) -> list[Recording]:
    """Return the frames of an Xradia file, without their pixels.

    Raises
    ------
    ValueError
        Streams that every such file has are missing, or are too short.
    """
    import olefile

    with olefile.OleFileIO(str(file)) as ole:
        rows, columns = _number(ole, "ImageInfo/ImageHeight"), _number(ole, "ImageInfo/ImageWidth")
        if not rows or not columns:
            raise ValueError(
                "streams ImageInfo/ImageHeight and ImageInfo/ImageWidth are missing; expected an Xradia file"
            )
        planned = _number(ole, "ImageInfo/NoOfImages") or 1
        taken = _number(ole, "ImageInfo/ImagesTaken")
        n = min(planned, taken) if taken else planned
        if (_number(ole, "ImageInfo/MosiacRows") or 0) * (_number(ole, "ImageInfo/MosiacColumns") or 0) > 1:
            n = 1  # the tiles have been put together
        dtype = _dtype(ole)
        expected = rows * columns * np.dtype(dtype).itemsize
        for index in range(n):
            name = image_stream(index)
            if not ole.exists(name):
                raise ValueError(f"stream {name} is missing, of {n} images; the file is cut off or no Xradia file")
            if (size := ole.get_size(name)) < expected:
                raise ValueError(f"stream {name} has {size} bytes, expected {expected}; the file is damaged")
        energy_name, pixel = energy_in_name(file), _floats(ole, "ImageInfo/PixelSize", 1)[0]
        energies = _floats(ole, "ImageInfo/Energy", n)
        exposures = _floats(ole, "ImageInfo/ExpTimes", n)
        angles = _floats(ole, "ImageInfo/Angles", n)
        positions = list(zip(*(_floats(ole, f"ImageInfo/{axis}Position", n) for axis in "XYZ"), strict=True))
        light = _floats(ole, _LIGHT, n)
        times, motors = _times(ole, n), _motors(ole, n)
    kind = kind_in_name(file)
    return [
        Recording(
            file,
            i,
            (rows, columns),
            dtype,
            kind,
            pixel_size_um=_rounded(pixel, 6),
            energy_ev=energy_name or (_rounded(energies[i], 3)),
            exposure_s=_rounded(exposures[i], 6),
            angle_deg=angles[i],
            position_um=positions[i] if None not in positions[i] else None,
            time_s=times[i],
            motors=motors[i] + _light(light[i]),
        )
        for i in range(n)
    ]


def image_stream(index: int) -> str:
    """Return the stream of image `index`, from 0."""
    return f"ImageData{index // _IMAGES_PER_FOLDER + 1}/Image{index + 1}"


@contextmanager
def opened(file: Path) -> Iterator[Callable[[Recording], npt.NDArray[Any]]]:
    """Yield a function that returns the pixels of a frame of `file`, (rows, columns)."""
    import olefile

    with olefile.OleFileIO(str(file)) as ole:

        def pixels(recording: Recording) -> npt.NDArray[Any]:
            content = ole.openstream(image_stream(recording.index)).read()
            rows, columns = recording.shape
            return np.frombuffer(content, recording.dtype, rows * columns).reshape(recording.shape)

        yield pixels


def _dtype(ole: Any) -> str:
    kind = _number(ole, "ImageInfo/DataType")
    if kind not in DTYPES:
        raise ValueError(f"ImageInfo/DataType is {kind}, expected 5 (uint16) or 10 (float32)")
    return DTYPES[kind]


def _content(ole: Any, name: str) -> bytes:
    return bytes(ole.openstream(name).read()) if ole.exists(name) else b""


def _number(ole: Any, name: str) -> int | None:
    content = _content(ole, name)
    return int(struct.unpack_from("<I", content)[0]) if len(content) >= 4 else None


def _floats(ole: Any, name: str, n: int) -> list[float | None]:
    """Return `n` numbers; one that stands for all is repeated, zeros after the first are room that was not used."""
    content = _content(ole, name)
    values: list[float] = np.frombuffer(content, "<f4", len(content) // 4).astype(float).tolist()
    if not values:
        return [None] * n
    if len(values) < n or (n > 1 and values[0] and not any(values[1:n])):
        values = values[:1] * n
    # float32: the shortest decimal number that it is, not its binary expansion
    return [float(str(np.float32(value))) for value in values[:n]]


def _rounded(value: float | None, digits: int) -> float | None:
    """Return None for what is missing, or 0, which stands for not known."""
    return round(value, digits) if value else None


def _light(current: float | None) -> tuple[tuple[str, str, float], ...]:
    return () if current is None else (("Ion Chamber", "", current),)


def _texts(content: bytes, n: int, lengths: Sequence[int]) -> list[str]:
    """Return `n` texts of one fixed length; it differs from version to version."""
    length = len(content) // n if n and len(content) % n == 0 else 0
    for candidate in (*lengths, length):
        if candidate and len(content) >= candidate * n:
            parts = [content[i * candidate : (i + 1) * candidate] for i in range(n)]
            texts = [part.split(b"\0")[0].decode("latin-1").strip() for part in parts]
            if all(texts) and all(text.isprintable() for text in texts):
                return texts
    return [""] * n


def _times(ole: Any, n: int) -> list[float | None]:
    texts = _texts(_content(ole, "ImageInfo/Date"), n, _DATE_LENGTHS)
    return [_time(text) for text in texts]


def _time(text: str) -> float | None:
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    return None


def _motors(ole: Any, n: int) -> list[tuple[tuple[str, str, float], ...]]:
    axes = _number(ole, "PositionInfo/TotalAxis") or 0
    positions = np.frombuffer(_content(ole, "PositionInfo/MotorPositions")[: n * axes * 4], "<f4")
    if not axes or len(positions) < axes:
        return [()] * n
    names = _texts(_content(ole, "PositionInfo/AxisNames"), axes, _NAME_LENGTHS)
    units = [unit.replace("µ", "u") for unit in _texts(_content(ole, "PositionInfo/AxisUnits"), axes, _UNIT_LENGTHS)]
    rows = positions[: len(positions) // axes * axes].reshape(-1, axes)
    return [
        tuple(
            (name, unit, float(str(value)))
            for name, unit, value in zip(names, units, rows[min(i, len(rows) - 1)], strict=True)
            if name
        )
        for i in range(n)
    ]
