"""Carry one run's journal into Tiled, from its first document."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xbat_live.archive.settings import ArchiveError
from xbat_live.archive.summary import KEY as SUMMARY
from xbat_live.archive.summary import RunSummary

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_DUPLICATE_NOTE = "may be duplicated"
_BATCH_SIZE = 1000
OUTSIDE = "outside the readable storage area"
"""What Tiled says of a file that its server may not read."""


class RunWriter:
    """Writes the documents of one run to Tiled, as many together as the caller likes: viewers see them after `flush`, all after the stop.

    A request takes Tiled about as long for many rows as for one. `bluesky_tiled_plugins.TiledWriter` has either a fixed number of rows
    to wait for, or a request for every one: with that, four documents per second were archived of a run that made eight.
    """

    def __init__(self, client: Any) -> None:
        from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer, _RunWriter

        from xbat_live.archive.frames import one_chunk_per_frame, use_event_frames

        use_event_frames()
        self._writer = _RunWriter(client, batch_size=_BATCH_SIZE)
        self._normalizer = RunNormalizer(patches={"resource": one_chunk_per_frame})
        self._normalizer.subscribe(self._writer)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document."""
        self._normalizer(name, doc)

    def flush(self) -> None:
        """Write all that was taken."""
        writer = self._writer
        for stream, rows in writer._internal_data_cache.items():  # noqa: SLF001
            if rows:
                writer._write_internal_data(rows, desc_node=writer._desc_nodes[stream])  # noqa: SLF001
                rows.clear()
        frames = list(writer._external_data_cache.values())  # noqa: SLF001
        writer._external_data_cache.clear()  # noqa: SLF001
        for doc in frames:
            writer._write_external_data(doc)  # noqa: SLF001


def warm_up() -> None:
    """Import what writing needs (two seconds), before a run has to share the interpreter with it."""
    from xbat_live.archive.frames import use_event_frames

    use_event_frames()


@dataclass
class RunUpload:
    """Progress of one journal on its way into Tiled.

    Attributes
    ----------
    uid, path
        The run and its journal.
    sent
        Documents that are in Tiled.
    attempts
        How often it was begun.
    failed
        Why it was given up; None while there is hope.
    """

    uid: str
    path: Path
    sent: int = 0
    attempts: int = 0
    failed: str | None = None
    finished: bool = False
    _offset: int = 0
    _summary: RunSummary = field(default_factory=RunSummary, repr=False)
    _writer: RunWriter | None = field(default=None, repr=False)

    def advance(self, client: Any, *, recorded: int, limit: int) -> int:
        """Send up to `limit` of the `recorded` documents.

        Returns
        -------
        int
            Documents sent.

        Raises
        ------
        Exception
            Whatever Tiled or the network raised; call `restart` before the next try.
        """
        if self._writer is None:
            self.attempts += 1
            if self.attempts == 1 and run_is_complete(client, self.uid):
                raise FileExistsError(f"run {self.uid} is complete in Tiled already; it is left as it is")
            remove_run(client, self.uid)
            self._writer = RunWriter(client)
        count, ended = 0, False
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while count < limit and self.sent + count < recorded and not ended:
                item = json.loads(file.readline())
                name, doc = item["name"], item["doc"]
                self._writer(name, doc)
                self._summary(name, doc)
                self._offset = file.tell()
                count, ended = count + 1, name == "stop"
        if ended:
            self._finish(client)
        else:
            self._writer.flush()
        self.sent += count  # now they are in Tiled, and not before
        return count

    def restart(self) -> None:
        """Forget what was sent: the next `advance` removes the partial run and begins anew."""
        self._writer = None
        self._offset = 0
        self._summary = RunSummary()
        self.sent = 0

    def _finish(self, client: Any) -> None:
        if not finish_run(client, self.uid, self._summary):
            # The answer to an append was lost and the plugin appended again: only a fresh copy has every row once.
            raise ConnectionError(f"rows of run {self.uid} may be doubled after a lost answer; it is written again")
        self.finished = True


def remove_run(client: Any, uid: str) -> bool:
    """Delete run `uid` from Tiled (never the frames, which Tiled does not own); tell whether there was one."""
    if not run_exists(client, uid):
        return False
    client.delete_contents(uid, recursive=True, external_only=False)
    return True


def run_exists(client: Any, uid: str) -> bool:
    """Tell whether Tiled has run `uid`, complete or not."""
    return _metadata(client, uid) is not None


def run_is_complete(client: Any, uid: str) -> bool:
    """Tell whether Tiled has run `uid` with its stop document and without rows that may be doubled."""
    metadata = _metadata(client, uid)
    return metadata is not None and "stop" in metadata and not _may_be_doubled(metadata)


def finish_run(client: Any, uid: str, summary: RunSummary) -> bool:
    """Add the summary to the metadata of a run whose documents were all written; tell whether the run is complete in Tiled."""
    run = client[uid]
    if SUMMARY not in run.metadata:
        run.update_metadata({SUMMARY: summary.result()}, drop_revision=True)
    return run_is_complete(client, uid)


def why_unreadable(run: Any) -> str | None:
    """Let the server read a corner of every array of a run; return what went wrong, None when all is well."""
    try:
        # Tiled registers frames wherever they are. Only reading tells that a file is missing, or lies outside the
        # server's readable_storage: then it answers 500, the reason is in its log and in this answer.
        run.validate(fix_errors=False, write_notes=False, raise_on_error=True)
    except Exception as error:
        return explain(error)
    return None


def _metadata(client: Any, uid: str) -> dict[str, Any] | None:
    try:
        return dict(client[uid].metadata)
    except KeyError:
        return None


def _may_be_doubled(metadata: dict[str, Any]) -> bool:
    return any(_DUPLICATE_NOTE in note for note in metadata.get("notes", []))


def is_transient(error: BaseException) -> bool:
    """Tell whether trying again later can help."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return (
            error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
        )
    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError | ArchiveError)


def explain(error: BaseException) -> str:
    """Return `error` as one line for the user."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    if OUTSIDE in text:
        text += " (remedy: name the frames' folder in readable_storage of the archive and start its server again)"
    return text
