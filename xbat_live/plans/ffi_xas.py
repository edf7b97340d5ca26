"""Full-field XAS imaging while a cell is charged: one spot irradiated all the time, fresh spots to compare, as one resumable plan.

The protocol of the LiNiO2 study (La Porta et al.): references, open circuit, charge, hold, then the irradiated spot #C and the
fresh spots #A and #B.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

from xbat_live.devices import CubeRecord, EnergySweep, PotentiostatStep, TxmBeamline, XasRecord
from xbat_live.plans._blocking import call_in
from xbat_live.plans.cubes import Cubes
from xbat_live.plans.decisions import DECISION, SPOTS, save_spots
from xbat_live.plans.detectors import prepare_exposures, restore_exposures
from xbat_live.plans.ffi_options import CubeCounts, Places, XasPolicy
from xbat_live.plans.ffi_protocol import XAS, Protocol
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.metadata import bound_arguments, plain, run_metadata
from xbat_live.plans.policies import keep_transmission
from xbat_live.plans.protocol_state import load_state, save_state
from xbat_live.plans.protocols import CubeAnalysis, LiveAnalysis, SpotChooser
from xbat_live.plans.running import tell_end
from xbat_live.plans.series import Series, SeriesSummary, decide
from xbat_live.plans.stubs import take_darks

logger = logging.getLogger(__name__)

_NOT_THE_PROTOCOL = ("state_file", "policy", "on_alarm", "verdict_timeout_s", "duration_s", "arguments")


def operando_ffi_xas(
    beamline: TxmBeamline,
    guard: DoseGuard,
    analysis: LiveAnalysis,
    choose_spot: SpotChooser,
    *,
    start_ev: float = 8266.0,
    stop_ev: float = 8878.0,
    n_frames: int = 580,
    sweep_s: float = 580 / 53,
    both_ways: bool = False,
    exposure_s: float = 0.018,
    spacing_angstrom: float = 3.1356,
    spot_um: tuple[float, float] = (0.0, 0.0),
    fresh: Sequence[str] = ("A", "B"),
    fresh_um: Mapping[str, tuple[float, float]] | None = None,
    reference_um: tuple[float, float] = (0.0, 4500.0),
    foil_um: tuple[float, float] = (0.0, -5000.0),
    n_i0: int = 20,
    n_foil: int = 20,
    n_ocv: int = 120,
    n_fresh: int = 120,
    n_darks: int = 5,
    cubes_per_file: int = 20,
    repeat_references: bool = True,
    c_rate_per_h: float = 0.25,
    charge_to_v: float = 4.3,
    cutoff_low_v: float = 2.8,
    charge_timeout_s: float = 28800.0,
    hold_s: float = 10800.0,
    guard_um: float = 2.0,
    policy: str | Sequence[str] = "halt",
    on_alarm: str = "none",
    state_file: Path | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SeriesSummary]:
    """Take energy sweeps ("cubes") of reference, foil and sample through open circuit, charge and hold, and find the dose that matters.

    1. darks, `n_i0` cubes without sample, `n_foil` cubes of the foil; 2. open circuit: `n_ocv` cubes at spot #C; 3. charge at
    `c_rate_per_h` to `charge_to_v`, cube after cube at #C until the potentiostat has reached it; 4. hold: references again,
    `n_fresh` cubes at #C and at every fresh spot, and the voltage held until `hold_s` have passed. Every cube is one guarded
    flight: its dose, the mean over its energies, is reserved durably before the shutter opens.

    The plan is resumable. Before and after every cube its progress is written to `state_file`. A run that was killed goes on
    with the next cube when it is started again: the cube that was cut short keeps its number and its dose, and is told in the
    stream ``decision``. The potentiostat goes on by itself meanwhile; a charge that was stopped is started anew.

    Parameters
    ----------
    start_ev, stop_ev, n_frames, sweep_s
        A sweep: energies of the first and last frame, eV, their number, and the time for all of them, s.
    both_ways
        Every other sweep goes back; otherwise the monochromator returns with the shutter closed.
    exposure_s
        Of a frame, s; at most ``sweep_s / n_frames``.
    spacing_angstrom
        Of the monochromator's crystal.
    spot_um
        Spot #C, sample coordinate (x, y), um.
    fresh, fresh_um
        Labels of the fresh spots, and sample coordinates (x, y) of those whose place is given, um; the others are searched for
        when their turn has come, with `guard_um` um between them and dosed sample.
    reference_um, foil_um
        Stage positions (x, y) with nothing and with the foil in the beam, um.
    n_i0, n_foil, n_ocv, n_fresh, n_darks
        Numbers of cubes (frames for the darks).
    cubes_per_file
        A new file after so many.
    repeat_references
        Take I0 and foil anew when the voltage is held.
    c_rate_per_h, charge_to_v, cutoff_low_v, charge_timeout_s, hold_s
        As in `fresh_spots_protocol`.
    policy
        What is done when a cube is refused: ``relocate``, ``rest``, ``attenuate`` or ``halt``, or several in the order they are
        tried. When nothing helps, the spot is spared from then on and the protocol goes on.
    on_alarm
        What is done when the live analysis sees the threshold passed, or pixels of high and low dose diverge: ``none``, ``stop``
        (the spot is spared), ``relocate`` or ``attenuate``.
    state_file
        Progress of the protocol; None: it cannot be resumed.

    Returns
    -------
    SeriesSummary
        Its points and frames are the cubes of the sample taken by this run.

    Raises
    ------
    ProtocolMismatchError
        `state_file` is of a protocol with other arguments, or complete.
    PotentiostatError
        When the potentiostat reports a fault.
    ValueError
        Arguments that make no sense.
    """
    arguments = bound_arguments(locals())
    cubes_of = CubeCounts(n_i0, n_foil, n_ocv, n_fresh, repeat_references=repeat_references, per_file=cubes_per_file)
    sweep = EnergySweep(
        beamline.camera,
        beamline.mono,
        n_frames=n_frames,
        exposure_s=exposure_s,
        period_s=sweep_s / n_frames,
        start_ev=start_ev,
        stop_ev=stop_ev,
        spacing_angstrom=spacing_angstrom,
    )
    series = Series.of(beamline, guard, analysis, choose_spot, arguments)
    what = plain({name: value for name, value in arguments.items() if name not in _NOT_THE_PROTOCOL})
    state = load_state(state_file, what)
    live = analysis if isinstance(analysis, CubeAnalysis) else None
    cubes = Cubes(
        beamline,
        guard,
        sweep,
        series.records.point,
        CubeRecord(name="cube"),
        analysis=live,
        readables=series.readables,
        both_ways=both_ways,
    )
    limits_v = {"cutoff_low_v": cutoff_low_v, "cutoff_high_v": charge_to_v + 0.1}
    protocol = Protocol(
        series=series,
        cubes=cubes,
        counts=cubes_of,
        state=state,
        places=Places(spot_um, tuple(fresh), dict(fresh_um or {}), reference_um, foil_um, guard_um),
        record=XasRecord(name=XAS),
        policy=XasPolicy(on_alarm),
        charge=PotentiostatStep(
            "galvanostatic", c_rate_per_h=c_rate_per_h, cutoff_low_v=cutoff_low_v, cutoff_high_v=charge_to_v
        ),
        hold=PotentiostatStep("hold", hold_v=charge_to_v, **limits_v),
        open_circuit=PotentiostatStep("ocv", **limits_v),
        charge_timeout_s=charge_timeout_s,
        hold_s=hold_s,
    )
    metadata = run_metadata("operando_ffi_xas", arguments, beamline, guard, md)
    metadata |= {"hints": {"dimensions": [(["time"], "primary")]}, "resumes": state.runs[-1] if state.runs else ""}
    outcome = "not started"

    def leave() -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        if protocol.cycled and not state.complete:
            yield from bps.stop(beamline.potentiostat)
        yield from restore_exposures(guard, beamline.camera)

    def measured() -> MsgGenerator[None]:
        nonlocal outcome
        outcome = yield from protocol.run()

    @bpp.finalize_decorator(leave)
    @bpp.stage_decorator([beamline.shutter])
    @bpp.run_decorator(md=metadata)
    def inner() -> MsgGenerator[None]:
        yield from close_shutter(beamline)
        for name, record in ((DECISION, series.records.decision), (SPOTS, series.records.spot)):
            yield from bps.declare_stream(record, name=name)
        lost = f"; cube {state.lost[-1]} was cut short, its dose is counted" if state.lost else ""
        how = f"goes on with cube {state.cubes}{lost}" if state.resumed else "begins"
        title = f"full-field XAS, {n_frames} energies {start_ev:g} to {stop_ev:g} eV in {sweep_s:.1f} s: {how}"
        yield from decide(
            series, "start", title, threshold=guard.lowest_limit_gy, cubes=state.cubes, lost=list(state.lost)
        )
        state.runs.append(guard.run_uid or f"{time.time():.0f}")
        yield from call_in(guard.executor, save_state, state)
        yield from prepare_exposures(beamline, guard, exposure_s)
        yield from bpp.stage_wrapper(take_darks(beamline, guard, series.records.point, n=n_darks), [beamline.camera])
        yield from bpp.contingency_wrapper(
            keep_transmission(measured(), guard, beamline), except_plan=partial(tell_end, series)
        )
        yield from decide(series, "end", outcome)
        yield from save_spots(guard, series.records.spot)

    yield from inner()
    return SeriesSummary(series.frames, series.frames, series.rejected, series.relocations, 0, outcome)
