"""What must hold before the beam is used: checked with the devices connected, before the first photon."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from xbat_live.config import ExperimentConfig
from xbat_live.devices import TxmBeamline

LEAST_FREE_BYTES = 500_000_000


class PreflightError(Exception):
    """The experiment cannot be run as configured; every problem is a line of the message."""


def check(config: ExperimentConfig, beamline: TxmBeamline) -> None:
    """Check frame folder and, with beam, positions and energies; whether the dose allows the plan is for `xbat_live.forecast` to say.

    Raises
    ------
    PreflightError
        Naming key, value, unit, limit and remedy of each problem.
    """
    problems = [*_folder(config)]
    if not config.uses_microscope:
        problems = [*_positions(config, beamline), *_energies(config, beamline), *problems]
    if problems:
        raise PreflightError("\n      ".join(problems))


def _positions(config: ExperimentConfig, beamline: TxmBeamline) -> Iterator[str]:
    plan = config.plan
    wanted = [("plan.reference", plan.reference_um), *plan.positions_um().items()]
    for key, position in wanted:
        for axis, value_um, motor in zip("xy", position, (beamline.stage.x, beamline.stage.y), strict=True):
            low_um, high_um = motor.limits
            if low_um < high_um and not low_um <= value_um <= high_um:
                yield (
                    f"{key}: {axis} = {value_um:g} µm is outside the limits of {motor.prefix}, {low_um:g} to {high_um:g} µm; "
                    "choose another position or move the limits"
                )
    half_um = [size / 2 for size in config.sample.size_um]
    for key, position in wanted[1:]:
        if any(abs(value) > half for value, half in zip(position, half_um, strict=True)):
            yield (
                f"{key}: ({position[0]:g}, {position[1]:g}) µm is off the sample, "
                f"which is {2 * half_um[0]:g} x {2 * half_um[1]:g} µm around (0, 0)"
            )
    clear_um = [half + size / 2 for half, size in zip(half_um, config.beam.size_um, strict=True)]
    if all(abs(value) < clear for value, clear in zip(plan.reference_um, clear_um, strict=True)):
        yield (
            f"plan.reference: at ({plan.reference_um[0]:g}, {plan.reference_um[1]:g}) µm the beam still meets the sample; "
            f"go beyond {clear_um[0]:g} µm in x or {clear_um[1]:g} µm in y"
        )


def _energies(config: ExperimentConfig, beamline: TxmBeamline) -> Iterator[str]:
    low_ev, high_ev = beamline.mono.energy.limits
    key = "plan.steps" if config.plan.name == "scripted_series" else "plan.energies"
    for energy_ev in config.plan.visited_ev:
        if low_ev < high_ev and not low_ev <= energy_ev <= high_ev:
            yield (
                f"{key}: {energy_ev:g} eV is outside the range of {beamline.mono.energy.prefix}, "
                f"{low_ev:g} to {high_ev:g} eV"
            )


def _folder(config: ExperimentConfig) -> Iterator[str]:
    key, folder = "camera.directory", config.path(config.camera.directory)
    if config.uses_microscope:
        key, folder = "optical.directory", config.optical_directory
    problem = folder_problem(folder)
    if problem:
        yield f"{key}: {problem}"


def folder_problem(folder: Path) -> str:
    """Return what is wrong with a folder that frames shall be written to, or an empty string; makes the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable; choose another folder or change its permissions"
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < LEAST_FREE_BYTES:
        return f"{folder}: only {free_bytes / 1e6:.0f} MB free, at least {LEAST_FREE_BYTES / 1e6:.0f} MB wanted"
    return ""
