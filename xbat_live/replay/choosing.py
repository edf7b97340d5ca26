"""Which recorded frame is served for an exposure that a replay asks for (decision record 0020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xbat_live.replay.recording import Exposure

RECORDED, MOVED, STAND_IN = "recorded", "moved", "stand-in"
ENERGY_TOLERANCE_EV = 0.5
PLACE_TOLERANCE_PX = 0.5


@dataclass(frozen=True)
class Wanted:
    """An exposure that a replay is about to make.

    Attributes
    ----------
    stream
        ``primary``, ``flat`` or ``dark``.
    point, field, spot, attempt
        What the plan calls it; None: it does not say.
    stage_um
        Stage reading (x, y), um.
    energy_ev
        Photon energy, eV; NaN: unknown.
    """

    stream: str
    stage_um: tuple[float, float] = (math.nan, math.nan)
    energy_ev: float = math.nan
    point: int | None = None
    field: str | None = None
    spot: int | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes
    ----------
    exposure
        The recorded one.
    how
        ``recorded``: this very exposure; ``moved``: this exposure with the stage elsewhere, the picture is shifted by as much;
        ``stand-in``: never recorded, another exposure takes its place.
    shift_um
        Stage position wanted minus recorded (x, y), um; for `moved` only.
    why
        For people; empty for `recorded`.
    """

    exposure: Exposure
    how: str = RECORDED
    shift_um: tuple[float, float] = (0.0, 0.0)
    why: str = ""


@dataclass
class Chooser:
    """Chooses by what the exposure is, then by where and when; each recorded exposure is served once before any is served twice.

    Attributes
    ----------
    exposures
        The recorded ones.
    pixel_size_um
        Of an unbinned pixel: differences of the stage below half of it are none.
    field_um
        Width (x, y) of a field of view, um: a picture is shifted by up to half of it, beyond that it is another place.
    """

    exposures: Sequence[Exposure]
    pixel_size_um: float
    field_um: tuple[float, float] = (20.0, 20.0)
    served: set[int] = field(default_factory=set)
    last: Exposure | None = None
    last_of: dict[str, Exposure] = field(default_factory=dict)
    _of_stream: dict[str, list[Exposure]] = field(default_factory=dict)
    _by_name: dict[tuple[Any, ...], list[Exposure]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for exposure in self.exposures:
            self._of_stream.setdefault(exposure.stream, []).append(exposure)
            self._by_name.setdefault(_name(exposure), []).append(exposure)

    def find(self, wanted: Wanted) -> Served | None:
        """Return what would be served; None when nothing of that kind was recorded."""
        known = self._of_stream.get(wanted.stream, [])
        if not known:
            return None
        if wanted.stream == "dark":
            return Served(self._next(known))
        same = [e for e in self._called(known, wanted) if _at_energy(e, wanted.energy_ev)]
        fresh = [e for e in same if e.number not in self.served]
        if fresh:
            return self._placed(self._next(fresh), wanted)
        if same and wanted.stream == "flat":
            return Served(self._next(same), STAND_IN, why="one more flat than was recorded: one is served again")
        return self._stand_in(known, wanted)

    def serve(self, wanted: Wanted) -> Served | None:
        """Return what is served, and take note of it."""
        found = self.find(wanted)
        if found is not None:
            self.served.add(found.exposure.number)
            self.last_of[wanted.stream] = found.exposure
            if found.how != STAND_IN:
                self.last = found.exposure
        return found

    def _called(self, known: Sequence[Exposure], wanted: Wanted) -> Sequence[Exposure]:
        """Return the exposures that the plan calls so; a plan that calls them nothing gets those of the place."""
        if wanted.point is not None:
            return self._by_name.get(_name(wanted), [])
        fresh = [e for e in known if e.number not in self.served and _at_energy(e, wanted.energy_ev)]
        return [e for e in fresh if self._reaches(wanted.stage_um, e)] or fresh

    def _reaches(self, stage_um: tuple[float, float], exposure: Exposure) -> bool:
        away = (abs(a - b) for a, b in zip(stage_um, exposure.stage_um, strict=True))
        return all(distance <= width / 2 for distance, width in zip(away, self.field_um, strict=True))

    def _next(self, candidates: Sequence[Exposure]) -> Exposure:
        """Return the first that was not served yet, else the one that follows the last served."""
        fresh = [e for e in candidates if e.number not in self.served]
        if fresh:
            return fresh[0]
        last = self.last_of.get(candidates[0].stream)
        return next((e for e in candidates if last is not None and e.number > last.number), candidates[0])

    def _placed(self, exposure: Exposure, wanted: Wanted) -> Served:
        dx, dy = (a - b for a, b in zip(wanted.stage_um, exposure.stage_um, strict=True))
        if math.isnan(dx + dy) or exposure.stream == "flat":
            return Served(exposure)
        if max(abs(dx), abs(dy)) <= PLACE_TOLERANCE_PX * self.pixel_size_um:
            return Served(exposure)
        if self._reaches(wanted.stage_um, exposure):
            return Served(exposure, MOVED, (dx, dy), f"stage {dx:+.3f}, {dy:+.3f} um (x, y) from where it was")
        return Served(exposure, STAND_IN, why=f"recorded at another place, {math.hypot(dx, dy):.0f} um away")

    def _stand_in(self, known: Sequence[Exposure], wanted: Wanted) -> Served:
        """Return another exposure: of this field at this spot if there is one, else of this field, else of this kind; near in time.

        Never the one served last, because a picture that comes twice is a duplicate, which no camera delivers.
        """
        before = self.last_of.get(wanted.stream)
        others = [e for e in known if before is None or e.number != before.number] or list(known)
        at = self.last.number if self.last is not None else 0
        energy = ""
        if not any(_at_energy(e, wanted.energy_ev) for e in others):
            nearest_ev = min((e.energy_ev for e in others), key=lambda energy_ev: abs(energy_ev - wanted.energy_ev))
            energy = f", at {nearest_ev:g} eV"
            others = [e for e in others if e.energy_ev == nearest_ev]
        else:
            others = [e for e in others if _at_energy(e, wanted.energy_ev)]
        tests: tuple[tuple[Callable[[Exposure], bool], str], ...] = (
            (lambda e: e.field == wanted.field and e.spot == wanted.spot, "another exposure of this field and spot"),
            (lambda e: e.field == wanted.field, "this field at another spot"),
        )
        fitting, what = others, "another field"
        for test, words in tests:
            if found := [e for e in others if test(e)]:
                fitting, what = found, words
                break
        now = wanted.point
        exposure = min(fitting, key=lambda e: (0 if now is None else abs(e.point - now), abs(e.number - at), e.number))
        return Served(exposure, STAND_IN, why=f"never recorded: {what} (frame {exposure.seq_num}{energy})")


def _name(what: Exposure | Wanted) -> tuple[Any, ...]:
    return what.stream, what.point, what.field, what.spot, what.attempt


def _at_energy(exposure: Exposure, energy_ev: float) -> bool:
    return not abs(exposure.energy_ev - energy_ev) > ENERGY_TOLERANCE_EV  # an unknown one fits
