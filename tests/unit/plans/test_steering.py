"""Steering any plan: where it pauses, how it ends, what is written of it. A real RunEngine, plans without hardware."""

import json
import threading
import time
from collections import Counter

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import RunEngineInterrupted

from xbat_live.devices import PointRecord
from xbat_live.engine import make_run_engine
from xbat_live.plans import Order, Phase, Steering, SteeringRefused, steering_wrapper
from xbat_live.plans.steering import hold_point, paused_s, take_order, while_paused

LONG_S = 60.0


class Beam:
    """Counts what a shutter would be told."""

    def __init__(self):
        self.held, self.closings = False, 0

    def hold(self):
        self.held = True
        self.closings += 1

    def release(self):
        self.held = False


class Bench:
    """A RunEngine with a plan that is steered; `when` runs something in a thread as soon as a phase of the plan is reached."""

    def __init__(self):
        self.engine, self.beam, self.documents = make_run_engine(), Beam(), []
        self.steering = Steering(
            hold_beam=self.beam.hold,
            release_beam=self.beam.release,
            abort=lambda reason: self.engine.abort(reason=reason),
        )
        self.engine.subscribe(lambda name, doc: self.documents.append((name, doc)))
        self.point = PointRecord(name="point")

    def run(self, plan, operator=None):
        thread = threading.Thread(target=operator or (lambda: None))
        thread.start()
        try:
            return self.engine(steering_wrapper(plan, self.steering))
        finally:
            thread.join()

    def wait_for(self, *phases):
        end_s = time.monotonic() + 10
        while self.steering.phase not in phases:
            assert time.monotonic() < end_s, f"{self.steering.phase} instead of {phases}"
            time.sleep(0.002)

    def events(self, stream):
        names = {doc["uid"]: doc["name"] for name, doc in self.documents if name == "descriptor"}
        return [doc for name, doc in self.documents if name == "event" and names[doc["descriptor"]] == stream]

    def told(self):
        """The operator stream, as (command, state)."""
        return [(doc["data"]["operator_command"], doc["data"]["operator_state"]) for doc in self.events("operator")]

    @property
    def stop(self):
        (doc,) = [doc for name, doc in self.documents if name == "stop"]
        return doc


@pytest.fixture
def bench():
    return Bench()


def points(bench, n=3, *, between=None):
    """A plan of `n` Events with `between` before each."""

    @bpp.run_decorator()
    def inner():
        for index in range(n):
            yield from bps.checkpoint()
            if between is not None:
                yield from between(index)
            bench.point.fill(index=index)
            yield from bps.create(name="primary")
            yield from bps.read(bench.point)
            yield from bps.save()

    yield from inner()
    return "done"


def resting(seconds=LONG_S):
    def between(index):
        if index == 1:
            yield from bps.sleep(seconds)

    return between


def test_a_plan_that_nobody_steers_runs_as_without_the_wrapper(bench):
    result = bench.run(points(bench))
    assert result.plan_result == "done"
    assert [doc["data"]["point_index"] for doc in bench.events("primary")] == [0, 1, 2]
    assert bench.told() == []
    assert any(name == "descriptor" and doc["name"] == "operator" for name, doc in bench.documents)
    assert bench.steering.phase is Phase.ENDED
    assert bench.beam.closings == 0


def test_a_resting_plan_pauses_and_goes_on_at_once_and_the_rest_goes_on_meanwhile(bench):
    def operator():
        bench.wait_for(Phase.RUNNING)
        while len(bench.events("primary")) < 1:
            time.sleep(0.002)
        bench.steering.pause()
        bench.wait_for(Phase.PAUSED)
        assert bench.beam.held
        bench.steering.remark(command="note", message="in the pause", ok=True)
        while not any(command == "note" for command, _ in bench.told()):
            time.sleep(0.002)  # written while it is paused
        assert bench.steering.phase is Phase.PAUSED
        time.sleep(0.3)  # what is left of the plan's own rest
        bench.steering.resume()

    result = bench.run(points(bench, between=resting(0.3)), operator)
    assert result.plan_result == "done"
    assert not bench.beam.held
    assert bench.told() == [("state", "PAUSING"), ("state", "PAUSED"), ("note", ""), ("state", "RUNNING")]
    assert [doc["data"]["point_index"] for doc in bench.events("primary")] == [0, 1, 2]


def test_pause_now_closes_before_it_returns_and_waits_for_a_safe_place(bench):
    inside, go_on = threading.Event(), threading.Event()

    def exposure(index):
        def body():
            inside.set()
            while not go_on.is_set():
                yield from bps.sleep(0.03)

        if index == 1:
            yield from bpp.rewindable_wrapper(body(), False)

    def operator():
        inside.wait(10)
        bench.steering.pause(at_once=True)
        assert bench.beam.held
        assert bench.steering.phase is Phase.PAUSING  # within the exposure nothing is interrupted
        go_on.set()
        bench.wait_for(Phase.PAUSED)
        assert len(bench.events("primary")) == 2  # the frame of that exposure is kept
        bench.steering.resume()

    assert bench.run(points(bench, between=exposure), operator).plan_result == "done"


def test_a_pause_can_be_made_sharper_but_not_repeated(bench):
    bench.steering.begin()
    bench.steering.pause()
    assert not bench.beam.held
    with pytest.raises(SteeringRefused, match="under way already"):
        bench.steering.pause()
    bench.steering.pause(at_once=True)
    assert bench.beam.held
    bench.steering.stop()
    assert bench.steering.phase is Phase.STOPPING
    bench.steering.abort("smoke")
    assert bench.steering.phase is Phase.ABORTING


@pytest.mark.parametrize(
    ("phase", "command", "why"),
    [
        ("ready", "pause", "has not begun"),
        ("ready", "abort", "has not begun"),
        ("running", "resume", "not paused"),
        ("stopping", "pause", "stopping; abort ends it now"),
        ("stopping", "resume", "stopping"),
        ("aborting", "stop", "aborting"),
        ("aborting", "abort", "aborting"),
        ("ended", "pause", "is over"),
        ("ended", "abort", "is over"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(phase, command, why):
    steering = Steering()
    if phase != "ready":
        steering.begin()
    match phase:
        case "stopping":
            steering.stop()
        case "aborting":
            steering.abort("")
        case "ended":
            steering.end()
    calls = {
        "pause": steering.pause,
        "resume": steering.resume,
        "stop": steering.stop,
        "abort": lambda: steering.abort(""),
    }
    with pytest.raises(SteeringRefused, match=why):
        calls[command]()


@pytest.mark.parametrize("paused", [False, True])
def test_stop_ends_a_resting_plan_in_order(bench, paused):
    cleaned = []

    def operator():
        while len(bench.events("primary")) < 1:
            time.sleep(0.002)
        if paused:
            bench.steering.pause()
            bench.wait_for(Phase.PAUSED)
        bench.steering.stop()

    def clean():
        cleaned.append(True)
        yield from bps.checkpoint()  # a clean-up is not held up

    result = bench.run(bpp.finalize_wrapper(points(bench, between=resting()), clean), operator)
    assert result.plan_result is bench.engine.NO_PLAN_RETURN
    assert bench.steering.ended_by == "stop"
    assert bench.stop["exit_status"] == "success"
    assert cleaned == [True]
    assert bench.told()[-1] == ("state", "STOPPING")
    assert len(bench.events("primary")) == 1


@pytest.mark.parametrize("where", ["resting", "paused", "exposing", "collecting an Event"])
def test_abort_ends_a_plan_wherever_it_is_and_is_in_the_run(bench, where):
    reached = threading.Event()

    def between(index):
        if where == "exposing":

            def body():
                reached.set()
                while True:
                    yield from bps.sleep(0.03)

            yield from bpp.rewindable_wrapper(body(), False)
        elif where == "collecting an Event":
            yield from bps.create(name="half")
            reached.set()
            yield from bps.sleep(LONG_S)
        else:
            reached.set()
            yield from bps.sleep(LONG_S)

    def operator():
        reached.wait(10)
        if where == "paused":
            bench.steering.pause()
            bench.wait_for(Phase.PAUSED)
        bench.steering.abort("smoke in the hutch")
        assert bench.beam.held
        bench.steering.carry_out_abort("smoke in the hutch")

    with pytest.raises(RunEngineInterrupted):
        bench.run(points(bench, between=between), operator)
    assert bench.stop["exit_status"] == "abort"
    assert bench.told()[-1] == ("state", "ABORTING")
    assert bench.steering.phase is Phase.ENDED


def test_an_order_is_taken_where_the_plan_can_carry_it_out(bench):
    taken = []

    def between(index):
        order = yield from take_order("relocate")
        if order is not None:
            taken.append((index, order.spot_um))
        if index == 0:
            yield from bps.sleep(LONG_S if not taken else 0)

    def operator():
        while bench.steering.accepts is None:
            time.sleep(0.002)
        with pytest.raises(SteeringRefused, match="keeps its places"):
            bench.steering.order(Order("skip_spot", "eva"))
        bench.steering.order(Order("relocate", "eva", (10.0, -5.0)))
        assert bench.steering.phase is Phase.RELOCATING
        with pytest.raises(SteeringRefused, match="under way already"):
            bench.steering.order(Order("relocate", "adam"))
        bench.steering.pause()
        bench.wait_for(Phase.PAUSED)
        bench.steering.resume()
        assert bench.steering.phase is Phase.RELOCATING
        bench.steering.stop()

    bench.run(points(bench, between=between), operator)
    assert taken == []  # the plan ended before it came to another place

    other = Bench()
    other.steering.begin()
    other.steering.take_order(frozenset({"relocate"}))
    other.steering.order(Order("relocate", "eva", (1.0, 2.0)))
    order = other.steering.take_order(frozenset({"relocate"}))
    assert order == Order("relocate", "eva", (1.0, 2.0))
    assert other.steering.phase is Phase.RELOCATING  # until the plan is at its next place
    assert other.steering.take_order(frozenset({"relocate"})) is None
    assert other.steering.phase is Phase.RUNNING


def test_a_hold_point_pauses_where_a_checkpoint_cannot_be(bench):
    at = Counter()

    def between(index):
        yield from bpp.rewindable_wrapper(hold_point(), False)
        at["passed"] += 1

    def operator():
        bench.wait_for(Phase.RUNNING, Phase.ENDED)

    bench.steering.begin()
    bench.steering.pause()

    def let_go():
        bench.wait_for(Phase.PAUSED)
        assert not at
        bench.steering.resume()

    assert bench.run(points(bench, between=between), let_go).plan_result == "done"
    assert at["passed"] == 3


def test_what_goes_on_in_a_pause_goes_on_and_the_plan_knows_how_long_it_was(bench):
    went_on, held = threading.Event(), []

    def going_on():
        went_on.set()
        yield from bps.null()

    def between(index):
        yield from while_paused(going_on)
        if index == 1:
            yield from bps.sleep(LONG_S)
        held.append((yield from paused_s()))

    def operator():
        while len(bench.events("primary")) < 1:
            time.sleep(0.002)
        bench.steering.pause()
        went_on.wait(10)
        bench.wait_for(Phase.PAUSED)
        bench.steering.stop()

    bench.run(points(bench, between=between), operator)
    assert went_on.is_set()
    assert held == [0.0]


def test_without_the_wrapper_a_plan_asks_in_vain():
    heard = []

    def plan():
        heard.append((yield from take_order("relocate")))
        yield from hold_point()
        heard.append((yield from paused_s()))

    make_run_engine()(plan())
    assert heard == [None, 0.0]


def test_the_record_has_who_and_what(bench):
    bench.steering.remark(
        command="limit",
        arguments=json.dumps({"value": "2 MGy"}),
        who="eva",
        via="page",
        ok=True,
        message="told",
        state="RUNNING",
        request_id="ab12",
        received_s=1.5,
    )
    bench.run(points(bench, n=1))
    (doc,) = bench.events("operator")
    assert doc["data"] == {
        "operator_command": "limit",
        "operator_arguments": '{"value": "2 MGy"}',
        "operator_who": "eva",
        "operator_via": "page",
        "operator_ok": 1,
        "operator_message": "told",
        "operator_state": "RUNNING",
        "operator_request_id": "ab12",
        "operator_received_s": 1.5,
    }
