"""What the guard does, case by case: state -> actions."""

from dataclasses import replace

import pytest

from xbat_live.watchdog.decide import Act, Promise, Rules, Scene, decide

RULES = Rules(grace_s=0.2, count_every_s=1.0, retry_s=1.0, reaction_s=0.15, give_up_s=60.0, last_word_s=3.0)
CLOSE, BOOK, LEAVE = Act.CLOSE, Act.BOOK, Act.LEAVE
NOW = 100.0


def closed(**more):
    return Scene(**({"now_s": NOW, "position": "Closed", "counter_s": 5.0} | more))


def opened(for_s, **more):
    return Scene(**({"now_s": NOW, "position": "Open", "open_since_s": NOW - for_s, "counter_s": 5.0 + for_s} | more))


def unknown(for_s, position="Unknown", **more):
    return opened(for_s, position=position, unknown_since_s=NOW - for_s, **more)


def lost(for_s, **more):
    return unknown(for_s, position=None, **({"counter_s": None} | more))


RESERVED = Promise(7, open_time_s=0.5, counter_s=5.0)
NO_COUNTER = Promise(7, open_time_s=0.5)

CASES = [
    # an acquisition lives: only the shutter is closed, the ledger is its own
    (closed(writer=True), [], "nothing to do"),
    (closed(writer=True, promise=RESERVED), [], "reserved, not open yet or settling"),
    (opened(0.4, writer=True, promise=RESERVED), [], "an exposure within its reservation"),
    (opened(0.69, writer=True, promise=RESERVED), [], "within the grace"),
    (opened(0.75, writer=True, promise=RESERVED), [CLOSE], "longer than reserved"),
    (opened(0.75, writer=True, promise=NO_COUNTER), [CLOSE], "by the clock where the counter was not recorded"),
    (opened(2.0, writer=True, promise=replace(RESERVED, counter_s=6.7)), [], "a late message: its counter says 0.3 s"),
    (opened(2.0, writer=True, promise=RESERVED, counter_s=5.0), [CLOSE], "a counter that stands still while open"),
    (opened(2.0, writer=True, promise=RESERVED, counter_s=1.0), [CLOSE], "a counter that went back (IOC restarted)"),
    (opened(2.0, writer=True, promise=RESERVED, counter_s=None), [CLOSE], "a counter that cannot be read"),
    (unknown(0.1, writer=True, promise=RESERVED), [], "moving: unknown for less than the grace"),
    (unknown(0.3, writer=True, promise=RESERVED), [CLOSE], "unknown"),
    (unknown(0.3, "Moving", writer=True), [CLOSE], "any other word"),
    (lost(0.3, writer=True, promise=RESERVED), [CLOSE], "not connected: the command is tried"),
    (opened(9.0, writer=True, uncounted_s=9.0), [], "opened by hand beside an acquisition: that one counts it"),
    (opened(9.0, writer=True, left_s=0.1), [CLOSE], "and it is ended at the limit"),
    # the acquisition is gone
    (opened(0.1, promise=RESERVED), [CLOSE], "killed in an exposure: at once"),
    (opened(0.1, promise=RESERVED, close_sent_s=NOW - 0.05), [], "told already"),
    (opened(0.6, promise=RESERVED, close_sent_s=NOW - 0.5), [], "wait for it"),
    (opened(1.5, promise=RESERVED, close_sent_s=NOW - 1.1), [CLOSE, BOOK], "it does not close: again, and write down"),
    (closed(promise=RESERVED), [BOOK], "closed: settle"),
    (closed(promise=RESERVED, booking=True), [], "being settled"),
    (closed(promise=RESERVED, uncounted_s=0.4), [BOOK], "settle and count"),
    (lost(0.1, promise=RESERVED), [CLOSE], "the IOC died too: its counter will tell when it is back"),
    (lost(9.0, promise=RESERVED, close_sent_s=NOW - 0.5, uncounted_s=9.0), [], "until then it stands in full"),
    # nobody reserved it
    (closed(), [], "all is well"),
    (opened(0.5, uncounted_s=0.5), [], "opened by hand: let it be"),
    (opened(1.2, uncounted_s=1.0), [BOOK], "counted every second"),
    (opened(1.2, uncounted_s=1.0, booking=True), [], "one at a time"),
    (opened(0.5, uncounted_s=0.4, moved=True), [BOOK], "counted before the stage is somewhere else"),
    (closed(uncounted_s=0.3), [BOOK], "ended"),
    (closed(uncounted_s=1e-6), [], "rounding is no opening"),
    (opened(0.5, uncounted_s=0.5, left_s=0.2), [], "below the limit"),
    (opened(0.5, uncounted_s=0.5, left_s=0.14), [CLOSE], "before it is exceeded"),
    (opened(0.5, uncounted_s=0.5, left_s=-3.0), [CLOSE], "exceeded already"),
    (opened(0.5, uncounted_s=0.5, left_s=float("inf")), [], "beside the sample"),
    (unknown(0.3, uncounted_s=0.3), [CLOSE], "unknown counts as open and is closed"),
    (unknown(1.3, uncounted_s=1.3, close_sent_s=NOW - 1.0), [CLOSE, BOOK], "and is counted"),
    (lost(1.3, uncounted_s=1.3, close_sent_s=NOW - 0.1), [BOOK], "was open when the connection was lost: counted"),
    (opened(2.0, condemned="x", uncounted_s=0.1, close_sent_s=NOW - 1.0), [CLOSE], "told to end: until it does"),
    (opened(2.0, condemned="x", uncounted_s=0.1, close_sent_s=NOW - 0.5), [], "but not all the time"),
    (closed(condemned="x"), [], "it did"),
    # leaving
    (closed(parent_alive=True), [], "the parent lives"),
    (closed(parent_alive=None), [], "a service stays"),
    (closed(parent_alive=False), [LEAVE], "the parent is gone, all is in order"),
    (closed(parent_alive=False, promise=RESERVED), [BOOK], "first settle"),
    (closed(parent_alive=False, promise=RESERVED, booking=True), [], "and wait for it"),
    (closed(parent_alive=False, uncounted_s=0.3), [BOOK], "first count"),
    (closed(parent_alive=False, uncounted_s=0.3, writer=True), [LEAVE], "another acquisition counts now"),
    (opened(0.5, parent_alive=False, uncounted_s=0.5), [], "open: stay"),
    (lost(10.0, parent_alive=False, close_sent_s=NOW - 0.1), [], "not heard of: stay"),
    (lost(61.0, parent_alive=False, close_sent_s=NOW - 0.1), [LEAVE], "for ever"),
    (lost(61.0, parent_alive=None, close_sent_s=NOW - 0.1), [], "a service stays"),
    (closed(stop_for_s=0.0), [LEAVE], "asked to"),
    (closed(stop_for_s=0.1, promise=RESERVED), [BOOK], "asked to: first settle"),
    (closed(stop_for_s=0.1, booking=True), [], "and wait for it"),
    (closed(stop_for_s=3.1, promise=RESERVED, booking=True), [LEAVE], "but not for ever"),
    (opened(2.0, stop_for_s=0.1, uncounted_s=0.5), [BOOK], "asked to while open: count what there is"),
    (opened(2.0, stop_for_s=0.2, uncounted_s=0.1), [LEAVE], "and leave; it was opened by hand"),
    (opened(0.4, stop_for_s=0.0, writer=True, promise=RESERVED), [LEAVE], "the acquisition lives"),
]


@pytest.mark.parametrize(("scene", "acts", "why"), CASES, ids=[case[2] for case in CASES])
def test_what_is_done(scene, acts, why):
    assert [action.act for action in decide(scene, RULES)] == acts, why


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (opened(0.75, writer=True, promise=RESERVED), "open for 0.75 s, 0.50 s were reserved"),
        (unknown(0.3), "position is unknown"),
        (opened(0.1, promise=RESERVED), "acquisition that reserved the exposure is gone"),
        (opened(0.5, left_s=0.0), "limit would be exceeded"),
        (lost(61.0, parent_alive=False, close_sent_s=NOW), "not heard of for 61 s"),
    ],
)
def test_every_action_says_why(scene, words):
    assert words in decide(scene, RULES)[0].reason


def test_there_is_no_action_that_opens():
    assert {act.value for act in Act} == {"close", "book", "leave"}
