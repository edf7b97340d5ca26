"""Camera, HDF5 plugin and image plugin of the simulated beamline."""

import contextlib
import resource
import runpy
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.system
ioc = runpy.run_path(str(Path(__file__).with_name("ioc_fixtures.py")))["ioc"]

CAM, HDF, IMAGE = "CAM:cam1:", "CAM:HDF1:", "CAM:image1:"
DEFAULTS = {
    CAM + "Acquire": 0,
    HDF + "Capture": 0,
    CAM + "AcquireTime": 0.001,
    CAM + "AcquirePeriod": 0.0,
    CAM + "ImageMode": "Single",
    CAM + "TriggerMode": "Internal",
    CAM + "FrameType": "Normal",
    CAM + "ArrayCallbacks": 1,
    CAM + "BinX": 1,
    CAM + "BinY": 1,
    CAM + "MinX": 0,
    CAM + "MinY": 0,
    CAM + "SizeX": 128,
    CAM + "SizeY": 96,
    HDF + "EnableCallbacks": 1,
    HDF + "NumCapture": 0,
    HDF + "LazyOpen": 0,
    HDF + "FileWriteMode": "Stream",
    HDF + "AutoIncrement": 1,
    HDF + "CreateDirectory": 0,
    HDF + "FileNumber": 0,
    HDF + "FileName": "t",
    IMAGE + "EnableCallbacks": 1,
    "SH:Cmd": "Close",
}


@pytest.fixture
def camera(ioc, tmp_path):
    """Defaults; files go to tmp_path."""
    for name, value in DEFAULTS.items():
        ioc.put(name, value)
    ioc.put(HDF + "FilePath", str(tmp_path))
    yield ioc
    ioc.put(CAM + "Acquire", 0)
    ioc.put(HDF + "Capture", 0)


def last_image(camera):
    """image1 as clients read it: DBR_SHORT bits are unsigned."""
    shape_yx = camera.get(IMAGE + "ArraySize1_RBV"), camera.get(IMAGE + "ArraySize0_RBV")
    values = np.asarray(camera.get(IMAGE + "ArrayData"))
    return values.astype("<i2").view("<u2")[: shape_yx[0] * shape_yx[1]].reshape(shape_yx)


def test_capture_file_is_named_by_the_template_and_announced(camera, tmp_path):
    assert camera.get(HDF + "FilePath_RBV", text=True) == f"{tmp_path}/"
    assert camera.get(HDF + "FilePathExists_RBV") == 1
    camera.put(HDF + "Capture", 1)
    assert camera.get(HDF + "FullFileName_RBV", text=True) == f"{tmp_path}/t_000000.h5"
    assert camera.get(HDF + "FileNumber_RBV") == 1  # the number of the next file, as ADCore
    assert camera.get(HDF + "Capture_RBV") == 1
    assert (tmp_path / "t_000000.h5").exists()


def test_done_means_on_disk_and_equal_to_the_image(camera, tmp_path):
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "AcquireTime", 0.05)
    camera.put("SH:Cmd", "Open")
    images = []
    for n in range(3):
        camera.put(CAM + "Acquire", 1)
        assert camera.get(HDF + "NumCaptured_RBV") == n + 1
        images.append(last_image(camera))
        with h5py.File(tmp_path / "t_000000.h5", "r", libver="latest", swmr=True) as file:  # still open for writing
            assert np.array_equal(file["/entry/data/data"][n], images[n])
    assert not np.array_equal(images[0], images[1])  # noise is fresh
    assert max(image.max() for image in images) > 1000


def test_frame_type_decides_the_dataset(camera, tmp_path):
    camera.put(HDF + "Capture", 1)
    order = ["Background", "FlatField", "Normal", "FlatField"]
    for kind in order:
        camera.put(CAM + "FrameType", kind)
        camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "NumCaptured_RBV") == 4
    camera.put(HDF + "Capture", 0)
    with h5py.File(tmp_path / "t_000000.h5", "r") as file:
        shapes = {name: file[f"/entry/data/{name}"].shape for name in ("data", "flat", "dark")}
        assert shapes == {"data": (1, 96, 128), "flat": (2, 96, 128), "dark": (1, 96, 128)}
        assert all(file[f"/entry/data/{name}"].chunks == (1, 96, 128) for name in shapes)
        attributes = file["/entry/instrument/NDAttributes"]
        assert attributes["FrameType"][:].tolist() == [1, 2, 0, 2]
        assert np.diff(attributes["NDArrayUniqueId"][:]).tolist() == [1, 1, 1]
        assert abs(attributes["NDArrayTimeStamp"][-1] - time.time()) < 60


def test_empty_datasets_exist_before_the_first_frame(camera, tmp_path):
    """A reader in SWMR mode cannot see datasets made later."""
    camera.put(HDF + "Capture", 1)
    with h5py.File(tmp_path / "t_000000.h5", "r", libver="latest", swmr=True) as file:
        assert [file[f"/entry/data/{name}"].shape[0] for name in ("data", "flat", "dark")] == [0, 0, 0]


def test_swmr_reader_follows_the_writer(camera, tmp_path):
    camera.put(HDF + "Capture", 1)
    with h5py.File(tmp_path / "t_000000.h5", "r", libver="latest", swmr=True) as file:
        data = file["/entry/data/data"]
        for n in range(5):
            camera.put(CAM + "Acquire", 1)
            data.refresh()
            assert data.shape[0] == n + 1
            assert np.array_equal(data[n], last_image(camera))


@pytest.mark.parametrize("multiple", ["Multiple", 1], ids=["string", "index"])
def test_multiple_takes_num_images_and_falls_once(camera, multiple):
    """An index put must not run as another mode (caproto keeps what was written)."""
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "ImageMode", multiple)
    camera.put(CAM + "NumImages", 4)
    camera.watch(CAM + "Acquire_RBV")
    camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "NumCaptured_RBV") == 4
    assert camera.get(CAM + "NumImagesCounter_RBV") == 4
    assert [value for _, value in camera.seen(CAM + "Acquire_RBV", least=2)] == [1, 0]


def test_acquire_period_spaces_the_frames(camera, tmp_path):
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "ImageMode", "Multiple")
    camera.put(CAM + "NumImages", 3)
    camera.put(CAM + "AcquirePeriod", 0.08)
    camera.put(CAM + "Acquire", 1)
    with h5py.File(tmp_path / "t_000000.h5", "r", libver="latest", swmr=True) as file:
        stamps = file["/entry/instrument/NDAttributes/NDArrayTimeStamp"][:]
    assert np.all(np.diff(stamps) >= 0.079)


def test_continuous_runs_until_stopped(camera):
    camera.put(CAM + "ImageMode", "Continuous")
    start = camera.get(CAM + "ArrayCounter_RBV")
    camera.send(CAM + "Acquire", 1)
    deadline_s = time.monotonic() + 20
    while camera.get(CAM + "ArrayCounter_RBV") < start + 3:
        assert time.monotonic() < deadline_s
    camera.put(CAM + "Acquire", 0)
    assert camera.get(CAM + "Acquire_RBV") == 0
    stopped = camera.get(CAM + "ArrayCounter_RBV")
    time.sleep(0.1)
    assert camera.get(CAM + "ArrayCounter_RBV") == stopped


def test_abort_gives_no_frame(camera):
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "AcquireTime", 30.0)
    before = camera.get(CAM + "ArrayCounter_RBV")
    camera.send(CAM + "Acquire", 1)
    camera.eventually(CAM + "Acquire_RBV", 1)
    start_s = time.monotonic()
    camera.put(CAM + "Acquire", 0)
    assert time.monotonic() - start_s < 15  # did not wait for the exposure
    assert camera.get(CAM + "Acquire_RBV") == 0
    assert camera.get(CAM + "ArrayCounter_RBV") == before
    assert camera.get(HDF + "NumCaptured_RBV") == 0
    assert "abort" in camera.get(CAM + "StatusMessage_RBV", text=True)


def test_channel_access_answers_during_an_exposure(camera):
    camera.put(CAM + "AcquireTime", 30.0)
    camera.send(CAM + "Acquire", 1)
    camera.eventually(CAM + "Acquire_RBV", 1)
    camera.put("SH:Cmd", "Open")
    camera.put("SH:Cmd", "Close")
    assert camera.get(CAM + "Acquire_RBV") == 1


def test_software_trigger_releases_one_exposure(camera):
    camera.put(CAM + "TriggerMode", "Software")
    before = camera.get(CAM + "ArrayCounter_RBV")
    camera.send(CAM + "Acquire", 1)
    camera.eventually(CAM + "DetectorState_RBV", "Waiting", text=True)
    assert camera.get(CAM + "ArrayCounter_RBV") == before
    camera.put(CAM + "SoftwareTrigger", 1)
    camera.eventually(CAM + "Acquire_RBV", 0)
    assert camera.get(CAM + "ArrayCounter_RBV") == before + 1


def test_external_trigger_is_the_shutter_opening(camera):
    camera.put(CAM + "TriggerMode", "External")
    camera.send(CAM + "Acquire", 1)
    camera.eventually(CAM + "DetectorState_RBV", "Waiting", text=True)
    camera.put("SH:Cmd", "Open")
    camera.eventually(CAM + "Acquire_RBV", 0)


@pytest.mark.parametrize(
    ("wanted", "shape_yx", "why"),
    [
        ({"SizeX": 64, "SizeY": 32}, (32, 64), "smaller region"),
        ({"BinX": 2, "BinY": 4}, (24, 64), "binning divides rows and columns"),
        ({"MinX": 100}, (96, 28), "the region ends at the sensor's edge"),
        ({"SizeX": 5000}, (96, 128), "larger than the sensor: the sensor"),
        ({"MinY": 500}, (1, 128), "a start outside moves to the last row"),
        ({"BinX": 3}, (96, 42), "a remainder is cut off"),
    ],
)
def test_region_and_binning_update_all_sizes(camera, wanted, shape_yx, why):
    for name, value in wanted.items():
        camera.put(CAM + name, value)
    rows, columns = shape_yx
    assert (camera.get(CAM + "ArraySizeY_RBV"), camera.get(CAM + "ArraySizeX_RBV")) == shape_yx, why
    assert camera.get(CAM + "ArraySize_RBV") == 2 * rows * columns
    for plugin in (HDF, IMAGE):
        assert (camera.get(plugin + "ArraySize1_RBV"), camera.get(plugin + "ArraySize0_RBV")) == shape_yx
    camera.put(CAM + "Acquire", 1)
    assert last_image(camera).shape == shape_yx


def test_disabled_image_plugin_keeps_the_old_frame(camera):
    camera.put(CAM + "Acquire", 1)
    before = last_image(camera)
    camera.put(IMAGE + "EnableCallbacks", 0)
    camera.put(CAM + "Acquire", 1)
    assert np.array_equal(last_image(camera), before)


def test_num_capture_ends_the_capture(camera, tmp_path):
    camera.put(HDF + "NumCapture", 2)
    camera.put(HDF + "Capture", 1)
    for _ in range(3):
        camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "Capture_RBV") == 0
    with h5py.File(tmp_path / "t_000000.h5", "r") as file:
        assert file["/entry/data/data"].shape[0] == 2


def test_lazy_open_makes_the_file_with_the_first_frame(camera, tmp_path):
    camera.put(HDF + "LazyOpen", 1)
    camera.put(HDF + "Capture", 1)
    assert not list(tmp_path.iterdir())
    camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "NumCaptured_RBV") == 1
    assert (tmp_path / "t_000000.h5").exists()


def test_create_directory_makes_at_most_so_many_levels(camera, tmp_path):
    camera.put(HDF + "CreateDirectory", -2)
    camera.put(HDF + "FilePath", str(tmp_path / "a/b/c"))
    assert camera.get(HDF + "FilePathExists_RBV") == 0
    camera.put(HDF + "CreateDirectory", -3)
    camera.put(HDF + "FilePath", str(tmp_path / "a/b/c"))
    assert camera.get(HDF + "FilePathExists_RBV") == 1
    assert (tmp_path / "a/b/c").is_dir()


def refusals(tmp_path):
    """(path, name, expected words) of captures that cannot start."""
    (tmp_path / "file").write_text("")
    (tmp_path / "t_000000.h5").write_text("precious")
    return {
        "missing folder": (tmp_path / "missing", "t", "ENOENT"),
        "a file as folder": (tmp_path / "file", "t", "ENOTDIR"),
        "file exists": (tmp_path, "t", "EEXIST"),
    }


@pytest.mark.parametrize("case", ["missing folder", "a file as folder", "file exists"])
def test_capture_that_cannot_start_says_why_and_the_camera_goes_on(camera, tmp_path, case):
    path, name, word = refusals(tmp_path)[case]
    camera.put(HDF + "FilePath", str(path))
    camera.put(HDF + "FileName", name)
    camera.put(HDF + "Capture", 1)
    assert camera.get(HDF + "WriteStatus", text=True) == "Write error"
    message = camera.get(HDF + "WriteMessage", text=True)
    assert str(path) in message
    assert word in message
    assert (camera.get(HDF + "Capture"), camera.get(HDF + "Capture_RBV")) == (0, 0)
    camera.put(CAM + "Acquire", 1)  # completes
    assert camera.get(HDF + "NumCaptured_RBV") == 0
    assert (tmp_path / "t_000000.h5").read_text() == "precious"


def test_full_disk_is_reported_not_counted_and_survived(camera, tmp_path):
    """A file size limit stands for the full disk: the write fails the same way (EFBIG for ENOSPC)."""
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "Acquire", 1)
    unlimited = resource.prlimit(camera.simulator.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(camera.simulator.pid, resource.RLIMIT_FSIZE, (1 << 16, unlimited[1]))
    camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "NumCaptured_RBV") == 1
    assert camera.get(HDF + "WriteStatus", text=True) == "Write error"
    message = camera.get(HDF + "WriteMessage", text=True)
    assert "t_000000.h5" in message
    assert "EFBIG" in message
    resource.prlimit(camera.simulator.pid, resource.RLIMIT_FSIZE, unlimited)  # room again: the same capture goes on
    camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "WriteStatus", text=True) == "Write OK"
    camera.put(HDF + "Capture", 0)
    with h5py.File(tmp_path / "t_000000.h5", "r") as file:
        assert file["/entry/data/data"].shape[0] == camera.get(HDF + "NumCaptured_RBV") == 2


def test_frames_of_another_size_do_not_enter_the_file(camera):
    camera.put(HDF + "Capture", 1)
    camera.put(CAM + "SizeX", 64)
    camera.put(CAM + "Acquire", 1)
    assert camera.get(HDF + "NumCaptured_RBV") == 0
    assert "ROI" in camera.get(HDF + "WriteMessage", text=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cam1:AcquireTime", -1.0), ("cam1:AcquireTime", 1e9), ("cam1:NumImages", 0)],
)
def test_impossible_settings_are_refused(camera, name, value):
    before = camera.get(f"CAM:{name}_RBV")
    assert camera.refused(f"CAM:{name}", value)
    assert camera.get(f"CAM:{name}_RBV") == before


@pytest.mark.parametrize("value", [9, "Multipel"])
def test_unknown_choice_changes_nothing(camera, value):
    with contextlib.suppress(AssertionError):  # pyepics knows the choices and may refuse by itself
        camera.put(CAM + "ImageMode", value)
    assert camera.get(CAM + "ImageMode", text=True) == "Single"
    assert camera.get(CAM + "ImageMode_RBV", text=True) == "Single"
