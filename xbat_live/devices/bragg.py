"""Bragg's law: from the angle of a monochromator's crystal to the photon energy and back. Loads no ophyd."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HC_EV_ANGSTROM = 12398.419843  # CODATA 2018
SI111_SPACING_ANGSTROM = 3.1356


def bragg_deg(energy_ev: npt.ArrayLike, spacing_angstrom: float = SI111_SPACING_ANGSTROM) -> npt.NDArray[np.float64]:
    """Return Bragg angles, deg: asin(hc / (2 d E)), first order.

    Raises
    ------
    ValueError
        An energy that the crystal does not reflect.
    """
    sine = HC_EV_ANGSTROM / (2 * spacing_angstrom * np.asarray(energy_ev, dtype=np.float64))
    if not (np.isfinite(sine) & (sine > 0) & (sine <= 1)).all():
        raise ValueError(f"a crystal of {spacing_angstrom:g} angstrom does not reflect {np.ravel(energy_ev)[:3]} eV")
    return np.degrees(np.arcsin(sine))


def energy_of_bragg_ev(
    angle_deg: npt.ArrayLike, spacing_angstrom: float = SI111_SPACING_ANGSTROM
) -> npt.NDArray[np.float64]:
    """Return photon energies, eV, of Bragg angles, deg; NaN where the angle is not between 0 and 90 deg."""
    angle = np.asarray(angle_deg, dtype=np.float64)
    sine = np.where((angle > 0) & (angle < 90), np.sin(np.radians(angle)), np.nan)
    return np.asarray(HC_EV_ANGSTROM / (2 * spacing_angstrom * sine), dtype=np.float64)
