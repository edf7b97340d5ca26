"""The phases of full-field XAS imaging: which cubes are taken where, until when, and what is remembered between them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from xbat_live.devices import CubeEnd, CubeStart, PotentiostatError, PotentiostatStep, XasRecord
from xbat_live.dose import DoseRefused
from xbat_live.plans._blocking import call_in
from xbat_live.plans.cubes import FOIL, I0, SAMPLE, CubeCutShort, Cubes
from xbat_live.plans.exposure import ExposureFailed
from xbat_live.plans.ffi_options import IRRADIATED, CubeCounts, Places, XasPolicy
from xbat_live.plans.fresh_spots import find_fresh_spot
from xbat_live.plans.guard import close_shutter
from xbat_live.plans.locations import Location, rest, tell_dose
from xbat_live.plans.policies import inputs_of
from xbat_live.plans.protocol_state import ProtocolState, save_state
from xbat_live.plans.protocols import CubeResult
from xbat_live.plans.series import Series, SpotChanged, decide, follow_drift, pass_on_warnings
from xbat_live.plans.stubs import move_to

XAS = "xas"
_REPEATS = 3
_RESULTS_S = 60.0
_POLL_S = 0.05


@dataclass
class Protocol:
    """The protocol of one plan; what it remembers is in `state`."""

    series: Series
    cubes: Cubes
    counts: CubeCounts
    state: ProtocolState
    places: Places
    record: XasRecord
    policy: XasPolicy
    charge: PotentiostatStep
    hold: PotentiostatStep
    open_circuit: PotentiostatStep
    charge_timeout_s: float
    hold_s: float
    cycled: bool = False
    _told: set[str] = field(default_factory=set)
    _irradiated: Location | None = None

    # -- phases -------------------------------------------------------------------------------------------------------

    def run(self) -> MsgGenerator[str]:
        """Go through the phases that are not over; return how it ended."""
        counts, state = self.counts, self.state
        x_um, y_um = state.places_um.setdefault(IRRADIATED, self.places.irradiated_um)
        irradiated = self._irradiated = Location(IRRADIATED, 0, x_um, y_um)
        yield from self._hand_over_references()
        yield from self._references("at the start")
        yield from self._step("ocv", self.open_circuit, f"spot #{irradiated} before the charge")
        yield from self._measure("ocv", irradiated, counts.ocv)
        yield from self._step("charge", self.charge, f"spot #{irradiated} irradiated during the charge")
        yield from self._irradiate("charge", irradiated, self._charged)
        yield from self._step("hold", self.hold, f"cell held for {self.hold_s:g} s")
        if counts.repeat_references:
            yield from self._references("in the charged state")
        yield from self._measure("end C", irradiated, counts.fresh)
        for index, label in enumerate(self.places.fresh, 1):
            yield from self._measure_fresh(label, index, irradiated)
        yield from self._wait_for_the_hold()
        yield from self._results(wait=True)
        yield from self._step("end", self.open_circuit, "protocol finished")
        yield from self._remember(complete=True)
        return "completed"

    def _hand_over_references(self) -> MsgGenerator[None]:
        """Let the live analysis read the cubes of I0 and foil that an earlier run has taken."""
        live = self.cubes.analysis
        if live is None or not self.state.reference_cubes:
            return
        missing = set()
        for plain in self.state.reference_cubes:
            fields = {name: value for name, value in plain.items() if name != "phase"}
            cube = CubeStart(**fields | {"file": Path(fields["file"])})
            if not cube.file.is_file():
                missing.add(str(cube.file))
                continue
            live.begin_cube(cube)
            live.end_cube(cube.number, CubeEnd(0.0, 0.0, math.nan))
        if missing:
            what = f"I0 or foil of an earlier run are gone ({', '.join(sorted(missing))}): no live maps until they are taken again"
            yield from decide(self.series, "alarm", what, threshold=math.nan, kind="references")

    def _references(self, when: str) -> MsgGenerator[None]:
        yield from self._reference(f"I0 {when}", I0, self.places.reference_um, self.counts.i0)
        yield from self._reference(f"foil {when}", FOIL, self.places.foil_um, self.counts.foil)

    def _reference(self, phase: str, stream: str, place_um: tuple[float, float], n: int) -> MsgGenerator[None]:
        def go_there() -> MsgGenerator[None]:
            yield from move_to(self.series.beamline, *place_um)

        yield from self._take_all(phase, stream, None, go_there, lambda: _until(self._count(phase) >= n))

    def _measure(self, phase: str, location: Location, n: int) -> MsgGenerator[None]:
        """Take `n` cubes at a place, or fewer when it is spared."""
        yield from self._take_all(
            phase,
            SAMPLE,
            location,
            self._go_to(location),
            lambda: _until(self._count(phase) >= n or bool(location.retired)),
        )
        yield from tell_dose(self.series, location)

    def _irradiate(self, phase: str, location: Location, over: Callable[[], MsgGenerator[bool]]) -> MsgGenerator[None]:
        """Take cube after cube at a place until `over` says so; when it is spared, wait for that."""
        yield from self._take_all(phase, SAMPLE, location, self._go_to(location), over)
        yield from tell_dose(self.series, location)

    def _measure_fresh(self, label: str, index: int, near: Location) -> MsgGenerator[None]:
        phase = f"end {label}"
        if phase in self.state.finished:
            return
        known = self.state.places_um.get(label) or self.places.given_um.get(label)
        if known is not None:
            location: Location | None = Location(label, index, *known)
        else:
            location = yield from find_fresh_spot(self.series, label, index, near=near, guard_um=self.places.guard_um)
        if location is None:
            yield from self._remember(finished=phase)
            return
        self.state.places_um[label] = (location.x_um, location.y_um)
        yield from self._measure(phase, location, self.counts.fresh)

    def _charged(self) -> MsgGenerator[bool]:
        pot = self.series.beamline.potentiostat
        status = yield from bps.rd(pot.status)
        if status == "Fault":
            raise PotentiostatError(f"{pot.name} reports Fault; look at its front panel")
        return status == "Done" or time.time() - self.state.since_unix_s["charge"] >= self.charge_timeout_s

    def _wait_for_the_hold(self) -> MsgGenerator[None]:
        yield from close_shutter(self.series.beamline)
        left_s = self.state.since_unix_s["hold"] + self.hold_s - time.time()
        if left_s > 0:
            yield from rest(left_s)

    def _step(self, phase: str, step: PotentiostatStep, what: str) -> MsgGenerator[None]:
        """Start a step of the potentiostat, unless an earlier run has, and it goes on."""
        state, pot = self.state, self.series.beamline.potentiostat
        over = {"ocv": "ocv", "charge": "charge"}.get(phase)
        if over in state.finished:
            return
        began = phase in state.since_unix_s
        self.cycled = True
        if began and (yield from self._goes_on(step)):
            yield from decide(self.series, "phase", f"{what}: goes on since an earlier run ({step})")
            return
        yield from bps.abs_set(pot, step, wait=True)
        state.begin_phase(phase)
        yield from self._remember()
        yield from decide(self.series, "phase", f"{what}: {step}")

    def _goes_on(self, step: PotentiostatStep) -> MsgGenerator[bool]:
        """Whether the potentiostat is still in `step`, or has just ended it by itself."""
        pot = self.series.beamline.potentiostat
        status, mode = (yield from bps.rd(pot.status)), (yield from bps.rd(pot.mode))
        return str(mode).lower() == step.mode and status in ("Running", "Done")

    # -- cubes --------------------------------------------------------------------------------------------------------

    def _take_all(
        self,
        phase: str,
        stream: str,
        location: Location | None,
        go_there: Callable[[], MsgGenerator[None]],
        over: Callable[[], MsgGenerator[bool]],
    ) -> MsgGenerator[None]:
        """Take cubes of one phase until `over`, some of them per file."""
        if phase in self.state.finished:
            return
        repeats = 0
        while not (yield from over()):
            if location is not None and location.retired:
                yield from rest(1.0)
                continue
            before = self.state.cubes

            def some() -> MsgGenerator[None]:
                for _ in range(self.counts.per_file):
                    if (location is not None and location.retired) or (yield from over()):
                        return
                    yield from go_there()
                    yield from self._one(phase, stream, location)

            try:
                yield from self.cubes.staged(some())
                repeats = 0
            except SpotChanged:
                if location is not None:
                    location.x_um, location.y_um = self.series.spot_um
                    self.state.places_um[location.label] = self.series.spot_um
            except CubeCutShort as short:
                repeats = repeats + 1 if self.state.cubes <= before + 1 else 1
                yield from self._lose(str(short))
                if repeats > _REPEATS:
                    raise ExposureFailed(f"{repeats} cubes in a row were cut short: {short}") from short
        yield from self._results()
        yield from self._remember(finished=phase)

    def _one(self, phase: str, stream: str, location: Location | None) -> MsgGenerator[None]:
        """Take one cube; the state says so before and after it."""
        series, state = self.series, self.state
        yield from bps.checkpoint()
        number, label = state.cubes, "" if location is None else location.label
        spot = -1 if location is None else location.index
        series.records.point.fill(index=number, attempt=0)
        self.cubes.cube.fill(phase=phase, index=self._count(phase))
        state.cubes, state.open_cube = number + 1, number
        yield from self._remember()
        place_s = state.beam_s.get(label, 0.0)
        try:
            flown = yield from self.cubes.take(
                stream,
                number,
                place=label,
                spot=max(spot, 0),
                place_time_s=place_s,
                remedies=series.remedies(moving=location is not None),
            )
        except DoseRefused as refusal:
            state.cubes, state.open_cube = number, None
            yield from self._remember()
            if location is None:
                raise
            yield from self._retire(location, str(refusal), threshold=refusal.limit_gy, **inputs_of(refusal))
            return
        except SpotChanged:
            state.cubes, state.open_cube = number, None
            raise
        if location is not None:
            series.frames += 1
            location.exposures += 1
        if stream != SAMPLE and self.cubes.begun is not None:
            begun = self.cubes.begun
            state.keep_reference(phase, asdict(begun) | {"file": str(begun.file)})
        state.open_cube = None
        state.done[phase] = self._count(phase) + 1
        state.beam_s[label] = place_s + flown.settlement.open_time_s
        yield from self._remember()
        yield from pass_on_warnings(series)
        yield from self._results()

    def _count(self, phase: str) -> int:
        return self.state.done.get(phase, 0)

    def _go_to(self, location: Location) -> Callable[[], MsgGenerator[None]]:
        def go() -> MsgGenerator[None]:
            series = self.series
            yield from follow_drift(series)
            series.spot, series.spot_um = location.index, (location.x_um, location.y_um)
            drift_x, drift_y = series.applied_drift_um
            yield from move_to(series.beamline, location.x_um + drift_x, location.y_um + drift_y)

        return go

    def _retire(self, location: Location, reason: str, *, threshold: float, **inputs: Any) -> MsgGenerator[None]:
        location.retired = reason
        yield from close_shutter(self.series.beamline)
        yield from decide(
            self.series, "retire", f"{location} is spared from now on: {reason}", threshold=threshold, **inputs
        )

    def _lose(self, reason: str) -> MsgGenerator[None]:
        state = self.state
        if state.open_cube is not None:
            state.lost.append(state.open_cube)
            state.open_cube = None
        yield from self._remember()
        yield from decide(self.series, "repeat", f"{reason}; its dose is counted, the next cube takes its place")

    def _remember(self, *, finished: str | None = None, complete: bool = False) -> MsgGenerator[None]:
        if finished is not None and finished not in self.state.finished:
            self.state.finished.append(finished)
        self.state.complete = self.state.complete or complete
        yield from call_in(self.series.guard.executor, save_state, self.state)

    # -- what the live analysis says ------------------------------------------------------------------------------------

    def _results(self, *, wait: bool = False) -> MsgGenerator[None]:
        """Record what the live analysis has found by now, and act on its alarms; with `wait`, what is still under way as well."""
        live = self.cubes.analysis
        if live is None:
            return
        waited_s = 0.0
        while True:
            for result in live.pop_results():
                yield from self._record_result(result)
            if not wait or not live.busy() or waited_s > _RESULTS_S:
                return
            yield from bps.sleep(_POLL_S)
            waited_s += _POLL_S

    def _record_result(self, result: CubeResult) -> MsgGenerator[None]:
        live = self.cubes.analysis
        assert live is not None  # it gave the result
        products = live.products(result)
        if products is not None:  # without maps there is no Event: the alarm tells why
            self.record.reset()
            self.record.fill(**result.record())
            yield from bps.create(name=XAS)
            yield from bps.read(self.record)
            yield from bps.read(products)
            yield from bps.save()
        if result.alarm:
            yield from self._act(result)

    def _act(self, result: CubeResult) -> MsgGenerator[None]:
        series, location, policy = self.series, self._irradiated, self.policy
        threshold_gy = float(result.record().get("threshold_gy", float("nan")))
        if result.alarm not in self._told:
            self._told.add(result.alarm)
            yield from decide(
                series, "alarm", result.message, threshold=threshold_gy, kind=result.alarm, cube=result.number
            )
        no_reason = result.alarm in ("misfit", "error")
        if no_reason or policy.acted or policy.action == "none" or location is None or location.retired:
            return
        policy.acted = True
        reason = f"{result.message}; on_alarm = {policy.action}"
        if policy.action == "stop":
            yield from self._retire(location, reason, threshold=threshold_gy, cube=result.number)
        elif policy.action == "attenuate":
            attenuator = series.beamline.attenuator
            before = float((yield from bps.rd(attenuator.transmission)))
            yield from close_shutter(series.beamline)
            yield from bps.abs_set(attenuator, before * policy.factor, wait=True)
            yield from decide(
                series, "attenuate", reason, threshold=threshold_gy, transmission_after=before * policy.factor
            )
        else:
            spot = yield from call_in(series.guard.executor, series.choose_spot, location.x_um, location.y_um)
            if spot is None:
                yield from decide(series, "skip", f"{reason}; no fresh spot left", threshold=threshold_gy)
                return
            location.x_um, location.y_um = spot
            self.state.places_um[location.label] = spot
            self.state.beam_s[location.label] = 0.0
            series.relocations += 1
            policy.acted = False
            self._told.clear()
            yield from decide(series, "relocate", reason, threshold=threshold_gy, to_x_um=spot[0], to_y_um=spot[1])


def _until(condition: bool) -> MsgGenerator[bool]:
    """Plan stub: return `condition`."""
    yield from bps.null()
    return condition
