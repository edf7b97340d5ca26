"""Fast shutter. Whatever is not known to be closed counts as open."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.status import DeviceStatus

from xbat_live.devices.epics import UnitsMixin, connection_errors

logger = logging.getLogger(__name__)

_COMMAND = {"Open": "Open", "Closed": "Close", "Close": "Close"}
_READ_S = 1.0
_SEARCH_S = 0.3


class ShutterError(RuntimeError):
    """The shutter did not confirm a command, or must not open now."""


class ShutterHeld(ShutterError):  # noqa: N818
    """The shutter is held closed since a pause; it was not told to open."""


@dataclass(frozen=True)
class OpenFor:
    """A timed opening, as a value for `FastShutter.set`: ``bps.abs_set(shutter, OpenFor(0.048), group=...)``.

    Attributes
    ----------
    seconds
        How long the shutter is to be open, s.

    Raises
    ------
    ValueError
        Not positive and finite.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"an opening of {self.seconds:g} s is not possible; give a positive number of seconds")


class FastShutter(UnitsMixin, Device):
    """Fast shutter with its own open-time counter and its own watchdog, both in the IOC.

    `open_time_s` (all openings together) and `last_open_time_s` are read without a monitor: the dose account needs them
    as they are now. `max_open_s` is the hardware watchdog: the shutter closes by itself after that time; 0 switches it
    off. A shutter with a timed opening (PV ``OpenFor``: a put opens for that time and completes when closed again) is used
    with it, see `has_timed_opening`; the PV is optional.

    A pause holds the shutter closed: whatever goes on in spite of it, a plan or a thread, cannot open it again before
    `resume`, which the RunEngine calls, or the next plan (staging, unstaging, `dose_guard_wrapper`).

    Parameters
    ----------
    move_timeout_s
        Time within which `status` must confirm a command, s.
    """

    command = Cpt(EpicsSignal, "Cmd", string=True, kind="omitted")
    status = Cpt(EpicsSignalRO, "Status", string=True, auto_monitor=True)
    open_time_s = Cpt(EpicsSignalRO, "OpenTime_RBV")
    last_open_time_s = Cpt(EpicsSignalRO, "LastOpenTime_RBV")
    open_count = Cpt(EpicsSignalRO, "OpenCount_RBV", auto_monitor=True)
    watchdog_trips = Cpt(EpicsSignalRO, "WatchdogTrips_RBV", auto_monitor=True)
    max_open_s = Cpt(EpicsSignal, "MaxOpen", kind="omitted", auto_monitor=True)

    signal_units: ClassVar[Mapping[str, str]] = {"open_time_s": "s", "last_open_time_s": "s", "max_open_s": "s"}

    def __init__(self, prefix: str = "", *, move_timeout_s: float = 2.0, **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self.move_timeout_s = move_timeout_s
        # no component: those are all waited for, and this PV is optional
        self.open_for_s = type(self).command.cls(f"{self.prefix}OpenFor", name=f"{self.name}_open_for_s")
        self._searched = False
        self._held = False
        self._hold_lock = threading.RLock()
        self.interruptions = 0
        """How often the shutter was told to close other than by `set`: a pause, a stop, `close_now`."""

    @property
    def has_timed_opening(self) -> bool:
        """True when the shutter has a PV ``OpenFor``; the first answer may take 0.3 s when it has none."""
        if not self._searched and not self.open_for_s.connected:
            try:
                self.open_for_s.wait_for_connection(timeout=_SEARCH_S)
            except TimeoutError:
                logger.info("%s: no timed opening (%s does not answer)", self.name, f"{self.prefix}OpenFor")
        self._searched = True
        return bool(self.open_for_s.connected)

    @property
    def held(self) -> bool:
        """True between a pause and its `resume`: the shutter does not open."""
        return self._held

    @property
    def is_open(self) -> bool:
        """True unless the shutter is known to be closed: moving, unknown and disconnected count as open."""
        try:
            return not self.status.connected or str(self.status.get()) != "Closed"
        except connection_errors():
            return True

    def set(self, value: str | OpenFor) -> DeviceStatus:
        """Command ``"Open"``, ``"Closed"``, or an opening of a certain time.

        Returns
        -------
        ophyd.status.DeviceStatus
            Done when `status` confirms; fails with `ShutterError` when it does not within `move_timeout_s`.

        Raises
        ------
        ValueError
            Any other value.
        ShutterHeld
            It is to open while it is `held`.
        """
        if isinstance(value, OpenFor):
            return self.open_for(value.seconds)
        if value not in _COMMAND:
            raise ValueError(f"{self.name}: {value!r} is no shutter position; use 'Open' or 'Closed'")
        target = "Open" if value == "Open" else "Closed"
        status = DeviceStatus(self)
        finish = _Once(status)
        timer = threading.Timer(self.move_timeout_s, lambda: finish(ShutterError(self._unconfirmed(target))))
        timer.daemon = True

        def watch(value: Any = None, **_: Any) -> None:
            if str(value) == target:
                finish(None)

        def tidy(_: DeviceStatus) -> None:
            timer.cancel()
            self.status.clear_sub(watch)

        status.add_callback(tidy)
        timer.start()

        def commanded(**_: Any) -> None:
            # The cached monitor value may be older than this command, so `status` is asked. A shutter that answers
            # before it has arrived is caught by the monitor; the second question closes the gap between the first one
            # and the monitor.
            if self._confirms(target, finish):
                return
            self.status.subscribe(watch, run=False)
            self._confirms(target, finish)

        with self._hold_lock:  # a pause in another thread comes before or after, never in between
            if target == "Open":
                self._check_not_held(finish)
            try:
                self._send(_COMMAND[value], commanded)
            except connection_errors() as error:
                finish(ShutterError(f"{self._unconfirmed(target)} ({error})"))
        return status

    def open_for(self, seconds: float) -> DeviceStatus:
        """Open for a time that the shutter itself keeps.

        Parameters
        ----------
        seconds
            Open time, s.

        Returns
        -------
        ophyd.status.DeviceStatus
            Done when the shutter is closed again and says so, be it earlier because of another command; fails with
            `ShutterError` when it does not within `seconds` and `move_timeout_s`.

        Raises
        ------
        ShutterError
            It has no timed opening, or is `held`.
        """
        seconds = OpenFor(float(seconds)).seconds
        if not self.has_timed_opening:
            raise ShutterError(f"{self.name}: no timed opening ({self.prefix}OpenFor does not answer); use set('Open')")
        status = DeviceStatus(self)
        finish = _Once(status)
        timer = threading.Timer(
            seconds + self.move_timeout_s, lambda: finish(ShutterError(self._unconfirmed("Closed")))
        )
        timer.daemon = True
        status.add_callback(lambda _: timer.cancel())

        def closed_again(**_: Any) -> None:
            if not self._confirms("Closed", finish):
                finish(ShutterError(self._unconfirmed("Closed")))

        timer.start()
        with self._hold_lock:
            self._check_not_held(finish)
            self._send_timed(seconds, closed_again)
        return status

    def _check_not_held(self, finish: _Once) -> None:
        if self._held:
            remedy = f"resume the plan, or end it and start anew (or call {self.name}.resume())"
            error = ShutterHeld(f"{self.name} is held closed since a pause; {remedy}")
            finish(error)
            raise error

    def close_now(self) -> bool:
        """Command the shutter to close and return at once; from any thread, callbacks included.

        Returns
        -------
        bool
            False when there is no connection: the command could not be sent, and the log says so.
        """
        self.interruptions += 1
        if not self.command.connected:
            logger.critical("%s: cannot be closed, %s is not connected; close it by hand", self.name, self.prefix)
            return False
        try:
            self.command.put("Close", wait=False, connection_timeout=0.1)
        except Exception:
            logger.critical("%s: the command to close could not be sent; close it by hand", self.name, exc_info=True)
            return False
        return True

    def stage(self) -> list[object]:
        """Close, and wait for the confirmation.

        Raises
        ------
        ShutterError
            When it is not confirmed.
        """
        self.resume()
        staged: list[object] = super().stage()
        try:
            self._close_and_wait()
        except Exception:
            super().unstage()
            raise
        return staged

    def unstage(self) -> list[object]:
        """Close; a missing confirmation is logged, so that a clean-up gets on and no earlier error is hidden."""
        if self.close_now():
            try:
                self._close_and_wait()
            except Exception:
                logger.critical("%s: closing was not confirmed; it counts as open", self.name, exc_info=True)
        self.resume()
        unstaged: list[object] = super().unstage()
        return unstaged

    def pause(self) -> None:
        """Close, and stay closed until `resume`: the RunEngine alone would leave the beam on the sample during a pause."""
        with self._hold_lock:
            self._held = True
            self.close_now()

    def resume(self) -> None:
        """Let the shutter be opened again; it does not open by itself."""
        with self._hold_lock:
            self._held = False

    def stop(self, *, success: bool = False) -> None:
        """Close, whether or not the plan went well."""
        self.close_now()

    def _close_and_wait(self) -> None:
        status = self.set("Closed")
        status.wait(timeout=self.move_timeout_s + 1)

    def _send(self, command: str, done: Callable[..., None]) -> None:
        self.command.put(command, wait=False, use_complete=True, callback=done, connection_timeout=_READ_S)

    def _send_timed(self, seconds: float, done: Callable[..., None]) -> None:
        self.open_for_s.put(seconds, wait=False, use_complete=True, callback=done, connection_timeout=_READ_S)

    def _confirms(self, target: str, finish: _Once) -> bool:
        try:
            value = str(self.status.get(use_monitor=False, timeout=_READ_S, connection_timeout=0.1))
        except Exception as error:
            finish(ShutterError(f"{self._unconfirmed(target)} ({error})"))
            return True
        if value == target:
            finish(None)
        return value == target

    def _unconfirmed(self, target: str) -> str:
        try:
            last = repr(str(self.status.get(connection_timeout=0.1))) if self.status.connected else "not connected"
        except Exception:
            last = "not readable"
        return (
            f"{self.name} ({self.prefix}): {target!r} not confirmed within {self.move_timeout_s:g} s, "
            f"last status {last}; anything but Closed counts as open"
        )


class _Once:
    """End a status once, by whoever comes first: command, monitor or timer."""

    def __init__(self, status: DeviceStatus) -> None:
        self._status = status
        self._lock = threading.Lock()
        self._ended = False

    def __call__(self, error: Exception | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if error is None:
            self._status.set_finished()
        else:
            self._status.set_exception(error)
