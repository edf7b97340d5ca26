"""The tables of xraydb that every dose needs, read from its files without loading it (SQLAlchemy, SciPy: 0.45 s)."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Kind = Literal["photo", "coh", "incoh"]

_COLUMN = {
    "photo": ("photoabsorption", "log_photoabsorption"),
    "coh": ("scattering", "log_coherent_scatter"),
    "incoh": ("scattering", "log_incoherent_scatter"),
}
_LOCK = threading.Lock()


def chemparse(formula: str) -> dict[str, float]:
    """Return the number of atoms by element, by xraydb's own parser."""
    return _parser()(formula)


@cache
def molar_mass(element: str) -> float:
    """Return the molar mass of an element, g/mol.

    Raises
    ------
    ValueError
        Unknown symbol.
    """
    (mass,) = _row("SELECT molar_mass FROM elements WHERE element = ?", element)
    return float(mass)


def cross_section_elam(element: str, energy_ev: FloatArray, kind: Kind) -> FloatArray:
    """Return photoabsorption, coherent or incoherent scattering of an element by Elam, Ravel and Sieber, cm2/g.

    The same spline on the same table as `xraydb.XrayDB.cross_section_elam`.

    Raises
    ------
    ValueError
        An element without tables.
    """
    log_energy, value, spline = _table(element, kind)
    x = np.log(np.clip(np.asarray(energy_ev, dtype=np.float64), 100.0, 8e5))
    low = np.maximum(np.searchsorted(log_energy, x, side="left") - 1, 0)
    high = np.minimum(np.searchsorted(log_energy, x, side="right"), log_energy.size - 1)
    width = log_energy[high] - log_energy[low]
    a, b = (log_energy[high] - x) / width, (x - log_energy[low]) / width
    bend = (width * width / 6) * ((a * a - 1) * a * spline[low] + (b * b - 1) * b * spline[high])
    return np.asarray(np.exp(a * value[low] + b * value[high] + bend))


@lru_cache(maxsize=512)
def _table(element: str, kind: Kind) -> tuple[FloatArray, FloatArray, FloatArray]:
    table, column = _COLUMN[kind]
    row = _row(f"SELECT log_energy, {column}, {column}_spline FROM {table} WHERE element = ?", element)
    energy, value, spline = (np.array(json.loads(text)) for text in row)
    return energy, value, spline


def _row(statement: str, element: str) -> tuple[Any, ...]:
    with _LOCK:
        row: tuple[Any, ...] | None = _connection().execute(statement, (element,)).fetchone()
    if row is None:
        raise ValueError(f"there are no tables for {element!r}")
    return row


@cache
def _folder() -> Path:
    spec = find_spec("xraydb")  # finds without loading
    if spec is None or spec.origin is None:
        raise ImportError("xraydb is not installed; it holds the cross sections")
    return Path(spec.origin).parent


@cache
def _connection() -> sqlite3.Connection:
    uri = f"{(_folder() / 'xraydb.sqlite').as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


@cache
def _parser() -> Callable[[str], dict[str, float]]:
    spec = spec_from_file_location("xbat_live._xraydb_chemparser", _folder() / "chemparser.py")
    if spec is None or spec.loader is None:
        raise ImportError("xraydb has no chemparser; use the version that pyproject.toml asks for")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    parser: Callable[[str], dict[str, float]] = module.chemparse
    return parser
