"""Client side of ``test_guard_any_plan.py``: ordinary plans under the dose guard on one simulator, one spot of the sample each.

``python guard_client.py PORT WORK_DIRECTORY [SCENARIO ...]`` prints one JSON object: result by scenario.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xbat_live.devices import configure_channel_access, set_default_timeouts
from xbat_live.sim.environment import channel_access_environment

PORT, WORK = int(sys.argv[1]), Path(sys.argv[2])
configure_channel_access(channel_access_environment(PORT))
set_default_timeouts()

import bluesky.plan_stubs as bps  # noqa: E402
import bluesky.plans as bp  # noqa: E402
from bluesky import RunEngine  # noqa: E402
from bluesky.suspenders import SuspendBoolHigh  # noqa: E402
from bluesky.utils import RunEngineInterrupted  # noqa: E402
from ophyd import Signal  # noqa: E402
from ophyd.status import DeviceStatus  # noqa: E402

from xbat_live.devices import DoseMonitor, FrameBurst, Roi, build_beamline  # noqa: E402
from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseRefused, ExposureRequest, Ledger, presets  # noqa: E402
from xbat_live.plans import DoseGuard, FluxCalibration, dose_guard_wrapper  # noqa: E402

EXPOSURE_S = 0.048
FLUX = FluxCalibration(1e10, 100.0)
SPACING_UM = (130.0, 200.0)
SAMPLE_UM = 1000.0


class Bench:
    """One scenario: a place of its own on the sample, a ledger of its own."""

    def __init__(self, beamline: Any, name: str, place_um: tuple[float, float], monitor: DoseMonitor) -> None:
        self.beamline, self.name, self.place_um, self.monitor = beamline, name, place_um, monitor
        self.events: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.spots: list[dict[str, Any]] = []
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.engine = RunEngine({}, context_managers=[], call_returns_result=True)
        self.engine.subscribe(self._note)
        self._streams: dict[str, str] = {}
        camera = beamline.camera
        camera.prepare_frames(exposure_s=EXPOSURE_S, roi=Roi(0, 0, 64, 64))
        for axis, value in zip((beamline.stage.x, beamline.stage.y), place_um, strict=True):
            axis.set(value).wait(20)
        self.openings = self.open_count()

    def _note(self, name: str, doc: dict[str, Any]) -> None:
        self.documents.append((name, doc))
        if name == "descriptor":
            self._streams[doc["uid"]] = doc["name"]
        if name == "event_page":
            n = len(doc["time"])
            self.events += [{key: values[i] for key, values in doc["data"].items()} for i in range(n)]
        if name == "event":
            kinds = {"decision": self.decisions, "spots": self.spots}
            kinds.get(self._streams[doc["descriptor"]], self.events).append(doc["data"])

    def open_count(self) -> int:
        return int(self.beamline.shutter.open_count.get(use_monitor=False))

    @contextlib.contextmanager
    def guard(self, *limits: DoseLimit, wanted: float | None = None, **options: Any) -> Iterator[DoseGuard]:
        """`wanted`: a dose limit that allows exactly so many exposures of `EXPOSURE_S`."""
        with Ledger.for_sample(WORK / "ledger", self.name) as ledger:
            if wanted is not None:
                # the last one is reserved with its margin; half an exposure is left over
                reserved_gy = 1.02 * self.one_gy(EXPOSURE_S + 0.01)
                limit_gy = (wanted - 1 + 0.5) * self.one_gy() + reserved_gy
                limits = (DoseLimit("dose limit", "NMC622", limit_gy=limit_gy),)
            account = self.account(ledger, *limits)
            guard = DoseGuard(
                account,
                FLUX,
                beamline=self.beamline,
                monitor=self.monitor,
                outline_um=(SAMPLE_UM, SAMPLE_UM),
                **options,
            )
            try:
                yield guard
            finally:
                guard.executor.shutdown()
                self.peak_gy = float(account.dose_map().dose_gy.max(initial=0.0))
                self.summary = account.summary()
                self.unsettled = len(account.unsettled)
                self.kinds: dict[str, int] = {}
                for record in ledger.records():
                    self.kinds[record.entry.kind] = self.kinds.get(record.entry.kind, 0) + 1
                self.times = [
                    (record.time_monotonic_s, record.entry.open_time_s)
                    for record in ledger.records()
                    if record.entry.kind == "settle"
                ]

    def account(self, ledger: Ledger, *limits: DoseLimit) -> DoseAccount:
        return DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
            limits=limits,
            layer="cathode",
            material="NMC622",
            outline_um=(SAMPLE_UM, SAMPLE_UM),
        )

    def one_gy(self, open_time_s: float = EXPOSURE_S) -> float:
        """Dose of one exposure at the present flux, Gy."""
        flux = FLUX.flux(float(self.beamline.i0.current_na.get()))
        request = ExposureRequest(*self.place_um, 8562.0, open_time_s, flux)
        with Ledger(WORK / f"{self.name}-{open_time_s}.sqlite") as ledger:
            return self.account(ledger).predict(request)

    def run(self, plan: Any) -> str:
        """Run a plan; return what it was refused with."""
        try:
            self.engine(plan)
        except DoseRefused as refusal:
            return str(refusal)
        return ""

    def result(self, **more: Any) -> dict[str, Any]:
        truth_gy, x_um, y_um = self.truth()
        x0, y0 = self.place_um
        # relocations go up in y
        near = (abs(x_um - x0) < SPACING_UM[0] / 2, (y_um > y0 - 40) & (y_um < y0 + SPACING_UM[1] - 40))
        stops = [doc for name, doc in self.documents if name == "stop"]
        return {
            "events": len(self.events),
            "decisions": [decision["decision_action"] for decision in self.decisions],
            "spots": self.spots,
            "openings": self.open_count() - self.openings,
            "shutter": self.beamline.shutter.status.get(use_monitor=False),
            "peak_gy": self.peak_gy,
            "true_gy": float(truth_gy[np.ix_(near[1], near[0])].max()),
            "open_time_s": self.summary["open_time_s"],
            "kinds": self.kinds,
            "unsettled": self.unsettled,
            "exit": [(stop["exit_status"], stop["reason"]) for stop in stops],
            "start": [sorted(doc) for name, doc in self.documents if name == "start"],
            "acquire_time_s": float(self.beamline.camera.cam.acquire_time.get()),
            "transmission": float(self.beamline.attenuator.transmission.get()),
            **more,
        }

    def truth(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        put("TRUTH:Flush", 1)
        with np.load(WORK / "twin" / "truth_dose.npz") as truth:
            return truth["dose_gy"], truth["x_um"], truth["y_um"]

    def frames(self, n: int) -> list[dict[str, Any]]:
        """The twin's truth of the last `n` frames."""
        lines = (WORK / "twin" / "truth.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines[-n:]]

    def chooser(self, x_um: float, y_um: float) -> tuple[float, float]:
        return x_um, y_um + 45.0

    def x(self) -> list[float]:
        return [round(event["stage_x"], 1) for event in self.events]

    def y(self) -> list[float]:
        return [round(event["stage_y"], 1) for event in self.events]


def put(name: str, value: Any) -> None:
    import epics

    assert epics.caput(f"XBAT:{name}", value, wait=True, timeout=20) == 1


def in_exposure(bench: Bench, number: int, act: Any, after_s: float = 0.1) -> threading.Thread:
    """Call `act` in a thread, `after_s` into the opening `number` of the scenario."""

    def wait_and_act() -> None:
        target = bench.openings + number
        while bench.open_count() < target:
            time.sleep(0.005)
        time.sleep(after_s)
        act()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


# --- step scans --------------------------------------------------------------------------------------------------------------------


def count_halt(bench: Bench) -> dict[str, Any]:
    """A count of 50 with a limit for 7."""
    camera, stage = bench.beamline.camera, bench.beamline.stage
    with bench.guard(wanted=7) as guard:
        refused = bench.run(dose_guard_wrapper(bp.count([camera, stage, guard.signals], num=50), guard))
    result = bench.result(refused=refused, dose=[event["dose_gy"] for event in bench.events])
    return result | {
        "frames": [frame["open_time_s"] for frame in bench.frames(7)],
        "photons": [frame["photons_per_px"] for frame in bench.frames(7)],
        "left": [event["dose_exposures_left"] for event in bench.events],
        "binding": bench.events[-1]["dose_binding_limit"],
    }


def scan_relocate(bench: Bench) -> dict[str, Any]:
    """A scan of 12 points with a limit for 5 at one place."""
    camera, stage = bench.beamline.camera, bench.beamline.stage
    x0 = bench.place_um[0]
    with bench.guard(wanted=5, policy="relocate", choose_spot=bench.chooser) as guard:
        plan = bp.scan([camera, stage], stage.x, x0 - 1, x0 + 1, 12)
        refused = bench.run(dose_guard_wrapper(plan, guard))
        limit_gy = guard.lowest_limit_gy
    return bench.result(refused=refused, x=bench.x(), y=bench.y(), limit_gy=limit_gy)


def grid_halt(bench: Bench) -> dict[str, Any]:
    """A snake over a grid, refused in its second row."""
    camera, stage = bench.beamline.camera, bench.beamline.stage
    x0, y0 = bench.place_um
    with bench.guard(wanted=4) as guard:
        plan = bp.grid_scan([camera, stage], stage.y, y0, y0 + 1, 2, stage.x, x0 - 1, x0 + 1, 3, snake_axes=True)
        refused = bench.run(dose_guard_wrapper(plan, guard))
    return bench.result(refused=refused)


def rel_scans_relocate(bench: Bench) -> dict[str, Any]:
    """Relative scans in a row: relocated in the second, all positions relative to where the first one was."""
    camera, stage = bench.beamline.camera, bench.beamline.stage
    with bench.guard(wanted=5, policy="relocate", choose_spot=bench.chooser) as guard:

        def plan() -> Any:
            for _ in range(3):
                yield from bp.rel_scan([camera, stage], stage.y, -1, 1, 3)

        refused = bench.run(dose_guard_wrapper(plan(), guard))
    return bench.result(refused=refused, y=[round(y - bench.place_um[1], 1) for y in bench.y()])


def adaptive_halt(bench: Bench) -> dict[str, Any]:
    """An adaptive scan decides its positions by itself."""
    camera, stage = bench.beamline.camera, bench.beamline.stage
    x0 = bench.place_um[0]
    with bench.guard(wanted=3) as guard:
        plan = bp.adaptive_scan([camera, stage], "stage_x", stage.x, x0, x0 + 2, 0.1, 0.5, 0.2, True)
        refused = bench.run(dose_guard_wrapper(plan, guard))
    return bench.result(refused=refused)


def count_rest(bench: Bench) -> dict[str, Any]:
    """At most 2.5 exposures in any 1.5 s: the count goes on after rests."""
    rate = 2.6 * bench.one_gy(EXPOSURE_S + 0.01) / 1.5
    limit = DoseLimit("windowed", "NMC622", rate_gy_s=rate, window_s=1.5)
    with bench.guard(limit, policy="rest") as guard:
        refused = bench.run(dose_guard_wrapper(bp.count([bench.beamline.camera], num=5), guard))
    return bench.result(refused=refused, times=bench.times)


def count_attenuate(bench: Bench) -> dict[str, Any]:
    """Half the dose rate of the full beam is allowed."""
    limit = DoseLimit("rate", "NMC622", rate_gy_s=0.5 * bench.one_gy(1.0))
    with bench.guard(limit, policy=("attenuate", "halt")) as guard:
        refused = bench.run(dose_guard_wrapper(bp.count([bench.beamline.camera], num=3), guard))
    return bench.result(refused=refused, one_gy=bench.one_gy())


class Slow:
    """Another detector that needs the beam while the camera does; it tells how long."""

    parent = None
    name = "slow"
    exposure_time = 2 * EXPOSURE_S

    def __init__(self, shutter: Any) -> None:
        self.shutter, self.saw = shutter, 0.0

    def trigger(self) -> DeviceStatus:
        status = DeviceStatus(self)
        before_s = float(self.shutter.open_time_s.get())

        def ended() -> None:
            self.saw = float(self.shutter.open_time_s.get()) - before_s
            status.set_finished()

        threading.Timer(0.3, ended).start()
        return status

    def read(self) -> dict[str, Any]:
        return {"slow": {"value": self.saw, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {"slow": {"source": "test", "dtype": "number", "shape": []}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def two_detectors(bench: Bench) -> dict[str, Any]:
    """Two detectors triggered in one group share one opening, as long as the longer exposure."""
    slow = Slow(bench.beamline.shutter)
    with bench.guard() as guard:
        refused = bench.run(dose_guard_wrapper(bp.count([slow, bench.beamline.camera], num=3), guard))
    return bench.result(refused=refused, saw=[event["slow"] for event in bench.events])


# --- flights -----------------------------------------------------------------------------------------------------------------------


def fly_halt(bench: Bench) -> dict[str, Any]:
    """A burst of 20 frames with a limit for about 7: cut, refused, its frames collected."""
    burst = FrameBurst(bench.beamline.camera, n_frames=20, exposure_s=0.02, also=(bench.beamline.stage,))
    one_gy = bench.one_gy(0.02)
    margin = 0.25
    # the whole flight reserves its frames and one margin
    limit = DoseLimit("dose limit", "NMC622", limit_gy=one_gy * 7.5 + bench.one_gy(margin) * 1.03)
    with bench.guard(limit) as guard:
        refused = bench.run(dose_guard_wrapper(bp.fly([burst]), guard))
    frames = [event["burst_frame"] for event in bench.events]
    return bench.result(refused=refused, frames=frames, limit_gy=limit.limit_gy, documents=documents_of(bench))


def fly_relocate(bench: Bench) -> dict[str, Any]:
    """The same with relocation: all frames are taken, in pieces."""
    burst = FrameBurst(bench.beamline.camera, n_frames=20, exposure_s=0.02, also=(bench.beamline.stage,))
    limit = DoseLimit("dose limit", "NMC622", limit_gy=bench.one_gy(0.02) * 8.5 + bench.one_gy(0.25) * 1.03)
    with bench.guard(limit, policy="relocate", choose_spot=bench.chooser) as guard:
        refused = bench.run(dose_guard_wrapper(bp.fly([burst]), guard))
    frames = [event["burst_frame"] for event in bench.events]
    return bench.result(refused=refused, frames=frames, y=bench.y(), limit_gy=limit.limit_gy)


def fly_whole(bench: Bench) -> dict[str, Any]:
    """A burst that fits is one reservation and one opening; every frame is fully exposed."""
    burst = FrameBurst(bench.beamline.camera, n_frames=8, exposure_s=0.03)
    with bench.guard() as guard:
        refused = bench.run(dose_guard_wrapper(bp.fly([burst]), guard))
    result = bench.result(refused=refused)
    return result | {"frames": [frame["open_time_s"] for frame in bench.frames(8)]}


def fly_rest(bench: Bench) -> dict[str, Any]:
    """A windowed rate limit cuts the flight and makes it wait."""
    rate = 1.3 * bench.one_gy(8 * 0.02 + 0.25) / 1.0
    limit = DoseLimit("windowed", "NMC622", rate_gy_s=rate, window_s=1.0)
    burst = FrameBurst(bench.beamline.camera, n_frames=20, exposure_s=0.02)
    with bench.guard(limit, policy="rest") as guard:
        refused = bench.run(dose_guard_wrapper(bp.fly([burst]), guard))
    return bench.result(refused=refused, frames=[event["burst_frame"] for event in bench.events])


def documents_of(bench: Bench) -> dict[str, Any]:
    """Whether every frame of the Events is a datum of a Resource."""
    resources = {doc["uid"] for name, doc in bench.documents if name == "resource"}
    datums = {doc["datum_id"]: doc["resource"] for name, doc in bench.documents if name == "datum"}
    return {"known": all(datums[event["camera_image"]] in resources for event in bench.events)}


# --- interruptions -----------------------------------------------------------------------------------------------------------------


def suspended(bench: Bench) -> dict[str, Any]:
    """A suspender trips in the middle of the second exposure and is released half a second later."""
    bench.beamline.camera.prepare_frames(exposure_s=0.4, roi=Roi(0, 0, 64, 64))
    tripped = Signal(name="tripped", value=0)
    bench.engine.install_suspender(SuspendBoolHigh(tripped))

    def trip() -> None:
        tripped.put(1)
        time.sleep(0.5)
        tripped.put(0)

    with bench.guard() as guard:
        in_exposure(bench, 2, trip)
        refused = bench.run(dose_guard_wrapper(bp.count([bench.beamline.camera], num=3), guard))
    result = bench.result(refused=refused)
    indices = [event["camera_frame_index"] for event in bench.events]
    frames = bench.frames(4)
    return result | {"indices": indices, "open": [frame["open_time_s"] for frame in frames]}


def paused(bench: Bench) -> dict[str, Any]:
    """A pause in the middle of an exposure, and a resume."""
    bench.beamline.camera.prepare_frames(exposure_s=0.4, roi=Roi(0, 0, 64, 64))
    with bench.guard() as guard:
        in_exposure(bench, 2, lambda: bench.engine.request_pause(defer=False))
        try:
            bench.engine(dose_guard_wrapper(bp.count([bench.beamline.camera], num=3), guard))
        except RunEngineInterrupted:
            pass
        time.sleep(0.5)
        status = bench.beamline.shutter.status.get(use_monitor=False)
        count = bench.open_count()
        bench.engine.resume()
    return bench.result(in_pause=status, opened_in_pause=bench.open_count() - count - 2)


def aborted(bench: Bench) -> dict[str, Any]:
    """A pause in an exposure, then abort: the shutter stays closed, the dose is settled."""
    bench.beamline.camera.prepare_frames(exposure_s=0.4, roi=Roi(0, 0, 64, 64))
    with bench.guard() as guard:
        in_exposure(bench, 2, lambda: bench.engine.request_pause(defer=False))
        try:
            bench.engine(dose_guard_wrapper(bp.count([bench.beamline.camera], num=3), guard))
        except RunEngineInterrupted:
            pass
        count = bench.open_count()
        bench.engine.abort()
        opened = bench.open_count() - count
        # the next plan may open it again
        bench.engine(dose_guard_wrapper(bp.count([bench.beamline.camera], num=1), guard))
    return bench.result(opened_after=opened)


def beam_lost(bench: Bench) -> dict[str, Any]:
    """The beam is lost in the second of three exposures, and comes back."""
    bench.beamline.camera.prepare_frames(exposure_s=0.8, roi=Roi(0, 0, 64, 64))

    def lose() -> None:
        put("RING:Fault", "Trip")
        time.sleep(0.4)
        put("RING:Fault", "None")

    with bench.guard() as guard:
        thread = in_exposure(bench, 2, lose, after_s=0.2)
        refused = bench.run(dose_guard_wrapper(bp.count([bench.beamline.camera], num=3), guard))
        thread.join(5)
    return bench.result(refused=refused)


def next_process(bench: Bench) -> dict[str, Any]:
    """Openings between two processes: by hand, and of a process that died in an exposure."""
    camera, shutter = bench.beamline.camera, bench.beamline.shutter
    with bench.guard() as guard:
        bench.run(dose_guard_wrapper(bp.count([camera], num=2), guard))
    first = bench.peak_gy
    shutter.max_open_s.set(0).wait(5)
    shutter.set("Open").wait(5)
    time.sleep(0.2)
    shutter.set("Closed").wait(5)
    with bench.guard() as guard:  # knows nothing of the one before
        bench.run(dose_guard_wrapper(bp.count([camera], num=1), guard))
        request = guard._last_on_sample
        counter_s = float(shutter.open_time_s.get())
        guard.account.reserve(request, counter_s=counter_s)  # and now it dies in the middle of an exposure
    shutter.max_open_s.set(0).wait(5)
    shutter.set("Open").wait(5)
    time.sleep(0.1)
    shutter.set("Closed").wait(5)
    with bench.guard() as guard:
        bench.run(dose_guard_wrapper(bp.count([camera], num=1), guard))
    return bench.result(first_gy=first)


def held_in_a_pause(bench: Bench) -> dict[str, Any]:
    """Whoever goes on in spite of a pause cannot open the shutter; after a resume it can."""
    shutter = bench.beamline.shutter
    shutter.pause()
    told = []
    for command in (lambda: shutter.set("Open"), lambda: shutter.open_for(0.1)):
        try:
            command()
        except Exception as error:
            told.append(str(error))
    shutter.resume()
    shutter.open_for(0.05).wait(5)
    bench.peak_gy, bench.summary, bench.kinds, bench.unsettled = 0.0, {"open_time_s": 0.0}, {}, 0
    return bench.result(told=told)


def bare_stubs(bench: Bench) -> dict[str, Any]:
    """Triggers that nobody waits for, without a group, and retries by the plan itself."""
    camera = bench.beamline.camera

    def plan() -> Any:
        yield from bps.stage(camera)
        yield from bps.open_run()
        yield from bps.trigger(camera)  # no group, no wait
        yield from bps.sleep(0.01)
        yield from bps.create("primary")
        yield from bps.read(camera)
        yield from bps.save()
        for _ in range(2):  # a retry
            yield from bps.trigger(camera, group="mine")
            yield from bps.wait(group="mine")
        yield from bps.trigger_and_read([camera])
        yield from bps.close_run()
        yield from bps.unstage(camera)

    with bench.guard() as guard:
        refused = bench.run(dose_guard_wrapper(plan(), guard))
    return bench.result(refused=refused)


SCENARIOS = [
    count_halt,
    scan_relocate,
    grid_halt,
    rel_scans_relocate,
    adaptive_halt,
    count_rest,
    count_attenuate,
    two_detectors,
    fly_halt,
    fly_relocate,
    fly_whole,
    fly_rest,
    suspended,
    paused,
    aborted,
    beam_lost,
    next_process,
    held_in_a_pause,
    bare_stubs,
]


def main() -> None:
    """Run the scenarios one after the other."""
    out, sys.stdout = sys.stdout, sys.stderr  # bluesky prints of pauses
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(relativeCreated)d %(name)s %(message)s")
    beamline = build_beamline(frame_directory=WORK / "frames")
    beamline.wait_for_connection(15)
    results: dict[str, Any] = {}
    wanted = sys.argv[3:]
    with DoseMonitor(beamline, FLUX) as monitor:
        for number, scenario in enumerate(SCENARIOS):
            name = scenario.__name__
            if wanted and name not in wanted:
                continue
            place = (-390.0 + SPACING_UM[0] * (number % 7), -300.0 + SPACING_UM[1] * (number // 7))
            print(f"--- {name} at {place}", file=sys.stderr)
            started = time.monotonic()
            try:
                results[name] = scenario(Bench(beamline, name, place, monitor))
            except Exception:
                results[name] = {"error": traceback.format_exc()}
            results[name]["seconds"] = time.monotonic() - started
    print(json.dumps(results, default=str), file=out)
    out.flush()


if __name__ == "__main__":
    main()
