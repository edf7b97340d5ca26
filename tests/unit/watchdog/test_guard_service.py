"""The guard's loop with a shutter made of variables and a real ledger; the clock moves only when told."""

import io
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from xbat_live.dose import Beam, DoseAccount, DoseLimit, ExposureRequest, Ledger, LedgerError, presets
from xbat_live.dose.flux_history import FluxMean
from xbat_live.watchdog.beam_watch import Look
from xbat_live.watchdog.booking import Bookkeeper, Job, Place
from xbat_live.watchdog.decide import Rules
from xbat_live.watchdog.meter import Due
from xbat_live.watchdog.report import Teller
from xbat_live.watchdog.service import GuardService
from xbat_live.watchdog.tail import LedgerTail, has_writer

FLUX = 1e10


class Eyes:
    """A shutter with a counter; `obeys` the command to close or not."""

    def __init__(self):
        self.now_s, self.position, self.counter_s = 1000.0, "Closed", 5.0
        self.opened_at_s = self.closed_at_s = self.unknown_since_s = None
        self.published_s = None  # when the news of the counter is late
        self.here, self.mean, self.obeys, self.closings = Place(0.0, 0.0, 8562.0), FluxMean(FLUX), True, 0

    def clock(self):
        return self.now_s

    def show(self, position):
        known = position in ("Open", "Closed")
        if self.position == "Closed" and position != "Closed":
            self.opened_at_s, self.closed_at_s = self.now_s, None
        if position == "Closed":
            self.closed_at_s = self.now_s
        self.unknown_since_s = None if known else self.unknown_since_s or self.now_s
        self.position = position

    def pass_time(self, seconds):
        self.now_s += seconds
        if self.position == "Open":
            self.counter_s += seconds

    def counter_now(self):
        return self.counter_s if self.position is not None else None

    def look(self):
        heard = self.counter_now() if self.published_s is None else self.published_s
        return Look(self.position, self.opened_at_s, self.closed_at_s, self.unknown_since_s, heard)

    def place(self):
        return self.here

    def flux(self, t0_s, t1_s):
        assert t0_s <= t1_s
        return self.mean

    def flux_now(self):
        return self.mean

    def close_shutter(self):
        self.closings += 1
        if self.obeys and self.position is not None:
            self.show("Closed")
        return self.position is not None

    def wait_for_change(self, timeout_s):
        pass


class Guarded:
    """A service, its eyes and its ledger."""

    def __init__(self, folder, *, limit_gy=100e6):
        self.path, self.eyes, self.out, self.limit_gy = folder / "cell.sqlite", Eyes(), io.StringIO(), limit_gy
        self.trouble = None
        keeper = Bookkeeper(
            self.path,
            open_account=self.opened,
            make_account=self.account,
            counter_now=self.eyes.counter_now,
            outline_um=(200.0, 200.0),
            energy_ev=8562.0,
        )
        self.service = GuardService(
            self.eyes,
            LedgerTail(self.path),
            keeper,
            writes=lambda: has_writer(self.path),
            teller=Teller(self.out, as_json=True),
            rules=Rules(),
            footprint_um=30.0,
            clock=self.eyes.clock,
        )

    def account(self, ledger):
        return DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(FLUX, fwhm_um=(30.0, 30.0), order=8),
            limits=[DoseLimit("limit", "NMC622", limit_gy=self.limit_gy)],
            layer="cathode",
            material="NMC622",
            outline_um=(200.0, 200.0),
        )

    @contextmanager
    def opened(self):
        if self.trouble:
            raise self.trouble
        with Ledger(self.path) as ledger:
            yield self.account(ledger)

    def run(self, seconds=0.0, step_s=0.1):
        """Let time pass; what is in the background is waited for."""
        for _ in range(max(round(seconds / step_s), 1)):
            self.eyes.pass_time(step_s if seconds else 0.0)
            assert self.service.step()
            self.idle()
        assert self.service.step()
        self.idle()

    def idle(self):
        for future in filter(None, (self.service._booking and self.service._booking[0], self.service._asking)):
            deadline_s = time.monotonic() + 30
            while not future.done():
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
        self.service._collect()

    def events(self):
        return [json.loads(line)["event"] for line in self.out.getvalue().splitlines()]

    def entries(self, kind):
        with Ledger(self.path, read_only=True) as ledger:
            return [record.entry for record in ledger.records() if record.entry.kind == kind]

    def end(self):
        self.service._worker.shutdown(wait=True)
        self.service._keeper.close()
        self.service._tail.close()


@pytest.fixture
def guarded(tmp_path):
    made = Guarded(tmp_path)
    made.run()
    yield made
    made.end()


def test_a_hand_opening_is_counted_second_by_second_and_at_its_end(guarded):
    assert not guarded.path.exists()  # nothing is made before it is needed
    guarded.eyes.show("Open")
    guarded.run(2.55, step_s=0.05)
    assert sum(entry.open_time_s for entry in guarded.entries("unreserved")) == pytest.approx(2.0, abs=0.15)
    guarded.eyes.show("Closed")
    guarded.run(0.2)
    entries = guarded.entries("unreserved")
    assert sum(entry.open_time_s for entry in entries) == pytest.approx(2.55)
    assert entries[-1].counter_s == pytest.approx(7.55)
    assert guarded.eyes.closings == 0
    assert not has_writer(guarded.path)  # the ledger is given back


def test_the_stage_that_moves_under_the_open_shutter_spreads_the_dose(guarded):
    guarded.eyes.show("Open")
    guarded.run(0.5)
    guarded.eyes.here = Place(50.0, 0.0, 8562.0)
    guarded.run(0.5)
    guarded.eyes.show("Closed")
    guarded.run(0.1)
    first, *more = guarded.entries("unreserved")
    assert first.x_um == 0.0
    assert {entry.x_um for entry in more} == {50.0}
    assert first.open_time_s + sum(entry.open_time_s for entry in more) == pytest.approx(1.0)


def test_a_hand_opening_is_ended_before_the_limit_is_exceeded(tmp_path):
    guarded = Guarded(tmp_path, limit_gy=400e3)  # two seconds of full beam
    guarded.run()
    guarded.eyes.show("Open")
    guarded.run(3.0, step_s=0.05)
    assert guarded.eyes.closings == 1
    with Ledger(guarded.path, read_only=True) as ledger:
        assert 300e3 < guarded.account(ledger).dose_at(0.0, 0.0).peak_gy <= 400e3
    guarded.end()


@pytest.mark.parametrize(
    ("changed_gy", "closed", "why"),
    [
        (None, 0, "five seconds of beam are 1 MGy, the file allows 10"),
        (400e3, 1, "tightened by `xbat limit`: two seconds of beam"),
        (4e6, 0, "tightened, and still enough"),
    ],
)
def test_a_limit_that_the_run_has_changed_is_the_guards_as_well(tmp_path, changed_gy, closed, why):
    """Somebody opens the shutter between two exposures of a run that goes on."""
    guarded = Guarded(tmp_path, limit_gy=10e6)
    with guarded.opened() as run:
        if changed_gy is not None:
            run.change_limit("limit", changed_gy, "by eva", run_uid="r1")
        guarded.run()
        guarded.eyes.show("Open")
        guarded.run(5.0, step_s=0.05)
        assert guarded.eyes.closings == closed, why
        if closed:
            assert guarded.eyes.counter_s - 5.0 == pytest.approx(2.0, abs=0.3)  # not before it has to
            assert guarded.events().count("limits") == 1
    guarded.end()


def test_a_looser_limit_of_the_run_does_not_close_what_it_allows_and_goes_with_the_run(tmp_path):
    guarded = Guarded(tmp_path, limit_gy=400e3)
    with guarded.opened() as run:
        run.change_limit("limit", 10e6, "agreed with the PI", run_uid="r1")
        guarded.run()
        guarded.eyes.show("Open")
        guarded.run(4.0, step_s=0.05)
        assert guarded.eyes.closings == 0
    guarded.run(2.0, step_s=0.05)  # the run is over and the shutter still open: the file's limit was passed long ago
    assert guarded.eyes.closings == 1
    assert guarded.events().count("limits") == 2
    guarded.end()


def test_a_change_in_the_middle_of_a_hand_opening_holds_at_once(tmp_path):
    guarded = Guarded(tmp_path, limit_gy=10e6)
    with guarded.opened() as run:
        guarded.run()
        guarded.eyes.show("Open")
        guarded.run(3.0, step_s=0.05)
        assert guarded.eyes.closings == 0
        run.change_limit("limit", 400e3, "by eva", run_uid="r1")
        guarded.run(0.2, step_s=0.05)
        assert guarded.eyes.closings == 1
    guarded.end()


def test_the_changes_of_a_run_are_not_those_of_the_next(tmp_path):
    guarded = Guarded(tmp_path, limit_gy=10e6)
    with guarded.opened() as run:
        run.change_limit("limit", 400e3, "by eva", run_uid="r1")
        run.note("something else", run_uid="r2")
        guarded.run()
        guarded.eyes.show("Open")
        guarded.run(4.0, step_s=0.05)
        assert guarded.eyes.closings == 0
    guarded.end()


def test_a_ledger_that_cannot_be_written_does_not_end_the_guard_and_nothing_is_lost(guarded):
    guarded.trouble = LedgerError("disk full")
    guarded.eyes.show("Open")
    guarded.run(1.5)
    guarded.eyes.show("Closed")
    guarded.run(1.0)
    assert guarded.events().count("disk full") == 1  # told once
    guarded.trouble = None
    guarded.run(3.0)
    assert sum(entry.open_time_s for entry in guarded.entries("unreserved")) == pytest.approx(1.5)


def test_any_error_while_writing_leaves_the_closing_alone(guarded):
    guarded.trouble = RuntimeError("a bug")
    guarded.eyes.show("Open")
    guarded.run(1.5)
    guarded.eyes.show("Unknown")
    guarded.run(0.5)
    assert guarded.eyes.closings == 1


def reserve(guarded, *, die):
    """Another writer reserves, and dies or lives on; returns its ledger."""
    ledger = Ledger(guarded.path)
    account = guarded.account(ledger)
    account.reserve(ExposureRequest(0.0, 0.0, 8562.0, 30.0, FLUX), counter_s=guarded.eyes.counter_s)
    if die:
        ledger.close()
    return ledger


def test_a_dead_acquisition_is_closed_for_and_settled(guarded):
    reserve(guarded, die=True)
    guarded.eyes.show("Open")
    guarded.run(0.1)
    assert guarded.eyes.closings == 1
    guarded.run(0.2)
    (settled,) = guarded.entries("settle")
    assert settled.open_time_s == pytest.approx(0.1)
    assert not guarded.entries("unreserved")
    assert {"closing", "settled"} <= set(guarded.events())


def test_while_an_acquisition_lives_the_ledger_is_its_own(guarded):
    ledger = reserve(guarded, die=False)
    guarded.eyes.show("Open")
    guarded.run(5.0)
    guarded.eyes.show("Closed")
    guarded.run(2.0)
    assert guarded.eyes.closings == 0
    assert not guarded.entries("settle")
    ledger.close()
    guarded.run(0.2)
    assert [entry.open_time_s for entry in guarded.entries("settle")] == pytest.approx([5.0])


def test_a_stuck_shutter_is_told_again_and_again_and_settled_as_it_goes(guarded):
    guarded.eyes.obeys = False
    reserve(guarded, die=True)
    guarded.eyes.show("Open")
    guarded.run(5.0)
    assert guarded.eyes.closings in (5, 6)
    assert guarded.events().count("stuck") == 1  # and again every 10 s
    given_s = sum(entry.open_time_s for kind in ("settle", "unreserved") for entry in guarded.entries(kind))
    assert given_s == pytest.approx(5.0, abs=1.2)
    guarded.eyes.obeys = True
    guarded.run(1.5)
    assert guarded.eyes.position == "Closed"


def test_a_restarted_ioc_leaves_the_reservation_standing_in_full(guarded):
    reserve(guarded, die=True)
    guarded.eyes.show(None)
    guarded.run(3.0)
    assert not guarded.entries("settle")
    guarded.eyes.counter_s = 0.0
    guarded.eyes.show("Closed")
    guarded.run(0.5)
    guarded.eyes.pass_time(1.0)
    guarded.eyes.show("Open")
    guarded.run(0.5)
    guarded.eyes.show("Closed")
    guarded.run(0.5)
    assert guarded.events().count("standing") == 1
    with Ledger(guarded.path, read_only=True) as ledger:
        assert guarded.account(ledger).unsettled
    assert guarded.service.settled


def test_a_guard_that_starts_does_not_command_a_shutter_it_has_not_heard_of(tmp_path):
    guarded = Guarded(tmp_path)
    guarded.eyes.show(None)
    guarded.run(2.5)
    assert guarded.eyes.closings == 0
    guarded.run(1.5)
    assert guarded.eyes.closings > 0
    guarded.end()


def acquisition_writes(guarded, *, counter_s, settle=True):
    """Another process reserves an exposure, and settles it with what the shutter says by then."""
    code = f"""
import sys
from xbat_live.dose import Entry, Ledger
with Ledger({str(guarded.path)!r}) as ledger:
    number = ledger.append(Entry("reserve", x_um=0.0, y_um=0.0, energy_ev=8562.0, open_time_s=0.4, flux_ph_s=1e10,
                                 on_sample=True, counter_s={counter_s - 0.15})).seq
    if {settle}:
        ledger.append(Entry("settle", reservation=number, x_um=0.0, y_um=0.0, energy_ev=8562.0, open_time_s=0.15,
                            flux_ph_s=1e10, on_sample=True, counter_s={counter_s}))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("answers", "counted_s", "why"),
    [
        (True, 0.0, "asked, the shutter says what the ledger has: the news was late, nothing is missing"),
        (False, 0.0, "it does not answer: nothing is booked on old news"),
    ],
)
def test_late_news_of_the_counter_is_no_restart_of_the_ioc(guarded, answers, counted_s, why):
    """A loaded IOC publishes late, or drops an update. Taken for a restart, all openings of its life would count again."""
    guarded.eyes.published_s = guarded.eyes.counter_s
    guarded.run(0.3)
    guarded.eyes.counter_s = 5.15  # and published is still 5.0
    acquisition_writes(guarded, counter_s=5.15)
    if not answers:
        guarded.eyes.counter_now = lambda: None
    guarded.run(1.0)
    assert sum(entry.open_time_s for entry in guarded.entries("unreserved")) == counted_s, why
    guarded.eyes.published_s = None
    guarded.run(0.3)
    assert guarded.entries("unreserved") == []


def test_an_older_counter_after_one_that_was_asked_for_is_no_restart(guarded):
    """Asked in an opening the shutter says more than it publishes; what it published before that comes after it.

    A run that was killed then had all openings of the IOC's life booked as its own: `make torture` found it.
    """
    guarded.run(0.3)
    guarded.service._writes = lambda: True  # the acquisition lives
    guarded.eyes.show("Open")
    guarded.eyes.published_s, guarded.eyes.counter_s = 5.0, 5.15
    acquisition_writes(guarded, counter_s=5.25, settle=False)  # reserved at 5.10: asked, the shutter says 5.15
    guarded.run(0.0)
    for published_s in (5.11, 5.14):  # late, and not below the ledger
        guarded.eyes.published_s = published_s
        guarded.run(0.0)
    guarded.eyes.published_s = None
    guarded.service._writes = lambda: False  # killed
    guarded.eyes.show("Closed")
    guarded.run(1.0)
    assert sum(entry.open_time_s for entry in guarded.entries("settle")) == pytest.approx(0.05, abs=0.16)
    assert guarded.entries("unreserved") == []


def test_a_ledger_that_is_ahead_of_the_last_look_is_no_restart(guarded):
    """The shutter is not heard of while another process exposes: what was heard before is old, not the counter of a new life."""
    guarded.run(0.3)
    guarded.service._writes = lambda: True
    guarded.eyes.position = None
    guarded.eyes.counter_s = 5.15
    acquisition_writes(guarded, counter_s=5.15)
    guarded.run(0.3)
    guarded.eyes.show("Closed")
    guarded.run(0.0)
    assert guarded.service._meter.uncounted_s() == pytest.approx(0.0)
    guarded.service._writes = lambda: False
    guarded.run(1.0)
    assert guarded.entries("unreserved") == []


def test_late_news_when_it_comes_to_booking_waits_for_better(guarded):
    """The ledger grew between the look and the booking: the job is made again with a counter as new as the ledger's."""
    acquisition_writes(guarded, counter_s=5.15)
    late = Job(
        Due(0.5, 5.0, False, 0, 0.0, 0.0), guarded.eyes.here, FluxMean(FLUX), True, "by hand", more_follows=False
    )
    guarded.eyes.counter_s = 5.65
    assert guarded.service._keeper.book(late) is None
    assert guarded.entries("unreserved") == []
    guarded.eyes.counter_s = 0.5  # it really started anew: everything since its start counts
    booked = guarded.service._keeper.book(
        Job(Due(0.5, 0.5, False, 0, 0.0, 0.0), guarded.eyes.here, FluxMean(FLUX), True, "by hand", more_follows=False)
    )
    assert booked.counted_s == pytest.approx(0.5)


def test_a_counter_that_started_anew_still_counts_in_full(guarded):
    acquisition_writes(guarded, counter_s=5.15)
    guarded.eyes.counter_s = 0.7
    guarded.run(1.0)
    assert sum(entry.open_time_s for entry in guarded.entries("unreserved")) == pytest.approx(0.7, abs=0.16)
