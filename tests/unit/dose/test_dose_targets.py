"""Several materials in one account: one map each, limits on any of them, doses given before, doses per spot."""

import math

import numpy as np
import pytest

from xbat_live.dose import UNLIMITED, Beam, DoseLimit, DoseRefused, DoseTarget, presets

ELECTROLYTE = DoseTarget("cathode", "electrolyte")
SEPARATE = DoseTarget("electrolyte", "electrolyte")
WINDOW = DoseTarget("window", "SiO2")


def test_each_target_has_the_dose_of_its_own_coefficient(tmp_path, cell):
    with cell.account(tmp_path, also=[ELECTROLYTE, WINDOW]) as dose:
        assert dose.targets == (cell.primary, ELECTROLYTE, WINDOW)
        cell.expose(dose, cell.frame(energy_ev=8300.0))
        cell.expose(dose, cell.frame(energy_ev=8400.0))
        for target in dose.targets:
            both = sum(cell.stack.dose_per_fluence(e, target.layer, target.material) for e in (8300.0, 8400.0))
            expected = 1e10 * 0.048 * cell.beam.profile.peak_per_cm2 * both
            assert dose.dose_at(0, 0, target).peak_gy == pytest.approx(expected, rel=1e-3)
            assert dose.dose_map(target).dose_gy.max() == dose.dose_at(0, 0, target).peak_gy
        assert [item["peak_gy"] for item in dose.summary()["targets"]] == [
            dose.dose_at(0, 0, target).peak_gy for target in dose.targets
        ]


def test_a_target_that_is_not_tracked_is_told(tmp_path, cell):
    with cell.account(tmp_path) as dose, pytest.raises(ValueError, match="tracked: NMC622 in cathode"):
        dose.dose_map(ELECTROLYTE)


@pytest.mark.parametrize(
    ("limits", "binding", "reason"),
    [
        ({"NMC622": 5.5, "electrolyte": 20}, "NMC622", "the oxide reaches its limit first"),
        ({"NMC622": 50, "electrolyte": 3.5}, "electrolyte", "the electrolyte reaches its limit first"),
    ],
)
def test_the_limit_that_binds_may_be_on_any_target(tmp_path, cell, limits, binding, reason):
    frame_gy = {target.material: cell.frame_gy for target in (cell.primary,)}
    frame_gy["electrolyte"] = (
        cell.frame_gy
        * cell.stack.dose_per_fluence(8562.0, "cathode", "electrolyte")
        / cell.stack.dose_per_fluence(8562.0, "cathode", "NMC622")
    )
    told = [cell.limit(frames * frame_gy[name], name, material=name) for name, frames in limits.items()]
    frames = math.floor(limits[binding])
    with cell.account(tmp_path, told, also=[ELECTROLYTE]) as dose:
        assert dose.exposures_left(cell.frame()) == frames, reason
        for _ in range(frames):
            assert dose.headroom(cell.frame())[0].limit.name == binding
            reservation = dose.reserve(cell.frame())
            assert reservation.limit_name == binding
            dose.settle(reservation.id, open_time_s=0.048, flux_ph_s=1e10)
        with pytest.raises(DoseRefused) as caught:
            dose.reserve(cell.frame())
        assert (caught.value.limit.name, caught.value.kind) == (binding, "dose")


def test_a_limit_without_a_layer_protects_the_material_wherever_it_is_tracked(tmp_path, cell):
    """The electrolyte before the cathode gets more than that inside it; only a limit for the latter layer ignores that."""
    one = (
        1e10
        * 0.048
        * cell.beam.profile.peak_per_cm2
        * cell.stack.dose_per_fluence(8562.0, "electrolyte", "electrolyte")
    )
    inside = one * (
        cell.stack.dose_per_fluence(8562.0, "cathode", "electrolyte")
        / cell.stack.dose_per_fluence(8562.0, "electrolyte", "electrolyte")
    )
    assert inside < 0.99 * one
    between = (one + inside) / 2
    for layer, left in (("", 0), ("electrolyte", 0), ("cathode", 1)):
        only = cell.limit(between, material="electrolyte", layer=layer)
        folder = tmp_path / f"layer {layer}"
        with cell.account(folder, [only], also=[SEPARATE, ELECTROLYTE]) as dose:
            assert dose.exposures_left(cell.frame()) == left


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            DoseLimit("l", "electrolyte", limit_gy=2e4, advisory=True),
            r"add also=\[DoseTarget\('electrolyte', 'elect.* or ",
        ),
        (
            DoseLimit("l", "electrolyte", limit_gy=2e4, layer="cathode"),
            r"add also=\[DoseTarget\('cathode', 'electrolyte'\)\]",
        ),
        (DoseLimit("l", "LFP", limit_gy=2e4), "the stack has no such material"),
        (DoseLimit("l", "NMC622", limit_gy=2e4, layer="window"), "no such material in window"),
    ],
)
def test_a_limit_for_what_is_not_tracked_names_what_to_add(tmp_path, cell, limit, message):
    with pytest.raises(ValueError, match=message), cell.account(tmp_path, [limit]):
        pass


@pytest.mark.parametrize("also", [[DoseTarget("cathode", "gold")], [DoseTarget("nowhere", "NMC622")]])
def test_an_unknown_target_is_refused(tmp_path, cell, also):
    with (
        pytest.raises(ValueError, match=r"has no material 'gold'|no layer 'nowhere'"),
        cell.account(tmp_path, also=also),
    ):
        pass


def test_a_target_added_later_has_its_whole_history(tmp_path, cell):
    """The ledger has the fluence, so any material can be rebuilt from it."""
    with cell.account(tmp_path / "a", also=[ELECTROLYTE]) as dose:
        for number in range(4):
            cell.expose(dose, cell.frame(number * 3.1, energy_ev=8300 + 40 * number))
        from_the_start = dose.dose_map(ELECTROLYTE).dose_gy
    with cell.account(tmp_path / "b") as dose:
        for number in range(4):
            cell.expose(dose, cell.frame(number * 3.1, energy_ev=8300 + 40 * number))
    with cell.account(tmp_path / "b", also=[ELECTROLYTE]) as dose:
        assert np.array_equal(dose.dose_map(ELECTROLYTE).dose_gy, from_the_start)


def test_coefficients_of_many_energies_at_once_are_those_of_each(cell):
    from xbat_live.dose.tracks import Tracks

    energies = np.random.default_rng(1).uniform(7000, 12000, 50)
    together = Tracks(cell.stack, "attenuation", (cell.primary, ELECTROLYTE))
    together.prepare(map(float, energies))
    for energy_ev in map(float, energies):
        assert together.gray_cm2(energy_ev) == Tracks(cell.stack, "attenuation", together.targets).gray_cm2(energy_ev)


def test_rate_and_open_time_maps(tmp_path, cell):
    with cell.account(tmp_path, outline_um=(200, 200), also=[ELECTROLYTE]) as dose:
        cell.expose(dose, cell.frame(flux_ph_s=2e10))
        cell.expose(dose, cell.frame(open_time_s=0.5))
        cell.expose(dose, cell.frame(60.0, open_time_s=0.1))
        rate = dose.peak_rate_map()
        assert rate.rate_gy_s.max() == pytest.approx(2 * cell.frame_gy / 0.048, rel=1e-3)
        ratio = dose.peak_rate_map(ELECTROLYTE).rate_gy_s.max() / rate.rate_gy_s.max()
        assert ratio == pytest.approx(
            cell.stack.dose_per_fluence(8562.0, "cathode", "electrolyte")
            / cell.stack.dose_per_fluence(8562.0, "cathode", "NMC622")
        )
        opened = dose.open_time_map()
        row = np.argmin(abs(opened.y_um))
        for x_um, seconds in ((0.0, 0.548), (60.0, 0.1), (-60.0, 0.0)):
            assert opened.open_time_s[row, np.argmin(abs(opened.x_um - x_um))] == pytest.approx(seconds)
        other = rate.rate_gy_s[row, np.argmin(abs(rate.x_um - 60))]
        assert other == pytest.approx(cell.frame_gy / 0.048, rel=1e-3)


def test_a_large_map_grows_with_the_area_not_with_the_exposures(tmp_path, cell):
    with cell.account(tmp_path) as dose:
        sizes = []
        for x_um in (0.0, 0.1, 0.2, 500.0):
            for _ in range(5):
                dose.record_unreserved(cell.frame(x_um), "x")
            sizes.append(dose._state.map.planes.nbytes)
        assert sizes[0] == sizes[1] == sizes[2] < sizes[3] < 3 * sizes[0]


# -- dose given before ------------------------------------------------------------------------------------------------


def test_a_prior_dose_counts_towards_limits_and_survives(tmp_path, cell):
    with cell.account(tmp_path, [cell.limit(10.5 * cell.frame_gy)], outline_um=(200, 200), also=[ELECTROLYTE]) as dose:
        dose.record_prior(50.0, 0.0, (40.0, 200.0), 5 * cell.frame_gy, "2024 at another beamline, from its log")
        assert dose.exposures_left(cell.frame(50.0)) == 5
        assert dose.exposures_left(cell.frame(0.0)) == 10
        assert dose.dose_at(50, 0, ELECTROLYTE).peak_gy == 0, "its dose is not known from that of the oxide"
        dose.record_prior(0, 0, None, cell.frame_gy, "laboratory tube, whole sample")
        assert dose.exposures_left(cell.frame(0.0)) == 9
        live = dose.dose_map().dose_gy
        assert live.min() == cell.frame_gy
    with cell.account(tmp_path, outline_um=(200, 200), read_only=True) as dose:
        assert np.array_equal(dose.dose_map().dose_gy, live)
        assert dose.summary()["records"]["prior"] == 2


def test_a_prior_dose_is_for_a_material_and_is_never_refused(tmp_path, cell):
    limits = [cell.limit(20e3, material="electrolyte")]
    with cell.account(tmp_path, limits, outline_um=(200, 200), also=[ELECTROLYTE, SEPARATE]) as dose:
        dose.record_prior(0, 0, None, 1e6, "before", material="electrolyte")
        assert [dose.dose_at(0, 0, target).peak_gy for target in dose.targets] == [0, 1e6, 1e6]
        assert dose.exposures_left(cell.frame()) == 0
        dose.record_prior(0, 0, None, 1e6, "before", material="electrolyte", layer="cathode")
        assert [dose.dose_at(0, 0, target).peak_gy for target in dose.targets] == [0, 2e6, 1e6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reason": " "}, "only with a reason"),
        ({"dose_gy": -1.0}, "-1 Gy given before is not possible"),
        ({"dose_gy": math.nan}, "nan Gy given before is not possible"),
        ({"size_um": (0, 10)}, "sizes are in um"),
        ({"x_um": math.inf}, "is not possible"),
        ({"size_um": None}, "no outline"),
        ({"material": "gold"}, "gold in any layer is not tracked"),
    ],
)
def test_an_impossible_prior_dose_leaves_no_record(tmp_path, cell, changes, message):
    values = {"x_um": 0.0, "y_um": 0.0, "size_um": (10, 10), "dose_gy": 1.0, "reason": "before"} | changes
    with cell.account(tmp_path) as dose:
        with pytest.raises(ValueError, match=message):
            dose.record_prior(**values)
        assert list(dose.ledger.records()) == []


# -- spots ------------------------------------------------------------------------------------------------------------


def test_spots_are_told_by_run_number_and_label(tmp_path, cell):
    with cell.account(tmp_path, also=[ELECTROLYTE]) as dose:
        for spot, x_um in ((0, 0.0), (1, 60.0)):
            for jitter in (-0.5, 0.5):
                for label, offset in (("primary A", 0.0), ("primary B", 30.0)):
                    cell.expose(dose, cell.frame(x_um + jitter, offset, run_uid="r1", spot=spot, label=label))
        cell.expose(dose, cell.frame(0.0, run_uid="r2", spot=0, label="primary A"))
        dose.record_unreserved(cell.frame(60.0, on_sample=False), "beside the sample")
        spots = dose.spots()
        told = [(s.run_uid, s.spot, s.label, s.exposures, round(s.x_um, 6), s.y_um) for s in spots]
        assert told == [
            ("r1", 0, "primary A", 2, 0, 0),
            ("r1", 0, "primary B", 2, 0, 30),
            ("r1", 1, "primary A", 2, 60, 0),
            ("r1", 1, "primary B", 2, 60, 30),
            ("r2", 0, "primary A", 1, 0, 0),
        ]
        assert spots[0].open_time_s == pytest.approx(0.096)
        assert spots[0].photons == pytest.approx(2 * 0.048e10)
        assert spots[0].dose_gy == spots[4].dose_gy == dose.dose_at(0, 0).peak_gy, "whoever gave it"
        assert spots[0].doses == (dose.dose_at(0, 0), dose.dose_at(0, 0, ELECTROLYTE))
    with cell.account(tmp_path, also=[ELECTROLYTE], read_only=True) as dose:
        assert dose.spots() == spots


def test_exposures_that_do_not_tell_their_spot_are_gathered_by_place(tmp_path, cell):
    with cell.account(tmp_path) as dose:
        for x_um in (0.0, 14.9, -14.9, 31.0, 33.0, 100.0):
            cell.expose(dose, cell.frame(x_um, run_uid="scan", label="wrapped"))
        assert [(s.exposures, s.x_um) for s in dose.spots()] == [(3, pytest.approx(0)), (2, 32), (1, 100)]


# -- what the ledger knows ----------------------------------------------------------------------------------------------


def test_counter_last_place_and_degraded_flux_are_known_again(tmp_path, cell):
    with cell.account(tmp_path) as dose:
        assert (dose.last_counter_s, dose.last_on_sample) == (None, None)
        cell.expose(dose, cell.frame(3.0), counter_s=12.5)
        reservation = dose.reserve(cell.frame(4.0, spot=7, run_uid="r"), counter_s=13.0)
        assert dose.last_counter_s == 13.0
        assert dose.last_on_sample == reservation.request
        dose.settle(reservation.id, open_time_s=0.3, flux_ph_s=1e10, counter_s=13.3, degraded="ring current")
        dose.note("no counter here")
        dose.record_unreserved(cell.frame(900, on_sample=False), "flat", degraded="ring current")
        assert dose.status().degraded == "ring current"
        status, last = dose.status(), dose.last_on_sample
        assert (last.x_um, last.open_time_s, last.spot) == (4.0, 0.3, 7)
    with cell.account(tmp_path, read_only=True) as dose:
        assert (dose.last_counter_s, dose.last_on_sample, dose.status()) == (13.3, last, status)
        columns = [(r.entry.counter_s, r.entry.degraded, r.entry.spot) for r in dose.ledger.records()]
        assert columns[1:4] == [(12.5, None, None), (13.0, None, 7), (13.3, "ring current", 7)]


def test_status_of_a_place_and_of_the_whole_sample(tmp_path, cell):
    limits = [cell.limit(10 * cell.frame_gy, "dose"), cell.rate(1e6, name="rate")]
    with cell.account(tmp_path, limits, outline_um=(200, 200)) as dose:
        empty = dose.status()
        assert (empty.dose_gy, empty.limit_fraction, empty.exposures_left) == (0, 0, UNLIMITED)
        for _ in range(4):
            cell.expose(dose, cell.frame())
        here, there, whole = dose.status(cell.frame()), dose.status(cell.frame(80.0)), dose.status()
        assert here.dose_gy == whole.dose_gy == dose.dose_at(0, 0).peak_gy
        assert here.dose_gy >= here.percentile_gy > 0
        assert here.limit_fraction == pytest.approx(0.4, rel=1e-3)
        assert (here.binding_limit, here.exposures_left, whole.exposures_left) == ("dose", 5, 5)
        assert (there.dose_gy, there.limit_fraction, there.exposures_left) == (0, 0, 9)
        assert here.rate_gy_s == pytest.approx(cell.frame_gy / 0.048, rel=1e-3)
        assert here.windowed_rate_gy_s == pytest.approx(here.dose_gy / 60, rel=1e-9)


def test_summary_is_plain_data_with_all_targets_and_limits(tmp_path, cell):
    import json

    limits = [cell.limit(), cell.rate(1e4, 60.0, material="electrolyte", layer="cathode")]
    with cell.account(tmp_path, limits, also=[ELECTROLYTE]) as dose:
        summary = json.loads(json.dumps(dose.summary()))
    assert [(item["layer"], item["material"]) for item in summary["targets"]] == [
        ("cathode", "NMC622"),
        ("cathode", "electrolyte"),
    ]
    assert [item["window_s"] for item in summary["limits"]] == [None, 60.0]
    assert summary["stack"] == json.loads(json.dumps(presets.cell("txm_nmc622").as_dict()))
    assert summary["beam"]["kind"] == json.loads(Beam.gaussian(1e10, (30, 30), 8).profile.record()[0])["kind"]
