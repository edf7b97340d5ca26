"""How exposures are written into records, and how the dose per fluence is read from them again."""

from __future__ import annotations

import json
from typing import Any

from xbat_live.dose.exposure import ExposureRequest, PriorDose
from xbat_live.dose.records import Entry, Kind
from xbat_live.dose.tracks import Tracks

_FACTORS_KEPT = 100_000


def exposure_entry(
    tracks: Tracks,
    model_id: str,
    kind: Kind,
    request: ExposureRequest,
    *,
    gray_cm2: tuple[float, ...],
    profile_id: str,
    **columns: Any,
) -> Entry:
    """Return the record of an exposure; `gray_cm2` is the dose per fluence of every target (empty: beside the sample)."""
    return Entry(
        kind,
        gy_cm2=gray_cm2[0] if gray_cm2 else 0.0,
        also_gy_cm2=_also_json(tracks, gray_cm2),
        profile_id=profile_id,
        model_id=model_id,
        **{name: value for name, value in vars(request).items() if name != "energies_ev"},  # the mean is in gy_cm2
        **columns,
    )


def prior_entry(prior: PriorDose, material: str, layer: str, model_id: str) -> Entry:
    """Return the record of a dose given before."""
    return Entry(
        "prior",
        note=prior.reason,
        x_um=prior.x_um,
        y_um=prior.y_um,
        size_x_um=prior.size_um[0],
        size_y_um=prior.size_um[1],
        prior_gy=prior.dose_gy,
        layer=layer,
        material=material,
        model_id=model_id,
    )


def _also_json(tracks: Tracks, gray_cm2: tuple[float, ...]) -> str | None:
    """Write the dose per fluence of all targets but the primary one for a record; None when there are none."""
    if len(gray_cm2) <= 1:
        return None
    rows = zip(tracks.targets[1:], gray_cm2[1:], strict=True)
    return json.dumps([[target.layer, target.material, value] for target, value in rows])


class Factors:
    """Dose per fluence of all targets for the records of a ledger.

    A record keeps it as computed then; it is computed anew for targets it does not have, and for a stack or dose model
    that is not the account's.
    """

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._model_id = tracks.model_id
        self._known: dict[tuple[object, ...], tuple[float, ...]] = {}
        self.converted = 0

    def of(self, model_id: str, energy_ev: float, gray_cm2: float, also: str | None) -> tuple[float, ...]:
        """Return it for the columns of a record."""
        if model_id != self._model_id:
            self.converted += 1
            return self._tracks.gray_cm2(energy_ev)
        key = (energy_ev, gray_cm2, also)
        known = self._known.get(key)
        if known is None:
            if len(self._known) > _FACTORS_KEPT:
                self._known.clear()
            known = self._known[key] = self._compose(energy_ev, gray_cm2, also)
        return known

    def computed(self, model_id: str, also: str | None) -> bool:
        """Return whether something has to be computed anew for a record with these columns."""
        return model_id != self._model_id or (len(self._tracks.targets) > 1 and also is None)

    def _compose(self, energy_ev: float, gray_cm2: float, also: str | None) -> tuple[float, ...]:
        others = self._tracks.targets[1:]
        recorded = {(layer, material): float(value) for layer, material, value in json.loads(also or "[]")}
        values = [recorded.get((target.layer, target.material)) for target in others]
        if None in values:
            computed = self._tracks.gray_cm2(energy_ev)[1:]
            values = [new if old is None else old for old, new in zip(values, computed, strict=True)]
        return (float(gray_cm2), *(value for value in values if value is not None))
