"""Reading a ledger back: from the first record, or from a snapshot."""

from __future__ import annotations

import math
from collections.abc import Iterator

from xbat_live.dose.beam import MAX_FLUX_PH_S
from xbat_live.dose.exposure import ExposureRequest
from xbat_live.dose.ledger import Ledger, Moment
from xbat_live.dose.profiles import Profile, profile_from_record
from xbat_live.dose.records import LedgerCorrupt
from xbat_live.dose.state import AccountState, Exposed, Pending, Writer
from xbat_live.dose.tracks import Tracks
from xbat_live.dose.windows import Given
from xbat_live.dose.writing import Factors

_STAMP = ("boot_id", "process_id", "time_unix_s", "time_monotonic_s")
_WHAT = ("gy_cm2", "also_gy_cm2", "profile_id", "model_id")
_PRIOR = ("size_x_um", "size_y_um", "prior_gy", "layer", "material")
_COLUMNS = ("seq", "kind", "reservation", *_STAMP, *Exposed._fields, *_WHAT, "counter_s", "degraded", *_PRIOR)
_EXPOSED = slice(_COLUMNS.index("x_um"), _COLUMNS.index("gy_cm2"))
_WHAT_AT = slice(_EXPOSED.stop, _EXPOSED.stop + len(_WHAT))
_COUNTER_AT = _WHAT_AT.stop
_ON_SAMPLE_AT = _EXPOSED.start + Exposed._fields.index("on_sample")
_PREPARE = 5_000


class Reader:
    """Turns records into exposures.

    Parameters
    ----------
    ledger
        The ledger.
    tracks
        What is tracked.
    default_profile
        Shape of the beam for records that do not tell it; None: such records are an error.

    Attributes
    ----------
    guessed
        True when it was needed: the result then depends on more than the records.
    """

    def __init__(self, ledger: Ledger, tracks: Tracks, default_profile: Profile | None = None) -> None:
        self._ledger, self._tracks, self._default_profile = ledger, tracks, default_profile
        self.guessed = False
        self._factors = Factors(tracks)
        self._profiles: dict[str, Profile] = {}

    @property
    def converted(self) -> int:
        """Number of exposures that were recorded with another stack or dose model."""
        return self._factors.converted

    def replay(self, state: AccountState, *, up_to: int | None = None) -> None:
        """Add all records after ``state.seq`` (and up to `up_to`) in order: the same additions as when they were written.

        Raises
        ------
        LedgerCorrupt
            A record holds impossible values, or refers to a definition that is missing.
        """
        open_rows: dict[int, tuple] = {}
        ended: dict[int, Writer] = {}
        row: tuple = ()
        try:
            for row in self._rows(state.seq, up_to):
                writer = state.writer
                if writer is None or row[4] != writer.process_id or row[3] != writer.boot_id:
                    state.writer = Writer(*row[3:7])
                    state.mark_ended(state.writer)
                    ended.update({number: state.writer for number in open_rows if number not in ended})
                self._take(state, row, open_rows)
            if row:
                state.writer = Writer(*row[3:7])
            for seq, row in open_rows.items():  # only now: nearly all reservations have ended
                state.promise(seq, self._pending(row, ended.get(seq)))
        except (TypeError, ValueError) as error:
            raise LedgerCorrupt(
                f"{self._ledger.path}: record {row[0]} ({row[1]}) holds impossible values: {error}"
            ) from error

    def _take(self, state: AccountState, row: tuple, open_rows: dict[int, tuple]) -> None:
        """Add one record; a reservation is only put aside."""
        seq, kind, reservation = row[:3]
        state.seq = seq
        state.counts[kind] += 1
        if row[_COUNTER_AT] is not None:
            state.last_counter_s = row[_COUNTER_AT]
        if kind == "reserve":
            open_rows[seq] = row
            if row[_ON_SAMPLE_AT]:
                state.last_on_sample = Exposed._make(row[_EXPOSED])
            return
        if reservation is not None and open_rows.pop(reservation, None) is None:
            state.release(reservation)
        if kind in ("settle", "unreserved"):
            exposed = _checked(Exposed._make(row[_EXPOSED]))
            state.degraded = row[_COUNTER_AT + 1] or ""
            if exposed.on_sample:
                state.last_on_sample = exposed
            state.give(exposed, *self._what(exposed.energy_ev, exposed.on_sample, row[_WHAT_AT]))
        elif kind == "prior":
            self._prior(state, row)

    def recent(self, window_s: float, now: Moment) -> list[Given]:
        """Return the exposures on the sample that ended within the last `window_s` seconds, the oldest first.

        Within a boot of the machine ages are those of the monotonic clock, so that a step of the wall clock changes
        nothing. Across boots the wall clock tells how much time passed between the last record before and the first
        after, but never less than the machine has been up, nor less than nothing.
        """
        found: list[Given] = []
        columns = ("kind", *_STAMP, *Exposed._fields, *_WHAT)
        first = 1 + len(_STAMP)
        later = Writer(self._ledger.boot_id, 0, *now)
        later_s = now.monotonic_s
        for row in self._ledger.rows_backwards(columns):
            stamp = Writer(*row[1:first])
            same_boot = stamp.boot_id == later.boot_id and stamp.boot_id != ""
            passed_s = max(later.monotonic_s - stamp.monotonic_s if same_boot else later.wall_s - stamp.wall_s, 0.0)
            if not same_boot and later.boot_id == self._ledger.boot_id:
                passed_s = max(passed_s, later.monotonic_s)  # it was written before this boot
            later, later_s = stamp, later_s - passed_s
            if later_s <= now.monotonic_s - window_s:
                break
            if row[0] in ("settle", "unreserved") and row[first + 7]:
                exposed = Exposed._make(row[first : first + len(Exposed._fields)])
                profile, gray_cm2 = self._what(exposed.energy_ev, True, row[-len(_WHAT) :])
                found.append(given_at(later_s, exposed, profile, gray_cm2))
        return found[::-1]

    def when(self, stamp: Writer, now: Moment) -> float:
        """Return a time on the monotonic clock of this boot, s, for a stamp of whatever boot; see `recent`."""
        if stamp.boot_id == self._ledger.boot_id and stamp.boot_id != "":
            return min(stamp.monotonic_s, now.monotonic_s)
        return now.monotonic_s - max(now.wall_s - stamp.wall_s, now.monotonic_s, 0.0)

    def profile(self, identifier: str | None) -> Profile:
        """Return a beam profile by its definition."""
        if identifier is None:
            if self._default_profile is None:
                raise ValueError("no beam profile")
            self.guessed = True
            return self._default_profile
        known = self._profiles.get(identifier)
        if known is None:
            known = profile_from_record(*self._ledger.definition(identifier))
            self._profiles[identifier] = known
        return known

    def _rows(self, after: int, up_to: int | None) -> Iterator[tuple]:
        """All rows; what has to be computed for their energies is computed for many at once."""
        batch: list[tuple] = []
        for row in self._ledger.rows(_COLUMNS, after=after):
            if up_to is not None and row[0] > up_to:
                break
            batch.append(row)
            if len(batch) >= _PREPARE:
                self._prepare(batch)
                yield from batch
                batch = []
        self._prepare(batch)
        yield from batch

    def _prepare(self, rows: list[tuple]) -> None:
        energy_at, also_at, model_at = (_COLUMNS.index(name) for name in ("energy_ev", "also_gy_cm2", "model_id"))
        self._tracks.prepare(
            row[energy_at]
            for row in rows
            if row[1] in ("settle", "unreserved")
            and row[_ON_SAMPLE_AT]
            and self._factors.computed(row[model_at], row[also_at])
        )

    def _what(self, energy_ev: float, on_sample: bool, what: tuple) -> tuple[Profile, tuple[float, ...]]:
        gy_cm2, also, profile_id, model_id = what
        factors = self._factors.of(model_id, energy_ev, gy_cm2, also) if on_sample else ()
        return self.profile(profile_id), factors

    def _pending(self, row: tuple, ended: Writer | None) -> Pending:
        request = ExposureRequest(*row[_EXPOSED])
        profile, gray_cm2 = self._what(request.energy_ev, request.on_sample, row[_WHAT_AT])
        return Pending(request, row[_WHAT_AT][2], profile, gray_cm2, ended)

    def _prior(self, state: AccountState, row: tuple) -> None:
        size_x_um, size_y_um, dose_gy, layer, material = row[-len(_PRIOR) :]
        x_um, y_um = row[_EXPOSED][:2]
        if not (abs(x_um) <= 1e6 and abs(y_um) <= 1e6 and 0 <= dose_gy < math.inf and size_x_um > 0 and size_y_um > 0):
            raise ValueError(f"{dose_gy} Gy on {size_x_um} x {size_y_um} um at ({x_um}, {y_um}) um")
        state.give_prior(x_um, y_um, (size_x_um, size_y_um), self._tracks.of_material(material, layer or ""), dose_gy)


def given_at(time_s: float, exposed: Exposed | ExposureRequest, profile: Profile, gray_cm2: tuple[float, ...]) -> Given:
    """Return an exposure as windows count it: ended at `time_s`, s."""
    photons = exposed.flux_ph_s * exposed.open_time_s
    dose = tuple([photons * value for value in gray_cm2])
    return Given(time_s, exposed.x_um, exposed.y_um, profile, dose, exposed.open_time_s)


def _checked(exposed: Exposed) -> Exposed:
    """Return an exposure whose numbers are possible; `ExposureRequest` tells what is wrong with others."""
    if not (
        abs(exposed.x_um) <= 1e6
        and abs(exposed.y_um) <= 1e6
        and 0 <= exposed.open_time_s < math.inf
        and 0 <= exposed.flux_ph_s <= MAX_FLUX_PH_S
        and exposed.energy_ev > 0
    ):
        ExposureRequest(*exposed)
    return exposed
