"""From a configuration to a running acquisition: devices, dose account, live analysis, archive and RunEngine put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bluesky import RunEngine
from bluesky.utils import MsgGenerator
from numpy.typing import NDArray

from xbat_live.archive import ArchiveWriter
from xbat_live.archive.dose_maps import KIND as DOSE_KIND
from xbat_live.archive.dose_maps import dose_arrays
from xbat_live.callbacks import (
    DoseBackstop,
    DriftTracker,
    FrameAnalysis,
    FrameReader,
    JudgedFrame,
    Landmarks,
    RunProgress,
)
from xbat_live.callbacks.analysis import OPTICAL_KEYS
from xbat_live.config import CameraSection, ExperimentConfig, OpticalSection, recorded_config
from xbat_live.devices import (
    DevicePrefixes,
    Roi,
    TxmBeamline,
    build_beamline,
    configure_channel_access,
    set_default_timeouts,
    wait_for_connection,
)
from xbat_live.devices.beamline import OPTICAL_SUFFIX
from xbat_live.devices.dose_monitor import DoseMonitor
from xbat_live.dose import DoseAccount, Proposal
from xbat_live.dose.position import CarriedPosition
from xbat_live.dose_setup import OWN_LIMIT, open_account
from xbat_live.engine import make_run_engine
from xbat_live.imaging import DriftModel, FramePipeline
from xbat_live.live.attach import attach, frame_shower
from xbat_live.live.facts import limits_shown
from xbat_live.live.feed import LiveFeed
from xbat_live.live.xas_maps import XasMaps
from xbat_live.plan_setup import examine_place, make_plan, spot_chooser
from xbat_live.plans import (
    DoseGuard,
    FluxCalibration,
    SeriesSummary,
    Steering,
    steering_wrapper,
)

if TYPE_CHECKING:
    from xbat_live.callbacks.xas import XasAnalysis

logger = logging.getLogger(__name__)

DRAIN_S = 60.0
STARTING_S = 25.0


@dataclass
class Session:
    """An acquisition ready to run."""

    config: ExperimentConfig
    beamline: TxmBeamline
    guard: DoseGuard
    analysis: FrameAnalysis | XasAnalysis
    run_engine: RunEngine
    steering: Steering
    backstop: DoseBackstop
    archive: ArchiveWriter | None
    feed: LiveFeed | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """More for the start document."""

    def plan(self) -> MsgGenerator[SeriesSummary]:
        """Return the configured plan, which `steering` steers, with the camera told what frames to take."""
        config, beamline = self.config, self.beamline
        section, camera = (
            (config.optical, beamline.optical) if config.uses_microscope else (config.camera, beamline.camera)
        )
        assert camera is not None  # `make_beamline` made the one that is used
        camera.prepare_frames(exposure_s=section.exposure_s, roi=None if section.roi is None else Roi(*section.roi))
        choose = self.guard.choose_spot
        assert choose is not None  # `open_session` gave it one
        metadata = {"config": recorded_config(config), **self.metadata}
        plan = make_plan(config, beamline, self.guard, self.analysis, choose, md=metadata)
        return steering_wrapper(plan, self.steering)

    def change_limit(self, name: str, value: float, note: str) -> None:
        """Change a dose limit for the rest of the run, everywhere it is looked at; from any thread but the RunEngine's.

        Raises
        ------
        ValueError
            No such limit, or an impossible value.
        LedgerError
            The ledger cannot be written; a tighter limit holds nevertheless.
        """
        try:
            self.guard.change_limit(name, value, note)
        finally:
            now = {limit.name: limit.value for limit in self.guard.account.limits}
            self.analysis.dose_limit_gy = now[OWN_LIMIT]
            self.backstop.change(now[OWN_LIMIT])
            if self.feed is not None:
                self.feed.update("experiment", **limits_shown(self.guard.account.limits))

    def examine(self, x_um: float, y_um: float) -> Proposal:
        """Return what going on at sample coordinate (x, y), um, would mean; from any thread."""
        stage = self.beamline.stage
        return examine_place(self.config, self.guard, (stage.x.limits, stage.y.limits), (x_um, y_um))


@contextmanager
def open_session(
    config: ExperimentConfig,
    *,
    progress: RunProgress | None = None,
    feed: LiveFeed | None = None,
    tell: Callable[[str], None] = logger.warning,
) -> Iterator[Session]:
    """Connect to the beamline, open the sample's ledger and put the RunEngine together.

    The shutter is told to close on entry and on exit. On exit the archive is drained.

    Parameters
    ----------
    progress
        Subscribed to the documents.
    feed
        Shown to those who watch; gets the documents, frames, the beamline and the dose map.
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
        analysis: FrameAnalysis | XasAnalysis
        if config.sweeps:
            from xbat_live.sweep_setup import make_xas_analysis

            analysis = make_xas_analysis(config)
        else:
            show = None if feed is None else frame_shower(feed, config)
            views = None if config.uses_microscope else landmarks_of(config)
            analysis = make_analysis(config, account.carried, show=show, landmarks=views)
        stack.callback(analysis.close)
        calibration = FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na)
        monitor = stack.enter_context(
            DoseMonitor(beamline, calibration, ring_reference_ma=config.beam.ring_reference_ma)
        )
        guard = DoseGuard(
            account,
            calibration,
            open_time_margin_s=config.dose.open_time_margin_s,
            lead_time_s=config.dose.lead_time_s,
            outline_um=config.sample.size_um,
            position=lambda: analysis.position,
            beamline=beamline,
            monitor=monitor,
            policy=config.dose.policy,
        )
        guard.choose_spot = spot_chooser(config, guard, (beamline.stage.x.limits, beamline.stage.y.limits))
        stack.callback(guard.executor.shutdown)
        run_engine = make_run_engine()
        run_engine.subscribe(lambda name, doc: setattr(guard, "run_uid", doc["uid"]), "start")
        backstop = DoseBackstop(beamline.shutter.close_now, limit_gy=config.dose.limit_gy)
        run_engine.subscribe(backstop)
        run_engine.subscribe(analysis)
        if progress is not None:
            run_engine.subscribe(progress)
        archive = open_archive(config, stack, tell)
        if archive is not None:
            run_engine.subscribe(archive)
            uids: list[str] = []
            run_engine.subscribe(lambda name, doc: uids.append(doc["uid"]), "start")
            stack.callback(keep_dose_map, archive, account, uids, tell)
        if feed is not None:
            run_engine.subscribe(feed)
            if config.sweeps:
                maps = XasMaps(feed)
                run_engine.subscribe(maps)
                stack.callback(maps.close)
            attach(feed, config, beamline, account, monitor=monitor, archive=archive, stack=stack)
        stack.callback(beamline.shutter.close_now)
        steering = Steering(
            hold_beam=beamline.shutter.pause,
            release_beam=beamline.shutter.resume,
            abort=lambda reason: run_engine.abort(reason=reason),
        )
        if feed is not None:
            feed.watch("steering", lambda: {"phase": str(steering.phase)})
        yield Session(config, beamline, guard, analysis, run_engine, steering, backstop, archive, feed)


def make_analysis(
    config: ExperimentConfig,
    carried: CarriedPosition | None = None,
    *,
    show: Callable[[JudgedFrame], object] | None = None,
    reader: FrameReader | None = None,
    landmarks: Landmarks | None = None,
) -> FrameAnalysis:
    """Return the live analysis of the camera that the plan uses, on the sample where the last run left it (`carried`).

    `show` gets every judged frame, `reader` reads them, `landmarks` are looked up and kept.
    """
    section: CameraSection | OpticalSection = config.optical if config.uses_microscope else config.camera
    if carried is not None and landmarks is not None and landmarks.camera_was_turned:
        logger.warning("camera.image_to_stage is another one than in the last run: its drift is not carried on")
        carried = carried.doubted()
    return FrameAnalysis(
        partial(FramePipeline, pixel_size_um=section.pixel_size_um, dark_offset=section.dark_offset_counts),
        DriftTracker(
            section.pixel_size_um,
            image_to_stage=image_to_stage_yx(config),
            model=drift_model(config),
            carried=None if config.uses_microscope else carried,
        ),
        dose_limit_gy=config.dose.limit_gy,
        keys=OPTICAL_KEYS if config.uses_microscope else None,
        show=show,
        reader=reader,
        landmarks=landmarks,
    )


def landmarks_of(config: ExperimentConfig) -> Landmarks:
    """Return what earlier runs have seen of the sample; it lies beside the ledger."""
    folder = config.path(config.dose.ledger_directory) / f"{config.sample.name}.views"
    return Landmarks(folder, config.camera.pixel_size_um, image_to_stage_yx(config))


def image_to_stage_yx(config: ExperimentConfig) -> NDArray[np.float64]:
    """Return the matrix from image (y, x) to stage (y, x) axes, shape (2, 2); the microscope is taken as upright."""
    if config.uses_microscope:
        return np.eye(2)
    return np.array(config.camera.image_to_stage, float)[::-1, ::-1]


def drift_model(config: ExperimentConfig) -> DriftModel:
    """Return the drift filter with its time constants in points of the series, so that a fast series is followed as well.

    At Sun's cadence (15 min) these are the filter's own defaults: a drift of some tenths of a micrometre per point that changes
    by a hundredth of a micrometre from point to point.
    """
    plan = config.plan
    cadence_min = max(plan.period_s / 60 / max(len(plan.visited_ev), 1), 1 / 60)
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
    prefixes: dict[str, str] = {str(device): prefix for device, prefix in config.beamline.device_prefixes.items()}
    if config.uses_microscope:
        prefixes.setdefault("optical", config.beamline.prefix + OPTICAL_SUFFIX)
    return build_beamline(
        DevicePrefixes.from_prefix(config.beamline.prefix, **prefixes),
        frame_directory=config.path(config.camera.directory),
        optical_directory=config.optical_directory,
    )


def open_archive(config: ExperimentConfig, stack: ExitStack, tell: Callable[[str], None]) -> ArchiveWriter | None:
    """Return the writer to Tiled, drained when `stack` closes; None when the configuration has no server."""
    section = config.archive
    if not section.enabled or section.uri is None:
        return None
    directory = config.path(section.directory)
    writer = ArchiveWriter(section.uri, section.api_key, backup_directory=directory / "backup")
    stack.callback(_drain, writer, directory, tell)
    return writer


def keep_dose_map(
    writer: ArchiveWriter, account: DoseAccount, run_uids: list[str], tell: Callable[[str], None]
) -> None:
    """Store what the sample has got by now beside the runs of this session, for those who have no access to the ledger."""
    arrays, metadata = dose_arrays(account)
    if not arrays:
        return
    for uid in run_uids:
        try:
            writer.keep(uid, DOSE_KIND, arrays, metadata)
        except OSError as error:
            tell(f"the dose map of run {uid[:8]} is not in the archive: {error}; it is in the ledger: xbat dose export")


def _drain(writer: ArchiveWriter, directory: Path, tell: Callable[[str], None]) -> None:
    report = writer.close(timeout_s=DRAIN_S, patience_s=STARTING_S)
    if report.complete:
        return
    trouble = f" ({report.last_error})" if report.last_error else ""
    if report.runs_in_backup:
        tell(
            f"{report.backlog} documents are not in Tiled yet{trouble}; they are safe in the backup: xbat archive repair {directory}"
        )
    if report.unreadable:
        tell(f"Tiled cannot read the frames of {', '.join(report.unreadable)}{trouble}")
    if report.analyses_in_backup and not report.runs_in_backup:
        tell(f"{', '.join(report.analyses_in_backup)} not in Tiled yet{trouble}: xbat archive repair {directory}")
    if report.lost:
        tell(f"{report.lost} documents could not even be written to the backup{trouble}")
