"""Exposure strategies by their messages: which place gets which dose, when the beam rests, the shutter closed on every way out."""

import itertools
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import plan_driver
import pytest
from plan_driver import FakeAnalysis, FakeFrame, InjectedFailure, drive, fake_beamline

from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseMap, ExposureRequest, Ledger, next_spot, presets
from xbat_live.plans import DoseGuard, FluxCalibration, LimitBelowOneFrame
from xbat_live.plans.fresh_spots import fresh_spots_protocol
from xbat_live.plans.locations import check_apart, clearance_um
from xbat_live.plans.low_rate import attenuated_series, intermittent_series
from xbat_live.plans.strategies import graded_exposure, grid_um, move_every_scan

FLUX = FluxCalibration(1e10, 100.0)
BLURRED = FakeFrame(False, "blurred", "horizontal blur of 7 px")
THREE = ((-60.0, 0.0), (0.0, 0.0), (60.0, 0.0))
OUTLINE = (200.0, 200.0)


@dataclass
class Lab:
    """A beamline whose shutter is open for exactly the camera's exposure, with a clock that only the plan's sleeps and exposures move."""

    beamline: object
    account: DoseAccount
    guard: DoseGuard
    clock: list[float]
    decisions: list[dict] = field(default_factory=list)
    exposures: list[tuple[float, float, float]] = field(default_factory=list)  # x, y of the stage, exposure time
    on_message: object = lambda message: None

    def run(self, plan, **options):
        return drive(plan, self.beamline, on_message=self._look, **options)

    def told(self, action):
        """Reasons and inputs of the decisions of one kind."""
        return [
            decision | json.loads(decision["inputs"]) for decision in self.decisions if decision["action"] == action
        ]

    def _look(self, message):
        if message.command == "sleep":
            self.clock[0] += message.args[0]
        if message.command == "read" and message.obj.name == "decision":
            self.decisions.append(message.obj.values())
        if message.command == "set" and message.obj is self.beamline.attenuator:
            self.beamline.attenuator.transmission.sim_put(message.args[0])
            self.beamline.i0.current_na.sim_put(100.0 * message.args[0])
        if message.command == "trigger":
            stage = self.beamline.stage
            self.exposures.append(
                (
                    stage.x.user_readback.get(),
                    stage.y.user_readback.get(),
                    self.beamline.camera.cam.acquire_time.get(),
                )
            )
        self.on_message(message)


@contextmanager
def laboratory(path, *limits, monkeypatch=None, beamline=None):
    beamline, clock = beamline or fake_beamline(), [1000.0]
    for signal, value in ((beamline.attenuator.transmission, 1.0), (beamline.shutter.open_time_s, 0.0)):
        signal.sim_put(value)
    beamline.i0.current_na.sim_put(100.0)
    beamline.mono.energy.user_readback.sim_put(8562.0)
    if monkeypatch is not None:

        class Timed(plan_driver.Drive):
            def execute(self, message):
                closing = self.shutter == "Open" and message.command == "set" and message.obj is beamline.shutter
                before_s = self.open_time_s
                result = super().execute(message)
                if closing and self.shutter == "Closed":
                    exposure_s = beamline.camera.cam.acquire_time.get()
                    self.open_time_s = before_s + exposure_s
                    clock[0] += exposure_s
                    beamline.shutter.open_time_s.sim_put(self.open_time_s)
                return result

        monkeypatch.setattr(plan_driver, "Drive", Timed)
    with Ledger(path / "cell.sqlite", wall=lambda: clock[0], monotonic=lambda: clock[0]) as ledger:
        account = DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.gaussian(1e10, fwhm_um=(30, 30), order=8),
            limits=limits or (DoseLimit("limit", "NMC622", limit_gy=1e9),),
            layer="cathode",
            material="NMC622",
            outline_um=OUTLINE,
        )
        yield Lab(beamline, account, DoseGuard(account, FLUX), clock)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with laboratory(tmp_path, monkeypatch=monkeypatch) as made:
        yield made


def plan_for(lab, plan, analysis=None, **options):
    def choose(x_um, y_um):
        return next_spot(
            lab.account,
            (x_um, y_um),
            footprint_um=lab.account.beam.footprint_um,
            guard_um=10.0,
            bounds_um=(-100, 100, -100, 100),
            stage_limits_um=(-300, 300, -300, 300),
            step_um=5.0,
        )

    settings = {"exposure_s": 0.048, "n_darks": 0, "reference_um": (-250.0, 0.0)} | options
    return plan(lab.beamline, lab.guard, analysis or FakeAnalysis(), choose, **settings)


def on_sample(lab):
    return [(x, y, exposure_s) for x, y, exposure_s in lab.exposures if x != -250.0]


# --- grid and distances ------------------------------------------------------------------------------------------------


def test_grid_is_a_meander_centred_in_its_area():
    positions = grid_um((-50, 50, -20, 20), (40, 40))
    assert positions == [(-40, -20), (0, -20), (40, -20), (40, 20), (0, 20), (-40, 20)]


def test_grid_of_a_point_has_one_position():
    assert grid_um((10, 10, 5, 5), (40, 40)) == [(10, 5)]


@pytest.mark.parametrize(("area", "step"), [((1, 0, 0, 1), (1, 1)), ((0, 1, 0, 1), (0, 1)), ((0, 1, 0, 1), (1, -1))])
def test_impossible_grids_are_refused(area, step):
    with pytest.raises(ValueError, match=r"empty|positive"):
        grid_um(area, step)


@pytest.mark.parametrize(
    ("positions", "fields", "shared"),
    [
        (((0, 0), (40, 0)), ((0, 0),), False),  # edge to edge
        (((0, 0), (39, 0)), ((0, 0),), True),
        (((0, 0), (39, 40)), ((0, 0),), False),  # beside each other in y
        (((0, 0), (80, 0)), ((0, 0), (30, 0)), False),
        (
            ((0, 0), (60, 0)),
            ((0, 0), (30, 0)),
            True,
        ),  # second field of the first position reaches into the second position
        (((0, 0), (0, 0)), ((0, 0),), True),
    ],
)
def test_positions_that_share_dose_are_named(positions, fields, shared):
    if not shared:
        return check_apart(positions, fields, (40.0, 40.0))
    with pytest.raises(ValueError, match="share dose"):
        check_apart(positions, fields, (40.0, 40.0))


@pytest.mark.parametrize(
    ("x_um", "y_um", "expected_um"),
    [
        (50.5, 0.5, 30.0),  # 50 to the pixel, half a footprint of 40 off
        (0.5, -49.5, 30.0),
        (50.5, 60.5, np.hypot(30, 40)),
        (10.5, 0.5, 0.0),  # inside
    ],
)
def test_clearance_is_measured_from_the_edge_of_the_footprint(x_um, y_um, expected_um):
    dose = np.zeros((200, 200))
    dose[100, 100] = 5.0
    axis = np.arange(-100, 100) + 0.5
    dose_map = DoseMap(dose, axis, axis)
    assert clearance_um(dose_map, x_um, y_um, footprint_um=(40, 40), above_gy=1.0) == pytest.approx(expected_um)
    assert clearance_um(dose_map, x_um, y_um, footprint_um=(40, 40), above_gy=5.0) == np.inf


# --- move after every scan ---------------------------------------------------------------------------------------------

AREA = {"area_um": (-80.0, 80.0, -45.0, 45.0), "step_um": (45.0, 45.0)}  # 4 x 3 positions


def test_every_point_has_a_position_of_its_own(lab):
    record = lab.run(plan_for(lab, move_every_scan, n_points=12, period_s=0.0, **AREA))
    assert record.error is None
    assert record.value.outcome == "completed"
    places = [(x, y) for x, y, _ in on_sample(lab)]
    assert len(set(places)) == len(places) == 12
    peaks = [lab.account.dose_at(x, y).peak_gy for x, y in places]
    assert max(peaks) == pytest.approx(min(peaks), rel=0.02)  # spread evenly: sub-pixel position of a footprint aside


def test_the_series_ends_when_the_grid_is_used_up(lab):
    record = lab.run(plan_for(lab, move_every_scan, n_points=50, period_s=0.0, **AREA))
    assert (record.value.points, record.value.frames) == (12, 12)
    assert "12 positions" in record.value.outcome


def test_round_again_until_no_position_may_have_more(tmp_path, monkeypatch):
    limit = DoseLimit("limit", "NMC622", limit_gy=80e3)
    with laboratory(tmp_path, limit, monkeypatch=monkeypatch) as lab:
        record = lab.run(plan_for(lab, move_every_scan, n_points=500, period_s=0.0, revisit=True, **AREA))
        assert "positions" in record.value.outcome
        visits = [places.count((x, y)) for places in [[e[:2] for e in on_sample(lab)]] for x, y in set(places)]
        assert len(visits) == 12
        assert len(set(visits)) == 1  # one round for all, then the next
        assert visits[0] >= 2
        assert lab.account.dose_map().dose_gy.max() <= 80e3


def test_positions_dosed_before_are_skipped(lab):
    lab.account.record_unreserved(ExposureRequest(22.5, 0.0, 8562.0, 200.0, 1e10), "an earlier run")
    record = lab.run(plan_for(lab, move_every_scan, n_points=50, period_s=0.0, **AREA))
    assert record.value.points == 11
    assert (22.5, 0.0) not in [(x, y) for x, y, _ in on_sample(lab)]
    (skipped,) = lab.told("skip")
    assert "22.5" in skipped["reason"]


def test_a_step_below_the_footprint_is_an_error_before_anything_moves(lab):
    record = lab.run(plan_for(lab, move_every_scan, area_um=(-50, 50, 0, 0), step_um=(20, 20)))
    assert isinstance(record.error, ValueError)
    assert record.messages == []


def test_a_limit_below_one_frame_is_told_at_the_first_position(tmp_path, monkeypatch):
    with laboratory(tmp_path, DoseLimit("limit", "NMC622", limit_gy=100.0), monkeypatch=monkeypatch) as lab:
        record = lab.run(plan_for(lab, move_every_scan, n_points=5, period_s=0.0, **AREA))
    assert isinstance(record.error, LimitBelowOneFrame)
    assert on_sample(lab) == []


def test_the_dose_of_every_position_is_told(lab):
    lab.run(plan_for(lab, move_every_scan, n_points=3, period_s=0.0, **AREA))
    told = lab.told("spot_dose")
    assert [item["spot"] for item in told] == [0, 1, 2]
    for item in told:
        assert item["peak_gy"] == pytest.approx(lab.account.dose_at(item["x_um"], item["y_um"]).peak_gy)
        assert item["exposures"] == 1


# --- locations with different exposure ---------------------------------------------------------------------------------


def test_doses_are_in_the_ratio_of_the_exposures(lab):
    """Jousseaume: 2.5 s, 98 s and 1050 s per scan at locations #1, #2, #3."""
    record = lab.run(plan_for(lab, graded_exposure, locations_um=THREE, exposure_s=50.0, n_points=2, period_s=0.0))
    assert record.error is None
    peaks = [lab.account.dose_at(x, y).peak_gy for x, y in THREE]
    assert [peak / peaks[0] for peak in peaks] == pytest.approx([1.0, 98 / 2.5, 1050 / 2.5], rel=1e-3)
    given_s = [sum(exposure_s for x, _, exposure_s in on_sample(lab) if x == place[0]) for place in THREE]
    assert given_s == pytest.approx([5.0, 196.0, 2100.0])
    assert record.value.frames == 2 * (1 + 2 + 21)


def test_locations_are_visited_in_turn_at_every_point(lab):
    lab.run(plan_for(lab, graded_exposure, locations_um=THREE, exposures_s=(1, 2, 3), exposure_s=1.0, n_points=2))
    visited = [key for key, _ in itertools.groupby(x for x, _, _ in on_sample(lab))]
    assert visited == [-60, 0, 60] * 2


@pytest.mark.parametrize(
    ("total_s", "longest_s", "frames"),
    [(2.5, 2.5, 1), (98.0, 2.5, 40), (1.0, 0.4, 3), (0.3, 0.1, 3), (0.05, 2.5, 1)],
)
def test_an_exposure_is_cut_into_equal_frames_none_too_long(lab, total_s, longest_s, frames):
    lab.run(
        plan_for(lab, graded_exposure, locations_um=((0, 0),), exposures_s=(total_s,), exposure_s=longest_s, n_points=1)
    )
    times_s = [exposure_s for _, _, exposure_s in on_sample(lab)]
    assert len(times_s) == frames
    assert sum(times_s) == pytest.approx(total_s)
    assert max(times_s) <= longest_s * (1 + 1e-9)


def test_flats_have_the_longest_exposure(lab):
    lab.run(plan_for(lab, graded_exposure, locations_um=THREE, exposures_s=(1, 2, 3), exposure_s=2.0, n_points=2))
    assert [exposure_s for x, _, exposure_s in lab.exposures if x == -250.0] == [2.0, 2.0]


def test_rejected_frames_are_not_retaken_because_the_dose_is_the_experiment(lab):
    analysis = FakeAnalysis([BLURRED] * 3)
    record = lab.run(
        plan_for(lab, graded_exposure, analysis, locations_um=THREE, exposures_s=(1, 1, 1), exposure_s=1.0, n_points=1)
    )
    assert (record.value.frames, record.value.rejected) == (3, 3)


def test_a_location_at_its_limit_is_retired_and_the_others_go_on(tmp_path, monkeypatch):
    limit = DoseLimit("limit", "NMC622", limit_gy=10e6)  # about 50 s at the peak
    with laboratory(tmp_path, limit, monkeypatch=monkeypatch) as lab:
        plan = plan_for(
            lab, graded_exposure, locations_um=THREE, exposures_s=(1, 10, 20), exposure_s=5.0, n_points=6, period_s=0.0
        )
        record = lab.run(plan)
        assert record.value.outcome == "completed"
        assert lab.account.dose_map().dose_gy.max() <= 10e6
    given_s = [sum(exposure_s for x, _, exposure_s in on_sample(lab) if x == place[0]) for place in THREE]
    assert given_s[0] == pytest.approx(6.0)
    assert 30 < given_s[1] < 55
    assert 30 < given_s[2] < 55
    assert [item["spot"] for item in lab.told("retire")] == [2, 1]
    assert record.value.relocations == 0


def test_the_series_ends_when_all_locations_are_retired(tmp_path, monkeypatch):
    with laboratory(tmp_path, DoseLimit("limit", "NMC622", limit_gy=3e6), monkeypatch=monkeypatch) as lab:
        plan = plan_for(
            lab, graded_exposure, locations_um=THREE, exposures_s=(5, 5, 5), exposure_s=5.0, n_points=90, period_s=0.0
        )
        record = lab.run(plan)
    assert "every location" in record.value.outcome
    assert record.value.points < 90


@pytest.mark.parametrize(
    "wrong",
    [
        {"locations_um": ()},
        {"locations_um": THREE[:2]},
        {"locations_um": THREE, "exposures_s": (1.0, 0.0, 2.0)},
        {"locations_um": THREE, "exposures_s": (1.0, float("nan"), 2.0)},
        {"locations_um": ((0, 0), (10, 0), (60, 0))},
    ],
)
def test_impossible_locations_are_refused_before_anything_moves(lab, wrong):
    record = lab.run(plan_for(lab, graded_exposure, **wrong))
    assert isinstance(record.error, ValueError)
    assert record.messages == []


# --- rests -------------------------------------------------------------------------------------------------------------

WINDOW_S, MEAN_GY_S = 60.0, 3e3


def test_the_mean_rate_in_every_window_stays_below_the_limit(tmp_path, monkeypatch):
    limits = (
        DoseLimit("limit", "NMC622", limit_gy=1e9),
        DoseLimit("mean rate", "NMC622", rate_gy_s=MEAN_GY_S, window_s=WINDOW_S),
    )
    with laboratory(tmp_path, *limits, monkeypatch=monkeypatch) as lab:
        record = lab.run(plan_for(lab, intermittent_series, n_points=60))
        assert record.error is None
        assert (record.value.frames, record.value.relocations, record.value.outcome) == (60, 0, "completed")
        per_exposure_gy = lab.account.dose_at(0, 0).peak_gy / 60
        ended_s = [
            r.time_unix_s for r in lab.account.ledger.records() if r.entry.kind == "settle" and r.entry.on_sample
        ]
        refused = [r for r in lab.account.ledger.records() if r.entry.note.startswith("refused")]
    for end_s in ended_s:
        in_window = sum(end_s - WINDOW_S < t <= end_s for t in ended_s)
        assert in_window * per_exposure_gy <= MEAN_GY_S * WINDOW_S
    assert refused == []  # rests are computed, not found out by trying
    assert lab.told("rest")
    # it does not rest more than it must: one reservation's worth of room may be left
    least_s = (60 * per_exposure_gy / MEAN_GY_S) - WINDOW_S
    assert least_s < lab.clock[0] - 1000.0 < 3 * least_s + 2 * WINDOW_S


def test_the_shutter_is_closed_during_a_rest(tmp_path, monkeypatch):
    limits = (DoseLimit("mean rate", "NMC622", rate_gy_s=MEAN_GY_S, window_s=WINDOW_S),)
    with laboratory(tmp_path, *limits, monkeypatch=monkeypatch) as lab:
        state, during = ["Closed"], []

        def look(message):
            if message.command == "set" and message.obj is lab.beamline.shutter:
                state[0] = message.args[0]
            if message.command == "sleep" and message.args[0] > 0.5:
                during.append(state[0])

        lab.on_message = look
        lab.run(plan_for(lab, intermittent_series, n_points=30))
    assert set(during) == {"Closed"}


def test_a_rest_is_cut_into_steps_with_checkpoints(tmp_path, monkeypatch):
    """A pause or a suspender repeats what came after the last checkpoint: that must be one short sleep, no exposure."""
    with laboratory(tmp_path, monkeypatch=monkeypatch) as lab:
        record = lab.run(plan_for(lab, intermittent_series, n_points=2, rest_s=7.5))
    sleeps = [(i, m.args[0]) for i, m in enumerate(record.messages) if m.command == "sleep" and m.args[0] > 0.1]
    assert sum(value for _, value in sleeps) == pytest.approx(2 * 7.5)
    assert max(value for _, value in sleeps) <= 1.0
    assert all(record.messages[i - 1].command == "checkpoint" for i, _ in sleeps)


def test_a_dose_limit_relocates_an_intermittent_series(tmp_path, monkeypatch):
    with laboratory(tmp_path, DoseLimit("limit", "NMC622", limit_gy=120e3), monkeypatch=monkeypatch) as lab:
        record = lab.run(plan_for(lab, intermittent_series, n_points=20, rest_s=1.0))
        assert record.value.relocations >= 1
        assert lab.account.dose_map().dose_gy.max() <= 120e3
    assert record.value.outcome == "completed"
    assert record.value.frames == 20


def test_an_intermittent_series_needs_a_reason_to_rest(lab):
    record = lab.run(plan_for(lab, intermittent_series))
    assert isinstance(record.error, ValueError)
    assert "window" in str(record.error)
    assert record.messages == []


# --- attenuated beam ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep_counts", "dose", "exposure_s"),
    [(False, 0.25, 0.048), (True, 1.0, 0.192)],
)
def test_an_attenuated_run_has_the_dose_of_its_transmission(tmp_path, monkeypatch, keep_counts, dose, exposure_s):
    (tmp_path / "full").mkdir()
    with laboratory(tmp_path / "full", monkeypatch=monkeypatch) as lab:
        lab.run(plan_for(lab, intermittent_series, n_points=3, rest_s=0.1))
        full_gy = lab.account.dose_at(0, 0).peak_gy
    with laboratory(tmp_path, monkeypatch=monkeypatch) as lab:
        plan = plan_for(lab, attenuated_series, transmission=0.25, keep_counts=keep_counts, n_points=3, period_s=0.0)
        record = lab.run(plan)
        assert record.error is None
        assert lab.account.dose_at(0, 0).peak_gy == pytest.approx(dose * full_gy, rel=1e-6)
        assert lab.account.dose_at(0, 0).peak_gy > 0
    assert {round(value, 6) for _, _, value in on_sample(lab)} == {exposure_s}
    assert lab.told("attenuate")


def test_the_attenuator_is_put_back_and_moves_only_with_the_shutter_closed(lab):
    lab.beamline.attenuator.transmission.sim_put(0.5)
    lab.beamline.i0.current_na.sim_put(50.0)
    state, moved = ["Closed"], []

    def look(message):
        if message.command == "set" and message.obj is lab.beamline.shutter:
            state[0] = message.args[0]
        if message.command == "set" and message.obj is lab.beamline.attenuator:
            moved.append((message.args[0], state[0]))

    lab.on_message = look
    lab.run(plan_for(lab, attenuated_series, transmission=0.1, n_points=2, period_s=0.0))
    assert moved == [(0.1, "Closed"), (0.5, "Closed")]


@pytest.mark.parametrize("transmission", [0.0, -0.1, 10.0, float("nan")])
def test_a_transmission_that_is_no_fraction_is_refused(lab, transmission):
    record = lab.run(plan_for(lab, attenuated_series, transmission=transmission))
    assert isinstance(record.error, ValueError)
    assert record.messages == []


# --- fresh spots -------------------------------------------------------------------------------------------------------


@pytest.fixture
def charging(lab, monkeypatch):
    """The cell is charged after 4 frames; a second passes with every look at the plan's clock."""
    ticks = itertools.count()
    monkeypatch.setattr("xbat_live.plans.fresh_spots.time.monotonic", lambda: float(next(ticks)))
    status = lab.beamline.potentiostat.status
    status.sim_put("Running")
    steps, frames = [], [0]

    def look(message):
        if message.command == "set" and message.obj is lab.beamline.potentiostat:
            steps.append((message.args[0], frames[0]))
            status.sim_put("Running")
        if message.command == "create" and message.kwargs["name"] == "primary":
            frames[0] += 1
            if steps[-1][0].mode == "galvanostatic" and frames[0] - steps[-1][1] >= 4:
                status.sim_put("Done")

    lab.on_message = look
    return steps


SHORT = {"n_ocv": 2, "n_fresh": 3, "hold_s": 3.0, "guard_um": 10.0, "flat_ttl_s": 1e9}


def test_the_protocol_in_order(lab, charging):
    record = lab.run(plan_for(lab, fresh_spots_protocol, **SHORT))
    assert record.error is None
    started = [next(group) for _, group in itertools.groupby(charging, key=lambda item: item[0].mode)]
    assert [step.mode for step, _ in started] == ["ocv", "galvanostatic", "hold", "ocv"]
    before = [frames for _, frames in started]
    assert before[:3] == [0, 2, 6]  # two at open circuit, four while charging
    charge, hold = started[1][0], started[2][0]
    assert (charge.c_rate_per_h, charge.cutoff_high_v, hold.hold_v) == (0.25, 4.3, 4.3)
    places = [(x, y) for x, y, _ in on_sample(lab)]
    order = [key for key, _ in itertools.groupby(places)]
    assert len(order) == 3  # C, then A, then B
    assert order[0] == (0.0, 0.0)
    assert places.count(order[1]) == places.count(order[2]) == 3
    assert record.value.points == record.value.frames == len(places)
    assert record.value.outcome == "completed"


def test_fresh_spots_keep_the_guard_distance_measured_in_the_map(lab, charging):
    lab.run(plan_for(lab, fresh_spots_protocol, **SHORT))
    chosen = lab.told("move")
    assert len(chosen) == 2
    # nothing but the present spot, #C and #A may have dose to speak of: distances between footprints, each 40 um wide
    spots = [(0.0, 0.0), *((item["x_um"], item["y_um"]) for item in chosen)]
    for one, other in itertools.combinations(spots, 2):
        gap = max(abs(one[0] - other[0]), abs(one[1] - other[1])) - 40.0
        assert gap >= 5.0  # the 1 % contour of a footprint lies inside its nominal edge
    assert all(item["clearance_um"] >= 10.0 for item in chosen)


def test_a_spot_too_near_to_dosed_sample_is_not_used(lab, charging):
    lab.run(plan_for(lab, fresh_spots_protocol, **SHORT | {"guard_um": 80.0}))
    assert lab.told("move") == []
    assert len(lab.told("skip")) == 2  # a sample of 200 um has no place with 80 um between two footprints of 40 um
    assert {(x, y) for x, y, _ in on_sample(lab)} == {(0.0, 0.0)}


def test_the_irradiated_spot_has_more_dose_than_the_fresh_ones_and_all_are_told(lab, charging):
    lab.run(plan_for(lab, fresh_spots_protocol, **SHORT))
    last = {item["label"]: item for item in lab.told("spot_dose")}
    assert set(last) == {"C", "A", "B"}
    assert last["A"]["exposures"] == last["B"]["exposures"] == 3
    assert last["C"]["peak_gy"] / last["A"]["peak_gy"] == pytest.approx(last["C"]["exposures"] / 3, rel=0.02)


def test_a_spot_c_at_its_limit_is_spared_and_the_comparison_is_made(tmp_path, monkeypatch):
    with laboratory(tmp_path, DoseLimit("limit", "NMC622", limit_gy=85e3), monkeypatch=monkeypatch) as lab:
        calls = itertools.count()
        monkeypatch.setattr("xbat_live.plans.fresh_spots.time.monotonic", lambda: float(next(calls)))
        lab.beamline.potentiostat.status.sim_put("Running")
        options = SHORT | {"charge_timeout_s": 20.0, "hold_s": 5.0, "n_fresh": 2}
        record = lab.run(plan_for(lab, fresh_spots_protocol, **options))
        assert record.value.outcome == "completed"
        assert lab.account.dose_map().dose_gy.max() <= 85e3
    assert [item["label"] for item in lab.told("spot_dose")][-2:] == ["A", "B"]
    assert len(lab.told("retire")) == 1
    assert len({(x, y) for x, y, _ in on_sample(lab)}) == 3


def test_a_faulty_potentiostat_ends_the_run_with_the_cell_stopped(lab):
    lab.beamline.potentiostat.status.sim_put("Fault")
    record = lab.run(plan_for(lab, fresh_spots_protocol, **SHORT))
    assert "Fault" in str(record.error)
    assert record.shutter == "Closed"
    stopped = [m for m in record.messages if m.command == "stop" and m.obj is lab.beamline.potentiostat]
    assert len(stopped) == 1


# --- all of them -------------------------------------------------------------------------------------------------------

ALL = {
    "move_every_scan": partial(move_every_scan, n_points=1, **AREA),
    "graded_exposure": partial(graded_exposure, locations_um=THREE[:1], exposures_s=(0.048,), n_points=1),
    "intermittent_series": partial(intermittent_series, rest_s=0.5, n_points=1),
    "attenuated_series": partial(attenuated_series, transmission=0.5, n_points=1),
    "fresh_spots_protocol": partial(
        fresh_spots_protocol, n_ocv=1, n_fresh=0, hold_s=0.0, charge_timeout_s=0.0, fresh=("A",)
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_a_failure_at_any_message_leaves_the_shutter_closed_and_the_dose_accounted_for(tmp_path, monkeypatch, name):
    """The failure comes before the message takes effect at even messages, after it did at odd ones."""
    monkeypatch.setattr("bluesky.utils.traceback.format_stack", list)  # half of the time, and of no use here
    index, ended, beamline = 0, False, fake_beamline()
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path  # hundreds of ledgers, each synced to its disk
    while not ended:
        with tempfile.TemporaryDirectory(dir=folder) as ledger, laboratory(Path(ledger), beamline=beamline) as lab:
            record = lab.run(plan_for(lab, ALL[name]), fail_at=index, after=bool(index % 2))
            ended = index >= len(record.messages)
            assert record.shutter == "Closed", record.messages[index]
            assert ended or isinstance(record.error, InjectedFailure), index
            # only what fails while the attenuator is put back can keep it from going back
            assert lab.beamline.attenuator.transmission.get() == 1.0 or "unstage" in record.commands()[:index], index
            standing_s = len(lab.account.unsettled) * 0.298  # a reservation that was not settled counts in full
            assert lab.account.summary()["open_time_s"] + standing_s >= record.open_time_s - 1e-9
        index += 1
    assert index > 80


@pytest.mark.parametrize("name", ALL)
def test_exposures_are_not_rewindable_and_follow_a_checkpoint(lab, name):
    record = lab.run(plan_for(lab, ALL[name]))
    assert record.error is None
    rewindable, since_checkpoint = True, 0
    for message in record.messages:
        if message.command == "rewindable" and message.args[0] is not None:
            rewindable = message.args[0]
        if message.command == "checkpoint":
            since_checkpoint = 0
        if message.command == "trigger" and lab.beamline.stage.x.user_readback.get() != -250.0:
            assert not rewindable
            since_checkpoint += 1
        if message.command == "create" and message.kwargs["name"] == "primary":
            assert since_checkpoint <= 2  # the flat before it at most
    assert record.opened >= 2


@pytest.mark.parametrize("name", ALL)
def test_the_run_says_which_strategy_with_which_arguments(lab, name):
    record = lab.run(plan_for(lab, ALL[name], md={"operator": "me"}))
    (opened,) = [message for message in record.messages if message.command == "open_run"]
    assert opened.kwargs["plan_name"] == name
    assert opened.kwargs["operator"] == "me"
    assert opened.kwargs["plan_args"]["exposure_s"] == 0.048
    assert opened.kwargs["dose"]["material"] == "NMC622"
