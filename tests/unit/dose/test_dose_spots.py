"""The next spot: nearest, fresh, inside everything, the same every time."""

from contextlib import contextmanager

import pytest

from xbat_live.dose import (
    Beam,
    DoseAccount,
    DoseLimit,
    DoseTarget,
    ExposureRequest,
    Ledger,
    electron_range_um,
    guard_distance_um,
    next_spot,
    presets,
    spill_over_gy,
)

SAMPLE = (-100.0, 100.0, -100.0, 100.0)
FAR = (-1e4, 1e4, -1e4, 1e4)
LIMITS = (DoseLimit("limit", "NMC622", limit_gy=1e6),)


@contextmanager
def account(folder, dosed=(), limits=LIMITS, **options):
    with Ledger.for_sample(folder, "cell") as ledger:
        dose = DoseAccount(
            ledger,
            stack=presets.cell("txm_nmc622"),
            beam=Beam.top_hat(1e10, (30, 30)),
            limits=limits,
            layer="cathode",
            material="NMC622",
            outline_um=(200, 200),
            **options,
        )
        for x_um, y_um, seconds in dosed:
            dose.record_unreserved(ExposureRequest(x_um, y_um, 8562.0, seconds, 1e10), "before")
        yield dose


def find(dose, current=(0.0, 0.0), **changes):
    options = {"footprint_um": (30, 30), "guard_um": 2.0, "bounds_um": SAMPLE, "stage_limits_um": FAR, "step_um": 1.0}
    return next_spot(dose, current, **(options | changes))


MUCH, LITTLE = 1.0, 0.048  # seconds: 190 kGy and 9 kGy, above and below 1 % of 1 MGy
SQUARE = ((0.0, 0.0, MUCH),)


@pytest.mark.parametrize(
    ("dosed", "changes", "expected", "reason"),
    [
        (SQUARE, {}, (0.0, -32.0), "footprint and guard away; of four at equal distance the smallest y"),
        (SQUARE, {"guard_um": 10.0}, (0.0, -40.0), "the guard distance is kept"),
        (SQUARE, {"step_um": 25.0}, (0.0, -50.0), "on the grid of steps through the present spot"),
        (SQUARE, {"step_um": (25.0, 40.0)}, (0.0, -40.0), "steps may differ by axis"),
        (
            ((0.0, 0.0, LITTLE),),
            {},
            (0.0, -1.0),
            "less than 1 % of the limit is fresh; the present spot is not returned",
        ),
        (((0.0, 0.0, LITTLE),), {"fresh_fraction": 0.001}, (0.0, -32.0), "the fraction is the caller's choice"),
        (SQUARE, {"offsets_um": ((0, 0), (30, 0))}, (0.0, -32.0), "both fields are fresh one row further"),
        (
            (*SQUARE, (40.0, -32.0, MUCH), (40.0, 32.0, MUCH)),
            {"offsets_um": ((0, 0), (30, 0))},
            (32.0, 0.0),
            "the second field counts as well",
        ),
        (SQUARE, {"forbidden_um": ((-100, 100, -100, -16),)}, (-32.0, 0.0), "not in a forbidden zone"),
        (SQUARE, {"stage_limits_um": (-50, 50, -20, 50)}, (-32.0, 0.0), "not beyond the stage's travel"),
        (
            SQUARE,
            {"stage_limits_um": (-50, 50, -35, 50), "drift_um": (0, -5)},
            (-32.0, 0.0),
            "travel is in stage coordinates",
        ),
        (SQUARE, {"bounds_um": (-100, 100, -40, 100)}, (-32.0, 0.0), "the footprint stays on the sample"),
        (SQUARE, {"bounds_um": (-20, 20, -20, 20)}, None, "nothing is left"),
        (SQUARE, {"bounds_um": (-10, 10, -10, 10)}, None, "the sample is smaller than the footprint"),
        ((), {"step_um": 300.0}, None, "no candidate but the present spot"),
    ],
)
def test_next_spot(tmp_path, dosed, changes, expected, reason):
    with account(tmp_path, dosed) as dose:
        found = find(dose, **changes)
        assert found == (None if expected is None else pytest.approx(expected)), reason
        assert find(dose, **changes) == found


def test_a_reservation_makes_a_spot_stale(tmp_path):
    with account(tmp_path, SQUARE) as dose:
        dose.reserve(ExposureRequest(0.0, -32.0, 8562.0, MUCH, 1e10))
        assert find(dose) == (-32.0, 0.0)


def test_without_a_dose_limit_any_dose_makes_stale(tmp_path):
    with account(tmp_path, ((0.0, 0.0, 1e-6),), limits=()) as dose:
        assert find(dose) == (0.0, -32.0)


def test_spots_are_used_up_one_by_one_and_never_overlap(tmp_path):
    with account(tmp_path) as dose:
        spots, spot = [], (0.0, 0.0)
        while spot is not None:
            spots.append(spot)
            for offset in (0.0, 30.0):
                dose.record_unreserved(ExposureRequest(spot[0] + offset, spot[1], 8562.0, MUCH, 1e10), "measured")
            spot = find(dose, spot, offsets_um=((0.0, 0.0), (30.0, 0.0)))
        assert len(spots) >= 8
        assert dose.summary()["peak_gy"] == pytest.approx(
            dose.predict(ExposureRequest(0, 0, 8562, MUCH, 1e10)), rel=0.01
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guard_um": -1.0}, "guard distance -1 um"),
        ({"step_um": 0.0}, "must be positive"),
        ({"footprint_um": (30, float("nan"))}, "must be positive"),
        ({"bounds_um": (100, -100, -100, 100)}, "the order is x0, x1, y0, y1"),
        ({"offsets_um": ()}, "at least one field"),
        ({"fresh_fraction": 5}, "write 0.01 for 1 %"),
    ],
)
def test_nonsense_is_refused(tmp_path, changes, message):
    with account(tmp_path) as dose, pytest.raises(ValueError, match=message):
        find(dose, **changes)


# -- guard distance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("energy_ev", "density", "expected_um"),
    [(8400.0, 1.2, 1.4), (27000.0, 1.2, 11.0)],
)
def test_electron_range_of_the_reference_text(energy_ev, density, expected_um):
    assert electron_range_um(energy_ev, density) == pytest.approx(expected_um, rel=0.05)


@pytest.mark.parametrize(
    ("terms", "expected_um", "reason"),
    [
        ({"position_sigma_um": 0, "electron_range_um": 0}, 0, "nothing uncertain, nothing kept"),
        ({"position_sigma_um": 0.5, "electron_range_um": 1.4}, 2.9, "three sigma and the range"),
        (
            {"position_sigma_um": 0, "electron_range_um": 0, "diffusion_m2_s": 1e-10, "time_s": 3600},
            848.5,
            "0.85 mm in an hour",
        ),
        (
            {
                "position_sigma_um": 0,
                "electron_range_um": 0,
                "diffusion_m2_s": 1e-10,
                "time_s": 4 * 3600,
                "extra_um": 3,
            },
            1700.1,
            "1.7 mm in four hours, and what the user adds",
        ),
    ],
)
def test_guard_distance(terms, expected_um, reason):
    assert guard_distance_um(**terms) == pytest.approx(expected_um, rel=1e-4), reason


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: electron_range_um(8.4, 1.2), r"energies are in eV \(8.4 keV = 8400 eV\)"),
        (lambda: electron_range_um(8400, 1200), "outside 0 .. 25 g/cm3"),
        (lambda: guard_distance_um(position_sigma_um=-1, electron_range_um=1), "position_sigma_um = -1"),
        (lambda: guard_distance_um(position_sigma_um=1, electron_range_um=float("nan")), "electron_range_um = nan"),
        (
            lambda: guard_distance_um(position_sigma_um=1, electron_range_um=1, diffusion_m2_s=1e-5, time_s=1),
            "larger than in any liquid",
        ),
    ],
)
def test_impossible_guard_distances(action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_spill_over_is_the_largest_dose_nearby(tmp_path):
    with account(tmp_path, SQUARE) as dose:
        peak_gy = dose.dose_at(0, 0).peak_gy
        assert spill_over_gy(dose, 0.0, 60.0, reach_um=10.0) == 0
        assert spill_over_gy(dose, 0.0, 60.0, reach_um=31.0) == peak_gy
        with pytest.raises(ValueError, match="reach -1 um"):
            spill_over_gy(dose, 0.0, 0.0, reach_um=-1)


@pytest.mark.parametrize(
    ("electrolyte_gy", "expected", "reason"),
    [
        (1e6, (0.0, -1.0), "little dose, both materials are fresh"),
        (1e4, (0.0, -32.0), "for the electrolyte it is stale"),
    ],
)
def test_a_spot_is_fresh_when_it_is_so_for_every_material_with_a_limit(tmp_path, electrolyte_gy, expected, reason):
    limits = (*LIMITS, DoseLimit("radiolysis", "electrolyte", limit_gy=electrolyte_gy))
    also = [DoseTarget("cathode", "electrolyte")]
    with account(tmp_path, ((0.0, 0.0, LITTLE),), limits, also=also) as dose:
        assert find(dose) == expected, reason
