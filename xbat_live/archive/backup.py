"""Bring into Tiled what only the backup holds."""

from __future__ import annotations

import logging
import os
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xbat_live.archive.journal import SUFFIX, JournalBusyError, lock_file, read_journal
from xbat_live.archive.parcels import PARCEL_SUFFIX, deliver, run_uid_of
from xbat_live.archive.summary import RunSummary
from xbat_live.archive.upload import (
    RunWriter,
    explain,
    finish_run,
    remove_run,
    run_is_complete,
    why_unreadable,
)

logger = logging.getLogger(__name__)

CUT_OFF_REASON = "cut off: the acquisition ended without a stop document; closed by xbat archive repair"


@dataclass(frozen=True)
class RepairResult:
    """What became of one run of the backup.

    Attributes
    ----------
    uid
        The run; empty when its journal does not tell.
    what
        ``run``, or the name of an analysis of it, e.g. ``dose-20261121T051447Z``.
    action
        ``inserted`` (the run was missing), ``replaced`` (a partial one was removed first), ``present`` (complete in
        Tiled already), ``busy`` (still being written, left alone) or ``failed`` (journal kept).
    documents
        Number of documents in the journal.
    cut_off
        Whether the stop document was missing and had to be made.
    valid
        Answer of Tiled's own validation; False e.g. when the frames' file is missing. None when it was not asked.
    message
        Why it failed or is not valid; empty otherwise.
    """

    uid: str
    action: Literal["inserted", "replaced", "present", "busy", "failed"]
    documents: int = 0
    cut_off: bool = False
    valid: bool | None = None
    message: str = ""
    what: str = "run"


def repair(client: Any, backup_directory: Path | str) -> list[RepairResult]:
    """Insert the runs and analyses of `backup_directory` into Tiled. Doing it again changes nothing.

    A run that Tiled holds in part is removed and written anew from its first document. A run that was cut off by a
    crash gets a stop document with ``exit_status = "fail"`` and `CUT_OFF_REASON`. A journal is deleted when its run is
    complete in Tiled. Works with journals of `ArchiveWriter` and with the backups of ``TiledWriter`` (same format).

    Parameters
    ----------
    client
        Tiled client, e.g. from `connect`.
    backup_directory
        Folder of the journals. A missing folder is an empty one.

    Returns
    -------
    list of RepairResult
        One per journal by file name, then one per analysis.
    """
    folder = Path(backup_directory)
    runs = [_repair_one(client, path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return [*runs, *(_deliver_one(client, path) for path in sorted(folder.glob(f"*{PARCEL_SUFFIX}")))]


def _deliver_one(client: Any, path: Path) -> RepairResult:
    uid, what = run_uid_of(path), path.stem.partition(".")[2]
    try:
        deliver(client, path)
    except JournalBusyError:
        return RepairResult(uid=uid, what=what, action="busy", message="it is being stored")
    except Exception as error:  # one bad file must not keep the others out
        return RepairResult(uid=uid, what=what, action="failed", message=explain(error))
    return RepairResult(uid=uid, what=what, action="inserted", valid=True)


def _repair_one(client: Any, path: Path) -> RepairResult:
    try:
        lock = lock_file(path)
    except JournalBusyError:
        return RepairResult(uid=path.stem, action="busy", message="the run is still being written")
    except OSError as error:
        return RepairResult(uid=path.stem, action="failed", message=explain(error))
    uid, documents = path.stem, 0
    try:
        documents = _check(path)
        uid = next(read_journal(path))[1]["uid"]
        return _insert(client, path, uid, documents)
    except Exception as error:  # one bad run must not keep the others out
        logger.exception("run %s was not repaired, its journal %s is kept", uid, path)
        return RepairResult(uid=uid, action="failed", documents=documents, message=explain(error))
    finally:
        os.close(lock)


def _check(path: Path) -> int:
    """Return the number of documents, after reading all of them: a damaged file must not cost the partial run."""
    names = [name for name, _ in read_journal(path)]
    if not names or names[0] != "start":
        raise ValueError(f"{path}: holds no start document")
    return len(names)


def _insert(client: Any, path: Path, uid: str, documents: int) -> RepairResult:
    if run_is_complete(client, uid):
        summary = RunSummary()
        for name, doc in read_journal(path):
            summary(name, doc)
        finish_run(client, uid, summary)  # the server may have died just before it
        path.unlink()
        return RepairResult(uid=uid, action="present", documents=documents)
    replaced = remove_run(client, uid)
    write = RunWriter(client)
    cut_off = True
    closing, summary = _Closing(), RunSummary()
    for name, doc in read_journal(path):
        closing.see(name, doc)
        write(name, doc)
        summary(name, doc)
        cut_off &= name != "stop"
    if cut_off:
        stop = closing.stop_document(uid)
        write("stop", stop)
        summary("stop", stop)
    if not finish_run(client, uid, summary):
        raise RuntimeError(f"run {uid} is not complete in Tiled after it was written; run the repair again")
    unreadable = why_unreadable(client[uid])
    path.unlink()
    return RepairResult(
        uid=uid,
        action="replaced" if replaced else "inserted",
        documents=documents,
        cut_off=cut_off,
        valid=unreadable is None,
        message=unreadable or "",
    )


class _Closing:
    """Make the stop document that a crash left out."""

    def __init__(self) -> None:
        self._stream_of: dict[str, str] = {}
        self._events: Counter[str] = Counter()
        self._time = 0.0

    def see(self, name: str, doc: dict[str, Any]) -> None:
        self._time = max(self._time, doc.get("time", 0.0) if name in ("start", "descriptor", "event") else 0.0)
        if name == "descriptor":
            self._stream_of[doc["uid"]] = doc["name"]
        elif name == "event":
            self._events[self._stream_of[doc["descriptor"]]] += 1

    def stop_document(self, run_uid: str) -> dict[str, Any]:
        return {
            "uid": str(uuid.uuid4()),
            "time": self._time,
            "run_start": run_uid,
            "exit_status": "fail",
            "reason": CUT_OFF_REASON,
            "num_events": dict(self._events),
        }
