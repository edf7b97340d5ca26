"""Files and folders that appear whole or not at all: written under another name, moved into place when complete."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xbat_live.exchange.errors import ExchangeError, TargetError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HDF5_DISK_FULL = ("errno = 28", "errno = 27", "errno = 122", "no space left", "file too large", "quota")


def check_target(out: Path, *, force: bool, ours: Callable[[Path], bool] | None = None) -> None:
    """Check that `out` may be written, before the work is done.

    Parameters
    ----------
    ours
        Tells whether an existing folder is a former export, which `force` may replace. None: `out` is a file.

    Raises
    ------
    TargetError
        No folder to put it in, or something is there already.
    """
    if not out.parent.is_dir():
        raise TargetError(f"{out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK):
        raise TargetError(f"{out}: the folder {out.parent} cannot be written; choose another place")
    if not os.path.lexists(out):
        return
    if not force:
        raise TargetError(f"{out}: exists; give --force to replace it, or another name")
    if out.is_dir() and (ours is None or not ours(out)):
        raise TargetError(f"{out}: is a folder that no export made, and is not replaced; choose another name")


def check_room(folder: Path, size_bytes: int) -> None:
    """Check that a file of `size_bytes` fits.

    Raises
    ------
    ExchangeError
        The disk, or the largest file that this process may write, is too small.
    """
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size_bytes:
        raise ExchangeError(
            f"{folder}: {size_bytes / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; free the disk or choose another place"
        )
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if resource.RLIM_INFINITY != limit < size_bytes:
        raise ExchangeError(
            f"{folder}: {size_bytes / 1e6:.0f} MB are needed in one file, and this process may write {limit / 1e6:.0f} MB (ulimit -f)"
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a name beside `out` to write to, a file or a folder; it takes the place of `out` when the block ends well.

    However the block ends otherwise, `out` is as it was and nothing is left beside it.

    Raises
    ------
    ExchangeError
        For an `OSError` (disk full, no rights): what, where, remedy.
    """
    _remove_left_behind(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield partial
        _sync(partial)
        _move(partial, out)
    except (OSError, RuntimeError) as error:  # HDF5 tells of a full disk with both
        if isinstance(error, RuntimeError) and not _is_full(error):
            raise
        remedy = "the disk is full: free it or choose another place" if _is_full(error) else "choose another place"
        raise ExchangeError(f"{out}: not written ({_reason(error)}); {remedy}. Nothing was changed") from error
    finally:
        _remove(partial)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


def _is_full(error: Exception) -> bool:
    text = str(error).lower()
    return getattr(error, "errno", None) in _DISK_FULL or any(hint in text for hint in _HDF5_DISK_FULL)


def _sync(path: Path) -> None:
    """Have a file on the disk before it replaces another one."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _move(partial: Path, out: Path) -> None:
    if not out.is_dir():
        os.replace(partial, out)
        return
    # A folder cannot be replaced in one step: the old one steps aside first, and comes back if that fails.
    aside = partial.with_suffix(".old")
    os.rename(out, aside)
    try:
        os.rename(partial, out)
    except OSError:
        os.rename(aside, out)
        raise
    shutil.rmtree(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_left_behind(out: Path) -> None:
    """Remove what an export to `out` left that was killed."""
    for path in out.parent.glob(f".{out.name}.*.part"):
        pid = path.name.removeprefix(f".{out.name}.").removesuffix(".part")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(path)
