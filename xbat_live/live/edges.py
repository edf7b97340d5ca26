"""Where the absorption edge of the whole frame is, for a look while energies are scanned; `xbat_live.spectra` does it per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_POINTS = 6
_PRE, _POST = 0.2, 0.25


@dataclass(frozen=True)
class Edge:
    """An absorption edge.

    Attributes
    ----------
    edge_ev
        Energy at half height of the step, eV.
    sigma_ev
        Its standard uncertainty from the scatter before the edge, eV.
    white_line
        Largest absorbance in units of the step.
    white_line_ev
        Where that is, eV.
    """

    edge_ev: float
    sigma_ev: float
    white_line: float
    white_line_ev: float


def half_height(energy_ev: Sequence[float], absorbance: Sequence[float]) -> Edge | None:
    """Return the edge of one spectrum; None when it has none that can be told.

    A straight line through the first fifth of the points is taken off, the mean of the last quarter is the step, and the first
    crossing of its half is interpolated linearly.

    Parameters
    ----------
    energy_ev, absorbance
        Shape (n,), in any order; eV and dimensionless.
    """
    order = np.argsort(energy_ev)
    energy, mu = np.asarray(energy_ev, float)[order], np.asarray(absorbance, float)[order]
    usable = np.isfinite(energy) & np.isfinite(mu)
    energy, mu = energy[usable], mu[usable]
    if len(energy) < LEAST_POINTS or not np.ptp(energy) > 0:
        return None
    n_pre, n_post = max(int(_PRE * len(energy)), 2), max(int(_POST * len(energy)), 1)
    slope, offset = np.polyfit(energy[:n_pre], mu[:n_pre], 1) if n_pre > 2 else (0.0, float(mu[:n_pre].mean()))
    above = mu - (slope * energy + offset)
    step, noise = float(above[-n_post:].mean()), float(above[:n_pre].std())
    if not step > 5 * max(noise, 1e-9):
        return None
    height = above / step
    crossing = np.flatnonzero((height[:-1] < 0.5) & (height[1:] >= 0.5))
    if not len(crossing):
        return None
    i = int(crossing[0])
    steepness = (height[i + 1] - height[i]) / (energy[i + 1] - energy[i])
    peak = int(np.argmax(height))
    return Edge(
        edge_ev=float(energy[i] + (0.5 - height[i]) / steepness),
        sigma_ev=float(noise / step / steepness),
        white_line=float(height[peak]),
        white_line_ev=float(energy[peak]),
    )
