"""Versions of the packages that made a result, for its provenance."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from xbat_live import __version__


@cache
def _version(package: str) -> str:
    return version(package)  # reads and parses a file each time


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of xbat_live and of the named distributions.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        One is not installed.
    """
    return {"xbat_live": __version__, **{name: _version(name) for name in packages}}
