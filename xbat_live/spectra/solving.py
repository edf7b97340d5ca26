"""From sums to coefficients: joint least squares of background and references for every pixel at its own energy shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbat_live.spectra.checks import Float, Mask
from xbat_live.spectra.moments import BACKGROUND, Moments
from xbat_live.spectra.simplex import nonnegative

_RIDGE = 1e-9
_PIXELS_AT_ONCE = 4096


@dataclass
class Solution:
    """Coefficients of every pixel.

    Attributes
    ----------
    amounts
        a_k >= 0, (k, n).
    background
        Offset and slope, (2, n).
    explained
        Sum of squares that the references explain beyond the background, (n,).
    spread
        Diagonal of the inverse of the references' Gram matrix, (k, n), and
    row_sums
        its row sums, (k, n): what the uncertainty of amounts and of their sum needs.
    samples
        Frames that count, (n,).
    """

    amounts: Float
    background: Float
    explained: Float
    spread: Float
    row_sums: Float
    samples: Float


def solve(moments: Moments, bins: Float, which: np.ndarray) -> Solution:
    """Return the solution for all pixels; `bins` are the shifts, `which` the bin of each pixel.

    Samples in ``moments.missing`` are taken out exactly, pixel by pixel.
    """
    weights = moments.basis.weights(bins)
    pixels, k = moments.pixels, moments.basis.count
    solution = Solution(
        np.zeros((k, pixels)), np.zeros((BACKGROUND, pixels)), np.zeros(pixels), np.zeros((k, pixels)),
        np.zeros((k, pixels)), np.full(pixels, float(moments.frames)),
    )  # fmt: skip
    if moments.frames:
        _solve_common(moments, weights, which, solution)
        solve_missing(moments, weights, which, solution)
    return solution


def coefficients(
    solution: Solution, weights: Float, which: np.ndarray, chosen: slice | np.ndarray = slice(None)
) -> Float:
    """Return the coefficients on the rows of `Moments.design`, (size, m): what a pixel's fitted spectrum is made of."""
    functions = np.einsum("pkr,kp->rp", weights[which[chosen]], solution.amounts[:, chosen], optimize=False)
    return np.concatenate([solution.background[:, chosen], functions])


def _solve_common(moments: Moments, weights: Float, which: np.ndarray, solution: Solution) -> None:
    gram, sums = moments.gram, moments.sums
    b, u = slice(0, BACKGROUND), slice(BACKGROUND, None)
    inverse = np.linalg.inv(gram[b, b] + _RIDGE * np.trace(gram[b, b]) * np.eye(BACKGROUND) * 1e-3)
    eliminate = gram[u, b] @ inverse
    reduced = gram[u, u] - eliminate @ gram[b, u]
    rest = sums[u] - eliminate.astype(np.float32) @ sums[b]
    k, pixels = solution.amounts.shape
    small = weights @ reduced @ weights.transpose(0, 2, 1)
    v = np.zeros((k, pixels))
    for member in range(k):
        for function in range(weights.shape[2]):
            v[member] += weights[:, member, function].astype(np.float32)[which] * rest[function]
    small = _regular(small, weights, gram[u, u])
    amounts = nonnegative(small, v, which)
    inverse_small = np.linalg.inv(small)
    solution.amounts[:] = amounts
    solution.explained[:] = (v * amounts).sum(0)
    solution.spread[:] = np.diagonal(inverse_small, axis1=1, axis2=2).T[:, which]
    solution.row_sums[:] = inverse_small.sum(2).T[:, which]
    cross = weights @ gram[u, b]  # (bins, k, 2)
    for row in range(BACKGROUND):
        left = np.asarray(sums[row], np.float64)
        for member in range(k):
            left = left - cross[:, member, row][which] * amounts[member]
        solution.background[row] = left
    solution.background[:] = inverse @ solution.background


def solve_missing(moments: Moments, weights: Float, which: np.ndarray, solution: Solution) -> None:
    """Solve the pixels with missing samples again, each with its own Gram matrix."""
    rows, pixels = moments.missing.pairs()
    alive = ~moments.dead[pixels]
    rows, pixels = rows[alive], pixels[alive]
    if pixels.size == 0:
        return
    design = moments.design()
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    chosen, owner, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    for start in range(0, chosen.size, _PIXELS_AT_ONCE):
        stop = min(start + _PIXELS_AT_ONCE, chosen.size)
        entries = slice(int(ends[start]), int(ends[stop]))
        gone = np.zeros((stop - start, len(design)))
        gone[owner[entries] - start, rows[entries]] = 1.0
        grams = moments.gram - (gone @ products).reshape(-1, *moments.gram.shape)
        _solve_own(moments, grams, weights[which[chosen[start:stop]]], chosen[start:stop], solution)
        solution.samples[chosen[start:stop]] = moments.frames - counts[start:stop]


def _solve_own(moments: Moments, grams: Float, own: Float, chosen: np.ndarray, solution: Solution) -> None:
    b, u = slice(0, BACKGROUND), slice(BACKGROUND, None)
    sums = moments.sums[:, chosen].T.astype(np.float64)
    ridge = _RIDGE * 1e-3 * np.trace(grams[:, b, b], axis1=1, axis2=2)[:, None, None] * np.eye(BACKGROUND)
    inverse = np.linalg.inv(grams[:, b, b] + ridge)
    cross = own @ grams[:, u, b]  # (m, k, 2)
    eliminate = cross @ inverse
    small = own @ grams[:, u, u] @ own.transpose(0, 2, 1) - eliminate @ cross.transpose(0, 2, 1)
    small = _regular(small, own, grams[:, u, u])
    v = np.einsum("pkr,pr->kp", own, sums[:, u]) - np.einsum("pkb,pb->kp", eliminate, sums[:, b])
    amounts = nonnegative(small, v, np.arange(chosen.size))
    left = sums[:, b] - np.einsum("pkb,kp->pb", cross, amounts)
    inverse_small = np.linalg.inv(small)
    solution.amounts[:, chosen] = amounts
    solution.background[:, chosen] = np.einsum("pab,pb->ap", inverse, left)
    solution.explained[chosen] = (v * amounts).sum(0)
    solution.spread[:, chosen] = np.diagonal(inverse_small, axis1=1, axis2=2).T
    solution.row_sums[:, chosen] = inverse_small.sum(2).T


def _regular(small: Float, weights: Float, functions: Float) -> Float:
    """Add a ridge far below the size of the references: before the edge the matrix would be singular."""
    size = np.trace(weights @ functions @ weights.transpose(0, 2, 1), axis1=1, axis2=2)
    k = small.shape[-1]
    result: Float = small + (_RIDGE * np.maximum(size, 1e-300) / k + 1e-12)[:, None, None] * np.eye(k)
    return result


def determined(moments: Moments, weights: Float) -> Mask:
    """Return for which shifts the frames so far tell the references apart, (m,)."""
    b, u = slice(0, BACKGROUND), slice(BACKGROUND, None)
    gram = moments.gram
    reduced = gram[u, u] - gram[u, b] @ np.linalg.pinv(gram[b, b]) @ gram[b, u]
    small = weights @ reduced @ weights.transpose(0, 2, 1)
    scale = np.sqrt(np.maximum(np.diagonal(small, axis1=1, axis2=2), 1e-300))
    lowest = np.linalg.eigvalsh(small / scale[:, :, None] / scale[:, None, :])[:, 0]
    result: Mask = lowest > 1e-7
    return result
