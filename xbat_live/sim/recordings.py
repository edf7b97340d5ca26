"""Find and read recorded frames: Xradia ``.xrm``/``.txrm`` (OLE), TIFF, HDF5. Headers first, pixels when needed."""

from __future__ import annotations

import logging
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Recording", "find_recordings"]

logger = logging.getLogger(__name__)

_XRADIA = {".xrm", ".txrm"}
_TIFF = {".tif", ".tiff"}
_HDF5 = {".h5", ".hdf5", ".hdf", ".nxs"}
_EXPECTED = "expected Xradia .xrm/.txrm, .tif/.tiff or HDF5 .h5/.hdf5/.nxs frames"
_ENERGY = re.compile(r"_(\d{4,5}(?:\.\d+)?)_?eV", re.IGNORECASE)
_REFERENCE = re.compile(r"(?:^|[_\-. ])(?:ref|flat)", re.IGNORECASE)
_HDF5_SAMPLES = ("exchange/data", "entry/data/data")
_HDF5_REFERENCES = ("exchange/data_white", "entry/data/flat")
_PIXEL_TOLERANCE = 0.05


@dataclass(frozen=True)
class Recording:
    """One recorded frame: where it is and what its header says.

    Attributes
    ----------
    file, index
        File and number of the frame in it.
    shape
        Rows and columns.
    pixel_size_um, energy_ev
        None where neither header nor file name tell.
    exposure_s
        Exposure in s; 1 where the file does not tell.
    is_reference
        Frame without the sample.
    dataset
        HDF5 dataset.
    """

    file: Path
    index: int
    shape: tuple[int, int]
    pixel_size_um: float | None
    energy_ev: float | None
    exposure_s: float
    is_reference: bool
    dataset: str = ""

    def read(self) -> npt.NDArray[np.float32]:
        """Pixels as float32 (rows, columns).

        Raises
        ------
        ValueError
            The file cannot be read as its header promised.
        """
        suffix = self.file.suffix.lower()
        try:
            if suffix in _XRADIA:
                image = _read_xradia(self.file, self.index, self.shape)
            elif suffix in _TIFF:
                import tifffile

                image = tifffile.imread(self.file, key=self.index)
            else:
                import h5py

                with h5py.File(self.file, "r") as file:
                    image = file[self.dataset][self.index]
        except Exception as error:
            raise ValueError(f"{self.file}: frame {self.index} cannot be read: {error}") from error
        if image.shape != self.shape:
            raise ValueError(f"{self.file}: frame {self.index} is {image.shape}, expected {self.shape} (rows, columns)")
        return np.nan_to_num(np.asarray(image, dtype=np.float32))


def find_recordings(path: Path) -> list[Recording]:
    """List the frames in a file, or in the files of a directory in order of name.

    References are files with ``ref`` or ``flat`` as a word of their name, or HDF5 ``/exchange/data_white``. Frames of a
    pixel size other than the most common one (overviews, mosaics) are left out with a warning.

    Raises
    ------
    ValueError
        Nothing there, unreadable, or frames of different shapes; the message names the file and what was expected.
    """
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _XRADIA | _TIFF | _HDF5)
        if not files:
            raise ValueError(f"{path}: no frames in this directory; {_EXPECTED}")
    elif path.is_file():
        files = [path]
    else:
        raise ValueError(f"{path}: no such file or directory; {_EXPECTED}")
    recordings = [recording for file in files for recording in _headers(file)]
    if not recordings:
        raise ValueError(f"{path}: no frames found; {_EXPECTED}")
    usual = Counter(r.pixel_size_um for r in recordings).most_common(1)[0][0]
    kept = [r for r in recordings if _same_pixel(r.pixel_size_um, usual)]
    for name in sorted({r.file.name for r in recordings} - {r.file.name for r in kept}):
        logger.warning("%s: left out, its pixel size is not %s um as in most frames of %s", name, usual, path)
    shape = kept[0].shape
    for recording in kept:
        if recording.shape != shape:
            raise ValueError(
                f"{recording.file}: frame of {_size(recording.shape)}, expected {_size(shape)}"
                f" (rows x columns) as in {kept[0].file.name}; play frames of one shape from one directory"
            )
    return kept


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]} px"


def _same_pixel(size_um: float | None, usual_um: float | None) -> bool:
    if size_um is None or usual_um is None:
        return size_um == usual_um
    return abs(size_um / usual_um - 1.0) < _PIXEL_TOLERANCE


def _headers(file: Path) -> list[Recording]:
    suffix = file.suffix.lower()
    reader = _xradia_headers if suffix in _XRADIA else _tiff_headers if suffix in _TIFF else _hdf5_headers
    if suffix not in _XRADIA | _TIFF | _HDF5:
        raise ValueError(f"{file}: unknown kind of file {suffix!r}; {_EXPECTED}")
    try:
        return reader(file)
    except ImportError as error:
        raise ValueError(
            f"{file}: reading it needs a package that is not installed: {error}; pip install 'xbat-live[frames]'"
        ) from error
    except Exception as error:
        raise ValueError(f"{file}: cannot be read as {suffix} frames: {error}") from error


def _energy_of(file: Path) -> float | None:
    match = _ENERGY.search(file.name)
    return float(match.group(1)) if match else None


def _is_reference(file: Path) -> bool:
    return _REFERENCE.search(file.stem) is not None


def _xradia_headers(file: Path) -> list[Recording]:
    import olefile

    with olefile.OleFileIO(str(file)) as ole:

        def value(name: str, kind: str) -> float | None:
            if not ole.exists(f"ImageInfo/{name}"):
                return None
            content = ole.openstream(f"ImageInfo/{name}").read()
            return float(struct.unpack_from(f"<{kind}", content)[0]) if len(content) >= 4 else None

        rows, columns = value("ImageHeight", "I"), value("ImageWidth", "I")
        if not rows or not columns:
            raise ValueError(
                "streams ImageInfo/ImageHeight and ImageInfo/ImageWidth are missing; expected an Xradia file"
            )
        count = sum(ole.exists(_xradia_stream(i)) for i in range(int(value("NoOfImages", "I") or 1)))
        if not count:
            raise ValueError("stream ImageData1/Image1 is missing; expected an Xradia file")
        energy = _energy_of(file) or value("Energy", "f") or None
        pixel = value("PixelSize", "f") or None
        exposure = value("ExpTimes", "f") or 1.0
    pixel = None if pixel is None else round(pixel, 6)
    return [
        Recording(file, i, (int(rows), int(columns)), pixel, energy, exposure, _is_reference(file))
        for i in range(count)
    ]


def _xradia_stream(index: int) -> str:
    return f"ImageData{index // 100 + 1}/Image{index + 1}"


def _read_xradia(file: Path, index: int, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
    import olefile

    with olefile.OleFileIO(str(file)) as ole:
        kind = struct.unpack_from("<I", ole.openstream("ImageInfo/DataType").read())[0]
        dtypes = {5: "<u2", 10: "<f4"}
        if kind not in dtypes:
            raise ValueError(f"ImageInfo/DataType is {kind}, expected 5 (uint16) or 10 (float32)")
        return np.frombuffer(ole.openstream(_xradia_stream(index)).read(), dtypes[kind]).reshape(shape)


def _tiff_headers(file: Path) -> list[Recording]:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        shapes = [tuple(page.shape) for page in tiff.pages]
    for shape in shapes:
        if len(shape) != 2:
            raise ValueError(f"page of shape {shape}, expected grey frames (rows, columns)")
    energy, reference = _energy_of(file), _is_reference(file)
    return [Recording(file, i, (s[0], s[1]), None, energy, 1.0, reference) for i, s in enumerate(shapes)]


def _hdf5_headers(file: Path) -> list[Recording]:
    import h5py

    energy = _energy_of(file)
    with h5py.File(file, "r") as content:
        found = next((name for name in _HDF5_SAMPLES if name in content), None) or _first_stack(content)
        if found is None:
            raise ValueError("no 3-D dataset; expected /exchange/data or frames (n, rows, columns)")
        sets = [(found, _is_reference(file))]
        sets += [(name, True) for name in _HDF5_REFERENCES if name in content]
        recordings = []
        for name, reference in sets:
            if content[name].ndim != 3:
                raise ValueError(f"dataset /{name} of shape {content[name].shape}, expected (n, rows, columns)")
            count, rows, columns = content[name].shape
            recordings += [
                Recording(file, i, (rows, columns), None, energy, 1.0, reference, name) for i in range(count)
            ]
    return recordings


def _first_stack(content: object) -> str | None:
    """Name of the first 3-D dataset of numbers."""
    import h5py

    names: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "uif":
            names.append(name)

    assert isinstance(content, h5py.File)
    content.visititems(visit)
    return names[0] if names else None
