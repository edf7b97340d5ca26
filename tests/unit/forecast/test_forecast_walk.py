"""A forecast of whole experiments: what it says, and that its ways out lead out."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import pytest

from xbat_live.config import make_config
from xbat_live.dose import ExposureRequest, Ledger
from xbat_live.dose_setup import make_account
from xbat_live.forecast import Verdict, forecast
from xbat_live.forecast.standins import Timing
from xbat_live.forecast.walk import UnknownMessageError, Walk


@pytest.fixture
def configure(tmp_path):
    content = tomllib.loads(files("xbat_live.cli").joinpath("experiment.toml").read_text())

    def configured(**changes):
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        return make_config({**content, "base_directory": str(tmp_path)}, overrides=overrides)

    return configured


def test_suns_experiment(configure):
    """56 points at 15 min, a flat and two fields each: 13 h 45 min and 112 frames (Sun et al. 2025)."""
    found = forecast(configure())
    assert (found.points, found.frames, found.flats, found.darks) == (56, 112, 56, 5)
    assert found.duration_s == pytest.approx(55 * 900, abs=5)
    assert found.beam_on_s == pytest.approx(168 * 0.048)
    assert found.disk_bytes == 173 * 654 * 678 * 2
    assert found.ended == "completed"
    nmc, electrolyte, *others = found.materials
    assert (nmc.material, nmc.tracked) == ("NMC622", True)
    assert (electrolyte.material, electrolyte.layer) == ("electrolyte", "cathode")
    assert {(item.material, item.layer) for item in others} == {("SiO2", "window"), ("electrolyte", "electrolyte")}
    assert nmc.spot_gy == pytest.approx(56 * nmc.frame_gy, rel=0.01)
    assert nmc.rate_gy_s == pytest.approx(nmc.frame_gy / 0.048)
    assert nmc.frame_gy > 20 * electrolyte.frame_gy  # per mass, nickel absorbs


def test_the_dose_is_that_of_the_account(configure, tmp_path):
    config = configure()
    found = forecast(config)
    with Ledger.for_sample(tmp_path, "other") as ledger:
        account = make_account(config, ledger)
        frame = ExposureRequest(0.0, 0.0, 8562.0, 0.048, 1e10)
        assert found.materials[0].frame_gy == pytest.approx(account.predict(frame), rel=1e-3)


def test_a_shutter_that_does_not_keep_the_time_gives_more(configure):
    timing = Timing(open_extra_s=0.03)
    timed, plain = (forecast(configure(), timed_shutter=timed, timing=timing) for timed in (True, False))
    assert plain.materials[0].frame_gy == pytest.approx(timed.materials[0].frame_gy * 78 / 48)
    assert plain.exposing.margin_s == 0.25


@pytest.mark.parametrize("direct", [True, False])
def test_relocations_are_where_the_budget_ends(configure, direct, monkeypatch):
    """100 kGy, 9.42 kGy and 1.1 allowance: 9 frames of each field fit, the tenth is refused."""
    monkeypatch.setattr(Walk, "direct", direct)
    found = forecast(configure(dose__limit="100 kGy", plan__n_points=30))
    assert found.verdict is Verdict.WARN
    assert found.relocations == 3
    assert (found.spots.used, found.spots.needed, found.spots.frames_per_spot) == (4, 4, 9)
    (limit,) = [use for use in found.limits if use.configured]
    assert limit.hit.frame == 19
    assert limit.hit.time_s == pytest.approx(9 * 900, abs=5)
    assert limit.warn_50.frame < limit.warn_80.frame < limit.hit.frame
    assert "3 relocations: the dose limit of 100 kGy for NMC622 is reached at frame 19" in found.reasons


def test_halt_ends_where_relocate_would_have_moved(configure):
    found = forecast(configure(dose__limit="100 kGy", dose__policy="halt"))
    assert found.verdict is Verdict.NO_GO
    assert (found.frames, found.points, found.relocations) == (18, 9, 0)
    assert found.spots.available > 1


TOO_MANY = {"dose__limit": "40 kGy"}


@pytest.mark.parametrize(
    ("changes", "pattern", "key"),
    [
        (TOO_MANY, r"fewer points: (\d+) fit", "plan.n_points"),
        (TOO_MANY, r'exposure from 48 ms to "([^"]+)"', "camera.exposure"),
        (TOO_MANY, r'beam.flux = "([^"]+)"', "beam.flux"),
        (TOO_MANY, r'raise the limit from 40 kGy to "([^"]+)"', "dose.limit"),
        ({"dose__limit": "150 kGy", "dose__policy": "halt"}, r'dose.policy = "(\w+)"', "dose.policy"),
        ({"dose__limit": "100 kGy", "dose__policy": "halt"}, r'exposure from 48 ms to "([^"]+)"', "camera.exposure"),
        ({"dose__limit": "8 kGy"}, r'exposure from 48 ms to "([^"]+)"', "camera.exposure"),
        ({"dose__limit": "8 kGy"}, r'raise the limit from 8 kGy to "([^"]+)"', "dose.limit"),
        ({"dose__rate_limit": "100 kGy/s"}, r'beam.flux = "([^"]+)"', "beam.flux"),
        ({"dose__rate_limit": "100 kGy/s"}, r'from 100 kGy/s to "([^"]+)"', "dose.rate_limit"),
    ],
)
def test_a_way_out_leads_out(configure, changes, pattern, key):
    """Each way out that is a key of the configuration, alone: what was binding binds no more."""
    before = forecast(configure(**changes))
    assert before.verdict is Verdict.NO_GO
    told = "\n".join(before.ways_out)
    value = re.search(pattern, told)[1]
    after = forecast(configure(**changes | {key.replace(".", "__"): int(value) if value.isdigit() else value}))
    first_frame_fits = before.refusal.first_exposure or before.refusal.kind == "rate"
    assert after.verdict is not Verdict.NO_GO or (
        first_frame_fits and not after.refusal.first_exposure and after.frames > 0
    )


def test_what_the_ledger_holds_counts(configure):
    config = configure(dose__limit="200 kGy", plan__n_points=20)
    clean = forecast(config)
    assert (clean.relocations, clean.ledger_records) == (1, 0)
    with Ledger.for_sample(config.path(config.dose.ledger_directory), config.sample.name) as ledger:
        account = make_account(config, ledger)
        account.record_unreserved(ExposureRequest(0.0, 0.0, 8562.0, 0.5, 1e10), "an earlier run")
    used = forecast(config)
    assert used.ledger_records == 1
    assert used.limits[0].hit.frame < clean.limits[0].hit.frame
    assert forecast(config, fresh=True).limits == clean.limits


def test_a_spot_that_is_used_up_is_told(configure):
    config = configure(dose__limit="200 kGy", dose__policy="halt")
    with Ledger.for_sample(config.path(config.dose.ledger_directory), config.sample.name) as ledger:
        make_account(config, ledger).record_unreserved(ExposureRequest(0.0, 0.0, 8562.0, 1.0, 1e10), "an earlier run")
    found = forecast(config)
    assert found.verdict is Verdict.NO_GO
    assert found.frames == 0
    assert "holds dose already" in found.reasons[0]
    assert any("plan.spot" in way for way in found.ways_out)


def test_rejected_frames_are_retaken_and_cost_dose(configure):
    clean, rejected = forecast(configure()), forecast(configure(), reject=0.2)
    assert rejected.rejected > 10
    assert rejected.frames > clean.frames
    assert rejected.materials[0].spot_gy > clean.materials[0].spot_gy
    assert rejected.limits == forecast(configure(), reject=0.2).limits  # seeded


def test_rests_are_counted_and_take_time(configure):
    """Frames back to back, and a limit on the mean rate over 10 s: the plan rests, and says so."""
    limits = [{"name": "mean", "rate": "5 kGy/s", "window": "10 s"}]
    changes = {"plan__period": "0 s", "plan__n_points": 20, "plan__fields": [["0 um", "0 um"]], "dose__limits": limits}
    halting = forecast(configure(**changes, dose__policy="halt"))
    assert halting.verdict is Verdict.NO_GO
    assert halting.refusal.kind == "windowed rate"
    assert any('"rest"' in way for way in halting.ways_out)
    resting = forecast(configure(**changes, dose__policy=["rest", "relocate"]))
    assert resting.verdict is Verdict.WARN
    assert resting.rests > 0
    assert resting.frames == 20
    assert resting.duration_s > 10


def test_an_attenuated_beam_is_counted(configure):
    found = forecast(configure(dose__rate_limit="100 kGy/s", dose__policy=["attenuate", "relocate"]))
    assert found.verdict is Verdict.WARN
    assert found.attenuations >= 1
    assert found.frames == 112


def test_a_spectrum_is_a_scan(configure):
    energies = ["8320 eV", "8345 eV", "8400 eV"]
    found = forecast(configure(plan__name="xanes_series", plan__energies=energies, plan__n_points=2))
    assert (found.frames, found.flats) == (12, 6)
    nmc = found.materials[0]
    assert nmc.frame_gy < nmc.scan_gy < 3 * nmc.frame_gy  # below the edge a frame gives less
    assert nmc.spot_gy == pytest.approx(2 * nmc.scan_gy, rel=0.02)


def test_time_is_up_is_a_regular_end(configure):
    found = forecast(configure(plan__duration="2 h"))
    assert (found.points, found.ended, found.verdict) == (9, "time is up", Verdict.GO)


def test_limits_of_the_literature_are_shown_and_do_not_decide(configure):
    found = forecast(configure(dose__limit="3 MGy"))
    (shown,) = [use for use in found.limits if not use.configured]
    assert (shown.name, shown.advisory, shown.material) == ("electrolyte_radiolysis", True, "electrolyte")
    assert shown.fraction > 1
    assert found.verdict is Verdict.GO


def test_an_advisory_limit_that_was_asked_for_warns(configure):
    asked = [{"preset": "electrolyte_radiolysis", "layer": "cathode"}]
    found = forecast(configure(dose__limit="3 MGy", dose__limits=asked))
    assert found.verdict is Verdict.WARN
    assert "electrolyte_radiolysis" in found.reasons[0]
    assert len([use for use in found.limits if use.name == "electrolyte_radiolysis"]) == 1


def test_a_full_disk_warns(configure, monkeypatch):
    monkeypatch.setattr("xbat_live.forecast.predict._free_bytes", lambda folder: 100_000_000)
    found = forecast(configure())
    assert found.verdict is Verdict.WARN
    assert "the disk has 100 MB free" in found.reasons[0]


def test_nothing_of_the_experiment_is_written(configure, tmp_path):
    forecast(configure())
    assert list(tmp_path.iterdir()) == []


def test_a_message_nobody_knows_is_told():
    from bluesky.utils import Msg

    def plan():
        yield Msg("teleport")

    with pytest.raises(UnknownMessageError, match="teleport"):
        Walk().run(plan())


def test_what_a_device_raises_reaches_the_plan():
    """As in the RunEngine: the plan may handle it."""
    from bluesky.utils import Msg

    walk = Walk(direct=False)

    def broken():
        raise OSError("stuck")

    walk.beamline.camera.trigger = broken

    def plan():
        try:
            yield Msg("trigger", walk.beamline.camera)
        except OSError as error:
            return str(error)

    assert walk.run(plan()) == "stuck"


AREA = {"plan__area": ["-70 um", "70 um", "-70 um", "70 um"], "plan__step": ["45 um", "45 um"]}
ONE_FIELD = {"plan__fields": [["0 um", "0 um"]]}
PLANS = {
    "move_every_scan": (AREA | ONE_FIELD | {"plan__n_points": 12}, 12, 12),
    "graded_exposure": (
        {"plan__locations": [["-60 um", "0 um"], ["60 um", "0 um"]], "plan__exposures": ["48 ms", "96 ms"], "plan__n_points": 4}
        | ONE_FIELD,
        12,
        2,
    ),
    "calibrate_stage": ({"plan__step": ["2 um", "2 um"], "plan__n_repeats": 1} | ONE_FIELD, 6, 1),
    "intermittent_series": ({"plan__rest": "2 s", "plan__n_points": 5, "plan__period": "0 s"} | ONE_FIELD, 5, 1),
    "attenuated_series": ({"plan__transmission": 0.1, "plan__n_points": 5} | ONE_FIELD, 5, 1),
    "fresh_spots_protocol": (
        {"plan__n_ocv": 3, "plan__n_fresh": 3, "plan__hold": "2 s", "plan__charge_timeout": "2 s", "dose__limit": "30 MGy"} | ONE_FIELD,
        None,
        3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_that_a_file_can_name(configure, name):
    changes, frames, spots = PLANS[name]
    found = forecast(configure(plan__name=name, **changes))
    assert found.completed, found.ended
    assert found.frames == (found.frames if frames is None else frames) > 0
    assert found.spots.used == spots
    assert found.materials[0].spot_gy > 0


def test_an_attenuated_series_gives_less(configure):
    full = forecast(configure(**ONE_FIELD))
    tenth = forecast(configure(plan__name="attenuated_series", plan__transmission=0.1, **ONE_FIELD))
    assert tenth.materials[0].spot_gy == pytest.approx(full.materials[0].spot_gy / 10, rel=1e-3)
    longer = forecast(
        configure(plan__name="attenuated_series", plan__transmission=0.1, plan__keep_counts=True, **ONE_FIELD)
    )
    assert longer.materials[0].spot_gy == pytest.approx(full.materials[0].spot_gy, rel=1e-3)


def test_an_area_that_is_used_up_is_told(configure):
    found = forecast(configure(plan__name="move_every_scan", plan__n_points=17, **AREA, **ONE_FIELD))
    assert found.verdict is Verdict.NO_GO
    assert found.points == 16
    assert "positions of the area are used" in found.reasons[0]
    assert any("16 fit" in way for way in found.ways_out)
    assert any("revisit" in way for way in found.ways_out)
