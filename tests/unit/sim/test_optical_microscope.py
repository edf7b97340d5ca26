"""The reflection microscope of the twin: seeded, true positions, deformation, brightness with charge, references, truth file."""

import dataclasses
import json

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from xbat_live.sim.optical import OpticalMicroscope
from xbat_live.sim.optical_scene import GraphiteSurface, SurfaceState, graphite_reflectance
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin

ROI = Roi(166, 170, 180, 300)
STILL = TwinSettings(
    sensor_yx=(64, 64),
    drift_um_per_min_yx=(0.0, 0.0),
    jitter_um_yx=(0.0, 0.0),
    backlash_um=0.0,
    initial_soc=0.3,
    optical_drift_um_per_min_yx=(0.0, 0.0),
    optical_jitter_um=0.0,
    optical_vibration_probability=0.0,
    optical_deformation_px=0.0,
)
PIXEL_UM = STILL.optical_pixel_size_um


class Bench:
    """A twin with its microscope, on a clock set by hand."""

    def __init__(self, settings=STILL, **changes):
        self.time_s = 50.0
        self.twin = Twin(dataclasses.replace(settings, **changes), clock=lambda: self.time_s)
        self.microscope = OpticalMicroscope(self.twin)

    def shoot(self, roi=ROI, **options):
        return self.microscope.expose(self.time_s, self.time_s + 0.02, roi, **options)

    def see(self):
        """Truth and logarithm of the reflectance: what is fixed on the sensor divides out."""
        self.microscope.set_reference(True)
        white = self.shoot(frame_type="FlatField").image.astype(float) - 100
        self.microscope.set_reference(False)
        frame = self.shoot()
        return frame.truth, np.log(np.maximum(frame.image.astype(float) - 100, 1) / white)

    def move(self, x_um, y_um):
        for axis, position in (("x", x_um), ("y", y_um)):
            self.twin.set_stage(axis, position, True)
            self.twin.set_stage(axis, position, False)


@pytest.fixture(scope="module")
def still():
    return Bench()


def shift_px(reference, moved):
    """Content motion from `reference` to `moved`, (y, x) px."""
    taper = np.outer(*(np.hanning(n) for n in reference.shape))
    pair = ((image - image.mean()) * taper for image in (reference, moved))
    return -phase_cross_correlation(*pair, upsample_factor=50, normalization=None)[0]


def test_same_seed_same_frames_other_seed_other_sample(still):
    again, other = Bench(), Bench(seed=2)
    first = [Bench().shoot().image for _ in range(2)]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(again.shoot().image, first[0])
    between = np.corrcoef(first[0].ravel().astype(float), other.shoot().image.ravel().astype(float))[0, 1]
    assert abs(between) < 0.2


def test_noise_is_fresh_in_every_frame(still):
    one, two = still.shoot().image.astype(float), still.shoot().image.astype(float)
    assert (one != two).mean() > 0.9
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("x_um", "y_um"), [(2.0, 0.0), (0.0, -1.3), (0.37, 4.11)])
def test_a_stage_move_shifts_the_content_the_other_way(x_um, y_um):
    bench = Bench()
    _, before = bench.see()
    bench.move(x_um, y_um)
    truth, after = bench.see()
    assert (truth.y_um, truth.x_um) == pytest.approx((y_um, x_um))
    np.testing.assert_allclose(shift_px(before, after), np.array([-y_um, -x_um]) / PIXEL_UM, atol=0.15)


def test_drift_is_that_of_sample_and_microscope_and_moves_the_content_along():
    bench = Bench(drift_um_per_min_yx=(0.02, 0.0), optical_drift_um_per_min_yx=(0.01, -0.04))
    start, before = bench.see()
    bench.time_s += 60 * 50  # 50 min: y 1.5 um, x -2 um
    end, after = bench.see()
    moved = (end.drift_y_um - start.drift_y_um, end.drift_x_um - start.drift_x_um)
    assert moved == pytest.approx((1.5, -2.0))
    np.testing.assert_allclose(shift_px(before, after), np.array(moved) / PIXEL_UM, atol=0.15)
    assert (end.y_um, end.x_um) == pytest.approx((-end.drift_y_um, -end.drift_x_um))


def test_every_frame_has_its_own_jitter():
    bench = Bench(optical_jitter_um=0.2)
    truths = [bench.shoot().truth for _ in range(40)]
    jitter = np.array([(t.jitter_y_um, t.jitter_x_um) for t in truths])
    assert 0.12 < jitter.std() < 0.28
    np.testing.assert_allclose([(t.y_um, t.x_um) for t in truths], -jitter, atol=1e-9)


def test_deformation_grows_with_charge_and_neighbouring_regions_move_against_each_other():
    surface = GraphiteSurface(dataclasses.replace(STILL, optical_deformation_px=1.5))
    full = np.stack(surface.displacement_px(SurfaceState((0.0, 0.0), 1.0), ROI))
    half = np.stack(surface.displacement_px(SurfaceState((0.0, 0.0), 0.5), ROI))
    np.testing.assert_allclose(half, full / 2, atol=1e-6)
    assert 0.5 < np.hypot(*full).max() <= 1.5
    assert np.abs(full.mean(axis=(1, 2))).max() < 0.2  # hardly any rigid part
    assert full[0].min() < -0.3 < 0.3 < full[0].max()


def test_the_image_follows_the_deformation():
    """Local shift of a patch in the middle of a plate against the truth, at constant brightness."""
    deformed = GraphiteSurface(dataclasses.replace(STILL, optical_deformation_px=3.0))
    flat = GraphiteSurface(STILL)
    state = SurfaceState((0.0, 0.0), 0.6)
    truth = np.stack(deformed.displacement_px(state, ROI))
    y, x = np.unravel_index(np.hypot(*truth)[20:-20, 20:-20].argmax(), (ROI.size_y - 40, ROI.size_x - 40))
    patch = np.s_[y : y + 40, x : x + 40]
    found = shift_px(
        flat.image(state, ROI).sharp[patch] * 1e4 + 100, deformed.image(state, ROI).sharp[patch] * 1e4 + 100
    )
    np.testing.assert_allclose(found, truth[:, y + 20, x + 20], atol=0.35)


def test_graphite_brightens_with_lithiation_unevenly():
    """Gold when full, darker than empty on the way; flakes that lag behind keep their own pace."""
    grey, blue, gold = graphite_reflectance(np.array([0.0, 0.25, 1.0]))
    assert blue < grey < gold
    surface = GraphiteSurface(STILL)
    half, full = (surface.image(SurfaceState((0.0, 0.0), soc), ROI).sharp for soc in (0.5, 1.0))
    ratio = full / np.maximum(half, 1e-3)
    assert ratio.mean() > 1.2
    assert ratio.std() > 0.1


def test_illumination_is_uneven_and_a_white_reference_shows_it(still):
    still.microscope.set_reference(True)
    whole = Roi(0, 0, 512, 640)
    white = still.shoot(whole, frame_type="FlatField")
    still.microscope.set_reference(False)
    light = white.image.astype(float) - 100
    corners = [light[:32, :32].mean(), light[-32:, -32:].mean(), light[:32, -32:].mean(), light[-32:, :32].mean()]
    assert max(corners) < light[240:272, 300:340].mean() * 0.95
    assert min(corners) < 0.85 * max(corners)
    assert (white.truth.reference, white.truth.sample_index) == (True, -1)


def test_the_lamp_scales_the_light_and_darks_are_dark(still):
    full = still.shoot().truth.photons_per_px
    still.microscope.set_lamp(0.5)
    half = still.shoot().truth.photons_per_px
    still.microscope.set_lamp(0.0)
    dark = still.shoot(frame_type="Background")
    still.microscope.set_lamp(1.0)
    assert half == pytest.approx(full / 2, rel=1e-3)
    assert dark.truth.photons_per_px == 0
    assert abs(dark.image.mean() - 100) < 3


def test_vibration_blurs_some_sample_frames_by_seed_and_number_only():
    extents = []
    for _ in range(2):
        bench = Bench(optical_vibration_probability=0.3)
        frames = [bench.shoot() for _ in range(12)]
        extents.append([frame.truth.blur_extent_px for frame in frames])
    assert extents[0] == extents[1]
    assert 1 <= sum(extent > 0 for extent in extents[0]) <= 8
    sharp, blurred = (
        np.mean([np.diff(f.image.astype(float), axis=1).std() for f in frames if f.truth.blurred is kind])
        for kind in (False, True)
    )
    assert blurred < 0.9 * sharp


def test_binning_sums_photons(still):
    one, four = still.shoot(), still.shoot(bin_yx=(2, 2))
    assert four.image.shape == (90, 150)
    assert four.truth.photons_per_px == pytest.approx(4 * one.truth.photons_per_px, rel=1e-3)


@pytest.mark.parametrize("roi", [Roi(-1, 0, 10, 10), Roi(500, 0, 20, 10), Roi(0, 600, 10, 60)])
def test_a_region_off_the_sensor_is_refused(still, roi):
    with pytest.raises(ValueError, match="512x640"):
        still.shoot(roi)


def test_frames_change_nothing_in_the_twin():
    """Visible light is no dose, and the X-ray camera's frames do not depend on those of the microscope."""
    alone, beside = Twin(STILL, clock=lambda: 50.0), Twin(STILL, clock=lambda: 50.0)
    OpticalMicroscope(beside).expose(50.0, 50.02, ROI)
    xray = Roi(0, 0, 64, 64)
    for twin in (alone, beside):
        twin.open_shutter(49.9)
    np.testing.assert_array_equal(alone.expose(49.9, 50.0, xray).image, beside.expose(49.9, 50.0, xray).image)
    assert beside.peak_dose_gy() == alone.peak_dose_gy()


def test_truth_file_has_a_line_per_frame_and_is_only_there_when_there_were_frames(tmp_path):
    bench = Bench()
    bench.microscope.write_truth(tmp_path)
    assert list(tmp_path.iterdir()) == []
    frames = [bench.shoot(), bench.shoot(frame_type="Background")]
    bench.microscope.write_truth(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "truth_optical.jsonl").read_text().splitlines()]
    assert lines == [dataclasses.asdict(frame.truth) for frame in frames]
    assert [line["sample_index"] for line in lines] == [0, -1]
