"""The dose account of one sample: predicts, reserves before the beam opens, settles after, refuses beyond a limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from xbat_live.dose.account_view import UNLIMITED, AccountView
from xbat_live.dose.beam import Beam, check_flux
from xbat_live.dose.exposure import (
    DoseRefused,
    ExposureRequest,
    PriorDose,
    Reservation,
    Settlement,
    check_open_time,
)
from xbat_live.dose.ledger import Entry, Kind, Ledger, LedgerError, Record
from xbat_live.dose.limits import DoseLimit, change_label
from xbat_live.dose.position import SamplePosition
from xbat_live.dose.profiles import Profile
from xbat_live.dose.replay import given_at
from xbat_live.dose.snapshots import Keeper
from xbat_live.dose.stack import LayerStack
from xbat_live.dose.state import Pending, Writer
from xbat_live.dose.tracks import DoseTarget
from xbat_live.dose.writing import exposure_entry, prior_entry

logger = logging.getLogger(__name__)

SNAPSHOT_EVERY = 10_000


class DoseAccount(AccountView):
    """Dose of one or several materials of one sample, on maps in sample coordinates.

    The map is what the ledger says: opening the account replays its records in their order, from the last snapshot on,
    which gives the identical map, and reservations that were never ended (a crash, a kill) count in full. Decisions are
    taken on the true peak on the sample plus k sigma, see `Gate`. May be used from several threads.

    Parameters
    ----------
    ledger
        The sample's ledger; one opened for reading only gives an account that can be asked but not charged.
    stack, layer, material
        What the beam meets, and whose dose is counted: the primary target.
    beam
        Shape of the beam (the flux comes with every request).
    limits
        Dose and rate limits for `model`, each for a material that is tracked.
    model
        Dose definition; thresholds of the literature are in ``attenuation``.
    sigma_rel, k_sigma
        Relative uncertainty of a dose, and how many times it is kept free below limits.
    grid_um
        Pixel of the map, um; at most a fifth of the beam's width.
    outline_um
        Size (x, y) of the sample, centred on sample coordinate (0, 0), um; dose beside it neither counts nor limits.
        None: everywhere.
    also
        Further targets, each with a map of its own.
    snapshot_every
        Records between two snapshots, which bound the time of opening.

    Raises
    ------
    ValueError
        Unknown layer, material or model; a limit for a material that is not tracked or in another dose definition; a
        grid too coarse.
    LedgerError
        The ledger is damaged or cannot be written.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        stack: LayerStack,
        beam: Beam,
        limits: Iterable[DoseLimit],
        layer: str,
        material: str,
        model: str = "attenuation",
        sigma_rel: float = 0.0,
        k_sigma: float = 1.0,
        grid_um: float = 1.0,
        outline_um: tuple[float, float] | None = None,
        also: Iterable[DoseTarget] = (),
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        super().__init__(
            ledger,
            stack=stack,
            beam=beam,
            limits=limits,
            primary=DoseTarget(layer, material),
            also=also,
            model=model,
            sigma_rel=sigma_rel,
            k_sigma=k_sigma,
            grid_um=grid_um,
            outline_um=outline_um,
        )
        self._keeper = Keeper(ledger, self._settings, snapshot_every, self._kept_seq)
        self._keeper.whole = not self._reader.guessed
        if not ledger.read_only:
            ledger.before_close(self._close)

    def locate(self, position: SamplePosition) -> None:
        """Say where the sample is: kept with the records that follow, and its uncertainty with every decision.

        Sample coordinates of requests are the caller's and not changed. While they are uncertain the highest dose within
        three standard deviations counts as being there, so that a limit holds wherever the beam really is.
        """
        with self._lock:
            self._located = position

    def reserve(self, request: ExposureRequest, *, counter_s: float | None = None) -> Reservation:
        """Grant an exposure and write it to disk before returning; from then on it counts as if it had been given.

        Parameters
        ----------
        request
            The exposure.
        counter_s
            The shutter's open-time counter now, s; kept, so that the reservation can be settled without this process.

        Raises
        ------
        DoseRefused
            A limit would be exceeded; only a note is written.
        LedgerError
            Not written, so not granted.
        """
        with self._lock:
            outlook = self._outlook(request)
            states = self._gate.states(outlook)
            try:
                warnings = self._gate.check(request, states) if outlook is not None else ()
            except DoseRefused as refusal:
                self._note_refusal(request, refusal)
                raise
            gray_cm2 = self._gray_cm2(request)
            record = self._record("reserve", request, gray_cm2, self._profile_id, counter_s=counter_s)
            if request.on_sample:
                self._state.last_on_sample = request
            self._state.promise(record.seq, Pending(request, self._profile_id, self.beam.profile, gray_cm2))
            if request.on_sample:
                given = given_at(record.time_monotonic_s, request, self.beam.profile, gray_cm2)
                self._windows.hold(record.seq, given, ended=False)
        here = self._outlook(request, around_px=0) if self._position_px() else outlook
        before_gy, after_gy, _ = self._peaks(here)
        binding = next((s.limit for s in states if s.limit.kind == "dose" and not s.limit.advisory), None)
        name, limit_gy = ("", math.nan) if binding is None else (binding.name, binding.value)
        return Reservation(record.seq, request, before_gy, after_gy, name, limit_gy, warnings)

    def settle(
        self,
        reservation_id: int,
        *,
        open_time_s: float,
        flux_ph_s: float,
        note: str = "",
        counter_s: float | None = None,
        degraded: str = "",
    ) -> Settlement:
        """Replace a reservation by what was delivered, which may be more than was reserved.

        Parameters
        ----------
        reservation_id
            Of `reserve`.
        open_time_s, flux_ph_s
            Shutter-open time by the shutter's own counter, s, and flux on the sample, photons/s.
        note
            Kept with the record.
        counter_s
            The shutter's open-time counter now, s.
        degraded
            Why the flux is not as good as it should be; empty when it is.

        Raises
        ------
        LedgerError
            Unknown or ended reservation, or not written; the reservation then stands in full.
        ValueError
            Negative or not finite; the reservation then stands in full.
        """
        check_open_time(open_time_s)
        check_flux(flux_ph_s)
        with self._lock:
            pending = self._pending(reservation_id)
            reserved, gray_cm2 = pending.request, pending.gray_cm2
            given = reserved.with_delivery(open_time_s, flux_ph_s)
            record = self._record(
                "settle",
                given,
                gray_cm2,
                pending.profile_id,
                reservation=reservation_id,
                note=note,
                counter_s=counter_s,
                degraded=degraded or None,
            )
            self._release(reservation_id)
            more = given.photons > reserved.photons * (1 + 1e-9)
            if more:
                photons = given.photons, reserved.photons
                logger.warning("reservation %d: %.4g photons delivered, %.4g reserved", reservation_id, *photons)
            settlement = self._charge(
                record, reservation_id, given, pending.profile, gray_cm2, exceeds_reservation=more
            )
            self._keeper.now_and_then(self._state)
            return settlement

    def void(self, reservation_id: int, reason: str) -> None:
        """End a reservation of an exposure that never took place (the shutter did not open).

        Raises
        ------
        ValueError
            No reason given.
        LedgerError
            Unknown or ended reservation, or not written.
        """
        if not reason.strip():
            raise ValueError("a reservation is voided only with a reason")
        with self._lock:
            self._pending(reservation_id)
            self._append(Entry("void", reservation=reservation_id, note=reason))
            self._release(reservation_id)

    def record_unreserved(
        self, request: ExposureRequest, reason: str, *, counter_s: float | None = None, degraded: str = ""
    ) -> Settlement:
        """Count dose that was given without a reservation (a shutter opened by hand). It is never refused.

        Parameters
        ----------
        request
            What was given.
        reason
            Kept with the record.
        counter_s, degraded
            See `settle`.

        Raises
        ------
        LedgerError
            Not written.
        """
        with self._lock:
            gray_cm2 = self._gray_cm2(request)
            columns = {"note": reason, "counter_s": counter_s, "degraded": degraded or None}
            record = self._record("unreserved", request, gray_cm2, self._profile_id, **columns)
            settlement = self._charge(record, record.seq, request, self.beam.profile, gray_cm2)
            self._keeper.now_and_then(self._state)
            return settlement

    def record_prior(
        self,
        x_um: float,
        y_um: float,
        size_um: tuple[float, float] | None,
        dose_gy: float,
        reason: str,
        *,
        material: str = "",
        layer: str = "",
    ) -> None:
        """Count dose that the sample got before, elsewhere (another beamline). It is never refused.

        Parameters
        ----------
        x_um, y_um, size_um
            Centre and size (x, y) of a rectangle in sample coordinates, um, over which it is uniform: every pixel that it
            touches counts. Size None: the whole sample.
        dose_gy
            Dose in the account's definition, Gy.
        reason
            Where and when.
        material, layer
            Whose dose it is; empty: the primary target. Without a layer it counts in every layer where the material is
            tracked. Dose of other targets is not known from it and not counted.

        Raises
        ------
        ValueError
            No reason, a material that is not tracked, impossible numbers, or the whole of a sample without outline.
        LedgerError
            Not written.
        """
        if size_um is None:
            if self.outline_um is None:
                raise ValueError("the sample has no outline, so its whole is not known; give size_um")
            x_um, y_um, size_um = 0.0, 0.0, self.outline_um
        prior = PriorDose(x_um, y_um, size_um, dose_gy, reason)
        primary = self.targets[0]
        material, layer = (material, layer) if material else (primary.material, layer or primary.layer)
        targets = self._tracks.of_material(material, layer)
        if not targets:
            self._tracks.index(DoseTarget(layer or "any layer", material))
        with self._lock:
            self._append(prior_entry(prior, material, layer, self._model_id))
            self._state.give_prior(prior.x_um, prior.y_um, prior.size_um, targets, prior.dose_gy)

    def change_limit(self, name: str, value: float, note: str, *, run_uid: str = "") -> DoseLimit:
        """Give a limit another value from the next reservation on, and write a note of it into the ledger.

        A tighter value holds even when the note cannot be written, a looser one only when it is on disk.

        Parameters
        ----------
        name, value
            Of a limit of this account, and what it becomes, Gy or Gy/s.
        note, run_uid
            Kept in the ledger.

        Raises
        ------
        ValueError
            Not one limit of that name, or an impossible value.
        LedgerError
            Not written.
        """
        with self._lock:
            before = self._limit_called(name)
            changed = before.with_value(value)
            entry = Entry("note", run_uid=run_uid, label=change_label(changed), note=note)
            if value > before.value:
                self._append(entry)
            self.take_limit(name, value)
            if value <= before.value:
                self._append(entry)
            return changed

    def take_limit(self, name: str, value: float) -> None:
        """Give a limit another value, Gy or Gy/s, as another process has noted it in the ledger; nothing is written.

        Raises
        ------
        ValueError
            Not one limit of that name, or an impossible value.
        """
        with self._lock:
            before = self._limit_called(name)
            changed = before.with_value(value)
            self._take_limits(tuple(changed if limit is before else limit for limit in self.limits))

    def _limit_called(self, name: str) -> DoseLimit:
        found = [limit for limit in self.limits if limit.name == name]
        if len(found) != 1:
            known = ", ".join(repr(limit.name) for limit in self.limits)
            raise ValueError(f"{len(found) or 'no'} limits are called {name!r}; known: {known}")
        return found[0]

    def note(self, text: str, *, run_uid: str = "") -> None:
        """Write a remark into the ledger."""
        with self._lock:
            self._append(Entry("note", run_uid=run_uid, note=text))

    def _close(self) -> None:
        with self._lock:
            self._keeper.at_close(self._state)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _record(
        self, kind: Kind, request: ExposureRequest, gray_cm2: tuple[float, ...], profile_id: str, **columns: Any
    ) -> Record:
        if self._located is not None:
            place = self._located
            columns |= {
                "drift_x_um": place.drift_x_um,
                "drift_y_um": place.drift_y_um,
                "position_sigma_um": place.sigma_um,
            }
        entry = exposure_entry(
            self._tracks, self._model_id, kind, request, gray_cm2=gray_cm2, profile_id=profile_id, **columns
        )
        return self._append(entry)

    def _append(self, entry: Entry) -> Record:
        record = self.ledger.append(entry)
        self._keeper.whole &= record.seq == self._state.seq + 1
        writer = Writer(record.boot_id, record.process_id, record.time_unix_s, record.time_monotonic_s)
        self._state.recorded(record.seq, entry.kind, writer, entry.counter_s)
        return record

    def _note_refusal(self, request: ExposureRequest, refusal: DoseRefused) -> None:
        try:
            gray_cm2 = self._gray_cm2(request)
            self._record("note", request, gray_cm2, self._profile_id, note=f"refused: {refusal}")
        except LedgerError:
            logger.exception("the refusal was not noted in the ledger; it stands")

    def _pending(self, reservation_id: int) -> Pending:
        pending = self._state.pending.get(reservation_id)
        if pending is None:
            raise LedgerError(
                f"{self.ledger.path}: no open reservation {reservation_id}; it has ended or was never made"
            )
        return pending

    def _release(self, reservation_id: int) -> None:
        self._state.release(reservation_id)
        self._windows.release(reservation_id)

    def _charge(
        self,
        record: Record,
        number: int,
        given: ExposureRequest,
        profile: Profile,
        gray_cm2: tuple[float, ...],
        *,
        exceeds_reservation: bool = False,
    ) -> Settlement:
        outlook = self._outlook(given, profile, gray_cm2, around_px=0)
        _, after_gy, added_gy = self._peaks(outlook)
        self._state.degraded = record.entry.degraded or ""
        if given.on_sample:
            self._state.last_on_sample = given
            self._windows.add(given_at(record.time_monotonic_s, given, profile, gray_cm2))
        self._state.give(given, profile, gray_cm2)
        return Settlement(number, given.open_time_s, given.flux_ph_s, added_gy, after_gy, exceeds_reservation)


__all__ = ["SNAPSHOT_EVERY", "UNLIMITED", "DoseAccount"]
