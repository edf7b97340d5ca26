"""The guard process: closes the shutter and writes the dose down when the acquisition cannot.

Nothing is loaded here: the process is small, and who starts it needs only `start_guard`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.watchdog.launch import GuardProcess, start_guard
    from xbat_live.watchdog.process import run_guard

_MODULE_OF = {"GuardProcess": "launch", "start_guard": "launch", "run_guard": "process"}

__all__ = ["GuardProcess", "run_guard", "start_guard"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
