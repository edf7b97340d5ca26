"""Mass attenuation and energy-absorption coefficients of elements and compounds, from the tables of xraydb.

xraydb has no energy-absorption coefficient; it is derived here from photoabsorption, K fluorescence yields and the mean
energy of Compton electrons (2.5 % of NIST's values for C and Ni at battery-relevant energies).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
DoseModel = Literal["attenuation", "energy", "photo", "legacy_jousseaume"]

DOSE_MODELS: tuple[str, ...] = get_args(DoseModel)
MIN_ENERGY_EV = 250.0
MAX_ENERGY_EV = 400_000.0
"""Range in which all tables used here (Elam; Chantler for the legacy model) hold values, eV."""

ELECTRONVOLT_J = 1.602176634e-19
_AVOGADRO = 6.02214076e23
_ELECTRON_RADIUS_CM = 2.8179403262e-13
_PLANCK_C_EV_CM = 1.2398419843320026e-4
_ELECTRON_REST_EV = 510_998.95

# xraydb reads its sqlite file through one session; sessions are not for several threads at once.
_TABLES = threading.Lock()


def _xraydb() -> Any:
    import xraydb  # 0.5 s: only when numbers are needed

    return xraydb.get_xraydb()


def check_energy(energy_ev: npt.ArrayLike) -> FloatArray:
    """Return photon energies as a float array after a check against the tables' range.

    Parameters
    ----------
    energy_ev
        Scalar or array, eV.

    Raises
    ------
    ValueError
        Not finite or outside 250 eV to 400 keV; a value that would fit in keV is pointed out.
    """
    energies = np.asarray(energy_ev, dtype=np.float64)
    outside = ~((energies >= MIN_ENERGY_EV) & (energies <= MAX_ENERGY_EV))
    if outside.any():
        value = float(energies[outside].flat[0])
        hint = ""
        for factor in (1e3, 1e-3):
            if MIN_ENERGY_EV <= value * factor <= MAX_ENERGY_EV:
                hint = f"; energies are in eV, did you mean {value * factor:g} eV?"
                break
        raise ValueError(f"photon energy {value:g} eV is outside {MIN_ENERGY_EV:g} eV .. {MAX_ENERGY_EV:g} eV{hint}")
    return energies


def check_model(model: str) -> DoseModel:
    """Return `model` if it is the name of a dose definition.

    Raises
    ------
    ValueError
        Unknown name; the known ones are listed.
    """
    if model not in DOSE_MODELS:
        raise ValueError(f"unknown dose model {model!r}; known: {', '.join(DOSE_MODELS)}")
    return cast("DoseModel", model)


def parse_formula(formula: str) -> dict[str, float]:
    """Return mass fractions by element of a chemical formula, e.g. ``LiNi0.6Mn0.2Co0.2O2``.

    Raises
    ------
    ValueError
        When the formula cannot be read or names an element without tables.
    """
    import xraydb

    try:
        atoms = xraydb.chemparse(formula)
        with _TABLES:
            masses = {element: number * float(_xraydb().molar_mass(element)) for element, number in atoms.items()}
            for element in masses:
                _xraydb().cross_section_elam(element, np.array([10_000.0]), kind="photo")
    except Exception as error:  # chemparse and the tables raise ValueError, KeyError and IndexError on nonsense
        raise ValueError(
            f"{formula!r} is not a chemical formula of known elements; write e.g. 'LiNi0.6Mn0.2Co0.2O2'"
        ) from error
    total = sum(masses.values())
    if not (masses and total > 0 and all(mass > 0 for mass in masses.values())):
        raise ValueError(f"{formula!r} is an empty chemical formula; write e.g. 'SiO2'")
    return {element: mass / total for element, mass in masses.items()}


def mass_attenuation(
    composition: Mapping[str, float], energy_ev: FloatArray, model: DoseModel = "attenuation"
) -> FloatArray:
    """Return what decides transmission: the total mass attenuation coefficient.

    Parameters
    ----------
    composition
        Mass fraction by element.
    energy_ev
        Photon energies, eV, any shape.
    model
        The total coefficient of all models is photoabsorption, coherent and incoherent scattering;
        ``legacy_jousseaume`` uses its own (f2 and free Klein-Nishina), as its authors do.

    Returns
    -------
    numpy.ndarray
        Coefficient, cm2/g, shape of `energy_ev`.
    """
    kind = "legacy" if model == "legacy_jousseaume" else "total"
    return _compound(composition, energy_ev, kind)


def mass_energy_deposition(composition: Mapping[str, float], energy_ev: FloatArray, model: DoseModel) -> FloatArray:
    """Return the coefficient kappa/rho that turns fluence into dose, by dose definition.

    ``attenuation``: every photon removed is absorbed on the spot (the literature's definition of thresholds);
    ``photo``: photoabsorption; ``energy``: ``photo (1 - Xf/E) + compton <T>/E`` with ``Xf = (1 - 1/J_K) w_K <E_K>``
    above the K edge, all fluorescence escaping; ``legacy_jousseaume``: f2 and Klein-Nishina
    (STardif/dose_estimation).

    Parameters
    ----------
    composition, energy_ev, model
        See `mass_attenuation`.

    Returns
    -------
    numpy.ndarray
        Coefficient, cm2/g, shape of `energy_ev`.
    """
    kinds = {"attenuation": "total", "energy": "energy", "photo": "photo", "legacy_jousseaume": "legacy"}
    return _compound(composition, energy_ev, kinds[model])


def klein_nishina_cm2(energy_ev: FloatArray) -> FloatArray:
    """Return the Klein-Nishina cross section of one free electron, cm2."""
    k = energy_ev / _ELECTRON_REST_EV
    log = np.log1p(2 * k)
    bracket = (1 + k) / k**2 * (2 * (1 + k) / (1 + 2 * k) - log / k) + log / (2 * k) - (1 + 3 * k) / (1 + 2 * k) ** 2
    return 2 * math.pi * _ELECTRON_RADIUS_CM**2 * bracket


def _compound(composition: Mapping[str, float], energy_ev: FloatArray, kind: str) -> FloatArray:
    total = np.zeros(energy_ev.shape)
    for element, fraction in composition.items():
        total = total + fraction * _element(element, energy_ev, kind)
    return total


def _element(element: str, energy_ev: FloatArray, kind: str) -> FloatArray:
    """Mass coefficient of an element, cm2/g."""
    if energy_ev.size == 1:  # the account asks for one energy at a time, and for the same one again
        return np.full(energy_ev.shape, _element_scalar(element, float(energy_ev.flat[0]), kind))
    return _compute(element, energy_ev.ravel(), kind).reshape(energy_ev.shape)


@lru_cache(maxsize=8192)
def _element_scalar(element: str, energy_ev: float, kind: str) -> float:
    return float(_compute(element, np.array([energy_ev]), kind)[0])


def _compute(element: str, energy_ev: FloatArray, kind: str) -> FloatArray:
    with _TABLES:
        tables = _xraydb()
        if kind == "legacy":
            f2 = np.asarray(tables.f2_chantler(element, energy_ev))
            photo_cm2 = 2 * _ELECTRON_RADIUS_CM * _PLANCK_C_EV_CM / energy_ev * f2
            compton_cm2 = tables.atomic_number(element) * klein_nishina_cm2(energy_ev)
            return np.asarray((photo_cm2 + compton_cm2) * _AVOGADRO / tables.molar_mass(element))
        photo = np.asarray(tables.cross_section_elam(element, energy_ev, kind="photo"))
        if kind == "photo":
            return photo
        compton = np.asarray(tables.cross_section_elam(element, energy_ev, kind="incoh"))
        if kind == "total":
            return photo + compton + np.asarray(tables.cross_section_elam(element, energy_ev, kind="coh"))
        electron_ev = np.asarray(tables.compton_energies(energy_ev).electron_mean)
        return photo * (1 - _escaping_ev(tables, element, energy_ev) / energy_ev) + compton * electron_ev / energy_ev


def _escaping_ev(tables: Any, element: str, energy_ev: FloatArray) -> FloatArray:
    """Mean energy that leaves as K fluorescence per photoabsorption, eV; 0 below the edge."""
    edge = tables.xray_edges(element).get("K")
    lines = tables.xray_lines(element, initial_level="K")
    intensity = sum(line.intensity for line in lines.values())
    if edge is None or intensity <= 0:
        return np.zeros(energy_ev.shape)
    mean_ev = sum(line.energy * line.intensity for line in lines.values()) / intensity
    escaping_ev = (1 - 1 / edge.jump_ratio) * edge.fyield * mean_ev
    return np.where(energy_ev > edge.energy, escaping_ev, 0.0)
