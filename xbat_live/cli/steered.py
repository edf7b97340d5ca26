"""The control socket around a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xbat_live.live.control import ControlServer
from xbat_live.live.control_desk import ControlDesk
from xbat_live.live.runtime import RuntimeFolderError

if TYPE_CHECKING:
    from xbat_live.callbacks import RunProgress
    from xbat_live.session import Session

logger = logging.getLogger(__name__)


@contextmanager
def steered(session: Session, progress: RunProgress) -> Iterator[ControlServer | None]:
    """Let other processes of this user steer the run; None, and a line in the log, when that is not possible: the run goes on."""
    account, executor = session.guard.account, session.guard.executor

    def note(text: str) -> None:
        executor.submit(account.note, text, run_uid=session.guard.run_uid)

    def status() -> dict[str, Any]:
        state = progress.state
        return {
            "uid": state.uid,
            "plan_name": state.plan_name,
            "sample": session.config.sample.name,
            "pid": os.getpid(),
            "points": state.points,
            "n_points": state.n_points,
            "frames": state.frames,
            "rejected": state.rejected,
            "spot": state.spot,
            "dose_gy": state.dose_gy,
            "dose_limit_gy": session.guard.lowest_limit_gy,
            "limits": [
                {"name": limit.name, "value": limit.value, "unit": limit.unit, "advisory": limit.advisory}
                for limit in account.limits
            ],
            "shutter": "Closed" if not session.beamline.shutter.is_open else "not known to be closed",
        }

    desk = ControlDesk(
        session.steering,
        status=status,
        note=note,
        examine=None if session.config.uses_microscope else session.examine,
        limits=lambda: () if session.config.uses_microscope else account.limits,
        change_limit=session.change_limit,
    )
    try:
        server = ControlServer(desk)
    except (RuntimeFolderError, OSError) as error:
        logger.warning("this run cannot be steered from elsewhere: %s", error)
        yield None
        return
    with server:
        yield server
