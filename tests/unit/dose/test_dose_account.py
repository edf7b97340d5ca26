"""The account: grants before, settles after, refuses beyond a limit, and comes back identical from its ledger."""

import concurrent.futures
import logging
import math
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import (
    UNLIMITED,
    Beam,
    DoseAccount,
    DoseLimit,
    DoseRefused,
    ExposureRequest,
    Ledger,
    LedgerError,
    presets,
)

STACK = presets.cell("txm_nmc622")
BEAM = Beam.gaussian(1e10, fwhm_um=(30, 30), order=8)
FRAME_GY = 1e10 * 0.048 * BEAM.profile.peak_per_cm2 * STACK.dose_per_fluence(8562.0, "cathode", "NMC622")


def limit(gy=1e6, name="limit", **options):
    return DoseLimit(name, "NMC622", limit_gy=gy, **options)


LIMITS = (limit(),)


@contextmanager
def account(folder, limits=LIMITS, *, read_only=False, **options):
    with Ledger.for_sample(folder, "cell", read_only=read_only) as ledger:
        settings_ = {"stack": STACK, "beam": BEAM, "limits": limits, "layer": "cathode", "material": "NMC622"}
        yield DoseAccount(ledger, **(settings_ | options))


def frame(x_um=0.0, y_um=0.0, **changes):
    base = {"x_um": x_um, "y_um": y_um, "energy_ev": 8562.0, "open_time_s": 0.048, "flux_ph_s": 1e10}
    return ExposureRequest(**(base | changes))


def expose(dose, request):
    reservation = dose.reserve(request)
    return dose.settle(reservation.id, open_time_s=request.open_time_s, flux_ph_s=request.flux_ph_s)


def test_one_frame_is_what_the_physics_says(tmp_path):
    with account(tmp_path) as dose:
        assert dose.predict(frame()) == pytest.approx(FRAME_GY, rel=1e-3)
        assert dose.rate_gy_s(frame()) == pytest.approx(FRAME_GY / 0.048, rel=1e-3)
        settlement = expose(dose, frame())
        assert settlement.delivered_gy == settlement.peak_total_gy == dose.predict(frame())
        assert dose.dose_at(0, 0).peak_gy == settlement.peak_total_gy
        assert dose.dose_at(0, 0).mean_gy < dose.dose_at(0, 0).percentile_gy <= dose.dose_at(0, 0).peak_gy
        assert dose.dose_at(200, 0).peak_gy == 0


@pytest.mark.parametrize(
    ("change", "factor", "reason"),
    [
        ({"open_time_s": 0.096}, 2.0, "dose is linear in time"),
        ({"flux_ph_s": 5e9}, 0.5, "dose is linear in flux"),
        ({"open_time_s": 0.0}, 0.0, "a closed shutter gives nothing"),
        ({"flux_ph_s": 0.0}, 0.0, "a dumped ring gives nothing"),
        ({"energy_ev": 8300.0}, None, "below the Ni edge by K(E) of that energy"),
        ({"on_sample": False}, 0.0, "beside the sample there is nothing to dose"),
    ],
)
def test_dose_scales_with(tmp_path, change, factor, reason):
    if factor is None:
        factor = STACK.dose_per_fluence(8300.0, "cathode", "NMC622") / STACK.dose_per_fluence(
            8562.0, "cathode", "NMC622"
        )
        assert factor < 0.6
    with account(tmp_path) as dose:
        assert dose.predict(frame(**change)) == pytest.approx(factor * dose.predict(frame()), rel=1e-12), reason


def test_a_reservation_counts_until_it_is_settled_by_what_was_delivered(tmp_path):
    with account(tmp_path) as dose:
        one = dose.predict(frame())
        reservation = dose.reserve(frame(open_time_s=0.48))
        assert (reservation.peak_before_gy, reservation.limit_name, reservation.limit_gy) == (0.0, "limit", 1e6)
        assert dose.dose_at(0, 0).peak_gy == reservation.peak_after_gy == pytest.approx(10 * one)
        settlement = dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
        assert not settlement.exceeds_reservation
        assert dose.dose_at(0, 0).peak_gy == pytest.approx(one)


def test_hardware_that_gave_more_than_was_reserved_is_counted_and_told(tmp_path, caplog):
    with account(tmp_path) as dose, caplog.at_level(logging.WARNING):
        reservation = dose.reserve(frame())
        settlement = dose.settle(reservation.id, open_time_s=4.8, flux_ph_s=1e10)
        assert settlement.exceeds_reservation
        assert settlement.peak_total_gy == pytest.approx(100 * dose.predict(frame()))
    assert "photons delivered" in caplog.text


def test_a_voided_reservation_leaves_nothing(tmp_path):
    with account(tmp_path) as dose:
        reservation = dose.reserve(frame())
        with pytest.raises(ValueError, match="only with a reason"):
            dose.void(reservation.id, " ")
        dose.void(reservation.id, "camera not ready, shutter never opened")
        assert dose.dose_at(0, 0).peak_gy == 0
        assert dose.unsettled == ()


def test_an_unreserved_exposure_is_counted_even_above_the_limit(tmp_path):
    with account(tmp_path) as dose:
        settlement = dose.record_unreserved(frame(open_time_s=100.0), "shutter opened by hand")
        assert settlement.peak_total_gy > 1e6
        with pytest.raises(DoseRefused):
            dose.reserve(frame())


@pytest.mark.parametrize("end", ["settle", "void"])
def test_ending_twice_or_without_reservation_is_refused(tmp_path, end):
    with account(tmp_path) as dose:
        reservation = dose.reserve(frame())
        dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
        before = dose.dose_at(0, 0)
        for number in (reservation.id, 4711):
            with pytest.raises(LedgerError, match=f"no open reservation {number}"):
                dose.void(number, "x") if end == "void" else dose.settle(number, open_time_s=1, flux_ph_s=1)
        assert dose.dose_at(0, 0) == before


@pytest.mark.parametrize(
    "bad", [{"open_time_s": math.nan}, {"open_time_s": -1.0}, {"flux_ph_s": math.nan}, {"flux_ph_s": -1.0}]
)
def test_a_reservation_settled_with_nonsense_stands_in_full(tmp_path, bad):
    with account(tmp_path) as dose:
        reservation = dose.reserve(frame())
        with pytest.raises(ValueError, match="is not possible"):
            dose.settle(reservation.id, **({"open_time_s": 0.01, "flux_ph_s": 1e10} | bad))
        assert dose.unsettled == (reservation.id,)
        assert dose.dose_at(0, 0).peak_gy == reservation.peak_after_gy


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_exposure_that_would_exceed_the_limit_is_refused_and_nothing_is_charged(tmp_path):
    with account(tmp_path, (limit(5.5 * FRAME_GY),)) as dose:
        assert dose.exposures_left(frame()) == 5
        for left in range(5, 0, -1):
            assert dose.exposures_left(frame()) == left
            expose(dose, frame())
        before = dose.dose_at(0, 0)
        with pytest.raises(
            DoseRefused, match=r"dose would be .* at sample \(0.0, 0.0\) um, above the limit 'limit'"
        ) as caught:
            dose.reserve(frame())
        assert caught.value.would_be_gy == pytest.approx(6 * FRAME_GY, rel=1e-3)
        assert caught.value.limit_gy == 5.5 * FRAME_GY < caught.value.would_be_gy
        assert (caught.value.x_um, caught.value.y_um, caught.value.unit) == (0.0, 0.0, "Gy")
        assert "use a fresh spot" in str(caught.value)
        assert dose.dose_at(0, 0) == before
        assert dose.exposures_left(frame()) == 0
        assert dose.exposures_left(frame(100.0)) == 5
        kinds = [record.entry.kind for record in dose.ledger.records()]
        assert kinds == ["reserve", "settle"] * 5 + ["note"]


@pytest.mark.parametrize(
    ("limits", "options", "request_", "binding", "reason"),
    [
        ((limit(1e4, "low"), limit(1e6, "high")), {}, frame(open_time_s=0.1), "low", "the lower of two binds"),
        (
            (limit(1e6, "high"), limit(1e4, "low")),
            {},
            frame(open_time_s=10),
            "low",
            "exceeded most, whatever the order",
        ),
        (
            (limit(1e6), DoseLimit("rate", "NMC622", rate_gy_s=1e5)),
            {},
            frame(),
            "rate",
            "the rate is too high long before the dose",
        ),
        ((limit(1.05 * FRAME_GY),), {"sigma_rel": 0.1}, frame(), "limit", "one sigma of 10 % is kept free"),
        ((limit(1.15 * FRAME_GY),), {"sigma_rel": 0.1, "k_sigma": 2.0}, frame(), "limit", "two sigma are kept free"),
        ((limit(1.15 * FRAME_GY),), {"sigma_rel": 0.1}, frame(), None, "one sigma fits"),
        ((limit(10.0, advisory=True),), {}, frame(), None, "an advisory limit never refuses"),
        ((limit(10.0),), {}, frame(on_sample=False), None, "beside the sample no limit applies"),
        ((limit(10.0),), {"outline_um": (100, 100)}, frame(x_um=90.0), None, "the footprint misses the sample"),
        (
            (limit(10.0),),
            {"outline_um": (100, 100)},
            frame(x_um=60.0),
            "limit",
            "a footprint half on the sample counts",
        ),
        ((), {}, frame(open_time_s=1e6), None, "no limit, no refusal"),
    ],
)
def test_which_limit_binds(tmp_path, limits, options, request_, binding, reason):
    with account(tmp_path, limits, **options) as dose:
        if binding is None:
            assert dose.exposures_left(request_) > 0, reason
            dose.reserve(request_)
        else:
            assert dose.exposures_left(request_) == 0, reason
            with pytest.raises(DoseRefused) as caught:
                dose.reserve(request_)
            assert caught.value.limit.name == binding, reason


def test_no_limit_means_unlimited(tmp_path):
    with account(tmp_path, ()) as dose:
        assert dose.exposures_left(frame()) == UNLIMITED
        assert dose.lowest_limit_gy is None
        reservation = dose.reserve(frame())
        assert reservation.limit_name == ""
        assert math.isnan(reservation.limit_gy)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((limit(1e6, model="energy"),), "dose definition 'energy', doses are counted in 'attenuation'"),
        ((DoseLimit("lno", "LiNiO2", limit_gy=35e6),), "is for 'LiNiO2', doses are counted for 'NMC622'"),
    ],
)
def test_limits_of_another_definition_or_material_are_refused(tmp_path, limits, message):
    with pytest.raises(ValueError, match=message), account(tmp_path, limits):
        pass


def test_a_beam_too_small_for_the_map_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match=r"too coarse for a beam 0\.03 um wide"),
        account(tmp_path, beam=Beam.top_hat(1e10, (0.03, 0.03))),
    ):
        pass


def test_warnings_at_50_and_80_percent_once_each(tmp_path):
    with account(tmp_path, (limit(10.4 * FRAME_GY), limit(3.5 * FRAME_GY, "hint", advisory=True))) as dose:
        warnings = []
        for _ in range(10):
            reservation = dose.reserve(frame())
            warnings.append(reservation.warnings)
            dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
    told = {number: text for number, text in enumerate(warnings, 1) if text}
    assert list(told) == [2, 3, 4, 6, 9]
    assert "58 % of the limit 'limit'" in told[6][0]
    assert "87 % of the limit 'limit'" in told[9][0]
    assert "114 % of the advisory limit 'hint'" in told[4][0]


def test_dose_adds_up_where_footprints_overlap(tmp_path):
    with account(tmp_path) as dose:
        for x_um in (0.0, 20.0):
            expose(dose, frame(x_um))
        assert dose.dose_at(10, 0).peak_gy == pytest.approx(2 * dose.predict(frame()), rel=0.05)
        assert dose.dose_map().dose_gy.max() == dose.dose_at(10, 0).peak_gy


def test_the_map_follows_the_sample_coordinate(tmp_path):
    """After a drift correction the same place of the sample gets the dose, wherever the stage reads."""
    with account(tmp_path, outline_um=(200, 200)) as dose:
        for stage_um, drift_um in ((10.0, 0.0), (13.0, 3.0)):
            expose(dose, frame(stage_um - drift_um))
        result = dose.dose_map()
        profile = result.dose_gy[np.argmin(abs(result.y_um))]
        centre = (profile * result.x_um).sum() / profile.sum()
        assert centre == pytest.approx(10.0, abs=0.01)
        assert result.dose_gy.max() == pytest.approx(2 * dose.predict(frame()))
        assert (result.x_um[0], result.x_um[-1], result.dose_gy.shape) == (-99.5, 99.5, (200, 200))


# -- the ledger's word -----------------------------------------------------------------------------------------------

positions = st.floats(-60, 60)
steps = st.lists(
    st.tuples(
        positions,
        positions,
        st.floats(1e-3, 5),
        st.sampled_from(["settle", "short", "long", "void", "open", "unreserved", "off"]),
    ),
    max_size=12,
)


def perform(dose, rows):
    for x_um, y_um, seconds, end in rows:
        request = frame(x_um, y_um, open_time_s=seconds, on_sample=end != "off")
        if end == "unreserved":
            dose.record_unreserved(request, "by hand")
            continue
        reservation = dose.reserve(request)
        if end == "void":
            dose.void(reservation.id, "not opened")
        elif end != "open":
            given = {"short": 0.3, "long": 1.7}.get(end, 1.0) * seconds
            dose.settle(reservation.id, open_time_s=given, flux_ph_s=1.01e10)


@settings(max_examples=20, deadline=None)
@given(rows=steps)
def test_reopening_gives_the_bit_identical_map(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("replay")
    with account(folder, ()) as dose:
        perform(dose, rows)
        live, unsettled, summary = dose.dose_map(), dose.unsettled, dose.summary()
    with account(folder, (), read_only=True) as dose:
        again = dose.dose_map()
        assert np.array_equal(live.dose_gy, again.dose_gy)
        assert np.array_equal(live.x_um, again.x_um)
        assert dose.unsettled == unsettled
        assert dose.summary() == summary


def test_the_beam_of_an_earlier_run_is_replayed_with_its_own_shape(tmp_path):
    measured = Beam.measured(1e10, np.random.default_rng(0).uniform(1, 2, (30, 40)), 0, pixel_size_um=1.0)
    with account(tmp_path, (), beam=measured) as dose:
        expose(dose, frame(3.3, -7.1))
        live = dose.dose_map()
    with account(tmp_path, ()) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, live.dose_gy)


def test_another_definition_is_counted_anew_from_the_recorded_fluence(tmp_path, caplog):
    with account(tmp_path) as dose:
        expose(dose, frame())
        attenuated = dose.dose_at(0, 0).peak_gy
    with caplog.at_level(logging.WARNING), account(tmp_path, (limit(model="energy"),), model="energy") as dose:
        assert dose.dose_at(0, 0).peak_gy / attenuated == pytest.approx(6452.8 / 9151.7, rel=0.02)
    assert "another stack or dose model" in caplog.text


def test_a_reservation_left_open_can_be_settled_by_the_next_run(tmp_path):
    with account(tmp_path) as dose:
        left = dose.reserve(frame(open_time_s=0.48)).id
    with account(tmp_path) as dose:
        assert dose.unsettled == (left,)
        dose.settle(left, open_time_s=0.048, flux_ph_s=1e10, note="by the shutter's counter")
        assert dose.dose_at(0, 0).peak_gy == pytest.approx(dose.predict(frame()))


def test_what_is_not_on_disk_is_not_granted(tmp_path, monkeypatch):
    class FullDisk:
        def execute(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    with account(tmp_path) as dose:
        with monkeypatch.context() as patched:
            patched.setattr(dose.ledger, "_connection", FullDisk())
            with pytest.raises(LedgerError, match="reserve not written: database or disk is full"):
                dose.reserve(frame())
            with pytest.raises(DoseRefused):  # a refusal stands even when it cannot be noted
                dose.reserve(frame(open_time_s=1e4))
        assert dose.unsettled == ()
        assert dose.dose_at(0, 0).peak_gy == 0


def test_an_account_opened_for_reading_grants_nothing(tmp_path):
    with account(tmp_path) as writer, account(tmp_path, read_only=True) as reader:
        expose(writer, frame())
        assert reader.dose_at(0, 0).peak_gy == 0  # as of its opening
        with pytest.raises(LedgerError, match="reading only"):
            reader.reserve(frame())


def test_numpy_numbers_are_stored_as_numbers(tmp_path):
    request = frame(
        np.float32(1.5), np.float64(2.5), energy_ev=np.int64(8562), flux_ph_s=np.float32(1e10), on_sample=np.bool_(True)
    )
    with account(tmp_path) as dose:
        dose.reserve(request)
        live = dose.dose_map().dose_gy
    with account(tmp_path) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, live)


def test_two_threads_never_overdraw(tmp_path):
    with account(tmp_path, (limit(20.5 * FRAME_GY),)) as dose, concurrent.futures.ThreadPoolExecutor(4) as pool:

        def attempt(_):
            try:
                expose(dose, frame())
            except DoseRefused:
                return False
            return True

        assert sum(pool.map(attempt, range(40))) == 20
        assert dose.dose_at(0, 0).peak_gy <= 20.5 * FRAME_GY


CRASH = """
import sys, time
sys.path.insert(0, sys.argv[2])
from xbat_live.dose import Beam, DoseAccount, ExposureRequest, Ledger, presets
dose = DoseAccount(Ledger.for_sample(sys.argv[1], "cell"), stack=presets.cell("txm_nmc622"),
                   beam=Beam.gaussian(1e10, (30, 30), 8), limits=(), layer="cathode", material="NMC622")
given = ExposureRequest(0, 0, 8562, 0.048, 1e10)
dose.settle(dose.reserve(given).id, open_time_s=0.048, flux_ph_s=1e10)
dose.reserve(ExposureRequest(0, 0, 8562, 0.48, 1e10, run_uid="r1"))
print("reserved", flush=True)
time.sleep(60)
"""


def test_killed_during_an_exposure_the_reservation_counts_in_full(tmp_path):
    import xbat_live

    root = str(next(iter(xbat_live.__path__)) + "/..")
    with subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline().strip() == "reserved"
        child.send_signal(signal.SIGKILL)
    with account(tmp_path) as dose:
        assert dose.dose_at(0, 0).peak_gy == pytest.approx(11 * dose.predict(frame()), rel=1e-9)
        assert len(dose.unsettled) == 1
        assert dose.summary()["records"] == {
            "reserve": 2,
            "settle": 1,
            "void": 0,
            "unreserved": 0,
            "note": 0,
            "prior": 0,
        }
