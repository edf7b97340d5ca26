"""Where the processes of one user find each other: sockets and tokens in a folder that nobody else can enter."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "XBAT_RUNTIME_DIR"
_LONGEST_PATH = 107  # of sun_path, without the NUL


class RuntimeFolderError(RuntimeError):
    """The runtime folder cannot be used; the message names it and the remedy."""


def runtime_directory() -> Path:
    """Return the user's runtime folder, of mode 0700.

    ``$XBAT_RUNTIME_DIR``, ``$XDG_RUNTIME_DIR/xbat_live``, or one below the temporary folder.

    Raises
    ------
    RuntimeFolderError
        It cannot be made, belongs to somebody else, or is a link: another user may have put it there.
    """
    if given := os.environ.get(VARIABLE):
        folder = Path(given)
    elif base := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(base, "xbat_live")
    else:
        folder = Path(tempfile.gettempdir(), f"xbat_live-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise RuntimeFolderError(
                f"runtime folder {folder}: is not a folder of this user; set {VARIABLE} to one that is"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise RuntimeFolderError(
            f"runtime folder {folder}: cannot be made ({error.strerror}); set {VARIABLE} to a folder of yours"
        ) from error
    return folder


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield a name of `path` that fits into a socket address: a long one is reached through an open folder."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
