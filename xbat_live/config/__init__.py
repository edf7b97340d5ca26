"""One typed configuration of an experiment: beamline, sample, dose, plan. TOML, with a unit on every number."""

from xbat_live.config.camera import CameraSection
from xbat_live.config.experiment import ConfigError, ExperimentConfig, load_config, make_config
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
