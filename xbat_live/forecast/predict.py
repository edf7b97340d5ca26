"""From a configuration to a forecast: the real plan, guard, account and spot chooser, walked on stand-ins."""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbat_live import dose
from xbat_live.config import ExperimentConfig, LimitSection
from xbat_live.dose import DoseRefused
from xbat_live.dose_setup import make_account
from xbat_live.forecast.account import PatientAccount, scratch_ledger
from xbat_live.forecast.doses import Doses, first_energy_ev
from xbat_live.forecast.facts import Exposing, Forecast, LimitUse, Mark, Refusal, SpotUse
from xbat_live.forecast.loading import load_plans
from xbat_live.forecast.standins import InlineExecutor, Judge, Timing
from xbat_live.forecast.verdict import CUT_SHORT, judge
from xbat_live.forecast.walk import DARK, FLAT, NORMAL, CutShortError, Walk

if TYPE_CHECKING:
    from xbat_live.plans import DoseGuard, SpotChooser

COUNTING_S = 0.15
"""How long spots are counted that the plan does not need, s."""
ASSUMED_SENSOR_YX = (1024, 1024)
BYTES_PER_PIXEL = 2
REGULAR_ENDS = ("completed", "time is up", CUT_SHORT)


def forecast(
    config: ExperimentConfig,
    *,
    fresh: bool = False,
    reject: float = 0.0,
    timing: Timing | None = None,
    timed_shutter: bool = True,
    at_most_s: float = math.inf,
) -> Forecast:
    """Say what a run of `config` will do, without beam and without a beamline.

    Walks the messages of the plan that `xbat run` would run, with the dose guard, the dose account (on a scratch copy of the
    sample's ledger) and the spot chooser that it would use; time is virtual.

    Parameters
    ----------
    fresh
        Leave the sample's ledger out, as if nothing had been dosed.
    reject
        Fraction of the frames assumed to be rejected by the live analysis, 0 to below 1; a seeded sequence.
    timing
        How long what is not configured takes.
    timed_shutter
        Whether the shutter keeps the time of an opening itself, as `xbat_live.devices.FastShutter.has_timed_opening` tells; it
        then opens for just the exposure. Otherwise `Timing.open_extra_s` is added, and ``dose.open_time_margin`` reserved.

    at_most_s
        Stop walking after so long (wall time), s; the forecast then holds for the beginning of the plan, and says so.

    Raises
    ------
    ConfigError
        The configuration describes something impossible.
    LedgerError
        The sample's ledger cannot be read.
    """
    ledger_file = config.path(config.dose.ledger_directory) / f"{config.sample.name}.sqlite"
    walk = Walk(
        timing=timing or Timing(),
        i0_reference_na=config.beam.i0_reference_na,
        energy_ev=first_energy_ev(config),
        timed_shutter=timed_shutter,
        deadline_s=time.perf_counter() + at_most_s,
    )
    start_s = time.monotonic()

    def monotonic() -> float:
        return start_s + walk.clock.now_s

    start_wall_s = time.time()
    with scratch_ledger(
        None if fresh else ledger_file, wall=lambda: start_wall_s + walk.clock.now_s, monotonic=monotonic
    ) as ledger:
        account = make_account(_with_literature(config), ledger)
        return judge(_Prediction(config, walk, account, reject).run())


@dataclass
class _Prediction:
    """One forecast in the making."""

    config: ExperimentConfig
    walk: Walk
    account: dose.DoseAccount
    reject: float

    def __post_init__(self) -> None:
        self.modules = load_plans()
        self.allowance = 1 + self.config.dose.sigma * self.config.dose.k_sigma
        self.records = sum(self.account.summary()["records"].values())
        self.patient = PatientAccount(self.account, allowance=self.allowance, present=self._present)

        self.doses = Doses(self.config, self.account, self.patient.places, self.walk.opening_s)

    def _present(self) -> tuple[int, float]:
        return self.walk.frames[NORMAL] + 1, self.walk.clock.now_s

    def _count(self, action: str) -> int:
        return sum(decision.action == action for decision in self.walk.decisions)

    def run(self) -> Forecast:
        config, walk = self.config, self.walk
        guard: DoseGuard = self.modules.plans.DoseGuard(
            self.patient,
            self.modules.plans.FluxCalibration(config.beam.flux_ph_s, config.beam.i0_reference_na),
            open_time_margin_s=config.dose.open_time_margin_s,
            lead_time_s=config.dose.lead_time_s,
            outline_um=config.sample.size_um,
            executor=InlineExecutor(),
            run_uid="forecast",
            beamline=walk.beamline,
            policy=config.dose.policy,
            signals=None,
        )
        walk.beamline.camera.prepare_frames(exposure_s=config.camera.exposure_s)
        analysis = Judge(reject=self.reject, judging=lambda: walk.sleep(walk.timing.verdict_s))
        choose = self.modules.setup.spot_chooser(config, guard)
        guard.choose_spot = choose
        plan = self.modules.setup.make_plan(config, walk.beamline, guard, analysis, choose)
        points, ended = self._walk(plan)
        self.patient.flush()
        completed = ended in REGULAR_ENDS
        return Forecast(
            sample=config.sample.name,
            plan=config.plan.name,
            points=points,
            points_wanted=points if completed and ended != CUT_SHORT else config.plan.n_points,
            ended=ended,
            completed=completed,
            duration_s=walk.clock.now_s,
            beam_on_s=walk.beam_on_s,
            frames=walk.frames[NORMAL],
            flats=walk.frames[FLAT],
            darks=walk.frames[DARK],
            rejected=analysis.rejected,
            materials=self.doses.materials(),
            limits=self._limits(),
            spots=self._spots(points, completed, choose),
            exposing=self._exposing(guard),
            relocations=self._count("relocate"),
            rests=self._count("rest"),
            attenuations=self._count("attenuate"),
            frame_bytes=self._frame_bytes(),
            disk_bytes=self._frame_bytes() * sum(walk.frames.values()),
            disk_free_bytes=_free_bytes(config.path(config.camera.directory)),
            policy=_policy(config),
            refusal=None if completed else self._refusal(guard),
            ledger_records=self.records,
            notes=tuple(self._notes()),
        )

    def _walk(self, plan: Any) -> tuple[int, str]:
        """Walk the plan; return the points completed, and how it ended."""
        try:
            with _no_garbage_collection():
                summary = self.walk.run(plan, self.modules.every)
        except CutShortError:
            fields = max(len(self.config.plan.fields_um), 1)
            return self.walk.frames[NORMAL] // fields, CUT_SHORT
        except (DoseRefused, self.modules.plans.LimitBelowOneFrame) as refusal:
            return 0, str(refusal)
        points = getattr(summary, "points", self.config.plan.n_points)
        return int(points), str(getattr(summary, "outcome", REGULAR_ENDS[0]))

    # -- limits ------------------------------------------------------------------------------------------------------

    def _limits(self) -> tuple[LimitUse, ...]:
        self._look_at_the_end()
        marks: dict[Any, dict[float, Mark]] = {}
        for crossing in self.patient.crossings:
            marks.setdefault(crossing.limit, {})[crossing.level] = Mark(crossing.frame, crossing.time_s)
        configured = len(self.account.limits) - len(_literature(self.config))
        return tuple(
            LimitUse(
                name=limit.name,
                material=limit.material,
                layer=limit.layer,
                value=limit.value,
                unit=limit.unit,
                fraction=self.patient.highest[limit],
                window_s=limit.window_s,
                advisory=limit.advisory,
                configured=number < configured,
                warn_50=marks.get(limit, {}).get(0.5),
                warn_80=marks.get(limit, {}).get(0.8),
                hit=marks.get(limit, {}).get(1.0),
            )
            for number, limit in enumerate(self.account.limits)
        )

    def _look_at_the_end(self) -> None:
        """Take the doses at the end into the highest fractions: the account was not asked for every exposure."""
        most = sorted(self.patient.places.values(), key=self.doses.primary_gy, reverse=True)[:4]
        for place in most:
            energy_ev = next(iter(place.photons or {}))
            state = dose.ExposureRequest(place.x_um, place.y_um, energy_ev, 0.0, self.config.beam.flux_ph_s)
            for item in self.account.headroom(state):
                self.patient.highest[item.limit] = max(self.patient.highest[item.limit], item.fraction)

    def _refusal(self, guard: DoseGuard) -> Refusal | None:
        last = self.patient.refused
        if last is None:
            return None
        how = self._exposing(guard)
        photons = how.flux_ph_s * how.flux_headroom * (how.exposure_s + how.margin_s)
        alone = max(
            photons * self.allowance * self.doses.gray(target, energy_ev)
            for target in self.account.targets
            if target.material == last.limit.material and last.limit.layer in ("", target.layer)
            for energy_ev in (self.config.plan.visited_ev or (self.config.beam.energy_ev,))
        )
        return Refusal(
            last.limit.name,
            last.kind,
            last.would_be_gy,
            last.limit_gy,
            last.unit,
            first_exposure=last.kind == "dose" and alone > last.limit_gy,
            dosed_before=last.kind == "dose" and alone <= last.limit_gy and not self.patient.places,
        )

    # -- spots -------------------------------------------------------------------------------------------------------

    def _spots(self, points: int, completed: bool, choose: SpotChooser) -> SpotUse:
        config, places = self.config, self.patient.places
        used = len({place.spot for place in places.values()})
        needed = used if completed or not points else math.ceil(used * config.plan.n_points / points)
        exhausted = any("no fresh spot" in decision.reason for decision in self.walk.decisions)
        further, more = (0, False) if exhausted else self._count_further(choose)
        by_spot: dict[int, list[int]] = {}
        for place in places.values():
            by_spot.setdefault(place.spot, []).append(place.exposures)
        full = [min(counts) for spot, counts in by_spot.items() if not completed or spot < max(by_spot)]
        if len(full) > 1 and self.records:
            full = [min(counts) for spot, counts in by_spot.items() if spot > 0][: len(full)]
        return SpotUse(
            used=used,
            needed=needed,
            available=max(used, 1) + further if places or further else 0,
            more_available=more,
            frames_per_spot=min(full, default=0),
            fields=len(config.plan.fields_um),
        )

    def _count_further(self, choose: SpotChooser) -> tuple[int, bool]:
        """Count the spots that are left, and say whether there may be more."""
        at, number = self._last_spot_um(), 0
        until_s = time.monotonic() + COUNTING_S
        energy_ev, flux_ph_s = first_energy_ev(self.config), self.config.beam.flux_ph_s
        rate_gy_s = flux_ph_s * self.doses.gray(self.account.targets[0], energy_ev)
        half_s = 0.5 * (self.account.lowest_limit_gy or 1.0) / rate_gy_s
        while (spot := choose(*at)) is not None:
            number += 1
            if time.monotonic() > until_s:
                return number, True
            for dx, dy in self.config.plan.fields_um:
                here = dose.ExposureRequest(spot[0] + dx, spot[1] + dy, energy_ev, half_s, flux_ph_s)
                self.account.record_unreserved(here, "counted")
            at = spot
        return number, False

    def _last_spot_um(self) -> tuple[float, float]:
        if not self.patient.places:
            return self.config.plan.spot_um
        last = max(place.spot for place in self.patient.places.values())
        first_field = next(place for place in self.patient.places.values() if place.spot == last)
        dx, dy = self.config.plan.fields_um[0]
        return first_field.x_um - dx, first_field.y_um - dy

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _exposing(self, guard: DoseGuard) -> Exposing:
        config, walk = self.config, self.walk
        openings = walk.beamline.shutter.openings
        open_s = walk.beam_on_s / openings if openings else self.doses.one_exposure().open_time_s
        return Exposing(
            exposure_s=config.camera.exposure_s,
            extra_s=max(open_s - config.camera.exposure_s, 0.0),
            margin_s=guard.timed_margin_s if guard.is_timed(walk.beamline) else config.dose.open_time_margin_s,
            flux_ph_s=config.beam.flux_ph_s,
            flux_headroom=guard.flux_headroom,
            allowance=self.allowance,
        )

    def _frame_bytes(self) -> int:
        roi = self.config.camera.roi
        rows, columns = ASSUMED_SENSOR_YX if roi is None else roi[2:]
        return rows * columns * BYTES_PER_PIXEL

    def _notes(self) -> Iterator[str]:
        timing = self.walk.timing
        if self.walk.timed_shutter:
            yield "the shutter keeps the exposure time itself (else: --no-timed-shutter)"
        else:
            yield f"shutter open {1e3 * timing.open_extra_s:.0f} ms longer than the exposure"
        yield f"{1e3 * timing.frame_extra_s:.0f} ms more per frame, flux steady at beam.flux, no drift"
        if self.reject:
            yield f"{100 * self.reject:g} % of the frames rejected, at random (seeded)"
        if self.config.camera.roi is None:
            yield f"camera.roi is not given: a sensor of {ASSUMED_SENSOR_YX[0]} x {ASSUMED_SENSOR_YX[1]} pixels"
        yield "limits of the stage and of the monochromator are not known without the beamline (`xbat doctor`)"


def _policy(config: ExperimentConfig) -> tuple[str, ...]:
    policy = config.dose.policy
    return (policy,) if isinstance(policy, str) else tuple(policy)


def _literature(config: ExperimentConfig) -> tuple[LimitSection, ...]:
    """Return the advisory limits of the literature for materials of the layer, that are not configured anyway."""
    if config.dose.model != "attenuation":
        return ()
    from xbat_live.dose_setup import make_stack

    asked_for = {item.preset for item in config.dose.limits}
    layer = make_stack(config).layer(config.sample.layer)
    return tuple(
        LimitSection(preset=name, material=material.name, layer=layer.name)
        for material in layer.parts
        for name in dose.presets.limit_names(material.name)
        if name not in asked_for and dose.presets.limit(name, material.name).advisory
    )


def _with_literature(config: ExperimentConfig) -> ExperimentConfig:
    section = config.dose
    limits = (*section.limits, *_literature(config))
    return config.model_copy(update={"dose": section.model_copy(update={"limits": limits})})


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Do without: a walk makes no cycles worth collecting, and looking for them takes a tenth of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
