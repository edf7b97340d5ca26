"""The composed message sequence of the series plans: what is reserved before what, and the shutter closed on every way out."""

import tempfile
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from plan_driver import FakeAnalysis, FakeFrame, InjectedFailure, drive, fake_beamline

from xbat_live.devices import OpenFor
from xbat_live.dose import Beam, DoseAccount, DoseLimit, Ledger, SamplePosition, presets
from xbat_live.plans import (
    DoseGuard,
    ExposureFailed,
    FluxCalibration,
    LimitBelowOneFrame,
    dose_guard_wrapper,
    operando_txm_series,
    xanes_series,
)

FLUX = FluxCalibration(1e10, 100.0)
BLURRED = FakeFrame(False, "blurred", "horizontal blur of 7 px")


@contextmanager
def account(path, limit_gy=1e6, *, read_only=False):
    with Ledger.for_sample(path, "cell", read_only=read_only) as ledger:
        yield DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
            limits=(DoseLimit("limit", "NMC622", limit_gy=limit_gy),),
            layer="cathode",
            material="NMC622",
        )


@pytest.fixture(params=[False, True], ids=["camera keeps the time", "shutter keeps the time"])
def beamline(request):
    devices = fake_beamline(timed=request.param)
    devices.i0.current_na.sim_put(100.0)
    devices.mono.energy.user_readback.sim_put(8562.0)
    return devices


def series(beamline, guard, analysis=None, *, spots=((40.0, 0.0), (80.0, 0.0)), plan=operando_txm_series, **options):
    left = list(spots)
    settings = {
        "n_points": 1,
        "period_s": 0.0,
        "n_darks": 1,
        "exposure_s": 0.048,
        "reference_um": (-250.0, 0.0),
    } | options
    return plan(beamline, guard, analysis or FakeAnalysis(), lambda x, y: left.pop(0) if left else None, **settings)


def guarded(account, beamline):
    return DoseGuard(account, FLUX)


def names(record, command):
    """Names in the messages of one command, in order."""
    return [message.kwargs.get("name") for message in record.messages if message.command == command]


def opens(message, beamline):
    """Whether a message opens the shutter."""
    if message.command != "set" or message.obj is not beamline.shutter:
        return False
    return message.args[0] == "Open" or isinstance(message.args[0], OpenFor)


def test_a_point_in_order(tmp_path, beamline):
    with account(tmp_path) as dose:
        record = drive(series(beamline, guarded(dose, beamline)), beamline)
    assert record.error is None
    # dark, flat with the sample out, then the two fields of view, each judged
    saved = [name for name in names(record, "create") if name != "decision"]
    assert saved == ["dark", "flat", "primary", "analysis", "primary", "analysis", "spots", "spots"]
    assert record.opened == 3  # no photons for the dark
    assert record.shutter == "Closed"
    assert (record.value.points, record.value.frames, record.value.outcome) == (1, 2, "completed")


def test_stage_is_outside_run_is_outside_exposures(tmp_path, beamline):
    with account(tmp_path) as dose:
        commands = drive(series(beamline, guarded(dose, beamline)), beamline).commands()
    assert commands.index("stage") < commands.index("open_run") < commands.index("trigger")
    last_trigger = len(commands) - commands[::-1].index("trigger")
    assert last_trigger < commands.index("close_run") < commands.index("unstage")


def test_reservation_is_on_disk_before_the_shutter_opens(tmp_path, beamline):
    with account(tmp_path) as dose:
        reserved_at_opening = []

        def look(message):
            if opens(message, beamline):
                with account(tmp_path, read_only=True) as reader:  # another connection: what it sees is on disk
                    reserved_at_opening.append(len(reader.unsettled))

        drive(series(beamline, guarded(dose, beamline)), beamline, on_message=look)
    assert reserved_at_opening == [1, 1, 1]  # one open reservation at each opening, the one before is settled


def test_a_checkpoint_before_every_exposure_of_the_sample(tmp_path, beamline):
    """Without one, a suspender rewinds to the start of the plan and repeats exposures."""
    with account(tmp_path) as dose:
        record = drive(series(beamline, guarded(dose, beamline), FakeAnalysis([BLURRED])), beamline)
    since_checkpoint: list[str] = []
    for message in record.messages:
        if message.command == "create" and message.kwargs["name"] == "primary":
            assert since_checkpoint.count("trigger") == 1
        since_checkpoint = [] if message.command == "checkpoint" else [*since_checkpoint, message.command]


def test_exposures_are_not_rewindable(tmp_path, beamline):
    with account(tmp_path) as dose:
        messages = drive(series(beamline, guarded(dose, beamline)), beamline).messages
    rewindable, opened = True, []
    for message in messages:
        if message.command == "rewindable" and message.args[0] is not None:
            rewindable = message.args[0]
        if opens(message, beamline):
            opened.append(rewindable)
    assert opened
    assert not any(opened)


@pytest.mark.parametrize("after", [False, True], ids=["before it takes effect", "after it took effect"])
@pytest.mark.parametrize(
    ("plan", "timed"), [(operando_txm_series, False), (operando_txm_series, True), (xanes_series, True)]
)
def test_a_failure_at_any_message_leaves_the_shutter_closed(tmp_path, monkeypatch, plan, timed, after):
    monkeypatch.setattr("bluesky.utils.traceback.format_stack", list)  # half of the time, and of no use here
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path  # hundreds of ledgers, each synced to its disk
    extra = {"energies_ev": (8345.0,)} if plan is xanes_series else {}
    index, ended = 0, False
    while not ended:
        beamline = fake_beamline(timed=timed)
        beamline.i0.current_na.sim_put(100.0)
        beamline.mono.energy.user_readback.sim_put(8562.0)
        with tempfile.TemporaryDirectory(dir=memory) as folder, account(Path(folder)) as dose:
            script = [BLURRED]
            analysis = FakeAnalysis(script)
            run = series(beamline, guarded(dose, beamline), analysis, plan=plan, fields_um=((0.0, 0.0),), **extra)
            record = drive(run, beamline, fail_at=index, after=after)
            ended = index >= len(record.messages)
            assert record.shutter == "Closed", (
                f"message {index}: {record.messages[min(index, len(record.messages) - 1)]}"
            )
            assert ended or isinstance(record.error, InjectedFailure), index
            # nothing delivered is missing from the ledger
            standing_s = len(dose.unsettled) * (
                0.048 + (0.01 if timed else 0.25)
            )  # a reservation that was not settled counts in full
            assert dose.summary()["open_time_s"] + standing_s >= record.open_time_s - 1e-9
        index += 1
    assert index > 100  # the plan has that many messages: the loop did run


def test_a_blurred_frame_is_retaken_and_both_are_kept(tmp_path, beamline):
    with account(tmp_path) as dose:
        record = drive(series(beamline, guarded(dose, beamline), FakeAnalysis([BLURRED])), beamline)
    assert names(record, "create").count("primary") == 3
    assert (record.value.frames, record.value.rejected) == (3, 1)


@pytest.mark.parametrize("trouble", ["late", "failed"])
def test_a_frame_without_a_verdict_is_kept_and_the_series_goes_on(tmp_path, beamline, trouble):
    class Troubled(FakeAnalysis):
        def latest(self):
            future = Future()
            if trouble == "failed":
                future.set_exception(LookupError("frame 3 cannot be read"))
            return future

    with account(tmp_path) as dose:
        run = series(beamline, guarded(dose, beamline), Troubled(), n_points=2, verdict_timeout_s=0.05)
        record = drive(run, beamline)
    assert record.error is None
    assert (record.value.frames, record.value.rejected, record.value.outcome) == (4, 0, "completed")
    assert names(record, "create").count("analysis") == 4


def test_retakes_are_bounded(tmp_path, beamline):
    with account(tmp_path) as dose:
        run = series(
            beamline, guarded(dose, beamline), FakeAnalysis([BLURRED] * 9), max_retakes=2, fields_um=((0.0, 0.0),)
        )
        record = drive(run, beamline)
    assert names(record, "create").count("primary") == 3  # the frame and two retakes


def test_the_limit_relocates_before_the_exposure_that_would_exceed_it(tmp_path, beamline):
    with account(tmp_path, limit_gy=150e3) as dose:
        record = drive(series(beamline, guarded(dose, beamline), n_points=20, fields_um=((0.0, 0.0),)), beamline)
        assert record.value.relocations >= 1
        assert dose.dose_map().dose_gy.max() <= 150e3
    assert record.value.outcome == "completed"


def test_halt_policy_ends_the_run_in_order(tmp_path, beamline):
    with account(tmp_path, limit_gy=150e3) as dose:
        record = drive(series(beamline, guarded(dose, beamline), n_points=50, policy="halt"), beamline)
        assert dose.dose_map().dose_gy.max() <= 150e3
    assert record.error is None
    assert "halted" in record.value.outcome
    assert record.value.points < 50


def test_no_fresh_spot_ends_the_run_in_order(tmp_path, beamline):
    with account(tmp_path, limit_gy=150e3) as dose:
        record = drive(series(beamline, guarded(dose, beamline), n_points=50, spots=()), beamline)
    assert "no fresh spot" in record.value.outcome


def test_a_limit_below_one_frame_is_an_error_and_opens_nothing_on_the_sample(tmp_path, beamline):
    with account(tmp_path, limit_gy=100.0) as dose:
        record = drive(series(beamline, guarded(dose, beamline)), beamline)
        assert dose.dose_map().dose_gy.max(initial=0.0) == 0.0
    assert isinstance(record.error, LimitBelowOneFrame)
    assert record.opened == 1  # the flat, with the sample out


def test_after_five_rejected_in_a_row_an_alarm_and_no_more_retakes_until_one_is_accepted(tmp_path, beamline):
    actions = []

    def look(message):
        if message.command == "read" and getattr(message.obj, "name", "") == "decision":
            actions.append(message.obj.action.get())

    with account(tmp_path) as dose:
        verdicts = FakeAnalysis([BLURRED] * 6 + [FakeFrame(), BLURRED])
        run = series(beamline, guarded(dose, beamline), verdicts, n_points=6, max_retakes=1, fields_um=((0.0, 0.0),))
        record = drive(run, beamline, on_message=look)
    told = [action for action in actions if action in ("retake", "keep_rejected", "alarm")]
    retaken = ["retake", "keep_rejected"]
    assert told == [*retaken, *retaken, "alarm", "keep_rejected", "retake"]
    assert (record.value.points, record.value.frames) == (6, 9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_drift_is_followed_outside_the_deadband_and_with_bounded_steps(tmp_path, beamline, sign):
    moved = []

    def look(message):
        if message.command == "set" and message.obj is beamline.stage.y:
            moved.append(message.args[0])

    with account(tmp_path) as dose:
        run = series(
            beamline,
            guarded(dose, beamline),
            FakeAnalysis(drift_um=(0.05, sign * 3.0)),
            n_points=3,
            fields_um=((0.0, 0.0),),
        )
        record = drive(run, beamline, on_message=look)
    on_sample = [y for y in moved if y]
    assert on_sample[0] == pytest.approx(sign * 2.0)  # at most 2 um a point
    assert on_sample[-1] == pytest.approx(sign * 3.0)  # then the rest; the stage goes with the sample, not against it
    assert record.value.corrections == 2


def test_wrong_way_feedback_ends_the_corrections(tmp_path, beamline):
    with account(tmp_path) as dose:
        analysis = FakeAnalysis(drift_um=(0.0, 3.0), feedback_ok=False)
        record = drive(series(beamline, guarded(dose, beamline), analysis, n_points=3), beamline)
    assert record.value.corrections == 0


def test_dose_follows_the_sample_not_the_stage(tmp_path, beamline):
    with account(tmp_path) as dose:
        guard = DoseGuard(dose, FLUX, position=lambda: SamplePosition(0.0, 12.0))
        drive(series(beamline, guard, spot_um=(0.0, 12.0), fields_um=((0.0, 0.0),)), beamline)
        assert dose.dose_at(0.0, 0.0).peak_gy > 0
        assert dose.dose_at(0.0, 0.0).peak_gy == pytest.approx(dose.dose_map().dose_gy.max())


@pytest.mark.parametrize(
    ("i0_na", "transmission", "expected_ph_s"),
    [
        (100.0, 1.0, 1e10),  # as calibrated
        (50.0, 1.0, 5e9),  # half the current, half the flux
        (10.0, 0.1, 1e9),  # attenuated: the chamber is behind the attenuator
        (0.0, 1.0, 1e10),  # a dead chamber, or a ring that may be filled while the shutter is open: the calibrated flux
        (-3.0, 0.1, 1e9),  # an offset below zero is no negative dose
    ],
)
def test_a_chamber_that_seems_dead_is_not_believed(tmp_path, beamline, i0_na, transmission, expected_ph_s):
    beamline.i0.current_na.sim_put(i0_na)
    beamline.attenuator.transmission.sim_put(transmission)
    with account(tmp_path) as dose:
        record = drive(guarded(dose, beamline).flux(beamline), beamline)
    assert record.value == pytest.approx(expected_ph_s)


def test_a_stray_opening_is_counted_where_the_sample_was_exposed_last(tmp_path, beamline):
    """It is found out at the next exposure, a flat with the sample out: there it must not be lost."""
    with account(tmp_path) as dose:
        guard = guarded(dose, beamline)
        drive(series(beamline, guard, fields_um=((0.0, 0.0),)), beamline)
        before_gy, before_s = dose.dose_at(0.0, 0.0).peak_gy, dose.summary()["open_time_s"]
        beamline.shutter.open_time_s.sim_put(beamline.shutter.open_time_s.get() + 1.0)  # somebody opened by hand
        drive(series(beamline, guard, n_points=1, fields_um=((0.0, 0.0),)), beamline)
        assert dose.dose_at(0.0, 0.0).peak_gy > before_gy + 150e3  # 1 s of about 190 kGy/s
        assert dose.summary()["open_time_s"] > before_s + 1.0


def test_darks_stay_dark_under_the_wrapper(tmp_path, beamline):
    with account(tmp_path) as dose:
        guard = guarded(dose, beamline)
        plan = dose_guard_wrapper(series(beamline, guard, n_darks=3), guard, beamline)
        record = drive(plan, beamline)
    assert record.error is None
    assert record.opened == 3  # the flat and two fields of view, each once


def test_a_camera_that_never_ends_is_given_up(tmp_path, beamline, monkeypatch):
    from ophyd.status import Status

    class Never(Status):
        done = False

    monkeypatch.setattr("xbat_live.plans.exposure.POLL_S", 1.0)
    with account(tmp_path) as dose:
        plan = series(beamline, guarded(dose, beamline), n_darks=0)
        import plan_driver

        monkeypatch.setattr(plan_driver, "_done_trigger", None, raising=False)
        original = plan_driver.Drive.execute
        monkeypatch.setattr(
            plan_driver.Drive,
            "execute",
            lambda self, message: Never() if message.command == "trigger" else original(self, message),
        )
        record = drive(plan, beamline)
    assert isinstance(record.error, ExposureFailed)
    assert record.shutter == "Closed"


@pytest.mark.parametrize("n", [1, 3])
def test_any_plan_can_be_guarded(tmp_path, beamline, n):
    import bluesky.plan_stubs as bps

    def stock():
        for _ in range(n):
            yield from bps.trigger(beamline.camera, wait=True)

    with account(tmp_path) as dose:
        record = drive(dose_guard_wrapper(stock(), guarded(dose, beamline), beamline), beamline)
    assert record.opened == n
    assert record.commands().count("trigger") == n
    assert record.shutter == "Closed"


def test_xanes_needs_energies(tmp_path, beamline):
    with account(tmp_path) as dose:
        record = drive(series(beamline, guarded(dose, beamline), plan=xanes_series, energies_ev=()), beamline)
    assert isinstance(record.error, ValueError)
