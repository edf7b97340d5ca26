"""Ctrl-C ends a run wherever the signal lands, and the shutter is told to close before anything else."""

from __future__ import annotations

import signal
import threading

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest

from xbat_live.cli import interrupt
from xbat_live.cli.interrupt import Interrupted, run_interruptibly
from xbat_live.engine import make_run_engine


def endless(begun: threading.Event):
    @bpp.run_decorator()
    def inner():
        begun.set()
        while True:
            yield from bps.checkpoint()
            yield from bps.sleep(0.01)

    return (yield from inner())


def run_and_signal(send, *, close=lambda: None, run_engine=None):
    """Run an endless plan; `send` is called in another thread when it goes on. Returns how it ended."""
    begun = threading.Event()
    run_engine = run_engine or make_run_engine()

    def later():
        begun.wait(10)
        send()

    threading.Thread(target=later, daemon=True).start()
    with pytest.raises(Interrupted) as ended:
        run_interruptibly(run_engine, endless(begun), close, lambda line: None)
    assert run_engine.state == "idle"
    return ended.value.exit_status


def test_a_signal_that_another_thread_received_ends_the_run():
    """Python runs the handler in the main thread, which is waiting for the plan: it has to look up now and then."""
    status = run_and_signal(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    assert status == "stopped"


def test_a_shutter_that_does_not_answer_does_not_keep_the_run_from_ending():
    never = threading.Event()
    status = run_and_signal(lambda: signal.raise_signal(signal.SIGINT), close=never.wait)
    never.set()
    assert status == "stopped"


def test_a_pause_that_gets_lost_becomes_an_abort(monkeypatch):
    monkeypatch.setattr(interrupt, "PAUSE_WITHIN_S", 0.2)
    run_engine = make_run_engine()
    run_engine.request_pause = lambda defer=False: None  # nothing happens
    run_and_signal(lambda: signal.raise_signal(signal.SIGINT), run_engine=run_engine)
    assert run_engine._exit_status == "abort"


def test_the_shutter_is_closed_at_the_first_signal():
    closed = threading.Event()
    run_and_signal(lambda: signal.raise_signal(signal.SIGINT), close=closed.set)
    assert closed.wait(1)


def test_the_handlers_of_before_are_restored():
    before = signal.getsignal(signal.SIGINT)
    run_and_signal(lambda: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
