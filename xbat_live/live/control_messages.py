"""Requests and replies of the control socket."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

VERSION = 1
VIA = ("cli", "page")
_LONGEST_TEXT = 2000
_LONGEST_WHO = 64


class BadRequest(ValueError):  # noqa: N818
    """A request that cannot be read; `id` is that of the request, if it was found."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.id = request_id


@dataclass(frozen=True)
class Request:
    """One command.

    Attributes
    ----------
    id
        Given back in the reply.
    verb
        One of `ARGUMENTS`.
    arguments
        As the verb wants them.
    who, via
        Person, and the way it came: ``cli`` or ``page``.
    """

    id: str
    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)
    who: str = ""
    via: str = "cli"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Return the request of a line.

        Raises
        ------
        BadRequest
            It is none; the message says what is wrong and what is known.
        """
        try:
            content = json.loads(line)
        except ValueError as error:
            raise BadRequest(f"not a line of JSON: {error}") from error
        if not isinstance(content, dict):
            raise BadRequest("a request is a JSON object")
        request_id = str(content.get("id", ""))[:_LONGEST_WHO]
        if content.get("v") != VERSION:
            raise BadRequest(
                f"version {content.get('v')!r} of the protocol is not known; this run speaks {VERSION}", request_id
            )
        verb, arguments, via = content.get("verb"), content.get("arguments", {}), content.get("via", "cli")
        if verb not in tuple(ARGUMENTS):
            raise BadRequest(f"verb {verb!r} is not known; known: {', '.join(ARGUMENTS)}", request_id)
        if not isinstance(arguments, dict):
            raise BadRequest("arguments is not a JSON object", request_id)
        if via not in VIA:
            raise BadRequest(f"via {via!r} is not known; known: {', '.join(VIA)}", request_id)
        return cls(request_id, verb, arguments, printable(content.get("who", ""), _LONGEST_WHO), via)

    def line(self) -> bytes:
        """Return the request as a line of JSON."""
        return json.dumps({"v": VERSION, **vars(self)}).encode() + b"\n"

    def parsed(self) -> Arguments:
        """Return the arguments of the verb, checked.

        Raises
        ------
        BadRequest
            One is missing, unknown or of the wrong kind.
        """
        try:
            return ARGUMENTS[self.verb].model_validate(self.arguments)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BadRequest(f"{self.verb}: {place}: {first['msg']}", self.id) from error


@dataclass(frozen=True)
class Reply:
    """What became of a command.

    Attributes
    ----------
    id
        Of the request.
    ok
        It is carried out, or under way.
    state
        State of the run after it.
    message
        One sentence for people; of a refusal the reason.
    data
        More, by verb; its names stand beside the others in the line.
    """

    id: str
    ok: bool
    state: str
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the reply as a line of JSON."""
        told = {"v": VERSION, "id": self.id, "ok": self.ok, "state": self.state, "message": self.message}
        return json.dumps(finite({**self.data, **told}), default=str).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Return the reply of a line.

        Raises
        ------
        ValueError
            It is none.
        """
        content = json.loads(line)
        if not isinstance(content, dict) or "ok" not in content:
            raise ValueError("not a reply")
        told = {name: content.pop(name, "") for name in ("v", "id", "ok", "state", "message")}
        return cls(str(told["id"]), bool(told["ok"]), str(told["state"]), str(told["message"]), content)


class Arguments(BaseModel):
    """Arguments of a verb; none, unless a subclass says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pause(Arguments):
    """``now`` closes the shutter at once instead of after the frame under way."""

    now: bool = False


class Place(Arguments):
    """A sample coordinate, um."""

    x_um: float
    y_um: float


class Relocate(Arguments):
    """A sample coordinate, um; none: the nearest fresh spot."""

    x_um: float | None = None
    y_um: float | None = None


class Limit(Arguments):
    """``value`` with its unit, of the limit ``name``; a looser one needs ``confirm`` and a ``reason``."""

    value: str = Field(max_length=64)
    name: str = Field("", max_length=200)
    confirm: bool = False
    reason: str = Field("", max_length=_LONGEST_TEXT)


class Note(Arguments):
    """A remark for the run and the ledger."""

    text: str = Field(min_length=1, max_length=_LONGEST_TEXT)


class Ending(Arguments):
    """Why the run is ended."""

    reason: str = Field("", max_length=_LONGEST_TEXT)


Verb = Literal["status", "pause", "resume", "propose", "relocate", "skip_spot", "limit", "note", "stop", "abort"]
ARGUMENTS: dict[str, type[Arguments]] = {
    "status": Arguments,
    "pause": Pause,
    "resume": Arguments,
    "propose": Place,
    "relocate": Relocate,
    "skip_spot": Arguments,
    "limit": Limit,
    "note": Note,
    "stop": Ending,
    "abort": Ending,
}


def printable(text: object, most: int) -> str:
    """Return `text` without control characters, at most `most` characters long."""
    return "".join(character for character in str(text) if character.isprintable())[:most].strip()


def finite(value: Any) -> Any:
    """Return `value` with None in place of NaN and infinities, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
