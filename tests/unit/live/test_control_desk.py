"""What operators ask of a run: places, limits, remarks; each command is answered, and noted with who gave it."""

import json
import math
from types import SimpleNamespace

import pytest

from xbat_live.callbacks.backstop import DoseBackstop, RequestStop
from xbat_live.dose import (
    Beam,
    DoseAccount,
    DoseLimit,
    DoseRefused,
    ExposureRequest,
    Ledger,
    LedgerError,
    presets,
    propose,
)
from xbat_live.live.control_desk import ControlDesk
from xbat_live.live.control_messages import Request
from xbat_live.plans import Steering

SAMPLE_UM = (-100.0, 100.0, -100.0, 100.0)


def request(x_um=0.0, open_time_s=0.1):
    return ExposureRequest(x_um, 0.0, energy_ev=8400.0, open_time_s=open_time_s, flux_ph_s=1e10)


@pytest.fixture
def account(tmp_path):
    limits = (
        DoseLimit("dose limit", "NMC622", limit_gy=1e6),
        DoseLimit("dose rate limit", "NMC622", rate_gy_s=1e7),
        DoseLimit("electrolyte", "NMC622", limit_gy=5e6, advisory=True),
    )
    with Ledger(tmp_path / "cell.sqlite") as ledger:
        yield DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(20.0, 20.0)),
            limits=limits,
            layer="cathode",
            material="NMC622",
            outline_um=(200.0, 200.0),
        )


@pytest.fixture
def bench(account):
    steering, noted = Steering(), []
    steering.begin()
    steering.take_order(frozenset({"relocate", "skip_spot"}))
    bounds = {
        "bounds_um": SAMPLE_UM,
        "stage_limits_um": (-90.0, 90.0, -90.0, 90.0),
        "forbidden_um": ((60, 80, 60, 80),),
    }
    desk = ControlDesk(
        steering,
        note=noted.append,
        examine=lambda x, y: propose(account, (x, y), **bounds),
        limits=lambda: account.limits,
        change_limit=account.change_limit,
    )

    def ask(verb, **arguments):
        return desk(Request("r1", verb, arguments, "eva", "page"))

    return SimpleNamespace(ask=ask, account=account, steering=steering, noted=noted)


def limits_of(account):
    return {limit.name: limit.value for limit in account.limits}


def remarks(steering):
    found = []
    while (remark := steering.next_remark()) is not None:
        steering.wrote(remark)
        found.append(remark.values)
    return [values for values in found if values["command"] != "state"]


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ({"value": "400 kGy"}, "dose limit", 4e5),
        ({"value": "400kGy"}, "dose limit", 4e5),
        ({"value": "2 MGy/s"}, "dose rate limit", 2e6),
        ({"value": "1 MGy", "name": "electrolyte"}, "electrolyte", 1e6),
    ],
)
def test_a_limit_is_tightened_at_once(bench, arguments, name, value):
    reply = bench.ask("limit", **arguments)
    assert reply.ok, reply.message
    assert limits_of(bench.account)[name] == pytest.approx(value)
    (note,) = [record.entry.note for record in bench.account.ledger.records() if record.entry.kind == "note"]
    assert "tightened" in note
    assert "by eva (page)" in note


def test_a_tighter_limit_is_what_the_next_exposure_is_judged_by(bench):
    bench.account.reserve(request())
    bench.ask("limit", value="1 Gy")
    with pytest.raises(DoseRefused, match="above the limit 'dose limit' of 1 Gy"):
        bench.account.reserve(request())
    assert bench.account.lowest_limit_gy == 1.0
    assert bench.account.summary()["limits"][0]["limit_gy"] == 1.0


@pytest.mark.parametrize(
    "how", [{}, {"confirm": True}, {"reason": "agreed"}, {"confirm": True, "reason": "  "}], ids=str
)
def test_a_looser_limit_needs_a_confirmation_and_a_reason(bench, how):
    reply = bench.ask("limit", value="2 MGy", **how)
    assert not reply.ok
    assert "confirm it and give a reason" in reply.message
    assert limits_of(bench.account)["dose limit"] == 1e6
    reply = bench.ask("limit", value="2 MGy", confirm=True, reason="agreed with the PI")
    assert reply.ok
    assert limits_of(bench.account)["dose limit"] == 2e6
    noted = remarks(bench.steering)
    assert [values["ok"] for values in noted] == [False, True]
    assert json.loads(noted[1]["arguments"])["before_gy"] == 1e6
    assert "agreed with the PI" in noted[1]["message"]


def test_a_limit_is_not_loosened_when_the_ledger_cannot_be_written_but_tightened(bench, monkeypatch):
    def fails(entry):
        raise LedgerError("disk full")

    monkeypatch.setattr(bench.account.ledger, "append", fails)
    assert not bench.ask("limit", value="2 MGy", confirm=True, reason="r").ok
    assert limits_of(bench.account)["dose limit"] == 1e6
    assert bench.ask("limit", value="0.5 MGy").ok
    assert limits_of(bench.account)["dose limit"] == 5e5


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"value": "5"}, "has no unit"),
        ({"value": "5 m"}, "not convertible"),
        ({"value": "0 Gy"}, "above 0"),
        ({"value": "-1 MGy"}, "above 0"),
        ({"value": "nan Gy"}, "nan"),
        ({"value": "1 MGy"}, "already"),
        ({"value": "1 kGy", "name": "wishful"}, "no limit is called 'wishful'; known: 'dose limit' (1 MGy)"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(bench, arguments, why):
    reply = bench.ask("limit", **arguments)
    assert not reply.ok
    assert why in reply.message
    assert limits_of(bench.account)["dose limit"] == 1e6


@pytest.mark.parametrize(
    ("x_um", "y_um", "why"),
    [
        (150.0, 0.0, "beside the sample"),
        (95.0, 0.0, "stage does not reach"),
        (70.0, 70.0, "forbidden zone"),
        (0.0, 0.0, "above the limit 'dose limit'"),
    ],
)
def test_a_place_that_is_not_allowed_is_refused_with_the_reason(bench, x_um, y_um, why):
    bench.account.reserve(request())
    bench.ask("limit", value="1 Gy")
    if why == "above the limit 'dose limit'":
        assert not bench.ask("propose", x_um=x_um, y_um=y_um).data["allowed"]
    reply = bench.ask("relocate", x_um=x_um, y_um=y_um)
    assert not reply.ok
    assert why in reply.message
    assert bench.steering.take_order(frozenset({"relocate"})) is None


def test_a_proposal_tells_distance_and_dose_and_changes_nothing(bench):
    bench.account.reserve(request())
    reply = bench.ask("propose", x_um=-30.0, y_um=-40.0)
    assert reply.ok
    assert reply.data["allowed"]
    assert reply.data["distance_um"] == pytest.approx(50.0)
    assert reply.data["predicted_gy"] == pytest.approx(
        bench.account.predict(request()) + reply.data["dose_gy"], rel=0.02
    )
    assert remarks(bench.steering) == []
    assert (
        math.isnan(propose(bench.account, (0, 0), bounds_um=SAMPLE_UM, stage_limits_um=SAMPLE_UM).distance_um) is False
    )


def test_relocating_hands_the_place_to_the_plan(bench):
    assert bench.ask("relocate", x_um=-30.0, y_um=-40.0).state == "RELOCATING"
    order = bench.steering.take_order(frozenset({"relocate"}))
    assert (order.kind, order.who, order.spot_um) == ("relocate", "eva", (-30.0, -40.0))
    assert not bench.ask("relocate", x_um=30.0).ok
    bench.steering.take_order(frozenset({"relocate", "skip_spot"}))
    assert bench.ask("skip_spot").ok


def test_a_note_goes_to_ledger_and_run(bench):
    assert bench.ask("note", text="cell looks swollen").ok
    assert bench.noted == ["eva: cell looks swollen"]
    (noted,) = remarks(bench.steering)
    assert (noted["command"], noted["message"], noted["who"]) == ("note", "cell looks swollen", "eva")


def test_the_last_line_of_defence_follows_the_limit():
    closed = []
    backstop = DoseBackstop(lambda: closed.append(True), limit_gy=10.0)

    def see(dose_gy):
        backstop.event({"data": {"point_dose_gy": dose_gy}})

    backstop.change(5.0)
    see(8.0)  # the exposure under way at a place that has more than the new limit
    see(4.0)
    with pytest.raises(RequestStop):
        see(6.0)
    backstop.change(20.0)
    see(15.0)
    assert closed == [True]
