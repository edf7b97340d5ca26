"""X-ray dose: physics of layer stacks, maps on the sample, a durable ledger, limits that refuse, fresh spots.

Pure numerics and one SQLite file; knows nothing of devices or plans.
"""

from __future__ import annotations

from xbat_live.dose import presets
from xbat_live.dose.account import UNLIMITED, DoseAccount
from xbat_live.dose.beam import Beam
from xbat_live.dose.cross_sections import DOSE_MODELS
from xbat_live.dose.exposure import DoseMap, DoseRefused, ExposureRequest, FootprintDose, Reservation, Settlement
from xbat_live.dose.grid import DoseGrid
from xbat_live.dose.ledger import Entry, Ledger, LedgerCorrupt, LedgerError, LedgerLocked, LedgerTooNew, Record
from xbat_live.dose.limits import DoseLimit, format_gy
from xbat_live.dose.materials import Material
from xbat_live.dose.places import Proposal, propose
from xbat_live.dose.position import POSITION_SIGMAS, CarriedPosition, SamplePosition, carried_position
from xbat_live.dose.rate_map import DoseRateReport, dose_rate_map, dose_rate_report
from xbat_live.dose.rate_masks import DoseMasks, dose_masks, dose_rate_histogram
from xbat_live.dose.spectrum import Spectrum, scan_dose_per_fluence
from xbat_live.dose.spots import electron_range_um, guard_distance_um, next_spot, spill_over_gy
from xbat_live.dose.stack import Layer, LayerStack
from xbat_live.dose.status import AccountStatus, LimitState, OpenTimeMap, RateMap, SpotDose
from xbat_live.dose.tracks import DoseTarget
from xbat_live.dose.uncertainty import DoseUncertainty, relative_dose_uncertainty
from xbat_live.dose.verify import VerifyReport

__all__ = [
    "DOSE_MODELS",
    "POSITION_SIGMAS",
    "UNLIMITED",
    "AccountStatus",
    "Beam",
    "CarriedPosition",
    "DoseAccount",
    "DoseGrid",
    "DoseLimit",
    "DoseMap",
    "DoseMasks",
    "DoseRateReport",
    "DoseRefused",
    "DoseTarget",
    "DoseUncertainty",
    "Entry",
    "ExposureRequest",
    "FootprintDose",
    "Layer",
    "LayerStack",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerLocked",
    "LedgerTooNew",
    "LimitState",
    "Material",
    "OpenTimeMap",
    "Proposal",
    "RateMap",
    "Record",
    "Reservation",
    "SamplePosition",
    "Settlement",
    "Spectrum",
    "SpotDose",
    "VerifyReport",
    "carried_position",
    "dose_masks",
    "dose_rate_histogram",
    "dose_rate_map",
    "dose_rate_report",
    "electron_range_um",
    "format_gy",
    "guard_distance_um",
    "next_spot",
    "presets",
    "propose",
    "relative_dose_uncertainty",
    "scan_dose_per_fluence",
    "spill_over_gy",
]
