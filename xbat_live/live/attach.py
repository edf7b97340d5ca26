"""Ties a `LiveFeed` to an acquisition."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from xbat_live.live.facts import describe
from xbat_live.live.feed import LiveFeed
from xbat_live.live.instruments import Disk, Machine, draw_map
from xbat_live.live.previews import FrameView

if TYPE_CHECKING:
    from xbat_live.archive import ArchiveWriter
    from xbat_live.callbacks import JudgedFrame
    from xbat_live.config import ExperimentConfig
    from xbat_live.devices import TxmBeamline
    from xbat_live.devices.dose_monitor import DoseMonitor
    from xbat_live.dose import DoseAccount


def frame_shower(feed: LiveFeed, config: ExperimentConfig) -> Callable[[JudgedFrame], None]:
    """Return what `FrameAnalysis` calls with every judged frame."""
    pixel_size_um = config.optical.pixel_size_um if config.uses_microscope else config.camera.pixel_size_um

    def show(shown: JudgedFrame) -> None:
        data, verdict = shown.event["data"], shown.judged.verdict
        feed.frame(
            FrameView(
                shown.frame,
                shown.key,
                pixel_size_um,
                flat=shown.flat,
                dark=shown.dark,
                shift_yx_px=verdict.shift_yx_px if verdict.located else None,
                accepted=verdict.accepted,
                facts={
                    "n": shown.judged.seq_num,
                    "t": shown.event["time"],
                    "verdict": verdict.kind,
                    "accepted": verdict.accepted,
                    "reason": verdict.reason,
                    "spot": data.get("point_spot"),
                    "field": data.get("point_field"),
                    "energy_ev": data.get("mono_energy"),
                    "exposure_s": data.get("point_exposure_s"),
                    "dose_gy": data.get("point_dose_gy"),
                    "added_gy": data.get("point_dose_delivered_gy"),
                    "transmission": verdict.transmission,
                },
            )
        )

    return show


def attach(
    feed: LiveFeed,
    config: ExperimentConfig,
    beamline: TxmBeamline,
    account: DoseAccount,
    *,
    monitor: DoseMonitor,
    archive: ArchiveWriter | None,
    stack: ExitStack,
) -> None:
    """Let `feed` show beamline, dose map and plumbing until `stack` closes."""
    machine = Machine(
        {
            "shutter": beamline.shutter.status,
            "ring_ma": beamline.ring.current_ma,
            "transmission": beamline.attenuator.transmission,
            "stage_x_um": beamline.stage.x.user_readback,
            "stage_y_um": beamline.stage.y.user_readback,
            "energy_ev": beamline.mono.energy.user_readback,
        }
    )
    stack.enter_context(machine.watching())
    disk = Disk(config.path(config.camera.directory))

    def instruments() -> dict[str, Any]:
        flux = monitor.flux_now()
        return {**machine.values(), "flux_ph_s": flux.flux_ph_s, "flux_degraded": flux.degraded}

    def plumbing() -> dict[str, Any]:
        backlog = None if archive is None else archive.backlog
        return {
            "archive_backlog": backlog,
            "archive_error": None if archive is None else archive.last_error,
            **disk.state(),
        }

    feed.show(experiment=describe(config))
    feed.watch("machine", instruments)
    feed.watch("stores", plumbing)
    if not config.uses_microscope:
        feed.watch_map(lambda: draw_map(account))
