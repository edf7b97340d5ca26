"""The operando TXM series: flat with the sample out, sample back in, all fields of view, at every point; cell cycled meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bluesky.utils import MsgGenerator

from xbat_live.devices import TxmBeamline
from xbat_live.plans.cycling import TimedStep
from xbat_live.plans.guard import DoseGuard
from xbat_live.plans.locations import Flats
from xbat_live.plans.metadata import bound_arguments, run_metadata
from xbat_live.plans.protocols import LiveAnalysis, SpotChooser
from xbat_live.plans.running import Clock, run_series
from xbat_live.plans.series import DriftPolicy, Series, SeriesSummary, follow_drift, measure_spot


def operando_txm_series(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    n_points: int = 56,
    period_s: float = 900.0,
    duration_s: float | None = None,
    exposure_s: float = 0.048,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fields_um: Sequence[tuple[float, float]] = ((0.0, 0.0), (30.0, 0.0)),
    reference_um: tuple[float, float] = (-250.0, 0.0),
    n_flats: int = 1,
    flat_ttl_s: float = 0.0,
    n_darks: int = 5,
    max_retakes: int = 1,
    verdict_timeout_s: float = 10.0,
    policy: str | Sequence[str] = "relocate",
    drift: DriftPolicy | None = None,
    protocol: Sequence[TimedStep] = (),
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Follow an electrode through its cycle, as in Sun et al. (2025): one point every `period_s`.

    A point is: flat with the sample out (when the last one is older than `flat_ttl_s`, or the beam was attenuated since),
    sample back in, one judged frame of every field of view; a rejected frame is retaken while the dose budget allows, the
    registered drift is followed by the stage, and at a limit the series does what `policy` says. The shutter is closed on every way out.

    Parameters
    ----------
    choose_spot
        Returns the next fresh sample coordinate (x, y), um, or None.
    n_points, period_s
        Number of time points, and the time from one to the next, s.
    duration_s
        Ends the series early, s.
    exposure_s
        Camera exposure, s.
    spot_um
        First spot, sample coordinate (x, y), um.
    fields_um
        Fields of view of a spot, offsets (x, y) from it, um.
    reference_um
        Stage position (x, y) with the sample out of the beam, um.
    n_flats, n_darks
        Flats per reference, and darks at the start.
    max_retakes
        How often a rejected frame is retaken.
    verdict_timeout_s
        Longest wait for the verdict on a frame, s; without one it is kept as ``unjudged``.
    policy
        What is done when an exposure is refused: ``relocate``, ``rest``, ``attenuate`` or ``halt``, or several in the order they are tried.
    protocol
        Steps of the potentiostat, run in parallel.

    Returns
    -------
    SeriesSummary
        As the value of the plan, e.g. by ``RE(..., ).plan_result`` with ``call_returns_result=True``.

    Raises
    ------
    LimitBelowOneFrame
        When the limit does not allow one exposure of a fresh spot.
    ExposureFailed
        When the camera does not deliver.
    """
    arguments = bound_arguments(locals())
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    flats = Flats(reference_um, n_flats, flat_ttl_s)

    def point(index: int) -> MsgGenerator[None]:
        yield from flats.when_due(series)
        yield from follow_drift(series)
        yield from measure_spot(series, fields_um)

    return (
        yield from run_series(
            series,
            point,
            clock=Clock(n_points, period_s, duration_s),
            title=f"operando series of {n_points} points, {len(fields_um)} fields of view",
            n_darks=n_darks,
            protocol=protocol,
            metadata=run_metadata("operando_txm_series", arguments, beamline, guard, md),
        )
    )
