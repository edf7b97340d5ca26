"""Carries out what operators ask of a run: every command is answered, attributed and noted in the run's stream ``operator``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from xbat_live.live.control_messages import BadRequest, Ending, Note, Pause, Reply, Request, finite
from xbat_live.plans import Steering, SteeringRefused

logger = logging.getLogger(__name__)

Done = tuple[str, Mapping[str, Any]]
ASKING = ("status", "propose")
"""Verbs that change nothing and are not noted."""


class ControlDesk:
    """The handler of a `ControlServer`.

    Parameters
    ----------
    steering
        Of the run.
    status
        What is known of the run, as plain data.
    note
        Writes a remark into the ledger of the sample.
    """

    def __init__(
        self,
        steering: Steering,
        *,
        status: Callable[[], Mapping[str, Any]] = dict,
        note: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._steering, self._status, self._note = steering, status, note

    def __call__(self, request: Request) -> Reply:
        """Carry out a command; from any thread."""
        received_s = time.time()
        data: Mapping[str, Any] = {}
        try:
            message, data = self._carry_out(request)
            ok = True
        except (BadRequest, SteeringRefused) as refusal:
            ok, message = False, str(refusal)
        state = str(self._steering.phase)
        if request.verb not in ASKING:
            self._steering.remark(
                command=request.verb,
                arguments=json.dumps(finite(request.arguments | dict(data))),
                who=request.who,
                via=request.via,
                ok=ok,
                message=message,
                state=state,
                request_id=request.id,
                received_s=received_s,
            )
            logger.warning("%s by %s (%s): %s", request.verb, request.who or "?", request.via, message)
        if request.verb == "abort" and ok:
            self._steering.carry_out_abort(f"aborted by {request.who or 'the operator'}: {message}")
        return Reply(request.id, ok, state, message, data)

    def _carry_out(self, request: Request) -> Done:
        arguments, steering = request.parsed(), self._steering
        match request.verb, arguments:
            case "status", _:
                return "", self._status()
            case "pause", Pause(now=now):
                return steering.pause(at_once=now), {}
            case "resume", _:
                return steering.resume(), {}
            case "stop", Ending():
                return steering.stop(), {}
            case "abort", Ending(reason=reason):
                return steering.abort(reason), {}
            case "note", Note(text=text):
                self._note(f"{request.who or 'operator'}: {text}")
                return text, {}
        raise SteeringRefused(f"{request.verb} is not possible with this run")
