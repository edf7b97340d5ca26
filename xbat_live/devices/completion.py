"""When a flight is over: the acquisition is done and what it brought has been kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ophyd.status import Status


def completed_after(owner: Any, acquisition: Status, keep: Callable[[], object]) -> Status:
    """Return a status of `owner` that is done when `acquisition` is and `keep()` has returned.

    It fails with what `acquisition` failed with, `keep` not called then, or with what `keep` raises; `TimeoutError` when
    `acquisition` ran out of time.
    """
    from ophyd.status import Status  # not at the top: a forecast walks plans without ophyd
    from ophyd.utils import StatusTimeoutError

    completed = Status(obj=owner)

    def ended(status: Any) -> None:
        error = status.exception()
        if isinstance(error, StatusTimeoutError):  # a status refuses to be given this one
            error = TimeoutError(f"{owner.name}: not all frames came within {acquisition.timeout:g} s")
        try:
            if error is None:
                keep()
        except Exception as failure:  # whatever it is belongs to whoever waits for the flight
            error = failure
        if error is None:
            completed.set_finished()
        else:
            completed.set_exception(error)

    acquisition.add_callback(ended)
    return completed
