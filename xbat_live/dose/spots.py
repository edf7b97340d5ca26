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
    lowest dose limit of any tracked target (without a dose limit: nowhere above 0). Of spots at equal distance the one with the
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
    stale, dose_map = _stale(account, fresh_fraction)
    dosed = _DosedArea(dose_map, stale, account.grid_um)
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


def electron_range_um(energy_ev: float, density_g_cm3: float) -> float:
    """Return how far photoelectrons carry energy from where the photon was absorbed, um.

    Grün's range ``R = 0.0398 E^1.75 / rho`` um with E in keV and rho in g/cm3 (Grün 1957, as given by Everhart and Hoff
    1971 for 5 to 25 keV): 1.4 um at 8.4 keV and 11 um at 27 keV in a medium of 1.2 g/cm3.

    Parameters
    ----------
    energy_ev
        Electron energy, eV; the photon energy is an upper bound of it.
    density_g_cm3
        Density of the medium, g/cm3; the lightest one (electrolyte) gives the largest range.

    Raises
    ------
    ValueError
        Energy or density that is not possible.
    """
    if not 100 <= energy_ev <= 1e6:
        raise ValueError(f"energy {energy_ev:g} eV is outside 100 .. 1e6 eV; energies are in eV (8.4 keV = 8400 eV)")
    if not 0 < density_g_cm3 <= 25:
        raise ValueError(f"density {density_g_cm3:g} g/cm3 is outside 0 .. 25 g/cm3")
    return float(0.0398 * (energy_ev / 1000) ** 1.75 / density_g_cm3)


def guard_distance_um(
    *,
    position_sigma_um: float,
    electron_range_um: float,
    diffusion_m2_s: float = 0.0,
    time_s: float = 0.0,
    extra_um: float = 0.0,
) -> float:
    """Return the distance to keep between a beam's footprint and sample that was dosed before, um.

    The sum of three standard deviations of the position, the electron range, ``sqrt(2 D t)`` for what diffuses, and
    `extra_um`. The tail of the beam is in the footprint already, which reaches down to 1e-3 of the peak
    (`Beam.footprint_um`). No published distance supports the diffusion term; it is off unless given.

    Parameters
    ----------
    position_sigma_um
        Standard deviation of where the beam is on the sample, um: stage, drift and registration.
    electron_range_um
        See `electron_range_um`.
    diffusion_m2_s, time_s
        Diffusion coefficient, m2/s, and time since the neighbour was dosed, s.
    extra_um
        Anything else, um.

    Raises
    ------
    ValueError
        A negative or not finite value.
    """
    values = {
        "position_sigma_um": position_sigma_um,
        "electron_range_um": electron_range_um,
        "diffusion_m2_s": diffusion_m2_s,
        "time_s": time_s,
        "extra_um": extra_um,
    }
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value:g} must be 0 or more and finite")
    if diffusion_m2_s > 1e-6:
        raise ValueError(
            f"diffusion_m2_s = {diffusion_m2_s:g} m2/s is larger than in any liquid; 1e-6 cm2/s = 1e-10 m2/s"
        )
    return 3 * position_sigma_um + electron_range_um + 1e6 * math.sqrt(2 * diffusion_m2_s * time_s) + extra_um


def spill_over_gy(account: DoseAccount, x_um: float, y_um: float, *, reach_um: float) -> float:
    """Return the largest dose of the primary target within `reach_um` of the beam's footprint at (x, y), Gy.

    A warning only: products of radiolysis spread, so a fresh spot beside a heavily dosed one may not be as fresh as its
    dose says. The distance is along x and y.

    Parameters
    ----------
    account
        Dose of the sample.
    x_um, y_um
        Sample coordinate, um.
    reach_um
        Distance to look, um.

    Raises
    ------
    ValueError
        A negative or not finite reach.
    """
    if not 0 <= reach_um < math.inf:
        raise ValueError(f"reach {reach_um:g} um must be 0 or more and finite")
    dose_map, footprint = account.dose_map(), account.beam.footprint_um
    near_x = np.abs(dose_map.x_um - x_um) <= footprint[0] / 2 + reach_um
    near_y = np.abs(dose_map.y_um - y_um) <= footprint[1] / 2 + reach_um
    near = dose_map.dose_gy[np.ix_(near_y, near_x)]
    return float(near.max()) if near.size else 0.0


def _stale(account: DoseAccount, fresh_fraction: float) -> tuple[np.ndarray, DoseMap]:
    """Pixels that are not fresh for some tracked target, and the primary map (all maps have its pixels)."""
    limits_gy = account.lowest_limits_gy
    primary = account.dose_map()
    if all(limit_gy is None for limit_gy in limits_gy):
        return primary.dose_gy > 0, primary
    stale = np.zeros(primary.dose_gy.shape, dtype=bool)
    for number, (target, limit_gy) in enumerate(zip(account.targets, limits_gy, strict=True)):
        if limit_gy is not None:
            dose_gy = primary.dose_gy if number == 0 else account.dose_map(target).dose_gy
            stale |= dose_gy > fresh_fraction * limit_gy
    return stale, primary


class _DosedArea:
    """Answers for many rectangles at once whether they hold a marked pixel, by a summed-area table."""

    def __init__(self, dose_map: DoseMap, above: np.ndarray, pixel_um: float) -> None:
        self._pixel_um = pixel_um
        self._shape = above.shape
        self._sum = np.zeros((self._shape[0] + 1, self._shape[1] + 1), dtype=np.int64)
        self._sum[1:, 1:] = above.cumsum(axis=0).cumsum(axis=1)
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
