"""Carries out what operators ask of a run: every command is answered, attributed and noted in the run's stream ``operator``."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xbat_live.dose import DoseLimit, LedgerError, Proposal, format_gy
from xbat_live.live.control_messages import (
    BadRequest,
    Ending,
    Limit,
    Note,
    Pause,
    Place,
    Relocate,
    Reply,
    Request,
    finite,
)
from xbat_live.plans import Order, Steering, SteeringRefused
from xbat_live.units import parse_quantity

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
    examine
        Returns what an exposure at sample coordinate (x, y), um, would mean.
    limits
        Returns the dose limits in force.
    change_limit
        Gives the limit of a name another value, with a note for the ledger.
    """

    def __init__(
        self,
        steering: Steering,
        *,
        status: Callable[[], Mapping[str, Any]] = dict,
        note: Callable[[str], object] = lambda text: None,
        examine: Callable[[float, float], Proposal] | None = None,
        limits: Callable[[], Sequence[DoseLimit]] = tuple,
        change_limit: Callable[[str, float, str], object] = lambda name, value, note: None,
    ) -> None:
        self._steering, self._status, self._note = steering, status, note
        self._examine, self._limits, self._change_limit = examine, limits, change_limit

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

    def _carry_out(self, request: Request) -> Done:  # noqa: PLR0911 - one per verb
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
            case "propose", Place(x_um=x_um, y_um=y_um):
                proposal = self._examined(x_um, y_um)
                return proposal.reason, proposal.as_dict()
            case "relocate", Relocate(x_um=x_um, y_um=y_um):
                return self._relocate(request, x_um, y_um)
            case "skip_spot", _:
                return steering.order(Order("skip_spot", request.who)), {}
            case "limit", Limit():
                return self._limit(request, arguments)
        raise SteeringRefused(f"{request.verb} is not possible with this run")

    def _examined(self, x_um: float, y_um: float) -> Proposal:
        if self._examine is None:
            raise SteeringRefused("this run has no dose account, so nothing is known of places")
        return self._examine(x_um, y_um)

    def _relocate(self, request: Request, x_um: float | None, y_um: float | None) -> Done:
        if (x_um is None) != (y_um is None):
            raise BadRequest("relocate: give both x_um and y_um, or neither", request.id)
        if x_um is None or y_um is None:
            return self._steering.order(Order("relocate", request.who)), {}
        proposal = self._examined(x_um, y_um)
        if not proposal.allowed:
            raise SteeringRefused(proposal.reason)
        told = self._steering.order(Order("relocate", request.who, (x_um, y_um)))
        return f"{told}; {proposal.reason}", proposal.as_dict()

    def _limit(self, request: Request, wanted: Limit) -> Done:
        """Tighten a limit at once; loosen it when that is confirmed and has a reason."""
        old, value = self._limit_meant(wanted)
        before, after = format_gy(old.value, old.unit), format_gy(value, old.unit)
        reason = wanted.reason.strip()
        if value > old.value and not (wanted.confirm and reason):
            raise SteeringRefused(
                f"{after} is looser than the present {before} of {old.name!r}; to loosen a limit, confirm it and give a reason"
            )
        if math.isclose(value, old.value):
            raise SteeringRefused(f"{old.name!r} is {before} already")
        way = "loosened" if value > old.value else "tightened"
        note = f"limit {old.name!r} {way} from {before} to {after} by {request.who or 'operator'} ({request.via})"
        note += f": {reason}" if reason else ""
        suffix = "_gy" if old.unit == "Gy" else "_gy_s"
        data = {"name": old.name, f"before{suffix}": old.value, f"after{suffix}": value}
        try:
            self._change_limit(old.name, value, note)
        except LedgerError as error:
            if value > old.value:
                raise SteeringRefused(f"not loosened: the ledger cannot be written: {error}") from error
            return f"{note}; it holds, but the ledger could not be written: {error}", data
        return f"{note}; it holds from the next exposure on, for this run", data

    def _limit_meant(self, wanted: Limit) -> tuple[DoseLimit, float]:
        limits = [limit for limit in self._limits() if not wanted.name or limit.name == wanted.name]
        known = (
            ", ".join(f"{limit.name!r} ({format_gy(limit.value, limit.unit)})" for limit in self._limits()) or "none"
        )
        problems = []
        for limit in sorted(
            limits, key=lambda limit: (limit.advisory, limit.name not in ("dose limit", "dose rate limit"))
        ):
            try:
                value = parse_quantity(wanted.value, limit.unit)
            except ValueError as error:
                problems.append(str(error))
                continue
            if not value > 0:
                raise SteeringRefused(
                    f"a limit is above 0; {wanted.value!r} is not. To end the exposures: pause or stop"
                )
            same = [other for other in limits if other.unit == limit.unit and not other.advisory]
            if not wanted.name and len(same) > 1 and not limit.name.startswith("dose "):
                raise SteeringRefused(f"say which limit is meant; known: {known}")
            return limit, value
        raise SteeringRefused(f"{problems[0] if problems else f'no limit is called {wanted.name!r}'}; known: {known}")
