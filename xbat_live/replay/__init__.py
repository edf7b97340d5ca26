"""Replay: a past run decided again, on its documents or by its plan against simulated IOCs that play it.

Submodules are loaded when a name is first used: documents need no ophyd.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.replay import show
    from xbat_live.replay.comparison import Comparison, compare
    from xbat_live.replay.configuring import replay_config
    from xbat_live.replay.documents import replay_documents
    from xbat_live.replay.frames_only import load_frames
    from xbat_live.replay.outcome import Outcome
    from xbat_live.replay.recording import Recording, ReplayError
    from xbat_live.replay.tiled_runs import load_run

__all__ = [
    "Comparison",
    "Outcome",
    "Recording",
    "ReplayError",
    "compare",
    "load_frames",
    "load_run",
    "replay_config",
    "replay_documents",
    "show",
]

_MODULE_OF = {
    "Comparison": "comparison",
    "Outcome": "outcome",
    "Recording": "recording",
    "ReplayError": "recording",
    "compare": "comparison",
    "load_frames": "frames_only",
    "load_run": "tiled_runs",
    "replay_config": "configuring",
    "replay_documents": "documents",
}


def __getattr__(name: str) -> Any:
    """Load the submodule of a public name."""
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    if name == "show":
        return import_module(f"{__name__}.show")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
