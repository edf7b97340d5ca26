"""Edge energy of every pixel: where the absorbance above the pre-edge reaches half of the jump."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import (
    Float,
    Float32,
    Mask,
    checked_cube,
    checked_shift,
    checked_spectrum_energies,
    tell_masked,
)
from xbat_live.spectra.threads import in_threads, single_blas
from xbat_live.spectra.wild import mended
from xbat_live.spectra.windows import Pieces, apply_rows, default_windows, edge_of, mean_spectrum, pieces

LEAST_JUMP_SIGMA = 4.0
REACH_EV = 15.0
_POINTS_BELOW, _POINTS_ABOVE = 4, 4
_DEGREE = 5
_PRIOR_FREEDOM = 10
_ENOUGH_FOR_NOISE = 40
_NEWTON_STEPS = 3
_PIXELS_AT_ONCE = 16384


@dataclass(frozen=True, eq=False)
class EdgeMap:
    """Edge energies.

    Attributes
    ----------
    edge_ev
        Half height, true energy (nominal when no shift was given), (ny, nx) float64, eV; NaN where masked.
    sigma_ev
        Standard uncertainty from the noise of the pixel's own pre-edge, (ny, nx), eV; NaN where masked.
    """

    edge_ev: Float
    sigma_ev: Float

    @property
    def masked(self) -> Mask:
        """Pixels without an edge energy: dark, not finite, no edge, (ny, nx)."""
        mask: Mask = np.isnan(self.edge_ev)
        return mask

    @property
    def masked_count(self) -> int:
        """Number of masked pixels."""
        return int(self.masked.sum())


def edge_energy_map(cube: ArrayLike, energy_ev: ArrayLike, shift_ev: ArrayLike | None = None) -> EdgeMap:
    """Return the half-height energy of every pixel.

    Pre-edge line and post-edge follow from the cube's own energies. The jump is that of a quadratic at the edge, by generalised least
    squares that take the EXAFS for what it is: a plain quadratic moves with it by several per cent. The crossing is that of a quintic
    fitted to the eight samples around it. Samples that no combination of what pixels differ by describes (hot pixels, crystal glitches)
    are replaced before.

    Parameters
    ----------
    cube
        Absorbance, normalised or not, (n_energy, ny, nx), any order of energy.
    energy_ev
        Nominal energies, (n_energy,), eV.
    shift_ev
        ``true_energy = energy_ev + shift_ev``, (ny, nx) or a `ShiftMap`; None: 0.

    Raises
    ------
    ValueError
        No edge in the energies, too few energies on a side of it, shapes that do not fit, no pixel with a finite spectrum.
    """
    values = checked_cube(cube)
    energies = checked_spectrum_energies(energy_ev, len(values))
    shape = (values.shape[1], values.shape[2])
    shift = checked_shift(shift_ev, shape)
    values, energies = ascending(values, energies)
    flat = values.reshape(len(values), -1)
    spectrum = mean_spectrum(flat)
    e0 = edge_of(spectrum, energies)
    pre, post, order = default_windows(energies, e0)
    rule = pieces(energies, e0, pre, post, order, oscillating=True)
    edge, sigma = np.empty(flat.shape[1]), np.empty(flat.shape[1])
    reach = REACH_EV + float(np.nanmax(np.abs(shift - np.nanmedian(shift)))) if np.isfinite(shift).any() else REACH_EV
    window = _window(energies, e0, reach)
    tables = _tables(energies[window])
    parts = [slice(start, start + _PIXELS_AT_ONCE) for start in range(0, flat.shape[1], _PIXELS_AT_ONCE)]
    for part, found in zip(
        parts, in_threads(lambda part: _edges(flat[:, part], energies, rule, window, tables), parts), strict=True
    ):
        edge[part], sigma[part] = found
    with single_blas():
        spiky, spectra = mended(flat, window)
    if spiky.size:
        edge[spiky], sigma[spiky] = _edges(spectra, energies, rule, window, tables)
    edge += shift
    sigma[np.isnan(edge)] = np.nan
    result = EdgeMap(edge.reshape(shape), sigma.reshape(shape))
    tell_masked("edge_energy_map", result.masked_count, edge.size, "dark, not finite or without an edge")
    if result.masked_count == edge.size:
        raise ValueError(f"no pixel of {edge.size} has an edge near {e0:g} eV")
    return result


def ascending(values: Float32, energies: Float) -> tuple[Float32, Float]:
    """Return cube and energies in ascending order, equal energies kept apart by their order; a view where possible."""
    steps = np.diff(energies)
    if (steps > 0).all():
        return values, energies
    if (steps < 0).all():
        return values[::-1], energies[::-1]
    order = np.argsort(energies, kind="stable")
    energies = energies[order]
    new = np.concatenate([[True], np.diff(energies) > 0])
    return values[order[new]], energies[new]  # of frames at one energy the first


def _window(energies: Float, e0: float, reach: float) -> slice:
    low = int(np.searchsorted(energies, e0 - reach)) - _POINTS_BELOW
    high = int(np.searchsorted(energies, e0 + reach)) + _POINTS_ABOVE
    return slice(max(low, 0), min(high, len(energies)))


def _edges(flat: Float32, energies: Float, rule: Pieces, window: slice, tables: Float) -> tuple[Float, Float]:
    """Half height and its sigma for some pixels; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return _crossings(flat, energies, rule, window, tables)


def _crossings(flat: Float32, energies: Float, rule: Pieces, window: slice, tables: Float) -> tuple[Float, Float]:
    line_and_jump = apply_rows(np.concatenate([rule.line, rule.jump]), flat, rule.used)
    line, jump = line_and_jump[:2], line_and_jump[2]
    near = energies[window] - rule.e0_ev
    above = _straight(near, np.stack([line[0] + np.float32(0.5) * jump, line[1]]))
    np.subtract(flat[window], above, out=above)
    place, found = _crossing(above)
    start = np.clip(place - _POINTS_BELOW, 0, max(len(near) - tables.shape[2], 0))
    # Pixels with the same samples share one polynomial: they are taken together, one product for all of them.
    pixels = np.argsort(start.astype(np.int16), kind="stable")
    start, place = start[pixels], place[pixels]
    ends = np.searchsorted(start, np.arange(len(tables) + 1))
    groups = [(n, slice(first, last)) for n, (first, last) in enumerate(itertools.pairwise(ends)) if last > first]
    coefficients = np.empty((tables.shape[1], pixels.size))
    for n, group in groups:
        coefficients[:, group] = tables[n] @ above[n : n + tables.shape[2]].take(pixels[group], axis=1)
    step = float(np.median(np.diff(near)))
    earlier = np.maximum(place - 1, 0)
    low, high, origin = near[earlier], near[place], near[start]
    before, after = above[earlier, pixels], above[place, pixels]
    t = (low - origin) + (high - low) * np.clip(-before / np.maximum(after - before, 1e-12), 0, 1)
    bounds = low - origin - step, high - origin + step
    for _ in range(_NEWTON_STEPS):
        value, slope = _polynomial(coefficients, t)
        t = np.clip(t - value / np.where(slope > 0, slope, np.inf), *bounds)
    _, slope = _polynomial(coefficients, t)
    level = rule.line[0] + 0.5 * rule.jump[0]
    powers = np.ones_like(coefficients)
    for power in range(1, len(powers)):
        np.multiply(powers[power - 1], t, out=powers[power])
    spread = np.full(pixels.size, float(level @ level))
    for n, group in groups:
        weights = tables[n].T @ powers[:, group]
        spread[group] += np.einsum("mp,mp->p", weights, weights)
    noise = _pre_edge_noise(flat, energies, rule, line)[pixels]
    jump, found = jump[pixels], found[pixels]
    significant = (jump > LEAST_JUMP_SIGMA * noise * np.linalg.norm(rule.jump)) & (jump > 1e-6)
    good = found & significant & (slope > 0) & np.isfinite(t)
    edge, sigma = np.empty(pixels.size), np.empty(pixels.size)
    edge[pixels] = np.where(good, rule.e0_ev + origin + t, np.nan)
    sigma[pixels] = np.where(good, noise * np.sqrt(spread) / np.where(slope > 0, slope, np.nan), np.nan)
    return edge, sigma


def _crossing(above: Float32) -> tuple[np.ndarray, Mask]:
    """First sample at or above the level whose successor is too, and whether there is one with a sample below before it."""
    high = above >= 0
    both = high[:-1] & high[1:]
    place = np.zeros(above.shape[1], np.intp)
    for row in range(len(both) - 1, 0, -1):  # numpy's argmax along the first axis takes five times as long
        np.copyto(place, row, where=both[row])
    found: Mask = (place > 0) & ~both[0]
    return np.where(found, place, 1), found


def _tables(near: Float) -> Float:
    """Least squares polynomials through the samples around each place, (places, degree + 1, samples)."""
    count = min(_POINTS_BELOW + _POINTS_ABOVE, len(near))
    degree = min(_DEGREE, count - 1)
    starts = range(len(near) - count + 1)
    return np.stack(
        [np.linalg.pinv(np.vander(near[s : s + count] - near[s], degree + 1, increasing=True)) for s in starts]
    )


def _polynomial(coefficients: Float, t: Float) -> tuple[Float, Float]:
    value, slope = coefficients[-1].copy(), np.zeros_like(t)
    for one in coefficients[-2::-1]:
        slope *= t
        slope += value
        value *= t
        value += one
    return value, slope


def _straight(energies: Float, line: Float32) -> Float32:
    """Return lines (offset and slope, (2, pixels)) at energies, (n, pixels)."""
    return np.column_stack([np.ones_like(energies), energies]).astype(np.float32) @ line


def _pre_edge_noise(flat: Float32, energies: Float, rule: Pieces, line: Float32) -> Float:
    """Return the standard deviation of a sample before the edge; with few samples drawn towards that of the image."""
    rows = rule.used[rule.pre]
    some = slice(rows[0], rows[-1] + 1, max(1, len(rows) // _ENOUGH_FOR_NOISE))
    rest = _straight(energies[some] - rule.e0_ev, line)
    rest -= flat[some]
    np.square(rest, out=rest)
    squares = rest.sum(0).astype(np.float64)
    freedom = max(len(rest) - 2, 0)
    own = squares / max(freedom, 1)
    typical = float(np.nanmedian(own)) if np.isfinite(own).any() else 0.0
    return np.sqrt((freedom * own + _PRIOR_FREEDOM * typical) / (freedom + _PRIOR_FREEDOM))
