"""What the shutter's counter tells the next process: dead reservations, openings by hand, other samples, a restarted IOC."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from xbat_live.dose import Beam, DoseAccount, ExposureRequest, Ledger, presets
from xbat_live.plans.openings import take_over

REQUEST = ExposureRequest(0.0, 0.0, 8562.0, 0.3, 1e10)
ELSEWHERE = ExposureRequest(60.0, 0.0, 8562.0, 0.3, 1e10)


@contextmanager
def account(path, sample="cell"):
    with Ledger.for_sample(path, sample) as ledger:
        yield DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
            limits=(),
            layer="cathode",
            material="NMC622",
        )


def exposed(account, counter_s, *, request=REQUEST, settled_s=0.05):
    """One exposure from `counter_s` on; None leaves its reservation open, as a process that died in it."""
    reservation = account.reserve(request, counter_s=counter_s)
    if settled_s is not None:
        account.settle(reservation.id, open_time_s=settled_s, flux_ph_s=1e10, counter_s=counter_s + settled_s)


@pytest.mark.parametrize(
    ("history", "counter_s", "expected", "reason"),
    [
        ([], 7.0, [], "a new ledger: nothing is known to compare with"),
        ([(1.0, 0.05)], 1.05, [], "nothing happened since"),
        ([(1.0, 0.05)], 1.55, [("unreserved", 0.5)], "opened by hand"),
        ([(1.0, None)], 1.2, [("settle", 0.2)], "died in an exposure: settled with what it has become"),
        ([(1.0, None)], 1.0, [("settle", 0.0)], "died before the shutter opened"),
        ([(1.0, None), (1.2, None)], 1.5, [("settle", 0.2), ("settle", 0.3)], "two that died, one after the other"),
        ([(1.0, 0.05)], 0.4, [("unreserved", 0.4)], "the IOC was restarted: what its counter shows is counted"),
        ([(1.0, None)], 0.0, [], "the same with a reservation: it stands in full"),
    ],
)
def test_what_is_made_up_for(tmp_path, history, counter_s, expected, reason):
    with account(tmp_path) as before:
        for at_s, settled_s in history:
            exposed(before, at_s, settled_s=settled_s)
    with account(tmp_path) as dose:
        last = list(dose.ledger.records())[-1:]
        after = last[0].seq if last else 0
        take_over(dose, REQUEST, counter_s)
        written = [record.entry for record in dose.ledger.records(after=after)]
        assert [(entry.kind, pytest.approx(entry.open_time_s)) for entry in written] == expected, reason
        number = sum(1 for _ in dose.ledger.records())
        take_over(dose, REQUEST, counter_s)
        assert sum(1 for _ in dose.ledger.records()) == number, "counted once"


def test_a_restarted_ioc_leaves_dead_reservations_in_full(tmp_path):
    with account(tmp_path) as before:
        exposed(before, 1.0, settled_s=None)
    with account(tmp_path) as dose:
        take_over(dose, REQUEST, 0.0)
        assert len(dose.unsettled) == 1


def test_time_of_other_samples_is_not_counted_here(tmp_path):
    """The counter is the shutter's: what the ledger of another sample accounts for is not this sample's."""
    with account(tmp_path, "a") as sample:
        exposed(sample, 1.0)
    with account(tmp_path, "b") as sample:
        exposed(sample, 1.05, settled_s=3600.0)
    with account(tmp_path, "a") as sample:
        take_over(sample, REQUEST, 3601.25)
        stray = [record.entry for record in sample.ledger.records() if record.entry.kind == "unreserved"]
        assert [entry.open_time_s for entry in stray] == [pytest.approx(0.2)]


def test_a_file_that_is_no_ledger_does_not_disturb(tmp_path):
    (tmp_path / "notes.sqlite").write_text("no database")
    with account(tmp_path) as before:
        exposed(before, 1.0)
    with account(tmp_path) as dose:
        take_over(dose, REQUEST, 1.25)
        assert sum(record.entry.kind == "unreserved" for record in dose.ledger.records()) == 1


@pytest.mark.parametrize(
    ("now", "places", "reason"),
    [
        (REQUEST, 1, "the same place"),
        (ELSEWHERE, 2, "where the stage was meanwhile is not known: there and here"),
        (ExposureRequest(-300.0, 0.0, 8562.0, 0.3, 1e10, on_sample=False), 1, "here is beside the sample: there"),
    ],
)
def test_a_stray_opening_counts_where_the_sample_was_exposed_last(tmp_path, now, places, reason):
    with account(tmp_path) as before:
        exposed(before, 1.0)
        one_gy = before.dose_map().dose_gy.max()
    with account(tmp_path) as dose:
        take_over(dose, now, 1.15)  # twice as long as that exposure
        kinds = [record.entry.kind for record in dose.ledger.records()]
        assert kinds.count("unreserved") == places, reason
        assert dose.dose_at(0.0, 0.0).peak_gy == pytest.approx(3 * one_gy, rel=1e-6)
        if places == 2:
            assert dose.dose_at(60.0, 0.0).peak_gy == pytest.approx(2 * one_gy, rel=1e-2)
