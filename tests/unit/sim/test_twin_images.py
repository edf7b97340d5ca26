"""Images: exact positions, Beer-Lambert, noise, saturation, sample contents."""

import dataclasses

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from xbat_live.sim.cell import Cell
from xbat_live.sim.detector import poisson
from xbat_live.sim.instabilities import vibration_of_frame
from xbat_live.sim.sample import ElectrodeSample
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin
from xbat_live.sim.xanes import NickelOxide, normalised_xanes

STILL = TwinSettings(
    sensor_yx=(320, 320),
    jitter_um_yx=(0.0, 0.0),
    backlash_um=0.0,
    drift_um_per_min_yx=(0.0, 0.0),
    beam_drift_um=0.0,
    vibration_probability=0.0,
)
FIELD = Roi(0, 0, 320, 320)


class Beamline:
    """A twin whose laboratory clock is set by hand."""

    def __init__(self, settings):
        self.time_s = 50.0
        self.twin = Twin(settings, clock=lambda: self.time_s)

    def go(self, x_um, y_um=0.0):
        for axis, position in (("x", x_um), ("y", y_um)):
            self.twin.set_stage(axis, position, True)
            self.twin.set_stage(axis, position, False)

    def shoot(self, exposure_s=0.048, *, roi=FIELD, bin_yx=(1, 1), frame_type="Normal"):
        start_s = self.time_s
        self.twin.open_shutter(start_s)
        self.time_s += exposure_s
        self.twin.close_shutter(self.time_s)
        return self.twin.expose(start_s, self.time_s, roi, bin_yx, frame_type)


@pytest.fixture(scope="module")
def still():
    return Beamline(STILL)


def optical_density(beamline, flat):
    return np.log(flat) - np.log(beamline.twin.expected_counts(FIELD))


@pytest.fixture(scope="module")
def flat(still):
    still.go(160.0)
    image = still.twin.expected_counts(FIELD)
    still.go(0.0)
    return image


def shift_px(reference, moved):
    window = np.hanning(320)[:, None] * np.hanning(320)
    shift, _, _ = phase_cross_correlation(
        (moved - moved.mean()) * window, (reference - reference.mean()) * window, upsample_factor=200
    )
    return shift  # what moves `reference` onto `moved`


@pytest.mark.parametrize(("dy", "dx"), [(0.25, 0.4), (0.5, 0.5), (-0.13, 0.0), (3.3, -7.7), (12.75, 9.5)])
def test_content_moves_against_the_stage(still, flat, dy, dx):
    still.go(0.0)
    reference = optical_density(still, flat)
    still.go(dx * STILL.pixel_size_um, dy * STILL.pixel_size_um)
    moved = optical_density(still, flat)
    assert shift_px(reference, moved) == pytest.approx([-dy, -dx], abs=0.05)


def test_no_position_is_blurred_more_than_another(still, flat):
    def power(beamline):
        image = optical_density(beamline, flat)
        image = (image - image.mean()) * np.hanning(320)[:, None] * np.hanning(320)
        f = np.hypot(np.fft.fftfreq(320)[:, None], np.fft.fftfreq(320))
        return np.abs(np.fft.fft2(image))[(f > 0.2) & (f < 0.35)].std()

    still.go(0.0)
    whole = power(still)
    still.go(0.5 * STILL.pixel_size_um, 0.5 * STILL.pixel_size_um)
    assert power(still) == pytest.approx(whole, rel=0.01)


def test_drift_moves_the_content_and_the_stage_follows_it():
    beamline = Beamline(dataclasses.replace(STILL, drift_um_per_min_yx=(0.01, 0.0), time_scale=60.0))
    beamline.go(160.0)
    flat_image = beamline.twin.expected_counts(FIELD)
    beamline.time_s += 10.0 - (beamline.time_s - 50.0)
    beamline.go(0.0)
    first = optical_density(beamline, flat_image)
    start = beamline.twin.drift_um()[1]
    beamline.time_s += 20.0  # 20 twin minutes: 0.2 um
    drifted = beamline.twin.drift_um()[1] - start
    assert drifted == pytest.approx(0.2)
    moved = optical_density(beamline, flat_image)
    assert shift_px(first, moved)[0] == pytest.approx(drifted / STILL.pixel_size_um, abs=0.05)
    beamline.go(0.0, drifted)
    assert optical_density(beamline, flat_image) == pytest.approx(first, abs=0.01)


def test_beer_lambert(still, flat):
    """Optical density is thickness times attenuation: two energies above the edge differ by coefficients only."""
    still.go(0.0)
    oxide, cell = NickelOxide(), Cell(STILL)
    images = {}
    for energy_ev in (8562.0, 8800.0):
        still.twin.set_energy(energy_ev)
        images[energy_ev] = (optical_density(still, flat) - cell.optical_depth(energy_ev)) / oxide.mu_per_um(
            energy_ev, 0.05
        )
    still.twin.set_energy(8562.0)
    assert images[8562.0] == pytest.approx(images[8800.0], abs=0.02), "the same thickness in um"
    assert 3.0 < images[8562.0].mean() < 10.0
    assert images[8562.0].min() > -0.02


def test_matrix_of_tiles_has_no_seams():
    sample = ElectrodeSample(STILL)
    whole, _ = sample.window(-100, -100, 400, 300)
    part, _ = ElectrodeSample(STILL).window(51, -7, 60, 70)
    assert np.array_equal(whole[151:211, 93:163], part)
    assert not ElectrodeSample(STILL).window(-50, 3100, 60, 60)[0].any(), "outside the outline nothing"


def test_every_field_holds_particles():
    particles = ElectrodeSample(STILL).particles
    for y in (-100.0, -40.0, 30.0, 78.0):
        for x in (-100.0, -33.0, 10.0, 78.0):
            inside = (abs(particles.y_um - y - 11) < 11) & (abs(particles.x_um - x - 11) < 11)
            assert inside.sum() >= 10
    assert particles.radius_um.min() >= 1.5
    assert particles.radius_um.max() <= 6.0


def test_edge_moves_with_charge():
    """Half height of the normalised edge: +2.5 eV from state of charge 0 to 1."""
    energies = np.arange(8330.0, 8352.0, 0.05)
    edge = []
    for soc in (0.0, 1.0):
        values = np.array([float(normalised_xanes(e, soc)) for e in energies])
        edge.append(energies[np.argmax(values > 0.5)])
    assert edge[1] - edge[0] == pytest.approx(2.5, abs=0.3)
    oxide = NickelOxide()
    assert oxide.mu_per_um(8300.0, 0.0) < 0.6 * oxide.mu_per_um(8562.0, 0.0), "2.2x at the Ni K edge"
    for energy_ev in (8200.0, 8740.0):
        assert oxide.mu_per_um(energy_ev, 0.0) == oxide.mu_per_um(energy_ev, 1.0)


def test_closed_shutter_gives_dark(still):
    frame = still.twin.expose(still.time_s - 1.0, still.time_s - 0.9, FIELD, (1, 1), "Background")
    image = frame.image.astype(float)
    assert image.mean() == pytest.approx(STILL.dark_counts + 0.1 * STILL.dark_current_counts_s, abs=1.5)
    assert image.std() < 8
    assert (frame.truth.open_time_s, frame.truth.photons_per_px, frame.truth.sample_index) == (0.0, 0.0, -1)


def test_long_exposure_saturates_and_not_beyond(still):
    still.go(160.0)
    image = still.shoot(8.0, frame_type="FlatField").image
    still.go(0.0)
    assert image.dtype == np.uint16
    assert (image == 65535).mean() > 0.5


def test_noise_is_photon_noise(still):
    """Difference of two frames: variance = 2 gain counts, up to read noise."""
    still.go(0.0)
    first, second = (still.shoot().image.astype(float) for _ in range(2))
    signal = (first.mean() + second.mean()) / 2 - STILL.dark_counts
    expected = 2 * (signal * STILL.counts_per_photon + STILL.read_noise_counts**2)
    assert np.var(first - second) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.3, 20.0, 49.0, 70.0])
def test_poisson_moments(mean):
    numbers = poisson(np.full((400, 400), mean, np.float32), np.random.default_rng(5))
    assert numbers.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean) / 400)
    assert numbers.var() == pytest.approx(mean, rel=0.03 if mean > 0.1 else 0.15)


def test_same_seed_same_frames_and_fresh_noise():
    frames = []
    for _ in range(2):
        beamline = Beamline(STILL)
        beamline.go(12.3)
        frames.append([beamline.shoot().image for _ in range(2)])
    assert np.array_equal(frames[0][0], frames[1][0])
    assert np.array_equal(frames[0][1], frames[1][1])
    assert not np.array_equal(frames[0][0], frames[0][1])


def test_vibration_blurs_along_its_direction_and_truth_says_so():
    settings = dataclasses.replace(
        STILL, vibration_probability=1.0, vibration_extent_px=(10.0, 10.0), flux_ph_s=1e12, counts_per_photon=0.1
    )
    blurred, sharp = Beamline(settings), Beamline(dataclasses.replace(settings, vibration_probability=0.0))
    frame, reference = blurred.shoot(), sharp.shoot()
    vibration = vibration_of_frame(settings, 0)
    assert (frame.truth.blur_extent_px, frame.truth.blur_angle_deg) == (vibration.extent_px, vibration.angle_deg)
    assert frame.truth.blurred
    assert not reference.truth.blurred
    window = np.hanning(320)[:, None] * np.hanning(320)
    sharp.go(160.0)
    flat_image = sharp.shoot(frame_type="FlatField").image - STILL.dark_counts
    seen = [(f.image - STILL.dark_counts) / flat_image for f in (frame, reference)]
    spectra = [np.abs(np.fft.fft2((s - s.mean()) * window)) for s in seen]
    fy, fx = np.meshgrid(np.fft.fftfreq(320), np.fft.fftfreq(320), indexing="ij")
    angle = np.deg2rad(vibration.angle_deg)
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)

    def ratio(region):
        return spectra[0][region].mean() / spectra[1][region].mean()

    assert ratio((abs(along) > 0.07) & (abs(along) < 0.12) & (abs(across) < 0.02)) < 0.45
    assert ratio((abs(across) > 0.07) & (abs(across) < 0.12) & (abs(along) < 0.01)) > 0.85


def test_binning_sums_photons(still):
    still.go(0.0)
    single, double = still.shoot(), still.shoot(bin_yx=(2, 2))
    assert double.image.shape == (160, 160)
    signal = single.image.mean() - STILL.dark_counts
    assert double.image.mean() - STILL.dark_counts == pytest.approx(4 * signal, rel=0.02)
    part = still.shoot(roi=Roi(10, 20, 100, 90))
    assert part.image.shape == (100, 90)
    assert part.image.mean() == pytest.approx(single.image[10:110, 20:110].mean(), rel=0.01)
    with pytest.raises(ValueError, match="320x320 px"):
        still.shoot(roi=Roi(0, 300, 100, 100))


def test_breathing_displaces_locally_but_not_on_average():
    beamline = Beamline(dataclasses.replace(STILL, sensor_yx=(654, 678), initial_soc=0.5))
    roi = Roi(0, 0, 654, 678)
    before = np.log(beamline.twin.expected_counts(roi))
    again = Beamline(dataclasses.replace(STILL, sensor_yx=(654, 678), initial_soc=1.0))
    after = np.log(again.twin.expected_counts(roi))
    assert np.abs(after - before).max() > 0.02, "something moved"
    shifts = []
    for y in range(0, 560, 109):
        for x in range(0, 570, 113):
            tiles = [image[y : y + 108, x : x + 108] for image in (after, before)]
            windowed = [(t - t.mean()) * np.hanning(108)[:, None] * np.hanning(108) for t in tiles]
            shifts.append(phase_cross_correlation(*windowed, upsample_factor=50, normalization=None)[0])
    assert np.linalg.norm(np.mean(shifts, axis=0)) < 0.2
    assert 0.05 < np.std(shifts) < 0.6
