"""Which recorded frame a replay is served: decision record 20, row by row."""

import pytest
from replay_support import exposure

from xbat_live.replay.choosing import MOVED, RECORDED, STAND_IN, Chooser, Wanted

TAKEN = (
    exposure(0, "dark"),
    exposure(1, "flat", stage_um=(-250.0, 0.0)),
    exposure(2, "flat", stage_um=(-250.0, 0.0)),
    exposure(3, point=0, attempt=0),
    exposure(4, point=0, attempt=1),
    exposure(5, point=0, field="B", stage_um=(30.0, 0.0)),
    exposure(6, point=1),
    exposure(7, point=1, spot=1, stage_um=(0.0, 45.0)),
    exposure(8, point=2, energy_ev=8345.0),
)


def chooser():
    return Chooser(TAKEN, pixel_size_um=0.03, field_um=(20.0, 20.0))


def frame(point, attempt=0, field="A", spot=0, at=(0.0, 0.0), energy_ev=8562.0):
    return Wanted("primary", at, energy_ev, point=point, field=field, spot=spot, attempt=attempt)


@pytest.mark.parametrize(
    ("wanted", "number", "how", "reason"),
    [
        (frame(1), 6, RECORDED, "by its name, whatever was served before"),
        (frame(0, attempt=1), 4, RECORDED, "the retake, also when the first attempt was never asked for"),
        (frame(0, at=(0.014, 0.0)), 3, RECORDED, "less than half a pixel is no difference"),
        (frame(0, at=(0.5, -0.2)), 3, MOVED, "the same exposure, the stage a little elsewhere"),
        (frame(1, spot=1, at=(0.0, 45.0)), 7, RECORDED, "another spot"),
        (frame(1, spot=1, at=(60.0, 45.0)), 7, STAND_IN, "a spot of the same number at another place"),
        (frame(0, attempt=2), 3, STAND_IN, "one retake more than there was"),
        (frame(1, field="B", at=(30.0, 0.0)), 5, STAND_IN, "a field that was not measured at this point"),
        (frame(2, energy_ev=8345.0), 8, RECORDED, "at its energy"),
        (frame(2, energy_ev=8333.0), 8, STAND_IN, "an energy that was never used: the nearest"),
    ],
)
def test_a_frame_is_chosen_by_what_it_is_and_where(wanted, number, how, reason):
    served = chooser().serve(wanted)
    assert (served.exposure.number, served.how) == (number, how), reason
    assert bool(served.why) == (how != RECORDED)


def test_exposures_of_one_name_come_in_their_order():
    choose = chooser()
    flat = Wanted("flat", (-250.0, 0.0), 8562.0, point=0, field="reference", spot=0, attempt=0)
    served = [choose.serve(flat) for _ in range(3)]
    assert [item.exposure.number for item in served[:2]] == [1, 2]
    assert served[2].how == STAND_IN  # one more than there was


def test_a_stand_in_is_never_the_frame_served_last():
    choose = chooser()
    last = choose.serve(frame(0)).exposure.number
    for attempt in range(2, 6):
        found = choose.serve(frame(0, attempt=attempt)).exposure.number
        assert found != last
        last = found


def test_a_move_is_told_as_what_the_stage_differs_by():
    assert chooser().serve(frame(0, at=(0.5, -0.2))).shift_um == pytest.approx((0.5, -0.2))


def test_a_plan_that_gives_no_names_is_served_by_place_and_order():
    choose = chooser()
    served = [
        choose.serve(Wanted("primary", at, 8562.0)).exposure.number for at in ((30.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    ]
    assert served == [5, 3, 4]


def test_nothing_of_a_kind_is_nothing():
    assert Chooser(TAKEN[1:], 0.03).find(Wanted("dark")) is None
