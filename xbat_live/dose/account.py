"""The dose account of one sample: predicts, reserves before the beam opens, settles after, refuses beyond a limit."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from xbat_live.dose.beam import Beam, check_flux
from xbat_live.dose.cross_sections import check_model
from xbat_live.dose.exposure import (
    DoseMap,
    DoseRefused,
    ExposureRequest,
    FootprintDose,
    Reservation,
    Settlement,
    check_open_time,
)
from xbat_live.dose.gate import NOTHING, Gate, Prospect
from xbat_live.dose.ledger import Entry, Ledger, LedgerError
from xbat_live.dose.limits import DoseLimit
from xbat_live.dose.profiles import Profile, profile_id
from xbat_live.dose.replay import recorded
from xbat_live.dose.sample_map import Patch, SampleMap
from xbat_live.dose.stack import LayerStack

logger = logging.getLogger(__name__)

MODEL_VERSION = 1
UNLIMITED = sys.maxsize


class DoseAccount:
    """Dose of one material of one sample, on a map in sample coordinates.

    The map is what the ledger says: opening the account replays all records in their order, which gives the identical
    map, and reservations that were never ended (a crash, a kill) count in full. May be used from several threads.

    Parameters
    ----------
    ledger
        The sample's ledger; one opened for reading only gives an account that can be asked but not charged.
    stack, layer, material
        What the beam meets, and whose dose is counted.
    beam
        Shape of the beam (the flux comes with every request).
    limits
        Dose and rate limits, all for `material` and `model`.
    model
        Dose definition; thresholds of the literature are in ``attenuation``.
    sigma_rel, k_sigma
        Relative uncertainty of a dose, and how many times it is kept free below limits.
    grid_um
        Pixel of the map, um; at most a fifth of the beam's width.
    outline_um
        Size (x, y) of the sample, centred on sample coordinate (0, 0), um; dose beside it neither counts nor limits.
        None: everywhere.

    Raises
    ------
    ValueError
        Unknown layer, material or model; a limit for another material or in another dose definition; a grid too coarse.
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
    ) -> None:
        check_model(model)
        stack.layer(layer).material(material)
        self.ledger, self.stack, self.beam = ledger, stack, beam
        self.layer, self.material, self.model = layer, material, model
        self.grid_um, self.outline_um = float(grid_um), outline_um
        self.limits = tuple(limits)
        self._gate = Gate(self.limits, sigma_rel, k_sigma)
        self._gate.check_stated_for(material, model)
        if not grid_um <= min(beam.fwhm_um) / 5 * (1 + 1e-9):
            raise ValueError(
                f"map pixel {grid_um:g} um is too coarse for a beam {min(beam.fwhm_um):g} um wide; "
                f"use at most a fifth of it, {min(beam.fwhm_um) / 5:g} um (are all sizes in um?)"
            )
        self._map = SampleMap(self.grid_um, outline_um)
        self._lock = threading.RLock()
        self._pending: dict[int, ExposureRequest] = {}
        self._counts = {"reserve": 0, "settle": 0, "void": 0, "unreserved": 0, "note": 0}
        self._open_time_s = 0.0
        self._gray_cm2 = lru_cache(maxsize=256)(self._compute_gray_cm2)
        model_content = json.dumps(
            {"version": MODEL_VERSION, "model": model, "layer": layer, "material": material, "stack": stack.as_dict()},
            sort_keys=True,
        )
        self._model_id = hashlib.sha256(model_content.encode()).hexdigest()[:16]
        self._profile_id = profile_id(beam.profile)
        if not ledger.read_only:
            ledger.define(self._model_id, "model", model_content)
            ledger.define(self._profile_id, "profile", *beam.profile.record())
        self._replay()

    # -- questions ---------------------------------------------------------------------------------------------------

    def predict(self, request: ExposureRequest) -> float:
        """Return the largest dose that `request` would add on the sample, Gy."""
        with self._lock:
            return self._prospect(request, self._patch(request)).added_gy

    def rate_gy_s(self, request: ExposureRequest) -> float:
        """Return the largest dose rate on the sample during `request`, Gy/s."""
        return self.predict(request.with_delivery(1.0, request.flux_ph_s))

    def dose_at(self, x_um: float, y_um: float) -> FootprintDose:
        """Return mean, 99.9th percentile and peak in the beam's footprint around sample coordinate (x, y), um."""
        with self._lock:
            return self._map.footprint(x_um, y_um, self.beam.footprint_um)

    def dose_map(self) -> DoseMap:
        """Return the map with all that was settled and reserved; it covers the sample's outline and all dosed area."""
        with self._lock:
            return self._map.full()

    def exposures_left(self, request: ExposureRequest) -> int:
        """Return how many times in a row `request` would be granted; `UNLIMITED` when no limit applies to it."""
        with self._lock:
            patch = self._patch(request)
            if patch is None:
                return UNLIMITED
            now, added = self._map.on_sample(patch)
            if not added.any():
                return UNLIMITED
            left = self._gate.repeats(now, added, self.rate_gy_s(request))
        return UNLIMITED if math.isinf(left) else int(left)

    @property
    def lowest_limit_gy(self) -> float | None:
        """The lowest dose limit that refuses, Gy, or None."""
        limit = self._gate.lowest_dose_limit
        return None if limit is None else limit.value

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Record numbers of reservations that have not ended; they count in full."""
        with self._lock:
            return tuple(self._pending)

    def summary(self) -> dict[str, Any]:
        """Return definition, limits and state as plain data (JSON) for metadata and status."""
        with self._lock:
            return {
                "model": self.model,
                "model_version": MODEL_VERSION,
                "model_id": self._model_id,
                "layer": self.layer,
                "material": self.material,
                "stack": self.stack.as_dict(),
                "beam": self.beam.as_dict(),
                "profile_id": self._profile_id,
                "limits": [limit.as_dict() for limit in self.limits],
                "sigma_rel": self._gate.sigma_rel,
                "k_sigma": self._gate.k_sigma,
                "grid_um": self.grid_um,
                "outline_um": None if self.outline_um is None else list(self.outline_um),
                "ledger": str(self.ledger.path),
                "records": dict(self._counts),
                "unsettled": len(self._pending),
                "open_time_s": self._open_time_s,
                "peak_gy": self._map.peak_gy,
            }

    # -- charges -----------------------------------------------------------------------------------------------------

    def reserve(self, request: ExposureRequest) -> Reservation:
        """Grant an exposure and write it to disk before returning; from then on it counts as if it had been given.

        Raises
        ------
        DoseRefused
            A limit would be exceeded; only a note is written.
        LedgerError
            Not written, so not granted.
        """
        with self._lock:
            patch = self._patch(request)
            prospect = self._prospect(request, patch)
            try:
                warnings = self._gate.check(request, prospect) if patch is not None else ()
            except DoseRefused as refusal:
                self._note_refusal(request, refusal)
                raise
            record = self.ledger.append(self._entry("reserve", request))
            self._promise(record.seq, request, patch)
        binding = self._gate.lowest_dose_limit
        return Reservation(
            record.seq,
            request,
            prospect.before_gy,
            prospect.after_gy,
            "" if binding is None else binding.name,
            math.nan if binding is None else binding.value,
            warnings,
        )

    def settle(self, reservation_id: int, *, open_time_s: float, flux_ph_s: float, note: str = "") -> Settlement:
        """Replace a reservation by what was delivered, which may be more than was reserved.

        Parameters
        ----------
        reservation_id
            Of `reserve`.
        open_time_s, flux_ph_s
            Shutter-open time by the shutter's own counter, s, and flux on the sample, photons/s.
        note
            Kept with the record.

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
            reserved = self._pending_request(reservation_id)
            given = reserved.with_delivery(open_time_s, flux_ph_s)
            self.ledger.append(self._entry("settle", given, reservation=reservation_id, note=note))
            self._release(reservation_id)
            more = given.photons > reserved.photons * (1 + 1e-9)
            if more:
                photons = given.photons, reserved.photons
                logger.warning("reservation %d: %.4g photons delivered, %.4g reserved", reservation_id, *photons)
            return self._charge(reservation_id, "settle", given, exceeds_reservation=more)

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
            self._pending_request(reservation_id)
            self.ledger.append(Entry("void", reservation=reservation_id, note=reason))
            self._release(reservation_id)
            self._counts["void"] += 1

    def record_unreserved(self, request: ExposureRequest, reason: str) -> Settlement:
        """Count dose that was given without a reservation (a shutter opened by hand). It is never refused.

        Raises
        ------
        LedgerError
            Not written.
        """
        with self._lock:
            record = self.ledger.append(self._entry("unreserved", request, note=reason))
            return self._charge(record.seq, "unreserved", request)

    def note(self, text: str, *, run_uid: str = "") -> None:
        """Write a remark into the ledger."""
        with self._lock:
            self.ledger.append(Entry("note", run_uid=run_uid, note=text))
            self._counts["note"] += 1

    # -- inside ------------------------------------------------------------------------------------------------------

    def _compute_gray_cm2(self, energy_ev: float) -> float:
        return self.stack.dose_per_fluence(energy_ev, self.layer, self.material, self.model)

    def _patch(
        self, request: ExposureRequest, profile: Profile | None = None, gray_cm2: float | None = None
    ) -> Patch | None:
        """Dose of an exposure where it falls; None beside the sample."""
        if not request.on_sample:
            return None
        per_fluence = self._gray_cm2(request.energy_ev) if gray_cm2 is None else gray_cm2
        return self._map.spread(profile or self.beam.profile, request.x_um, request.y_um, request.photons * per_fluence)

    def _prospect(self, request: ExposureRequest, patch: Patch | None) -> Prospect:
        if patch is None:
            return NOTHING
        now, added = self._map.on_sample(patch)
        if not added.size:
            return NOTHING
        added_gy = float(added.max())
        rate_gy_s = added_gy / request.open_time_s if request.open_time_s > 0 else 0.0
        # The true peak, not only a percentile: no pixel of the sample ever goes above a limit.
        return Prospect(float(now.max()), float((now + added).max()), added_gy, rate_gy_s)

    def _promise(self, number: int, request: ExposureRequest, patch: Patch | None) -> None:
        self._counts["reserve"] += 1
        self._pending[number] = request
        if patch is not None:
            self._map.hold(number, patch)

    def _release(self, number: int | None) -> None:
        if number is not None:
            self._pending.pop(number, None)
            self._map.release(number)

    def _entry(self, kind: Any, request: ExposureRequest, *, reservation: int | None = None, note: str = "") -> Entry:
        gray_cm2 = self._gray_cm2(request.energy_ev) if request.on_sample else 0.0
        return Entry(
            kind,
            reservation=reservation,
            note=note,
            gy_cm2=gray_cm2,
            profile_id=self._profile_id,
            model_id=self._model_id,
            **vars(request),
        )

    def _note_refusal(self, request: ExposureRequest, refusal: DoseRefused) -> None:
        try:
            self.ledger.append(self._entry("note", request, note=f"refused: {refusal}"))
            self._counts["note"] += 1
        except LedgerError:
            logger.exception("the refusal was not noted in the ledger; it stands")

    def _pending_request(self, reservation_id: int) -> ExposureRequest:
        if reservation_id not in self._pending:
            raise LedgerError(
                f"{self.ledger.path}: no open reservation {reservation_id}; it has ended or was never made"
            )
        return self._pending[reservation_id]

    def _charge(
        self, number: int, kind: str, given: ExposureRequest, *, exceeds_reservation: bool = False
    ) -> Settlement:
        patch = self._patch(given)
        prospect = self._prospect(given, patch)
        self._count(kind, given, patch)
        return Settlement(
            number, given.open_time_s, given.flux_ph_s, prospect.added_gy, prospect.after_gy, exceeds_reservation
        )

    def _count(self, kind: str, given: ExposureRequest, patch: Patch | None) -> None:
        self._counts[kind] += 1
        self._open_time_s += given.open_time_s
        if patch is not None:
            self._map.add(patch)

    def _replay(self) -> None:
        """Build the map from the ledger, record by record: the same additions in the same order as before."""
        converted = 0
        for number, kind, reservation, exposure in recorded(self.ledger):
            if kind != "reserve":
                self._release(reservation)
            if exposure is None:
                self._counts[kind] += 1
                continue
            same_model = exposure.model_id == self._model_id
            converted += not same_model
            # Fluence is recorded for good. Its dose is kept as computed then, unless stack or definition changed.
            patch = self._patch(exposure.request, exposure.profile, exposure.gy_cm2 if same_model else None)
            if kind == "reserve":
                self._promise(number, exposure.request, patch)
            else:
                self._count(kind, exposure.request, patch)
        if converted:
            logger.warning(
                "%s: %d records made with another stack or dose model; converted", self.ledger.path, converted
            )
        if self._pending:
            logger.warning("%s: %d reservations never settled; counted in full", self.ledger.path, len(self._pending))
