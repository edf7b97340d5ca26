"""The archive: Tiled serves the runs, a buffered and backed-up writer fills it, and runs are read back.

Submodules are loaded when a name is first used: Tiled's libraries take seconds, and the server's process needs other
ones than the acquisition.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.archive.backup import RepairResult, repair
    from xbat_live.archive.reading import Frames, RunView, open_run
    from xbat_live.archive.server import TiledServer, check_port, serve
    from xbat_live.archive.settings import DEFAULT_PORT, ArchiveError, ArchiveSettings
    from xbat_live.archive.upload import connect
    from xbat_live.archive.writer import ArchiveReport, ArchiveWriter

__all__ = [
    "DEFAULT_PORT",
    "ArchiveError",
    "ArchiveReport",
    "ArchiveSettings",
    "ArchiveWriter",
    "Frames",
    "RepairResult",
    "RunView",
    "TiledServer",
    "check_port",
    "connect",
    "open_run",
    "repair",
    "serve",
]

_MODULE_OF = {
    "DEFAULT_PORT": "settings",
    "ArchiveError": "settings",
    "ArchiveReport": "writer",
    "ArchiveSettings": "settings",
    "ArchiveWriter": "writer",
    "Frames": "reading",
    "RepairResult": "backup",
    "RunView": "reading",
    "TiledServer": "server",
    "check_port": "server",
    "connect": "upload",
    "open_run": "reading",
    "repair": "backup",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    """Load the submodule of a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
