"""Documents into Tiled, behind the RunEngine's back: it never waits for the archive, and the archive loses nothing."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from xbat_live.archive.connecting import KeyRefusedError, answers, connect
from xbat_live.archive.journal import Journal, RunRouting
from xbat_live.archive.parcels import deliver, pack, run_uid_of
from xbat_live.archive.settings import ArchiveError
from xbat_live.archive.upload import (
    RunUpload,
    explain,
    is_transient,
    warm_up,
    why_unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xbat_live.archive.analyses import StoredArray

logger = logging.getLogger(__name__)

_LEAST_BATCH, _MOST_BATCH = 2, 200
_LIVE_REST = 2.0
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
_SERVER_ERRORS_ALLOWED = 3
_SILENCE_S = 3.0
_SILENCE_IN_TROUBLE_S = 0.5
_END: tuple[str, dict[str, Any]] = ("", {})


@dataclass(frozen=True)
class ArchiveReport:
    """What became of the documents.

    Attributes
    ----------
    recorded
        Documents taken.
    archived
        Documents that are in Tiled.
    backlog
        Documents that are only in the backup.
    runs_in_backup
        Runs `repair` has to insert, by uid.
    analyses_in_backup
        Analyses `repair` has to store, by file name.
    unreadable
        Runs that are in Tiled, but whose frames the server cannot read, by uid; `last_error` tells why.
    lost
        Documents that could not even be written to the backup.
    last_error
        The latest trouble, None when there was none.
    elapsed_s
        Duration of `close`, s.
    """

    recorded: int
    archived: int
    backlog: int
    runs_in_backup: tuple[str, ...]
    analyses_in_backup: tuple[str, ...]
    unreadable: tuple[str, ...]
    lost: int
    last_error: str | None
    elapsed_s: float

    @property
    def complete(self) -> bool:
        """Whether everything is in Tiled and can be read there."""
        return not (self.backlog or self.runs_in_backup or self.analyses_in_backup or self.unreadable or self.lost)


@dataclass
class _Run:
    journal: Journal
    upload: RunUpload


class ArchiveWriter:
    """A callback for the RunEngine that never blocks it and never raises into it.

    One thread writes every document to a journal in `backup_directory` (one file per run). Another reads the journals
    and writes to Tiled; when the server is away or dies it waits, removes the partial run and begins that run anew. A
    journal is deleted when its run is complete in Tiled, so what lies in the backup is what Tiled lacks; `repair`
    inserts it later. Memory does not grow with the run.

    Parameters
    ----------
    server
        URI of Tiled's API, e.g. ``http://127.0.0.1:8751/api/v1``, or a connected client. A server that is not there yet
        is no error.
    api_key
        With a URI.
    backup_directory
        Folder of the journals, on a local disk. It is probed here.

    Raises
    ------
    ArchiveError
        The backup directory cannot be written.

    Examples
    --------
    >>> writer = ArchiveWriter(uri, api_key, backup_directory="backup")  # doctest: +SKIP
    >>> RE.subscribe(writer)  # doctest: +SKIP
    >>> report = writer.close(timeout_s=30)  # doctest: +SKIP
    """

    def __init__(self, server: Any, api_key: str | None = None, *, backup_directory: Path | str) -> None:
        self.backup_directory = _probe(Path(backup_directory).expanduser().resolve())
        self._uri: str = server if isinstance(server, str) else str(server.context.api_uri)
        self._api_key = api_key
        self._client: Any = None if isinstance(server, str) else server
        self._own_client = self._client is None
        self._queue: SimpleQueue[tuple[str, dict[str, Any]]] = SimpleQueue()
        self._changed = threading.Condition()
        self._runs: dict[str, _Run] = {}
        self._parcels: list[Path] = []
        self._parcels_kept: list[Path] = []
        self._taken = 0
        self._archived_before = 0
        self._lost = 0
        self._last_error: str | None = None
        self._given_up: list[str] = []
        self._unreadable: list[str] = []
        self._closing = False
        self._abandoned = False
        self._in_trouble = False
        self._refused = False
        self._journal_thread = threading.Thread(target=self._record_all, name="archive-journal", daemon=True)
        self._upload_thread = threading.Thread(target=self._upload_all, name="archive-upload", daemon=True)
        self._journal_thread.start()
        self._upload_thread.start()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document. Returns at once."""
        if self._closing:
            self._lost += 1
            self._note_error(f"a document ({name}) came after close() and is not archived")
            return
        self._taken += 1
        self._queue.put((name, doc))

    def keep(
        self, run_uid: str, kind: str, arrays: Mapping[str, StoredArray], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Store arrays worked out from a run beside it, as `store_analysis` does, when the run is in Tiled. They are in the backup first.

        Raises
        ------
        OSError
            The backup cannot be written.
        """
        path = pack(self.backup_directory, run_uid, kind, arrays, metadata)
        with self._changed:
            self._parcels.append(path)
            self._changed.notify_all()

    @property
    def recorded(self) -> int:
        """Documents taken so far."""
        return self._taken

    @property
    def archived(self) -> int:
        """Documents that are in Tiled."""
        with self._changed:
            return self._archived_before + sum(run.upload.sent for run in self._runs.values())

    @property
    def backlog(self) -> int:
        """Documents not yet in Tiled."""
        return self._taken - self._lost - self.archived

    @property
    def last_error(self) -> str | None:
        """The latest trouble as one line, None when there was none. It stays after the trouble is over."""
        return self._last_error

    def close(
        self, timeout_s: float = 20.0, progress: Callable[[int], None] | None = None, *, patience_s: float = 0.0
    ) -> ArchiveReport:
        """Wait until everything is in Tiled, but not longer than `timeout_s` and not for a server that is gone.

        Parameters
        ----------
        timeout_s
            Longest wait, s.
        progress
            Called with the backlog, some ten times per second.
        patience_s
            How long a server that has never answered yet is waited for, s: it may still be starting.

        Returns
        -------
        ArchiveReport
            What is in Tiled and what is in the backup.
        """
        started_s = time.monotonic()
        self._closing = True
        self._queue.put(_END)
        self._journal_thread.join(timeout_s)
        self._wait_for_upload(started_s + timeout_s, progress, patient_until_s=started_s + patience_s)
        self._abandoned = True
        self._wake()
        self._upload_thread.join(0.5)
        if self._own_client and self._client is not None:
            # Also ends the thread when it sits in one of the Tiled client's own retries.
            self._client.context.close()
        with self._changed:
            left = tuple([*self._given_up, *(uid for uid in self._runs if uid not in self._given_up)])
        return ArchiveReport(
            recorded=self._taken,
            archived=self.archived,
            backlog=self.backlog,
            runs_in_backup=left,
            analyses_in_backup=tuple(path.name for path in (*self._parcels_kept, *self._parcels)),
            unreadable=tuple(self._unreadable),
            lost=self._lost,
            last_error=self._last_error,
            elapsed_s=time.monotonic() - started_s,
        )

    def _wait_for_upload(
        self, deadline_s: float, progress: Callable[[int], None] | None, *, patient_until_s: float
    ) -> None:
        before, silent_since_s = self.backlog, time.monotonic()
        while self._upload_thread.is_alive() and time.monotonic() < deadline_s:
            backlog = self.backlog
            if progress:
                progress(backlog)
            if backlog != before:
                before, silent_since_s = backlog, time.monotonic()
            elif time.monotonic() - silent_since_s > (_SILENCE_IN_TROUBLE_S if self._in_trouble else _SILENCE_S):
                if not answers(self._uri):
                    if self._client is None and time.monotonic() < patient_until_s:
                        continue
                    self._note_error(f"no Tiled server answers at {self._uri}")
                    return
                if self._refused:
                    return
                self._wake()  # it is there: no need to sit out the pause between two tries
                silent_since_s = time.monotonic()
            self._upload_thread.join(0.1)

    # --- thread "archive-journal" -----------------------------------------------------------------------------------

    def _record_all(self) -> None:
        routing = RunRouting()
        while (item := self._queue.get()) is not _END:
            name, doc = item
            try:
                self._record(routing, name, doc)
            except Exception as error:  # a document that is lost must not stop those after it
                self._lost += 1
                self._note_error(f"a document ({name}) is not in the backup: {explain(error)}")
        self._wake()

    def _record(self, routing: RunRouting, name: str, doc: dict[str, Any]) -> None:
        uid = routing.run_uid(name, doc)
        if name == "start":
            journal = Journal(self.backup_directory, doc["uid"])
            with self._changed:
                self._runs[doc["uid"]] = _Run(journal, RunUpload(doc["uid"], journal.path))
        run = self._runs.get(uid or "")
        if run is None:
            raise LookupError("it belongs to no open run")
        run.journal.append(name, doc)
        self._wake()

    # --- thread "archive-upload" ------------------------------------------------------------------------------------

    def _upload_all(self) -> None:
        failures = 0
        with contextlib.suppress(Exception):  # it will be told when there is something to write
            warm_up()
            self._client = self._client or connect(self._uri, self._api_key)
        while not self._abandoned:
            with self._changed:
                waiting = [
                    run
                    for run in self._runs.values()
                    if run.upload.sent < run.journal.recorded and not run.upload.failed
                ]
                parcels = [path for path in self._parcels if run_uid_of(path) not in self._runs]
                if not waiting and not parcels:
                    if self._closing and not self._journal_thread.is_alive():
                        break
                    self._changed.wait(0.5)
                    continue
            try:
                if self._client is None:
                    self._client = connect(self._uri, self._api_key)
                for run in waiting:
                    self._upload(run)
                for path in parcels:
                    self._deliver(path)
                failures, self._in_trouble = 0, False
            except Exception as error:  # the archive's trouble must not become the run's
                if self._abandoned:
                    break
                self._in_trouble, self._refused = True, isinstance(error, KeyRefusedError)
                self._note_error(explain(error))
                with self._changed:
                    self._changed.wait(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
        with self._changed:
            for run in self._runs.values():
                run.journal.release()

    def _upload(self, run: _Run) -> None:
        upload = run.upload
        try:
            while not self._abandoned:
                live = not run.journal.complete
                started_s = time.monotonic()
                recorded = run.journal.recorded
                # All that is waiting goes together: the farther behind, the faster.
                limit = min(max(recorded - upload.sent, _LEAST_BATCH), _MOST_BATCH)
                if not upload.advance(self._client, recorded=recorded, limit=limit):
                    return
                if upload.finished:
                    self._finish(run)
                    return
                if live and not self._closing:
                    # Uploading costs this process and the server more time than an exposure does: leave most of it to the run.
                    time.sleep(_LIVE_REST * (time.monotonic() - started_s))
        except Exception as error:
            upload.restart()
            hopeless = not is_transient(error) or (
                _is_server_error(error) and upload.attempts >= _SERVER_ERRORS_ALLOWED
            )
            if hopeless and not self._abandoned:
                upload.failed = explain(error)
                self._given_up.append(upload.uid)
                logger.exception("run %s is not archived, its documents stay in %s", upload.uid, upload.path)
            raise

    def _deliver(self, path: Path) -> None:
        try:
            deliver(self._client, path)
        except Exception as error:
            if is_transient(error):
                raise
            self._parcels_kept.append(path)
            self._note_error(f"an analysis stays in the backup: {explain(error)}")
        with self._changed:
            self._parcels.remove(path)

    def _finish(self, run: _Run) -> None:
        run.journal.release()
        if run.journal.recorded == run.upload.sent:
            run.journal.path.unlink(missing_ok=True)
        with self._changed:
            self._archived_before += run.upload.sent
            del self._runs[run.upload.uid]
        if reason := why_unreadable(self._client[run.upload.uid]):
            self._unreadable.append(run.upload.uid)
            self._note_error(f"run {run.upload.uid} is archived, but its frames cannot be read: {reason}")

    def _note_error(self, message: str) -> None:
        if message != self._last_error:
            logger.warning("archive: %s", message)
        self._last_error = message

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _is_server_error(error: BaseException) -> bool:
    return getattr(getattr(error, "response", None), "status_code", 0) >= 500


def _probe(directory: Path) -> Path:
    """Make `directory` and prove that a file can be written to it."""
    probe = directory / f".probe-{uuid.uuid4().hex}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise ArchiveError(
            f"backup directory {directory}: cannot be written ({error}); free the disk, "
            "mend its permissions or name another"
        ) from error
    return directory
