"""The state of a sample's dose account: opening it from its ledger, maps, spots and totals."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from xbat_live.dose import snapshots
from xbat_live.dose.beam import Beam
from xbat_live.dose.exposure import DoseMap, ExposureRequest, FootprintDose
from xbat_live.dose.gate import Gate, Rule
from xbat_live.dose.ledger import Ledger
from xbat_live.dose.limits import DoseLimit
from xbat_live.dose.position import SamplePosition, carried_position
from xbat_live.dose.profiles import Profile, profile_id
from xbat_live.dose.replay import Reader, given_at
from xbat_live.dose.stack import LayerStack
from xbat_live.dose.status import OpenTimeMap, RateMap, SpotDose
from xbat_live.dose.tracks import MODEL_VERSIONS, DoseTarget, Tracks, targets_of
from xbat_live.dose.windows import Windows, total_dose

logger = logging.getLogger(__name__)

STATUS_WINDOW_S = 60.0
"""Window of the mean rate that is reported when no limit names another, s."""


class AccountBook:
    """What was given to a sample; see `DoseAccount` for parameters and errors."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        stack: LayerStack,
        beam: Beam,
        limits: Iterable[DoseLimit],
        primary: DoseTarget,
        also: Iterable[DoseTarget],
        model: str,
        sigma_rel: float,
        k_sigma: float,
        grid_um: float,
        outline_um: tuple[float, float] | None,
    ) -> None:
        self._tracks = Tracks(stack, model, targets_of(primary, also))
        self.ledger, self.stack, self.beam = ledger, stack, beam
        self.layer, self.material, self.model = primary.layer, primary.material, model
        self.grid_um = float(grid_um)
        self.outline_um = None if outline_um is None else (float(outline_um[0]), float(outline_um[1]))
        self._gate = Gate((), sigma_rel, k_sigma)
        self._take_limits(tuple(limits))
        rules = self._gate.rules
        if not grid_um <= min(beam.fwhm_um) / 5 * (1 + 1e-9):
            raise ValueError(
                f"map pixel {grid_um:g} um is too coarse for a beam {min(beam.fwhm_um):g} um wide; "
                f"use at most a fifth of it, {min(beam.fwhm_um) / 5:g} um (are all sizes in um?)"
            )
        self._lock = threading.RLock()
        self._located: SamplePosition | None = None
        self.carried, self._opened_s = carried_position(ledger), ledger.now().monotonic_s
        self._model_id, self._profile_id = self._tracks.model_id, profile_id(beam.profile)
        self._settings = snapshots.Settings(self._tracks, self.grid_um, self.outline_um)
        if not ledger.read_only:
            ledger.define(self._model_id, "model", self._tracks.definition)
            ledger.define(self._profile_id, "profile", *beam.profile.record())
        self._reader = Reader(ledger, self._tracks, beam.profile)
        self._state = snapshots.load(ledger, self._settings, self._reader) or self._settings.empty()
        self._kept_seq = self._state.seq
        self._reader.replay(self._state)
        windows = {(rule.limit.window_s, rule.target) for rule in rules if rule.limit.window_s is not None}
        self._windows = Windows(self._state.map, sorted(windows | {(self._status_window_s(rules), 0)}))
        self._fill_windows()
        if self._reader.converted:
            logger.warning(
                "%s: %d records made with another stack or dose model; converted", ledger.path, self._reader.converted
            )
        if self._state.pending:
            logger.warning("%s: %d reservations never settled; counted in full", ledger.path, len(self._state.pending))

    # -- maps --------------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[DoseTarget, ...]:
        """What is tracked; the first is the primary target."""
        return self._tracks.targets

    def dose_at(self, x_um: float, y_um: float, target: DoseTarget | None = None) -> FootprintDose:
        """Return mean, 99.9th percentile and peak in the beam's footprint around sample coordinate (x, y), um."""
        with self._lock:
            return self._state.map.footprint(x_um, y_um, self.beam.footprint_um, self._tracks.index(target))

    def dose_map(self, target: DoseTarget | None = None) -> DoseMap:
        """Return the map with all that was settled and reserved; it covers the sample's outline and all dosed area."""
        with self._lock:
            window = self._state.map.full
            dose_gy = self._state.map.dose(window, self._tracks.index(target))
            return DoseMap(dose_gy, *self._state.map.axes(window))

    def peak_rate_map(self, target: DoseTarget | None = None) -> RateMap:
        """Return the largest instantaneous rate each place ever had, Gy/s; open reservations are not in it."""
        with self._lock:
            window = self._state.map.full
            rate_gy_s = self._state.map.peak_rate(window, self._tracks.index(target))
            return RateMap(rate_gy_s, *self._state.map.axes(window))

    def windowed_rate_map(self, window_s: float, now: float | None = None, target: DoseTarget | None = None) -> RateMap:
        """Return the mean rate over the last `window_s` seconds, Gy/s, without open reservations; read from the ledger.

        Parameters
        ----------
        window_s
            Length of the window, s.
        now
            Its end on the monotonic clock, s; default: now.
        target
            Default: the primary one.

        Raises
        ------
        ValueError
            A window that is not positive and finite.
        """
        if not 0 < window_s < math.inf:
            raise ValueError(f"window {window_s:g} s must be positive and finite")
        index = self._tracks.index(target)
        with self._lock:
            moment = self.ledger.now()
            end_s = moment.monotonic_s if now is None else now
            exposures = self._reader.recent(window_s + max(moment.monotonic_s - end_s, 0.0), moment)
            inside = [given for given in exposures if end_s - window_s < given.time_s <= end_s]
            dose = total_dose(self._state.map, inside, window_s, index)
            window = self._state.map.full
            return RateMap(dose.read(window, 0) / window_s, *self._state.map.axes(window))

    def open_time_map(self) -> OpenTimeMap:
        """Return for how long the beam was on each place, s; open reservations are not in it."""
        with self._lock:
            window = self._state.map.full
            return OpenTimeMap(self._state.map.open_time(window), *self._state.map.axes(window))

    def spots(self) -> tuple[SpotDose, ...]:
        """Return what every spot was given, in the order of their first exposure: one per run, spot and label.

        Exposures that do not tell their spot are gathered by place, within half the beam's width of the first of them.
        """
        with self._lock:
            found = []
            for sums in self._state.spots.spots:
                x_um, y_um = sums.centre_um
                doses = tuple(self.dose_at(x_um, y_um, target) for target in self.targets)
                found.append(
                    SpotDose(
                        x_um,
                        y_um,
                        sums.exposures,
                        sums.open_time_s,
                        sums.photons,
                        doses[0].peak_gy,
                        doses,
                        sums.run_uid,
                        sums.spot,
                        sums.label,
                    )
                )
        return tuple(found)

    # -- records -----------------------------------------------------------------------------------------------------

    @property
    def lowest_limit_gy(self) -> float | None:
        """The lowest dose limit of the primary target that refuses, Gy, or None."""
        return self.lowest_limits_gy[0]

    @property
    def lowest_limits_gy(self) -> tuple[float | None, ...]:
        """The lowest dose limit that refuses, Gy, or None, for every target."""
        limits = (self._gate.lowest_dose_limit(target) for target in range(len(self.targets)))
        return tuple(None if limit is None else limit.value for limit in limits)

    @property
    def last_counter_s(self) -> float | None:
        """The shutter's open-time counter as the ledger has it last, s; None when it was never recorded."""
        return self._state.last_counter_s

    @property
    def last_on_sample(self) -> ExposureRequest | None:
        """The last exposure on the sample, reserved or given."""
        last = self._state.last_on_sample
        return last if last is None or isinstance(last, ExposureRequest) else ExposureRequest(*last)

    @property
    def position(self) -> SamplePosition:
        """Where the sample is: as told by `DoseAccount.locate`, before that as the ledger's last runs let expect."""
        if self._located is not None:
            return self._located
        if self.carried is None:
            return SamplePosition()
        return self.carried.after(self.ledger.now().monotonic_s - self._opened_s)

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Record numbers of reservations that have not ended; they count in full."""
        with self._lock:
            return tuple(self._state.pending)

    def summary(self) -> dict[str, Any]:
        """Return definition, limits and state as plain data (JSON) for metadata and status."""
        with self._lock:
            state = self._state
            return {
                "model": self.model,
                "model_version": MODEL_VERSIONS[self.model],
                "model_id": self._model_id,
                "layer": self.layer,
                "material": self.material,
                "targets": [
                    {"layer": target.layer, "material": target.material, "peak_gy": self._peak_gy(number)}
                    for number, target in enumerate(self.targets)
                ],
                "stack": self.stack.as_dict(),
                "beam": self.beam.as_dict(),
                "profile_id": self._profile_id,
                "limits": [limit.as_dict() for limit in self.limits],
                "sigma_rel": self._gate.sigma_rel,
                "k_sigma": self._gate.k_sigma,
                "grid_um": self.grid_um,
                "outline_um": None if self.outline_um is None else list(self.outline_um),
                "ledger": str(self.ledger.path),
                "records": dict(state.counts),
                "unsettled": len(state.pending),
                "open_time_s": state.open_time_s,
                "peak_gy": self._peak_gy(0),
            }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _take_limits(self, limits: tuple[DoseLimit, ...]) -> None:
        rules = tuple(Rule(limit, target) for limit in limits for target in self._tracks.limited_by(limit))
        self.limits, self._gate = limits, replace(self._gate, rules=rules)

    def _gray_cm2(self, request: ExposureRequest) -> tuple[float, ...]:
        if not request.on_sample:
            return ()
        return self._tracks.mean_gray_cm2(request.energies_ev or (request.energy_ev,))

    def _patch(
        self, request: ExposureRequest, profile: Profile | None = None, gray_cm2: tuple[float, ...] | None = None
    ) -> Any:
        if not request.on_sample:
            return None
        factors = self._gray_cm2(request) if gray_cm2 is None else gray_cm2
        return self._state.patch(request, profile or self.beam.profile, factors)

    def _peak_gy(self, target: int) -> float:
        window = self._state.map.on_sample(self._state.map.extent)
        return 0.0 if window.empty else float(self._state.map.dose(window, target).max())

    @staticmethod
    def _status_window_s(rules: Iterable[Rule]) -> float:
        windowed = [rule.limit for rule in rules if rule.limit.window_s is not None and rule.target == 0]
        tightest = min(windowed, key=lambda limit: limit.value, default=None)
        return STATUS_WINDOW_S if tightest is None or tightest.window_s is None else tightest.window_s

    def _fill_windows(self) -> None:
        """Take up what the last exposures gave, and the reservations that were left open."""
        now = self.ledger.now()
        for given in self._reader.recent(self._windows.longest_s, now):
            self._windows.add(given)
        for number, pending in self._state.pending.items():
            if pending.request.on_sample:
                time_s = now.monotonic_s if pending.ended is None else self._reader.when(pending.ended, now)
                given = given_at(time_s, pending.request, pending.profile, pending.gray_cm2)
                self._windows.hold(number, given, ended=True)
