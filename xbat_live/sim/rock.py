"""The scene of full-field XAS imaging (La Porta et al., beamline ROCK): its settings and its spectra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.sim.settings import TwinSettings

__all__ = ["COMPONENTS", "FOCI", "component_fractions", "component_spectra", "foil_spectrum", "rock_settings"]

_Float64 = npt.NDArray[np.float64]

COMPONENTS = 3
FOCI = {"far": ((2248.0, 829.0), 6.0), "near": ((1158.0, 609.0), 2.2)}
"""By focus: width (x, y) of the beam, um, and camera gain, counts per photon.

The paper states 3.28 x 1.21 and 1.75 x 0.92 mm2, and energy-averaged maxima of 7 and 18.5 kGy/s on the electrode, for the same
flux. No Gaussian has both. What an analysis finds are rates, so the maxima are kept, and the ratio of the sides; the widths are
those that give them.
"""
_FOIL_EDGE_EV = 8333.0


def rock_settings(focus: str = "far", **changes: Any) -> TwinSettings:
    """Return the settings of the scene: LiNiO2 electrode of 6 mm, nickel foil below it, sCMOS camera of 2048 x 748 px of 1.625 um.

    Parameters
    ----------
    focus
        ``far`` or ``near``: the farther and closer focus configuration.
    changes
        Further settings, see `TwinSettings`.

    Raises
    ------
    ValueError
        Unknown focus, or a setting that is out of range.
    """
    if focus not in FOCI:
        raise ValueError(f"focus {focus!r} is unknown; known: {', '.join(FOCI)}")
    fwhm_um, gain = FOCI[focus]
    scene = TwinSettings(
        scene="rock",
        pixel_size_um=1.625,
        sensor_yx=(748, 2048),
        sample_size_um=(6000.0, 6000.0),
        flux_ph_s=1.041e12,
        beam_fwhm_um=fwhm_um,
        beam_order=2,
        energy_ev=8400.0,
        vibration_probability=0.0,
        drift_um_per_min_yx=(0.0, 0.0),
        jitter_um_yx=(0.2, 0.2),
        i0_na_per_ph_s=100.0 / 1.041e12,
        beam_drift_um=1.0,
        detection_efficiency=0.3,
        counts_per_photon=gain,
        read_noise_counts=2.0,
        cell_preset="lno_rock",
        active_layer="cathode",
        active_material="LiNiO2",
        damage_threshold_gy=35e6,
        damage_spread_um=15.0,
        initial_soc=0.02,
        dose_grid_um=26.0,
        soc_cell_um=250.0,
    )
    return replace(scene, **changes)


def component_fractions(progress: npt.ArrayLike) -> _Float64:
    """Return the fractions (3, ...) of the components Cp1, Cp2, Cp3 at a progress of the reaction, 0 to 1.

    ``(1-x)^2, 2x(1-x), x^2``: the second is an intermediate with 50 % at half charge (Jacquet et al., Fig. 6 of La Porta et al.); they sum
    to 1, and ``(Cp2 + 2 Cp3) / 2`` is the progress.
    """
    x = np.clip(np.asarray(progress, dtype=np.float64), 0.0, 1.0)
    return np.stack([np.square(1 - x), 2 * x * (1 - x), np.square(x)])


def component_spectra(energy_ev: npt.ArrayLike) -> _Float64:
    """Return the normalised absorption (3, n) of the components at energies (n,), eV: Ni3+, an intermediate, Ni4+."""
    energy = np.asarray(energy_ev, dtype=np.float64)
    shapes = (
        (8343.2, 2.0, 0.46, 5.2, 4.2, 1.92),
        (8344.6, 1.9, 0.56, 5.6, 3.6, 1.90),
        (8345.6, 1.7, 0.50, 6.2, 3.2, 1.87),
    )
    return np.stack([_oxide(energy, shape) for shape in shapes])


def foil_spectrum(energy_ev: npt.ArrayLike) -> _Float64:
    """Return the normalised absorption (n,) of metallic nickel: first inflection at 8333 eV, a steeper rise follows."""
    energy = np.asarray(energy_ev, dtype=np.float64)
    above = energy - _FOIL_EDGE_EV
    first = 0.40 * _step(above, 1.6)
    second = 0.60 * _step(above - 13.5, 2.1)
    return first + second + _exafs(above - 13.5, 2.2, 0.12)


def _oxide(energy: _Float64, shape: tuple[float, ...]) -> _Float64:
    """Step, white line, pre-edge peak and oscillation; `shape` is edge, width, height of the line, its place and width, bond."""
    edge_ev, width_ev, line, line_at_ev, line_width_ev, bond = shape
    above = energy - edge_ev
    white_line = line * np.exp(-np.square((above - line_at_ev) / line_width_ev))
    pre_edge = 0.03 * np.exp(-np.square((above + 11.0) / 1.5))
    return _step(above, width_ev) + white_line + pre_edge + _exafs(above, bond, 0.10)


def _step(above_ev: _Float64, width_ev: float) -> _Float64:
    return np.asarray(0.5 * (1.0 + np.tanh(above_ev / width_ev)))


def _exafs(above_ev: _Float64, bond_angstrom: float, amplitude: float) -> _Float64:
    wave_number = np.sqrt(0.2625 * np.maximum(above_ev, 0.0))  # 1/angstrom
    damped = amplitude * np.exp(-0.02 * wave_number**2 - 0.12 * wave_number)
    return np.asarray(
        damped * np.sin(2 * bond_angstrom * wave_number - 0.6) * np.clip((above_ev - 8.0) / 15.0, 0.0, 1.0)
    )
