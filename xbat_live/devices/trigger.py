"""Triggering an areaDetector once, safely: no race, no hang, and no success without a frame."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ophyd.areadetector.trigger_mixins import TriggerBase
from ophyd.device import Staged
from ophyd.status import DeviceStatus
from ophyd.utils import DisconnectedError

from xbat_live.devices.epics import connection_errors

logger = logging.getLogger(__name__)

# Readout and writing: a file server that holds everybody up for some seconds is no lost frame. Waiting costs no dose, since the
# shutter has its own time limit; a dead IOC is noticed by its connection, at once.
TRIGGER_MARGIN_S = 20.0


class SafeSingleTrigger(TriggerBase):
    """One acquisition per trigger, without the races of ophyd's `SingleTrigger`.

    That one returns ``self._status`` (perhaps None already, when the exposure is short) and clears it after finishing
    it (which may wipe the status of the next trigger, and the plan hangs). Here each status belongs to the completion
    of its own put, is taken away before it is finished, times out, and fails when the connection is lost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._status_lock = threading.Lock()
        self._acquisition_signal.subscribe(self._connection_changed, event_type="meta", run=False)

    def trigger(self) -> DeviceStatus:
        """Start one acquisition.

        Returns
        -------
        ophyd.status.DeviceStatus
            Done when `after_acquisition` has returned; it fails with what that raises, after `acquisition_timeout_s`,
            or when the IOC disconnects.
        """
        if self._staged != Staged.yes:
            raise RuntimeError(f"{self.name} is not staged; stage it before triggering")
        self.before_acquisition()
        status = DeviceStatus(self, timeout=self.acquisition_timeout_s())
        with self._status_lock:
            self._status = status
        try:
            self._start_acquisition(partial(self._acquisition_ended, status))
        except Exception:
            self._take(status)
            raise
        return status

    def unstage(self) -> list[object]:
        """Give up an acquisition that is still going on (a plan that was stopped in it), then restore the settings.

        Nobody waits for it any more, and a failed status would turn an orderly stop into a failed run. Its frame stays in the
        file as one of no Event.
        """
        if (status := self._take()) is not None and not status.done:
            logger.info("%s: unstaged during an acquisition, which is given up", self.name)
            if self._acquisition_signal.connected:
                self._acquisition_signal.put(0, wait=False)
            status.set_finished()
        unstaged: list[object] = super().unstage()
        return unstaged

    def acquisition_timeout_s(self) -> float:
        """Return the time after which a trigger fails, s."""
        return TRIGGER_MARGIN_S

    def before_acquisition(self) -> None:
        """Prepare one acquisition; called in the thread that triggers."""

    def after_acquisition(self) -> None:
        """Collect what was acquired; raises when that is not there."""

    def _start_acquisition(self, done: Callable[..., None]) -> None:
        self._acquisition_signal.put(1, wait=False, use_complete=True, callback=done)

    def _take(self, status: DeviceStatus | None = None) -> DeviceStatus | None:
        """Return the pending status, which is then nobody else's; None when there is none, or another than `status`."""
        with self._status_lock:
            pending = self._status
            if pending is None or (status is not None and pending is not status):
                return None
            self._status = None
            return pending

    def _acquisition_ended(self, status: DeviceStatus, **_: Any) -> None:
        if self._take(status) is None or status.done:  # timed out or given up: the frame is an orphan
            return
        try:
            if not self._acquisition_signal.connected:
                raise self._lost()
            self.after_acquisition()
        except connection_errors() as error:  # libca completes the put of a lost circuit before it reports the loss
            logger.debug("acquisition failed", exc_info=True)
            status.set_exception(DisconnectedError(f"{self._lost()} ({error})"))
        except Exception as error:
            if self._staged == Staged.yes:
                logger.debug("acquisition failed", exc_info=True)
                status.set_exception(error)
            else:  # unstaged meanwhile: see `unstage`
                logger.info("%s: unstaged before its last frame was found: %s", self.name, error)
                status.set_finished()
        else:
            status.set_finished()

    def _connection_changed(self, *, connected: bool = True, **_: Any) -> None:
        if not connected and (status := self._take()) is not None and not status.done:
            status.set_exception(self._lost())

    def _lost(self) -> DisconnectedError:
        return DisconnectedError(f"{self.name}: connection to {self.prefix} lost during an acquisition")
