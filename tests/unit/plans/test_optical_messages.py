"""The composed message sequence of the microscope's series: no X-ray beam whatever happens, and everything as it was afterwards."""

from concurrent.futures import Future

import pytest
from ophyd import Signal
from plan_driver import FakeAnalysis, FakeCamera, FakeFrame, InjectedFailure, drive, fake_beamline

from xbat_live.devices import OpenFor, PotentiostatStep
from xbat_live.plans import TimedStep, optical_series

BLURRED = FakeFrame(False, "blurred", "horizontal blur of 7 px")
CHARGE = TimedStep(PotentiostatStep("galvanostatic", c_rate_per_h=0.05), None)


@pytest.fixture
def beamline():
    devices = fake_beamline(timed=True)
    devices.optical = FakeCamera(name="optical")
    devices.optical.lamp = Signal(name="optical_lamp", value=0.3)
    devices.optical.reference = Signal(name="optical_reference", value="Out")
    return devices


def series(beamline, analysis=None, **options):
    settings = {"n_points": 2, "period_s": 0.0, "n_flats": 2, "n_darks": 1, "exposure_s": 0.02} | options
    return optical_series(beamline, analysis or FakeAnalysis(), **settings)


def names(record, command="create"):
    return [message.kwargs.get("name") for message in record.messages if message.command == command]


def opens(message, beamline):
    """Whether a message could open the shutter: any order to it but to close, and any to one of its signals."""
    if message.command != "set":
        return False
    shutter = beamline.shutter
    if message.obj is shutter:
        return message.args[0] != "Closed" or isinstance(message.args[0], OpenFor)
    return getattr(message.obj, "parent", None) is shutter or message.obj is shutter.open_for_s


def watched(plan, beamline, **options):
    """Drive the plan; `light` holds lamp, reference and frame type at every trigger."""
    light = []

    def look(message):
        if message.command == "trigger":
            camera = beamline.optical
            light.append((camera.lamp.get(), camera.reference.get(), camera.frame_type.get()))

    return drive(plan, beamline, on_message=look, **options), light


def test_a_series_in_order(beamline):
    record, light = watched(series(beamline), beamline)
    assert record.error is None
    frames = [name for name in names(record) if name != "decision"]
    assert frames == ["dark", "flat", "flat", "primary", "analysis", "primary", "analysis"]
    assert light == [
        (0.0, "Out", "Background"),  # lamp off
        (1.0, "In", "FlatField"),  # white reference
        (1.0, "In", "FlatField"),
        (1.0, "Out", "Normal"),  # sample
        (1.0, "Out", "Normal"),
    ]
    assert (record.value.points, record.value.frames, record.value.outcome) == (2, 2, "completed")
    assert beamline.optical.lamp.get() == 0.3  # as it was


def test_streams_are_declared_up_front(beamline):
    record = drive(series(beamline), beamline)
    assert set(names(record, "declare_stream")) == {"flat", "dark", "primary", "analysis", "decision"}


@pytest.mark.parametrize("script", [[], [BLURRED], [BLURRED, BLURRED]], ids=["sharp", "one blurred", "two blurred"])
def test_nothing_can_open_the_shutter(beamline, script):
    record = drive(series(beamline, FakeAnalysis(list(script)), protocol=(CHARGE,)), beamline)
    assert record.error is None
    assert not [message for message in record.messages if opens(message, beamline)]
    assert (record.opened, record.shutter) == (0, "Closed")
    closings = [i for i, m in enumerate(record.messages) if m.command == "set" and m.obj is beamline.shutter]
    assert closings[0] < record.commands().index("trigger")  # also one that was found open


def test_only_the_microscope_is_triggered_and_the_stage_stays(beamline):
    record = drive(series(beamline), beamline)
    assert {m.obj for m in record.messages if m.command == "trigger"} == {beamline.optical}
    moved = {m.obj for m in record.messages if m.command == "set"}
    assert not moved & {beamline.stage.x, beamline.stage.y, beamline.camera, beamline.attenuator, beamline.mono.energy}


@pytest.mark.parametrize("after", [False, True], ids=["command lost", "confirmation lost"])
def test_a_failure_at_any_message_leaves_no_beam_and_the_light_as_it_was(beamline, after):
    camera = beamline.optical
    initial = ((camera.lamp, 0.3), (camera.reference, "Out"), (camera.frame_type, "Normal"))
    camera.cam.acquire_time.put(0.02)
    total = len(drive(series(beamline, FakeAnalysis([BLURRED])), beamline).messages)
    for fail_at in range(total):
        for signal, value in initial:
            signal.put(value)
        record = drive(series(beamline, FakeAnalysis([BLURRED])), beamline, fail_at=fail_at, after=after)
        assert isinstance(record.error, InjectedFailure), fail_at
        assert record.opened == 0
        restoring = fail_at >= total - 12  # in the clean-up itself nothing more can be promised
        assert restoring or beamline.optical.lamp.get() == 0.3, fail_at
        assert restoring or beamline.optical.reference.get() == "Out", fail_at


def test_rejected_frames_are_retaken_without_asking_a_dose_account(beamline):
    record = drive(series(beamline, FakeAnalysis([BLURRED, BLURRED]), n_points=1, max_retakes=2), beamline)
    assert (record.value.frames, record.value.rejected, record.value.points) == (3, 2, 1)


def test_a_frame_that_stays_bad_is_kept(beamline):
    record = drive(series(beamline, FakeAnalysis([BLURRED, BLURRED]), n_points=1, max_retakes=1), beamline)
    assert (record.value.frames, record.value.rejected, record.value.points) == (2, 2, 1)


def test_after_five_rejected_in_a_row_an_alarm_and_no_more_retakes_until_one_is_accepted(beamline):
    actions = []

    def look(message):
        if message.command == "read" and getattr(message.obj, "name", "") == "decision":
            actions.append(message.obj.action.get())

    analysis = FakeAnalysis([BLURRED] * 6 + [FakeFrame(), BLURRED])
    record = drive(series(beamline, analysis, n_points=6), beamline, on_message=look)
    retaken = ["retake", "keep_rejected"]
    assert actions == ["start", *retaken, *retaken, "alarm", "keep_rejected", "retake", "end"]
    assert (record.value.points, record.value.frames) == (6, 9)


def test_a_checkpoint_before_every_frame_of_the_sample(beamline):
    record = drive(series(beamline, FakeAnalysis([BLURRED])), beamline)
    since: list[str] = []
    for message in record.messages:
        if message.command == "create" and message.kwargs["name"] == "primary":
            assert since.count("trigger") == 1
        since = [] if message.command == "checkpoint" else [*since, message.command]


def test_without_a_reference_the_fallback_is_stated(beamline):
    decisions = []

    def look(message):
        if message.command == "read" and getattr(message.obj, "name", "") == "decision":
            decisions.append(message.obj.reason.get())

    record = drive(series(beamline, n_flats=0), beamline, on_message=look)
    assert "flat" not in names(record)
    assert "no flat: smooth illumination assumed" in decisions[0]


def test_the_cell_is_cycled_meanwhile_and_left_at_rest(beamline):
    record = drive(series(beamline, protocol=(CHARGE,)), beamline)
    commands = [m.command for m in record.messages if m.obj is beamline.potentiostat]
    assert commands.count("set") == 1
    assert commands[-1] == "stop"


def test_the_analysis_may_fail(beamline):
    class Broken(FakeAnalysis):
        def latest(self):
            future = Future()
            future.set_exception(RuntimeError("disk"))
            return future

    record = drive(series(beamline, Broken()), beamline)
    assert (record.error, record.value.points) == (None, 2)


@pytest.mark.parametrize(("options", "words"), [({"lamp": 0.0}, "lamp"), ({"lamp": 1.5}, "lamp")])
def test_a_wrong_lamp_is_refused(beamline, options, words):
    with pytest.raises(ValueError, match=words):
        next(series(beamline, **options))


def test_a_beamline_without_a_microscope_is_refused(beamline):
    beamline.optical = None
    with pytest.raises(ValueError, match="microscope"):
        next(series(beamline))
