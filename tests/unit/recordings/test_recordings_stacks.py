"""TIFF, HDF5 and Zarr stacks: what is found in them, and files that are no good."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from xbat_live.recordings import RecordingError, find_all, find_recordings, read_all


def test_data_exchange(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "tooth.h5", "w") as file:
        for name, n in (("data", 3), ("data_white", 2), ("data_dark", 1)):
            file[f"exchange/{name}"] = rng.random((n, 4, 5), "f4")
        file["exchange/theta"] = np.deg2rad([0.0, 90.0, 180.0])
        file["exchange/theta"].attrs["units"] = "radians"
        file["measurement/instrument/monochromator/energy"] = 8.333
        file["measurement/instrument/monochromator/energy"].attrs["units"] = "keV"
        file["measurement/instrument/detector/exposure_time"] = 50.0
        file["measurement/instrument/detector/exposure_time"].attrs["units"] = "ms"
        file["measurement/instrument/detector/x_pixel_size"] = 31.2
        file["measurement/instrument/detector/x_pixel_size"].attrs["units"] = "nm"
    frames = find_all([tmp_path / "tooth.h5"])
    assert [frame.kind for frame in frames] == ["sample"] * 3 + ["flat"] * 2 + ["dark"]
    assert [frame.angle_deg for frame in frames[:3]] == pytest.approx([0.0, 90.0, 180.0])
    assert {(f.energy_ev, f.exposure_s) for f in frames} == {(8333.0, 0.05)}
    assert [frame.pixel_size_um for frame in frames] == pytest.approx([0.0312] * 6)
    assert len(find_recordings(tmp_path / "tooth.h5")) == 5, "the simulator has no use for darks"


def test_nxtomo(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["data"] = np.arange(5 * 6, dtype="u2").reshape(5, 2, 3)
        detector["image_key"] = [2, 1, 0, 3, 0]
        detector["x_pixel_size"] = 6.5e-7  # NeXus lengths without a unit are in m
        file["entry/sample/rotation_angle"] = [0.0, 0.0, 10.0, 20.0, 30.0]
    frames = find_all([tmp_path / "scan.nxs"])
    assert [frame.kind for frame in frames] == ["dark", "flat", "sample", "sample", "sample"]
    assert [frame.valid for frame in frames] == [True, True, True, False, True]
    assert frames[4].angle_deg == 30.0
    assert frames[0].pixel_size_um == pytest.approx(0.65)


def test_tiff_pages_and_ome(tmp_path):
    images = np.arange(3 * 20, dtype="u2").reshape(3, 4, 5)
    tifffile.imwrite(
        tmp_path / "stack.ome.tif",
        images,
        metadata={
            "axes": "TYX",
            "PhysicalSizeX": 31.2,
            "PhysicalSizeXUnit": "nm",
            "Plane": {"ExposureTime": [0.5] * 3, "PositionX": [1.0, 2.0, 3.0], "PositionY": [0.0] * 3},
        },
    )
    frames = find_all([tmp_path / "stack.ome.tif"])
    assert [frame.exposure_s for frame in frames] == [0.5] * 3
    assert [frame.pixel_size_um for frame in frames] == pytest.approx([0.0312] * 3)
    np.testing.assert_array_equal(list(read_all(frames)), images)


def test_zarr(tmp_path):
    root = zarr.open_group(tmp_path / "run.zarr", mode="w", zarr_format=2)
    root.create_array("counts", data=np.ones((2, 3, 4), "u2"))
    root.create_array("flat", data=np.ones((1, 3, 4), "u2"))
    assert [frame.kind for frame in find_all([tmp_path / "run.zarr"])] == ["sample", "sample", "flat"]


def truncated_hdf5(path):
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.zeros((4, 64, 64), "u2")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_tiff(path):
    tifffile.imwrite(path, np.zeros((64, 64), "u2"))
    path.write_bytes(path.read_bytes()[:4096])


def no_stack(path):
    with h5py.File(path, "w") as file:
        file["spectrum"] = np.zeros(20)


def wrong_unit(path):
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.zeros((1, 4, 4), "u2")
        file["exchange/theta"] = [0.0]
        file["exchange/theta"].attrs["units"] = "furlongs"


def keys_do_not_fit(path):
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = np.zeros((2, 4, 4), "u2")
        file["entry/instrument/detector/image_key"] = [0]


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("cut.h5", truncated_hdf5, "truncated"),
        ("cut.tif", truncated_tiff, "truncated"),
        ("text.tif", lambda path: path.write_text("hello"), "cannot be read as .tif"),
        ("text.h5", lambda path: path.write_text("hello"), "cannot be read as .h5"),
        ("spectrum.h5", no_stack, "no 3-D dataset"),
        ("angle.h5", wrong_unit, "furlongs"),
        ("keys.nxs", keys_do_not_fit, "image_key has 1 keys"),
        ("frames.docx", lambda path: path.write_text("hello"), "unknown kind of file '.docx'"),
        ("missing.xrm", lambda path: None, "no such file or directory"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, name, make, told):
    make(tmp_path / name)
    with pytest.raises(RecordingError) as error:
        find_all([tmp_path / name])
    assert name in str(error.value)
    assert told in str(error.value)


def test_frames_of_different_shapes_do_not_belong_together(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), "u2"))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 6), "u2"))
    with pytest.raises(RecordingError, match=r"b\.tif: frame of 4x6 px, expected 4x4 px"):
        find_all([tmp_path])
