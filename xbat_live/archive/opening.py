"""Find the archive that is meant, and open a run of it: ``xbat_live.open``."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

from xbat_live.archive.profile import PROFILE, read_profile
from xbat_live.archive.run import Run, open_run
from xbat_live.archive.server import TiledServer
from xbat_live.archive.serving import running_uri
from xbat_live.archive.settings import ArchiveError, ArchiveSettings
from xbat_live.archive.upload import connect

URI_VARIABLE = "XBAT_ARCHIVE__URI"
KEY_VARIABLES = ("XBAT_ARCHIVE__API_KEY", "TILED_API_KEY")


def open(
    which: str | int = "last",
    *,
    uri: str | None = None,
    api_key: str | None = None,
    folder: Path | str | None = None,
    profile: str | None = None,
) -> Run:
    """Open a run of an archive.

    Parameters
    ----------
    which
        ``"last"``, a uid or its first characters (at least 5), or a scan number.
    uri, api_key
        Of a running Tiled server. Left out: the variables ``XBAT_ARCHIVE__URI`` and ``XBAT_ARCHIVE__API_KEY`` (or
        ``TILED_API_KEY``), else the Tiled profile ``xbat``, which `xbat serve` and `xbat run` write.
    folder
        Folder of an archive, e.g. ``"my-cell/archive"``; its server is started when it does not run, and ends with this process.
    profile
        Another Tiled profile.

    Raises
    ------
    ArchiveError
        No archive is named or answers, the key is wrong, or there is no such run. The message names the remedy.

    Examples
    --------
    >>> import xbat_live as xb  # doctest: +SKIP
    >>> run = xb.open("last")  # doctest: +SKIP
    >>> run.frames(accepted=True, aligned=True, normalised=True)  # doctest: +SKIP
    """
    return open_run(open_archive(uri=uri, api_key=api_key, folder=folder, profile=profile), which)


def open_archive(
    *,
    uri: str | None = None,
    api_key: str | None = None,
    folder: Path | str | None = None,
    profile: str | None = None,
) -> Any:
    """Return Tiled's client of an archive; see `open` for how it is found and for the errors."""
    if folder is not None:
        if uri is not None or profile is not None:
            raise ArchiveError("give one of uri, folder and profile: which archive is meant?")
        return connect(*_serve_folder(Path(folder)))
    if uri is None and profile is None:
        uri = os.environ.get(URI_VARIABLE)
    if uri is not None:
        return connect(uri, api_key or _key_of_environment())
    found = read_profile(profile or PROFILE)
    if found is None:
        raise ArchiveError(
            f"which archive? There is no Tiled profile {profile or PROFILE!r} and no {URI_VARIABLE}; start one with `xbat serve FOLDER`, "
            "or name one: uri and api_key, or folder"
        )
    try:
        return connect(found.uri, api_key or found.api_key or _key_of_environment())
    except ArchiveError as error:
        raise ArchiveError(f"{error} (address from the Tiled profile {found.file})") from error


def _key_of_environment() -> str | None:
    return next((key for name in KEY_VARIABLES if (key := os.environ.get(name))), None)


def _serve_folder(folder: Path) -> tuple[str, str]:
    settings = ArchiveSettings(folder)
    if not settings.exists:
        raise ArchiveError(f"{folder}: no archive there; name the folder that `xbat serve` or `xbat run` made")
    if (uri := running_uri(settings.directory)) is not None:
        return uri, settings.key()
    server = TiledServer(folder, readable_storage=settings.known_storage()).start()
    atexit.register(server.stop)
    server.wait_ready()
    return server.uri, server.api_key
