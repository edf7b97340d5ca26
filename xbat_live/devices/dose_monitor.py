"""Watches flux and shutter by Channel Access monitors, so that the dose of any opening is known afterwards."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from xbat_live.devices.epics import connection_errors
from xbat_live.dose.flux_history import FluxCalibration, FluxHistory, FluxMean, FluxModel

logger = logging.getLogger(__name__)

_KNOWN = ("Closed", "Open")
_CONNECT_S = 0.05


class Watched(Protocol):
    """What `DoseMonitor` needs of a beamline; a `TxmBeamline` has it."""

    @property
    def shutter(self) -> Any:
        """`FastShutter`."""

    @property
    def i0(self) -> Any:
        """`IonChamber`."""

    @property
    def ring(self) -> Any:
        """`StorageRing`."""

    @property
    def attenuator(self) -> Any:
        """`Attenuator`."""


@dataclass
class ShutterTrack:
    """What is known of the shutter, from positions as they come in. Times are those of a monotonic clock, s.

    Attributes
    ----------
    position
        ``Closed``, ``Open``, or anything else, which counts as open; None: not connected, or stale.
    opened_at_s
        When the last opening began: the shutter was last seen to leave ``Closed``, for whatever state.
    closed_at_s
        When the last opening ended; None while it lasts.
    unknown_since_s
        Since when the position is neither ``Closed`` nor ``Open``; None when it is one of them.
    changes
        Counts the changes of position.
    """

    position: str | None = None
    opened_at_s: float | None = None
    closed_at_s: float | None = None
    unknown_since_s: float | None = None
    changes: int = 0

    def see(self, position: str | None, at_s: float) -> bool:
        """Take over a position; return True when it is a new one."""
        if position == self.position and self.changes:
            return False
        was_closed = self.position == "Closed" or not self.changes
        self.position = position
        self.changes += 1
        if position == "Closed":
            self.closed_at_s = at_s
        elif was_closed:
            self.opened_at_s, self.closed_at_s = at_s, None
        if position in _KNOWN:
            self.unknown_since_s = None
        elif self.unknown_since_s is None:
            self.unknown_since_s = at_s
        return True


@dataclass
class _Reading:
    """Last value of a PV and when it was last confirmed; None: unknown."""

    value: Any = None
    at_s: float = -math.inf


class DoseMonitor:
    """Flux and shutter as they were and are, by monitors; survives the death and the return of an IOC.

    A PV that has not changed for a while is asked again by a thread of this monitor, so a dead band (MDEL) is no harm,
    and an IOC that hangs is found out: what has not been confirmed for `stale_s` is unknown. An unknown shutter counts as
    open, an unknown chamber is replaced by the ring current, and that by the highest flux so far. The wall clock is never
    used.

    Parameters
    ----------
    beamline
        Devices ``shutter``, ``i0``, ``ring`` and ``attenuator``; they may connect later.
    calibration
        Ion chamber to flux.
    ring_reference_ma
        Ring current at which `calibration` holds, mA; None: learnt while the chamber works.
    stale_s
        See above, s.
    clock
        Monotonic clock, s.
    """

    def __init__(
        self,
        beamline: Watched,
        calibration: FluxCalibration,
        *,
        ring_reference_ma: float | None = None,
        stale_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.beamline, self.calibration, self.stale_s = beamline, calibration, stale_s
        self.changed = threading.Event()
        """Set at every change of the shutter; for who waits, and clears it."""
        self._clock = clock
        self._model = FluxModel(calibration, ring_reference_ma=ring_reference_ma)
        self._history = FluxHistory(fallback_ph_s=calibration.flux_ph_s, stale_s=stale_s)
        self._signals = {
            "i0": beamline.i0.current_na,
            "ring": beamline.ring.current_ma,
            "transmission": beamline.attenuator.transmission,
            "shutter": beamline.shutter.status,
        }
        self._readings = {name: _Reading() for name in self._signals}
        self._track = ShutterTrack()
        self._lock = threading.RLock()
        self._subscriptions: list[tuple[Any, int]] = []
        self._stop = threading.Event()
        self._ask_now = threading.Event()
        self._thread: threading.Thread | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Subscribe; PVs that are not there yet are taken up when they appear. Starting twice is fine."""
        if self._thread is not None:
            return
        self._stop.clear()
        with self._lock:
            self._track.see(None, self._clock())
        for name, signal in self._signals.items():
            self._subscribe(name, signal)
        self._thread = threading.Thread(target=self._keep_fresh, name="dose-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Unsubscribe and end the thread; stopping twice is fine."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        self._ask_now.set()
        for signal, number in self._subscriptions:
            signal.unsubscribe(number)
        self._subscriptions.clear()
        thread.join(timeout=2 * self.stale_s)

    def __enter__(self) -> DoseMonitor:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    # -- questions ---------------------------------------------------------------------------------------------------

    def flux(self, t0_s: float, t1_s: float) -> FluxMean:
        """Return the mean flux from `t0_s` to `t1_s` of the monotonic clock, photons/s; see `FluxHistory.mean`.

        Right after an exposure the sample behind it is still to come, so the last one holds; a tenth of a second later the
        answer is interpolated.
        """
        return self._history.mean(t0_s, t1_s)

    def flux_now(self) -> FluxMean:
        """Return the present flux, photons/s."""
        return self._history.current(self._clock())

    def shutter_known(self) -> bool:
        """Return True when the shutter says ``Open`` or ``Closed`` and that is fresh."""
        return self.unknown_since_s is None

    @property
    def shutter_position(self) -> str | None:
        """``Closed``, ``Open``, another word, or None: not connected or stale."""
        with self._lock:
            self._judge_freshness()
            return self._track.position

    @property
    def is_open(self) -> bool:
        """True unless the shutter is known to be closed."""
        return self.shutter_position != "Closed"

    @property
    def opened_at_s(self) -> float | None:
        """When the last opening began (unknown counts as open), monotonic, s; None before the first."""
        with self._lock:
            self._judge_freshness()
            return self._track.opened_at_s

    @property
    def closed_at_s(self) -> float | None:
        """When the last opening ended, monotonic, s; None while it lasts."""
        with self._lock:
            self._judge_freshness()
            return self._track.closed_at_s

    @property
    def unknown_since_s(self) -> float | None:
        """Since when the shutter's position is unknown, monotonic, s; None when it is known."""
        with self._lock:
            self._judge_freshness()
            return self._track.unknown_since_s

    # -- inside ------------------------------------------------------------------------------------------------------

    def _subscribe(self, name: str, signal: Any) -> None:
        def valued(value: Any = None, **_: Any) -> None:
            if name == "shutter" and str(value).isdigit():
                self._ask_now.set()  # the words of the enum are still to come
            else:
                self._confirm(name, value)

        def connected(*, connected: bool = True, **_: Any) -> None:
            if not connected:
                self._lose(name)

        # run=True hands over what a connected signal knows already, once, in this thread
        numbers = (
            signal.subscribe(connected, event_type=signal.SUB_META, run=False),
            signal.subscribe(valued, run=bool(signal.connected)),
        )
        self._subscriptions += [(signal, number) for number in numbers]

    def _confirm(self, name: str, value: Any) -> None:
        """Take over a value that arrived by monitor or was asked for."""
        with self._lock:
            now_s = self._clock()
            self._readings[name] = _Reading(value, now_s)
            if name != "shutter":
                self._sample(now_s)
            elif self._track.see(str(value), now_s):
                self.changed.set()

    def _lose(self, name: str) -> None:
        """Forget a PV whose connection is gone."""
        with self._lock:
            now_s = self._clock()
            self._readings[name] = _Reading()
            if name != "shutter":
                self._sample(now_s)
            elif self._track.see(None, now_s):
                self.changed.set()

    def _judge_freshness(self) -> None:
        """Call a position unknown that was not confirmed lately, from its last confirmation on."""
        reading = self._readings["shutter"]
        if self._track.position is not None and self._clock() - reading.at_s > self.stale_s:
            self._track.see(None, max(reading.at_s, self._track.opened_at_s or -math.inf))
            self.changed.set()

    def _sample(self, now_s: float) -> None:
        """Put the flux that the readings of now say into the history."""
        values = []
        for name in ("i0", "ring", "transmission"):
            reading = self._readings[name]
            fresh = now_s - reading.at_s <= self.stale_s
            try:
                values.append(float(reading.value) if fresh and reading.value is not None else None)
            except (TypeError, ValueError):
                values.append(None)
        self._history.add(now_s, *self._model.flux(*values))

    def _keep_fresh(self) -> None:
        """Ask PVs that have not changed lately whether they are still so; runs in the thread of this monitor."""
        period_s = self.stale_s / 3
        while not self._stop.is_set():
            urgent = self._ask_now.wait(period_s)
            self._ask_now.clear()
            for name, signal in self._signals.items():
                if self._stop.is_set():
                    return
                due = urgent and name == "shutter"
                if due and not signal.connected:  # its first value came before the rest of it
                    self._stop.wait(_CONNECT_S)
                    self._ask_now.set()
                if signal.connected and (due or self._clock() - self._readings[name].at_s >= period_s / 2):
                    self._ask(name, signal, period_s)
            with self._lock:
                self._judge_freshness()
                if self._clock() - self._readings["i0"].at_s > period_s:
                    self._sample(self._clock())

    def _ask(self, name: str, signal: Any, timeout_s: float) -> None:
        try:
            value = signal.get(use_monitor=False, timeout=timeout_s, connection_timeout=_CONNECT_S)
        except connection_errors():
            return  # its age tells
        except Exception:
            logger.exception("%s cannot be read", name)
            return
        self._confirm(name, value)
