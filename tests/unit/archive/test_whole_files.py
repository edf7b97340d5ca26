"""Frame files that lost their end: HDF5 in the mode that frames are read in would hand out zeros, so nobody lets it."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from xbat_live.archive import ArchiveError
from xbat_live.archive.frame_stack import LocalFrames
from xbat_live.archive.whole_files import cut_off

STACK = np.arange(1, 1 + 6 * 20 * 30, dtype="u2").reshape(6, 20, 30)
DATASET = "/entry/data/data"


def write(path, libver="latest"):
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset(DATASET, data=STACK, chunks=(1, 20, 30))
    return path


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
def test_a_byte_less_is_noticed_whatever_the_format(tmp_path, libver):
    path = write(tmp_path / "a.h5", libver)
    size = path.stat().st_size
    assert cut_off(path) is None
    with path.open("ab") as file:
        file.write(bytes(100))
    assert cut_off(path) is None, "more than there was to be is no loss"
    os.truncate(path, size - 1)
    assert cut_off(path) == f"cut off: {size - 1} bytes of {size}"


@pytest.mark.parametrize("content", [b"", b"no HDF5 " * 20, b"\x89HDF\r\n\x1a\n"], ids=["empty", "text", "signature"])
def test_what_is_no_hdf5_is_left_to_hdf5(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    assert cut_off(tmp_path / "a.h5") is None


def test_a_file_that_is_being_written_has_no_end_yet(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        data = file.create_dataset(DATASET, (0, 20, 30), "u2", chunks=(1, 20, 30), maxshape=(None, 20, 30))
        file.swmr_mode = True
        local = LocalFrames(tmp_path / "a.h5", DATASET, slice(0, 6))
        for number, frame in enumerate(STACK):
            data.resize(number + 1, axis=0)
            data[number] = frame
            file.flush()
            assert cut_off(tmp_path / "a.h5") is None
            np.testing.assert_array_equal(local.read(number), frame)


def test_frames_of_a_cut_off_file_are_no_zeros(tmp_path):
    path = write(tmp_path / "camera.h5")
    os.truncate(path, path.stat().st_size // 2)
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        assert not file[DATASET][-1].any(), "why this is looked after: HDF5 says nothing"
    local = LocalFrames(path, DATASET, slice(0, 6))
    assert not local.check(STACK.shape, STACK.dtype)
    with pytest.raises(ArchiveError, match=r"camera\.h5.*cut off: \d+ bytes of \d+; .*restore it from a backup"):
        local.read(0)
