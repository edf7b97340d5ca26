"""Frames of a run as a labelled array that reads, normalises and aligns only what is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.archive.frame_table import COLUMNS
from xbat_live.archive.settings import ArchiveError
from xbat_live.imaging import warp

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from xbat_live.archive.frame_stack import Frames
    from xbat_live.archive.references import References

Image = NDArray[np.float32]


@dataclass
class FrameSource:
    """What a labelled array reads from: rows of a stack, each treated on its own.

    Attributes
    ----------
    frames
        The raw stack.
    rows
        Row of the stack by frame, shape (n,).
    references
        Flats and darks: frames become optical densities. None: they stay counts.
    time_s, energy_ev, exposure_s
        Of each frame, shape (n,), for the choice of the flats and their scale; an exposure may be NaN.
    shift_yx_px
        Shift of the content of each frame in its pixels, shape (n, 2), which is undone; None: frames stay where they are.
    """

    frames: Frames
    rows: NDArray[np.int64]
    references: References | None
    time_s: NDArray[np.float64]
    energy_ev: NDArray[np.float64]
    exposure_s: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, ny, nx)."""
        return (len(self.rows), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the camera, or float32 when frames are normalised or aligned."""
        return np.dtype(np.float32) if self.treated else self.frames.dtype

    @property
    def treated(self) -> bool:
        """Whether the values are not the camera's."""
        return self.references is not None or self.shift_yx_px is not None

    def read(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Read ``[frames, rows, columns]``; of treated frames the whole frame is read, one at a time."""
        first, *inside = index
        if not self.treated:
            return self.frames[(self._stored(first), *inside)]
        numbers = np.arange(len(self.rows))[first]
        if numbers.ndim == 0:
            return self._treated(int(numbers))[tuple(inside)]
        sample = np.empty(self.shape[1:], np.float32)[tuple(inside)]
        result = np.empty((len(numbers), *sample.shape), np.float32)
        for at, number in enumerate(numbers):
            result[at] = self._treated(int(number))[tuple(inside)]
        return result

    def _stored(self, first: Any) -> Any:
        rows = self.rows[first]
        if np.ndim(rows) == 0:
            return int(rows)
        if len(rows) and (np.diff(rows) == 1).all():
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows

    def _treated(self, number: int) -> Image:
        raw = self.frames[int(self.rows[number])]
        image: Image = np.asarray(raw, np.float32)
        if self.references is not None:
            image = self.references.optical_density(
                raw,
                time_s=float(self.time_s[number]),
                energy_ev=float(self.energy_ev[number]),
                exposure_s=float(self.exposure_s[number]),
            )
        if self.shift_yx_px is None:
            return image
        shift = self.shift_yx_px[number]
        if not np.isfinite(shift).all():
            return np.full_like(image, np.nan)
        return image if not shift.any() else warp(image, shift)


def labelled(
    source: FrameSource, table: pd.DataFrame, *, pixel_size_um: float | None, attrs: dict[str, Any]
) -> xr.DataArray:
    """Return the frames of `source` with what `table` says of them as coordinates.

    Parameters
    ----------
    table
        From `frame_table`, one row per frame of `source`.
    pixel_size_um
        Of the frames' pixels on the sample, um; None: rows and columns are counted in px.
    """
    import xarray as xr
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Lazy(BackendArray):
        """Hands xarray what it asks for, when it asks."""

        def __init__(self) -> None:
            self.shape, self.dtype = source.shape, source.dtype

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, _outer)

    def _outer(key: tuple[Any, ...]) -> NDArray[Any]:
        several = [at for at, part in enumerate(key) if isinstance(part, np.ndarray)]
        if len(several) < 2:
            return source.read(key)
        # Numpy would pair the indices; each is meant by itself.
        found = source.read((key[0], slice(None), slice(None)))
        at_frame = 0 if np.ndim(found) == 2 else 1
        for axis, part in enumerate(key[1:]):
            found = np.take(found, np.arange(source.shape[axis + 1])[part], axis=at_frame + axis)
        return found

    return xr.DataArray(
        xr.Variable(("frame", "y", "x"), indexing.LazilyIndexedArray(Lazy()), attrs),
        coords=_coordinates(source, table, pixel_size_um),
        name="optical_density" if source.references is not None else "counts",
    )


def _coordinates(source: FrameSource, table: pd.DataFrame, pixel_size_um: float | None) -> dict[str, Any]:
    coordinates = dict(frame_coordinates(table))
    for axis, n in zip(("y", "x"), source.shape[1:], strict=True):
        middle = (np.arange(n) - (n - 1) / 2) * (pixel_size_um or 1.0)
        unit = "px" if pixel_size_um is None else "um"
        coordinates[axis] = (axis, middle, {"units": unit, "long_name": "distance from the middle of the frame"})
    return coordinates


def frame_coordinates(table: pd.DataFrame) -> dict[str, Any]:
    """Return seq_num, time and all `COLUMNS` that `table` has, along ``frame``, with units."""
    time_s = table["time"].to_numpy(float)
    found: dict[str, Any] = {
        "frame": ("frame", table["seq_num"].to_numpy(np.int64), {"long_name": "seq_num of the frame's Event"}),
        "time": ("frame", _utc(time_s), {"long_name": "time of the Event, UTC"}),
    }
    if len(time_s):
        found["elapsed_s"] = (
            "frame",
            time_s - np.nanmin(time_s) if np.isfinite(time_s).any() else time_s,
            {"units": "s", "long_name": "time since the first of these frames"},
        )
    for column in COLUMNS:
        key = next((key for key in column.keys if key in table), None)
        if key is None:
            continue
        values = table[key].to_numpy()
        if values.dtype == object or (not np.issubdtype(values.dtype, np.number) and values.dtype != bool):
            values = values.astype(str)
        found[column.name] = ("frame", values, {"units": column.unit, "long_name": column.meaning})
    return found


def _utc(time_s: NDArray[np.float64]) -> NDArray[np.datetime64]:
    known = np.isfinite(time_s)
    result = np.full(len(time_s), np.datetime64("NaT", "ns"))
    result[known] = (time_s[known] * 1e6).round().astype("int64").astype("datetime64[us]").astype("datetime64[ns]")
    return result


def shifts_of(
    table: pd.DataFrame, binning_yx: tuple[int, int], shape_yx: tuple[int, int], *, uid: str
) -> NDArray[np.float64]:
    """Return the registered shift of every frame in its own (binned) pixels, shape (n, 2); NaN where it was not registered.

    Raises
    ------
    ArchiveError
        The run holds no shifts.
    """
    if "shift_y_px" not in table:
        raise ArchiveError(
            f"run {uid[:8]}: its frames were not registered (no stream 'analysis'); read them with aligned=False, "
            "or register them: xbat analyse motion --register"
        )
    shift = table[["shift_y_px", "shift_x_px"]].to_numpy(float) / np.asarray(binning_yx, float)
    if "sigma_y_px" in table:
        sigma = table[["sigma_y_px", "sigma_x_px"]].to_numpy(float) / np.asarray(binning_yx, float)
        # A frame that could not be registered has the last good shift, with half the frame as its uncertainty.
        shift[~(sigma < 0.25 * np.asarray(shape_yx)).all(axis=1)] = np.nan
    return shift
