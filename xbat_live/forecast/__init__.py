"""What a run will do, before there is beam: the real plan walked on stand-ins, and GO, WARN or NO-GO.

Imports what it needs when it is used: `xbat plan` has two seconds.
"""

from __future__ import annotations

from xbat_live.forecast.facts import Exposing, Forecast, LimitUse, Mark, MaterialDose, Refusal, SpotUse, Verdict
from xbat_live.forecast.predict import forecast
from xbat_live.forecast.standins import Timing
from xbat_live.forecast.verdict import NoGoError, judge, refuse_or_record

__all__ = [
    "Exposing",
    "Forecast",
    "LimitUse",
    "Mark",
    "MaterialDose",
    "NoGoError",
    "Refusal",
    "SpotUse",
    "Timing",
    "Verdict",
    "forecast",
    "judge",
    "refuse_or_record",
]
