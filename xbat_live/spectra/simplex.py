"""Least squares with non-negative coefficients, and with closure, exact and for many pixels at once by going through the faces.

For a few components every subset of coefficients that may be positive is tried (7 for three); the best feasible one is the solution of
the convex problem (Lawson & Hanson 1974 reach the same one by an active set, one pixel after the other).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xbat_live.spectra.checks import Float

Index = NDArray[np.integer]


def nonnegative(gram: Float, moments: Float, which: Index | None = None, *, closure: bool = False) -> Float:
    """Minimise ``a^T S a / 2 - v^T a`` with ``a >= 0``, and ``sum(a) = 1`` with `closure`, for every column.

    Parameters
    ----------
    gram
        One or more positive definite matrices S, (m, k, k).
    moments
        v, (k, n).
    which
        Matrix of each column, (n,); None: the first for all.
    closure
        Whether the coefficients sum up to 1.

    Returns
    -------
    ndarray
        (k, n) of the dtype of `moments`, none negative.
    """
    k = len(moments)
    members = tuple(range(k))
    best = _solve(gram, moments, which, members, closure)
    rest = np.flatnonzero((best < 0).any(0))
    if rest.size == 0:
        return best
    v = moments[:, rest]
    chosen = None if which is None else which[rest]
    solution = np.zeros_like(v)
    lowest = np.zeros(rest.size, v.dtype) if not closure else np.full(rest.size, np.inf, v.dtype)
    for size in range(1, k):
        for face in combinations(members, size):
            trial = _solve(gram, v[list(face)], chosen, face, closure)
            value = _objective(gram, v[list(face)], chosen, face, trial, closure=closure)
            better = (trial >= 0).all(0) & (value < lowest)
            lowest = np.where(better, value, lowest)
            solution[:, better] = 0
            for row, member in enumerate(face):
                solution[member, better] = trial[row, better]
    best[:, rest] = solution
    return best


def _solve(gram: Float, v: Float, which: Index | None, face: tuple[int, ...], closure: bool) -> Float:
    """Solve on one face without the sign constraint; `v` has only the face's rows."""
    inverse = np.linalg.inv(gram[np.ix_(range(len(gram)), face, face)]).astype(v.dtype)
    a = _apply(inverse, v, which)
    if closure:  # a - S^-1 1 (sum(a) - 1) / (1^T S^-1 1)
        direction = inverse.sum(2)
        direction /= direction.sum(1, keepdims=True)
        excess = a.sum(0) - 1
        a -= (direction[0][:, None] if which is None else direction[which].T) * excess
    return a


def _apply(matrices: Float, v: Float, which: Index | None) -> Float:
    if which is None:
        return np.asarray(matrices[0] @ v)
    result = np.empty_like(v)
    for row in range(len(v)):
        result[row] = matrices[:, row, 0][which] * v[0]
        for column in range(1, len(v)):
            result[row] += matrices[:, row, column][which] * v[column]
    return result


def _objective(gram: Float, v: Float, which: Index | None, face: tuple[int, ...], a: Float, *, closure: bool) -> Float:
    value: Float = -(v * a).sum(0)
    if not closure:
        return value / 2  # at the minimum of a face S a = v
    small = gram[np.ix_(range(len(gram)), face, face)].astype(v.dtype)
    return value + 0.5 * (a * _apply(small, a, which)).sum(0)
