"""What the dose monitor knows of flux and shutter, and when it says that it does not know."""

import threading
import time
from types import SimpleNamespace

import pytest
from ophyd.sim import make_fake_device

from xbat_live.devices import Attenuator, DoseMonitor, FastShutter, IonChamber, StorageRing
from xbat_live.devices.dose_monitor import ShutterTrack
from xbat_live.dose.flux_history import FluxCalibration, FluxMean

FULL = 1e10


class Clock:
    """A monotonic clock that only moves when told."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def beamline():
    made = SimpleNamespace(
        **{
            name: make_fake_device(cls)("FAKE:", name=name)
            for name, cls in (
                ("shutter", FastShutter),
                ("i0", IonChamber),
                ("ring", StorageRing),
                ("attenuator", Attenuator),
            )
        }
    )
    made.shutter.status.sim_put("Closed")
    made.i0.current_na.sim_put(100.0)
    made.ring.current_ma.sim_put(500.0)
    made.attenuator.transmission.sim_put(1.0)
    return made


@pytest.fixture
def monitor(beamline, clock):
    # stale_s so long that the thread that asks PVs again stays out of the way: the fake clock stands still
    made = DoseMonitor(beamline, FluxCalibration(FULL, 100.0), ring_reference_ma=500.0, stale_s=30.0, clock=clock)
    made.start()
    yield made
    made._stop.set()
    made.stop()


def lose(signal):
    signal._metadata["connected"] = False
    signal._run_subs(sub_type="meta", connected=False)


# -- shutter -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "opened_s", "closed_s", "unknown_s", "why"),
    [
        (["Closed"], None, 0, None, "found closed"),
        (["Open"], 0, None, None, "found open: since then at the latest"),
        (["Closed", "Open"], 1, None, None, "opened"),
        (["Closed", "Open", "Closed"], 1, 2, None, "one opening"),
        (["Closed", "Unknown"], 1, None, 1, "unknown counts as open"),
        (["Closed", "Unknown", "Open", "Closed"], 1, 3, None, "one opening, from the first doubt to the last"),
        (["Closed", "Open", None, "Open"], 1, None, None, "connection lost and back: the same opening"),
        (["Closed", None], 1, None, 1, "connection lost"),
        (["Closed", "Moving", None], 1, None, 1, "unknown for two reasons: since the first"),
        (["Closed", "Closed", "Open", "Open"], 2, None, None, "repeats tell nothing"),
        ([None, "Closed"], 0, 1, None, "not there at the start: open until it says otherwise"),
    ],
)
def test_opening_by_what_the_shutter_says(seen, opened_s, closed_s, unknown_s, why):
    track = ShutterTrack()
    for at_s, position in enumerate(seen):
        track.see(position, at_s)
    assert (track.opened_at_s, track.closed_at_s, track.unknown_since_s) == (opened_s, closed_s, unknown_s), why


def test_an_opening_is_stamped_by_the_monotonic_clock(monitor, beamline, clock):
    assert monitor.shutter_known()
    assert not monitor.is_open
    clock.now_s = 1001.0
    beamline.shutter.status.sim_put("Open")
    assert monitor.is_open
    assert monitor.changed.is_set()
    clock.now_s = 1001.5
    beamline.shutter.status.sim_put("Closed")
    assert (monitor.opened_at_s, monitor.closed_at_s) == (1001.0, 1001.5)


@pytest.mark.parametrize("word", ["Unknown", "Moving", ""])
def test_any_other_word_counts_as_open(monitor, beamline, word):
    beamline.shutter.status.sim_put(word)
    assert monitor.is_open
    assert not monitor.shutter_known()
    assert monitor.unknown_since_s == 1000.0


def test_the_number_of_an_enum_whose_words_have_not_come_yet_is_asked_again(monitor, beamline, monkeypatch):
    """Channel Access delivers a first value before it has delivered the enum's strings."""
    lose(beamline.shutter.status)
    monkeypatch.setattr(beamline.shutter.status, "get", lambda **_: "Closed")
    beamline.shutter.status._metadata["connected"] = True
    beamline.shutter.status.sim_put("0")
    deadline_s = time.monotonic() + 20
    while monitor.shutter_position != "Closed":
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert monitor._track.changes == 4  # not there, Closed, lost, Closed: never "0"


def test_a_lost_connection_counts_as_open_until_the_shutter_is_back(monitor, beamline, clock):
    clock.now_s = 1002.0
    lose(beamline.shutter.status)
    assert monitor.is_open
    assert monitor.unknown_since_s == 1002.0
    clock.now_s = 1010.0
    beamline.shutter.status._metadata["connected"] = True
    beamline.shutter.status.sim_put("Open")
    beamline.shutter.status.sim_put("Closed")
    assert (monitor.opened_at_s, monitor.closed_at_s, monitor.unknown_since_s) == (1002.0, 1010.0, None)


def test_a_shutter_that_is_not_confirmed_any_more_is_unknown_since_it_was(monitor, clock):
    clock.now_s = 1000.0 + 29.0
    assert monitor.shutter_known()
    clock.now_s = 1000.0 + 31.0
    assert not monitor.shutter_known()
    assert monitor.unknown_since_s == 1000.0


# -- flux --------------------------------------------------------------------------------------------------------------


def feed(beamline, clock, seconds, *, i0=100.0, ring=500.0):
    for _ in range(round(seconds * 10)):
        clock.now_s = round(clock.now_s + 0.1, 6)
        beamline.ring.current_ma.sim_put(ring)
        beamline.i0.current_na.sim_put(i0)


def test_chamber_then_ring_then_last_maximum(monitor, beamline, clock):
    feed(beamline, clock, 2.0)
    assert monitor.flux(1000.5, 1001.5) == FluxMean(pytest.approx(FULL), "")
    feed(beamline, clock, 2.0, i0=0.0, ring=450.0)
    assert monitor.flux(1002.5, 1003.5) == FluxMean(pytest.approx(0.9 * FULL), "ring current")
    lose(beamline.i0.current_na)
    lose(beamline.ring.current_ma)
    clock.now_s = 1004.5
    assert monitor.flux_now() == FluxMean(pytest.approx(FULL), "last maximum")


def test_a_ring_trip_is_believed(monitor, beamline, clock):
    feed(beamline, clock, 1.0)
    feed(beamline, clock, 1.0, i0=0.0, ring=0.0)
    assert monitor.flux(1001.3, 1001.8) == FluxMean(0.0, "")
    assert monitor.flux(1000.5, 1001.5).flux_ph_s == pytest.approx(0.6 * FULL, rel=0.02)  # the step's 0.1 s in full


def test_the_attenuator_counts_when_the_chamber_is_dead(monitor, beamline, clock):
    feed(beamline, clock, 1.0, i0=0.0)
    clock.now_s = 1001.05
    beamline.attenuator.transmission.sim_put(0.1)
    feed(beamline, clock, 1.0, i0=0.0)
    assert monitor.flux_now().flux_ph_s == pytest.approx(0.1 * FULL)


def test_not_a_number_is_no_reading(monitor, beamline, clock):
    feed(beamline, clock, 1.0, i0=float("nan"), ring=400.0)
    assert monitor.flux_now() == FluxMean(pytest.approx(0.8 * FULL), "ring current")


def test_before_any_reading_the_calibration_counts(beamline, clock):
    monitor = DoseMonitor(beamline, FluxCalibration(FULL, 100.0), clock=clock)
    assert monitor.flux_now() == FluxMean(FULL, "no reading yet")
    assert monitor.is_open  # not started: nothing is known


def test_a_value_that_does_not_change_is_asked_for_and_stays_fresh(beamline):
    """A dead band of the record (MDEL) is no reason to call it stale; real clock."""
    with DoseMonitor(beamline, FluxCalibration(FULL, 100.0), ring_reference_ma=500.0, stale_s=0.15) as monitor:
        end_s = time.monotonic() + 0.6
        while time.monotonic() < end_s:
            time.sleep(0.05)
        assert monitor.shutter_known()
        assert monitor.flux_now() == FluxMean(pytest.approx(FULL), "")


def test_an_ioc_that_hangs_is_found_out(beamline, monkeypatch):
    """Connected, but it does not answer; real clock."""

    def hang(*_, **__):
        raise TimeoutError

    with DoseMonitor(beamline, FluxCalibration(FULL, 100.0), ring_reference_ma=500.0, stale_s=0.15) as monitor:
        for signal in (beamline.shutter.status, beamline.i0.current_na, beamline.ring.current_ma):
            monkeypatch.setattr(signal, "get", hang)
        deadline_s = time.monotonic() + 20
        while monitor.shutter_known() or monitor.flux_now().degraded == "":
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert monitor.is_open
        assert monitor.flux_now().flux_ph_s == pytest.approx(FULL)


def test_stopping_ends_the_thread_and_the_subscriptions(beamline, clock):
    before = threading.active_count()
    monitor = DoseMonitor(beamline, FluxCalibration(FULL, 100.0), stale_s=0.3, clock=clock)
    monitor.start()
    monitor.start()
    monitor.stop()
    monitor.stop()
    assert threading.active_count() == before
    beamline.shutter.status.sim_put("Open")
    assert monitor.shutter_position == "Closed"
