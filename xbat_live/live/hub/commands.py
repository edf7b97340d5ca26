"""Commands of operators on their way to the acquisition's control socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from xbat_live.live.runtime import socket_address
from xbat_live.live.wire import VERSION, WireError, parse

logger = logging.getLogger(__name__)

VERBS = (
    "status",
    "pause",
    "resume",
    "propose",
    "relocate",
    "skip_spot",
    "limit",
    "note",
    "stop",
    "abort",
)
ANSWER_WITHIN_S = 10.0
_MOST_LINE = 2**20


async def forward(socket: Path | None, message: dict[str, Any]) -> dict[str, Any]:
    """Send a command to the run at `socket` and return its answer; never raises for what a run or a page may do.

    Parameters
    ----------
    message
        ``id``, ``verb``, ``arguments`` and ``who``, as the page sent it.
    """
    verb, arguments = message.get("verb"), message.get("arguments") or {}
    if verb not in VERBS or not isinstance(arguments, dict):
        return {"ok": False, "message": f"command {verb!r} is unknown; known: {', '.join(VERBS)}"}
    if socket is None:
        return {"ok": False, "message": "no run is under way that could be steered"}
    request = {
        "v": VERSION,
        "id": str(message.get("id", ""))[:64],
        "verb": verb,
        "arguments": arguments,
        "who": (str(message.get("who") or "").strip() or "operator")[:64],
        "via": "page",
    }
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await _ask(socket, request)
    except TimeoutError:
        return {"ok": False, "message": f"no answer within {ANSWER_WITHIN_S:g} s; the command may still be carried out"}
    except (OSError, WireError, asyncio.IncompleteReadError, ValueError) as error:
        logger.warning("command %s: %s", verb, error)
        return {"ok": False, "message": f"the run cannot be reached: {error}"}


async def _ask(socket: Path, request: dict[str, Any]) -> dict[str, Any]:
    with socket_address(socket) as name:
        reader, writer = await asyncio.open_unix_connection(name, limit=_MOST_LINE)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        while True:
            answer = parse(await reader.readuntil(b"\n"))
            if answer.get("id") == request["id"]:
                return answer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
