"""Where to measure next: the nearest place on the sample that has no dose to speak of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbat_live.dose.account import DoseAccount
from xbat_live.dose.exposure import DoseMap
from xbat_live.dose.grid import FloatArray

Rectangle = tuple[float, float, float, float]
"""x0, x1, y0, y1, um."""
_EDGE_UM = 1e-9


def next_spot(
    account: DoseAccount,
    current_xy_um: tuple[float, float],
    *,
    footprint_um: tuple[float, float],
    guard_um: float,
    bounds_um: Rectangle,
    stage_limits_um: Rectangle,
    step_um: float | tuple[float, float],
    fresh_fraction: float = 0.01,
    offsets_um: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    forbidden_um: Sequence[Rectangle] = (),
    drift_um: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float] | None:
    """Return the nearest spot all of whose fields are fresh.

    Spots lie on a grid of `step_um` through the present one, which is never returned itself. A field is fresh when
    the dose on its footprint, widened by the guard distance on every side, is nowhere above `fresh_fraction` of the
    account's lowest dose limit (without a dose limit: nowhere above 0). Of spots at equal distance the one with the
    smaller y, then the smaller x, is taken.

    Parameters
    ----------
    account
        Dose of the sample, reservations included.
    current_xy_um
        Sample coordinate (x, y) of the present spot, um.
    footprint_um
        Size (x, y) of what one field irradiates, um; it must lie on the sample. See `Beam.footprint_um`.
    guard_um
        Distance kept between footprint and dosed sample, um.
    bounds_um
        The sample (x0, x1, y0, y1) in sample coordinates, um.
    stage_limits_um
        Travel of the stage (x0, x1, y0, y1), um.
    step_um
        Grid of candidate spots, one number or (x, y), um.
    fresh_fraction
        Fraction of the limit that still counts as fresh.
    offsets_um
        Fields of a spot, (x, y) from it, um.
    forbidden_um
        Zones (x0, x1, y0, y1) in sample coordinates that no footprint may touch, um.
    drift_um
        Drift (x, y) of the sample: stage position = sample coordinate + drift, um.

    Returns
    -------
    tuple of float or None
        Sample coordinate (x, y), um; None when no fresh spot is left.

    Raises
    ------
    ValueError
        Negative or non-finite sizes, a rectangle with its ends swapped, no offsets.
    """
    _check(footprint_um, guard_um, step_um, fresh_fraction, offsets_um, (bounds_um, stage_limits_um, *forbidden_um))
    step_x, step_y = (step_um, step_um) if isinstance(step_um, int | float) else step_um
    x, y = np.meshgrid(
        _grid_through(current_xy_um[0], step_x, bounds_um[0], bounds_um[1]),
        _grid_through(current_xy_um[1], step_y, bounds_um[2], bounds_um[3]),
    )
    x_um, y_um = x.ravel(), y.ravel()
    good = np.hypot(x_um - current_xy_um[0], y_um - current_xy_um[1]) > _EDGE_UM
    limit_gy = account.lowest_limit_gy
    dosed = _DosedArea(account.dose_map(), 0.0 if limit_gy is None else fresh_fraction * limit_gy, account.grid_um)
    half_x, half_y = footprint_um[0] / 2, footprint_um[1] / 2
    for offset_x, offset_y in offsets_um:
        field_x, field_y = x_um + offset_x, y_um + offset_y
        good &= _inside(field_x, field_y, bounds_um, half_x, half_y)
        good &= _inside(field_x + drift_um[0], field_y + drift_um[1], stage_limits_um, 0.0, 0.0)
        for x0, x1, y0, y1 in forbidden_um:
            good &= (
                (field_x + half_x <= x0)
                | (field_x - half_x >= x1)
                | (field_y + half_y <= y0)
                | (field_y - half_y >= y1)
            )
        good &= ~dosed.touched(field_x, field_y, half_x + guard_um, half_y + guard_um)
    if not good.any():
        return None
    x_um, y_um = x_um[good], y_um[good]
    distance = np.round(np.hypot(x_um - current_xy_um[0], y_um - current_xy_um[1]), 6)
    first = np.lexsort((x_um, y_um, distance))[0]
    return float(x_um[first]), float(y_um[first])


class _DosedArea:
    """Answers for many rectangles at once whether they hold a pixel above a dose, by a summed-area table."""

    def __init__(self, dose_map: DoseMap, threshold_gy: float, pixel_um: float) -> None:
        self._pixel_um = pixel_um
        self._shape = dose_map.dose_gy.shape
        self._sum = np.zeros((self._shape[0] + 1, self._shape[1] + 1), dtype=np.int64)
        self._sum[1:, 1:] = (dose_map.dose_gy > threshold_gy).cumsum(axis=0).cumsum(axis=1)
        self._x0 = float(dose_map.x_um[0]) - pixel_um / 2 if self._shape[1] else 0.0
        self._y0 = float(dose_map.y_um[0]) - pixel_um / 2 if self._shape[0] else 0.0

    def touched(self, x_um: FloatArray, y_um: FloatArray, half_x_um: float, half_y_um: float) -> np.ndarray:
        """Return, per rectangle centre, whether any pixel it touches is above the threshold."""
        left, right = self._range(x_um - self._x0, half_x_um, self._shape[1])
        low, high = self._range(y_um - self._y0, half_y_um, self._shape[0])
        inside = self._sum[high, right] - self._sum[low, right] - self._sum[high, left] + self._sum[low, left]
        return np.asarray(inside > 0)

    def _range(self, centre_um: FloatArray, half_um: float, size: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.floor((centre_um - half_um) / self._pixel_um + _EDGE_UM)
        last = np.ceil((centre_um + half_um) / self._pixel_um - _EDGE_UM)
        return np.clip(first, 0, size).astype(np.int64), np.clip(last, 0, size).astype(np.int64)


def _grid_through(centre: float, step: float, low: float, high: float) -> FloatArray:
    first, last = math.ceil((low - centre) / step - _EDGE_UM), math.floor((high - centre) / step + _EDGE_UM)
    return centre + np.arange(first, last + 1, dtype=np.float64) * float(step)


def _inside(x_um: FloatArray, y_um: FloatArray, box: Rectangle, half_x: float, half_y: float) -> np.ndarray:
    return np.asarray(
        (x_um - half_x >= box[0] - _EDGE_UM)
        & (x_um + half_x <= box[1] + _EDGE_UM)
        & (y_um - half_y >= box[2] - _EDGE_UM)
        & (y_um + half_y <= box[3] + _EDGE_UM)
    )


def _check(  # noqa: PLR0917
    footprint_um: tuple[float, float],
    guard_um: float,
    step_um: float | tuple[float, float],
    fresh_fraction: float,
    offsets_um: Sequence[tuple[float, float]],
    boxes: Sequence[Rectangle],
) -> None:
    steps = (step_um,) if isinstance(step_um, int | float) else step_um
    if not all(0 < value < math.inf for value in (*footprint_um, *steps)):
        raise ValueError(f"footprint {footprint_um} um and step {step_um} um must be positive")
    if not 0 <= guard_um < math.inf:
        raise ValueError(f"guard distance {guard_um:g} um must be 0 or more")
    if not 0 <= fresh_fraction < 1:
        raise ValueError(f"fresh_fraction {fresh_fraction:g} is outside 0 .. 1; write 0.01 for 1 %")
    if not len(offsets_um):
        raise ValueError("a spot needs at least one field; offsets_um is empty")
    for x0, x1, y0, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"rectangle ({x0:g}, {x1:g}, {y0:g}, {y1:g}) um is empty; the order is x0, x1, y0, y1")
