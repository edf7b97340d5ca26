"""Messages between acquisition, hub and page: a JSON header, and bytes for images.

On the acquisition's socket a message is two unsigned 32-bit numbers (length of header and of body, big endian), the header and
the body. On a websocket a message without a body is a text message, one with a body is binary: length of the header (unsigned 32
bit, big endian), header, body; so the hub passes an image on as it came.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from typing import Any

VERSION = 1
VIEWS = ("raw", "aligned", "difference", "fft")
"""What can be shown of a frame."""
MOST_HEADER = 8 * 2**20
MOST_BODY = 32 * 2**20
_TWO = struct.Struct(">II")
_ONE = struct.Struct(">I")


class WireError(ValueError):
    """Bytes that are no message of this protocol."""


def finite(value: Any) -> Any:
    """Return `value` with NaN and infinities as None, numpy scalars as numbers: JSON knows neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return value


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as JSON, UTF-8."""
    return json.dumps({"v": VERSION, **message}, separators=(",", ":"), allow_nan=False, default=str).encode()


def pack(header: bytes, body: bytes = b"") -> bytes:
    """Return a message for the acquisition's socket."""
    return _TWO.pack(len(header), len(body)) + header + body


def pack_binary(header: bytes, body: bytes) -> bytes:
    """Return a binary websocket message."""
    return _ONE.pack(len(header)) + header + body


async def read_message(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Read one message from the acquisition's socket.

    Raises
    ------
    WireError
        Too large, no JSON, or another version.
    asyncio.IncompleteReadError
        The other side is gone.
    """
    header_length, body_length = _TWO.unpack(await reader.readexactly(_TWO.size))
    if header_length > MOST_HEADER or body_length > MOST_BODY:
        raise WireError(
            f"a message of {header_length} + {body_length} bytes; at most {MOST_HEADER} + {MOST_BODY} are read"
        )
    header = parse(await reader.readexactly(header_length))
    return header, await reader.readexactly(body_length)


def parse(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object in `text`.

    Raises
    ------
    WireError
        It is no JSON object of this protocol's version.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError("a message must be a JSON object")
    if message.get("v") != VERSION:
        raise WireError(f"version {message.get('v')!r} of the protocol is not spoken here, only {VERSION}")
    return message
