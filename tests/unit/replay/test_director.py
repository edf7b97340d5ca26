"""The recording's clock and flux, as a plan that runs again finds them."""

import math

import pytest
from replay_support import exposure, recording

from xbat_live.replay.choosing import Chooser, Wanted
from xbat_live.replay.director import Director
from xbat_live.replay.recording import Decision, ReplayError

FLUX = {"flux_reserved_ph_s": 1.02e10, "flux_ph_s": 0.99e10}
TAKEN = (
    exposure(0, "flat", elapsed_s=0.0, time_s=1000.7, **FLUX),
    exposure(1, elapsed_s=0.0, time_s=1001.2, **FLUX),
    exposure(2, point=1, elapsed_s=10.25, time_s=1011.5, flux_reserved_ph_s=0.51e10, flux_ph_s=0.5e10),
)
END = Decision("end", "time is up", 2, 2, inputs={"elapsed_s": 20.5})


def director(decisions=(END,), taken=TAKEN, **options):
    return Director(recording(taken, decisions), Chooser(taken, 0.03), **options)


def primary(point):
    return Wanted("primary", (0.0, 0.0), 8562.0, point=point, field="A", spot=0, attempt=0)


def test_a_point_begins_when_it_began():
    """What a plan reads at the begin of a point is what it read then, exactly: the end of a series hangs on it."""
    play = director()
    assert play.now_s() == 0.0
    play.serve(Wanted("flat", (-250.0, 0.0), 8562.0, point=0, field="reference", spot=0, attempt=0))
    play.serve(primary(0))
    assert play.now_s() == 10.25
    play.serve(primary(1))
    assert play.now_s() == 20.5


def test_within_a_point_the_clock_is_that_of_the_last_exposure():
    play = director()
    play.serve(Wanted("flat", (-250.0, 0.0), 8562.0, point=0, field="reference", spot=0, attempt=0))
    assert play.now_s() == pytest.approx(1000.7 - play.recording.begin_s)
    play.pass_time(3.0)
    later = play.now_s()
    play.serve(primary(0))
    assert play.now_s() >= later  # it never runs backwards


def test_flux_is_the_reserved_one_before_and_the_settled_one_after():
    play = director()
    assert play.flux_now().flux_ph_s == pytest.approx(1e10)  # without the headroom
    play.serve(primary(0))
    assert play.flux(0.0, 1.0).flux_ph_s == 0.99e10
    play.serve(primary(1))
    assert play.flux(0.0, 1.0).flux_ph_s == 0.5e10


REFUSED = {"limit": "dose limit", "flux_reserved_ph_s": 0.816e10}


def test_what_was_refused_is_refused_with_its_own_flux():
    """The next exposure was made after a relocation, with a beam that had changed by 1.6 % since."""
    relocate = Decision("relocate", "use a fresh spot", 1, TAKEN[1].seq_num, inputs=REFUSED, time_s=1011.0)
    play = director(decisions=(relocate, END))
    play.serve(primary(0))
    assert play.flux_now().flux_ph_s == pytest.approx(0.8e10)  # without the headroom
    play.decided({"action": "relocate"}, REFUSED)
    assert play.flux_now().flux_ph_s == pytest.approx(0.5e10)


def test_an_exposure_that_is_granted_this_time_leaves_the_refusal_behind():
    relocate = Decision("relocate", "use a fresh spot", 1, TAKEN[1].seq_num, inputs=REFUSED, time_s=1011.0)
    play = director(decisions=(relocate, END))
    play.serve(primary(0))
    play.serve(primary(1))
    play.decided({"action": "relocate"}, REFUSED)  # a refusal that the run did not have
    assert play.flux_now().flux_ph_s == pytest.approx(0.5e10)


def test_a_refusal_that_ended_in_attenuation_was_made_with_the_full_beam():
    attenuate = Decision(
        "attenuate", "", 1, TAKEN[1].seq_num, inputs=REFUSED | {"transmission_after": 0.5}, time_s=1011.0
    )
    play = director(decisions=(attenuate, END))
    play.serve(primary(0))
    assert play.flux_now().flux_ph_s == pytest.approx(0.8e10)


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"flux_factor": 2.0}, 2.0), ({"transmission": lambda: 0.25}, 0.25)],
    ids=["calibrated otherwise", "attenuated"],
)
def test_flux_follows_calibration_and_attenuator(options, factor):
    play = director(**options)
    play.serve(primary(0))
    assert play.flux(0.0, 1.0).flux_ph_s == pytest.approx(0.99e10 * factor)


def test_the_cell_has_ended_its_step_where_the_run_began_the_next():
    step = Decision("potentiostat", "step 2 of 2", 1, 1, time_s=1011.0)
    play = director(decisions=(step, END))
    play.serve(Wanted("flat", (-250.0, 0.0), 8562.0, point=0, field="reference", spot=0, attempt=0))
    assert play.cell_status() == "Running"
    play.serve(primary(0))
    assert play.cell_status() == "Done"
    play.serve(primary(1))
    assert play.cell_status() == "Running"


def test_an_axis_reads_what_it_read():
    taken = (exposure(0, setpoint_um=(10.0, 0.0), stage_um=(10.012, 0.001), elapsed_s=0.0, **FLUX),)
    play = director(taken=taken)
    assert play.readback_um(0, 10.0) == 10.012
    assert play.readback_um(0, 12.0) == 12.0


def test_a_recording_without_flux_says_so():
    taken = (exposure(0, elapsed_s=0.0),)
    assert math.isnan(taken[0].flux_ph_s)
    with pytest.raises(ReplayError, match="no flux"):
        director(taken=taken).flux_now()
