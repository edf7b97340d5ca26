"""Normalisation of every pixel's spectrum: pre-edge line off, jump 1, post-edge flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import (
    Float,
    Float32,
    checked_cube,
    checked_spectrum_energies,
    checked_window,
    tell_masked,
)
from xbat_live.spectra.windows import apply_rows, pieces

LEAST_JUMP_SIGMA = 4.0


def normalise(  # noqa: PLR0917 - as the field calls it: windows in this order
    cube: ArrayLike,
    energy_ev: ArrayLike,
    e0_ev: float,
    pre_edge_ev: tuple[float, float],
    post_edge_ev: tuple[float, float],
    post_order: int = 2,
    *,
    flatten: bool = True,
) -> Float32:
    """Return the normalised absorbance: 0 before the edge, around 1 after it.

    The pre-edge is a straight line; the post-edge above it a polynomial. Below `e0_ev` the spectrum above the line is divided by the jump
    (the polynomial at `e0_ev`), beyond it by the polynomial itself; with ``flatten=False`` by the jump everywhere, as in the LiNiO2 paper:
    then the fall of the polynomial, and the noise of the pixel's own pre-edge slope, stay in the spectrum.

    Parameters
    ----------
    cube
        Absorbance, (n_energy, ny, nx), any order of energy.
    energy_ev
        Energies, (n_energy,), eV.
    e0_ev
        Edge energy, eV.
    pre_edge_ev, post_edge_ev
        Windows, eV; bounds far below the edge energy, e.g. ``(-60, -15)``, count from `e0_ev`.
    post_order
        Order of the post-edge polynomial, 0 to 3.
    flatten
        See above.

    Returns
    -------
    ndarray
        (n_energy, ny, nx), float32. A NaN sample stays NaN and is left out of the pixel's fits; pixels without a significant positive
        jump are NaN. How many is logged.

    Raises
    ------
    ValueError
        Windows without energies or on the wrong side of the edge, shapes that do not fit, no pixel with an edge.
    """
    values = checked_cube(cube)
    energies = checked_spectrum_energies(energy_ev, len(values))
    e0 = float(e0_ev)
    if not energies.min() <= e0 <= energies.max():
        raise ValueError(f"edge energy {e0:g} eV is outside the energies {energies.min():g} to {energies.max():g} eV")
    pre = checked_window(pre_edge_ev, "pre_edge_ev", e0)
    post = checked_window(post_edge_ev, "post_edge_ev", e0)
    rule = pieces(energies, e0, pre, post, post_order)
    flat = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        line = apply_rows(rule.line, flat, rule.used).astype(np.float64)
        curve = apply_rows(rule.post, flat, rule.used).astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(line).all(0) | ~np.isfinite(curve).all(0))
    if broken.size:
        line[:, broken], curve[:, broken] = _fit_broken(flat, energies, broken, (e0, pre, post, post_order))
    x = energies - e0
    result = flat - (np.vander(x, 2, increasing=True).astype(np.float32) @ line.astype(np.float32))
    jump = curve[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        before = result[rule.used[rule.pre]]
        noise = np.sqrt(np.nansum(before.astype(np.float64) ** 2, axis=0) / max(len(before) - 2, 1))
        bad = ~(jump > LEAST_JUMP_SIGMA * noise * np.linalg.norm(rule.jump)) | ~(jump > 1e-6)
    if bad.all():
        raise ValueError(
            f"no pixel of {bad.size} has an edge at {e0:g} eV; is the cube absorbance, and the edge in its energies?"
        )
    divisor = np.where(bad, np.nan, jump).astype(np.float32)
    if flatten and post_order:
        after = np.flatnonzero(x > 0)
        inside = slice(None)
        powers = np.vander(x[after], post_order + 1, increasing=True).astype(np.float32)
        bent = powers @ curve[:, inside].astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[after] /= np.where(bent > 0.1 * divisor, bent, np.nan)
            result[x <= 0] /= divisor
        result[:, bad] = np.nan
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            result /= divisor
    tell_masked("normalise", int(bad.sum()), bad.size, "dark, not finite or without an edge")
    return result.reshape(values.shape)


def _fit_broken(
    flat: Float32,
    energies: Float,
    broken: np.ndarray,
    windows: tuple[float, tuple[float, float], tuple[float, float], int],
) -> tuple[Float, Float]:
    """Fit pixels with missing samples one by one; those that all miss the same share the work."""
    line, curve = np.full((2, broken.size), np.nan), np.full((windows[3] + 1, broken.size), np.nan)
    finite = np.isfinite(flat[:, broken])
    patterns, owner = np.unique(finite.T, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        members = np.flatnonzero(owner.ravel() == number)
        here = np.flatnonzero(pattern)
        try:
            rule = pieces(energies[here], *windows)
        except ValueError:
            continue  # too little left of this pixel: masked by the caller
        values = flat[np.ix_(here[rule.used], broken[members])].astype(np.float64)
        line[:, members], curve[:, members] = rule.line @ values, rule.post @ values
    return line, curve
