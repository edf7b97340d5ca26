"""The shutter: what is not known to be closed is open, and everything that ends or interrupts a plan closes it."""

from __future__ import annotations

import threading

import pytest
from bluesky.protocols import Pausable, Stoppable

from xbat_live.devices import OpenFor, ShutterError


@pytest.mark.parametrize(
    ("status", "connected", "is_open", "reason"),
    [
        ("Closed", True, False, "the only state in which no photon passes for certain"),
        ("Open", True, True, ""),
        ("Unknown", True, True, "between the limit switches, or they are broken"),
        ("", True, True, "a state that the IOC does not know"),
        ("Closed", False, True, "the last known state of a lost IOC proves nothing"),
    ],
)
def test_anything_but_closed_is_open(shutter, status, connected, is_open, reason):
    shutter.status.sim_put(status)
    shutter.status._metadata["connected"] = connected
    assert shutter.is_open is is_open, reason


@pytest.mark.parametrize(("value", "command", "status"), [("Open", "Open", "Open"), ("Closed", "Close", "Closed")])
def test_set_is_done_when_the_shutter_confirms(shutter, value, command, status):
    shutter.set(value).wait(timeout=2)
    assert (shutter.commands, shutter.status.get()) == ([command], status)


def test_a_shutter_that_answers_before_it_arrives_is_waited_for(shutter):
    shutter.move_timeout_s = 5.0
    shutter.stuck = True
    status = shutter.set("Open")
    threading.Timer(0.05, shutter.status.sim_put, ["Open"]).start()
    status.wait(timeout=2)
    assert status.success


@pytest.mark.parametrize("value", ["open", "Shut", 1, True, None])
def test_other_words_are_refused_before_anything_moves(shutter, value):
    with pytest.raises(ValueError, match="'Open' or 'Closed'"):
        shutter.set(value)
    assert shutter.commands == []


def test_an_unconfirmed_command_fails_and_says_that_it_counts_as_open(shutter):
    shutter.status.sim_put("Unknown")
    shutter.stuck = True
    with pytest.raises(ShutterError, match=r"'Closed' not confirmed within 0\.1 s.*'Unknown'.*counts as open"):
        shutter.set("Closed").wait(timeout=2)


@pytest.mark.parametrize("action", ["pause", "stop", "close_now", "stage", "unstage"])
def test_every_way_out_closes(shutter, action):
    shutter.set("Open").wait(timeout=2)
    getattr(shutter, action)()
    assert shutter.commands[-1] == "Close"
    assert not shutter.is_open


def test_run_engine_recognises_it_as_pausable_and_stoppable(shutter):
    assert isinstance(shutter, Pausable)
    assert isinstance(shutter, Stoppable)


def test_close_now_says_when_it_could_not_send(shutter, caplog):
    shutter.command._metadata["connected"] = False
    assert shutter.close_now() is False
    assert "close it by hand" in caplog.text


def test_close_now_works_from_a_thread_that_knows_nothing_of_channel_access(shutter):
    sent = []
    thread = threading.Thread(target=lambda: sent.append(shutter.close_now()))
    thread.start()
    thread.join(2)
    assert sent == [True]


def test_unstaging_a_stuck_shutter_does_not_hide_the_error_of_the_plan(shutter, caplog):
    shutter.stage()
    shutter.status.sim_put("Open")
    shutter.stuck = True
    shutter.unstage()
    assert "counts as open" in caplog.text


def test_staging_a_stuck_shutter_fails_before_any_plan_runs(shutter):
    shutter.status.sim_put("Open")
    shutter.stuck = True
    with pytest.raises(ShutterError):
        shutter.stage()


def test_times_have_units_and_the_watchdog_setting_is_not_read_into_events(shutter):
    described = shutter.describe()
    assert described["shutter_open_time_s"]["units"] == "s"
    assert described["shutter_last_open_time_s"]["units"] == "s"
    assert "shutter_max_open_s" not in described
    assert "shutter_watchdog_trips" in described


# --- timed opening -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def timed(shutter):
    """A shutter whose timed opening is over at once; remembers the times asked for."""
    shutter.asked = []

    def opening(seconds, done):
        shutter.asked.append(seconds)
        shutter.status.sim_put("Closed")
        threading.Thread(target=done, daemon=True).start()

    shutter._send_timed = opening
    return shutter


def test_a_timed_opening_is_done_when_the_shutter_is_closed_again(timed):
    timed.set(OpenFor(0.048)).wait(timeout=2)
    timed.open_for(0.1).wait(timeout=2)
    assert timed.asked == [0.048, 0.1]
    assert not timed.is_open


def test_a_timed_opening_that_ends_open_is_an_error(timed):
    timed._send_timed = lambda seconds, done: (timed.status.sim_put("Open"), done())
    with pytest.raises(ShutterError, match="'Closed' not confirmed"):
        timed.open_for(0.05).wait(timeout=2)


def test_a_timed_opening_that_never_completes_is_given_up(timed):
    timed._send_timed = lambda seconds, done: None
    with pytest.raises(ShutterError, match="not confirmed"):
        timed.open_for(0.05).wait(timeout=2)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_impossible_times_are_refused_before_anything_moves(timed, seconds):
    with pytest.raises(ValueError, match="not possible"):
        timed.open_for(seconds)
    assert timed.asked == []


def test_a_shutter_without_a_timed_opening_says_so_and_is_no_worse_for_it(shutter):
    shutter.open_for_s._metadata["connected"] = False
    shutter._searched = True
    assert shutter.has_timed_opening is False
    with pytest.raises(ShutterError, match="no timed opening"):
        shutter.open_for(0.1)
    shutter.set("Open").wait(timeout=2)
    assert shutter.is_open


def test_the_timed_opening_is_not_waited_for_as_the_other_pvs_are(shutter):
    assert "open_for_s" not in shutter.component_names


# --- held closed -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Open", OpenFor(0.05)])
def test_after_a_pause_nothing_opens_it_before_the_resume(timed, value):
    timed.pause()
    with pytest.raises(ShutterError, match="held closed since a pause"):
        timed.set(value)
    assert timed.commands[-1] == "Close"
    timed.resume()
    timed.set(value).wait(timeout=2)


@pytest.mark.parametrize("action", ["stop", "close_now", "failed status"])
def test_closing_does_not_end_a_pause(timed, action):
    """ophyd stops a device whose status fails: that must not set it free."""
    timed.pause()
    if action == "failed status":
        for _ in range(2):
            with pytest.raises(ShutterError):
                timed.set("Open")
    else:
        getattr(timed, action)()
    assert timed.held


@pytest.mark.parametrize("action", ["resume", "stage", "unstage"])
def test_what_ends_a_pause(timed, action):
    timed.pause()
    getattr(timed, action)()
    assert not timed.held
    timed.set("Open").wait(timeout=2)


def test_a_held_shutter_can_be_closed(shutter):
    shutter.pause()
    shutter.set("Closed").wait(timeout=2)
    assert shutter.commands[-1] == "Close"
    assert not shutter.is_open


def test_a_pause_never_falls_between_the_question_and_the_command(shutter):
    """Whatever the order, after a pause the last command is to close."""
    for _ in range(50):
        shutter.resume()
        threads = [threading.Thread(target=shutter.pause), threading.Thread(target=_try_to_open, args=[shutter])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert shutter.commands[-1] == "Close"


def _try_to_open(shutter):
    try:
        shutter.set("Open")
    except ShutterError:
        pass


def test_interruptions_count_what_closed_it_beside_the_plan(shutter):
    before = shutter.interruptions
    shutter.set("Open").wait(timeout=2)
    shutter.set("Closed").wait(timeout=2)
    assert shutter.interruptions == before
    shutter.pause()
    shutter.close_now()
    assert shutter.interruptions == before + 2
