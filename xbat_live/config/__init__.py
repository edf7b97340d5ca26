"""One typed configuration of an experiment: beamline, sample, dose, plan. TOML, with a unit on every number.

Submodules are loaded when a name is first used: commands that need no configuration start in half the time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.config.camera import CameraSection
    from xbat_live.config.errors import ConfigError
    from xbat_live.config.experiment import ExperimentConfig, load_config, make_config
    from xbat_live.config.optical import OpticalSection
    from xbat_live.config.sections import (
        ArchiveSection,
        BeamlineSection,
        BeamSection,
        ChannelAccess,
        DoseSection,
        LayerSection,
        LimitSection,
        LiveSection,
        PartSection,
        PlanSection,
        ProtocolStep,
        SampleSection,
        WatchdogSection,
    )
    from xbat_live.config.writing import recorded_config
    from xbat_live.config.xas import XasSection

__all__ = [
    "ArchiveSection",
    "BeamSection",
    "BeamlineSection",
    "CameraSection",
    "ChannelAccess",
    "ConfigError",
    "DoseSection",
    "ExperimentConfig",
    "LayerSection",
    "LimitSection",
    "LiveSection",
    "OpticalSection",
    "PartSection",
    "PlanSection",
    "ProtocolStep",
    "SampleSection",
    "WatchdogSection",
    "XasSection",
    "load_config",
    "make_config",
    "recorded_config",
]

_MODULE_OF = {
    "ArchiveSection": "sections",
    "BeamSection": "sections",
    "BeamlineSection": "sections",
    "CameraSection": "camera",
    "ChannelAccess": "sections",
    "ConfigError": "errors",
    "DoseSection": "sections",
    "ExperimentConfig": "experiment",
    "LayerSection": "sections",
    "LimitSection": "sections",
    "LiveSection": "sections",
    "OpticalSection": "optical",
    "PartSection": "sections",
    "PlanSection": "sections",
    "ProtocolStep": "sections",
    "SampleSection": "sections",
    "WatchdogSection": "sections",
    "XasSection": "xas",
    "load_config": "experiment",
    "make_config": "experiment",
    "recorded_config": "writing",
}


def __getattr__(name: str) -> Any:
    """Load the submodule of a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
