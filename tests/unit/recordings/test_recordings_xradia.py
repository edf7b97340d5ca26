"""Xradia files: what the headers tell, pixels, real files, and files that are no good."""

import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from ole_writer import write_ole
from xradia_files import write_xrm, xradia_streams

from xbat_live.recordings import RecordingError, find_all, find_recordings, read_all

SHARED = Path(os.environ.get("XBAT_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"real frames not found in {SHARED} (set XBAT_SHARED_DATA)")


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_header_of_one_frame(tmp_path, rng):
    image = rng.integers(0, 4000, (20, 24), dtype="u2")
    path = write_xrm(tmp_path / "rep01_cell_fov08_08250.0_eV_001of003.xrm", image)
    (frame,) = find_all([path])
    assert (frame.energy_ev, frame.exposure_s, frame.pixel_size_um) == (8250.0, 0.5, 0.0312)
    assert (frame.angle_deg, frame.position_um) == (6.974469, (-5178.05, 5216.9, 3552.0))
    assert datetime.fromtimestamp(frame.time_s) == datetime(2016, 5, 29, 15, 2, 37)
    assert ("Zoneplate Z", "um", -1670.0531) in frame.motors, "µ of latin-1 is understood"
    assert frame.kind == "sample"
    np.testing.assert_array_equal(frame.pixels(), image)


def test_a_series_has_an_angle_and_a_time_per_frame(tmp_path, rng):
    images = rng.normal(0, 1, (3, 8, 10)).astype("f4")
    path = tmp_path / "chip.txrm"
    dates = ("11/09/15 18:19:21", "11/09/15 18:19:29", "11/09/15 18:19:37")
    write_xrm(path, images, energy_ev=9200.017, angles_deg=(-15.0, 0.0, 15.0), dates=dates)
    frames = find_all([path])
    assert [frame.angle_deg for frame in frames] == [-15.0, 0.0, 15.0]
    assert np.diff([frame.time_s for frame in frames]).tolist() == [8, 8]
    assert {frame.energy_ev for frame in frames} == {9200.017}
    np.testing.assert_array_equal(list(read_all(frames)), images)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rep01_000051_ref_cell_08324.0_eV_001of010.xrm", "flat"),
        ("flat-1.xrm", "flat"),
        ("dark_001.xrm", "dark"),
        ("prefix_reference.xrm", "flat"),
        ("preferred.xrm", "sample"),
    ],
)
def test_names_tell_references(tmp_path, name, kind):
    write_xrm(tmp_path / name, np.zeros((4, 4), "u2"))
    assert [frame.kind for frame in find_all([tmp_path])] == [kind]


def test_the_energy_in_the_name_wins_and_the_header_fills_in(tmp_path):
    write_xrm(tmp_path / "a_08340.0_eV.xrm", np.zeros((4, 4), "u2"), energy_ev=8333.0)
    write_xrm(tmp_path / "b.xrm", np.zeros((4, 4), "u2"), energy_ev=8333.0)
    write_xrm(tmp_path / "c.xrm", np.zeros((4, 4), "u2"), energy_ev=0.0)
    assert [frame.energy_ev for frame in find_all([tmp_path])] == [8340.0, 8333.0, None]


def _without(name):
    return lambda streams: streams.pop(name)


def _cut(streams):
    streams["ImageData1/Image1"] = streams["ImageData1/Image1"][:10]


def _kind(streams):
    streams["ImageInfo/DataType"] = np.array([3], "<u4").tobytes()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_without("ImageInfo/ImageHeight"), "ImageInfo/ImageHeight"),
        (_without("ImageData1/Image1"), "ImageData1/Image1 is missing"),
        (_cut, "has 10 bytes, expected 40"),
        (_kind, "DataType is 3, expected 5"),
    ],
)
def test_damaged_files_are_named_with_what_is_wrong(tmp_path, damage, told):
    streams = xradia_streams(np.zeros((1, 4, 5), "u2"))
    damage(streams)
    write_ole(tmp_path / "bad.xrm", streams)
    with pytest.raises(RecordingError, match=rf"bad\.xrm.*{told}"):
        find_all([tmp_path / "bad.xrm"])


@pytest.mark.parametrize("keep", [0, 100, 600, 1500], ids=lambda n: f"{n} bytes left")
def test_truncated_files_are_refused(tmp_path, keep):
    path = write_xrm(tmp_path / "cut.xrm", np.zeros((64, 64), "u2"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordingError, match=r"cut\.xrm"):
        list(read_all(find_all([path])))


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "notes.xrm").write_text("not an image")
    with pytest.raises(RecordingError, match=r"notes\.xrm: cannot be read as \.xrm frames"):
        find_all([tmp_path / "notes.xrm"])


@real
def test_real_frames_of_ssrl():
    frames = find_recordings(SHARED / "txm-ssrl-6-2c")
    samples = [frame for frame in frames if not frame.is_reference]
    references = [frame for frame in frames if frame.is_reference]
    assert (len(samples), len(references)) == (6, 20)
    assert {frame.energy_ev for frame in frames} == {8324.0, 8354.0}
    assert {frame.exposure_s for frame in samples} == {0.5}
    assert {frame.exposure_s for frame in references} == {0.3}
    assert {frame.pixel_size_um for frame in frames} == {0.0312}
    assert {frame.angle_deg for frame in frames} == {6.974469}
    assert all(frame.position_um[0] == pytest.approx(-5178.05, abs=0.2) for frame in samples)
    assert all(frame.position_um[0] == pytest.approx(8322.0, abs=0.2) for frame in references)
    assert datetime.fromtimestamp(samples[0].time_s) == datetime(2016, 5, 29, 15, 2, 37)


@real
def test_real_laboratory_tomography():
    frames = find_all([SHARED / "tomography" / "test_chip_tomo.txrm"])
    assert [round(frame.angle_deg) for frame in frames] == [-45, -30, -15, 0, 15, 30, 45]
    assert {(frame.energy_ev, frame.exposure_s) for frame in frames} == {(9200.017, 5.0)}
    assert frames[0].pixels().shape == (256, 256)


@real
def test_a_real_mosaic_is_one_frame():
    (frame,) = find_all([SHARED / "txm-ssrl-6-2c" / "mosaic_4x4_bin8.xrm"])
    assert (frame.shape, frame.pixel_size_um) == ((1024, 1024), 0.155789)
