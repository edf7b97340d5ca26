"""Reach a Tiled server, quickly, and say clearly when it is not there or refuses the key."""

from __future__ import annotations

from typing import Any

from xbat_live.archive.settings import ArchiveError

CONNECT_TIMEOUT_S = 3.0
REQUEST_TIMEOUT_S = 30.0


class KeyRefusedError(ArchiveError):
    """The server wants another API key."""


def connect(uri: str, api_key: str | None = None) -> Any:
    """Return a Tiled client for `uri`, with timeouts that suit a server nearby; ``client.context.close()`` ends it.

    Raises
    ------
    ArchiveError
        Nothing answers there, or something else than Tiled.
    KeyRefusedError
        The key is wrong, or there is none.
    """
    import httpx
    from tiled.client.constructors import from_context
    from tiled.client.context import Context

    api_key = None if api_key is None else api_key.strip()  # as a file's content has it: with a line end
    _check_tiled(uri)  # the client itself would go on trying for 45 s
    timeout = httpx.Timeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    context, path = Context.from_any_uri(
        uri, api_key=api_key, timeout=timeout, trust_env=not is_local(uri), show_progress=False
    )
    try:
        return from_context(context, node_path_parts=path)
    except httpx.HTTPStatusError as error:
        context.close()
        if error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise refused(uri) from error
        raise
    except RuntimeError as error:  # Tiled's own word for no key at all
        context.close()
        raise refused(uri) from error


def _check_tiled(uri: str) -> None:
    import httpx

    root = uri.partition("?")[0].partition("/api/v1")[0].rstrip("/")
    try:
        answer = httpx.get(f"{root}/api/v1/", timeout=2.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise no_answer(uri) from error
    if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        return  # it may be starting: the client waits
    try:
        about = answer.json()
    except ValueError:
        about = None
    if not (isinstance(about, dict) and "api_version" in about):
        raise not_tiled(uri)


def answers(uri: str) -> bool:
    """Tell whether an HTTP server answers at `uri` within two seconds."""
    import httpx

    try:
        httpx.get(uri, timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def is_local(uri: str) -> bool:
    """Tell whether `uri` is of this machine, where no proxy is asked."""
    return any(f"//{host}" in uri for host in ("127.", "localhost", "[::1]"))


def no_answer(uri: str) -> ArchiveError:
    """Return the error of a server that is not there."""
    return ArchiveError(f"no Tiled server answers at {uri}; start it with: xbat serve")


def not_tiled(uri: str) -> ArchiveError:
    """Return the error of another server."""
    return ArchiveError(
        f"what answers at {uri} is no Tiled server; an archive's address is the one that `xbat serve` prints, "
        "http://HOST:PORT/api/v1"
    )


def refused(uri: str) -> KeyRefusedError:
    """Return the error of a wrong key, or of none."""
    return KeyRefusedError(
        f"the Tiled server at {uri} refuses the API key; the right one is in `api_key` in the archive's folder"
    )
