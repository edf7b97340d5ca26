"""The shutter: what is not known to be closed is open, and everything that ends or interrupts a plan closes it."""

from __future__ import annotations

import threading

import pytest
from bluesky.protocols import Pausable, Stoppable

from xbat_live.devices import ShutterError


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
