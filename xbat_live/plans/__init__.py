"""Plan stubs, preprocessors and plans of a dose-aware TXM beamline."""

from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.guard import (
    Delivery,
    DoseGuard,
    ExposureFailed,
    FluxCalibration,
    close_shutter,
    dose_guard_wrapper,
    guarded_exposure,
)
from xbat_live.plans.operando import operando_txm_series
from xbat_live.plans.protocols import AnalysedFrame, LiveAnalysis
from xbat_live.plans.series import (
    DriftPolicy,
    LimitBelowOneFrame,
    NoFreshSpot,
    Series,
    SeriesSummary,
    SpotChooser,
    measure_field,
    measure_spot,
    relocate,
)
from xbat_live.plans.stubs import Target, expose, move_to_spot, take_darks, take_flats
from xbat_live.plans.xanes import xanes_series

__all__ = [
    "AnalysedFrame",
    "Delivery",
    "DoseGuard",
    "DriftPolicy",
    "ExposureFailed",
    "FluxCalibration",
    "LimitBelowOneFrame",
    "LiveAnalysis",
    "NoFreshSpot",
    "Series",
    "SeriesSummary",
    "SpotChooser",
    "Target",
    "TimedStep",
    "close_shutter",
    "dose_guard_wrapper",
    "expose",
    "guarded_exposure",
    "measure_field",
    "measure_spot",
    "move_to_spot",
    "operando_txm_series",
    "relocate",
    "take_darks",
    "take_flats",
    "xanes_series",
]
