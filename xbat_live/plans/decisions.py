"""Soft records as Events: above all decisions and doses, the streams ``decision`` and ``spots``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xbat_live.devices import AnalysisRecord, DecisionRecord, PointRecord, SoftRecord, SpotRecord
from xbat_live.dose import DoseAccount
from xbat_live.plans._blocking import call_in
from xbat_live.plans.guard import DoseGuard
from xbat_live.versions import versions

DECISION, SPOTS = "decision", "spots"


@dataclass(frozen=True)
class Records:
    """The soft devices behind the streams ``primary`` (point), ``analysis``, ``decision`` and ``spots``."""

    point: PointRecord = field(default_factory=lambda: PointRecord(name="point"))
    analysis: AnalysisRecord = field(default_factory=lambda: AnalysisRecord(name="analysis"))
    decision: DecisionRecord = field(default_factory=lambda: DecisionRecord(name="decision"))
    spot: SpotRecord = field(default_factory=lambda: SpotRecord(name="spot"))


def code_version() -> str:
    """Return the versions that decide, for the decision record."""
    return ", ".join(f"{name} {version}" for name, version in versions("bluesky").items())


def save_record(record: SoftRecord, *, stream: str) -> MsgGenerator[None]:
    """Plan stub: save what a soft record holds now as one Event of `stream`."""
    yield from bps.create(name=stream)
    yield from bps.read(record)
    yield from bps.save()


def fill_decision(
    record: DecisionRecord,
    action: str,
    reason: str,
    *,
    seq_num: int = 0,
    spot: int = 0,
    threshold: float = math.nan,
    inputs: dict[str, Any] | None = None,
) -> None:
    """Put a decision into its record: what, why, from which inputs, against which threshold."""
    record.fill(
        action=action,
        reason=reason,
        spot=spot,
        seq_num=seq_num,
        threshold=threshold,
        inputs=json.dumps(inputs or {}, default=float),
        code_version=code_version(),
    )


def save_spots(guard: DoseGuard, record: SpotRecord) -> MsgGenerator[None]:
    """Plan stub: save what each spot of the present run has received, one Event per spot and label, in the stream ``spots``."""
    for values in (yield from call_in(guard.executor, lambda: list(spots_of_run(guard.account, guard.run_uid)))):
        record.fill(**values)
        yield from save_record(record, stream=SPOTS)


def spots_of_run(account: DoseAccount, run_uid: str) -> Iterator[dict[str, Any]]:
    """Yield the fields of `SpotRecord` for every spot and label of a run."""
    for number, spot in enumerate(spot for spot in account.spots() if spot.run_uid == run_uid):
        peaks = zip(account.targets, spot.doses, strict=True)
        yield {
            "number": number if spot.spot is None else spot.spot,
            "label": spot.label,
            "x_um": spot.x_um,
            "y_um": spot.y_um,
            "exposures": spot.exposures,
            "open_time_s": spot.open_time_s,
            "dose_gy": spot.dose_gy,
            "doses": json.dumps({f"{target.layer}/{target.material}": dose.peak_gy for target, dose in peaks}),
        }
