"""What stands in a ledger: entries, records, and what can go wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Literal

Kind = Literal["reserve", "settle", "void", "note", "unreserved", "prior"]
KINDS: tuple[Kind, ...] = ("reserve", "settle", "void", "note", "unreserved", "prior")


class LedgerError(Exception):
    """The ledger cannot be read or written; no exposure may follow."""


class LedgerLocked(LedgerError):  # noqa: N818
    """Another process writes this sample's ledger."""


class LedgerCorrupt(LedgerError):  # noqa: N818
    """The file is damaged, or no ledger at all."""


class LedgerTooNew(LedgerError):  # noqa: N818
    """The file was written by a newer version of xbat_live."""


@dataclass(frozen=True)
class Entry:
    """What is written in one record; columns that a kind does not need stay None.

    Attributes
    ----------
    kind
        ``reserve`` before an exposure; ``settle`` and ``void`` end a reservation; ``unreserved`` dose given without
        one; ``prior`` dose given before, elsewhere; ``note``.
    reservation
        Record number of the reservation that is ended.
    run_uid, label, note
        Run, what the exposure was for, and a reason in words.
    x_um, y_um
        Sample coordinate under the beam's centre, um; of ``prior`` the centre of the rectangle.
    energy_ev, open_time_s, flux_ph_s
        Photon energy, eV; shutter-open time, s; flux on the sample, photons/s.
    on_sample
        False for exposures beside the sample.
    gy_cm2
        Dose per fluence of the primary target, Gy cm2 per photon.
    profile_id, model_id
        Definitions of beam profile and dose model (see `Ledger.define`).
    counter_s
        The shutter's open-time counter when the record was written, s.
    degraded
        Why the flux is not as good as it should be; empty when it is.
    spot
        Number of the spot of the run.
    also_gy_cm2
        Dose per fluence of the other targets: JSON, a list of [layer, material, Gy cm2 per photon].
    size_x_um, size_y_um, prior_gy, layer, material
        Of ``prior``: rectangle, um, dose, Gy, and whose it is (empty layer: every layer with that material).
    drift_x_um, drift_y_um, position_sigma_um
        Drift with which the sample coordinate was worked out from the stage reading, and the coordinate's standard
        uncertainty, um; None: not known. The next run goes on from there.
    """

    kind: Kind
    reservation: int | None = None
    run_uid: str = ""
    label: str = ""
    note: str = ""
    x_um: float | None = None
    y_um: float | None = None
    energy_ev: float | None = None
    open_time_s: float | None = None
    flux_ph_s: float | None = None
    on_sample: bool | None = None
    gy_cm2: float | None = None
    profile_id: str | None = None
    model_id: str | None = None
    counter_s: float | None = None
    degraded: str | None = None
    spot: int | None = None
    also_gy_cm2: str | None = None
    size_x_um: float | None = None
    size_y_um: float | None = None
    prior_gy: float | None = None
    layer: str | None = None
    material: str | None = None
    drift_x_um: float | None = None
    drift_y_um: float | None = None
    position_sigma_um: float | None = None


ENTRY_COLUMNS = tuple(field.name for field in fields(Entry))
entry_values = attrgetter(*ENTRY_COLUMNS)
"""Return the values of an entry in the order of `ENTRY_COLUMNS`; `dataclasses.astuple` copies and is ten times slower."""
STAMP_COLUMNS = ("time_unix_s", "time_monotonic_s", "boot_id", "process_id")
COLUMNS = ("seq", *STAMP_COLUMNS, *ENTRY_COLUMNS)


@dataclass(frozen=True)
class Record:
    """An entry as it stands in the ledger.

    Attributes
    ----------
    seq
        Record number; the order of all deposits.
    time_unix_s
        Wall clock, s since 1970; may step.
    time_monotonic_s, boot_id
        Monotonic clock, s, comparable within one `boot_id`.
    process_id
        Process that wrote it.
    entry
        Its content.
    """

    seq: int
    time_unix_s: float
    time_monotonic_s: float
    boot_id: str
    process_id: int
    entry: Entry


def record_from_row(row: tuple) -> Record:
    """Build a record from the values of `COLUMNS`."""
    columns = dict(zip(ENTRY_COLUMNS, row[5:], strict=True))
    if columns["on_sample"] is not None:
        columns["on_sample"] = bool(columns["on_sample"])
    return Record(row[0], row[1], row[2], row[3], row[4], Entry(**columns))
