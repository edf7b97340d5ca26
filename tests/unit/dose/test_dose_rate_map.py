"""Dose-rate maps from I0 images (Eqs. 1-3 of the LiNiO2 paper), histogram and masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.config import make_config
from xbat_live.dose import Beam, LayerStack, dose_masks, dose_rate_histogram, dose_rate_map, dose_rate_report, presets
from xbat_live.dose_setup import make_beam, make_stack
from xbat_live.sweep_setup import xas_settings

ROCK = presets.cell("lno_rock")
FLUX_PH_S = 1.041e12
BEAM = Beam.gaussian(FLUX_PH_S, (3280, 1210))
CELL = BEAM, ROCK, "cathode", "LiNiO2"
SCAN_EV = np.array([8300.0, 8340.0, 8390.0])
RNG = np.random.default_rng(7)
IMAGE = RNG.uniform(500, 1000, (12, 20))
CUBE = RNG.uniform(500, 1000, (3, 12, 20))
quick = settings(max_examples=30, deadline=None)


def rate_by_hand(counts, energy_ev, pixel_um=6.5, flux=FLUX_PH_S, stack=ROCK):
    """Eqs. 1 and 2 as the paper writes them, for the active material with the mass of its own."""
    layer = stack.layer("cathode")
    tau = float(stack.optical_depth("cathode", energy_ev))
    removed = 1 - math.exp(-tau)
    active, volume = next((m, v) for m, v in layer.parts.items() if m.name == "LiNiO2")
    alone = LayerStack([type(layer)("cathode", layer.thickness_um, {active: volume})])
    share_of_active = float(alone.optical_depth("cathode", energy_ev)) / tau
    on_electrode = flux * stack.transmission_to("cathode", energy_ev)
    pixel_m2, thickness_m = (pixel_um * 1e-6) ** 2, layer.thickness_um * 1e-6
    density_kg_m3 = active.density_g_cm3 * volume * 1e3
    flux_ij = counts / counts.sum() * on_electrode
    return energy_ev * 1.602176634e-19 * removed * share_of_active / (pixel_m2 * thickness_m * density_kg_m3) * flux_ij


def gaussian_image(field_um, fwhm_um, pixel_um=6.5):
    axes = [(np.arange(int(size / pixel_um)) - (int(size / pixel_um) - 1) / 2) * pixel_um for size in field_um]
    x, y = (np.exp(-4 * np.log(2) * (axis / width) ** 2) for axis, width in zip(axes, fwhm_um, strict=True))
    return np.outer(y, x)


# --- the equations -----------------------------------------------------------------------------------------------------------------


def test_equations_1_and_2():
    rates = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=6.5)
    assert rates.shape == IMAGE.shape
    np.testing.assert_allclose(rates, rate_by_hand(IMAGE, 8390.0), rtol=1e-9)


def test_equation_3_is_the_mean_over_the_images():
    rates = dose_rate_map(CUBE, SCAN_EV, *CELL, pixel_size_um=6.5)
    expected = np.mean([rate_by_hand(image, energy) for image, energy in zip(CUBE, SCAN_EV, strict=True)], axis=0)
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


def test_dwell_times_weigh_the_images():
    rates = dose_rate_map(CUBE, SCAN_EV, *CELL, pixel_size_um=6.5, weights=[1, 0, 3])
    expected = 0.25 * rate_by_hand(CUBE[0], SCAN_EV[0]) + 0.75 * rate_by_hand(CUBE[2], SCAN_EV[2])
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


def test_flat_light_gives_the_published_rate():
    """P03 and P05 of the dose model, spread over the field of the farther focus."""
    pixel_um, shape = 20.0, (60, 164)
    share = 3280 * 1210 / (shape[0] * shape[1] * pixel_um**2)
    flat = dose_rate_map(np.ones(shape), 8390.0, *CELL, pixel_size_um=pixel_um)
    np.testing.assert_allclose(flat, 4136 * share, rtol=0.03)
    scan_ev = np.linspace(8266.0, 8878.0, 580)
    cube = np.broadcast_to(np.uint16(100), (580, *shape))
    np.testing.assert_allclose(dose_rate_map(cube, scan_ev, *CELL, pixel_size_um=pixel_um), 3749 * share, rtol=0.04)


@pytest.mark.parametrize(
    ("field_um", "fwhm_um", "peak", "peak_of_scan"),
    [
        ((3280, 1210), (3280, 1210), 6300, 5710),  # dose model 2.1: Gaussians, normalised in the field
        ((2600, 1210), (1750, 920), 11_100, 10_100),
    ],
)
def test_gaussian_beams_of_both_focus_positions(field_um, fwhm_um, peak, peak_of_scan):
    image = gaussian_image(field_um, fwhm_um)
    assert dose_rate_map(image, 8390.0, *CELL, pixel_size_um=6.5).max() == pytest.approx(peak, rel=0.01)
    scan_ev = np.linspace(8266.0, 8878.0, 60)
    cube = np.broadcast_to(image, (60, *image.shape))
    assert dose_rate_map(cube, scan_ev, *CELL, pixel_size_um=6.5).max() == pytest.approx(peak_of_scan, rel=0.02)


@quick
@given(factor=st.floats(0.01, 100), counts=st.floats(0.01, 1e4))
def test_linear_in_the_flux_and_independent_of_the_counts_scale(factor, counts):
    once = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=6.5)
    more = dose_rate_map(IMAGE * counts, 8390.0, *CELL, pixel_size_um=6.5, flux_ph_s=FLUX_PH_S * factor)
    np.testing.assert_allclose(more, once * factor, rtol=1e-9)


@quick
@given(pixel_um=st.floats(0.01, 50), fraction=st.floats(0.05, 1))
def test_every_photon_in_the_field_is_on_the_map(pixel_um, fraction):
    rates = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=pixel_um, fraction_in_field=fraction)
    per_fluence = ROCK.dose_per_fluence(8390.0, "cathode", "LiNiO2")
    assert rates.sum() * pixel_um**2 * 1e-8 == pytest.approx(FLUX_PH_S * fraction * per_fluence, rel=1e-12)


@pytest.mark.parametrize("model", ["attenuation", "energy", "photo", "legacy_jousseaume"])
@pytest.mark.parametrize("where", ["mean", "front", "back"])
def test_definition_and_depth_as_for_single_doses(model, where):
    usual = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=6.5)
    chosen = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=6.5, model=model, where=where)
    ratio = ROCK.dose_per_fluence(8390.0, "cathode", "LiNiO2", model, where) / ROCK.dose_per_fluence(
        8390.0, "cathode", "LiNiO2"
    )
    np.testing.assert_allclose(chosen, usual * ratio, rtol=1e-12)


def test_flux_per_energy_and_harmonics():
    rates = dose_rate_map(CUBE, SCAN_EV, *CELL, pixel_size_um=6.5, flux_ph_s=[1e12, 2e12, 3e12])
    expected = np.mean([rate_by_hand(CUBE[i], SCAN_EV[i], flux=(i + 1) * 1e12) for i in range(3)], axis=0)
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    mixed = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=6.5, harmonics={3: 0.1})
    gray = [ROCK.dose_per_fluence(order * 8390.0, "cathode", "LiNiO2") for order in (1, 3)]
    np.testing.assert_allclose(mixed, rate_by_hand(IMAGE, 8390.0) * (0.9 + 0.1 * gray[1] / gray[0]), rtol=1e-9)


# --- images ------------------------------------------------------------------------------------------------------------------------


def test_the_pixel_of_a_measured_beam():
    beam = Beam.measured(FLUX_PH_S, IMAGE, 0, pixel_size_um=6.5, fraction_in_field=0.8)
    rates = dose_rate_map(IMAGE, 8390.0, beam, ROCK, "cathode", "LiNiO2")
    np.testing.assert_allclose(rates, 0.8 * rate_by_hand(IMAGE, 8390.0), rtol=1e-9)


@pytest.mark.parametrize("dark", [100.0, np.full((12, 20), 100.0), np.full((3, 12, 20), 100.0)], ids=["1", "2d", "3d"])
def test_the_dark_level_is_taken_off(dark):
    rates = dose_rate_map(CUBE + 100, SCAN_EV, *CELL, pixel_size_um=6.5, dark=dark)
    np.testing.assert_allclose(rates, dose_rate_map(CUBE, SCAN_EV, *CELL, pixel_size_um=6.5), rtol=1e-9)


def test_binning_averages_and_drops_what_does_not_fill_a_pixel():
    fine = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=1.625)
    coarse = dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=1.625, bin=4)
    assert coarse.shape == (3, 5)
    assert coarse[1, 2] == pytest.approx(fine[4:8, 8:12].mean())
    assert dose_rate_map(IMAGE, 8390.0, *CELL, pixel_size_um=1.625, bin=5).shape == (2, 4)


def test_noise_in_the_dark_does_not_dilute_the_beam():
    """Counts below the dark level stay in the sum: cutting them off would make the beam's share, and so its dose, smaller."""
    image = np.zeros((200, 200))
    image[90:110, 90:110] = 1000.0
    noisy = image + np.random.default_rng(1).normal(0, 20, image.shape)
    clean, seen = (dose_rate_map(one, 8390.0, *CELL, pixel_size_um=6.5) for one in (image, noisy))
    assert seen[90:110, 90:110].mean() == pytest.approx(clean[90:110, 90:110].mean(), rel=0.02)
    assert seen.min() == 0.0


def test_bad_pixels_take_the_value_of_a_neighbour():
    image, bad = np.full((12, 20), 700.0), np.zeros((12, 20), dtype=bool)
    image[3, 4], image[5, 6], image[0, 0] = np.nan, 1e6, 0.0
    bad[3, 4] = bad[5, 6] = bad[0, 0] = True
    rates = dose_rate_map(image, 8390.0, *CELL, pixel_size_um=6.5, bad_pixels=bad)
    np.testing.assert_allclose(rates, dose_rate_map(np.ones((12, 20)), 8390.0, *CELL, pixel_size_um=6.5))


def test_hot_pixels_are_believed_unless_asked_otherwise():
    image = np.full((12, 20), 700.0)
    image[5, 6] = 7000.0
    believed = dose_rate_map(image, 8390.0, *CELL, pixel_size_um=6.5)
    assert believed[5, 6] == pytest.approx(10 * believed[0, 0])
    repaired = dose_rate_map(np.stack([image] * 3), SCAN_EV, *CELL, pixel_size_um=6.5, hot_pixel_ratio=3)
    assert repaired[5, 6] == pytest.approx(repaired[0, 0])


def test_a_saturated_image_is_told_once(caplog):
    cube = np.full((3, 12, 20), 65535, dtype=np.uint16)
    dose_rate_map(cube, SCAN_EV, *CELL, pixel_size_um=6.5)
    assert [record.message for record in caplog.records] == [
        "I0 image 0 has saturated pixels; the largest dose rate comes out too low"
    ]


def test_a_memory_map_is_read_image_by_image(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE.astype(np.uint16))
    mapped = np.load(tmp_path / "cube.npy", mmap_mode="r")
    rates = dose_rate_map(mapped, SCAN_EV, *CELL, pixel_size_um=6.5)
    np.testing.assert_array_equal(rates, dose_rate_map(CUBE.astype(np.uint16), SCAN_EV, *CELL, pixel_size_um=6.5))


# --- histogram and masks -----------------------------------------------------------------------------------------------------------


def test_one_call_gives_map_histogram_and_masks():
    image = gaussian_image((3280, 1210), (3280, 1210))
    report = dose_rate_report(image, 8390.0, *CELL, 6.5, start_gy_s=100.0)
    masks = report.masks
    np.testing.assert_array_equal(report.rate_gy_s, dose_rate_map(image, 8390.0, *CELL, 6.5))
    np.testing.assert_allclose(np.diff(masks.edges_gy_s)[1:], 300.0)
    assert {700.0, 1000.0} <= set(masks.edges_gy_s.tolist())  # the paper's intervals: 0.7-1.0 kGy/s
    assert masks.counts.sum() == image.size
    assert masks.areas_um2.sum() == pytest.approx(image.size * 6.5**2)
    interval = int(np.searchsorted(masks.edges_gy_s, 3000.0, side="right")) - 1
    low, high = masks.edges_gy_s[interval : interval + 2]
    np.testing.assert_array_equal(masks.mask(interval), masks.between(low, high))
    assert masks.mask(interval).sum() == masks.counts[interval]
    assert masks.area_um2(masks.mask(interval)) == masks.areas_um2[interval]
    assert (report.layer, report.material, report.model) == ("cathode", "LiNiO2", "attenuation")
    assert report.size_um == (image.shape[1] * 6.5, image.shape[0] * 6.5)
    assert report.mean_gy_s < report.max_gy_s == report.rate_gy_s.max()


def test_a_report_of_binned_images_has_the_larger_pixel():
    report = dose_rate_report(IMAGE, 8390.0, *CELL, pixel_size_um=1.625, bin=4)
    assert report.pixel_size_um == report.masks.pixel_size_um == 6.5
    assert report.masks.areas_um2.sum() == pytest.approx(15 * 6.5**2)


def test_dose_is_rate_times_time():
    """Dose model 2.1: 120 MGy at 7 kGy/s take 17 143 s (P07)."""
    masks = dose_masks([[7000.0, 1000.0]])
    assert masks.dose_gy(17_143).max() == pytest.approx(120e6, rel=1e-3)
    report = dose_rate_report(IMAGE, 8390.0, *CELL, pixel_size_um=6.5)
    assert report.time_to_s(35e6) == pytest.approx(35e6 / report.max_gy_s)


@quick
@given(
    rates=st.lists(st.floats(0, 2e4), min_size=4, max_size=40),
    step=st.sampled_from([100.0, 300.0, 333.3]),
    start=st.sampled_from([0.0, 50.0]),
)
def test_every_pixel_is_in_the_one_interval_that_holds_it(rates, step, start):
    rate_map = np.array(rates)[None, :]
    masks = dose_masks(rate_map, step, start_gy_s=start)
    assert (masks.edges_gy_s[masks.labels] <= rate_map).all()
    assert (rate_map < masks.edges_gy_s[masks.labels + 1]).all()
    assert (sum(mask.astype(int) for mask in masks) == 1).all()
    counts, edges = dose_rate_histogram(rate_map, step, start_gy_s=start)
    np.testing.assert_array_equal(counts, np.histogram(rate_map, edges)[0])
    assert masks.counts[-1] > 0  # no empty intervals above the largest rate


def test_default_intervals_begin_at_zero():
    masks = dose_masks(np.array([[0.0, 299.9, 300.0, 901.0]]))
    assert masks.edges_gy_s.tolist() == [0, 300, 600, 900, 1200]
    assert masks.labels.tolist() == [[0, 0, 1, 3]]
    assert masks.counts.tolist() == [2, 1, 0, 1]
    assert masks.centres_gy_s.tolist() == [150, 450, 750, 1050]


def test_unknown_pixels_belong_to_no_interval():
    masks = dose_masks(np.array([[np.nan, 500.0]]))
    assert masks.labels.tolist() == [[-1, 1]]
    assert masks.counts.sum() == 1


# --- what is refused ---------------------------------------------------------------------------------------------------------------


def broken(row, column, value):
    image = IMAGE.copy()
    image[row, column] = value
    return image


def one(image=IMAGE, energy_ev=8390.0, beam=BEAM, **options):
    return dose_rate_map(image, energy_ev, beam, ROCK, "cathode", "LiNiO2", **{"pixel_size_um": 6.5} | options)


MEASURED = Beam.measured(FLUX_PH_S, np.ones((5, 5)), 0, pixel_size_um=6.5)
ROWS = [
    ("NaN pixel", lambda: one(broken(3, 4, np.nan)), "1 pixels are not finite, .* row 3, column 4; mark them in bad_pixels"),
    ("infinite pixel", lambda: one(broken(0, 1, np.inf)), "row 0, column 1"),
    ("closed shutter", lambda: one(np.zeros((4, 4))), "holds no photons"),
    ("dark above the image", lambda: one(IMAGE, dark=2000.0), "holds no photons above the dark level"),
    ("dark of another camera", lambda: one(IMAGE, dark=np.linspace(0, 1400, 240).reshape(12, 20)), "does not belong"),
    ("dark of another shape", lambda: one(dark=np.zeros((3, 3))), "dark of shape \\(3, 3\\) does not fit"),
    ("a spectrum", lambda: one(np.ones(5)), "image \\(ny, nx\\) or a cube"),
    ("one energy for a scan", lambda: one(CUBE), "3 I0 images, .* not evaluated at one energy"),
    ("energies do not fit", lambda: one(CUBE, SCAN_EV[:2]), "3 I0 images, but energies of shape \\(2,\\)"),
    ("keV", lambda: one(energy_ev=8.39), "8.39 eV is outside .* did you mean 8390 eV"),
    ("keV in a scan", lambda: one(CUBE, SCAN_EV / 1000), "did you mean 8300 eV"),
    ("no pixel size", lambda: one(pixel_size_um=None), "give pixel_size_um, um in the sample plane"),
    ("beam of another camera", lambda: one(beam=MEASURED, pixel_size_um=None), "measured with an image of shape"),
    ("pixel in metres", lambda: one(pixel_size_um=6.5e-6), "6.5e-06 um is outside .* pixel sizes are in um"),
    ("pixel not a number", lambda: one(pixel_size_um=math.nan), "nan um is outside"),
    ("negative flux", lambda: one(flux_ph_s=-1.0), "flux -1 photons/s is not possible"),
    ("flux not a number", lambda: one(flux_ph_s=math.nan), "flux nan photons/s"),
    ("flux per image does not fit", lambda: one(flux_ph_s=[1e12, 1e12]), "does not fit 1 I0 images"),
    ("flux instead of a beam", lambda: one(beam=1.041e12), "beam is a Beam"),
    ("percent in the field", lambda: one(fraction_in_field=80), "write 0.8 for 80 %"),
    ("weights do not fit", lambda: one(CUBE, SCAN_EV, weights=[1, 2]), "one number per energy"),
    ("negative weight", lambda: one(CUBE, SCAN_EV, weights=[1, 2, -1]), "-1 is not possible"),
    ("bin too large", lambda: one(bin=13), "bin 13 does not fit"),
    ("half a bin", lambda: one(bin=2.5), "bin 2.5 does not fit"),
    ("all pixels bad", lambda: one(bad_pixels=np.ones((12, 20), dtype=bool)), "leaves no pixel"),
    ("bad pixels of another shape", lambda: one(bad_pixels=np.zeros((3, 3), dtype=bool)), "does not fit"),
    ("hot pixel ratio", lambda: one(hot_pixel_ratio=0.5), "must be above 1"),
    ("unknown model", lambda: one(model="mu_en"), "known: attenuation, energy"),
    ("masks: step in kGy/s", lambda: dose_masks([[7000.0]], 0.3), "the step is in Gy/s"),
    ("masks: no step", lambda: dose_masks([[7000.0]], 0), "the step is positive"),
    ("masks: start beyond the step", lambda: dose_masks([[7000.0]], 300, start_gy_s=700), "start between 0 and the step"),
    ("masks: negative rate", lambda: dose_masks([[-1.0]]), "0 Gy/s or more"),
    ("masks: nothing known", lambda: dose_masks([[np.nan]]), "at least one"),
    ("masks: a cube", lambda: dose_masks(np.ones((2, 2, 2))), "two dimensions"),
    ("masks: areas without pixel", lambda: dose_masks([[1.0]]).areas_um2, "pixel_size_um"),
    ("masks: endless exposure", lambda: dose_masks([[1.0]]).dose_gy(math.inf), "inf s is not possible"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "action", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_refused_with_a_useful_message(reason, action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_an_interval_that_is_not_there():
    with pytest.raises(IndexError, match=r"no interval 5; there are 1"):
        dose_masks([[1.0]]).mask(5)


@pytest.mark.parametrize(
    ("beam", "size_um", "expected"),
    [
        (Beam.top_hat(1.0, size_um=(100.0, 50.0)), (100.0, 50.0), 1.0),
        (Beam.top_hat(1.0, size_um=(100.0, 50.0)), (50.0, 500.0), 0.5),  # half of its width, all of its height
        (Beam.gaussian(1.0, fwhm_um=(100.0, 50.0)), (100.0, 1e4), 0.7610),  # erf(sqrt(ln 2)): between the half maxima
        (
            Beam.gaussian(1.0, fwhm_um=(2248.0, 829.0)),  # the paper's camera, as simulated
            (3328.0, 1215.5),
            math.erf(math.sqrt(math.log(2)) * 3328 / 2248) * math.erf(math.sqrt(math.log(2)) * 1215.5 / 829),
        ),
        (
            Beam.measured(1.0, np.ones((8, 10)), 0.0, 1.0, 0.8),
            (4.0, 8.0),
            0.32,
        ),  # four columns of ten, of the 80 % in the field
    ],
)
def test_the_part_of_a_beam_in_a_field(beam, size_um, expected):
    assert beam.profile.fraction_within(size_um) == pytest.approx(expected, abs=1e-4)


def test_live_rates_do_not_count_photons_beside_the_field():
    """The camera sees the middle of a larger beam: the rate there is that of the beam's peak, not all of its flux in the picture."""
    config = make_config(
        {
            "sample": {"name": "lno", "cell": "lno_rock", "layer": "cathode", "material": "LiNiO2"},
            "beam": {"flux": "1e12 ph/s", "energy": "8400 eV", "size": ["800 um", "400 um"], "order": 2},
            "camera": {"pixel_size": "10 um"},
            "dose": {"limit": "1 GGy"},
        }
    )
    y_um, x_um = ((np.arange(n) + 0.5 - n / 2) * 40.0 for n in (8, 16))  # binned pixels: 320 x 640 um of it
    i0 = 1e4 * np.exp(-np.log(2) * ((2 * y_um[:, None] / 400) ** 2 + (2 * x_um / 800) ** 2))
    energy_ev = np.linspace(8390.0, 8410.0, 5)
    rates = xas_settings(config).rate_masks(
        np.stack([i0] * 5).astype(np.float32), energy_ev, np.zeros((8, 16), np.float32)
    )
    beam, stack = make_beam(config), make_stack(config)
    peak_gy_s = beam.peak_flux_density * stack.dose_per_fluence(8400.0, "cathode", "LiNiO2")
    assert rates.rate_gy_s.max() == pytest.approx(peak_gy_s, rel=0.02)
