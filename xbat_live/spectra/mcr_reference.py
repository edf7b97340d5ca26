"""pyMCR as another implementation of `mcr_als`: what the own solver is compared with."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from xbat_live.spectra.checks import Float, Mask
from xbat_live.spectra.rows import Rows


def alternate_by_pymcr(
    rows: Rows, start: Float, fixed: Mask, *, closure: bool, most_iterations: int, least_change: float
) -> tuple[Float, Float, NDArray[np.floating], int]:
    """Return amounts (k, n), spectra (k, p), squared residuals of the rows (n,) and the number of iterations.

    Ordinary least squares, then its constraints: clipped at 0, concentrations divided by their sum. pyMCR 0.5.1 runs with numpy 2 as
    far as that goes; its ConstraintCutBelow and ConstraintCutAbove do not (they call functions that numpy 2 removed).

    Raises
    ------
    ModuleNotFoundError
        pyMCR is not installed.
    """
    try:
        from pymcr.constraints import ConstraintNonneg, ConstraintNorm
        from pymcr.mcr import McrAR
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            'backend="pymcr" needs pyMCR: pip install "xbat-live[mcr]", or leave the backend at "own"'
        ) from missing
    data = rows.values if rows.chosen is None else rows.values[rows.chosen]
    data = np.asarray(data, np.float64)
    quiet = logging.getLogger("pymcr")
    quiet.addHandler(logging.NullHandler())
    solver = McrAR(
        c_regr="OLS",
        st_regr="OLS",
        c_constraints=[ConstraintNonneg(), *([ConstraintNorm()] if closure else [])],
        st_constraints=[ConstraintNonneg()],
        max_iter=most_iterations,
        tol_increase=None,
        tol_n_increase=None,
        tol_n_above_min=10,
        tol_err_change=least_change,
    )
    solver.fit(data, ST=start, st_fix=np.flatnonzero(fixed).tolist())
    amounts, spectra = np.asarray(solver.C_opt_.T, np.float64), np.asarray(solver.ST_opt_, np.float64)
    rest = data - amounts.T @ spectra
    return amounts, spectra, np.einsum("np,np->n", rest, rest), int(solver.n_iter)
