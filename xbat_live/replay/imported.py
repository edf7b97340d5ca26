"""Recordings from runs that were imported: frames and what their headers told, from the archive; no decisions, no configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.recordings import Recording as Frame
from xbat_live.recordings.model import FrameKind
from xbat_live.replay.frames_only import FRAMES, copied, of_frames
from xbat_live.replay.recording import Recording, ReplayError

if TYPE_CHECKING:
    from xbat_live.archive import Run

_KINDS: dict[str, FrameKind] = {"dark": "dark", "flat": "flat", "primary": "sample"}


def is_import(start: dict[str, Any]) -> bool:
    """Tell an import of frames from a run, also from an exported run that came back: that one has its plan and configuration."""
    return start.get("plan_name") == "import" and "config" not in start


def load_imported(
    run: Run,
    *,
    scratch: Path,
    config_file: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *told: None,
) -> Recording:
    """Read an imported run as `load_frames` reads the files it came from; see there.

    Raises
    ------
    ReplayError
        The frames cannot be read, or there are no references among them.
    """
    from xbat_live.archive import ArchiveError
    from xbat_live.archive.frame_table import frame_table

    groups: dict[FrameKind, list[Frame]] = {"dark": [], "flat": [], "sample": []}
    stacks = {name: run.frame_stack(name) for name in _KINDS if name in run.streams}
    for name, stack in stacks.items():
        table = frame_table(run, name, len(stack))
        pixel_um = run.start.get("pixel_size_um")
        groups[_KINDS[name]] = [
            Frame(
                file=Path(name),
                index=int(row["row"]),
                shape=(stack.shape[1], stack.shape[2]),
                dtype=stack.dtype.str,
                kind=_KINDS[name],
                pixel_size_um=float(pixel_um) if pixel_um else None,
                energy_ev=_number(row.get("mono_energy")),
                exposure_s=_number(row.get("point_exposure_s")),
                position_um=_position(row),
                time_s=_number(row["time"]),
            )
            for row in table.to_dict("records")
        ]
    if not groups["flat"]:
        raise ReplayError(
            f"run {run.uid[:8]} has no reference frames, which every series takes; import it with --flats"
        )
    frames = [frame for group in groups.values() for frame in group]
    pixels = (stacks[str(frame.file)][frame.index] for frame in frames)
    try:
        places = dict(copied(frames, pixels, scratch / FRAMES, progress))
    except ArchiveError as error:
        raise ReplayError(f"run {run.uid[:8]}: {error}") from error
    made = of_frames(groups, places, config_file=config_file, base=Path.cwd())
    start = {**made.start, "uid": run.uid, "sample": run.start.get("sample") or made.start["sample"]}
    return replace(made, start=start, source=f"run {run.uid[:8]}, imported frames")


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _position(row: dict[str, Any]) -> tuple[float, float, float] | None:
    x, y, z = (_number(row.get(f"stage_{axis}")) for axis in "xyz")
    return None if x is None or y is None else (x, y, z or 0.0)
