"""Real recorded frames: formats, errors, and that the content follows the stage."""

import dataclasses
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from skimage.registration import phase_cross_correlation

from xbat_live.recordings import find_recordings
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin

SHARED = Path(os.environ.get("XBAT_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
SSRL = SHARED / "txm-ssrl-6-2c"
STILL = TwinSettings(
    jitter_um_yx=(0.0, 0.0),
    backlash_um=0.0,
    drift_um_per_min_yx=(0.0, 0.0),
    beam_drift_um=0.0,
    vibration_probability=0.0,
)


class Beamline:
    def __init__(self, settings):
        self.time_s = 0.0
        self.twin = Twin(settings, clock=lambda: self.time_s)

    def shoot(self, exposure_s, roi, frame_type="Normal"):
        start_s = self.time_s
        self.twin.open_shutter(start_s)
        self.time_s += exposure_s
        self.twin.close_shutter(self.time_s)
        return self.twin.expose(start_s, self.time_s, roi, (1, 1), frame_type)


def textured(rng, shape=(128, 160)):
    image = rng.standard_normal(shape)
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    image = np.fft.ifft2(np.fft.fft2(image) * np.exp(-((f / 0.12) ** 2))).real
    return np.exp(-0.3 * (image / image.std() + 2.5))


@pytest.fixture
def tiffs(tmp_path):
    """One sample frame and two references with a static pattern."""
    rng = np.random.default_rng(0)
    transmission, pattern = textured(rng), 20000 * (1 + 0.1 * textured(rng))
    tifffile.imwrite(tmp_path / "scan_08354.0_eV_001.tif", (transmission * pattern).astype("u2"))
    for i in range(2):
        reference = pattern + rng.normal(0, 40, pattern.shape)
        tifffile.imwrite(tmp_path / f"scan_ref_08354.0_eV_{i:03}.tif", reference.astype("u2"))
    return tmp_path


def test_content_follows_the_stage_and_the_flat_is_a_reference(tiffs):
    beamline = Beamline(dataclasses.replace(STILL, frames=tiffs, time_scale=0.0))
    twin = beamline.twin
    assert twin.sensor_yx == (128, 160)
    roi = Roi(0, 0, 128, 160)
    twin.set_stage("x", 200.0, False)
    flat = twin.expected_counts(roi)
    assert flat.mean() == pytest.approx(20000 * 1.05, rel=0.1), "sample out: the reference, 1 s as recorded"
    ods = []
    for x_px, y_px in ((0.0, 0.0), (2.3, -4.6)):
        twin.set_stage("x", x_px * twin.pixel_size_um, False)
        twin.set_stage("y", y_px * twin.pixel_size_um, False)
        ods.append(np.log(flat) - np.log(twin.expected_counts(roi)))
    window = np.hanning(128)[:, None] * np.hanning(160)
    first, second = ((od - od.mean()) * window for od in ods)
    shift = phase_cross_correlation(second, first, upsample_factor=100)[0]
    assert shift == pytest.approx([4.6, -2.3], abs=0.05)


def test_counts_scale_with_open_time_and_dark_without_beam(tiffs):
    beamline = Beamline(dataclasses.replace(STILL, frames=tiffs))
    roi = Roi(0, 0, 128, 160)
    long, short = (beamline.shoot(t, roi).image.astype(float) for t in (1.0, 0.25))
    dark = beamline.twin.expose(beamline.time_s, beamline.time_s, roi, (1, 1), "Background").image
    assert dark.mean() == pytest.approx(STILL.dark_counts, abs=1)
    assert (short.mean() - 100) / (long.mean() - 100) == pytest.approx(0.25, rel=0.01)


def test_hdf5_exchange_and_first_stack(tmp_path):
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = (1000 * np.stack([textured(rng)] * 3)).astype("f4")
        file["exchange/data_white"] = np.full((2, 128, 160), 1000.0, "f4")
    recordings = find_recordings(tmp_path / "a.h5")
    assert [r.is_reference for r in recordings] == [False] * 3 + [True] * 2
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["some/where"] = np.full((2, 128, 160), 500, "u2")
    assert len(find_recordings(tmp_path / "b.h5")) == 2
    frame = Beamline(dataclasses.replace(STILL, frames=tmp_path / "b.h5")).shoot(1.0, Roi(0, 0, 128, 160))
    assert frame.image.mean() == pytest.approx(600, rel=0.05), (
        "without references a smoothed frame serves, and it plays back"
    )


def _empty(folder):
    return folder, "no frames in this directory; expected Xradia"


def _missing(folder):
    return folder / "gone", "no such file or directory"


def _unknown(folder):
    (folder / "notes.docx").write_text("x")
    return folder / "notes.docx", "unknown kind of file"


def _broken(folder):
    (folder / "bad.xrm").write_bytes(b"nothing")
    return folder, r"bad\.xrm: cannot be read as \.xrm"


def _flat_hdf5(folder):
    with h5py.File(folder / "flat.h5", "w") as file:
        file["x"] = np.zeros(5)
    return folder, r"flat\.h5.*no 3-D dataset"


def _mixed(folder):
    tifffile.imwrite(folder / "a.tif", np.zeros((64, 64), "u2"))
    tifffile.imwrite(folder / "b.tif", np.zeros((64, 80), "u2"))
    return folder, r"b\.tif: frame of 64x80 px, expected 64x64 px .* as in a\.tif"


def _references_only(folder):
    tifffile.imwrite(folder / "ref_1.tif", np.zeros((64, 64), "u2"))
    return folder, "only reference frames"


@pytest.mark.parametrize("make", [_empty, _missing, _unknown, _broken, _flat_hdf5, _mixed, _references_only])
def test_errors_name_the_file_and_what_was_expected(tmp_path, make):
    path, part = make(tmp_path)
    with pytest.raises(ValueError, match=part):
        Twin(dataclasses.replace(STILL, frames=path))


@pytest.mark.skipif(not SSRL.is_dir(), reason=f"real frames not found in {SSRL} (set XBAT_SHARED_DATA)")
def test_real_ssrl_frames():
    beamline = Beamline(dataclasses.replace(STILL, frames=SSRL, energy_ev=8354.0))
    twin = beamline.twin
    assert twin.sensor_yx == (1024, 1024)
    assert twin.pixel_size_um == pytest.approx(0.0312, rel=1e-3)
    roi = Roi(150, 180, 654, 678)
    images = [beamline.shoot(0.3, roi).image.astype(float) for _ in range(2)]
    assert not np.array_equal(*images)
    twin.set_stage("x", 0.5, True)
    twin.set_stage("x", 0.5, False)
    moved = beamline.shoot(0.3, roi).image.astype(float)
    twin.set_stage("x", 160.0, False)
    flat = np.mean([beamline.shoot(0.3, roi, "FlatField").image for _ in range(8)], axis=0) - STILL.dark_counts
    assert flat.mean() > 1.5 * images[0].mean(), "the sample absorbs"
    ods = [np.log(np.maximum((i - STILL.dark_counts) / flat, 0.01)) for i in (images[0], moved)]
    whole = round(0.5 / twin.pixel_size_um)  # compare the same material: what is left is the sub-pixel part
    same = [ods[0][:, whole:], ods[1][:, :-whole]]
    window = np.hanning(654)[:, None] * np.hanning(678 - whole)
    f = np.hypot(np.fft.fftfreq(654)[:, None], np.fft.fftfreq(678 - whole))
    band = np.exp(-((f / 0.08) ** 2)) * -np.expm1(-((f / 0.02) ** 2))  # the illumination wanders, pixels are noisy
    low = [np.fft.fft2((od - od.mean()) * window) * band for od in same]
    shift = phase_cross_correlation(low[1], low[0], space="fourier", upsample_factor=20, normalization=None)[0]
    assert shift == pytest.approx([0.0, whole - 0.5 / twin.pixel_size_um], abs=1.0), (
        "the recorded frames wander by 0.7 px themselves"
    )
    dark = twin.expose(beamline.time_s, beamline.time_s, roi, (1, 1), "Background").image
    assert dark.std() == pytest.approx(STILL.read_noise_counts, rel=0.1)
