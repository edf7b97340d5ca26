"""Multivariate curve resolution: spectra of unknown components and their concentrations from many mixed spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import MAX_REFERENCES, Float, Mask, log
from xbat_live.spectra.mcr_reference import alternate_by_pymcr
from xbat_live.spectra.mcr_solver import Problem, alternate, purest, significant
from xbat_live.spectra.rows import Rows, spectra_rows
from xbat_live.spectra.threads import single_blas

_ALIKE = 1e-6


@dataclass(frozen=True, eq=False)
class McrResult:
    """Components and concentrations.

    Attributes
    ----------
    concentrations
        None negative; with closure their sum is 1. (n, k) for spectra as rows, (k, ny, nx) for a cube. NaN where masked.
    spectra
        None negative, (k, n_energy). NaN at energies that were left out.
    r_factor
        Sum of squared residuals over the sum of squares of the data, all pixels together.
    iterations
        Steps in both concentrations and spectra.
    pixel_r_factor
        The same of every pixel, (n,) or (ny, nx). NaN where masked.
    converged
        Whether it ended before the highest number of iterations.
    significant
        Components of the data that stand out of their noise, at most k + 6: fewer than k, and one has nothing to describe; more, and
        one is missing (or pixels differ in more than composition: thickness, background, energy shift).
    """

    concentrations: Float
    spectra: Float
    r_factor: float
    iterations: int
    pixel_r_factor: Float
    converged: bool
    significant: int

    @property
    def masked(self) -> Mask:
        """Pixels that were left out, (n,) or (ny, nx)."""
        mask: Mask = np.isnan(self.pixel_r_factor)
        return mask

    @property
    def masked_count(self) -> int:
        """Number of masked pixels."""
        return int(self.masked.sum())


def mcr_als(
    data: ArrayLike,
    k: int,
    *,
    initial: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    closure: bool = True,
    backend: Literal["own", "pymcr"] = "own",
    max_iterations: int = 500,
    tolerance: float = 1e-6,
) -> McrResult:
    """Find `k` spectra S and concentrations C with ``D = C S`` in the sense of least squares, none of them negative.

    Alternating least squares (Tauler 1995) whose steps are exact: concentrations by constrained least squares with closure, spectra by
    non-negative least squares. pyMCR, the reference implementation, clips and rescales unconstrained solutions instead.

    The components of such a decomposition are in general not unique (rotational ambiguity): among many of equal residual the one near
    the start is found. Pixels, or masks, in which a component is nearly alone, or `fixed` spectra, decide.

    Parameters
    ----------
    data
        Normalised absorbance, a cube (n_energy, ny, nx) or spectra as rows (n, n_energy). Pixels with NaN, infinite or no values are
        masked, energies that are NaN in most pixels left out; both are counted in the log.
    k
        Number of components, 1 to 8.
    initial
        Spectra to start from, (k, n_energy), or concentrations of the rows, (n, k). None: the purest pixels, each the median of the
        thousandth of them that is farthest from the components before.
    fixed
        Spectra that are known: their numbers in `initial`, e.g. ``[0]``, or themselves, (m, n_energy), as the first m components.
    closure
        Whether the concentrations of a pixel sum up to 1.
    backend
        ``pymcr``: pyMCR with ordinary least squares and its constraints (``pip install xbat-live[mcr]``).
    max_iterations, tolerance
        It ends when an iteration lowers the root mean square residual by less than `tolerance` (relative), several times in a row.

    Raises
    ------
    ValueError
        Data without spectra; more components than spectra or energies; starts of the wrong number, alike, negative or not finite.
    ModuleNotFoundError
        ``backend="pymcr"`` without pyMCR.
    """
    rows = spectra_rows(data, "mcr_als")
    k = _checked_count(k, rows)
    known, free = _checked_fixed(fixed, initial, k, rows)
    if backend not in ("own", "pymcr"):
        raise ValueError(f"mcr_als: backend {backend!r}: 'own' and 'pymcr' are known")
    with single_blas():
        problem = Problem(rows, free, closure)
    start = purest(problem, k, known) if initial is None else _checked_initial(initial, k, rows, free)
    if known is not None:
        start[: len(known)] = known
    _check_apart(start)
    start = np.maximum(start, 0.0)
    if backend == "pymcr":
        amounts, spectra, squares, iterations = alternate_by_pymcr(
            rows,
            start,
            ~free,
            closure=closure,
            most_iterations=max_iterations,
            least_change=2 * tolerance * problem.beyond / (rows.count * start.shape[1]),
        )
    else:
        with single_blas():
            state, iterations = alternate(problem, start, tolerance=tolerance, most_iterations=max_iterations)
        amounts, spectra, squares = state.amounts.astype(np.float64), state.spectra, state.pixel_squares
    if closure:
        amounts /= amounts.sum(axis=0)
    signal = np.concatenate([np.einsum("np,np->n", block, block) for _, block in rows.blocks()]).astype(np.float64)
    concentrations = rows.spread(amounts)
    converged, distinct = iterations < max_iterations, significant(problem)
    if distinct < k:
        log.warning("mcr_als: %d components, but only %d stand out of the noise; leave one out", k, distinct)
    if not converged:
        log.warning(
            "mcr_als: not converged after %d iterations; a better start, or more of them, are needed", iterations
        )
    return McrResult(
        concentrations if rows.image is not None else concentrations.T,
        rows.at_all_energies(spectra, np.nan),
        np.float64(squares.sum(dtype=np.float64) / signal.sum()),
        iterations,
        rows.spread(squares / signal),
        converged,
        distinct,
    )


def _checked_count(k: int, rows: Rows) -> int:
    most = min(MAX_REFERENCES, rows.count, int(rows.lit.sum()))
    if int(k) != k or not 1 <= k <= most:
        raise ValueError(
            f"mcr_als: {k} components: 1 to {most} are possible with {rows.count} spectra of {int(rows.lit.sum())} energies"
        )
    return int(k)


def _checked_initial(initial: ArrayLike, k: int, rows: Rows, free: Mask) -> Float:
    """Return start spectra at the energies that count."""
    given = np.atleast_2d(np.asarray(initial, np.float64))
    if given.shape == (k, rows.lit.size):
        spectra = given[:, rows.lit]
        if not np.isfinite(spectra).all():
            raise ValueError(
                f"mcr_als: initial spectra {np.flatnonzero(~np.isfinite(spectra).all(1)).tolist()} hold NaN"
            )
        return spectra
    if given.shape == (len(rows.values), k) and free.all():
        amounts = given if rows.chosen is None else given[rows.chosen]
        if not np.isfinite(amounts).all() or amounts.min() < 0:
            raise ValueError("mcr_als: initial concentrations must be finite and not negative")
        back = np.zeros((k, rows.values.shape[1]))
        for part, block in rows.blocks():
            back += amounts[part].T @ block
        return np.asarray(np.linalg.lstsq(amounts.T @ amounts, back, rcond=None)[0])
    few = f"; {len(given)} spectra for {k} components" if given.shape[-1] == rows.lit.size else ""
    raise ValueError(
        f"mcr_als: initial of shape {given.shape}: expected spectra of shape ({k}, {rows.lit.size}) or concentrations of shape "
        f"({len(rows.values)}, {k}){few}"
    )


def _checked_fixed(fixed: ArrayLike | None, initial: ArrayLike | None, k: int, rows: Rows) -> tuple[Float | None, Mask]:
    """Return spectra that come first and stay, if they were given themselves, and which components are free."""
    free: Mask = np.ones(k, bool)
    if fixed is None or np.size(fixed) == 0:
        return None, free
    given = np.asarray(fixed)
    if given.ndim <= 1 and given.dtype.kind in "biu":
        numbers = np.flatnonzero(given) if given.dtype.kind == "b" else np.atleast_1d(given)
        if initial is None:
            raise ValueError(f"mcr_als: fixed {numbers.tolist()} are numbers of initial spectra; give initial as well")
        if (given.dtype.kind == "b" and given.size != k) or numbers.min() < 0 or numbers.max() >= k:
            raise ValueError(f"mcr_als: fixed {np.asarray(fixed).tolist()}: numbers 0 to {k - 1} are expected")
        free[numbers] = False
        return None, free
    spectra = np.atleast_2d(np.asarray(given, np.float64))
    if spectra.shape[1:] != (rows.lit.size,) or len(spectra) > k:
        raise ValueError(
            f"mcr_als: fixed of shape {np.shape(fixed)}: expected up to {k} spectra of {rows.lit.size} energies, or numbers of initial"
        )
    spectra = spectra[:, rows.lit]
    if not np.isfinite(spectra).all() or spectra.min() < 0:
        raise ValueError("mcr_als: fixed spectra must be finite and not negative")
    free[: len(spectra)] = False
    return spectra, free


def _check_apart(start: Float) -> None:
    size = np.linalg.norm(start, axis=1)
    if (size == 0).any():
        raise ValueError(f"mcr_als: start spectra {np.flatnonzero(size == 0).tolist()} are zero")
    unit = start / size[:, None]
    if np.linalg.svd(unit, compute_uv=False)[-1] < _ALIKE:
        raise ValueError(
            f"mcr_als: the {len(start)} start spectra are not independent: one is a mixture of the others; leave one out (k = "
            f"{len(start) - 1}), or start from others"
        )
