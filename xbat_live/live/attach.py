"""Ties a `LiveFeed` to an acquisition."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from xbat_live.live.edges import half_height
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

    spectra = SpectrumShower(feed, len(config.plan.energies_ev)) if len(config.plan.energies_ev) > 1 else None

    def show(shown: JudgedFrame) -> None:
        data, verdict = shown.event["data"], shown.judged.verdict
        if spectra is not None and verdict.accepted:
            spectra.add(data, verdict.transmission)
        feed.show(blur_limit_px=verdict.blur_limit_px or None)
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


class SpectrumShower:
    """Shows the absorbance of accepted frames against energy, and the edge of every spectrum as soon as it is complete.

    Parameters
    ----------
    n_energies
        Energies of a complete spectrum.
    """

    def __init__(self, feed: LiveFeed, n_energies: int) -> None:
        self._feed, self._n_energies = feed, n_energies
        self._scan: tuple[float, float] | None = None
        self._spectrum: dict[float, list[float]] = {}

    def add(self, data: dict[str, Any], transmission: float) -> None:
        """Take a frame's Event data and mean transmission."""
        if not transmission > 0:
            return
        scan = (float(data.get("point_index", 0)), float(data.get("point_spot", 0)))
        if scan != self._scan:
            self._scan, self._spectrum = scan, {}
        energy_ev, absorbance = float(data["mono_energy"]), -math.log(transmission)
        values = self._spectrum.setdefault(round(energy_ev, 1), [])
        values.append(absorbance)
        name = f"{scan[0]:g}/{scan[1]:g}"
        self._feed.append("xanes", {"scan": name, "energy_ev": energy_ev, "absorbance": absorbance})
        if len(self._spectrum) == self._n_energies and len(values) == 1:
            self._tell_edge(data)

    def _tell_edge(self, data: dict[str, Any]) -> None:
        edge = half_height(list(self._spectrum), [sum(values) / len(values) for values in self._spectrum.values()])
        if edge is not None:
            place = {"soc": data.get("potentiostat_soc"), "dose_gy": data.get("point_dose_gy")}
            self._feed.append("edges", vars(edge) | place)


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
