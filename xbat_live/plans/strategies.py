"""Exposure strategies that spread the dose: a fresh position for every scan, and locations with different exposure.

After Jousseaume et al. 2023: pouch cell a was moved after every scan; locations #1, #2, #3 of pouch cell c got 2.5 s, 98 s and 1050 s
per scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.detectors import prepare_exposures
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.locations import ONE_FIELD, FieldsUm, Flats, Location, check_apart, is_fresh, tell_dose, visit
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import DriftPolicy, NoFreshSpot, Series, SeriesSummary, decide, follow_drift


def grid_um(area_um: tuple[float, float, float, float], step_um: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the positions (x, y), um, of a grid in the order of a meander.

    Parameters
    ----------
    area_um
        Rectangle (x0, x1, y0, y1), um; the positions are centred in it.
    step_um
        Distance (x, y) between positions, um.

    Raises
    ------
    ValueError
        An empty rectangle or a step that is not positive.
    """
    x0, x1, y0, y1 = area_um
    if not (x0 <= x1 and y0 <= y1):
        raise ValueError(f"area ({x0:g}, {x1:g}, {y0:g}, {y1:g}) µm is empty; the order is x0, x1, y0, y1")
    if not all(0 < step < math.inf for step in step_um):
        raise ValueError(f"step {step_um} µm must be positive")

    def axis(low: float, high: float, step: float) -> list[float]:
        n = math.floor((high - low) / step + 1e-9)
        first = (low + high - n * step) / 2
        return [first + i * step for i in range(n + 1)]

    columns = axis(x0, x1, step_um[0])
    return [
        (x, y) for row, y in enumerate(axis(y0, y1, step_um[1])) for x in (columns if row % 2 == 0 else columns[::-1])
    ]


def move_every_scan(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    area_um: tuple[float, float, float, float],
    step_um: tuple[float, float],
    revisit: bool = False,
    n_points: int = 56,
    period_s: float = 900.0,
    duration_s: float | None = None,
    exposure_s: float = 0.048,
    fields_um: FieldsUm = ONE_FIELD,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 0.0,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Spread the dose over an area: a fresh position of a grid for every point, as pouch cell a of Jousseaume et al.

    Positions that earlier runs have dosed are skipped. The series ends when the grid is used up, or goes round again with `revisit`
    until no position is allowed another exposure. Frames of one position are registered against each other only.

    Parameters
    ----------
    area_um
        Rectangle (x0, x1, y0, y1) of the grid in sample coordinates, um.
    step_um
        Distance (x, y) from position to position, at least the beam's footprint, um.
    revisit
        Go round the grid again when it is used up.
    others
        As in `operando_txm_series`; `choose_spot` is not asked.

    Raises
    ------
    ValueError
        An empty area, or positions so close that they share dose.
    LimitBelowOneFrame
        When the limit does not allow one exposure of a fresh position.
    """
    arguments = bound_arguments(locals())
    positions = grid_um(area_um, step_um)
    check_apart(positions, fields_um, guard.account.beam.footprint_um)
    locations = [Location("P", index, x_um, y_um) for index, (x_um, y_um) in enumerate(positions)]
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    flats, position = Flats(reference_um, n_flats, flat_ttl_s), -1

    def next_position() -> MsgGenerator[Location]:
        nonlocal position
        for _ in locations:
            position += 1
            if position >= len(locations) and not revisit:
                break
            location = locations[position % len(locations)]
            if location.retired:
                continue
            if not location.exposures and not (yield from is_fresh(series, location)):
                location.retired = "dosed before"
                yield from decide(series, "skip", f"{location} was dosed before this run")
                continue
            return location
        raise NoFreshSpot(f"all {len(locations)} positions of the area are used")

    def point(index: int) -> MsgGenerator[None]:
        yield from flats.when_due(series)
        yield from follow_drift(series)
        measured = False
        while not measured:  # a position that refuses at once is no point: the next one is
            location = yield from next_position()
            taken = series.frames
            yield from visit(series, location, fields_um=fields_um)
            measured = series.frames > taken
            yield from tell_dose(series, location)

    return (
        yield from run_series(
            series,
            point,
            clock=Clock(n_points, period_s, duration_s),
            title=f"{n_points} points spread over {len(locations)} positions",
            n_darks=n_darks,
            protocol=protocol,
            metadata=run_metadata("move_every_scan", arguments, beamline, guard, md),
        )
    )


def graded_exposure(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    locations_um: FieldsUm,
    exposures_s: Sequence[float] = (2.5, 98.0, 1050.0),
    n_points: int = 56,
    period_s: float = 900.0,
    duration_s: float | None = None,
    exposure_s: float = 2.5,
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 0.0,
    n_darks: int = 5,
    verdict_timeout_s: float = 10.0,
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Visit several locations in turn at every point and expose each for its own time, to see what dose does.

    With the defaults locations #1, #2, #3 of Jousseaume et al. (NMC811 pouch cell c): 2.5 s, 98 s and 1050 s per scan. A long exposure is
    cut into frames of equal length, none longer than `exposure_s`. The doses of the locations are the experiment, so frames are not
    retaken, and a location that reaches a limit is retired where it is while the others go on.

    Parameters
    ----------
    locations_um
        Sample coordinates (x, y), um, farther apart than the beam's footprint.
    exposures_s
        Exposure per visit of each location, s.
    exposure_s
        Longest exposure of the camera in one frame, s; flats are taken with it.
    others
        As in `operando_txm_series`; `choose_spot` is not asked.

    Raises
    ------
    ValueError
        Not one exposure per location, an exposure that is not positive, or locations that share dose.
    LimitBelowOneFrame
        When the limit does not allow one exposure of a fresh location.
    """
    arguments = bound_arguments(locals())
    if not locations_um or len(locations_um) != len(exposures_s):
        raise ValueError(
            f"{len(locations_um)} locations and {len(exposures_s)} exposures; each location needs its own exposure in s"
        )
    if not all(0 < value < math.inf for value in (*exposures_s, exposure_s)):
        raise ValueError(f"exposures {tuple(exposures_s)} s in frames of {exposure_s:g} s: all must be positive")
    check_apart(locations_um, ONE_FIELD, guard.account.beam.footprint_um)
    locations = [Location(f"#{i + 1}", i, x_um, y_um) for i, (x_um, y_um) in enumerate(locations_um)]
    frames = [math.ceil(total_s / exposure_s - 1e-9) for total_s in exposures_s]
    series = Series.of(beamline, guard, analysis, choose_spot, {**arguments, "max_retakes": 0})
    flats = Flats(reference_um, n_flats, flat_ttl_s)

    def set_frame_time(frame_s: float) -> MsgGenerator[None]:
        series.exposure_s = frame_s
        yield from prepare_exposures(beamline, guard, frame_s)

    def point(index: int) -> MsgGenerator[None]:
        yield from set_frame_time(exposure_s)
        yield from flats.when_due(series)
        yield from follow_drift(series)
        for location, total_s, n in zip(locations, exposures_s, frames, strict=True):
            if location.retired:
                continue
            yield from set_frame_time(total_s / n)
            yield from visit(series, location, frames=n)
            yield from tell_dose(series, location)
        if all(location.retired for location in locations):
            raise NoFreshSpot("every location has reached a limit")

    return (
        yield from run_series(
            series,
            point,
            clock=Clock(n_points, period_s, duration_s),
            title=f"{n_points} points at {len(locations)} locations with {', '.join(f'{value:g}' for value in exposures_s)} s each",
            n_darks=n_darks,
            protocol=protocol,
            metadata=run_metadata("graded_exposure", arguments, beamline, guard, md),
        )
    )
