"""Import files as runs: read the headers, place the frames, write the documents to Tiled; all of it, or nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbat_live.exchange.documents import documents
from xbat_live.exchange.errors import ExchangeError
from xbat_live.exchange.foreign import ImportOptions, run_of_frames
from xbat_live.exchange.frame_set import Progress
from xbat_live.exchange.incoming import IncomingRun
from xbat_live.exchange.placing import PlacedFrames, copied, in_place
from xbat_live.exchange.reimport import exported_run
from xbat_live.recordings.find import HDF5, ZARR
from xbat_live.recordings.model import RecordingError


@dataclass(frozen=True)
class ImportedRun:
    """What became of an import.

    Attributes
    ----------
    uid
        Of the run in the archive.
    frames
        By stream.
    folders
        Folders the frames are in; the archive's server must be allowed to read them.
    copied_to
        File the frames were copied to; None when they are read where they are.
    incoming
        The run as it was read.
    """

    uid: str
    frames: dict[str, int]
    folders: tuple[Path, ...]
    copied_to: Path | None
    incoming: IncomingRun


def read_incoming(paths: Sequence[Path], options: ImportOptions | None = None) -> list[IncomingRun]:
    """Read what `paths` hold, headers only.

    A file that `xbat export` wrote is that run. Any other HDF5 file or Zarr store is a run of its own; so is a folder; single files of
    other kinds that are given together are one run.

    Raises
    ------
    ExchangeError
        The message names the file, what is wrong and what was expected.
    """
    found: list[IncomingRun] = []
    loose: list[Path] = []
    references = {*options.flats, *options.darks} if options else set()
    try:
        for path in paths:
            if path in references:
                continue
            exported = exported_run(path) if path.exists() else None
            if exported is not None:
                found.append(exported)
            elif path.is_dir() or path.suffix.lower() in HDF5 | {ZARR}:
                found.append(run_of_frames([path], options))
            else:
                loose.append(path)
        if loose:
            found.append(run_of_frames(loose, options))
    except RecordingError as error:
        raise ExchangeError(str(error)) from error
    return found


def import_run(
    client: Any,
    incoming: IncomingRun,
    frames_folder: Path,
    *,
    copy: bool = False,
    again: bool = False,
    progress: Progress | None = None,
) -> ImportedRun:
    """Write a run into the archive behind `client`.

    Parameters
    ----------
    frames_folder
        Folder for frames that Tiled cannot read where they are.
    copy
        Copy all frames there, so that the original files may go.
    again
        Import files that are in the archive already once more.

    Raises
    ------
    ExchangeError
        In the archive already, no room, or a file that cannot be read. The archive is then as it was.
    ArchiveError
        The archive does not take it, or its server may not read the frames.
    """
    if not again:
        _check_new(client, incoming)
    uid = incoming.record.start["uid"]
    placed = {} if copy else {name: in_place(frames) for name, frames in incoming.frames.items()}
    to_copy = {name: frames for name, frames in incoming.frames.items() if placed.get(name) is None}
    out = frames_folder / f"import-{uid[:8]}.h5" if to_copy else None
    try:
        moved = copied(to_copy, out, progress) if out is not None else {}
    except RecordingError as error:
        raise ExchangeError(str(error)) from error
    where = {name: part for name, part in {**placed, **moved}.items() if part is not None}
    try:
        _write(client, incoming, where, progress)
    except BaseException:
        if out is not None:
            out.unlink(missing_ok=True)
        raise
    folders = sorted({recording.file.resolve().parent for part in where.values() for recording in part.frames})
    return ImportedRun(uid, {name: len(part.frames) for name, part in where.items()}, tuple(folders), out, incoming)


def folders_of(incoming: IncomingRun, frames_folder: Path, *, copy: bool) -> list[Path]:
    """Return the folders a server has to be allowed to read for a run to come."""
    files = [] if copy else [r.file.resolve().parent for frames in incoming.frames.values() for r in frames]
    return sorted({frames_folder.resolve(), *files})


def _check_new(client: Any, incoming: IncomingRun) -> None:
    from tiled.queries import Key

    digest = incoming.record.start["imported"]["digest"]
    known = client.search(Key("start.imported.digest") == digest)
    if len(known):
        files = incoming.record.start["imported"]["files"]
        raise ExchangeError(
            f"{files[0]}: is in the archive already, as run {known.keys().first()}; --again imports it once more"
        )


def _write(client: Any, incoming: IncomingRun, frames: dict[str, PlacedFrames], progress: Progress | None) -> None:
    from xbat_live.archive.upload import RunWriter, explain, remove_run, why_unreadable
    from xbat_live.exchange.tiff_list import use_file_lists

    use_file_lists()
    uid = incoming.record.start["uid"]
    total = sum(map(len, incoming.record.streams))
    try:
        write = RunWriter(client)
        done = 0
        for name, doc in documents(incoming.record, frames):
            write(name, doc)
            if name == "event":
                done += 1
                if progress:
                    progress("Events", done, total)
        # A foreign file has chunks of its own: the archive is told of them. Which rows there are it knows already.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that they differ
            client[uid].validate(fix_errors=True, write_notes=False)
        reason = why_unreadable(client[uid])
    except BaseException as error:
        remove_run(client, uid)
        if isinstance(error, Exception):
            raise ExchangeError(f"the archive did not take the run: {explain(error)}") from error
        raise
    if reason:
        remove_run(client, uid)
        raise ExchangeError(f"the archive's server cannot read the frames, nothing was imported: {reason}")
