"""The dose guard: no photon without a durable reservation, whatever the plan."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator, short_uid

from xbat_live.devices import TxmBeamline
from xbat_live.dose import DoseAccount, DoseRefused, ExposureRequest, Reservation, Settlement
from xbat_live.plans._blocking import call_in

logger = logging.getLogger(__name__)

POLL_S = 0.004
PLAUSIBLE = 0.2
_GROUP = "guarded-exposure"
DARK_GROUP = "dark-exposure"


class ExposureFailed(RuntimeError):
    """The exposure did not end as it should; the shutter was closed and the dose is accounted for."""


@dataclass(frozen=True)
class FluxCalibration:
    """Photons per second for a reading of the ion chamber.

    Attributes
    ----------
    flux_ph_s
        Flux before the cell when the chamber reads `i0_reference_na`, photons/s.
    i0_reference_na
        That reading, nA.
    """

    flux_ph_s: float
    i0_reference_na: float

    def flux(self, i0_na: float) -> float:
        """Return the flux in photons/s for a chamber current in nA; never negative."""
        return max(self.flux_ph_s * i0_na / self.i0_reference_na, 0.0)


@dataclass(frozen=True)
class Delivery:
    """What one opening of the shutter gave.

    Attributes
    ----------
    open_time_s
        Shutter-open time by the shutter's own counter, s.
    settlement
        The ledger's answer.
    reservation
        What had been reserved.
    """

    open_time_s: float
    settlement: Settlement
    reservation: Reservation


@dataclass
class DoseGuard:
    """Everything a plan needs to open the beam: the account, the flux, the sample's drift.

    Attributes
    ----------
    account
        Ledger, map and limits of the sample.
    calibration
        Ion chamber to flux.
    open_time_margin_s
        Shutter-open time reserved beyond the exposure (latencies); the shutter's own watchdog is set to the sum, so what is
        reserved cannot be exceeded even when this process dies, s.
    outline_um
        Size (x, y) of the sample, centred on sample coordinate (0, 0), um.
    drift_um
        Returns the registered drift (x, y), um.
    flux_headroom
        Factor on the flux at reservation for what it may rise by during the exposure (top-up).
    """

    account: DoseAccount
    calibration: FluxCalibration
    open_time_margin_s: float = 0.25
    outline_um: tuple[float, float] = (200.0, 200.0)
    drift_um: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)
    flux_headroom: float = 1.02
    run_uid: str = ""
    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="dose-ledger"))
    _counted_s: float | None = None
    _highest_ph_s: float = 0.0
    _last_on_sample: ExposureRequest | None = None

    @property
    def lowest_limit_gy(self) -> float:
        """The lowest dose limit of the account, Gy; NaN when there is none."""
        limit_gy = self.account.lowest_limit_gy
        return math.nan if limit_gy is None else limit_gy

    def describe(self) -> dict[str, Any]:
        """Return model, stack, limits and beam for a run's metadata."""
        return {
            **self.account.summary(),
            "flux_ph_s": self.calibration.flux_ph_s,
            "i0_reference_na": self.calibration.i0_reference_na,
            "open_time_margin_s": self.open_time_margin_s,
        }

    def request(self, beamline: TxmBeamline, *, exposure_s: float, label: str = "") -> MsgGenerator[ExposureRequest]:
        """Plan stub: describe an exposure here and now, in sample coordinates."""
        stage_x = yield from bps.rd(beamline.stage.x.user_readback)
        stage_y = yield from bps.rd(beamline.stage.y.user_readback)
        energy_ev = yield from bps.rd(beamline.mono.energy.user_readback)
        flux_ph_s = yield from self.flux(beamline)
        drift_x, drift_y = self.drift_um()
        x_um, y_um = float(stage_x) - drift_x, float(stage_y) - drift_y
        return ExposureRequest(
            x_um=x_um,
            y_um=y_um,
            energy_ev=float(energy_ev),
            open_time_s=exposure_s + self.open_time_margin_s,
            flux_ph_s=flux_ph_s * self.flux_headroom,
            run_uid=self.run_uid,
            label=label,
            on_sample=self.touches_sample(x_um, y_um),
        )

    def flux(self, beamline: TxmBeamline) -> MsgGenerator[float]:
        """Plan stub: return the flux on the sample, photons/s, by the ion chamber; never by a chamber that seems dead.

        A reading below `PLAUSIBLE` of what the attenuator lets through of the calibrated flux, or of the highest seen, is not
        believed: the beam may come back while the shutter is open, so the higher value is counted.
        """
        i0_na = float((yield from bps.rd(beamline.i0.current_na)))
        transmission = float((yield from bps.rd(beamline.attenuator.transmission)))
        flux_ph_s = self.calibration.flux(i0_na)
        if transmission > 0:
            self._highest_ph_s = max(self._highest_ph_s, flux_ph_s / transmission)
        expected_ph_s = max(self._highest_ph_s, self.calibration.flux_ph_s) * transmission
        if flux_ph_s >= PLAUSIBLE * expected_ph_s:
            return flux_ph_s
        logger.warning(
            "ion chamber reads %.3g nA, that is %.3g ph/s where %.3g ph/s are expected; the dose is counted with the latter",
            i0_na,
            flux_ph_s,
            expected_ph_s,
        )
        return expected_ph_s

    def touches_sample(self, x_um: float, y_um: float) -> bool:
        """Return True when the beam's footprint, centred on sample coordinate (x, y), um, meets the sample."""
        footprint = self.account.beam.footprint_um
        return all(
            abs(centre) <= (size + width) / 2 for centre, size, width in zip((x_um, y_um), self.outline_um, footprint, strict=True)
        )

    def reserve(self, beamline: TxmBeamline, request: ExposureRequest) -> MsgGenerator[Reservation]:
        """Plan stub: write the reservation to disk; returns only when it is there.

        Raises
        ------
        DoseRefused
            When a limit would be exceeded. The shutter has not moved.
        """
        counter_s = float((yield from bps.rd(beamline.shutter.open_time_s)))
        if self._counted_s is not None and counter_s > self._counted_s + 1e-4:
            yield from self._count_stray(request, counter_s - self._counted_s)
        self._counted_s = counter_s
        reservation: Reservation = yield from call_in(self.executor, self.account.reserve, request)
        if request.on_sample:
            self._last_on_sample = request
        return reservation

    def _count_stray(self, request: ExposureRequest, open_time_s: float) -> MsgGenerator[None]:
        """Count an opening that no exposure asked for.

        Where the stage was meanwhile is not known, so it counts in full where the sample was exposed last and, if that is
        another place of the sample, here.
        """
        last = self._last_on_sample
        places = [request] if last is None else [last]
        if last is not None and request.on_sample and (request.x_um, request.y_um) != (last.x_um, last.y_um):
            places.append(request)
        for place in places:
            logger.warning(
                "the shutter was open for %.3f s outside any exposure; counted at sample (%.1f, %.1f) um",
                open_time_s,
                place.x_um,
                place.y_um,
            )
            stray = replace(
                request,
                x_um=place.x_um,
                y_um=place.y_um,
                on_sample=place.on_sample,
                open_time_s=open_time_s,
                label="unreserved",
            )
            yield from call_in(self.executor, self.account.record_unreserved, stray, "shutter open outside any exposure")

    def settle(self, beamline: TxmBeamline, reservation: Reservation) -> MsgGenerator[Settlement]:
        """Plan stub: replace the reservation by what the shutter's counter says was delivered."""
        counter_s = float((yield from bps.rd(beamline.shutter.open_time_s)))
        flux_ph_s = yield from self.flux(beamline)
        # A smaller counter than before means that the IOC was restarted: nothing is known, so the reservation stands.
        before_s = self._counted_s
        known = before_s is not None and counter_s >= before_s
        open_time_s = counter_s - before_s if known and before_s is not None else reservation.request.open_time_s
        self._counted_s = counter_s
        settlement: Settlement = yield from call_in(
            self.executor,
            self.account.settle,
            reservation.id,
            open_time_s=open_time_s,
            flux_ph_s=max(flux_ph_s, reservation.request.flux_ph_s / self.flux_headroom),
        )
        return settlement


def close_shutter(beamline: TxmBeamline) -> MsgGenerator[None]:
    """Plan stub: close the shutter and wait until it says so."""
    yield from bps.abs_set(beamline.shutter, "Closed", wait=True)


def guarded_exposure(beamline: TxmBeamline, guard: DoseGuard, *, exposure_s: float, label: str = "") -> MsgGenerator[Delivery]:
    """Plan stub: reserve, open, expose, close, settle.

    The section is not rewindable: a pause closes the shutter, and after a resume the exposure is not repeated behind the
    ledger's back; the frame comes out underexposed and is judged so.

    Parameters
    ----------
    exposure_s
        Exposure time of the camera, already set there, s.
    label
        Kept in the ledger with the record.

    Raises
    ------
    DoseRefused
        Before the shutter moves, when a limit would be exceeded.
    ExposureFailed
        When the camera does not finish within the reserved time and 5 s.
    """
    request = yield from guard.request(beamline, exposure_s=exposure_s, label=label)
    reservation = yield from guard.reserve(beamline, request)

    def settle() -> MsgGenerator[Settlement]:
        return (yield from guard.settle(beamline, reservation))

    def open_and_trigger() -> MsgGenerator[None]:
        yield from bps.abs_set(beamline.shutter.max_open_s, reservation.request.open_time_s, wait=True)
        yield from bps.abs_set(beamline.shutter, "Open", wait=True)
        yield from _trigger_bounded(beamline, timeout_s=reservation.request.open_time_s + 5.0)

    def close_and_settle_after(error: Exception) -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        logger.error("exposure at (%.2f, %.2f) um failed: %s", request.x_um, request.y_um, error)
        yield from settle()

    exposed = bpp.finalize_wrapper(open_and_trigger(), lambda: close_shutter(beamline))
    yield from bpp.contingency_wrapper(bpp.rewindable_wrapper(exposed, False), except_plan=close_and_settle_after)
    settlement = yield from settle()
    return Delivery(open_time_s=settlement.open_time_s, settlement=settlement, reservation=reservation)


def _trigger_bounded(beamline: TxmBeamline, *, timeout_s: float) -> MsgGenerator[None]:
    """Trigger the camera and wait in short steps, so that a pause or a stop acts within `POLL_S` seconds.

    The shutter closes as soon as the camera has left the state ``Acquire``: reading out and writing the frame needs no photons. A
    camera that shows no such state is closed for when the frame is on disk.
    """
    group = short_uid(_GROUP)
    status = yield from bps.trigger(beamline.camera, group=group)
    waited_s, exposing = 0.0, False
    while True:
        yield from bps.wait(group=group, timeout=POLL_S, error_on_timeout=False)
        if status is None or status.done:  # None: a simulator of plans
            return
        acquiring = (yield from bps.rd(beamline.camera.cam.detector_state)) == "Acquire"
        if exposing and not acquiring:
            yield from close_shutter(beamline)
        exposing = acquiring
        if waited_s > timeout_s:
            yield from bps.stop(beamline.camera)
            raise ExposureFailed(f"camera {beamline.camera.prefix} did not finish within {timeout_s:.1f} s; shutter closed, dose accounted for")
        # wait() returns at once when a pause has dissolved the group, so this sleep keeps the loop from spinning
        yield from bps.sleep(POLL_S / 4)
        waited_s += POLL_S


def dose_guard_wrapper(plan: MsgGenerator, guard: DoseGuard, beamline: TxmBeamline) -> MsgGenerator:
    """Preprocessor: every trigger of the camera in `plan` becomes a guarded exposure, and the shutter ends closed.

    Works for stock plans (``bp.count([camera])``, ``bp.scan``) as well: reserve, open, trigger, close, settle. The darks of
    `take_darks` stay dark, and exposures that are guarded already are left alone.

    Raises
    ------
    DoseRefused
        From within the plan, at the exposure that would exceed a limit.
    """

    def guard_trigger(msg: Msg) -> tuple[MsgGenerator | None, MsgGenerator | None]:
        if msg.command != "trigger" or msg.obj is not beamline.camera or str(msg.kwargs.get("group", "")).startswith((_GROUP, DARK_GROUP)):
            return None, None

        def exposure() -> MsgGenerator:
            exposure_s = float((yield from bps.rd(beamline.camera.cam.acquire_time)))
            yield from guarded_exposure(beamline, guard, exposure_s=exposure_s, label="wrapped")
            return (yield from bps.null())

        return exposure(), None

    return (yield from bpp.finalize_wrapper(bpp.plan_mutator(plan, guard_trigger), lambda: close_shutter(beamline)))


__all__ = [
    "Delivery",
    "DoseGuard",
    "DoseRefused",
    "ExposureFailed",
    "FluxCalibration",
    "close_shutter",
    "dose_guard_wrapper",
    "guarded_exposure",
]
