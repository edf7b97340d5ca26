"""Is it the beam or the cell? One spot irradiated while the cell is charged, compared afterwards with spots that saw no beam.

The protocol of the LiNiO2 study (full-field XAS imaging): open circuit, galvanostatic charge and hold with spot #C in the beam all the
time; then the fresh spots #A and #B.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from xbat_live.devices import PotentiostatError, PotentiostatStep, TxmBeamline
from xbat_live.dose import format_gy
from xbat_live.plans._blocking import call_in
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.locations import (
    FRESH_FRACTION,
    Flats,
    Location,
    clearance_um,
    fresh_below_gy,
    rest,
    tell_dose,
    visit,
)
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import DriftPolicy, Series, SeriesSummary, decide, follow_drift

MOST_STARTS = 400
"""Places that the search for a fresh spot starts from, at most."""


def fresh_spots_protocol(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fresh: Sequence[str] = ("A", "B"),
    guard_um: float = 2.0,
    n_ocv: int = 120,
    n_fresh: int = 120,
    c_rate_per_h: float = 0.25,
    charge_to_v: float = 4.3,
    cutoff_low_v: float = 2.8,
    charge_timeout_s: float = 28800.0,
    hold_s: float = 10800.0,
    exposure_s: float = 0.048,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 3600.0,
    n_darks: int = 5,
    verdict_timeout_s: float = 10.0,
    drift: DriftPolicy | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Irradiate spot #C through open circuit, charge and hold, then measure fresh spots of the charged cell for comparison.

    1. open circuit: `n_ocv` frames at #C; 2. charge at `c_rate_per_h` to `charge_to_v`, #C frame after frame until the potentiostat has
    reached it; 3. hold there for `hold_s`, #C as before; 4. still held: `n_fresh` frames at #C and at every fresh spot. Frames follow each
    other without a pause but every one is guarded; when #C reaches a limit it is spared from then on and the protocol goes on, because the
    comparison is what it is for. The cell is left at open circuit on every way out.

    Parameters
    ----------
    spot_um
        Spot #C, sample coordinate (x, y), um.
    fresh
        Labels of the fresh spots.
    guard_um
        Least distance from the footprint of a fresh spot to any pixel with more than a hundredth of what #C has received (or of the
        lowest dose limit, whichever is less), measured in the account's map, um.
    choose_spot
        Returns the nearest spot to a sample coordinate that may be used; it is asked until one keeps `guard_um`.
    n_ocv, n_fresh
        Frames at open circuit, and at each spot at the end.
    c_rate_per_h, charge_to_v, cutoff_low_v
        Charging rate, 1/h; upper and lower cut-off voltage, V.
    charge_timeout_s
        The charge ends after this time even below `charge_to_v`, s.
    hold_s
        Time at `charge_to_v` with #C irradiated, s.
    others
        As in `operando_txm_series`. Frames are not retaken.

    Returns
    -------
    SeriesSummary
        Its points are the frames of all spots.

    Raises
    ------
    PotentiostatError
        When the potentiostat reports a fault.
    LimitBelowOneFrame
        When the limit does not allow one exposure of a fresh spot.
    """
    arguments = bound_arguments(locals())
    series = Series.of(beamline, guard, analysis, choose_spot, {**arguments, "max_retakes": 0})
    spots = _Spots(series, Flats(reference_um, n_flats, flat_ttl_s))
    irradiated = Location("C", 0, *spot_um)
    # above the voltage that is held the cut-off would not end the hold at once
    limits_v = {"cutoff_low_v": cutoff_low_v, "cutoff_high_v": charge_to_v + 0.1}
    charge = PotentiostatStep(
        "galvanostatic", c_rate_per_h=c_rate_per_h, cutoff_low_v=cutoff_low_v, cutoff_high_v=charge_to_v
    )
    hold, open_circuit = PotentiostatStep("hold", hold_v=charge_to_v, **limits_v), PotentiostatStep("ocv", **limits_v)
    cycled = False

    def phase(name: str, step: PotentiostatStep) -> MsgGenerator[float]:
        nonlocal cycled
        cycled = True
        yield from bps.abs_set(beamline.potentiostat, step, wait=True)
        yield from decide(series, "phase", f"{name}: {step}")
        return time.monotonic()

    def charged(since_s: float) -> MsgGenerator[bool]:
        status = yield from bps.rd(beamline.potentiostat.status)
        if status == "Fault":
            raise PotentiostatError(f"{beamline.potentiostat.name} reports Fault; look at its front panel")
        return status == "Done" or time.monotonic() - since_s >= charge_timeout_s

    def held(since_s: float) -> MsgGenerator[bool]:
        yield from bps.null()
        return time.monotonic() - since_s >= hold_s

    def protocol(index: int) -> MsgGenerator[None]:
        yield from phase("spot #C before the charge", open_circuit)
        yield from spots.measure(irradiated, n_ocv)
        since_s = yield from phase("spot #C irradiated", charge)
        yield from spots.irradiate(irradiated, lambda: charged(since_s))
        since_s = yield from phase(f"spot #C irradiated for {hold_s:g} s", hold)
        yield from spots.irradiate(irradiated, lambda: held(since_s))
        yield from spots.measure(irradiated, n_fresh)
        for number, label in enumerate(fresh):
            location = yield from find_fresh_spot(series, label, number + 1, near=irradiated, guard_um=guard_um)
            if location is not None:
                yield from spots.measure(location, n_fresh)
        yield from phase("protocol finished", open_circuit)

    def leave_cell() -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        if cycled:
            yield from bps.stop(beamline.potentiostat)

    run = run_series(
        series,
        protocol,
        clock=Clock(1, 0.0),
        title=f"fresh spots protocol: #C irradiated to {charge_to_v:g} V, then {', '.join('#' + label for label in fresh)}",
        n_darks=n_darks,
        protocol=(),
        metadata=run_metadata("fresh_spots_protocol", arguments, beamline, guard, md),
    )
    summary = yield from bpp.finalize_wrapper(run, leave_cell)
    return replace(summary, points=summary.frames)


@dataclass(frozen=True)
class _Spots:
    """What is done at the spots of the protocol."""

    series: Series
    flats: Flats

    def frame(self, location: Location) -> MsgGenerator[None]:
        """Take one frame, or rest when the spot has reached a limit."""
        series = self.series
        yield from bps.checkpoint()
        series.records.point.fill(index=series.frames)
        yield from self.flats.when_due(series)
        yield from follow_drift(series)
        yield from visit(series, location)
        if location.retired:
            yield from rest(1.0)  # the cell is cycled on, the spot is spared

    def irradiate(self, location: Location, over: Callable[[], MsgGenerator[bool]]) -> MsgGenerator[None]:
        """Take frame after frame until `over` says so."""
        while not (yield from over()):
            yield from self.frame(location)
        yield from tell_dose(self.series, location)

    def measure(self, location: Location, n: int) -> MsgGenerator[None]:
        """Take `n` frames, or fewer when the spot reaches a limit."""
        for _ in range(n):
            if location.retired:
                break
            yield from self.frame(location)
        yield from tell_dose(self.series, location)


def find_fresh_spot(
    series: Series, label: str, index: int, *, near: Location, guard_um: float
) -> MsgGenerator[Location | None]:
    """Find a fresh spot and measure its distance from dosed sample; None, with the reason recorded, when there is none.

    Parameters
    ----------
    label, index
        Of the spot to be found.
    near
        The irradiated spot: a fresh one nearest to it is looked for.
    guard_um
        Least distance from its footprint to dosed sample, um.
    """
    found = yield from call_in(series.guard.executor, _nearest, series, near, guard_um)
    if found is None:
        reason = f"no fresh spot for #{label} with {guard_um:g} µm between its footprint and dosed sample"
        yield from decide(series, "skip", reason, threshold=guard_um)
        return None
    (x_um, y_um), distance_um, above_gy = found
    location = Location(label, index, x_um, y_um)
    inputs = {"x_um": x_um, "y_um": y_um, "clearance_um": distance_um, "fresh_below_gy": above_gy}
    reason = f"fresh spot #{location}, {distance_um:.1f} µm from the nearest pixel with more than {format_gy(above_gy)}"
    yield from decide(series, "move", reason, threshold=guard_um, **inputs)
    return location


def _nearest(series: Series, near: Location, guard_um: float) -> tuple[tuple[float, float], float, float] | None:
    """Return the nearest spot that is far enough from dosed sample, its distance from it, um, and what counts as dosed, Gy.

    The chooser calls fresh what has less than a fraction of the limit. The limit of this protocol is high, so what counts here
    is a fraction of what the irradiated spot has; the chooser is asked from many places until an answer stands the test.
    """
    guard = series.guard
    account, footprint_um = guard.account, guard.account.beam.footprint_um
    above_gy = min(FRESH_FRACTION * account.dose_at(near.x_um, near.y_um).peak_gy, fresh_below_gy(account) or math.inf)
    dose_map = account.dose_map()
    tested: set[tuple[float, float]] = set()
    for x_um, y_um in starts_um(guard.outline_um, footprint_um, (near.x_um, near.y_um)):
        spot_um = series.choose_spot(x_um, y_um)
        if spot_um is None:
            return None
        if spot_um in tested:
            continue
        tested.add(spot_um)
        distance_um = clearance_um(dose_map, *spot_um, footprint_um=footprint_um, above_gy=above_gy)
        if distance_um > 0 and distance_um >= guard_um:
            return spot_um, distance_um, above_gy
    return None


def starts_um(
    outline_um: tuple[float, float], footprint_um: tuple[float, float], near_um: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return places all over a sample, the nearest to `near_um` first: half a footprint apart, or coarser on a large sample; all um."""
    width_um, height_um = outline_um
    step_um = max(min(footprint_um) / 2, math.sqrt(width_um * height_um / MOST_STARTS))
    columns, rows = (math.ceil(size_um / step_um) for size_um in outline_um)
    places = [
        ((column + 0.5) / columns * width_um - width_um / 2, (row + 0.5) / rows * height_um - height_um / 2)
        for row in range(rows)
        for column in range(columns)
    ]
    return [near_um, *sorted(places, key=lambda place: math.dist(place, near_um))]
