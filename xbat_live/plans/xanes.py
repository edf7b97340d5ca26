"""XANES imaging: the same fields of view at many energies, with a flat at every energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import DriftPolicy, Series, SeriesSummary, follow_drift, measure_spot
from xbat_live.plans.stubs import take_flats


def xanes_series(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    energies_ev: Sequence[float],
    n_points: int = 1,
    period_s: float = 0.0,
    duration_s: float | None = None,
    exposure_s: float = 0.5,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fields_um: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    policy: str | Sequence[str] = "relocate",
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Take `n_points` XANES image series: at every energy a flat, then one judged frame of every field of view.

    The dose guard works with the absorption at each energy; a frame of one energy is registered against the first frame of
    that energy, because the contrast inverts across the edge.

    Parameters
    ----------
    energies_ev
        Energies in the order they are visited, eV.
    others
        As in `operando_txm_series`; a point is one whole spectrum.

    Raises
    ------
    ValueError
        When `energies_ev` is empty.
    """
    if not energies_ev:
        raise ValueError("energies_ev is empty; a XANES series needs at least one energy in eV")
    arguments = bound_arguments(locals())
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    point_record = series.records.point

    def spectrum(index: int) -> MsgGenerator[None]:
        for energy_ev in energies_ev:
            yield from bps.checkpoint()
            yield from bps.mv(beamline.mono.energy, energy_ev)
            yield from take_flats(
                beamline, guard, point_record, reference_um=reference_um, exposure_s=exposure_s, n=n_flats
            )
            yield from follow_drift(series)
            yield from measure_spot(series, fields_um)

    metadata = run_metadata("xanes_series", arguments, beamline, guard, md)
    metadata["hints"] = {"dimensions": [([beamline.mono.energy.name], "primary")]}
    return (
        yield from run_series(
            series,
            spectrum,
            clock=Clock(n_points, period_s, duration_s),
            title=f"XANES series of {len(energies_ev)} energies, {n_points} times",
            n_darks=n_darks,
            protocol=protocol,
            metadata=metadata,
        )
    )
