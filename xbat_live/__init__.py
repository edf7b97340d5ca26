"""Dose-aware acquisition and live analysis for operando X-ray imaging of batteries.

Results are read with ``import xbat_live as xb; run = xb.open("last")``; see `open` and `Run`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.archive import ArchiveError, Run, broker, open, open_archive

try:
    __version__ = version("xbat-live")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["ArchiveError", "Run", "__version__", "broker", "open", "open_archive"]


def __getattr__(name: str) -> Any:
    """Load what reads results when it is first used: importing the package stays quick."""
    if name in __all__:
        return getattr(import_module("xbat_live.archive"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
