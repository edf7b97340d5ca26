"""ophyd devices of a TXM beamline: one set of classes for a real beamline and for simulated IOCs.

Loading ophyd starts the Channel Access library, which reads its ``EPICS_CA_*`` variables in that moment. The names
below are therefore loaded when first used: ``from xbat_live.devices import configure_channel_access`` does not load
ophyd yet.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbat_live.devices.beam import Attenuator, IonChamber, StorageRing
    from xbat_live.devices.beamline import (
        BeamlineConnectionError,
        BeamlineUnitError,
        DevicePrefixes,
        PvReport,
        TxmBeamline,
        build_beamline,
        connection_report,
        wait_for_connection,
    )
    from xbat_live.devices.burst import FrameBurst
    from xbat_live.devices.camera import Roi, TxmCamera
    from xbat_live.devices.cube_records import CubeEnd, CubeRecord, CubeStart, XasRecord
    from xbat_live.devices.dose_monitor import DoseMonitor
    from xbat_live.devices.energy_sweep import EnergySweep, SweepError
    from xbat_live.devices.epics import ChannelAccessError, configure_channel_access, set_default_timeouts
    from xbat_live.devices.file_store import (
        FRAME_DATASETS,
        SINGLE_DATASET,
        FrameAddress,
        FrameFilePlugin,
        FrameRows,
        FrameWriteError,
    )
    from xbat_live.devices.microscope import OpticalCamera
    from xbat_live.devices.monochromator import Monochromator
    from xbat_live.devices.potentiostat import Potentiostat, PotentiostatError, PotentiostatStep
    from xbat_live.devices.shutter import FastShutter, OpenFor, ShutterError, ShutterHeld
    from xbat_live.devices.soft import (
        AnalysisRecord,
        DecisionRecord,
        DoseRecord,
        OperatorRecord,
        PointRecord,
        SoftRecord,
        SoftSignal,
        SpotRecord,
    )
    from xbat_live.devices.stage import TxmMotor, TxmStage
    from xbat_live.devices.trigger import SafeSingleTrigger

_HOME = {
    "beam": ("Attenuator", "IonChamber", "StorageRing"),
    "beamline": (
        "BeamlineConnectionError",
        "BeamlineUnitError",
        "DevicePrefixes",
        "PvReport",
        "TxmBeamline",
        "build_beamline",
        "connection_report",
        "wait_for_connection",
    ),
    "burst": ("FrameBurst",),
    "camera": ("Roi", "TxmCamera"),
    "cube_records": ("CubeEnd", "CubeRecord", "CubeStart", "XasRecord"),
    "dose_monitor": ("DoseMonitor",),
    "energy_sweep": ("EnergySweep", "SweepError"),
    "epics": ("ChannelAccessError", "configure_channel_access", "set_default_timeouts"),
    "file_store": (
        "FRAME_DATASETS",
        "SINGLE_DATASET",
        "FrameAddress",
        "FrameFilePlugin",
        "FrameRows",
        "FrameWriteError",
    ),
    "microscope": ("OpticalCamera",),
    "monochromator": ("Monochromator",),
    "potentiostat": ("Potentiostat", "PotentiostatError", "PotentiostatStep"),
    "shutter": ("FastShutter", "OpenFor", "ShutterError", "ShutterHeld"),
    "soft": (
        "AnalysisRecord",
        "DecisionRecord",
        "DoseRecord",
        "OperatorRecord",
        "PointRecord",
        "SoftRecord",
        "SoftSignal",
        "SpotRecord",
    ),
    "stage": ("TxmMotor", "TxmStage"),
    "trigger": ("SafeSingleTrigger",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "FRAME_DATASETS",
    "SINGLE_DATASET",
    "AnalysisRecord",
    "Attenuator",
    "BeamlineConnectionError",
    "BeamlineUnitError",
    "ChannelAccessError",
    "CubeEnd",
    "CubeRecord",
    "CubeStart",
    "DecisionRecord",
    "DevicePrefixes",
    "DoseMonitor",
    "DoseRecord",
    "EnergySweep",
    "FastShutter",
    "FrameAddress",
    "FrameBurst",
    "FrameFilePlugin",
    "FrameRows",
    "FrameWriteError",
    "IonChamber",
    "Monochromator",
    "OpenFor",
    "OperatorRecord",
    "OpticalCamera",
    "PointRecord",
    "Potentiostat",
    "PotentiostatError",
    "PotentiostatStep",
    "PvReport",
    "Roi",
    "SafeSingleTrigger",
    "ShutterError",
    "ShutterHeld",
    "SoftRecord",
    "SoftSignal",
    "SpotRecord",
    "StorageRing",
    "SweepError",
    "TxmBeamline",
    "TxmCamera",
    "TxmMotor",
    "TxmStage",
    "XasRecord",
    "build_beamline",
    "configure_channel_access",
    "connection_report",
    "set_default_timeouts",
    "wait_for_connection",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
