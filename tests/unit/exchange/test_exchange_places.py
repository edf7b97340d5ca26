"""Files appear whole or not at all: full disks, interruptions, files that are there already, what a killed export left."""

import errno
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from xbat_live.exchange import h5
from xbat_live.exchange.errors import ExchangeError, TargetError
from xbat_live.exchange.export import check_export
from xbat_live.exchange.places import check_room, check_target, replacing


def _write(out, content, error=None):
    with replacing(out) as partial:
        partial.write_bytes(content)
        if error is not None:
            raise error


def _write_to_full_disk(out):
    with replacing(out) as partial:
        partial.symlink_to("/dev/full")
        with partial.open("wb") as file:
            file.write(b"x" * 100_000)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExchangeError),
        (OSError("Can't write data (file write failed: errno = 28, error message = 'No space left')"), ExchangeError),
        (RuntimeError("Unable to decrement id (errno = 28, error message = 'No space left on device')"), ExchangeError),
        (PermissionError(errno.EACCES, "Permission denied"), ExchangeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("a bug"), ValueError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_ends_an_export_the_old_file_stays(tmp_path, error, raised):
    out = tmp_path / "run.nxs"
    out.write_bytes(b"measured last year")
    before = contents(tmp_path)
    with pytest.raises(raised):
        _write(out, b"half", error)
    assert contents(tmp_path) == before


def test_a_full_disk_is_told_with_the_remedy(tmp_path):
    with pytest.raises(ExchangeError, match=r"run\.nxs: not written .*free it or choose another place"):
        _write_to_full_disk(tmp_path / "run.nxs")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from xbat_live.exchange import h5, places
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
places.check_room = h5.check_room = lambda *_: None  # the disk becomes full later than that
try:
    with places.replacing(Path(sys.argv[1])) as partial, h5.new_file(partial, 0) as file:
        data = file.create_dataset("data", (40, 128, 128), "u2", chunks=(1, 128, 128))
        for i in range(40):
            data.id.write_direct_chunk((i, 0, 0), np.zeros((128, 128), "u2"))
except places.ExchangeError as error:
    print(error)
    sys.exit(3)
"""


def test_a_disk_that_becomes_full_while_hdf5_writes(tmp_path):
    (tmp_path / "run.nxs").write_bytes(b"measured last year")
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "run.nxs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stdout
    assert contents(tmp_path) == {"run.nxs": b"measured last year"}


def test_room_is_checked_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ExchangeError, match=r"MB are needed and .* MB are free"):
        check_room(tmp_path, 1 << 60)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    with pytest.raises(ExchangeError, match="ulimit -f"):
        check_room(tmp_path, 10_000)


def test_what_a_killed_export_left_is_removed_by_the_next_one(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    (tmp_path / f".run.nxs.{ended.stdout.strip()}.part").write_bytes(b"half")
    (tmp_path / f".run.nxs.{os.getppid()}.part").write_bytes(b"another export, still going on")
    _write(tmp_path / "run.nxs", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".run.nxs.{os.getppid()}.part", "run.nxs"]


def test_a_folder_is_replaced_whole(tmp_path):
    out = tmp_path / "run.zarr"
    out.mkdir()
    (out / "old").write_text("old")
    with replacing(out) as partial:
        partial.mkdir()
        (partial / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["run.zarr", "new"]


@pytest.mark.parametrize(
    ("prepare", "form", "force", "told"),
    [
        (lambda out: out.write_text(""), "nexus", False, "exists; give --force"),
        (lambda out: out.mkdir(), "nexus", True, "is a folder that no export made"),
        (lambda out: None, "dxchange", False, r"named with \.h5"),
    ],
)
def test_places_that_are_refused(tmp_path, prepare, form, force, told):
    prepare(tmp_path / "run.nxs")
    with pytest.raises(TargetError, match=told):
        check_export(tmp_path / "run.nxs", form, force=force)


@pytest.mark.parametrize(("form", "name"), [("zarr", "data.zarr"), ("csv", "tables")])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, form, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.docx").write_text("irreplaceable")
    with pytest.raises(TargetError, match="no export made"):
        check_export(tmp_path / name, form, force=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"there is no folder .*nowhere"):
        check_target(tmp_path / "nowhere" / "run.nxs", force=False)


def test_hdf5_helpers_write_units(tmp_path):
    with h5.new_file(tmp_path / "a.h5", 0) as file:
        h5.put(file, "energy", np.array([8333.0]), "eV")
        h5.put(file, "names", np.array(["a", "µ"]))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["energy"].attrs["units"] == "eV"
        assert file["names"].asstr()[:].tolist() == ["a", "µ"]
