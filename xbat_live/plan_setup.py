"""From a configuration to a plan: which plan, with which arguments, on whatever devices are given. Needs no beamline."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky.utils import MsgGenerator

from xbat_live import dose
from xbat_live.config import ExperimentConfig, ProtocolStep
from xbat_live.devices import PotentiostatStep
from xbat_live.plans import (
    DoseGuard,
    DriftPolicy,
    ScanStep,
    SeriesSummary,
    SpotChooser,
    TimedStep,
    attenuated_series,
    calibrate_stage,
    fresh_spots_protocol,
    graded_exposure,
    intermittent_series,
    move_every_scan,
    operando_ffi_xas,
    operando_txm_series,
    optical_series,
    scripted_series,
    xanes_series,
)

if TYPE_CHECKING:
    from xbat_live.devices import TxmBeamline
    from xbat_live.plans import LiveAnalysis

SPOT_STEP_UM = 5.0
ANYWHERE_UM = (-1e6, 1e6)
PLANS: dict[str, Callable[..., MsgGenerator[SeriesSummary]]] = {
    plan.__name__: plan
    for plan in (
        operando_txm_series,
        xanes_series,
        scripted_series,
        move_every_scan,
        graded_exposure,
        intermittent_series,
        attenuated_series,
        fresh_spots_protocol,
        operando_ffi_xas,
        calibrate_stage,
    )
}


def make_plan(
    config: ExperimentConfig,
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Return the plan that `config` names, with its arguments; `md` joins what the start document says."""
    if config.uses_microscope:
        return make_optical_plan(config, beamline, analysis, md=md)
    section = config.plan
    options: dict[str, Any] = {
        **{name: getattr(section, name) for name in type(section).model_fields if name != "name"},
        "exposure_s": config.camera.exposure_s,
        "pixel_size_um": config.camera.pixel_size_um,
        "policy": config.dose.policy,
        "drift": DriftPolicy(enabled=section.correct_drift),
        "protocol": tuple(timed_step(step) for step in config.protocol),
        "guard_um": config.dose.guard_um if section.fresh_guard_um is None else section.fresh_guard_um,
        "c_rate_per_h": section.charge_rate_per_h,
        "steps": scan_steps(config),
        "md": {**plan_metadata(config), **(md or {})},
    }
    if config.sweeps:
        options |= sweep_options(config)
    plan = PLANS[section.name]
    arguments = signature(plan).parameters  # every plan takes what it has a use for; what is left out keeps its default
    chosen = {name: value for name, value in options.items() if name in arguments and value is not None}
    return plan(beamline, guard, analysis, choose_spot, **chosen)


def sweep_options(config: ExperimentConfig) -> dict[str, Any]:
    """Return the arguments of `operando_ffi_xas` that the sections ``[xas]`` and ``[dose]`` decide about."""
    section = config.xas
    return {
        **{name: getattr(section, name) for name in type(section).model_fields},
        "spacing_angstrom": 1e4 * section.spacing_um,
        "policy": config.dose.policy,
        "state_file": protocol_file(config),
    }


def protocol_file(config: ExperimentConfig) -> Path:
    """Return where the progress of a resumable protocol is kept: beside the sample's ledger."""
    return config.path(config.dose.ledger_directory) / f"{config.sample.name}.protocol.json"


def scan_steps(config: ExperimentConfig) -> tuple[ScanStep, ...]:
    """Return the steps of a scripted series, each with its energy and exposure; one that names none has those before it."""
    energy_ev, exposure_s = config.beam.energy_ev, config.camera.exposure_s
    steps = []
    for step in config.plan.steps:
        energy_ev, exposure_s = step.energy_ev or energy_ev, step.exposure_s or exposure_s
        steps.append(ScanStep(step.frames or 0, step.flats or 0, energy_ev, exposure_s, step.at_um))
    return tuple(steps)


def make_optical_plan(
    config: ExperimentConfig, beamline: TxmBeamline, analysis: LiveAnalysis, *, md: dict[str, Any] | None = None
) -> MsgGenerator[SeriesSummary]:
    """Return the series of the microscope that `config` describes: without dose guard, because it has no beam."""
    section, optical = config.plan, config.optical
    about = {name: value for name, value in plan_metadata(config).items() if not name.startswith(("dose_", "image_"))}
    return optical_series(
        beamline,
        analysis,
        n_points=section.n_points,
        period_s=section.period_s,
        duration_s=section.duration_s,
        exposure_s=optical.exposure_s,
        lamp=optical.lamp,
        n_flats=optical.n_flats,
        n_darks=section.n_darks,
        max_retakes=section.max_retakes,
        protocol=tuple(timed_step(step) for step in config.protocol),
        md={**about, "pixel_size_um": optical.pixel_size_um, **(md or {})},
    )


def plan_metadata(config: ExperimentConfig) -> dict[str, Any]:
    """Return what the start document says about sample and operator."""
    sample = config.sample
    return {
        "sample": sample.name,
        "cell": sample.cell,
        "edge": sample.edge,
        "material": sample.material,
        "operator": config.operator,
        "pixel_size_um": config.camera.pixel_size_um,
        "image_to_stage": [list(row) for row in config.camera.image_to_stage],
        "dose_limit_gy": config.dose.limit_gy,
        "dose_model": config.dose.model,
    }


def spot_chooser(
    config: ExperimentConfig,
    guard: DoseGuard,
    travel_um: tuple[tuple[float, float], tuple[float, float]] = (ANYWHERE_UM, ANYWHERE_UM),
) -> SpotChooser:
    """Return the function that finds the nearest fresh spot of the sample.

    Parameters
    ----------
    travel_um
        Limits of the stage in x and in y, um; a motor record with equal limits has none.
    """
    width_um, height_um = config.sample.size_um
    (x0, x1), (y0, y1) = (limits if limits[0] < limits[1] else ANYWHERE_UM for limits in travel_um)

    def choose(x_um: float, y_um: float) -> tuple[float, float] | None:
        return dose.next_spot(
            guard.account,
            (x_um, y_um),
            footprint_um=guard.account.beam.footprint_um,
            guard_um=config.dose.guard_um + dose.POSITION_SIGMAS * guard.position().sigma_um,
            bounds_um=(-width_um / 2, width_um / 2, -height_um / 2, height_um / 2),
            stage_limits_um=(x0, x1, y0, y1),
            step_um=SPOT_STEP_UM,
            offsets_um=config.plan.fields_um,
            drift_um=guard.drift_um(),
            forbidden_um=config.sample.forbidden_um,
        )

    return choose


def examine_place(
    config: ExperimentConfig,
    guard: DoseGuard,
    travel_um: tuple[tuple[float, float], tuple[float, float]],
    place_um: tuple[float, float],
) -> dose.Proposal:
    """Return what it would mean to go on at `place_um`, sample coordinate (x, y), um; `travel_um` as in `spot_chooser`."""
    width_um, height_um = config.sample.size_um
    (x0, x1), (y0, y1) = (limits if limits[0] < limits[1] else ANYWHERE_UM for limits in travel_um)
    return dose.propose(
        guard.account,
        place_um,
        bounds_um=(-width_um / 2, width_um / 2, -height_um / 2, height_um / 2),
        stage_limits_um=(x0, x1, y0, y1),
        offsets_um=config.plan.fields_um,
        forbidden_um=config.sample.forbidden_um,
        drift_um=guard.drift_um(),
    )


def timed_step(step: ProtocolStep) -> TimedStep:
    """Return a step of the protocol as the plans want it."""
    return TimedStep(
        PotentiostatStep(
            mode=step.mode,
            c_rate_per_h=(-1 if step.discharge else 1) * step.c_rate_per_h if step.c_rate_per_h is not None else None,
            hold_v=step.hold_v,
            cutoff_high_v=step.cutoff_high_v,
            cutoff_low_v=step.cutoff_low_v,
        ),
        step.duration_s,
    )
