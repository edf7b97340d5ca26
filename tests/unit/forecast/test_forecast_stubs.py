"""The fast stubs are bluesky's stubs: the same messages with the same answers."""

from __future__ import annotations

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import Msg

from xbat_live.forecast.standins import FINISHED, StandIn
from xbat_live.forecast.stubs import NAMES, fast_stubs


class Performer:
    """Notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        def act(*args, **kwargs):
            self.asked.append((name, *args))
            return FINISHED

        return act


MOTOR, OTHER = StandIn("motor", 1.5), StandIn("other", 2.5)


def plan():
    """Every stub that is replaced, with all its options in use here."""
    values = [(yield from bps.rd(MOTOR))]
    yield from bps.abs_set(MOTOR, 3.0)
    yield from bps.abs_set(MOTOR, 4.0, group="g")
    yield from bps.abs_set(MOTOR, 4.5, wait=True)
    yield from bps.mv(MOTOR, 5.0, OTHER, 6.0)
    yield from bps.wait(group="g", timeout=0.1, error_on_timeout=False)
    yield from bps.trigger(OTHER, group="t")
    yield from bps.trigger(OTHER, wait=True, group="t2")
    yield from bps.sleep(0.5)
    yield from bps.checkpoint()
    yield from bps.create(name="decision")
    values.append((yield from bps.read(OTHER)))
    yield from bps.save()
    yield from bps.wait_for([], timeout=3)
    yield from bps.stop(OTHER)
    return values


def drive(generator):
    """Answer reads with readings and everything else with None; return messages and value."""
    messages, answer = [], None
    try:
        while True:
            message = generator.send(answer)
            messages.append(message)
            answer = message.obj.read() if message.command == "read" else None
    except StopIteration as stop:
        return messages, stop.value


def comparable(message: Msg) -> tuple:
    kwargs = {name: value for name, value in message.kwargs.items() if name != "group"}
    return message.command, message.obj, message.args, kwargs, bool(message.kwargs.get("group"))


def in_order(messages: list[Msg]) -> list[tuple]:
    """Return what can be compared; bluesky's mv sets its devices in the order of a set, which is no order."""
    compared = [comparable(message) for message in messages]
    first = next(i for i, message in enumerate(compared) if message[2] in ((5.0,), (6.0,)))
    compared[first : first + 2] = sorted(compared[first : first + 2], key=lambda message: message[2])
    return compared


def test_the_messages_are_those_of_bluesky():
    wanted, wanted_value = drive(plan())
    with fast_stubs(Performer(), direct=False):
        found, value = drive(plan())
    assert in_order(found) == in_order(wanted)
    assert value == wanted_value


def test_a_wait_is_for_the_group_that_was_set():
    with fast_stubs(Performer(), direct=False):
        messages, _ = drive(bps.mv(MOTOR, 1.0, OTHER, 2.0))
    assert len({message.kwargs["group"] for message in messages}) == 1


def test_at_once_they_ask_for_the_same_as_their_messages_do():
    performer = Performer()
    with fast_stubs(performer):
        messages, value = drive(plan())
    assert messages == []
    assert value[0] == 1.5
    wanted = "set set set wait set set wait wait trigger trigger wait sleep read stop"
    assert " ".join(name for name, *_ in performer.asked) == wanted
    assert ("set", MOTOR, 4.5) in performer.asked
    assert ("sleep", 0.5) in performer.asked


@pytest.mark.parametrize("name", ["plan_mutator", "msg_mutator"])
def test_a_preprocessor_that_rewrites_sees_every_message(name):
    seen = []

    def note(message):
        seen.append(message.command)
        return (None, None) if name == "plan_mutator" else message

    with fast_stubs(Performer()):
        drive(getattr(bpp, name)(plan(), note))
    assert {"read", "set", "wait", "trigger", "sleep", "create", "save", "checkpoint", "stop"} <= set(seen)


def test_bluesky_is_left_as_it_was():
    before = [getattr(bps, name) for name in NAMES]
    with pytest.raises(ZeroDivisionError), fast_stubs(Performer()):
        raise ZeroDivisionError
    assert [getattr(bps, name) for name in NAMES] == before
