"""The sample's dose account for a walk: the real one, on a scratch copy of the ledger, asked only when it could say no."""

from __future__ import annotations

import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbat_live.dose import DoseAccount, DoseLimit, DoseRefused, ExposureRequest, Ledger, Reservation, Settlement

LEVELS = (0.5, 0.8, 1.0)
_IN_MEMORY = Path("/dev/shm")
_STEADY = (
    "beam",
    "stack",
    "limits",
    "lowest_limit_gy",
    "layer",
    "material",
    "model",
    "targets",
    "grid_um",
    "outline_um",
)
_SAFETY = 1 + 1e-9

Place = tuple[float, float]


@contextmanager
def scratch_ledger(
    file: Path | None,
    *,
    wall: Callable[[], float],
    monotonic: Callable[[], float],
    before: int | None = None,
    boot_id: str | None = None,
) -> Iterator[Ledger]:
    """Open a copy of a ledger that is thrown away afterwards; the file itself is only read.

    Parameters
    ----------
    file
        The sample's ledger, which another process may be writing; None, or a file that does not exist: an empty one.
    wall, monotonic
        Clocks of the copy, s.
    before
        Leave out this record and all after it; None: none.
    boot_id
        Within which `monotonic` is comparable; None: the present one.

    Raises
    ------
    LedgerError
        The file is damaged, or no ledger.
    """
    memory = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="xbat-plan-", dir=memory) as folder:
        copy = Path(folder) / (file.name if file else "empty.sqlite")
        if file is not None and file.is_file():
            with (
                Ledger(file, read_only=True),
                closing(sqlite3.connect(copy)) as target,
            ):  # Ledger: checks what the file is
                with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source:
                    source.backup(target)
                if before is not None:
                    _cut(target, before)
        with Ledger(copy, wall=wall, monotonic=monotonic, boot_id=boot_id) as ledger:
            yield ledger


def _cut(copy: sqlite3.Connection, first: int) -> None:
    """Take the records from `first` on out of a copy, which is append-only as the original is."""
    triggers = copy.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name, _ in triggers:
        copy.execute(f"DROP TRIGGER {name}")
    for table in tables & {"records", "snapshots"}:
        copy.execute(f"DELETE FROM {table} WHERE seq >= ?", (first,))
    copy.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'records'", (first - 1,))
    for _, statement in triggers:
        copy.execute(statement)
    copy.commit()


@dataclass(frozen=True)
class Crossing:
    """A limit passed a level.

    Attributes
    ----------
    limit
        The limit.
    level
        Fraction of it: 0.5, 0.8, or 1 when it was exceeded (advisory) or refused an exposure.
    frame
        Frame of the sample at which it happened, from 1.
    time_s
        Since the start, s.
    """

    limit: DoseLimit
    level: float
    frame: int
    time_s: float


@dataclass
class Exposures:
    """What one place of the sample got in a walk.

    Attributes
    ----------
    x_um, y_um
        Sample coordinate, um.
    spot
        Number of the spot it belongs to.
    exposures, open_time_s
        How many, and the shutter-open time of all of them, s.
    photons
        By energy, eV: photons of all exposures.
    """

    x_um: float
    y_um: float
    spot: int
    exposures: int = 0
    open_time_s: float = 0.0
    photons: dict[float, float] | None = None


@dataclass
class _Base:
    """What the account said at a place: the fraction of every limit, for an exposure of `added`, when `given` had been given."""

    fractions: list[float]
    added: list[float]
    given: list[float]


class PatientAccount:
    """Stands before a `DoseAccount` and answers like it, without asking it for exposures that are certain to be granted.

    What is certain: the dose at a place is at most what the account said last, plus the peak doses of everything given since.
    As long as that bound stays below the next level of every limit, nothing can be refused and no warning be due; the exposures are
    kept back, and deposited together before the account is asked anything again. Dose is additive, so that the answers are the
    account's own. With a limit on a running mean (`window_s`) the time of every exposure matters: nothing is kept back then.

    Parameters
    ----------
    account
        The real one; it is charged.
    allowance
        Factor on doses that are compared with limits (``1 + k sigma``).
    present
        Returns number of the next frame and time, s, for `crossings`.
    """

    def __init__(
        self,
        account: DoseAccount,
        *,
        allowance: float,
        present: Callable[[], tuple[int, float]],
    ) -> None:
        self.account = account
        self.__dict__.update({name: getattr(account, name) for name in _STEADY})  # these never change
        self.crossings: list[Crossing] = []
        self.places: dict[Place, Exposures] = {}
        self.highest: dict[DoseLimit, float] = dict.fromkeys(account.limits, 0.0)
        self.refused: DoseRefused | None = None
        self.asked = 0
        self._allowance, self._present = allowance, present
        self._patient = not any(limit.window_s for limit in account.limits)
        self._limits = tuple(account.limits)  # all lists below are in their order
        self._levels = [list(LEVELS) for _ in self._limits]
        self._peak_per_cm2 = account.beam.profile.peak_per_cm2
        self._per_photon: dict[float, list[float]] = {}
        self._per_exposure: dict[tuple[float, float], list[float]] = {}
        self._bases: dict[Place, _Base] = {}
        self._given = [0.0] * len(self._limits)
        self._kept_back: dict[tuple[Place, float, float], list[Any]] = {}
        self._granted: dict[int, ExposureRequest] = {}
        self._last_id = 0

    def __getattr__(self, name: str) -> Any:
        self.flush()
        return getattr(self.account, name)

    # -- charges -----------------------------------------------------------------------------------------------------

    def reserve(self, request: ExposureRequest, **options: Any) -> Reservation:
        """Grant an exposure; see `DoseAccount.reserve`."""
        if not request.on_sample or self._certain(request):
            self._last_id -= 1  # the account's own numbers are positive
            self._granted[self._last_id] = request
            return Reservation(self._last_id, request, 0.0, 0.0, "", 0.0)
        return self._ask(request, options)

    def settle(self, reservation_id: int, *, open_time_s: float, flux_ph_s: float, **options: Any) -> Settlement:
        """Settle an exposure; see `DoseAccount.settle`."""
        request = self._granted.pop(reservation_id)
        if not request.on_sample:
            return Settlement(reservation_id, open_time_s, flux_ph_s, 0.0, 0.0)
        photons = open_time_s * flux_ph_s
        self._book(request, open_time_s, photons)
        for number, added in enumerate(self._added(request.energy_ev, photons)):
            self._given[number] += added
        if reservation_id > 0:
            return self.account.settle(reservation_id, open_time_s=open_time_s, flux_ph_s=flux_ph_s, **options)
        key = ((request.x_um, request.y_um), request.energy_ev, flux_ph_s)
        kept = self._kept_back.setdefault(key, [request, 0.0])
        kept[1] += open_time_s
        return Settlement(reservation_id, open_time_s, flux_ph_s, 0.0, 0.0)

    def void(self, reservation_id: int, reason: str) -> None:
        """End a reservation without dose; see `DoseAccount.void`."""
        self._granted.pop(reservation_id)
        if reservation_id > 0:
            self.account.void(reservation_id, reason)

    def flush(self) -> None:
        """Deposit what was kept back."""
        kept, self._kept_back = self._kept_back, {}
        for (_, _, flux_ph_s), (request, open_time_s) in kept.items():
            self.account.record_unreserved(request.with_delivery(open_time_s, flux_ph_s), "forecast")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _certain(self, request: ExposureRequest) -> bool:
        """Return True when no limit can refuse the exposure or be due a warning."""
        base = self._bases.get((request.x_um, request.y_um))
        if base is None or not self._patient:
            return False
        added = self._added(request.energy_ev, request.photons)
        for number, limit in enumerate(self._limits):
            if limit.limit_gy is None:
                bound = self._fractions_per_photon(request.energy_ev)[number] * request.flux_ph_s
            else:
                since = self._given[number] - base.given[number]
                bound = base.fractions[number] + max(0.0, added[number] - base.added[number]) + since
            if bound * _SAFETY >= self._next_level(number):
                return False
        return True

    def _ask(self, request: ExposureRequest, options: dict[str, Any]) -> Reservation:
        self.flush()
        self.asked += 1
        found = {state.limit: state.fraction for state in self.account.headroom(request)}
        fractions = [found[limit] for limit in self._limits]
        for number, fraction in enumerate(fractions):
            limit = self._limits[number]
            if limit.advisory or fraction <= 1:
                self.highest[limit] = max(self.highest[limit], fraction)
                self._cross(number, fraction)
        try:
            reservation = self.account.reserve(request, **options)
        except DoseRefused as refusal:
            self.refused = refusal
            self.highest[refusal.limit] = 1.0
            self._cross(self._limits.index(refusal.limit), 1.0)
            raise
        added = self._added(request.energy_ev, request.photons)
        self._bases[request.x_um, request.y_um] = _Base(fractions, added, list(self._given))
        self._granted[reservation.id] = request
        return reservation

    def _cross(self, number: int, fraction: float) -> None:
        levels = self._levels[number]
        while levels and fraction >= levels[0]:
            self.crossings.append(Crossing(self._limits[number], levels.pop(0), *self._present()))

    def _next_level(self, number: int) -> float:
        levels = self._levels[number]
        if levels:
            return levels[0]
        return math.inf if self._limits[number].advisory else 1.0

    def _added(self, energy_ev: float, photons: float) -> list[float]:
        """Return the largest fraction of every limit that an exposure can add anywhere; 0 for limits on rates."""
        known = self._per_exposure.get((energy_ev, photons))
        if known is None:
            per_photon = self._fractions_per_photon(energy_ev)
            known = [
                photons * value if limit.limit_gy is not None else 0.0
                for limit, value in zip(self._limits, per_photon, strict=True)
            ]
            self._per_exposure[energy_ev, photons] = known
        return known

    def _fractions_per_photon(self, energy_ev: float) -> list[float]:
        known = self._per_photon.get(energy_ev)
        if known is None:
            known = self._per_photon[energy_ev] = [
                self._allowance * self._peak_per_cm2 * self.gray_cm2(limit, energy_ev) / limit.value
                for limit in self._limits
            ]
        return known

    def gray_cm2(self, limit: DoseLimit, energy_ev: float) -> float:
        """Return dose per fluence, Gy cm2, of what a limit is for; of several targets the largest."""
        return max(
            float(self.account.stack.dose_per_fluence(energy_ev, target.layer, target.material, self.account.model))
            for target in self.account.targets
            if target.material == limit.material and limit.layer in ("", target.layer)
        )

    def _book(self, request: ExposureRequest, open_time_s: float, photons: float) -> None:
        place = self.places.get((request.x_um, request.y_um))
        if place is None:
            place = Exposures(request.x_um, request.y_um, request.spot or 0, photons={})
            self.places[request.x_um, request.y_um] = place
        place.exposures += 1
        place.open_time_s += open_time_s
        if place.photons is not None:
            place.photons[request.energy_ev] = place.photons.get(request.energy_ev, 0.0) + photons
