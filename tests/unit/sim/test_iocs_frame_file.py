"""The HDF5 file of one capture."""

import errno
import os
import resource
import types

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.sim.iocs.hdf5_writer import FRAME_TYPES, FrameFile, FrameWriteError

IMAGE = np.arange(12, dtype=np.uint16).reshape(3, 4)


def append(file, image=IMAGE, kind="Normal", unique_id=1):
    file.append(image, kind, unique_id=unique_id, time_unix_s=0.0)


@settings(deadline=None, max_examples=15)
@given(kinds=st.lists(st.sampled_from(FRAME_TYPES), max_size=8))
def test_every_frame_is_in_the_dataset_of_its_type_in_order(tmp_path_factory, kinds):
    path = tmp_path_factory.mktemp("frames") / "f.h5"
    file = FrameFile(path, (3, 4))
    for n, kind in enumerate(kinds):
        append(file, IMAGE + np.uint16(n), kind, n)
    file.close()
    where = {"data": ("Normal", "DblCorrelation"), "flat": ("FlatField",), "dark": ("Background",)}
    with h5py.File(path) as stored:
        for name, types_ in where.items():
            expected = [IMAGE + np.uint16(n) for n, kind in enumerate(kinds) if kind in types_]
            assert np.array_equal(stored["entry/data"][name], np.array(expected).reshape(-1, 3, 4))
        assert stored["entry/instrument/NDAttributes/NDArrayUniqueId"][:].tolist() == list(range(len(kinds)))


def test_non_contiguous_frame_is_stored_as_it_looks(tmp_path):
    file = FrameFile(tmp_path / "f.h5", (4, 3))
    append(file, IMAGE.T)
    file.close()
    with h5py.File(tmp_path / "f.h5") as stored:
        assert np.array_equal(stored["entry/data/data"][0], IMAGE.T)


def test_existing_file_is_never_overwritten(tmp_path):
    (tmp_path / "f.h5").write_text("precious")
    with pytest.raises(FrameWriteError) as caught:
        FrameFile(tmp_path / "f.h5", (3, 4))
    assert caught.value.errno == errno.EEXIST
    assert (tmp_path / "f.h5").read_text() == "precious"


def test_full_disk_refuses_the_frame_and_spares_the_file(tmp_path, monkeypatch):
    file = FrameFile(tmp_path / "f.h5", (3, 4))
    append(file)
    monkeypatch.setattr(os, "statvfs", lambda path: types.SimpleNamespace(f_bavail=0, f_frsize=4096))
    with pytest.raises(FrameWriteError) as caught:
        append(file)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "f.h5")
    monkeypatch.undo()
    append(file)
    file.close()
    assert file.count == 2


def test_wrong_shape_is_refused(tmp_path):
    file = FrameFile(tmp_path / "f.h5", (3, 4))
    with pytest.raises(FrameWriteError, match="ROI"):
        append(file, IMAGE[:2])
    file.close()


def test_disk_that_fills_inside_the_library_leaves_a_readable_file(tmp_path, monkeypatch):
    """Another program took the room between the check and the write."""
    monkeypatch.setattr("xbat_live.sim.iocs.hdf5_writer._require_space", lambda path, size_bytes: None)
    big = np.ones((256, 256), np.uint16)
    file = FrameFile(tmp_path / "f.h5", big.shape)
    append(file, big)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(FrameWriteError) as caught:
            append(file, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FrameWriteError, match="new capture"):
        append(file, big)
    file.close()
    with h5py.File(tmp_path / "f.h5") as stored:
        assert stored["entry/data/data"].shape[0] == file.count == 1
        assert np.array_equal(stored["entry/data/data"][0], big)
