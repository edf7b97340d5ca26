"""The state of an account: what the records of its ledger add up to, whoever reads them, live or later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xbat_live.dose.exposure import ExposureRequest
from xbat_live.dose.grid import Window
from xbat_live.dose.profiles import Profile
from xbat_live.dose.records import KINDS, Kind
from xbat_live.dose.sample_map import Patch, SampleMap
from xbat_live.dose.spot_book import SpotBook


class Exposed(NamedTuple):
    """An exposure as a row of the ledger has it; the names are those of `ExposureRequest`, which checks every value."""

    x_um: float
    y_um: float
    energy_ev: float
    open_time_s: float
    flux_ph_s: float
    run_uid: str
    label: str
    on_sample: bool
    spot: int | None


class Writer(NamedTuple):
    """Who wrote a record, and when."""

    boot_id: str
    process_id: int
    wall_s: float
    monotonic_s: float


@dataclass
class Pending:
    """A reservation that has not ended.

    `ended` is a record of another process that came later: when it was written, the exposure was over.
    """

    request: ExposureRequest
    profile_id: str
    profile: Profile
    gray_cm2: tuple[float, ...]
    ended: Writer | None = None


@dataclass
class AccountState:
    """Everything that the records say, up to and with record `seq`.

    Attributes
    ----------
    map
        Dose, rate and open time.
    spots
        Exposures by spot.
    seq
        Last record that is in it.
    counts
        Records by kind.
    open_time_s
        Shutter-open time, s.
    pending
        Reservations that have not ended, by record number.
    last_counter_s, degraded
        The shutter's counter, s, and the remark on the flux, as recorded last.
    last_on_sample
        The last exposure on the sample, reserved or given.
    writer
        Who wrote the last record.
    """

    map: SampleMap
    spots: SpotBook
    seq: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    open_time_s: float = 0.0
    pending: dict[int, Pending] = field(default_factory=dict)
    last_counter_s: float | None = None
    degraded: str = ""
    last_on_sample: Exposed | ExposureRequest | None = None
    writer: Writer | None = None
    _widths: dict[Profile, tuple[float, float]] = field(default_factory=dict)

    def promise(self, number: int, pending: Pending) -> None:
        """Take up a reservation."""
        self.pending[number] = pending
        if pending.request.on_sample:
            self.map.hold(number, self.patch(pending.request, pending.profile, pending.gray_cm2))

    def mark_ended(self, later: Writer) -> None:
        """Note that the writer of all reservations that are open had ended when another one wrote."""
        for item in self.pending.values():
            if item.ended is None:
                item.ended = later

    def recorded(self, seq: int, kind: Kind, writer: Writer, counter_s: float | None) -> None:
        """Take note that record `seq` was written."""
        if self.writer is None or writer[:2] != self.writer[:2]:
            self.mark_ended(writer)
        self.writer, self.seq = writer, seq
        self.counts[kind] += 1
        if counter_s is not None:
            self.last_counter_s = counter_s

    def release(self, number: int | None) -> None:
        """End a reservation; what was delivered is counted apart."""
        if number is not None:
            self.pending.pop(number, None)
            self.map.release(number)

    def give(self, exposed: Exposed | ExposureRequest, profile: Profile, gray_cm2: tuple[float, ...]) -> None:
        """Count an exposure that was given."""
        self.open_time_s += exposed.open_time_s
        if exposed.on_sample:
            self.map.add(self.patch(exposed, profile, gray_cm2), exposed.open_time_s)
            width_um = self._widths.get(profile)
            if width_um is None:
                width_um = self._widths[profile] = profile.fwhm_um
            self.spots.add(exposed, width_um)

    def patch(self, exposed: Exposed | ExposureRequest, profile: Profile, gray_cm2: tuple[float, ...]) -> Patch:
        """Return where an exposure falls; `gray_cm2` is the dose per fluence of every target, Gy cm2 per photon."""
        photons = exposed.flux_ph_s * exposed.open_time_s
        return self.map.spread(profile, exposed.x_um, exposed.y_um, tuple([photons * value for value in gray_cm2]))

    def give_prior(
        self, x_um: float, y_um: float, size_um: tuple[float, float], targets: tuple[int, ...], dose_gy: float
    ) -> None:
        """Count dose given before, uniform over all pixels that the rectangle touches."""
        if targets:
            self.map.add_uniform(Window.around(x_um, y_um, size_um, self.map.pixel_um), targets, dose_gy)

    def header(self) -> dict[str, Any]:
        """Return everything but the map as plain data (JSON)."""
        last = self.last_on_sample
        return {
            "seq": self.seq,
            "counts": self.counts,
            "open_time_s": self.open_time_s,
            "spots": self.spots.as_list(),
            "last_counter_s": self.last_counter_s,
            "degraded": self.degraded,
            "last_on_sample": None if last is None else _plain(last),
            "writer": self.writer,
            "pending": [
                [number, *_plain(item.request), item.profile_id, list(item.gray_cm2), item.ended]
                for number, item in sorted(self.pending.items())
            ],
        }


def empty_state(grid_um: float, outline_um: tuple[float, float] | None, targets: int) -> AccountState:
    """Return the state before the first record."""
    return AccountState(SampleMap(grid_um, outline_um, targets), SpotBook())


def _plain(exposed: Exposed | ExposureRequest) -> list[Any]:
    values = [getattr(exposed, name) for name in Exposed._fields]
    values[Exposed._fields.index("on_sample")] = bool(exposed.on_sample)  # SQLite has 0 and 1
    return values
