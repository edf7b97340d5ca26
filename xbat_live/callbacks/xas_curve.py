"""Edge energy against local dose, and the dose from which on the beam delays the reaction: needs no component spectra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbat_live.spectra import DoseCurve, Threshold, dose_threshold, fraction_against_dose

Float = npt.NDArray[np.float64]

BINS = 48
DROP_EV = 0.05
"""Fall of the edge energy that counts: a fiftieth of the 2.4 eV by which the whole reaction moves the edge of LiNiO2."""
_LEAST_SIGMA_EV = 1e-3  # maps are not better than that: counting is not their only error
_NEAR_EDGE_EV = 15.0


def edge_curve(edge_ev: npt.ArrayLike, dose_gy: npt.ArrayLike) -> DoseCurve:
    """Return the mean edge energy of pixels of like dose; pixels without edge energy or with a dose below 0 (dark) are left out."""
    dose = np.asarray(dose_gy, np.float64)
    return fraction_against_dose(edge_ev, np.where(dose >= 0, dose, np.nan), bins=BINS)


def edge_threshold(curve: DoseCurve) -> Threshold:
    """Return the dose from which on edges stay behind; without a value where there is none."""
    return dose_threshold(curve.dose_gy, curve.fraction, np.maximum(curve.sigma, _LEAST_SIGMA_EV), drop=DROP_EV)


def time_at_edge_s(energy_ev: Float, edge_ev: float, place_time_s: float, open_time_s: float) -> float:
    """Return how long a place had been in the beam when a sweep passed the edge, s.

    A cube's edge is measured within a few frames. The dose at the end of the cube is larger, in the first cubes of a place by much: a
    threshold found with it would be too high.

    Parameters
    ----------
    energy_ev
        Of the frames, in the order in which they were taken, (n,), eV.
    edge_ev
        Edge of the sample, eV.
    place_time_s, open_time_s
        Time of the place in the beam at the end of the cube, and of the cube, s.
    """
    near = np.flatnonzero(np.abs(energy_ev - edge_ev) <= _NEAR_EDGE_EV)
    if not near.size:
        return place_time_s
    passed = (float(near.mean()) + 0.5) / energy_ev.size
    return place_time_s - (1.0 - passed) * open_time_s
