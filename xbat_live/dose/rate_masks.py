"""Intervals of dose rate: which pixels, how many, which area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbat_live.dose.cross_sections import FloatArray

MAX_INTERVALS = 1_000_000
_KILOGRAY_SLIP = (1.0, 1000)
"""A step below the first (Gy/s) that gives more intervals than the second was meant in kGy/s."""


@dataclass(frozen=True, eq=False)
class DoseMasks:
    """A dose-rate map cut into intervals of equal width.

    Attributes
    ----------
    rate_gy_s
        The map, (ny, nx) float64, Gy/s.
    edges_gy_s
        Edges of the intervals, (n + 1,), Gy/s; interval i is ``edges[i] <= rate < edges[i + 1]``.
    labels
        Interval of every pixel, (ny, nx) int32; -1 where the map is NaN.
    counts
        Histogram: pixels in every interval, (n,) int64.
    pixel_size_um
        Pixel size of the map in the sample plane, um; None: unknown.
    """

    rate_gy_s: FloatArray
    edges_gy_s: FloatArray
    labels: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    pixel_size_um: float | None = None

    def __len__(self) -> int:
        return self.counts.size

    def __getitem__(self, interval: int) -> npt.NDArray[np.bool_]:
        """Return `mask` (interval); so a loop goes over the masks."""
        return self.mask(interval)

    @property
    def centres_gy_s(self) -> FloatArray:
        """Middle of every interval, (n,), Gy/s."""
        return np.asarray((self.edges_gy_s[1:] + self.edges_gy_s[:-1]) / 2, dtype=np.float64)

    @property
    def areas_um2(self) -> FloatArray:
        """Area in every interval, (n,), um2.

        Raises
        ------
        ValueError
            The pixel size is unknown.
        """
        return np.asarray(self.counts * self._pixel_area_um2(), dtype=np.float64)

    def mask(self, interval: int) -> npt.NDArray[np.bool_]:
        """Return the pixels of interval number `interval`, (ny, nx) bool.

        Raises
        ------
        IndexError
            No such interval.
        """
        if not 0 <= interval < len(self):
            raise IndexError(f"no interval {interval}; there are {len(self)}, 0 .. {len(self) - 1}")
        return np.asarray(self.labels == interval)

    def between(self, low_gy_s: float, high_gy_s: float) -> npt.NDArray[np.bool_]:
        """Return the pixels with ``low <= rate < high`` (Gy/s), (ny, nx) bool, whatever the intervals are."""
        return np.asarray((self.rate_gy_s >= low_gy_s) & (self.rate_gy_s < high_gy_s))

    def area_um2(self, mask: npt.NDArray[np.bool_]) -> float:
        """Return the area of a mask, um2; see `areas_um2` for errors."""
        return float(np.count_nonzero(mask) * self._pixel_area_um2())

    def dose_gy(self, open_time_s: float) -> FloatArray:
        """Return the dose after `open_time_s` seconds of shutter-open time, (ny, nx), Gy."""
        if not 0 <= open_time_s < float("inf"):
            raise ValueError(f"shutter-open time {open_time_s:g} s is not possible; expected 0 s or more")
        return self.rate_gy_s * open_time_s

    def _pixel_area_um2(self) -> float:
        if self.pixel_size_um is None:
            raise ValueError("areas need the pixel size: dose_masks(..., pixel_size_um=...), um in the sample plane")
        return self.pixel_size_um**2


def dose_masks(
    rate_map: npt.ArrayLike,
    step_gy_s: float = 300.0,
    *,
    start_gy_s: float = 0.0,
    pixel_size_um: float | None = None,
) -> DoseMasks:
    """Cut a dose-rate map into intervals; histogram and masks at once.

    Parameters
    ----------
    rate_map
        (ny, nx), Gy/s, as of `dose_rate_map`; NaN belongs to no interval.
    step_gy_s
        Width of the intervals, Gy/s; 0.3 kGy/s is 300.
    start_gy_s
        One of the edges, Gy/s, smaller than the step; the LiNiO2 paper's intervals (0.7-1.0, 6.7-7.0 kGy/s) have 100.
        Below it there is one narrower interval from 0.
    pixel_size_um
        Pixel size of the map in the sample plane, um, for areas.

    Raises
    ------
    ValueError
        Not a map, negative or infinite rates, no number at all, a step that is not positive or far too small, an
        impossible pixel size.
    """
    rates = np.asarray(rate_map, dtype=np.float64)
    if rates.ndim != 2:
        raise ValueError(f"a dose-rate map has two dimensions, this one has shape {rates.shape}")
    known = np.isfinite(rates)
    if np.isinf(rates).any() or not known.any() or rates[known].min() < 0:
        raise ValueError("a dose-rate map holds rates of 0 Gy/s or more, and at least one")
    if not 0 < step_gy_s < np.inf or not 0 <= start_gy_s < step_gy_s:
        raise ValueError(
            f"step {step_gy_s:g} Gy/s and start {start_gy_s:g} Gy/s: the step is positive, the start between 0 and the step"
        )
    if pixel_size_um is not None and not 0 < pixel_size_um < np.inf:
        raise ValueError(f"pixel size {pixel_size_um:g} um is not possible")
    highest = float(rates[known].max())
    number = max(int((highest - start_gy_s) // step_gy_s), 0) + 2  # one to spare against rounding, dropped if empty
    if number > MAX_INTERVALS or (step_gy_s < _KILOGRAY_SLIP[0] and number > _KILOGRAY_SLIP[1]):
        raise ValueError(
            f"{number} intervals of {step_gy_s:g} Gy/s up to {highest:g} Gy/s are too many; "
            "the step is in Gy/s (0.3 kGy/s is 300)"
        )
    edges = start_gy_s + step_gy_s * np.arange(number + 1, dtype=np.float64)
    if start_gy_s > 0:
        edges = np.concatenate([[0.0], edges])
    edges = edges[: int(np.searchsorted(edges, highest, side="right")) + 1]
    labels = np.where(known, np.searchsorted(edges, rates, side="right") - 1, -1).astype(np.int32)
    counts = np.bincount(labels[known], minlength=edges.size - 1).astype(np.int64)
    return DoseMasks(rates, edges, labels, counts, pixel_size_um)


def dose_rate_histogram(
    rate_map: npt.ArrayLike, step_gy_s: float = 300.0, *, start_gy_s: float = 0.0
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return pixels per interval, (n,), and edges, (n + 1,), Gy/s (as `numpy.histogram`); see `dose_masks`."""
    masks = dose_masks(rate_map, step_gy_s, start_gy_s=start_gy_s)
    return masks.counts, masks.edges_gy_s
