"""From a configuration to the live analysis of energy sweeps. Needs no beamline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbat_live.callbacks.xas import XasAnalysis
from xbat_live.callbacks.xas_state import XasSettings
from xbat_live.config import ConfigError, ExperimentConfig
from xbat_live.dose import DoseMasks, dose_masks, dose_rate_map
from xbat_live.dose_setup import make_beam, make_stack


def make_xas_analysis(config: ExperimentConfig) -> XasAnalysis:
    """Return the live analysis of energy sweeps.

    Raises
    ------
    ConfigError
        ``xas.references`` cannot be read.
    """
    return XasAnalysis(xas_settings(config), config.path(config.camera.directory))


def xas_settings(config: ExperimentConfig) -> XasSettings:
    """Return what an analysis of energy sweeps is told, live or after the run.

    Raises
    ------
    ConfigError
        ``xas.references`` cannot be read.
    """
    section, sample = config.xas, config.sample
    beam, stack, pixel_um = make_beam(config), make_stack(config), section.bin * config.camera.pixel_size_um

    def rate_masks(i0: NDArray[np.float32], energy_ev: NDArray[np.float64], dark: NDArray[np.float32]) -> DoseMasks:
        bad = ~np.isfinite(i0).all(axis=0)
        rows, columns = i0.shape[1:]
        field_um = columns * pixel_um, rows * pixel_um
        # What falls beside the camera's field irradiates nothing that is seen there.
        inside = beam.profile.fraction_within(field_um)
        rates = dose_rate_map(
            np.nan_to_num(i0),
            energy_ev,
            beam,
            stack,
            sample.layer,
            sample.material,
            pixel_um,
            dark=dark,
            model=config.dose.model,
            bad_pixels=bad,
            fraction_in_field=inside,
        )
        return dose_masks(rates, section.mask_step_gy_s, start_gy_s=section.mask_start_gy_s, pixel_size_um=pixel_um)

    return XasSettings(
        rate_masks=rate_masks,
        spacing_angstrom=1e4 * section.spacing_um,
        bin=section.bin,
        foil_edge_ev=section.foil_edge_ev,
        pre_edge_ev=section.pre_edge_ev,
        post_edge_ev=section.post_edge_ev,
        components=section.components,
        references=None if section.references is None else load_references(config),
        dark_counts=config.camera.dark_offset_counts,
    )


def load_references(config: ExperimentConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return energies (n,), eV, and component spectra (k, n) of ``xas.references``.

    Raises
    ------
    ConfigError
        No such file, not a table, or another number of components than ``xas.components``.
    """
    section = config.xas
    assert section.references is not None  # asked by the caller
    file = config.path(section.references)
    try:
        table = np.loadtxt(file, ndmin=2)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"xas.references: {file}: {error}; give a text table: energy in eV, a column per component"
        ) from error
    if table.shape[1] != section.components + 1:
        raise ConfigError(
            f"xas.references: {file} has {table.shape[1] - 1} component(s), xas.components is {section.components}; "
            "one column of energies (eV) and one per component are needed"
        )
    order = np.argsort(table[:, 0])
    return table[order, 0], np.ascontiguousarray(table[order, 1:].T)
