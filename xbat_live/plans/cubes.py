"""Plan stubs for cubes of full-field XAS: one energy sweep under the dose guard with its Event; they open no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Readable
from bluesky.utils import Msg, MsgGenerator

from xbat_live.devices import CubeEnd, CubeRecord, CubeStart, EnergySweep, PointRecord, TxmBeamline
from xbat_live.plans.exposure import ExposureFailed
from xbat_live.plans.fly import Flown, guarded_flight
from xbat_live.plans.guard import DoseGuard, close_shutter
from xbat_live.plans.messages import put, read, sleep
from xbat_live.plans.policies import Remedies
from xbat_live.plans.protocols import CubeAnalysis

LEAST_OPEN = 0.98
"""Part of a sweep for which the shutter has to be open: a cube that has less lacks energies."""
SAMPLE, I0, FOIL = "primary", "i0", "foil"
_FRAME_TYPE = {SAMPLE: "Normal", FOIL: "Normal", I0: "FlatField"}
_KIND = {SAMPLE: "sample", FOIL: "foil", I0: "i0"}
_POLL_S = 0.02
_NOT_THERE = 0.02
_MOVE_ENDS_WITHIN_S = 30.0
LEAST_COVERED = 0.9
"""Part of the planned energies that a cube has to have by its encoder."""


class CubeCutShort(RuntimeError):  # noqa: N818
    """The shutter was closed during a sweep, or it lacks energies; the dose is counted, the cube has no Event."""


@dataclass
class Cubes:
    """What all cubes of a plan have in common.

    Attributes
    ----------
    sweep
        The flyer.
    analysis
        Follows the cubes; None: nobody does.
    readables
        Read into the Event of a cube, beside frames, energies, point, stage, beam, shutter and dose.
    both_ways
        Every other cube goes back from the last energy to the first; otherwise the monochromator returns with the shutter closed.
    rest_deg_s
        Speed of the Bragg axis between sweeps, deg/s; None: as it was found.
    taken, begun
        How many were taken, and which was begun last.
    """

    beamline: TxmBeamline
    guard: DoseGuard
    sweep: EnergySweep
    point: PointRecord
    cube: CubeRecord
    analysis: CubeAnalysis | None = None
    readables: tuple[Readable, ...] = ()
    both_ways: bool = False
    rest_deg_s: float | None = None
    taken: int = field(default=0, init=False)
    begun: CubeStart | None = field(default=None, init=False)

    def event_devices(self, stream: str) -> tuple[Readable, ...]:
        """Return what is read into the Event of a cube."""
        beamline = self.beamline
        signals = () if self.guard.signals is None else (self.guard.signals,)
        more = self.readables if stream == SAMPLE else ()
        return (
            self.sweep,
            self.point,
            self.cube,
            beamline.stage,
            beamline.i0,
            beamline.ring,
            beamline.shutter,
            *signals,
            *more,
        )

    def staged(self, plan: MsgGenerator) -> MsgGenerator:
        """Preprocessor: a file of its own for the cubes of `plan`, and the Bragg axis left with the speed it was found with."""
        velocity = self.beamline.mono.bragg.velocity
        before = float((yield from read(velocity)))
        self.rest_deg_s = self.rest_deg_s or before

        def leave() -> MsgGenerator[None]:
            yield from close_shutter(self.beamline)
            yield from put(velocity, before)

        staged = bpp.stage_wrapper(plan, [self.beamline.camera])
        return (yield from bpp.finalize_wrapper(staged, leave))

    def prepare(self, stream: str) -> MsgGenerator[None]:
        """Plan stub: set camera and monochromator for the next cube; the shutter is closed, so this costs no dose."""
        beamline, sweep = self.beamline, self.sweep
        yield from close_shutter(beamline)
        sweep.reverse = self.both_ways and self.taken % 2 == 1
        cam, bragg = beamline.camera.cam, beamline.mono.bragg
        wanted: Sequence[tuple[Any, Any]] = (
            (beamline.camera.frame_type, _FRAME_TYPE[stream]),
            (cam.acquire_time, sweep.exposure_s),
            (cam.acquire_period, sweep.frame_time_s),
            (cam.num_images, sweep.n_frames),
            (cam.image_mode, 1),
        )
        for signal, value in wanted:
            if (yield from read(signal)) != value:
                yield from put(signal, value)
        # A motor record that is sent elsewhere while it moves tells the end of the first move, and the second one seems to be over.
        waited_s = 0.0
        while sweep.moving:
            if waited_s > _MOVE_ENDS_WITHIN_S:
                raise ExposureFailed(
                    f"{bragg.name} ({bragg.prefix}) still moves {waited_s:.0f} s after its sweep; look at the motor record's DMOV"
                )
            yield from sleep(_POLL_S)
            waited_s += _POLL_S
        start_deg, end_deg = sweep.way_deg
        if self.rest_deg_s:
            yield from put(bragg.velocity, self.rest_deg_s)
        yield from bps.mv(bragg, start_deg)
        at_deg = float((yield from read(bragg)))
        if abs(at_deg - start_deg) > _NOT_THERE * abs(end_deg - start_deg):
            raise ExposureFailed(
                f"{bragg.name} stands at {at_deg:g} deg after a move to {start_deg:g} deg; does another program move it?"
            )
        yield from put(bragg.velocity, sweep.velocity_deg_s)

    def take(
        self, stream: str, number: int, *, place: str, spot: int, place_time_s: float, remedies: Remedies | None = None
    ) -> MsgGenerator[Flown]:
        """Plan stub: take one cube and save its Event in `stream`; the camera is staged and everything is where it has to be.

        Parameters
        ----------
        stream
            `SAMPLE`, `I0` or `FOIL`.
        number
            Of the cube.
        place, spot
            Label and number of the place on the sample.
        place_time_s
            Time that the place has been in the beam before, s.
        remedies
            What is done when the cube is refused; None: nothing.

        Raises
        ------
        DoseRefused
            Before the shutter moves.
        CubeCutShort
            The shutter was closed during the sweep, or the monochromator did not sweep. Stage the camera anew before the next one.
        """
        sweep, point, analysis = self.sweep, self.point, self.analysis
        yield from self.prepare(stream)

        def begin(rows: Any) -> None:
            self.begun = CubeStart(
                number=number,
                kind=_KIND[stream],
                place=place,
                file=rows.file,
                dataset=rows.dataset,
                first=rows.first,
                first_captured=rows.first_captured,
                n_frames=rows.count,
                exposure_s=sweep.exposure_s,
            )
            if analysis is not None:
                analysis.begin_cube(self.begun)

        def give_up(error: Exception) -> MsgGenerator[None]:
            if analysis is not None:
                analysis.abandon_cube(number)
            yield from close_shutter(self.beamline)

        sweep.started = begin
        flight = guarded_flight(
            self.beamline,
            self.guard,
            [Msg("kickoff", sweep)],
            remedies=remedies,
            label=f"cube {_KIND[stream]} {place}".strip(),
            spot=spot,
        )
        flown: Flown = yield from bpp.contingency_wrapper(flight, except_plan=give_up)
        open_s = flown.settlement.open_time_s
        self.taken += 1
        if open_s < LEAST_OPEN * sweep.n_frames * sweep.frame_time_s:
            if analysis is not None:
                analysis.abandon_cube(number)
            raise CubeCutShort(f"cube {number}: shutter open for {open_s:.3f} s of {sweep.beam_time_s:.3f} s")
        if sweep.covered < LEAST_COVERED:
            if analysis is not None:
                analysis.abandon_cube(number)
            low_ev, high_ev = float(sweep.energy_ev.min()), float(sweep.energy_ev.max())
            raise CubeCutShort(
                f"cube {number}: the encoder went from {low_ev:.1f} to {high_ev:.1f} eV only, {sweep.covered:.0%} of the planned energies"
            )
        request, settlement = flown.reservation.request, flown.settlement
        point.fill(
            field=place or _KIND[stream],
            spot=spot,
            frame_type=_FRAME_TYPE[stream],
            exposure_s=sweep.exposure_s,
            sample_x_um=request.x_um,
            sample_y_um=request.y_um,
            open_time_s=open_s,
            light_fraction=1.0,
            dose_reserved_gy=flown.reservation.peak_after_gy - flown.reservation.peak_before_gy,
            dose_delivered_gy=settlement.delivered_gy,
            dose_gy=settlement.peak_total_gy,
        )
        self.cube.fill(
            number=number,
            target=_KIND[stream],
            place=place,
            reverse=int(sweep.reverse),
            place_time_s=place_time_s + open_s,
        )
        yield from bps.create(name=stream)
        for device in self.event_devices(stream):
            yield from bps.read(device)
        yield from bps.save()
        if analysis is not None:
            analysis.end_cube(number, CubeEnd(open_s, place_time_s + open_s, settlement.flux_ph_s))
        return flown
