"""The dose guard: what every exposure is reserved and settled with."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from bluesky.utils import MsgGenerator

from xbat_live.devices import DoseRecord, ShutterHeld, TxmBeamline
from xbat_live.dose import DoseAccount, DoseRefused, ExposureRequest, Reservation, Settlement
from xbat_live.dose.flux_history import PLAUSIBLE, FluxCalibration
from xbat_live.dose.openings import count_open_time
from xbat_live.dose.position import SamplePosition
from xbat_live.plans._blocking import call_in
from xbat_live.plans.bulletin import Bulletin, DoseWarning
from xbat_live.plans.messages import put, read
from xbat_live.plans.openings import take_over
from xbat_live.plans.protocols import FluxMonitor, SpotChooser

logger = logging.getLogger(__name__)

POLICIES = ("halt", "relocate", "rest", "attenuate")
HELD = "held"
_NOISE_S = 1e-4  # of the shutter's counter


@dataclass
class DoseGuard:
    """Everything a plan needs to open the beam: the account, the flux, the sample's drift, and what to do at a limit.

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
    position
        Returns where the sample is: the registered drift and its uncertainty.
    flux_headroom
        Factor on the flux at reservation for what it may rise by during the exposure (top-up).
    beamline
        The devices; plans that are given none use these.
    monitor
        Knows the flux over time; started and stopped by whoever made it. Without one an exposure is settled with the flux read
        after it, or the reserved one when that is higher.
    policy
        What `dose_guard_wrapper` does when an exposure is refused: one of `POLICIES`, or several in the order they are tried.
    choose_spot
        Returns the next fresh sample coordinate (x, y), um, for ``relocate``.
    timed
        Use the timed opening of a shutter that has one: the shutter itself keeps the exposure time.
    timed_margin_s
        What replaces `open_time_margin_s` then, s.
    lead_time_s
        A timed opening lies inside the camera's exposure, which is longer by this, s. It has to cover the time from the camera's
        state ``Acquire`` to the shutter being open: Channel Access, the blades, and whatever a detector needs from saying so to
        really integrating. A frame that lost light because it was too short is marked so, and the lead grows.
    least_flux_fraction
        ``attenuate`` is not worth it below this fraction of the flux that the plan began with.
    signals
        What the account says where the beam is, as a device to be read in any plan. None: not kept up.
    """

    account: DoseAccount
    calibration: FluxCalibration
    open_time_margin_s: float = 0.25
    outline_um: tuple[float, float] = (200.0, 200.0)
    position: Callable[[], SamplePosition] = SamplePosition
    flux_headroom: float = 1.02
    run_uid: str = ""
    executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="dose-ledger")
    )
    beamline: TxmBeamline | None = None
    monitor: FluxMonitor | None = None
    policy: str | Sequence[str] = "halt"
    choose_spot: SpotChooser | None = None
    timed: bool = True
    timed_margin_s: float = 0.01
    lead_time_s: float = 0.06
    least_flux_fraction: float = 0.1
    signals: DoseRecord | None = field(default_factory=DoseRecord)
    windows_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    full_transmission: float | None = None
    counter_stood_still: bool = False
    _counted_s: float | None = None
    _highest_ph_s: float = 0.0
    _last_on_sample: ExposureRequest | None = None

    def __post_init__(self) -> None:
        self.policies()
        self._bulletin = Bulletin(self.account, self.signals)

    def drift_um(self) -> tuple[float, float]:
        """Return the drift (x, y) of the sample now, um."""
        position = self.position()
        return position.drift_x_um, position.drift_y_um

    # -- questions ------------------------------------------------------------------------------------------------------------------

    def policies(self, policy: str | Sequence[str] | None = None) -> tuple[str, ...]:
        """Return `policy`, by default that of the guard, as a tuple.

        Raises
        ------
        ValueError
            One is unknown.
        """
        wanted = self.policy if policy is None else policy
        names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        if not names or (unknown := [name for name in names if name not in POLICIES]):
            raise ValueError(
                f"dose policy {unknown[0] if names else wanted!r} is unknown; known: {', '.join(POLICIES)}"
            )
        return names

    @property
    def lowest_limit_gy(self) -> float:
        """The lowest dose limit of the account, Gy; NaN when there is none."""
        limit_gy = self.account.lowest_limit_gy
        return math.nan if limit_gy is None else limit_gy

    def describe(self) -> dict[str, Any]:
        """Return model, stack, targets, limits, beam and policy for a run's metadata."""
        return {
            **self.account.summary(),
            "targets": [{"layer": target.layer, "material": target.material} for target in self.account.targets],
            "policy": list(self.policies()),
            "flux_ph_s": self.calibration.flux_ph_s,
            "i0_reference_na": self.calibration.i0_reference_na,
            "open_time_margin_s": self.open_time_margin_s,
            "timed_margin_s": self.timed_margin_s,
            "lead_time_s": self.lead_time_s,
            "flux_headroom": self.flux_headroom,
            "flux_monitored": self.monitor is not None,
            "position": asdict(self.position()),
            "timed_opening": self.beamline is not None and self.is_timed(self.beamline),
        }

    def is_timed(self, beamline: TxmBeamline) -> bool:
        """Return True when exposures are made with the shutter's timed opening."""
        # a stand-in for a shutter may answer anything: only True is a yes
        return self.timed and getattr(beamline.shutter, "has_timed_opening", False) is True

    def touches_sample(self, x_um: float, y_um: float) -> bool:
        """Return True when the beam's footprint, centred on sample coordinate (x, y), um, meets the sample."""
        footprint = self.account.beam.footprint_um
        return all(
            abs(centre) <= (size + width) / 2
            for centre, size, width in zip((x_um, y_um), self.outline_um, footprint, strict=True)
        )

    def take_warnings(self) -> tuple[DoseWarning, ...]:
        """Return the warnings since the last call; each limit and level is told once a run."""
        return self._bulletin.take_warnings()

    def change_limit(self, name: str, value: float, note: str) -> None:
        """Change a limit for the rest of the run; blocks until the ledger has it. See `DoseAccount.change_limit`."""
        self.executor.submit(self.account.change_limit, name, value, note, run_uid=self.run_uid).result()
        self._bulletin.forget(name)

    # -- stubs ----------------------------------------------------------------------------------------------------------------------

    def request(
        self,
        beamline: TxmBeamline,
        *,
        exposure_s: float,
        label: str = "",
        spot: int | None = None,
        margin_s: float | None = None,
        energies_ev: tuple[float, ...] = (),
    ) -> MsgGenerator[ExposureRequest]:
        """Plan stub: describe an exposure here and now, in sample coordinates.

        Parameters
        ----------
        exposure_s
            Time the beam is wanted, s.
        label, spot
            Kept in the ledger.
        margin_s
            Open time reserved beyond it, s; None: that of the way exposures are made.
        energies_ev
            Energies that are swept meanwhile, eV; empty: it stays where it is.
        """
        if margin_s is None:
            margin_s = self.timed_margin_s if self.is_timed(beamline) else self.open_time_margin_s
        stage_x = yield from read(beamline.stage.x.user_readback)
        stage_y = yield from read(beamline.stage.y.user_readback)
        energy_ev = yield from read(beamline.mono.energy.user_readback)
        flux_ph_s = yield from self.flux(beamline)
        drift_x, drift_y = self.drift_um()
        x_um, y_um = float(stage_x) - drift_x, float(stage_y) - drift_y
        return ExposureRequest(
            x_um=x_um,
            y_um=y_um,
            energy_ev=float(energy_ev),
            open_time_s=exposure_s + margin_s,
            flux_ph_s=flux_ph_s * self.flux_headroom,
            run_uid=self.run_uid,
            label=label,
            on_sample=self.touches_sample(x_um, y_um),
            spot=spot,
            energies_ev=energies_ev,
        )

    def flux(self, beamline: TxmBeamline) -> MsgGenerator[float]:
        """Plan stub: return the flux to be reserved, photons/s, by the ion chamber; never by a chamber that seems dead.

        A reading below `PLAUSIBLE` of what the attenuator lets through of the calibrated flux, or of the highest seen, is not
        believed: the beam may come back while the shutter is open, so the higher value is counted.
        """
        transmission = float((yield from read(beamline.attenuator.transmission)))
        if self.monitor is None:
            flux_ph_s = self.calibration.flux(float((yield from read(beamline.i0.current_na))))
        else:
            flux_ph_s = self.monitor.flux_now().flux_ph_s
        if transmission > 0:
            self._highest_ph_s = max(self._highest_ph_s, flux_ph_s / transmission)
        expected_ph_s = max(self._highest_ph_s, self.calibration.flux_ph_s) * transmission
        if flux_ph_s >= PLAUSIBLE * expected_ph_s:
            return flux_ph_s
        logger.warning(
            "the ion chamber says %.3g ph/s where %.3g ph/s are expected; the latter is reserved",
            flux_ph_s,
            expected_ph_s,
        )
        return expected_ph_s

    def reserve(self, beamline: TxmBeamline, request: ExposureRequest) -> MsgGenerator[Reservation]:
        """Plan stub: write the reservation to disk; returns only when it is there.

        Raises
        ------
        DoseRefused
            When a limit would be exceeded. The shutter has not moved.
        """
        counter_s, position = float((yield from read(beamline.shutter.open_time_s))), self.position()
        if self._counted_s is None:
            yield from call_in(self.executor, take_over, self.account, request, counter_s)
        elif counter_s > self._counted_s + _NOISE_S:
            stray_s = counter_s - self._counted_s
            last = self._last_on_sample
            yield from call_in(self.executor, count_open_time, self.account, request, stray_s, counter_s, last=last)
        self._counted_s = counter_s
        reservation: Reservation = yield from call_in(self.executor, self._reserve, request, counter_s, position)
        if request.on_sample:
            self._last_on_sample = request
        if self.signals is not None or reservation.warnings:
            self.executor.submit(self._bulletin.refresh, reservation)  # not waited for: the exposure goes on
        return reservation

    def _reserve(self, request: ExposureRequest, counter_s: float, position: SamplePosition) -> Reservation:
        self.account.locate(position)
        return self.account.reserve(request, counter_s=counter_s)

    def settle(
        self, beamline: TxmBeamline, reservation: Reservation, *, since_s: float | None = None, opened: bool = False
    ) -> MsgGenerator[Settlement]:
        """Plan stub: replace the reservation by what the shutter's counter and the flux say was delivered.

        Parameters
        ----------
        since_s
            When the shutter was told to open, by `time.monotonic`, s; the mean flux from then to now counts when there is a
            monitor.
        opened
            The shutter certainly was open. A counter that did not move is not believed then, the reservation stands.
        """
        counter_s = float((yield from read(beamline.shutter.open_time_s)))
        reserved_ph_s = reservation.request.flux_ph_s / self.flux_headroom
        if self.monitor is None or since_s is None:
            flux_ph_s, degraded = max((yield from self.flux(beamline)), reserved_ph_s), ""
        else:
            mean = self.monitor.flux(since_s, time.monotonic())
            flux_ph_s, degraded = mean.flux_ph_s, mean.degraded
        # A smaller counter than before means that the IOC was restarted: nothing is known, so the reservation stands.
        before_s, reserved_s = self._counted_s, reservation.request.open_time_s
        known = before_s is not None and counter_s >= before_s
        open_time_s = counter_s - before_s if known and before_s is not None else reserved_s
        self.counter_stood_still = opened and known and open_time_s == 0
        if self.counter_stood_still:
            open_time_s = reserved_s
        why = "" if known else "open-time counter restarted"
        why = "open-time counter did not move" if self.counter_stood_still else why
        degraded = "; ".join(filter(None, (degraded, why)))
        if degraded:
            logger.warning("reservation %d is settled with a doubtful flux or time: %s", reservation.id, degraded)
        self._counted_s = counter_s
        settlement: Settlement = yield from call_in(
            self.executor,
            self._settle,
            reservation,
            open_time_s=open_time_s,
            flux_ph_s=flux_ph_s,
            counter_s=counter_s,
            degraded=degraded,
        )
        return settlement

    def _settle(self, reservation: Reservation, **delivered: Any) -> Settlement:
        """Settle, and refresh the signals before they are read into the Event; in the ledger's thread."""
        settlement = self.account.settle(reservation.id, **delivered)
        if self.signals is not None:
            self._bulletin.refresh(reservation)
        return settlement


def close_shutter(beamline: TxmBeamline) -> MsgGenerator[None]:
    """Plan stub: close the shutter and wait until it says so."""
    yield from put(beamline.shutter, "Closed")


def open_shutter(beamline: TxmBeamline, value: Any = "Open", *, group: str | None = None) -> MsgGenerator[Any]:
    """Plan stub: open the shutter, unless it is held closed since a pause; return the status of the opening.

    Returns
    -------
    Any
        `HELD` when the shutter was not told to open: a pause came between the plan's last look and the opening.
    """
    try:
        return (yield from put(beamline.shutter, value, group=group))
    except ShutterHeld:
        logger.warning("the shutter is held closed by a pause; this exposure has no light")
        return HELD


__all__ = [
    "HELD",
    "POLICIES",
    "DoseGuard",
    "DoseRefused",
    "DoseWarning",
    "FluxCalibration",
    "close_shutter",
    "open_shutter",
]
