"""Which archive is meant: by address, folder, environment or Tiled profile."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from xbat_live.archive.profile import PROFILE, read_profile
from xbat_live.archive.server import TiledServer
from xbat_live.archive.serving import running_uri
from xbat_live.archive.settings import ArchiveError, ArchiveSettings

URI_VARIABLE = "XBAT_ARCHIVE__URI"
KEY_VARIABLES = ("XBAT_ARCHIVE__API_KEY", "TILED_API_KEY")


def find_archive(
    *,
    uri: str | None = None,
    api_key: str | None = None,
    folder: Path | str | None = None,
    profile: str | None = None,
) -> tuple[str, str | None, str]:
    """Return address and key of the archive that is meant, and who said so when nobody gave it here; see `xbat_live.open`."""
    if folder is not None:
        if uri is not None or profile is not None:
            raise ArchiveError("give one of uri, folder and profile: which archive is meant?")
        return *_serve_folder(Path(folder)), ""
    if uri is not None:
        return uri, api_key or _key_of_environment(), ""
    if profile is None and (uri := os.environ.get(URI_VARIABLE)):
        return uri, api_key or _key_of_environment(), URI_VARIABLE
    found = read_profile(profile or PROFILE)
    if found is None:
        raise ArchiveError(
            f"which archive? There is no Tiled profile {profile or PROFILE!r} and no {URI_VARIABLE}; start one with `xbat serve FOLDER`, "
            "or name one: uri and api_key, or folder"
        )
    return found.uri, api_key or found.api_key or _key_of_environment(), f"the Tiled profile {found.file}"


def _key_of_environment() -> str | None:
    return next((key for name in KEY_VARIABLES if (key := os.environ.get(name))), None)


def _serve_folder(folder: Path) -> tuple[str, str]:
    settings = ArchiveSettings(folder)
    if not settings.exists:
        raise ArchiveError(f"{folder}: no archive there; name the folder that `xbat serve` or `xbat run` made")
    if (uri := running_uri(settings.directory)) is not None:
        return uri, settings.key()
    server = TiledServer.as_before(folder).start()
    atexit.register(server.stop)
    server.wait_ready()
    return server.uri, server.api_key
