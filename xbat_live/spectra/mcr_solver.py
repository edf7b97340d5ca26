"""Alternating least squares with exact constrained steps, on a compressed copy of the data that is put right by whole passes.

Spectra live in few dimensions: with an orthonormal basis Q (r rows) the data are ``D = T Q + E`` and both steps need only the scores T,
a few per cent of D, plus what E contributes: ``E S^T`` and ``C^T E``. These two are small and change slowly; they are taken
from the last pass over D (deferred correction), so that what the iteration converges to is the solution on the whole data, not on the
compressed ones. Between passes spectra are extrapolated (Andersson & Bro 1998) as long as the residual falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xbat_live.spectra.checks import Float, Mask
from xbat_live.spectra.rows import Rows
from xbat_live.spectra.simplex import nonnegative

_EXTRA_FUNCTIONS = 6
# Products small enough for one thread of the BLAS: threads that share so little work wait for one another, under load for long.
_ONE_THREAD = 250_000
_PIXELS_AT_ONCE = 4096
_RIDGE = 1e-10
_PATIENCE = 3
_ONE_IN = 1000
_LEAST_SUM = 0.1
_FIRST_STRIDE, _LONGEST_STRIDE = 0.5, 8.0
_LONGER, _SHORTER = 1.3, 0.25
MOST_PASSES = 6


def _pieces(rows: Rows, rank: int) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Yield as many rows at a time as one thread multiplies with `rank` spectra, with their place among those that count."""
    for part, block in rows.blocks():
        for inner in _inner(block, rank):
            yield slice(part.start + inner.start, part.start + inner.stop), block[inner]


def _inner(block: NDArray[np.floating], rank: int) -> Iterator[slice]:
    rows = max(_ONE_THREAD // (block.shape[1] * rank), 16)
    for start in range(0, len(block), rows):
        yield slice(start, min(start + rows, len(block)))


@dataclass
class Problem:
    """Data, what is held fixed, and the compressed copy.

    Attributes
    ----------
    samples
        Data.
    free
        Which spectra may change, (k,).
    closure
        Whether concentrations sum up to 1.
    basis
        Q, (r, p).
    scores
        T, (n, r), and
    beyond
        sum of squares of E.
    """

    samples: Rows
    free: Mask
    closure: bool
    basis: Float = field(init=False)
    scores: NDArray[np.floating] = field(init=False)
    beyond: float = field(init=False)

    def __post_init__(self) -> None:
        """Find the basis: range finder with one power iteration (Halko, Martinsson & Tropp 2011)."""
        dtype = self.samples.values.dtype
        energies = self.samples.values.shape[1]
        rank = min(self.free.size + _EXTRA_FUNCTIONS, energies, self.samples.count)
        trials = np.random.default_rng(0).standard_normal((rank, energies))
        back = np.zeros((rank, energies))
        total = 0.0
        directions = trials.T.astype(dtype)
        for _, block in _pieces(self.samples, rank):
            back += (block @ directions).T @ block
            total += float(np.einsum("np,np->n", block, block).sum(dtype=np.float64))
        self.basis = np.linalg.qr(back.T)[0].T
        small = self.basis.T.astype(dtype)
        self.scores = np.empty((self.samples.count, rank), dtype)
        for part, block in _pieces(self.samples, rank):
            np.matmul(block, small, out=self.scores[part])
        inside = float(np.einsum("nr,nr->n", self.scores, self.scores).sum(dtype=np.float64))
        self.beyond = max(total - inside, 0.0)


@dataclass
class State:
    """Where the iteration stands.

    Attributes
    ----------
    spectra
        S, (k, p).
    amounts
        C transposed, (k, n).
    of_amounts, of_spectra
        Corrections: ``S E^T``, (k, n), and ``C^T E``, (k, p), of the last pass.
    pixel_squares
        Sum of squared residuals of every row, (n,).
    """

    spectra: Float
    amounts: NDArray[np.floating]
    of_amounts: NDArray[np.floating]
    of_spectra: Float
    pixel_squares: NDArray[np.floating]

    @property
    def squares(self) -> float:
        """Sum of squared residuals."""
        return float(self.pixel_squares.sum(dtype=np.float64))


def alternate(problem: Problem, start: Float, *, tolerance: float, most_iterations: int) -> tuple[State, int]:
    """Return the solution and the number of iterations.

    An iteration is one step in the concentrations and one in the spectra. It ends when the residual falls by less than `tolerance`
    (relative, of the root mean square) over some iterations and a pass over the whole data agrees, or after `most_iterations`.
    """
    state = _whole_pass(problem, np.array(start))
    best, iterations = state, 1
    for _ in range(MOST_PASSES):
        spectra, iterations = _compressed(problem, state, tolerance, most_iterations, iterations)
        state = _whole_pass(problem, spectra)
        iterations += 1
        settled = state.squares > best.squares * (1 - 2 * tolerance)
        best = state if state.squares < best.squares else best
        if settled or iterations >= most_iterations:
            break
    return best, iterations


def _whole_pass(problem: Problem, spectra: Float) -> State:
    """Return concentrations for `spectra` from the whole data, the residual, and the corrections for what follows."""
    dtype = problem.scores.dtype
    k = len(spectra)
    gram = _regular(spectra @ spectra.T)
    small = spectra.astype(dtype)
    amounts = np.empty((k, problem.samples.count), dtype)
    moments = np.empty_like(amounts)
    squares = np.empty(problem.samples.count, dtype)
    back = np.zeros_like(spectra)
    for part, block in problem.samples.blocks():
        own, found, left = moments[:, part], amounts[:, part], squares[part]
        for inner in _inner(block, k):
            own[:, inner] = (block[inner] @ small.T).T
        found[:] = nonnegative(gram, own, closure=problem.closure)
        for inner in _inner(block, k):
            back += found[:, inner] @ block[inner]
            rest = block[inner] - found[:, inner].T @ small
            np.einsum("np,np->n", rest, rest, out=left[inner])
    inside = (spectra @ problem.basis.T).astype(dtype)
    moments -= inside @ problem.scores.T
    back -= (amounts @ problem.scores).astype(np.float64) @ problem.basis
    return State(spectra, amounts, moments, back, squares)


def _compressed(problem: Problem, state: State, tolerance: float, most: int, iterations: int) -> tuple[Float, int]:
    """Alternate on the scores until the residual settles; returns the spectra, and the iterations counted on."""
    spectra = before = state.spectra
    squares, stride, calm = np.inf, 0.0, 0
    while iterations < most and calm < _PATIENCE:
        trial = spectra
        if stride > 0:
            trial = np.where(problem.free[:, None], np.maximum(spectra + stride * (spectra - before), 0.0), spectra)
        products, back, value = _amounts_step(problem, state, trial)
        if value > squares and stride > 0:  # too far
            stride *= _SHORTER
            trial = spectra
            products, back, value = _amounts_step(problem, state, trial)
            iterations += 1
        else:
            stride = min(max(stride * _LONGER, _FIRST_STRIDE), _LONGEST_STRIDE)
        before, spectra = spectra, _spectra_step(problem, state, products, back, trial)
        calm = calm + 1 if squares - value < 2 * tolerance * value else 0
        squares = min(squares, value)
        iterations += 1
    return spectra, iterations


def _amounts_step(problem: Problem, state: State, spectra: Float) -> tuple[Float, Float, float]:
    """Return what the best concentrations for `spectra` give: ``C^T C``, ``C^T T``, and the sum of squared residuals."""
    scores = problem.scores
    inside = spectra @ problem.basis.T
    small = inside.astype(scores.dtype)
    gram = _regular(spectra @ spectra.T)
    products, back = np.zeros((len(spectra), len(spectra))), np.zeros_like(inside)
    squares = problem.beyond
    for start in range(0, len(scores), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        own, correction = scores[part], state.of_amounts[:, part]
        amounts = nonnegative(gram, small @ own.T + correction, closure=problem.closure)
        rest = own - amounts.T @ small
        products += amounts @ amounts.T
        back += amounts @ own
        squares += float(np.einsum("nr,nr->n", rest, rest).sum(dtype=np.float64))
        squares -= 2 * float(np.einsum("kn,kn->n", amounts, correction).sum(dtype=np.float64))
    outside = spectra - inside @ problem.basis
    return products, back, squares + float((products * (outside @ outside.T)).sum())


def _spectra_step(problem: Problem, state: State, products: Float, back: Float, spectra: Float) -> Float:
    """Return the best non-negative spectra for concentrations of which `products` and `back` tell; those that are fixed stay."""
    free = problem.free
    if not free.any():
        return spectra
    wanted = back @ problem.basis + state.of_spectra
    wanted = wanted[free] - products[np.ix_(free, ~free)] @ spectra[~free]
    result = spectra.copy()
    result[free] = nonnegative(_regular(products[np.ix_(free, free)]), wanted)
    return result


def _regular(gram: Float) -> Float:
    """Return the Gram matrix as (1, k, k) with a ridge far below its size: a component that vanished leaves it singular."""
    k = len(gram)
    size = max(float(np.trace(gram)) / k, 1e-300)
    result: Float = (gram + _RIDGE * size * np.eye(k))[None]
    return result


def significant(problem: Problem) -> int:
    """Return how many components stand out of the noise: variances beyond what noise alone gives (Marchenko & Pastur 1967)."""
    rank, energies = problem.basis.shape
    count = problem.samples.count
    if energies <= rank:
        return rank
    noise = problem.beyond / (count * (energies - rank))
    gram = problem.scores.T.astype(np.float64) @ problem.scores.astype(np.float64)
    edge = noise * (np.sqrt(count) + np.sqrt(energies)) ** 2
    return int((np.linalg.eigvalsh(gram) > max(1.05 * edge, 1e-12 * float(np.trace(gram)))).sum())


def purest(problem: Problem, k: int, known: Float | None = None) -> Float:
    """Return spectra to start from, (k, p): `known`, then medians of the rows that are farthest from the plane through those before.

    As successive projections (Araujo et al. 2001) on the scores, relative to each row's sum; some rows for each, so that neither noise
    nor a single wild one decides.
    """
    scores = problem.scores.astype(np.float64)
    total = scores @ problem.basis.sum(axis=1)
    usable = total > _LEAST_SUM * np.median(total)
    relative = scores[usable] / total[usable, None]
    centre = relative.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(relative.T) if len(relative) > 1 else np.eye(relative.shape[1]))
    main = vectors[:, ::-1][:, : max(k - 1, 1)]
    flat = (relative - centre) @ main
    several = max(len(flat) // _ONE_IN, 1)
    chosen: list[Float] = [] if known is None else list(known @ problem.basis.T)
    places = [(one / (one @ problem.basis.sum(axis=1)) - centre) @ main for one in chosen]
    for _ in range(k - len(chosen)):
        rest = flat if not places else flat - places[0]
        if len(places) > 1:
            along = np.linalg.qr((np.array(places[1:]) - places[0]).T)[0]
            rest = rest - rest @ along @ along.T
        far = np.argsort(np.einsum("nj,nj->n", rest, rest))[-several:]
        same = far[rest[far] @ rest[far[-1]] > 0]  # on the same side
        places.append(np.median(flat[same], axis=0))
        chosen.append(np.median(scores[usable][same], axis=0))
    start: Float = np.maximum(np.array(chosen) @ problem.basis, 0.0)
    if known is not None:
        start[: len(known)] = known
    return start
