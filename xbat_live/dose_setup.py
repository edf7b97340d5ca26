"""From a configuration to a dose account: layer stack, beam, limits, ledger. Needs no beamline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live import dose
from xbat_live.config import ConfigError, ExperimentConfig, LimitSection

LEDGER_WAIT_S = 5.0
OWN_LIMIT, OWN_RATE_LIMIT = "dose limit", "dose rate limit"
"""Name of the limit that is ``dose.limit`` of an experiment."""
FINE_GRID_UM, GRIDS_PER_BEAM = 1.0, 50


@contextmanager
def open_account(config: ExperimentConfig, *, wait_s: float = LEDGER_WAIT_S) -> Iterator[dose.DoseAccount]:
    """Open the sample's ledger for writing and return its account.

    Parameters
    ----------
    wait_s
        How long another writer (`xbat guard` writes for moments) is waited for, s.

    Raises
    ------
    LedgerLocked
        Another process writes this ledger all the time.
    """
    directory = config.path(config.dose.ledger_directory)
    with dose.Ledger.for_sample(directory, config.sample.name, wait_s=wait_s) as ledger:
        yield make_account(config, ledger)


def make_account(config: ExperimentConfig, ledger: dose.Ledger) -> dose.DoseAccount:
    """Return the dose account that `config` describes, on `ledger`.

    Raises
    ------
    ConfigError
        Sample, beam or dose section describe something impossible.
    """
    sample, section = config.sample, config.dose
    try:
        limits = make_limits(config)
        primary = dose.DoseTarget(sample.layer, sample.material)
        others = {dose.DoseTarget(limit.layer or sample.layer, limit.material) for limit in limits} - {primary}
        return dose.DoseAccount(
            ledger,
            stack=make_stack(config),
            beam=make_beam(config),
            limits=limits,
            layer=sample.layer,
            material=sample.material,
            model=section.model,
            sigma_rel=section.sigma,
            k_sigma=section.k_sigma,
            grid_um=section.grid_um or max(FINE_GRID_UM, min(config.beam.size_um) / GRIDS_PER_BEAM),
            outline_um=sample.size_um,
            also=sorted(others, key=lambda target: (target.layer, target.material)),
        )
    except ValueError as error:
        raise ConfigError(f"sample, beam or dose section: {error}") from error


def make_stack(config: ExperimentConfig) -> dose.LayerStack:
    """Return the layer stack: that of ``sample.layers``, or the preset ``sample.cell``."""
    sample = config.sample
    if not sample.layers:
        stack = dose.presets.cell(sample.cell)
        return dose.LayerStack(stack.layers, tilt_deg=sample.tilt_deg) if sample.tilt_deg else stack
    layers = [
        dose.Layer(
            layer.name,
            layer.thickness_um,
            {dose.Material(part.material, part.formula, part.density_g_cm3): part.fraction for part in layer.parts},
        )
        for layer in sample.layers
    ]
    return dose.LayerStack(layers, tilt_deg=sample.tilt_deg)


def make_limits(config: ExperimentConfig) -> tuple[dose.DoseLimit, ...]:
    """Return all limits in force: ``dose.limit``, ``dose.rate_limit`` and ``dose.limits``."""
    sample, section = config.sample, config.dose
    own: dict[str, Any] = {"material": sample.material, "layer": sample.layer, "model": section.model}
    limits = [dose.DoseLimit(name=OWN_LIMIT, limit_gy=section.limit_gy, **own)]
    if section.rate_limit_gy_s is not None:
        limits.append(dose.DoseLimit(name=OWN_RATE_LIMIT, rate_gy_s=section.rate_limit_gy_s, **own))
    return (*limits, *(_further(config, number, item) for number, item in enumerate(section.limits)))


def _further(config: ExperimentConfig, number: int, item: LimitSection) -> dose.DoseLimit:
    sample = config.sample
    if item.preset is None:
        base = dose.DoseLimit(
            name=item.name or f"dose.limits[{number}]",
            material=item.material or sample.material,
            limit_gy=item.limit_gy,
            rate_gy_s=item.rate_gy_s,
            model=config.dose.model,
        )
    else:
        base = dose.presets.limit(item.preset, item.material or _stated_for(item.preset, sample.material))
    changes: dict[str, Any] = {
        "name": item.name or base.name,
        "layer": item.layer or base.layer or sample.layer,
        "window_s": item.window_s if item.window_s is not None else base.window_s,
        "advisory": base.advisory if item.advisory is None else item.advisory,
        "protects": item.protects or base.protects,
        "source": item.source or base.source,
    }
    if item.limit_gy is not None or item.rate_gy_s is not None:
        changes |= {"limit_gy": item.limit_gy, "rate_gy_s": item.rate_gy_s}
    return replace(base, **changes)


def _stated_for(preset: str, material: str) -> str | None:
    """Return `material` when the preset was stated for it, else None: its first material."""
    return material if preset in dose.presets.limit_names(material) else None


def make_beam(config: ExperimentConfig) -> dose.Beam:
    """Return the beam that `config` describes."""
    beam = config.beam
    if beam.profile == "top_hat":
        return dose.Beam.top_hat(beam.flux_ph_s, size_um=beam.size_um)
    if beam.profile == "measured" and beam.flat_file is not None and beam.flat_pixel_size_um is not None:
        flat = _load_flat(config.path(beam.flat_file))
        return dose.Beam.measured(beam.flux_ph_s, flat, 0.0, beam.flat_pixel_size_um, beam.fraction_in_field)
    return dose.Beam.gaussian(beam.flux_ph_s, fwhm_um=beam.size_um, order=beam.order)


def _load_flat(file: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(file), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"beam.flat: {file}: {error}; give an image as .npy, without sample, dark subtracted"
        ) from error
