"""Reading a ledger back as exposures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xbat_live.dose.exposure import ExposureRequest
from xbat_live.dose.ledger import Entry, Kind, Ledger, LedgerCorrupt
from xbat_live.dose.profiles import Profile, profile_from_record

_REQUEST_COLUMNS = ("x_um", "y_um", "energy_ev", "open_time_s", "flux_ph_s", "run_uid", "label", "on_sample")


@dataclass(frozen=True)
class RecordedExposure:
    """An exposure as the ledger has it.

    Attributes
    ----------
    request
        Position, energy, time, flux.
    profile
        Shape of the beam at that time; None: not recorded.
    gy_cm2
        Dose per fluence as computed then, Gy cm2 per photon.
    model_id
        Definition it was computed with.
    """

    request: ExposureRequest
    profile: Profile | None
    gy_cm2: float
    model_id: str


def recorded(ledger: Ledger) -> Iterator[tuple[int, Kind, int | None, RecordedExposure | None]]:
    """Return number, kind, ended reservation and exposure (None for notes and voids) of all records, in order.

    Raises
    ------
    LedgerCorrupt
        A record holds impossible values, or refers to a definition that is missing.
    """
    profiles: dict[str, Profile] = {}
    for record in ledger.records():
        entry = record.entry
        if entry.kind in ("note", "void"):
            yield record.seq, entry.kind, entry.reservation, None
            continue
        try:
            request = ExposureRequest(**{name: getattr(entry, name) for name in _REQUEST_COLUMNS})
            profile = _profile(ledger, entry, profiles)
            exposure = RecordedExposure(request, profile, float(entry.gy_cm2 or 0.0), entry.model_id or "")
        except (TypeError, ValueError) as error:
            message = f"{ledger.path}: record {record.seq} ({entry.kind}) holds impossible values: {error}"
            raise LedgerCorrupt(message) from error
        yield record.seq, entry.kind, entry.reservation, exposure


def _profile(ledger: Ledger, entry: Entry, known: dict[str, Profile]) -> Profile | None:
    if entry.profile_id is None:
        return None
    if entry.profile_id not in known:
        known[entry.profile_id] = profile_from_record(*ledger.definition(entry.profile_id))
    return known[entry.profile_id]
