"""Reservations that a dead process left, and openings that nobody reserved: what is counted, and where."""

import pytest

from xbat_live.dose import Beam, DoseAccount, DoseLimit, ExposureRequest, Ledger, presets
from xbat_live.dose.openings import (
    count_openings_since,
    counted_elsewhere_s,
    left_behind,
    openings_since,
    settle_left_behind,
)

FLUX = 1e10
OUTLINE_UM = (200.0, 200.0)


def account(folder, sample="cell", **more):
    return DoseAccount(
        Ledger.for_sample(folder, sample, **more),
        stack=presets.cell("txm_nmc622"),
        beam=Beam.gaussian(FLUX, fwhm_um=(30.0, 30.0), order=8),
        limits=[DoseLimit("limit", "NMC622", limit_gy=100e6)],
        layer="cathode",
        material="NMC622",
        outline_um=OUTLINE_UM,
    )


def request(x_um=0.0, open_s=0.5, **more):
    return ExposureRequest(x_um, 0.0, 8562.0, open_s, FLUX, **more)


@pytest.fixture
def cell(tmp_path):
    made = account(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    ("last_s", "now_s", "elsewhere_s", "open_s", "why"),
    [
        (None, 50.0, 0.0, 0.0, "a new ledger: nothing is known of the time before"),
        (10.0, 10.0, 0.0, 0.0, "nothing happened"),
        (10.0, 12.5, 0.0, 2.5, "open since"),
        (10.0, 10.00005, 0.0, 0.0, "rounding"),
        (10.0, 3.0, 0.0, 3.0, "the IOC was restarted: everything since its start"),
        (10.0, 0.0, 0.0, 0.0, "and it was not opened since"),
        (10.0, 40.0, 30.0, 0.0, "other samples were exposed"),
        (10.0, 42.0, 30.0, 2.0, "and beside that it was opened"),
        (10.0, 12.0, 30.0, 0.0, "never negative"),
    ],
)
def test_open_time_since_the_last_record(last_s, now_s, elsewhere_s, open_s, why):
    assert openings_since(last_s, now_s, elsewhere_s=elsewhere_s) == pytest.approx(open_s), why


def settle(cell, counter_s, after_s, x_um=0.0):
    reservation = cell.reserve(request(x_um), counter_s=counter_s)
    cell.settle(reservation.id, open_time_s=after_s - counter_s, flux_ph_s=FLUX, counter_s=after_s)


def test_a_stray_opening_counts_where_the_sample_was_last_and_here(cell):
    settle(cell, 10.0, 10.5, x_um=-60.0)
    assert count_openings_since(cell, 12.0, request(60.0)) == pytest.approx(1.5)
    one_s = cell.predict(request(open_s=1.0))
    assert cell.dose_at(-60.0, 0.0).peak_gy == pytest.approx(2.0 * one_s, rel=1e-3)
    assert cell.dose_at(60.0, 0.0).peak_gy == pytest.approx(1.5 * one_s, rel=1e-3)
    assert count_openings_since(cell, 12.0, request(60.0)) == 0.0  # once
    assert cell.last_counter_s == 12.0


def test_a_stray_opening_beside_the_sample_counts_where_it_was_last(cell):
    settle(cell, 10.0, 10.5)
    count_openings_since(cell, 11.5, request(-250.0, on_sample=False))
    assert cell.dose_at(0.0, 0.0).peak_gy == pytest.approx(1.5 * cell.predict(request(open_s=1.0)), rel=1e-3)


@pytest.mark.parametrize(
    ("reserved_at_s", "now_s", "delivered_s", "why"),
    [
        (10.0, 10.3, 0.3, "by the counter"),
        (10.0, 10.0, 0.0, "it never opened"),
        (10.0, 17.0, 7.0, "longer than reserved"),
        (10.0, 2.0, None, "the IOC was restarted: it stands in full"),
        (10.0, None, None, "the shutter is not heard of"),
        (None, 10.3, None, "reserved without a counter"),
    ],
)
def test_a_reservation_of_a_dead_process(cell, reserved_at_s, now_s, delivered_s, why):
    number = cell.reserve(request(), counter_s=reserved_at_s).id
    (left,) = left_behind(cell, now_s)
    assert left.number == number
    assert left.delivered_s == (None if delivered_s is None else pytest.approx(delivered_s)), why
    full_gy = cell.dose_at(0.0, 0.0).peak_gy
    settled = settle_left_behind(cell, now_s)
    if delivered_s is None:
        assert not settled
        assert cell.unsettled == (number,)
        assert cell.dose_at(0.0, 0.0).peak_gy == full_gy
    else:
        assert cell.unsettled == ()
        assert cell.dose_at(0.0, 0.0).peak_gy == pytest.approx(full_gy * delivered_s / 0.5)
        assert count_openings_since(cell, now_s, request()) == 0.0  # not a second time


def test_the_flux_that_was_watched_replaces_the_reserved_one(cell):
    cell.reserve(request(), counter_s=10.0)
    (settled,) = settle_left_behind(cell, 10.5, flux_ph_s=0.5 * FLUX, degraded="ring current")
    assert settled.flux_ph_s == 0.5 * FLUX
    assert list(cell.ledger.records())[-1].entry.degraded == "ring current"


def test_of_several_each_ends_where_the_next_record_begins(cell):
    """Two kills one after the other; the newest one ends now."""
    cell.reserve(request(), counter_s=10.0)
    cell.reserve(request(), counter_s=10.2)
    assert [item.delivered_s for item in left_behind(cell, 10.5)] == pytest.approx([0.2, 0.3])


def test_an_opening_that_was_counted_since_is_not_delivered_twice(cell):
    cell.reserve(request(), counter_s=10.0)
    cell.record_unreserved(request(open_s=0.4), "stray", counter_s=10.4)
    assert [item.delivered_s for item in left_behind(cell, 10.4)] == pytest.approx([0.0])


def test_exposures_of_another_sample_are_no_stray_openings(tmp_path, cell):
    settle(cell, 10.0, 10.5)
    other = account(tmp_path, "other")
    settle(other, 10.5, 20.5)
    other.record_unreserved(request(open_s=2.0), "by hand", counter_s=22.5)
    other.ledger.close()
    assert counted_elsewhere_s(cell.ledger) == pytest.approx(12.0)
    assert count_openings_since(cell, 23.0, request(), elsewhere_s=counted_elsewhere_s(cell.ledger)) == pytest.approx(
        0.5
    )
    assert counted_elsewhere_s(cell.ledger) == 0.0  # they are before its last record now


def test_a_sample_that_was_measured_before_does_not_explain_an_opening(tmp_path):
    other = account(tmp_path, "other")
    settle(other, 0.0, 10.0)
    other.ledger.close()
    mine = account(tmp_path)
    settle(mine, 10.0, 10.5)
    assert counted_elsewhere_s(mine.ledger) == 0.0
    mine.ledger.close()


def test_a_damaged_ledger_of_another_sample_is_left_out(tmp_path, cell):
    settle(cell, 10.0, 10.5)
    (tmp_path / "bad.sqlite").write_bytes(b"no database")
    assert counted_elsewhere_s(cell.ledger) == 0.0
