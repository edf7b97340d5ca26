"""Who may look, who may steer, and how much: tokens, origins, rates, headers."""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}
"""Sent with every answer. Nothing is loaded from elsewhere, no script or style stands in the page, nobody may frame it."""


@dataclass(frozen=True)
class Tokens:
    """The secrets of the two roles."""

    viewer: str
    operator: str

    @classmethod
    def in_folder(cls, folder: Path) -> Tokens:
        """Read the files ``viewer.token`` and ``operator.token`` of mode 0600; make those that are not there.

        Raises
        ------
        PermissionError
            Others can read one of them.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(*(_token(folder / f"{role}.token") for role in ROLES))

    def role(self, token: object) -> Role | None:
        """Return what the holder of `token` may do; None: nothing."""
        given = token.encode() if isinstance(token, str) else b""
        # both are compared, whatever the first says: the time tells nothing
        found: dict[Role, bool] = {role: hmac.compare_digest(given, getattr(self, role).encode()) for role in ROLES}
        return "operator" if found["operator"] else "viewer" if found["viewer"] else None


def _token(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if file.stat().st_mode & 0o077:
            raise PermissionError(f"{file}: others can read this token; delete the file, a new one is made") from None
        token = file.read_text().strip()
        if len(token) >= 16:
            return token
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)  # cut off while it was written
    token = secrets.token_urlsafe(24)
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
    return token


@dataclass
class Rate:
    """A token bucket: `burst` at once, `per_s` on the long run.

    Attributes
    ----------
    per_s, burst
        See above.
    """

    per_s: float
    burst: float
    _left: float = field(init=False)
    _at_s: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._left = self.burst

    def allows(self) -> bool:
        """Take one; False when there is none."""
        now_s = time.monotonic()
        self._left = min(self.burst, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Attempts:
    """Wrong tokens by address: after some, that address has to wait."""

    def __init__(self, *, per_s: float = 0.2, burst: float = 10, most_addresses: int = 1000) -> None:
        self._per_s, self._burst, self._most = per_s, burst, most_addresses
        self._rates: dict[str, Rate] = {}
        self._blocked: dict[str, float] = {}

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        if len(self._rates) >= self._most and address not in self._rates:
            self._rates.pop(next(iter(self._rates)))
        if not self._rates.setdefault(address, Rate(self._per_s, self._burst)).allows():
            self._blocked[address] = time.monotonic() + 1 / self._per_s

    def blocked(self, address: str) -> bool:
        """Whether this address has to wait."""
        until_s = self._blocked.get(address)
        if until_s is not None and until_s <= time.monotonic():
            del self._blocked[address]
            return False
        return until_s is not None


class Origins:
    """Which names this hub may be called by.

    A browser tells on every websocket which page opened it: another site's page, which a person on the beamline network has open,
    could else use the person's access. The ``Host`` is held against the same names, against DNS rebinding.

    Parameters
    ----------
    port
        Where the hub listens.
    more
        Origins behind which a reverse proxy serves the hub, e.g. ``https://beamline.example.org``.

    Raises
    ------
    ValueError
        One of `more` is no origin.
    """

    def __init__(self, port: int, more: Iterable[str] = ()) -> None:
        self._origins = {f"http://{name}:{port}" for name in LOOPBACK}
        self._hosts = {f"{name}:{port}" for name in LOOPBACK}
        for origin in more:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
                raise ValueError(
                    f"{origin!r} is no origin; write scheme, host and port only, e.g. https://beamline.example.org"
                )
            self._origins.add(f"{parts.scheme}://{parts.netloc}".lower())
            self._hosts.add(parts.netloc.lower())

    def allows_host(self, host: str | None) -> bool:
        """Whether the header ``Host`` names this hub."""
        return (host or "").lower() in self._hosts

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a websocket of this origin may come in; programs send none, and have to send a token all the same."""
        return origin is None or origin.lower() in self._origins
