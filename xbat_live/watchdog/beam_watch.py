"""The guard's eyes: shutter, flux and stage by Channel Access monitors. Only what it needs is loaded and connected."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ophyd import EpicsSignalRO

from xbat_live.config import ExperimentConfig
from xbat_live.devices.beam import Attenuator, IonChamber, StorageRing
from xbat_live.devices.dose_monitor import DoseMonitor
from xbat_live.devices.epics import connection_errors
from xbat_live.devices.shutter import FastShutter
from xbat_live.dose.flux_history import FluxCalibration, FluxMean
from xbat_live.watchdog.booking import Place

logger = logging.getLogger(__name__)

_ASK_S = 1.0
_SUFFIX = {"shutter": "SH:", "i0": "I0:", "ring": "RING:", "attenuator": "ATT:", "stage": "TXM:", "mono": "MONO:"}


@dataclass(frozen=True)
class Look:
    """What is seen of the shutter now; times are monotonic, s."""

    position: str | None
    opened_at_s: float | None
    closed_at_s: float | None
    unknown_since_s: float | None
    counter_s: float | None


@dataclass(frozen=True)
class WatchedBeamline:
    """The few devices that a dose depends on."""

    shutter: FastShutter
    i0: IonChamber
    ring: StorageRing
    attenuator: Attenuator


class BeamWatch:
    """Shutter, flux and stage of the beamline that `config` describes; connects in the background.

    Parameters
    ----------
    config
        The experiment. Channel Access must have been configured.
    clock
        Monotonic clock, s.
    """

    def __init__(self, config: ExperimentConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        at = {
            name: config.beamline.device_prefixes.get(name, config.beamline.prefix + suffix)  # type: ignore[call-overload]
            for name, suffix in _SUFFIX.items()
        }
        self.beamline = WatchedBeamline(
            shutter=FastShutter(at["shutter"], name="shutter"),
            i0=IonChamber(at["i0"], name="i0"),
            ring=StorageRing(at["ring"], name="ring"),
            attenuator=Attenuator(at["attenuator"], name="attenuator"),
        )
        self.monitor = DoseMonitor(
            self.beamline,
            FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na),
            ring_reference_ma=config.beam.ring_reference_ma,
            clock=clock,
        )
        motors = {"x": f"{at['stage']}X.RBV", "y": f"{at['stage']}Y.RBV", "energy": f"{at['mono']}Energy.RBV"}
        self._motors = {name: EpicsSignalRO(pv, name=name, auto_monitor=True) for name, pv in motors.items()}
        self._values: dict[str, float] = {}
        self._energy_ev = config.beam.energy_ev
        self._lock = threading.Lock()

    def start(self) -> None:
        """Subscribe."""
        self.monitor.start()
        for name, signal in (*self._motors.items(), ("counter", self.beamline.shutter.open_time_s)):
            signal.subscribe(self._taker(name), run=bool(signal.connected))

    def stop(self) -> None:
        """Unsubscribe."""
        self.monitor.stop()
        for signal in self._motors.values():
            signal.unsubscribe_all()

    def look(self) -> Look:
        """Return what is known of the shutter now."""
        monitor = self.monitor
        # The counter was published before the position: read after it, it belongs to it or is newer.
        position = monitor.shutter_position
        with self._lock:
            counter_s = self._values.get("counter")
        if not self.beamline.shutter.open_time_s.connected:
            counter_s = None
        return Look(position, monitor.opened_at_s, monitor.closed_at_s, monitor.unknown_since_s, counter_s)

    def counter_now(self) -> float | None:
        """Ask the shutter for its open-time counter, s; None when it does not answer.

        What was published may be late or, from a busy IOC, left out; what is asked for is as new as the question.
        """
        signal = self.beamline.shutter.open_time_s
        try:
            return float(signal.get(use_monitor=False, timeout=_ASK_S, connection_timeout=_ASK_S))
        except connection_errors():
            return None

    def place(self) -> Place | None:
        """Return what is in the beam: the stage's last position; None when it was never heard of."""
        with self._lock:
            x_um, y_um = self._values.get("x"), self._values.get("y")
            energy_ev = self._values.get("energy", self._energy_ev)
        return None if x_um is None or y_um is None else Place(x_um, y_um, energy_ev)

    def flux(self, t0_s: float, t1_s: float) -> FluxMean:
        """Return the mean flux of an interval; see `DoseMonitor.flux`."""
        return self.monitor.flux(t0_s, t1_s)

    def flux_now(self) -> FluxMean:
        """Return the present flux."""
        return self.monitor.flux_now()

    def close_shutter(self) -> bool:
        """Command the shutter to close without waiting; False when there is no connection."""
        shutter = self.beamline.shutter
        return bool(shutter.command.connected) and shutter.close_now()

    def wait_for_change(self, timeout_s: float) -> None:
        """Return when the shutter changes, or after `timeout_s`."""
        if self.monitor.changed.wait(timeout_s):
            self.monitor.changed.clear()

    def _taker(self, name: str) -> Callable[..., None]:
        def take(value: Any = None, **_: Any) -> None:
            try:
                number = float(value)
            except (TypeError, ValueError):
                return
            if math.isfinite(number):
                with self._lock:
                    self._values[name] = number

        return take
