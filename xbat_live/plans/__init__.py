"""Plan stubs, preprocessors and plans of a dose-aware TXM beamline."""

from xbat_live.plans.bulletin import DoseWarning
from xbat_live.plans.calibrate import CalibrationSummary, calibrate_stage
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.exposure import Delivery, ExposureFailed, guarded_exposure
from xbat_live.plans.ffi_xas import operando_ffi_xas
from xbat_live.plans.fly import guarded_flight
from xbat_live.plans.fresh_spots import fresh_spots_protocol
from xbat_live.plans.guard import POLICIES, DoseGuard, FluxCalibration, close_shutter
from xbat_live.plans.low_rate import attenuated, attenuated_series, intermittent_series
from xbat_live.plans.operando import operando_txm_series
from xbat_live.plans.optical import optical_series
from xbat_live.plans.protocol_state import ProtocolMismatchError, ProtocolState, load_state, save_state
from xbat_live.plans.protocols import (
    AnalysedFrame,
    CubeAnalysis,
    CubeResult,
    Divisible,
    FluxMonitor,
    LiveAnalysis,
    NeedsBeam,
    SpotChooser,
)
from xbat_live.plans.scripted import ScanStep, scripted_series
from xbat_live.plans.series import (
    DriftPolicy,
    LimitBelowOneFrame,
    NoFreshSpot,
    Series,
    SeriesSummary,
    measure_field,
    measure_spot,
    relocate,
)
from xbat_live.plans.steering import Order, Phase, Steering, SteeringRefused
from xbat_live.plans.steering_wrapper import steering_wrapper
from xbat_live.plans.strategies import graded_exposure, move_every_scan
from xbat_live.plans.stubs import Target, expose, move_to_spot, take_darks, take_flats
from xbat_live.plans.wrapper import dose_guard_wrapper
from xbat_live.plans.xanes import xanes_series

__all__ = [
    "POLICIES",
    "AnalysedFrame",
    "CalibrationSummary",
    "CubeAnalysis",
    "CubeResult",
    "Delivery",
    "Divisible",
    "DoseGuard",
    "DoseWarning",
    "DriftPolicy",
    "ExposureFailed",
    "FluxCalibration",
    "FluxMonitor",
    "LimitBelowOneFrame",
    "LiveAnalysis",
    "NeedsBeam",
    "NoFreshSpot",
    "Order",
    "Phase",
    "ProtocolMismatchError",
    "ProtocolState",
    "ScanStep",
    "Series",
    "SeriesSummary",
    "SpotChooser",
    "Steering",
    "SteeringRefused",
    "Target",
    "TimedStep",
    "attenuated",
    "attenuated_series",
    "calibrate_stage",
    "close_shutter",
    "dose_guard_wrapper",
    "expose",
    "fresh_spots_protocol",
    "graded_exposure",
    "guarded_exposure",
    "guarded_flight",
    "intermittent_series",
    "load_state",
    "measure_field",
    "measure_spot",
    "move_every_scan",
    "move_to_spot",
    "operando_ffi_xas",
    "operando_txm_series",
    "optical_series",
    "relocate",
    "save_state",
    "scripted_series",
    "steering_wrapper",
    "take_darks",
    "take_flats",
    "xanes_series",
]
