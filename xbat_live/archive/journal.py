"""Documents of a run on disk, before anything else happens to them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"


class JournalBusyError(Exception):
    """Another process, or this one, is writing the journal."""


class Journal:
    """JSON lines ``{"name": ..., "doc": ...}`` of one run, the format of bluesky's own backup.

    A document is in the file when `append` returns, so it survives the death of this process; the lock tells a repair
    that the run is still being written.

    Raises
    ------
    OSError
        The file cannot be made.
    JournalBusyError
        It is being written already.
    """

    def __init__(self, directory: Path, uid: str) -> None:
        self.uid = uid
        self.path = directory / f"{uid}{SUFFIX}"
        self.recorded = 0
        self.complete = False
        self._descriptor = lock_file(self.path) if self.path.exists() else _make_locked(self.path)

    def append(self, name: str, doc: dict[str, Any]) -> None:
        """Write a document; a stop document is also forced to the disk.

        Raises
        ------
        TypeError
            The document holds something JSON cannot.
        OSError
            Disk full or gone.
        """
        line = (json.dumps({"name": name, "doc": doc}, default=_plain) + "\n").encode()
        size = os.fstat(self._descriptor).st_size
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
        except OSError:
            os.ftruncate(self._descriptor, size)  # no half line before the next one
            raise
        if name == "stop":
            os.fsync(self._descriptor)
            self.complete = True
        self.recorded += 1  # after the write: the reader goes by this number

    def release(self) -> None:
        """Give up the lock. Nothing can be appended any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _make_locked(path: Path) -> int:
    """Make a file that is locked before it can be seen: a repair that looks in between would take it for left behind.

    Its name is given by a link, which fails where another writer has come first: a rename would put that one's journal out of sight.
    """
    unseen = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    descriptor = lock_file(unseen, create=True)
    try:
        os.link(unseen, path)
    except FileExistsError as error:
        os.close(descriptor)
        raise JournalBusyError(f"{path}: is being written") from error
    except OSError:
        os.close(descriptor)
        raise
    finally:
        unseen.unlink(missing_ok=True)
    return descriptor


def lock_file(path: Path, *, create: bool = False) -> int:
    """Open `path` for appending with an exclusive lock and return the descriptor; closing it gives up the lock.

    Raises
    ------
    JournalBusyError
        It is locked.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if create else 0), 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalBusyError(f"{path}: is being written") from error
    return descriptor


def read_journal(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents in `path`; a last line that was cut off by a crash is left out with a warning.

    Raises
    ------
    ValueError
        A line other than the last is not a document.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                item = json.loads(line)
                yield item["name"], item["doc"]
            except (ValueError, KeyError, TypeError) as error:
                if not line.endswith(b"\n"):
                    logger.warning("%s: line %d is cut off and left out", path, number)
                    return
                raise ValueError(f"{path}: line {number} is no document ({error}); the file is damaged") from error


class RunRouting:
    """Find the run a document belongs to."""

    def __init__(self) -> None:
        self._run_of: dict[str, str] = {}
        self._open: list[str] = []

    def run_uid(self, name: str, doc: dict[str, Any]) -> str | None:
        """Return the run's uid, or None for a document of no known run.

        Parameters
        ----------
        name
            As the RunEngine emits it, e.g. ``"event"``.
        """
        if name == "start":
            self._open.append(doc["uid"])
            return doc["uid"]
        if name in ("descriptor", "resource", "stream_resource"):
            # A Resource may come without `run_start`: it is cached by the device until the next run's Event.
            run = doc.get("run_start") or (self._open[-1] if self._open else None)
            if run:
                self._run_of[doc["uid"]] = run
            return run
        if name == "stop":
            run = doc["run_start"]
            self._open = [uid for uid in self._open if uid != run]
            self._run_of = {uid: owner for uid, owner in self._run_of.items() if owner != run}
            return run
        return self._run_of.get(doc.get("descriptor") or doc.get("resource") or "")


def _plain(value: Any) -> Any:
    """Turn numpy values and the like into JSON."""
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} {value!r:.80} cannot be written as JSON")
