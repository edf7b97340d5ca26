"""What a cube, its energies and its references must be, said in clear errors before any numerics."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

MAX_REFERENCES = 8
LEAST_ENERGIES = 5
_KEV_SLIP = 200.0  # no edge of this package lies below 200 eV; 8.333 is keV
_SAME_EV = 1e-6

log = logging.getLogger("xbat_live.spectra")


def checked_cube(cube: ArrayLike, name: str = "cube") -> Float32:
    """Return `cube` as float32 (n_energy, ny, nx); not copied when it is that already.

    Raises
    ------
    ValueError
        Not three axes, or one of them empty.
    """
    array = np.asarray(cube)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{name}: shape {array.shape}, expected (n_energy, ny, nx), none of them 0")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: holds {array.dtype}, expected real numbers")
    return np.asarray(array, np.float32)


def checked_energies(energy_ev: ArrayLike, count: int | None = None, *, what: str = "frames") -> Float:
    """Return energies as float64 (n,), in the order given.

    Raises
    ------
    ValueError
        Wrong number, not finite, or numbers that look like keV.
    """
    energies = np.asarray(energy_ev, np.float64)
    if energies.ndim != 1 or (count is not None and energies.size != count):
        raise ValueError(f"energies of shape {energies.shape} for {count} {what}: one energy in eV is needed for each")
    if not np.isfinite(energies).all():
        raise ValueError(f"{int((~np.isfinite(energies)).sum())} of {energies.size} energies are not finite")
    if energies.size and energies.max() < _KEV_SLIP:
        raise ValueError(f"energies up to {energies.max():g} look like keV; give eV (8.333 keV is 8333 eV)")
    return energies


def checked_spectrum_energies(energy_ev: ArrayLike, count: int) -> Float:
    """Return the energies of a whole spectrum; see `checked_energies`. At least five of them must differ."""
    energies = checked_energies(energy_ev, count)
    different = int((np.diff(np.sort(energies)) > _SAME_EV).sum()) + 1
    if different < LEAST_ENERGIES:
        raise ValueError(f"{different} different energies: a spectrum needs at least {LEAST_ENERGIES}")
    return energies


def checked_shift(shift_ev: ArrayLike | None, shape: tuple[int, int]) -> Float:
    """Return the shift of every pixel (ny * nx,), eV; 0 when None; NaN stays NaN and masks the pixel.

    Raises
    ------
    ValueError
        Another shape, or infinite shifts.
    """
    if shift_ev is None:
        return np.zeros(shape[0] * shape[1])
    shift = np.asarray(getattr(shift_ev, "shift_ev", shift_ev), np.float64)
    if shift.ndim == 0:
        shift = np.full(shape, float(shift))
    if shift.shape != shape:
        raise ValueError(
            f"shift map of shape {shift.shape} for a cube of {shape} px: calibrate with a foil cube of the same region "
            "and binning"
        )
    if np.isinf(shift).any():
        raise ValueError(f"shift map: {int(np.isinf(shift).sum())} infinite shifts")
    return shift.ravel()


def checked_references(
    references: ArrayLike, energy_ev: ArrayLike | None, references_energy_ev: ArrayLike | None
) -> tuple[Float, Float]:
    """Return references (k, n) and their energies (n,), ascending and without repeats.

    Raises
    ------
    ValueError
        Wrong shape, none or too many of them, not finite, one without an edge, energies that do not fit.
    """
    spectra = np.atleast_2d(np.asarray(references, np.float64))
    if spectra.ndim != 2 or not 1 <= spectra.shape[0] <= MAX_REFERENCES:
        raise ValueError(
            f"references of shape {np.shape(references)}: expected (k, n) with 1 to {MAX_REFERENCES} spectra as rows"
        )
    given = energy_ev if references_energy_ev is None else references_energy_ev
    if given is None:
        raise ValueError("references: their energies are unknown; give references_energy_ev, eV")
    if np.shape(given) != (spectra.shape[1],):
        raise ValueError(
            f"references of {spectra.shape[1]} points on {np.size(given)} energies; give references_energy_ev, one energy in "
            "eV per point, unless they lie on the energies of the cube"
        )
    energies = checked_spectrum_energies(given, spectra.shape[1])
    if not np.isfinite(spectra).all():
        bad = np.flatnonzero(~np.isfinite(spectra).all(1))
        raise ValueError(f"references {bad.tolist()} hold NaN or infinite values")
    order = np.argsort(energies, kind="stable")
    energies, spectra = energies[order], spectra[:, order]
    first = np.flatnonzero(np.diff(energies, prepend=-np.inf) > _SAME_EV)
    if first.size < energies.size:  # repeated energies: their mean
        repeats = np.diff(np.append(first, energies.size))
        spectra = np.add.reduceat(spectra, first, axis=1) / repeats
        energies = energies[first]
    for number, spectrum in enumerate(spectra):
        if np.ptp(spectrum) <= 1e-9 * max(1.0, float(np.abs(spectrum).max())):
            raise ValueError(f"reference {number} is flat: a spectrum with an absorption edge is needed")
    return spectra, energies


def checked_window(window_ev: Any, name: str, e0_ev: float) -> tuple[float, float]:
    """Return a window in absolute eV; bounds far below the edge energy (e.g. ``(-60, -15)``) count from `e0_ev`.

    Raises
    ------
    ValueError
        Not two finite numbers in ascending order.
    """
    bounds = np.asarray(window_ev, np.float64).ravel()
    if bounds.size != 2 or not np.isfinite(bounds).all() or not bounds[0] < bounds[1]:
        raise ValueError(f"{name} {window_ev!r}: two energies in ascending order are needed, eV")
    if np.abs(bounds).max() < e0_ev / 2:
        bounds = bounds + e0_ev
    return float(bounds[0]), float(bounds[1])


def tell_masked(what: str, masked: int, total: int, why: str) -> None:
    """Log how many pixels an analysis leaves out; silent when none."""
    if masked:
        log.warning("%s: %d of %d pixels masked: %s", what, masked, total, why)
