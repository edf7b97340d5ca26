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
from xbat_live.dose.spots import next_spot
from xbat_live.dose.stack import Layer, LayerStack

__all__ = [
    "DOSE_MODELS",
    "UNLIMITED",
    "Beam",
    "DoseAccount",
    "DoseGrid",
    "DoseLimit",
    "DoseMap",
    "DoseRefused",
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
    "Material",
    "Record",
    "Reservation",
    "Settlement",
    "format_gy",
    "next_spot",
    "presets",
]
