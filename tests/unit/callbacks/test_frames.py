"""From documents to frames on disk; real HDF5 files in single-writer multiple-reader mode."""

import h5py
import numpy as np
import pytest

from xbat_live.callbacks import FrameAddress, FrameLocator, FrameNotFound, FrameReader


@pytest.fixture
def growing(tmp_path):
    """A file as the camera writes it."""
    path = tmp_path / "run.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for name in ("data", "flat"):
            file.create_dataset(f"/entry/data/{name}", (0, 4, 5), "<u2", chunks=(1, 4, 5), maxshape=(None, 4, 5))
        file.swmr_mode = True

        def append(name, value):
            dataset = file[f"/entry/data/{name}"]
            dataset.resize(dataset.shape[0] + 1, axis=0)
            dataset[-1] = np.full((4, 5), value, "<u2")
            dataset.flush()

        yield path, append


def test_frames_are_read_while_the_file_grows(growing):
    path, append = growing
    reader = FrameReader(patience_s=0.2)
    append("data", 1)
    assert reader.read(FrameAddress(path, "/entry/data/data", 0)).max() == 1
    append("data", 2)
    append("flat", 9)
    assert reader.read(FrameAddress(path, "/entry/data/data", 1)).min() == 2
    assert reader.read(FrameAddress(path, "/entry/data/flat", 0)).min() == 9
    reader.close()


@pytest.mark.parametrize(
    ("dataset", "index", "told"),
    [("/entry/data/data", 7, "only 0 frames"), ("/entry/absent", 0, "absent")],
)
def test_what_is_not_there_is_told_with_file_dataset_and_index(growing, dataset, index, told):
    path, _ = growing
    reader = FrameReader(patience_s=0.02)
    with pytest.raises(FrameNotFound) as error:
        reader.read(FrameAddress(path, dataset, index))
    reader.close()
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FrameNotFound, match=r"nowhere\.h5"):
        FrameReader(patience_s=0.02).read(FrameAddress(tmp_path / "nowhere.h5", "/entry/data/data", 0))


def test_documents_lead_to_the_frame(tmp_path):
    locator = FrameLocator("camera_image")
    locator.resource(
        {"uid": "r", "root": "/", "resource_path": "data/run.h5", "resource_kwargs": {"frame_per_point": 1}}
    )
    locator.resource(
        {"uid": "f", "root": "/", "resource_path": "/data/run.h5", "resource_kwargs": {"dataset": "/entry/data/flat"}}
    )
    locator.datum({"datum_id": "r/0", "resource": "r", "datum_kwargs": {"point_number": 3}})
    locator.datum({"datum_id": "f/0", "resource": "f", "datum_kwargs": {"point_number": 0}})
    primary = locator.locate({"seq_num": 1, "data": {"camera_image": "r/0"}})
    flat = locator.locate({"seq_num": 1, "data": {"camera_image": "f/0"}})
    assert (str(primary.path), primary.dataset, primary.index) == ("/data/run.h5", "/entry/data/data", 3)
    assert (str(flat.path), flat.dataset, flat.index) == ("/data/run.h5", "/entry/data/flat", 0)
    with pytest.raises(FrameNotFound):  # each datum is forgotten once used: memory stays flat
        locator.locate({"seq_num": 1, "data": {"camera_image": "r/0"}})
