"""Export a run: choose the format, check the place, write it whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from xbat_live.exchange import dxchange, nexus, ome_tiff, tables, zarr_store
from xbat_live.exchange.errors import TargetError
from xbat_live.exchange.frame_set import FrameSet, Progress, frame_set
from xbat_live.exchange.places import check_target, replacing
from xbat_live.exchange.record import RunRecord, record_of

if TYPE_CHECKING:
    from xbat_live.archive import Run

Format = Literal["nexus", "dxchange", "tiff", "zarr", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
Writer = Callable[[Path, RunRecord, FrameSet, Progress | None], None]

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "nexus": nexus.SUFFIXES,
    "dxchange": dxchange.SUFFIXES,
    "tiff": ome_tiff.SUFFIXES,
    "zarr": zarr_store.SUFFIXES,
    "csv": ("",),
}
_WRITERS: dict[Format, Writer] = {
    "nexus": nexus.write_nexus,
    "dxchange": dxchange.write_dxchange,
    "tiff": ome_tiff.write_ome_tiff,
    "zarr": zarr_store.write_zarr,
}
_OURS = {"zarr": zarr_store.is_export, "csv": tables.is_export}


def default_name(run_uid: str, form: Format) -> str:
    """Return the name of an export that was given none, e.g. ``run-99e47888.nxs``."""
    extra = "-csv" if form == "csv" else ""
    return f"run-{run_uid[:8]}{extra}{_SUFFIXES[form][0]}"


def check_export(out: Path, form: Format, *, force: bool) -> None:
    """Check format and place before the archive is asked for anything.

    Raises
    ------
    TargetError
        The name does not suit the format, or something is there already.
    """
    suffixes = _SUFFIXES[form]
    if not out.name.lower().endswith(suffixes):
        raise TargetError(f"{out}: a file of format {form} is named with {', '.join(suffixes)}")
    check_target(out, force=force, ours=_OURS.get(form))


def export_run(
    run: Run, out: Path, form: Format, *, force: bool = False, progress: Progress | None = None
) -> tuple[int, int]:
    """Write `run` to `out` and return the number of frames and of bytes of pixels in it.

    Parameters
    ----------
    out
        File; a folder for ``zarr`` and ``csv``.
    force
        Replace what a former export left there. It is replaced when the new one is complete.

    Raises
    ------
    TargetError
        See `check_export`.
    ExchangeError
        Nothing was written: disk full, or a run without frames.
    ArchiveError
        The archive cannot read the frames.
    """
    check_export(out, form, force=force)
    record = record_of(run)
    if form == "csv":
        with replacing(out) as partial:
            tables.write_tables(partial, record, run)
        return 0, 0
    frames = frame_set(run, record)
    with replacing(out) as partial:
        _WRITERS[form](partial, record, frames, progress)
    return len(frames), frames.nbytes
