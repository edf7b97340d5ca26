"""Open a run of the archive that is meant: ``xbat_live.open``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbat_live.archive.connecting import connect
from xbat_live.archive.finding import find_archive
from xbat_live.archive.run import Run, open_run
from xbat_live.archive.settings import ArchiveError


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
    address, key, told_by = find_archive(uri=uri, api_key=api_key, folder=folder, profile=profile)
    try:
        return connect(address, key)
    except ArchiveError as error:
        if not told_by:
            raise
        raise ArchiveError(f"{error} (address from {told_by})") from error
