"""The documents of a frame: which Resource, which row, and the data key."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xbat_live.devices import FRAME_DATASETS, SINGLE_DATASET, FrameWriteError, Roi


def take(camera, frame_type="Normal"):
    """Take one frame; return (documents, row of the datum)."""
    camera.frame_type.put(frame_type)
    camera.trigger().wait(timeout=2)
    value = camera.read()["camera_image"]["value"]
    documents = list(camera.collect_asset_docs())
    datums = {doc["datum_id"]: doc for name, doc in documents if name == "datum"}
    return documents, datums[value]["datum_kwargs"]["point_number"]


def resources(documents):
    return [doc for name, doc in documents if name == "resource"]


def test_data_key_says_shape_type_and_unit(camera):
    camera.stage()
    key = camera.describe()["camera_image"]
    assert tuple(key["shape"]) == (1, 6, 8)
    assert (key["dtype_numpy"], key["units"], key["external"]) == ("<u2", "counts", "FILESTORE:")


def test_image_is_described_before_the_first_trigger_so_that_a_stream_can_be_declared(camera):
    camera.stage()
    assert set(camera.describe()) == {"camera_image", "camera_frame_file", "camera_frame_dataset", "camera_frame_index"}
    with pytest.raises(RuntimeError, match="no frame yet"):
        camera.read()
    take(camera)
    assert set(camera.read()) == set(camera.describe())


@pytest.mark.parametrize(
    ("frame_type", "spec", "keywords"),
    [
        # standard readers of AD_HDF5 know where the data are; chunk_shape would break area_detector_handlers
        ("Normal", "AD_HDF5", {"frame_per_point": 1}),
        ("FlatField", "HDF5", {"frame_per_point": 1, "dataset": "/entry/data/flat"}),
        ("Background", "HDF5", {"frame_per_point": 1, "dataset": "/entry/data/dark"}),
        # a choice of FrameType that has no dataset of its own goes where areaDetector's default is
        ("DblCorrelation", "AD_HDF5", {"frame_per_point": 1}),
    ],
)
def test_one_resource_per_dataset(camera, frame_type, spec, keywords):
    camera.stage()
    documents, row = take(camera, frame_type)
    (resource,) = resources(documents)
    assert (resource["spec"], resource["resource_kwargs"], row) == (spec, keywords, 0)
    assert Path(resource["root"], resource["resource_path"]) == camera.last_frame.file
    assert resources(take(camera, frame_type)[0]) == []  # once per dataset and file


def test_rows_count_within_each_dataset(camera):
    camera.stage()
    sequence = ["Background", "FlatField", "Normal", "Normal", "FlatField", "Normal"]
    assert [take(camera, kind)[1] for kind in sequence] == [0, 0, 0, 1, 1, 2]
    assert camera.last_frame.dataset == "/entry/data/data"
    assert camera.last_frame.index == 2


def test_a_detector_without_the_layout_has_one_dataset_for_all(camera):
    camera.hdf1.datasets = SINGLE_DATASET
    camera.stage()
    assert [take(camera, kind)[1] for kind in ("Background", "FlatField", "Normal")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("steps", "rows", "reason"),
    [
        (["Normal", "orphan", "Normal"], [0, 2], "an aborted exposure left a frame: the next row is one further"),
        (["orphan", "Normal"], [1], "even before the first event"),
        (["Normal", "orphan", "orphan", "Normal", "Normal"], [0, 3, 4], "any number of them"),
        (["FlatField", "orphan", "Normal", "FlatField"], [0, 0, 2], "it is a row of the dataset chosen at that time"),
        (["Normal", "FlatField", "Normal"], [0, 0, 1], "none: nothing shifts"),
    ],
)
def test_frames_of_no_event_never_shift_the_rows_of_those_after_them(camera, caplog, steps, rows, reason):
    caplog.set_level(logging.ERROR)
    camera.stage()
    found = []
    for step in steps:
        if step == "orphan":
            camera.capture(1)
        else:
            found.append(take(camera, step)[1])
    assert found == rows, reason


def test_a_replayed_exposure_leaves_one_datum_the_last(camera):
    """A pause after the trigger makes the RunEngine trigger again; the first frame belongs to no Event."""
    camera.stage()
    camera.trigger().wait(timeout=2)
    documents, row = take(camera)
    assert row == 1
    assert [name for name, _ in documents] == ["resource", "datum"]


def test_staging_again_means_a_new_file_and_new_resources(camera):
    camera.stage()
    first = resources(take(camera)[0])[0]
    camera.unstage()
    camera.stage()
    documents, row = take(camera)
    assert row == 0
    assert resources(documents)[0]["resource_path"] != first["resource_path"]


def test_several_images_per_point_count_points_not_frames(camera):
    camera.prepare_frames(num_images=3)
    camera.stage()
    camera.frames_per_acquisition = 3
    assert [take(camera)[1] for _ in range(2)] == [0, 1]
    assert camera.last_frame.index == 3
    assert tuple(camera.describe()["camera_image"]["shape"]) == (3, 6, 8)
    camera.capture(1)  # an aborted point of one image: no point number can address what follows
    with pytest.raises(FrameWriteError, match="1 of 3 frames; stage again"):
        take(camera)


def test_staging_restores_what_was_before(camera):
    camera.cam.num_images.sim_put(7)
    camera.prepare_frames(exposure_s=0.048, roi=Roi(10, 20, 50, 60))
    camera._prime = lambda: None  # nothing acquires here
    camera.stage()
    cam = camera.cam
    assert (cam.acquire_time.get(), cam.num_images.get(), camera.image.enable.get()) == (0.048, 1, "Disable")
    assert [s.get() for s in (cam.min_y, cam.min_x, cam.size_y, cam.size_x)] == [10, 20, 50, 60]
    camera.unstage()
    assert (cam.acquire_time.get(), cam.num_images.get(), camera.hdf1.capture.get()) == (0.01, 7, 0)
    assert [s.get() for s in (cam.min_y, cam.min_x, cam.size_y, cam.size_x)] == [0, 0, 6, 8]


def test_a_region_outside_the_sensor_is_refused_with_axis_and_size(camera):
    camera.prepare_frames(roi=Roi(0, 150, 50, 60))
    with pytest.raises(ValueError, match=r"ROI x 150 \+ 60 px leaves the sensor of 200 px"):
        camera.stage()


def test_a_folder_the_ioc_does_not_see_is_named_at_staging(camera):
    camera.hdf1.file_path_exists.sim_put(0)
    camera.hdf1.write_message.sim_put("")
    with pytest.raises(FrameWriteError, match="does not see this folder") as caught:
        camera.stage()
    assert str(camera.frame_directory) in str(caught.value)
    assert camera.cam.image_mode.get() == 0  # restored


def test_the_folder_is_made_and_is_absolute(camera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camera.frame_directory = "relative/frames"
    camera.stage()
    assert (tmp_path / "relative" / "frames").is_dir()
    assert camera.hdf1.file_path.get() == str(tmp_path / "relative" / "frames")


def test_unstaging_without_an_ioc_gives_up_quietly_and_staging_works_afterwards(camera, caplog):
    camera.stage()
    take(camera)
    camera.cam.acquire._metadata["connected"] = False
    camera.unstage()
    assert "not restored" in caplog.text
    camera.cam.acquire._metadata["connected"] = True
    camera.stage()
    assert take(camera)[1] == 0


def test_layout_file_for_areadetector_has_the_datasets_the_documents_name():
    layout = ElementTree.fromstring(files("xbat_live.devices").joinpath("hdf5_layout.xml").read_text())
    paths, default = set(), None
    stack = [("", layout)]
    while stack:
        path, node = stack.pop()
        for child in node:
            if child.tag == "group":
                stack.append((f"{path}/{child.attrib['name']}", child))
            elif child.tag == "dataset" and child.attrib["source"] == "detector":
                paths.add(f"{path}/{child.attrib['name']}")
                if child.attrib.get("det_default") == "true":
                    default = f"{path}/{child.attrib['name']}"
    assert paths == set(FRAME_DATASETS.values())
    assert default == FRAME_DATASETS["Normal"]
