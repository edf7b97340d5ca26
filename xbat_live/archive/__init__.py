"""The archive: Tiled serves the runs, a buffered and backed-up writer fills it, and runs are read back.

Submodules are loaded when a name is first used: Tiled's libraries take seconds, and the server's process needs other
ones than the acquisition.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.archive.analyses import StoredAnalysis, StoredArray, list_analyses, open_analysis, store_analysis
    from xbat_live.archive.backup import RepairResult, repair
    from xbat_live.archive.brokering import broker
    from xbat_live.archive.connecting import connect
    from xbat_live.archive.frame_stack import Frames
    from xbat_live.archive.opening import open, open_archive
    from xbat_live.archive.profile import Profile, install_profile, read_profile, temporary_profile
    from xbat_live.archive.run import Run, open_run
    from xbat_live.archive.server import TiledServer, check_port
    from xbat_live.archive.serving import running_uri
    from xbat_live.archive.settings import DEFAULT_PORT, ArchiveError, ArchiveSettings
    from xbat_live.archive.writer import ArchiveReport, ArchiveWriter

__all__ = [
    "DEFAULT_PORT",
    "ArchiveError",
    "ArchiveReport",
    "ArchiveSettings",
    "ArchiveWriter",
    "Frames",
    "Profile",
    "RepairResult",
    "Run",
    "StoredAnalysis",
    "StoredArray",
    "TiledServer",
    "broker",
    "check_port",
    "connect",
    "install_profile",
    "list_analyses",
    "open",
    "open_analysis",
    "open_archive",
    "open_run",
    "read_profile",
    "repair",
    "running_uri",
    "store_analysis",
    "temporary_profile",
]

_MODULE_OF = {
    "DEFAULT_PORT": "settings",
    "ArchiveError": "settings",
    "ArchiveReport": "writer",
    "ArchiveSettings": "settings",
    "ArchiveWriter": "writer",
    "Frames": "frame_stack",
    "Profile": "profile",
    "RepairResult": "backup",
    "Run": "run",
    "StoredAnalysis": "analyses",
    "StoredArray": "analyses",
    "TiledServer": "server",
    "broker": "brokering",
    "check_port": "server",
    "connect": "connecting",
    "install_profile": "profile",
    "list_analyses": "analyses",
    "open": "opening",
    "open_analysis": "analyses",
    "open_archive": "opening",
    "open_run": "run",
    "read_profile": "profile",
    "repair": "backup",
    "running_uri": "serving",
    "temporary_profile": "profile",
    "store_analysis": "analyses",
}


def __getattr__(name: str) -> Any:
    """Load the submodule of a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
