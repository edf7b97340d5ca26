"""A map that is smooth within its noise, drawn towards its smooth surface by as much as the noise allows (empirical Bayes)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.spectra.checks import Float, Mask

DEGREE = 3
LEAST_PER_TERM = 8
LIMIT_SIGMA = 6.0
_ROUNDS = 4
_MAD = 1.4826


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Result of `smooth_surface`.

    Attributes
    ----------
    values, sigma
        (ny, nx).
    outlier
        Pixels far off the surface that have been replaced by it, (ny, nx).
    """

    values: Float
    sigma: Float
    outlier: Mask


def smooth_surface(values: Float, sigma: Float) -> Smoothed:
    """Return the map drawn towards a cubic surface.

    With scatter ``t^2`` of the true map about the surface (what the scatter of the values exceeds their ``sigma^2`` by), a value keeps the
    share ``t^2 / (t^2 + sigma^2)`` of its distance to the surface. NaN becomes the surface. Maps too small for a surface stay as they are.
    """
    ny, nx = values.shape
    y, x = np.meshgrid(
        np.linspace(-1, 1, ny) if ny > 1 else np.zeros(1),
        np.linspace(-1, 1, nx) if nx > 1 else np.zeros(1),
        indexing="ij",
    )
    powers = [(i, j) for i in range(min(DEGREE, ny - 1) + 1) for j in range(min(DEGREE, nx - 1) + 1) if i + j <= DEGREE]
    basis = np.stack([y**i * x**j for i, j in powers], -1).reshape(-1, len(powers))
    flat, width = values.ravel(), sigma.ravel()
    known = np.isfinite(flat) & np.isfinite(width)
    no_outlier = np.zeros(values.shape, bool)
    if known.sum() < LEAST_PER_TERM * len(powers):
        return Smoothed(values.copy(), sigma.copy(), no_outlier)
    weight = np.zeros(flat.size)
    weight[known] = 1 / np.maximum(width[known], 1e-6) ** 2
    trusted = known.copy()
    surface = np.zeros(flat.size)
    rest = np.zeros(flat.size)
    scatter = excess = 0.0
    normal = np.eye(len(powers))
    for _ in range(_ROUNDS):
        chosen = basis[trusted] * weight[trusted, None]
        normal = chosen.T @ basis[trusted]
        surface = basis @ np.linalg.solve(normal, chosen.T @ flat[trusted])
        rest = np.where(known, flat - surface, 0.0)
        scatter = _MAD * float(np.median(np.abs(rest[trusted])))
        excess = max(scatter**2 - float(np.median(width[trusted] ** 2)), 0.0)
        limit = LIMIT_SIGMA * np.sqrt(excess + np.maximum(width, scatter) ** 2)
        trusted = known & (np.abs(rest) <= np.where(known, limit, 0))
    kept = np.where(trusted, excess / np.maximum(excess + np.where(known, width, 1.0) ** 2, 1e-300), 0.0)
    own = np.where(trusted, kept * np.where(known, width, 0.0) ** 2, excess)
    of_surface = np.einsum("pi,ij,pj->p", basis, np.linalg.inv(normal), basis, optimize=True)
    result = surface + kept * rest
    outlier = (known & ~trusted).reshape(values.shape)
    return Smoothed(result.reshape(values.shape), np.sqrt(own + of_surface).reshape(values.shape), outlier)
