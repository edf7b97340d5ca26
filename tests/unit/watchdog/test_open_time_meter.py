"""Open time that is in no record yet: by the shutter's counter, and by the clock where that cannot be had."""

import pytest

from xbat_live.watchdog.meter import OpenTimeMeter

LOST = (None, None)


def after(steps, *, follow=None):
    """A meter that saw `steps`: (time, position, counter)."""
    meter = OpenTimeMeter()
    if follow is not None:
        meter.follow(follow)
    for now_s, position, counter_s in steps:
        meter.see(now_s, position, counter_s)
    return meter


@pytest.mark.parametrize(
    ("steps", "uncounted_s", "why"),
    [
        ([(0, "Closed", 7.0)], 0.0, "what was before is not known"),
        ([(0, "Closed", 7.0), (9, "Closed", 7.0)], 0.0, "closed"),
        ([(0, "Closed", 7.0), (1, "Open", 7.0), (3, "Open", 8.9)], 1.9, "open: by the counter"),
        ([(0, "Closed", 7.0), (1, "Open", 7.0), (3, "Closed", 9.0)], 2.0, "closed again"),
        ([(0, "Closed", 7.0), (5, "Closed", 7.3)], 0.3, "an opening between two looks"),
        ([(0, "Closed", 7.0), (1, "Unknown", 7.0), (4, "Unknown", 7.0)], 3.0, "unknown: by the clock"),
        ([(0, "Closed", 7.0), (1, "Unknown", 7.0), (4, "Closed", 7.0)], 3.0, "also afterwards"),
        ([(0, "Closed", 7.0), (1, "Unknown", 7.0), (2, "Closed", 12.0)], 5.0, "the counter may say more"),
        ([(0, "Closed", 7.0), (1, *LOST), (5, *LOST)], 0.0, "lost while closed: wait for what the counter says"),
        ([(0, "Closed", 7.0), (1, *LOST), (5, "Closed", 7.0)], 0.0, "it went on: nothing happened"),
        ([(0, "Closed", 7.0), (1, *LOST), (5, "Closed", 9.5)], 2.5, "it went on: it was opened meanwhile"),
        ([(0, "Closed", 7.0), (1, *LOST), (5, "Closed", 0.0)], 4.0, "it began anew: nobody knows, so all counts"),
        ([(0, "Closed", 7.0), (1, *LOST), (5, "Open", 0.5)], 4.5, "and what it counts since"),
        ([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0), (3, *LOST), (5, *LOST)], 4.0, "lost while open"),
        ([(0, "Closed", 7.0), (1, "Open", 7.0), (2, *LOST), (5, "Closed", 9.0)], 2.0, "its counter went on: exact"),
        ([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0), (3, *LOST), (6, "Closed", 0.0)], 5.0, "restarted"),
        ([(0, *LOST), (3, *LOST)], 0.0, "never heard of"),
        ([(0, *LOST), (3, "Closed", 7.0)], 0.0, "heard of for the first time"),
        ([(0, "Open", None), (2, "Open", None)], 2.0, "no counter: by the clock"),
    ],
)
def test_uncounted_open_time(steps, uncounted_s, why):
    assert after(steps).uncounted_s() == pytest.approx(uncounted_s), why


@pytest.mark.parametrize(
    ("ledger_s", "counter_s", "uncounted_s", "why"),
    [
        (7.0, 7.0, 0.0, "nothing happened between two processes"),
        (7.0, 9.5, 2.5, "opened between two processes"),
        (7.0, 1.5, 1.5, "the IOC was restarted: everything since its start"),
        (None, 9.5, 0.0, "a ledger without counter tells nothing"),
    ],
)
def test_what_happened_before_this_process(ledger_s, counter_s, uncounted_s, why):
    meter = OpenTimeMeter()
    meter.follow(ledger_s)
    meter.see(0.0, "Closed", counter_s)
    assert meter.uncounted_s() == pytest.approx(uncounted_s), why
    meter = after(
        [(0, "Closed", counter_s)]
    )  # in the other order: the ledger is read when the shutter is known already
    meter.follow(ledger_s)
    assert meter.uncounted_s() == pytest.approx(uncounted_s), why


def enter(meter):
    due = meter.due()
    meter.entered(due)
    return due.open_time_s


def test_what_was_entered_does_not_count_again():
    meter = after([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0)])
    assert enter(meter) == pytest.approx(1.0)
    assert meter.uncounted_s() == 0.0
    meter.see(3.5, "Closed", 9.5)
    assert enter(meter) == pytest.approx(1.5)
    assert meter.uncounted_s() == 0.0


def test_what_comes_while_it_is_written_is_not_lost():
    meter = after([(0, "Closed", 7.0), (1, "Unknown", 7.0), (2, "Unknown", 7.0)])
    due = meter.due()
    meter.see(3, "Unknown", 7.0)
    meter.entered(due)
    assert meter.uncounted_s() == pytest.approx(1.0)


@pytest.mark.parametrize(("back_s", "left_s", "why"), [(11.0, 0.0, "exactly"), (12.5, 1.5, "more"), (9.0, 0.0, "less")])
def test_what_was_entered_by_the_clock_is_made_good_by_the_counter(back_s, left_s, why):
    meter = after([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0), (2, *LOST), (4, *LOST)])
    assert enter(meter) == pytest.approx(3.0)
    meter.see(5, *LOST)
    assert enter(meter) == pytest.approx(1.0)
    meter.see(5.1, "Closed", back_s)
    assert meter.uncounted_s() == pytest.approx(left_s), why


def test_a_restart_after_entries_by_the_clock():
    meter = after([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0), (2, *LOST), (4, *LOST)])
    assert enter(meter) == pytest.approx(3.0)
    meter.see(5, "Closed", 0.0)
    assert enter(meter) == pytest.approx(1.0)  # the last second that nobody knows about
    meter.see(6, "Closed", 0.4)
    assert enter(meter) == pytest.approx(0.4)


def test_a_restart_while_it_is_written():
    meter = after([(0, "Closed", 7.0), (1, "Open", 7.0), (2, "Open", 8.0)])
    due = meter.due()
    meter.see(2.1, *LOST)
    meter.see(4.0, "Closed", 0.0)
    meter.entered(due)
    assert meter.uncounted_s() == pytest.approx(2.0, abs=0.1)


def test_another_process_has_written():
    """What this one saw meanwhile is in those records."""
    meter = after([(0, "Closed", 7.0), (1, "Unknown", 7.0), (4, "Unknown", 7.0), (5, "Closed", 9.0)])
    meter.follow(9.0)
    assert meter.uncounted_s() == 0.0


def test_time_does_not_run_backwards():
    meter = after([(5, "Unknown", 7.0), (4, "Unknown", 7.0), (6, "Unknown", 7.0)])
    assert meter.uncounted_s() == pytest.approx(2.0)
