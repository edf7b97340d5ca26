"""Any plan under the guard, message by message: what shares an opening, where it stops, rests, moves, and that it ends closed."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import Msg
from hypothesis import given
from hypothesis import strategies as st
from ophyd import Signal
from ophyd.status import Status
from plan_driver import Drive, FakeAnalysis, FakeCamera, InjectedFailure, drive, fake_beamline

from xbat_live.devices import OpenFor, ShutterError
from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseRefused, ExposureRequest, Ledger, presets
from xbat_live.plans import (
    Divisible,
    DoseGuard,
    ExposureFailed,
    FluxCalibration,
    NeedsBeam,
    dose_guard_wrapper,
    operando_txm_series,
)
from xbat_live.plans.exposure import POLL_S
from xbat_live.plans.fly import largest

FLUX = FluxCalibration(1e10, 100.0)
E_S = 0.048
TIMED, PLAIN = True, False


@dataclass
class Lab:
    """Fake devices whose beam follows the attenuator, and a clock that only exposures and sleeps move."""

    beamline: object
    account: DoseAccount
    guard: DoseGuard
    clock: list[float]
    decisions: list[dict] = field(default_factory=list)
    moves: list[tuple[str, float]] = field(default_factory=list)

    def run(self, plan, **options):
        return drive(plan, self.beamline, on_message=self.look, **({"plain_opening_s": E_S} | options))

    def guarded(self, plan, **options):
        return self.run(dose_guard_wrapper(plan, self.guard), **options)

    def look(self, message):
        beamline = self.beamline
        if message.command == "sleep":
            self.clock[0] += message.args[0]
        if message.command == "read" and message.obj.name == "decision":
            self.decisions.append(message.obj.values())
        if message.command == "set" and message.obj is beamline.attenuator:
            beamline.attenuator.transmission.sim_put(message.args[0])
            beamline.i0.current_na.sim_put(100.0 * message.args[0])
        for name in "xy":
            if message.command == "set" and message.obj is getattr(beamline.stage, name):
                self.moves.append((name, message.args[0]))

    def actions(self):
        return [decision["action"] for decision in self.decisions]


def one_gy(account, open_time_s=E_S):
    return account.predict(ExposureRequest(0, 0, 8562.0, open_time_s, 1e10))


@contextmanager
def laboratory(path, *limits, timed=TIMED, allowing=None, **options):
    beamline, clock = fake_beamline(timed=timed), [1000.0]
    beamline.i0.current_na.sim_put(100.0)
    beamline.mono.energy.user_readback.sim_put(8562.0)

    def account(ledger, *limits):
        return DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
            limits=limits,
            layer="cathode",
            material="NMC622",
            outline_um=(400.0, 400.0),
        )

    if allowing is not None:  # so many exposures: the last one is reserved with its margin and the headroom of the flux
        with Ledger(path / "probe.sqlite") as ledger:
            probe = account(ledger)
            margin_s = 0.01 if timed else 0.25
            last_gy = 1.02 * one_gy(probe, E_S + margin_s)
            limits = (DoseLimit("limit", "NMC622", limit_gy=(allowing - 0.5) * one_gy(probe) + last_gy),)
    with Ledger(path / "cell.sqlite", wall=lambda: clock[0], monotonic=lambda: clock[0]) as ledger:
        made = account(ledger, *limits)
        guard = DoseGuard(made, FLUX, beamline=beamline, outline_um=(400.0, 400.0), **options)
        yield Lab(beamline, made, guard, clock)
        guard.executor.shutdown()


def count(lab, n):
    """As ``bp.count``, without the demands of a real detector on its fake."""
    for _ in range(n):
        yield from bps.checkpoint()
        yield from bps.trigger(lab.beamline.camera, group="point")
        yield from bps.wait("point")
        yield from bps.create("primary")
        yield from bps.save()


def shutter_messages(lab, record):
    """Openings, closings and triggers, in order."""
    told = []
    for message in record.messages:
        if message.command == "trigger":
            told.append(f"trigger {message.obj.name}")
        elif message.command == "set" and message.obj is lab.beamline.shutter:
            value = message.args[0]
            told.append(f"open for {value.seconds:g}" if isinstance(value, OpenFor) else value)
    return told


# --- exactly before the exposure that would exceed -------------------------------------------------------------------------------


@pytest.mark.parametrize("timed", [TIMED, PLAIN])
@pytest.mark.parametrize("allowed", [1, 2, 7, 13])
def test_halt_exactly_before_the_exposure_that_would_exceed(tmp_path, allowed, timed):
    with laboratory(tmp_path, timed=timed, allowing=allowed) as lab:
        record = lab.guarded(count(lab, 50))
        assert isinstance(record.error, DoseRefused)
        assert (record.opened, record.shutter) == (allowed, "Closed")
        assert lab.account.dose_map().dose_gy.max() <= lab.account.lowest_limit_gy


@pytest.mark.parametrize("allowed", [1, 4])
def test_relocate_moves_the_rest_of_the_plan(tmp_path, allowed):
    with laboratory(tmp_path, allowing=allowed, policy="relocate", choose_spot=lambda x, y: (x + 50, y - 5)) as lab:

        def scan():
            for x in range(6):
                yield from bps.mv(lab.beamline.stage.x, float(x))
                yield from bps.trigger(lab.beamline.camera, group="point")
                yield from bps.wait("point")

        record = lab.guarded(scan())
        assert record.error is None
        assert record.opened == 6
        x = [value for name, value in lab.moves if name == "x"]
        if allowed == 4:
            # at x = 4 refused: there by 50; x = 5 arrives shifted
            assert x == [0, 1, 2, 3, 4, 54, 55]
            assert [value for name, value in lab.moves if name == "y"] == [-5]
        assert x[-1] == 5 + 50 * ((6 - 1) // allowed)


def test_after_a_relocation_relative_moves_start_from_where_the_plan_thinks_it_is(tmp_path):
    """`position` of a motor, and answers to `locate`, are in the plan's own coordinates."""
    with laboratory(tmp_path, allowing=1, policy="relocate", choose_spot=lambda x, y: (x + 50, y)) as lab:
        seen = []

        def plan():
            yield from count(lab, 2)
            seen.append(lab.beamline.stage.x.plan_offset)
            location = yield Msg("locate", lab.beamline.stage.x)
            seen.append(location)

        original = Drive.execute

        def execute(self, message):
            if message.command == "locate":
                return {"setpoint": 50.0, "readback": 50.1}
            return original(self, message)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Drive, "execute", execute)
            lab.guarded(plan())
        assert seen == [50.0, {"setpoint": pytest.approx(0.0), "readback": pytest.approx(0.1)}]
        assert lab.beamline.stage.x.plan_offset == 0.0  # the plan is over


def test_without_a_fresh_spot_the_next_policy_is_tried_and_then_it_halts(tmp_path):
    with laboratory(tmp_path, allowing=2, policy=("relocate", "rest"), choose_spot=lambda x, y: None) as lab:
        record = lab.guarded(bpp.run_wrapper(count(lab, 9)))
        assert isinstance(record.error, DoseRefused)
        assert lab.actions()[-1] == "halt"
        assert lab.decisions[-1]["reason"].startswith("no fresh spot left; dose would be")


def test_a_fresh_spot_that_is_refused_as_well_ends_the_search(tmp_path):
    with laboratory(
        tmp_path,
        DoseLimit("limit", "NMC622", limit_gy=1.0),
        policy="relocate",
        choose_spot=lambda x, y: (x + 10 if x < 100 else -100.0, y),
    ) as lab:
        record = lab.guarded(count(lab, 1))
        assert isinstance(record.error, DoseRefused)
        assert record.opened == 0


def windowed(per_window, window_s=60.0):
    """A mean rate of so many exposures (as reserved) in a window."""
    return DoseLimit("window", "NMC622", rate_gy_s=per_window * 11.58e3 / window_s, window_s=window_s)


def test_rest_waits_with_the_shutter_closed_and_then_goes_on(tmp_path):
    with laboratory(tmp_path, windowed(3), policy="rest") as lab:
        record = lab.guarded(bpp.run_wrapper(count(lab, 8)))
        assert record.error is None
        assert record.opened == 8
        assert "rest" in lab.actions()
        assert lab.clock[0] - 1000.0 >= 60.0
        longest = max(message.args[0] for message in record.messages if message.command == "sleep")
        assert longest <= 0.51  # a pause or a stop acts within half a second
        told = json.loads(next(item for item in lab.decisions if item["action"] == "rest")["inputs"])
        assert told["limit"] == "window"
        assert told["wait_s"] > 0


def test_rest_does_not_wait_for_what_never_comes(tmp_path):
    with laboratory(tmp_path, allowing=2, policy="rest") as lab:
        record = lab.guarded(count(lab, 9))
        assert isinstance(record.error, DoseRefused)
        assert lab.clock[0] < 1010.0


@pytest.mark.parametrize(
    ("fraction", "policy", "openings"),
    [
        (0.5, "attenuate", 3),  # half the rate: attenuated once
        (0.05, "attenuate", 0),  # a twentieth is not worth it
        (0.05, ("attenuate", "halt"), 0),
        (2.0, "attenuate", 3),  # nothing to be done
    ],
)
def test_attenuate(tmp_path, fraction, policy, openings):
    limit = DoseLimit("rate", "NMC622", rate_gy_s=fraction * 196e3)
    with laboratory(tmp_path, limit, policy=policy) as lab:
        record = lab.guarded(bpp.run_wrapper(count(lab, 3)))
        assert record.opened == openings
        assert lab.actions().count("attenuate") == (fraction == 0.5)
        assert lab.beamline.attenuator.transmission.get() == 1.0  # as it was before


def test_several_policies_are_tried_in_their_order(tmp_path):
    limits = (DoseLimit("rate", "NMC622", rate_gy_s=0.5 * 196e3), windowed(2))
    with laboratory(tmp_path, *limits, policy=("attenuate", "rest", "halt")) as lab:
        record = lab.guarded(bpp.run_wrapper(count(lab, 9)))
        assert record.error is None
        assert record.opened == 9
        assert lab.actions()[0] == "attenuate"
        assert "rest" in lab.actions()


@pytest.mark.parametrize("policy", ["relocte", ("rest", "sleep"), ()])
def test_an_unknown_policy_is_told_at_once(tmp_path, policy):
    with pytest.raises(ValueError, match="known: halt, relocate, rest, attenuate"), laboratory(tmp_path, policy=policy):
        pass


def test_series_rest_and_attenuate_too(tmp_path):
    with laboratory(tmp_path, windowed(3)) as lab:
        options = {"n_points": 6, "period_s": 0.0, "n_darks": 0, "exposure_s": E_S, "fields_um": ((0.0, 0.0),)}
        plan = operando_txm_series(
            lab.beamline,
            lab.guard,
            FakeAnalysis(),
            lambda x, y: None,
            reference_um=(-450.0, 0.0),
            policy="rest",
            **options,
        )
        record = lab.run(plan)
        assert record.error is None
        assert (record.value.frames, record.value.outcome) == (6, "completed")
        assert "rest" in lab.actions()


# --- warnings ----------------------------------------------------------------------------------------------------------------------


def test_each_limit_and_level_is_told_once_a_run(tmp_path):
    with laboratory(tmp_path, allowing=9, policy="relocate", choose_spot=lambda x, y: (x, y + 50)) as lab:
        lab.guarded(bpp.run_wrapper(count(lab, 25)))  # three spots
        warned = [json.loads(item["inputs"]) for item in lab.decisions if item["action"] == "warn"]
        assert [(item["limit"], item["level"]) for item in warned] == [("limit", 0.5), ("limit", 0.8)]
        lab.guard.run_uid = "another"
        lab.decisions.clear()
        lab.beamline.stage.y.user_readback.sim_put(-100.0)
        lab.guarded(bpp.run_wrapper(count(lab, 9)))
        assert lab.actions().count("warn") == 2


# --- what shares an opening --------------------------------------------------------------------------------------------------------


def other_camera(exposure_s):
    camera = FakeCamera(name="other")
    camera.cam.acquire_time.put(exposure_s)
    camera.cam.detector_state = Signal(name="other_state", value="Acquire")
    return camera


@pytest.mark.parametrize(
    ("timed", "other_s", "expected", "reason"),
    [
        (
            TIMED,
            E_S,
            ["trigger camera", "trigger other", "open for 0.048"],
            "equal exposures: the shutter opens inside both",
        ),
        (
            TIMED,
            2 * E_S,
            ["Open", "trigger camera", "trigger other", "Closed"],
            "different ones: the longer decides, and the cameras keep the time",
        ),
        (PLAIN, E_S, ["Open", "trigger camera", "trigger other", "Closed"], "a shutter without a timed opening"),
    ],
)
def test_detectors_of_one_group_share_one_opening(tmp_path, timed, other_s, expected, reason):
    other = other_camera(other_s)
    with laboratory(tmp_path, timed=timed) as lab:

        def plan():
            yield from bps.trigger(lab.beamline.camera, group="both")
            yield from bps.trigger(other, group="both")
            yield from bps.wait("both")

        record = lab.guarded(plan(), plain_opening_s=max(E_S, other_s))
        assert record.error is None
        told = shutter_messages(lab, record)[: len(expected)]
        assert told == expected, reason
        assert record.opened == 1
        (reserved,) = [item.entry for item in lab.account.ledger.records() if item.entry.kind == "reserve"]
        margin_s = 0.01 if expected[0] != "Open" else 0.25
        assert reserved.open_time_s == pytest.approx(max(E_S, other_s) + margin_s)


def test_detectors_of_two_groups_have_two_openings(tmp_path):
    other = other_camera(E_S)
    with laboratory(tmp_path) as lab:

        def plan():
            yield from bps.trigger(lab.beamline.camera, group="one")
            yield from bps.trigger(other, group="two")
            yield from bps.wait("one")
            yield from bps.wait("two")

        record = lab.run(dose_guard_wrapper(plan(), lab.guard, detectors=[other]))
        assert record.opened == 2


def test_detectors_without_beam_are_triggered_as_they_are(tmp_path):
    counter = SimpleNamespace(name="counter", parent=None)
    with laboratory(tmp_path) as lab:

        def plan():
            yield Msg("trigger", counter, group="mine")
            yield from bps.wait("mine")

        record = lab.guarded(plan())
        assert record.opened == 0
        (trigger,) = [message for message in record.messages if message.command == "trigger"]
        assert (trigger.obj, trigger.kwargs["group"]) == (counter, "mine")


def test_a_trigger_that_nobody_waits_for_is_an_exposure_all_the_same(tmp_path):
    with laboratory(tmp_path) as lab:
        seen = []

        def plan():
            status = yield Msg("trigger", lab.beamline.camera)
            seen.append(status.done)
            yield from bps.null()
            seen.append((status.done, status.success))
            yield Msg("trigger", lab.beamline.camera)  # and the plan ends

        record = lab.guarded(plan())
        assert record.opened == 2
        assert seen == [False, (True, True)]


def test_a_plan_that_triggers_while_it_collects_readings_gets_none_of_the_guards_own(tmp_path):
    with laboratory(tmp_path) as lab:

        def plan():
            yield from bps.open_run()
            yield from bps.create("primary")
            yield from bps.read(lab.beamline.ring.current_ma)
            yield from bps.trigger(lab.beamline.camera, group="point")
            yield from bps.wait("point")
            yield from bps.save()
            yield from bps.close_run()

        record = lab.guarded(plan())
        assert record.opened == 1
        commands = record.commands()
        inside = record.messages[commands.index("create") : commands.index("save")]
        assert [message.obj for message in inside if message.command == "read"] == [lab.beamline.ring.current_ma]
        assert not {"create", "checkpoint"} & {message.command for message in inside[1:]}
        flags = [
            message.args[0] for message in inside if message.command == "rewindable" and message.args[0] is not None
        ]
        after = [
            message.args[0] for message in record.messages[commands.index("save") :] if message.command == "rewindable"
        ]
        assert False in flags
        assert after[0] is not False  # given back once the Event is saved


def test_the_camera_integrates_longer_than_the_beam_and_is_put_back(tmp_path):
    with laboratory(tmp_path, lead_time_s=0.02) as lab:
        acquire_time = lab.beamline.camera.cam.acquire_time
        during = []
        lab_look = lab.look

        def look(message):
            if message.command == "trigger":
                during.append(acquire_time.get())
            lab_look(message)

        record = drive(dose_guard_wrapper(count(lab, 3), lab.guard), lab.beamline, on_message=look)
        assert record.opened == 3
        assert during == pytest.approx([E_S + 0.02] * 3)  # not longer and longer
        assert acquire_time.get() == pytest.approx(E_S)


def test_a_plan_may_change_its_exposure(tmp_path):
    with laboratory(tmp_path) as lab:
        camera = lab.beamline.camera

        def plan():
            yield from count(lab, 1)
            yield from bps.mv(camera.cam.acquire_time, E_S + 0.03)  # which is what the guard had set
            yield from count(lab, 1)

        record = lab.guarded(plan())
        assert [step for step in shutter_messages(lab, record) if step.startswith("open")] == [
            "open for 0.048",
            "open for 0.078",
        ]


def test_a_detector_that_does_not_say_how_long_is_refused_with_the_shutter_closed(tmp_path):
    silent = SimpleNamespace(name="silent", parent=None)
    with laboratory(tmp_path) as lab:

        def plan():
            yield Msg("trigger", silent, group="mine")
            yield from bps.wait("mine")

        record = lab.run(dose_guard_wrapper(plan(), lab.guard, detectors=[silent]))
        assert isinstance(record.error, ExposureFailed)
        assert "silent does not say" in str(record.error)
        assert record.opened == 0


def test_a_shutter_that_does_not_open_is_an_error_and_counts_in_full(tmp_path):
    with laboratory(tmp_path) as lab:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Drive, "close", lambda self, open_time_s: None)  # the counter does not move
            record = lab.guarded(count(lab, 1))
        assert isinstance(record.error, ShutterError)
        assert "not confirmed" in str(record.error)
        assert lab.account.summary()["open_time_s"] == pytest.approx(E_S + 0.01)


def test_a_guard_without_a_beamline_says_so(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.guard.beamline = None
        with pytest.raises(ValueError, match="needs a beamline"):
            next(dose_guard_wrapper(iter(()), lab.guard))


# --- flights -----------------------------------------------------------------------------------------------------------------------


class Burst:
    """A flyer of equal frames."""

    parent = None

    def __init__(self, n_frames, frame_time_s=0.02):
        self.name, self.n_frames, self.frame_time_s = "burst", n_frames, frame_time_s
        self.taken = []

    def take(self, n):
        self.taken.append(n)


def fly(flyer):
    yield from bps.open_run()
    yield from bps.kickoff(flyer, wait=True)
    yield from bps.complete(flyer, wait=True)
    yield Msg("collect", flyer)
    yield from bps.close_run()


def test_the_burst_of_this_test_is_what_the_protocol_wants():
    assert isinstance(Burst(1), Divisible)
    assert not isinstance(SimpleNamespace(beam_time_s=1.0), Divisible)
    assert isinstance(SimpleNamespace(beam_time_s=1.0), NeedsBeam)


@pytest.mark.parametrize(
    ("limit_s", "pieces", "refused"),
    [
        (10.0, [20], False),  # fits: one reservation, one opening
        (0.25 + 7.5 * 0.02, [7], True),  # seven frames and the margin of one opening
        (0.25 + 0.5 * 0.02, [], True),  # not even one
    ],
)
def test_a_flight_is_cut_where_it_stops_to_fit(tmp_path, limit_s, pieces, refused):
    rate_gy_s = 1.02 * 196.1e3
    with laboratory(tmp_path, DoseLimit("limit", "NMC622", limit_gy=limit_s * rate_gy_s)) as lab:
        burst = Burst(20)
        record = lab.run(dose_guard_wrapper(fly(burst), lab.guard), plain_opening_s=max([*pieces, 0]) * 0.02)
        assert burst.taken == pieces
        assert isinstance(record.error, DoseRefused) is refused
        assert (record.opened, record.shutter) == (len(pieces), "Closed")
        kicked = [
            message.command for message in record.messages if message.command in ("kickoff", "complete", "collect")
        ]
        # pieces that were flown are collected even when the plan ends here
        assert kicked == ["kickoff", "complete"] * len(pieces) + ["collect"] * bool(pieces)


def drive_fly(lab, flyer, plain_opening_s, **options):
    plan = dose_guard_wrapper(fly(flyer), lab.guard, **options)
    return drive(plan, lab.beamline, on_message=lab.look, plain_opening_s=plain_opening_s)


def test_a_relocated_flight_goes_on_at_the_next_spot(tmp_path):
    limit = DoseLimit("limit", "NMC622", limit_gy=(0.25 + 8.5 * 0.02) * 1.02 * 196.1e3)
    with laboratory(tmp_path, limit, policy="relocate", choose_spot=lambda x, y: (x + 50, y)) as lab:
        burst = Burst(20)
        record = drive_fly(lab, burst, 8 * 0.02)
        assert record.error is None
        assert burst.taken == [8, 8, 4]
        assert [value for _, value in lab.moves] == [50, 100]
        assert [message.command for message in record.messages].count("collect") == 1


class Whole:
    """A flyer that cannot be cut."""

    parent = None
    name = "whole"


@pytest.mark.parametrize("says_so", [True, False], ids=["it says how long", "the plan says it"])
def test_a_flyer_that_cannot_be_cut_is_reserved_as_a_whole(tmp_path, says_so):
    flyer = Whole()
    if says_so:
        flyer.beam_time_s = 0.5
    with laboratory(tmp_path) as lab:
        record = drive_fly(lab, flyer, 0.5, beam_times=None if says_so else {flyer: 0.5})
        assert record.error is None
        assert record.opened == 1
        (reserved,) = [item.entry for item in lab.account.ledger.records() if item.entry.kind == "reserve"]
        assert reserved.open_time_s == pytest.approx(0.5 + 0.25)


def test_a_flyer_that_does_not_say_how_long_flies_in_the_dark(tmp_path, caplog):
    with laboratory(tmp_path) as lab:
        record = drive_fly(lab, Whole(), 0.5)
        assert record.error is None
        assert record.opened == 0
        assert "whole does not say" in caplog.text
        assert record.commands().count("kickoff") == 1


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_largest_finds_the_largest(most, threshold):
    asked = []

    def allowed(n):
        asked.append(n)
        assert 1 <= n <= most
        return n <= threshold

    assert largest(most, allowed) == min(most, threshold)
    assert len(asked) <= 16


# --- every way out -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before it takes effect", "after it took effect"])
@pytest.mark.parametrize("kind", ["count", "fly"])
def test_a_failure_at_any_message_leaves_the_shutter_closed_and_the_dose_counted(tmp_path, monkeypatch, kind, after):
    monkeypatch.setattr("bluesky.utils.traceback.format_stack", list)  # half of the time, and of no use here
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path  # hundreds of ledgers, each synced to its disk
    index, ended = 0, False
    while not ended:
        with tempfile.TemporaryDirectory(dir=memory) as folder, laboratory(Path(folder)) as lab:
            plan = fly(Burst(5)) if kind == "fly" else bpp.run_wrapper(count(lab, 2))
            record = lab.guarded(plan, fail_at=index, after=after)
            ended = index >= len(record.messages)
            assert record.shutter == "Closed", record.messages[index]
            assert ended or isinstance(record.error, InjectedFailure), index
            standing_s = sum(0.35 for _ in lab.account.unsettled)
            assert lab.account.summary()["open_time_s"] + standing_s >= record.open_time_s - 1e-9, record.messages[
                index
            ]
        index += 1
    assert index > 40


def test_runs_tell_model_limits_policy_and_the_dose_of_each_spot(tmp_path):
    with laboratory(tmp_path, allowing=2, policy=("rest", "halt")) as lab:
        spots = []

        def look(message):
            if message.command == "read" and message.obj.name == "spot":
                spots.append(message.obj.values())

        plan = dose_guard_wrapper(bpp.run_wrapper(count(lab, 5)), lab.guard)
        record = drive(plan, lab.beamline, on_message=look, plain_opening_s=E_S)
        (start,) = [message.kwargs for message in record.messages if message.command == "open_run"]
        assert start["dose"]["policy"] == ["rest", "halt"]
        assert start["dose"]["targets"] == [{"layer": "cathode", "material": "NMC622"}]
        assert {"model", "stack", "limits", "beam"} <= set(start["dose"])
        assert isinstance(record.error, DoseRefused)  # and yet
        (spot,) = spots
        assert spot["exposures"] == 2
        assert json.loads(spot["doses"]) == {"cathode/NMC622": pytest.approx(spot["dose_gy"])}


def test_signals_follow_each_reservation_and_settlement(tmp_path):
    with laboratory(tmp_path, allowing=4) as lab:
        lab.guarded(count(lab, 3))
        signals = lab.guard.signals
        assert signals.exposures_left.get() == 1
        assert signals.binding_limit.get() == "limit"
        assert signals.dose_gy.get() == pytest.approx(lab.account.dose_map().dose_gy.max())
        assert 0.5 < signals.limit_fraction.get() < 1
        assert {key: item.get("units") for key, item in signals.describe().items()} == {
            "dose_gy": "Gy",
            "dose_rate_gy_s": "Gy/s",
            "dose_windowed_rate_gy_s": "Gy/s",
            "dose_limit_fraction": None,
            "dose_exposures_left": None,
            "dose_binding_limit": None,
            "dose_degraded": None,
        }


def test_a_real_stock_plan_is_taken_as_it_is(tmp_path):
    """``bp.count`` itself, down to its staging."""
    with laboratory(tmp_path) as lab:
        record = lab.guarded(bp.count([lab.beamline.camera], num=3))
        assert record.error is None
        assert record.opened == 3


def whole_flight(lab):
    flyer = Whole()
    flyer.beam_time_s = 0.5
    return fly(flyer)


@pytest.mark.parametrize("plan", [lambda lab: count(lab, 1), whole_flight], ids=["exposure", "flight"])
def test_the_beam_ends_when_what_was_reserved_is_over_whatever_the_camera_does(tmp_path, monkeypatch, plan):
    """A shutter without a time limit of its own, and a camera that never ends: it is given up long after the shutter has closed."""
    never, now_s, told = Status(), [0.0], []
    for module in ("exposure", "fly"):
        monkeypatch.setattr(f"xbat_live.plans.{module}.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    with laboratory(tmp_path, timed=PLAIN) as lab:

        def look(message):
            lab.look(message)
            if message.command == "wait":
                now_s[0] += 5 * POLL_S
            if message.command == "set" and message.obj is lab.beamline.shutter:
                told.append((message.args[0], now_s[0]))

        record = drive(dose_guard_wrapper(plan(lab), lab.guard), lab.beamline, on_message=look, ending=lambda: never)
        never.set_finished()
        assert isinstance(record.error, ExposureFailed)
        (reserved,) = (record.entry for record in lab.account.ledger.records() if record.entry.kind == "reserve")
    (opened_at_s,) = (at_s for command, at_s in told if command == "Open")
    closed_at_s = next(at_s for command, at_s in told if command == "Closed" and at_s > opened_at_s)
    assert closed_at_s - opened_at_s <= reserved.open_time_s + 20 * POLL_S
    assert now_s[0] - opened_at_s > 10.0
