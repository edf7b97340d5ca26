"""A series in the order that a beamline's scan script has: flats and frames, each with its energy and exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.detectors import prepare_exposures
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import DriftPolicy, Series, SeriesSummary, follow_drift, measure_spot
from xbat_live.plans.stubs import take_flats


@dataclass(frozen=True)
class ScanStep:
    """What is taken without anything being changed in between.

    Attributes
    ----------
    frames, flats
        How many; one of them is 0.
    energy_ev, exposure_s
        Set before it, eV and s.
    at_um
        Of frames: offset (x, y) from the spot, um.
    """

    frames: int
    flats: int
    energy_ev: float
    exposure_s: float
    at_um: tuple[float, float] = (0.0, 0.0)


def scripted_series(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    steps: Sequence[ScanStep],
    n_points: int,
    period_s: float = 0.0,
    duration_s: float | None = None,
    spot_um: tuple[float, float] = (0.0, 0.0),
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    policy: str | Sequence[str] = "relocate",
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Take what `steps` say, in their order; a point is all that is taken at one energy.

    Every exposure passes the dose guard, every frame of the sample is judged, as in `xanes_series`. Frames of one energy, offset and spot
    are registered against the first of them. Darks are exposed as long as the first frames.

    Parameters
    ----------
    steps
        What is taken.
    n_points
        Energies that are visited; after its last one the script begins anew.
    others
        As in `operando_txm_series`.

    Raises
    ------
    ValueError
        When no step takes frames.
    """
    first = next((step for step in steps if step.frames), None)
    if first is None:
        raise ValueError("no step takes frames of the sample; steps need at least one with frames above 0")
    arguments = bound_arguments({name: value for name, value in locals().items() if name != "first"})
    series = Series.of(beamline, guard, analysis, choose_spot, {**arguments, "exposure_s": first.exposure_s})
    labels = {at_um: index for index, at_um in enumerate(dict.fromkeys(step.at_um for step in steps if step.frames))}

    groups = [list(group) for _, group in groupby(steps, key=lambda step: step.energy_ev)]

    def script(index: int) -> MsgGenerator[None]:
        group = groups[index % len(groups)]
        yield from bps.checkpoint()
        yield from bps.mv(beamline.mono.energy, group[0].energy_ev)
        for step in group:
            series.exposure_s = step.exposure_s
            yield from prepare_exposures(beamline, guard, step.exposure_s)
            if step.flats:
                point = series.records.point
                yield from take_flats(
                    beamline, guard, point, reference_um=reference_um, exposure_s=step.exposure_s, n=step.flats
                )
                continue
            yield from follow_drift(series)
            for _ in range(step.frames):
                yield from measure_spot(series, [step.at_um], first_label=labels[step.at_um])

    metadata = run_metadata("scripted_series", arguments, beamline, guard, md)
    metadata["hints"] = {"dimensions": [([beamline.mono.energy.name], "primary")]}
    frames, flats = sum(step.frames for step in steps), sum(step.flats for step in steps)
    return (
        yield from run_series(
            series,
            script,
            clock=Clock(n_points, period_s, duration_s),
            title=f"script of {frames} frames and {flats} flats, {len(groups)} energies one after another; {n_points} of them",
            n_darks=n_darks,
            protocol=protocol,
            metadata=metadata,
        )
    )
