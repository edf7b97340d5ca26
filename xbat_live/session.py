"""From a configuration to a running acquisition: devices, dose account, live analysis, archive and RunEngine put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky.utils import MsgGenerator

from xbat_live import dose
from xbat_live.archive import ArchiveWriter
from xbat_live.callbacks import DoseBackstop, DriftTracker, FrameAnalysis, RunProgress
from xbat_live.config import ConfigError, ExperimentConfig, ProtocolStep
from xbat_live.devices import (
    DevicePrefixes,
    PotentiostatStep,
    Roi,
    TxmBeamline,
    build_beamline,
    configure_channel_access,
    set_default_timeouts,
    wait_for_connection,
)
from xbat_live.imaging import DriftModel, FramePipeline
from xbat_live.plans import (
    DoseGuard,
    DriftPolicy,
    FluxCalibration,
    SeriesSummary,
    SpotChooser,
    TimedStep,
    operando_txm_series,
    xanes_series,
)

logger = logging.getLogger(__name__)

SPOT_STEP_UM = 5.0
DRAIN_S = 60.0


@dataclass
class Session:
    """An acquisition ready to run."""

    config: ExperimentConfig
    beamline: TxmBeamline
    guard: DoseGuard
    analysis: FrameAnalysis
    run_engine: RunEngine
    archive: ArchiveWriter | None

    def plan(self) -> MsgGenerator[SeriesSummary]:
        """Return the configured plan, with the camera told what frames to take."""
        config, plan = self.config, self.config.plan
        roi = None if config.camera.roi is None else Roi(*config.camera.roi)
        self.beamline.camera.prepare_frames(exposure_s=config.camera.exposure_s, roi=roi)
        common: dict[str, Any] = {
            "n_points": plan.n_points,
            "period_s": plan.period_s,
            "duration_s": plan.duration_s,
            "exposure_s": config.camera.exposure_s,
            "spot_um": plan.spot_um,
            "fields_um": plan.fields_um,
            "reference_um": plan.reference_um,
            "n_flats": plan.n_flats,
            "n_darks": plan.n_darks,
            "max_retakes": plan.max_retakes,
            "policy": config.dose.policy,
            "drift": DriftPolicy(enabled=plan.correct_drift),
            "protocol": tuple(_timed_step(step) for step in config.protocol),
            "md": self.metadata(),
        }
        devices = (self.beamline, self.guard, self.analysis, spot_chooser(config, self.guard, self.beamline))
        if plan.name == "xanes_series":
            return xanes_series(*devices, energies_ev=plan.energies_ev, **common)
        return operando_txm_series(*devices, flat_ttl_s=plan.flat_ttl_s, **common)

    def metadata(self) -> dict[str, Any]:
        """Return what the start document says about sample and operator."""
        sample = self.config.sample
        return {
            "sample": sample.name,
            "cell": sample.cell,
            "edge": sample.edge,
            "material": sample.material,
            "operator": self.config.operator,
            "pixel_size_um": self.config.camera.pixel_size_um,
            "dose_limit_gy": self.config.dose.limit_gy,
            "dose_model": self.config.dose.model,
        }


@contextmanager
def open_session(
    config: ExperimentConfig, *, progress: RunProgress | None = None, tell: Callable[[str], None] = logger.warning
) -> Iterator[Session]:
    """Connect to the beamline, open the sample's ledger and put the RunEngine together.

    The shutter is told to close on entry and on exit. On exit the archive is drained.

    Parameters
    ----------
    progress
        Subscribed to the documents.
    tell
        Gets a line when documents did not reach the archive, with the remedy.

    Raises
    ------
    BeamlineConnectionError
        Naming each PV that did not answer.
    LedgerLocked
        When another process writes this sample's ledger.
    """
    with ExitStack() as stack:
        stack.callback(leave_channel_access)
        beamline = connect(config)
        beamline.shutter.close_now()
        account = stack.enter_context(open_account(config))
        tracker = DriftTracker(config.camera.pixel_size_um, model=drift_model(config))
        analysis = FrameAnalysis(
            partial(
                FramePipeline,
                pixel_size_um=config.camera.pixel_size_um,
                dark_offset=config.camera.dark_offset_counts,
            ),
            tracker,
            dose_limit_gy=config.dose.limit_gy,
        )
        stack.callback(analysis.close)
        guard = DoseGuard(
            account,
            FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na),
            open_time_margin_s=config.dose.open_time_margin_s,
            outline_um=config.sample.size_um,
            drift_um=lambda: analysis.drift_um,
        )
        stack.callback(guard.executor.shutdown)
        # Signals are handled by the caller: bluesky's own handler only pauses and leaves the question what then.
        run_engine = RunEngine({}, context_managers=[], call_returns_result=True)
        run_engine.subscribe(lambda name, doc: setattr(guard, "run_uid", doc["uid"]), "start")
        run_engine.subscribe(DoseBackstop(beamline.shutter.close_now, limit_gy=config.dose.limit_gy))
        run_engine.subscribe(analysis)
        if progress is not None:
            run_engine.subscribe(progress)
        archive = open_archive(config, stack, tell)
        if archive is not None:
            run_engine.subscribe(archive)
        stack.callback(beamline.shutter.close_now)
        yield Session(config, beamline, guard, analysis, run_engine, archive)


def drift_model(config: ExperimentConfig) -> DriftModel:
    """Return the drift filter with its time constants in points of the series, so that a fast series is followed as well.

    At Sun's cadence (15 min) these are the filter's own defaults: a drift of some tenths of a micrometre per point that changes
    by a hundredth of a micrometre from point to point.
    """
    plan = config.plan
    cadence_min = max(plan.period_s / 60 / max(len(plan.energies_ev), 1), 1 / 60)
    return DriftModel(rate_um_per_min=0.3 / cadence_min, rate_walk_um_per_min=0.0116 / cadence_min**1.5)


def connect(config: ExperimentConfig) -> TxmBeamline:
    """Return the connected devices; see `open_session` for the errors."""
    beamline = make_beamline(config)
    wait_for_connection(beamline, timeout_s=config.beamline.connection_timeout_s)
    return beamline


def leave_channel_access() -> None:
    """Disconnect all PVs, so that IOCs may end before this process without libca complaining on the terminal."""
    from epics import ca

    ca.finalize_libca()


def make_beamline(config: ExperimentConfig) -> TxmBeamline:
    """Return the devices without waiting for their PVs."""
    configure_channel_access(config.beamline.channel_access.environment())
    set_default_timeouts()
    prefixes = DevicePrefixes.from_prefix(config.beamline.prefix, **config.beamline.device_prefixes)
    return build_beamline(prefixes, frame_directory=config.path(config.camera.directory))


@contextmanager
def open_account(config: ExperimentConfig) -> Iterator[dose.DoseAccount]:
    """Open the sample's ledger for writing and return its account."""
    directory = config.path(config.dose.ledger_directory)
    with dose.Ledger.for_sample(directory, config.sample.name) as ledger:
        yield make_account(config, ledger)


def make_account(config: ExperimentConfig, ledger: dose.Ledger) -> dose.DoseAccount:
    """Return the dose account that `config` describes, on `ledger`."""
    sample, section = config.sample, config.dose
    limit = dose.DoseLimit(name="dose limit", material=sample.material, limit_gy=section.limit_gy, model=section.model)
    limits = [limit]
    if section.rate_limit_gy_s is not None:
        limits.append(
            dose.DoseLimit(
                name="dose rate limit", material=sample.material, rate_gy_s=section.rate_limit_gy_s, model=section.model
            )
        )
    try:
        return dose.DoseAccount(
            ledger,
            stack=dose.presets.cell(sample.cell),
            beam=make_beam(config),
            limits=tuple(limits),
            layer=sample.layer,
            material=sample.material,
            model=section.model,
            sigma_rel=section.sigma,
            k_sigma=section.k_sigma,
            outline_um=sample.size_um,
        )
    except ValueError as error:
        raise ConfigError(f"sample, beam or dose section: {error}") from error


def make_beam(config: ExperimentConfig) -> dose.Beam:
    """Return the beam that `config` describes."""
    beam = config.beam
    if beam.profile == "top_hat":
        return dose.Beam.top_hat(beam.flux_ph_s, size_um=beam.size_um)
    return dose.Beam.gaussian(beam.flux_ph_s, fwhm_um=beam.size_um, order=beam.order)


def spot_chooser(config: ExperimentConfig, guard: DoseGuard, beamline: TxmBeamline) -> SpotChooser:
    """Return the function that finds the nearest fresh spot of the sample."""
    width_um, height_um = config.sample.size_um
    limits_um = [_travel_um(motor.limits) for motor in (beamline.stage.x, beamline.stage.y)]

    def choose(x_um: float, y_um: float) -> tuple[float, float] | None:
        return dose.next_spot(
            guard.account,
            (x_um, y_um),
            footprint_um=guard.account.beam.footprint_um,
            guard_um=config.dose.guard_um,
            bounds_um=(-width_um / 2, width_um / 2, -height_um / 2, height_um / 2),
            stage_limits_um=(*limits_um[0], *limits_um[1]),
            step_um=SPOT_STEP_UM,
            offsets_um=config.plan.fields_um,
            drift_um=guard.drift_um(),
        )

    return choose


def _travel_um(limits: tuple[float, float]) -> tuple[float, float]:
    """Return a motor's limits, um; a motor record with equal limits has none."""
    low_um, high_um = limits
    return (low_um, high_um) if low_um < high_um else (-1e6, 1e6)


def open_archive(config: ExperimentConfig, stack: ExitStack, tell: Callable[[str], None]) -> ArchiveWriter | None:
    """Return the writer to Tiled, drained when `stack` closes; None when the configuration has no server."""
    section = config.archive
    if not section.enabled or section.uri is None:
        return None
    directory = config.path(section.directory)
    writer = ArchiveWriter(section.uri, section.api_key, backup_directory=directory / "backup")
    stack.callback(_drain, writer, directory, tell)
    return writer


def _drain(writer: ArchiveWriter, directory: Path, tell: Callable[[str], None]) -> None:
    report = writer.close(timeout_s=DRAIN_S)
    if report.complete:
        return
    trouble = f" ({report.last_error})" if report.last_error else ""
    if report.runs_in_backup:
        tell(
            f"{report.backlog} documents are not in Tiled yet{trouble}; they are safe in the backup: xbat archive repair {directory}"
        )
    if report.unreadable:
        tell(f"Tiled cannot read the frames of {', '.join(report.unreadable)}{trouble}")
    if report.lost:
        tell(f"{report.lost} documents could not even be written to the backup{trouble}")


def _timed_step(step: ProtocolStep) -> TimedStep:
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
