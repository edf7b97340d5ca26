"""GO, WARN or NO-GO, and the ways out: worked tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xbat_live.forecast.facts import Exposing, Forecast, LimitUse, Mark, Refusal, SpotUse, Verdict
from xbat_live.forecast.verdict import NoGoError, judge, refuse_or_record
from xbat_live.forecast.ways_out import frames_needed_per_spot, shorter_exposure_s

DOSE = LimitUse("dose limit", "NMC622", "cathode", 1e6, "Gy", 0.3)
RADIOLYSIS = LimitUse("radiolysis", "electrolyte", "cathode", 20e3, "Gy", 1.4, advisory=True, hit=Mark(70, 30e3))
HOW = Exposing(exposure_s=0.048, extra_s=0.02, margin_s=0.25, flux_ph_s=1e10, allowance=1.1)
FINE = Forecast(
    sample="cell",
    plan="operando_txm_series",
    points=56,
    points_wanted=56,
    ended="completed",
    completed=True,
    duration_s=5e4,
    beam_on_s=11.0,
    frames=112,
    flats=56,
    darks=5,
    rejected=0,
    materials=(),
    limits=(DOSE,),
    spots=SpotUse(1, 1, 6, False, 0, 2),
    exposing=HOW,
    relocations=0,
    rests=0,
    attenuations=0,
    frame_bytes=1_000_000,
    disk_bytes=170_000_000,
    disk_free_bytes=80_000_000_000,
)
REFUSED = Refusal("dose limit", "dose", 1.01e6, 1e6, "Gy")
NO_SPOTS = replace(
    FINE,
    points=28,
    frames=57,
    ended="no fresh spot left on the sample",
    completed=False,
    relocations=5,
    spots=SpotUse(6, 12, 6, False, 5, 2),
    refusal=REFUSED,
)
HALTED = replace(NO_SPOTS, policy=("halt",), relocations=0, spots=SpotUse(1, 2, 6, True, 28, 2))
TOO_MUCH = replace(
    FINE,
    points=0,
    frames=0,
    completed=False,
    ended="the first exposure of a fresh spot was refused",
    refusal=replace(REFUSED, would_be=1.5e6, first_exposure=True),
)
MEAN = Refusal("mean", "windowed rate", 9.0, 6.0, "Gy/s")
TOO_FAST = replace(TOO_MUCH, refusal=Refusal("dose rate limit", "rate", 20e3, 10e3, "Gy/s", first_exposure=False))


@pytest.mark.parametrize(
    ("forecast", "verdict", "told", "why"),
    [
        (FINE, Verdict.GO, "", "far from every limit"),
        (replace(FINE, limits=(replace(DOSE, fraction=0.8),)), Verdict.GO, "", "80 % is not above 80 %"),
        (replace(FINE, limits=(replace(DOSE, fraction=0.81),)), Verdict.WARN, "comes to 81 % of the dose limit", "near"),
        (replace(FINE, relocations=3), Verdict.WARN, "3 relocations", "data of several spots"),
        (replace(FINE, relocations=1), Verdict.WARN, "1 relocation", "one is none too few to tell"),
        (replace(FINE, rests=2, attenuations=1), Verdict.WARN, "2 rests, 1 attenuation", "takes longer, counts less"),
        (replace(FINE, limits=(DOSE, RADIOLYSIS)), Verdict.WARN, "passes the advisory limit 'radiolysis' of 20 kGy", "asked for"),
        (replace(FINE, limits=(DOSE, replace(RADIOLYSIS, configured=False))), Verdict.GO, "", "shown, but nobody asked"),
        (replace(FINE, disk_free_bytes=100_000_000), Verdict.WARN, "need 170 MB, the disk has 100 MB free", "frames would be lost"),
        (NO_SPOTS, Verdict.NO_GO, "needs about 12 spots, the sample offers 6", "the sample is too small"),
        (HALTED, Verdict.NO_GO, "the dose limit of 1 MGy ends it after frame 57, 28 of 56 points (policy halt)", "halts"),
        (TOO_MUCH, Verdict.NO_GO, "a single exposure may come to 1.5 MGy, above the dose limit of 1 MGy", "one is too much"),
        (TOO_FAST, Verdict.NO_GO, "dose rate of every exposure, 20 kGy/s, is above the dose rate limit of 10 kGy/s", "rate"),
        (replace(HALTED, refusal=replace(REFUSED, dosed_before=True)), Verdict.NO_GO, "holds dose already", "an old sample"),
        (replace(HALTED, refusal=MEAN), Verdict.NO_GO, "mean dose rate would be 9 Gy/s", "window"),
        (replace(HALTED, refusal=None, ended="the camera broke"), Verdict.NO_GO, "the camera broke", "whatever it was"),
    ],
)  # fmt: skip
def test_verdict(forecast, verdict, told, why):
    judged = judge(forecast)
    assert judged.verdict is verdict, why
    assert told in "; ".join(judged.reasons)
    assert bool(judged.reasons) == (verdict is not Verdict.GO)


@pytest.mark.parametrize("forecast", [NO_SPOTS, HALTED, TOO_MUCH, TOO_FAST])
def test_a_no_go_names_what_binds_and_at_least_two_ways_out_with_numbers(forecast):
    judged = judge(forecast)
    assert forecast.refusal.limit in judged.binding
    assert len(judged.ways_out) >= 2
    assert all(any(digit.isdigit() for digit in way) or "relocate" in way for way in judged.ways_out)


@pytest.mark.parametrize(
    ("forecast", "ways"),
    [
        (NO_SPOTS, ["fewer points: 28 fit", "shorten the exposure", "attenuate the beam", "12 spots are needed, 6 are there"]),
        (HALTED, ["fewer points", "attenuate", 'dose.policy = "relocate"', "raise the limit"]),
        (TOO_MUCH, ["less open time beyond", 'attenuate the beam to 0.66 of its flux (try: beam.flux = "6.6e+09 ph/s")', 'to "1.5 MGy"']),
        (TOO_FAST, ["attenuate the beam to 0.5 of", "widen the beam: 2 times its area", 'to "20 kGy/s" (dose.rate_limit)']),
    ],
)  # fmt: skip
def test_ways_out(forecast, ways):
    told = "\n".join(judge(forecast).ways_out)
    for way in ways:
        assert way in told


@pytest.mark.parametrize(
    ("frames", "points", "wanted", "spots", "fields", "policy", "needed", "why"),
    [
        (56, 28, 56, 6, 2, ("relocate",), 11, "56 per field on 6 spots are 10, and one again after each relocation"),
        (28, 28, 56, 6, 1, ("relocate",), 10, "with one field nothing is taken again"),
        (56, 28, 56, 6, 2, ("halt",), 56, "one spot has to take all"),
        (84, 28, 56, 1, 2, ("relocate",), 84, "every second frame is taken again"),
    ],
)
def test_frames_needed_per_spot(frames, points, wanted, spots, fields, policy, needed, why):
    forecast = replace(
        NO_SPOTS,
        frames=frames,
        points=points,
        points_wanted=wanted,
        policy=policy,
        spots=SpotUse(spots, 12, spots, False, 5, fields),
    )
    assert frames_needed_per_spot(forecast) == needed, why


@pytest.mark.parametrize("frames", [1, 3, 10, 40])
def test_a_shorter_exposure_is_short_enough_and_not_needlessly_short(frames):
    room = 0.9 * HOW.flux_ph_s * (39 * 0.068 + 1.02 * 0.298)
    found = shorter_exposure_s(replace(HOW, exposure_s=10.0), frames, room)

    def load(exposure_s):
        return HOW.flux_ph_s * ((frames - 1) * (exposure_s + 0.02) + 1.02 * (exposure_s + 0.25))

    assert load(found) <= room
    assert load(found * 1.11) > room  # two digits


def test_no_exposure_is_short_enough_when_the_margin_alone_is_too_much():
    assert shorter_exposure_s(HOW, 1, 0.2 * HOW.flux_ph_s) is None


# --- refuse or record --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forecast", [FINE, replace(FINE, relocations=3)])
@pytest.mark.parametrize("reason", [None, "", "I know"])
def test_go_and_warn_are_recorded_and_need_no_reason(forecast, reason):
    recorded = refuse_or_record(judge(forecast), reason)
    assert recorded["forecast"]["verdict"] in ("GO", "WARN")
    assert "dose_override" not in recorded


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_no_go_is_refused_without_a_reason(reason):
    with pytest.raises(
        NoGoError, match=r"NO-GO: the plan needs about 12 spots[\s\S]*raise the limit[\s\S]*--override-dose"
    ):
        refuse_or_record(judge(NO_SPOTS), reason)


def test_the_reason_of_an_override_is_kept():
    recorded = refuse_or_record(judge(NO_SPOTS), " last beamtime hour ")
    assert recorded["dose_override"] == "last beamtime hour"
    assert recorded["forecast"]["verdict"] == "NO-GO"
    assert recorded["forecast"]["binding"] == "fresh spots (dose limit)"
