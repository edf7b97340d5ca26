"""Recordings from an archive: the run's Events from Tiled, its frames in place, or fetched when their file is not here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbat_live.replay.imported import is_import, load_imported
from xbat_live.replay.recording import NAN, Decision, Exposure, FramePlace, Recording, ReplayError

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive import Run

FETCHED = "fetched.h5"
_STREAMS = ("dark", "flat", "primary")


def load_run(
    client: Any,
    which: str = "last",
    *,
    scratch: Path,
    config_file: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *told: None,
) -> Recording:
    """Read a run from an archive.

    Parameters
    ----------
    client
        Of the archive's root, from `xbat_live.archive.connect`.
    which
        ``last`` (a replay that was written into the archive is none), a uid, its first characters, or a scan number.
    scratch
        Folder for frames whose file this machine does not have.
    config_file
        Experiment file for an imported run; others hold their configuration, or get it by `replay_config`.
    progress
        Told what is fetched, how much of how much.

    Raises
    ------
    ReplayError
        The run goes on, has no frames, or its frames can be read nowhere.
    ArchiveError
        There is no such run.
    """
    from xbat_live.archive import open_run

    opened = open_run(client, which)
    run = opened.client
    start, stop = dict(run.metadata["start"]), dict(run.metadata.get("stop") or {})
    uid = start["uid"]
    if start.get("analysis_of"):
        raise ReplayError(f"run {uid[:8]} is itself an analysis of {start['analysis_of'][:8]}; replay that one")
    if not stop:
        raise ReplayError(
            f"run {uid[:8]} has no stop document: it still goes on, or was cut off; wait for its end, or close it with: "
            "xbat archive repair"
        )
    if is_import(start):
        return load_imported(opened, scratch=scratch, config_file=config_file, progress=progress)
    tables = {name: _table(run, name) for name in (*_STREAMS, "decision", "analysis") if name in run}
    key = _image_key(run)
    rows = sorted(
        (
            (float(row["time"]), name, number, row)
            for name in _STREAMS
            if name in tables
            for number, row in enumerate(tables[name].to_dict("records"))
        ),
        key=lambda item: item[0],
    )
    if not any(name == "primary" for _, name, _, _ in rows):
        raise ReplayError(f"run {uid[:8]} ({start.get('plan_name', 'unknown plan')}) has no frames of the sample")
    exposures = [_exposure(number, name, row, key, start) for number, (_, name, _, row) in enumerate(rows)]
    notes: list[str] = []
    if stop.get("exit_status") != "success":
        notes.append(f"the run ended with {stop.get('exit_status')}: {stop.get('reason') or 'no reason given'}")
    if all(math.isnan(e.elapsed_s) for e in exposures):
        notes.append("the run does not tell when its points began (older version): what depends on time may differ")
    exposures = _here(opened, exposures, [number for _, _, number, _ in rows], key, scratch=scratch, progress=progress)
    return Recording(
        start=start,
        stop=stop,
        exposures=tuple(exposures),
        decisions=tuple(_decisions(tables.get("decision"))),
        verdicts=_verdicts(tables.get("analysis")),
        source=f"run {uid[:8]} of {client.uri}",
        notes=tuple(notes),
    )


def _table(run: Any, stream: str) -> pd.DataFrame:
    import pandas as pd

    node = run[stream]
    if "internal" not in node.base:
        return pd.DataFrame()
    return node.base["internal"].read()


def _image_key(run: Any) -> str:
    """Return the data key of the camera's image."""
    stream = run["primary"]
    keys = [name for name, key in stream.metadata["data_keys"].items() if key.get("external") is not None]
    if len(keys) != 1:
        raise ReplayError(f"the run has {len(keys)} cameras ({', '.join(keys) or 'none'}); a replay needs one")
    return keys[0]


def _exposure(number: int, stream: str, row: dict[str, Any], key: str, start: dict[str, Any]) -> Exposure:
    camera = key.removesuffix("_image")
    data = {name: _plain(value) for name, value in row.items() if name not in ("seq_num", "time")}
    data = {name: value for name, value in data.items() if not name.startswith("ts_")}

    def get(name: str, default: Any = NAN) -> Any:
        value = data.get(name, default)
        return default if value is None else value

    stage = (float(get("stage_x")), float(get("stage_y")))
    return Exposure(
        number=number,
        stream=stream,
        seq_num=int(row["seq_num"]),
        time_s=float(row["time"]),
        elapsed_s=float(get("point_elapsed_s")),
        point=int(get("point_index", 0)),
        field=str(get("point_field", "")),
        spot=int(get("point_spot", 0)),
        attempt=int(get("point_attempt", 0)),
        stage_um=stage,
        setpoint_um=(float(get("stage_x_user_setpoint", stage[0])), float(get("stage_y_user_setpoint", stage[1]))),
        energy_ev=float(get("mono_energy")),
        exposure_s=float(get("point_exposure_s")),
        open_time_s=float(get("point_open_time_s", 0.0)),
        light_fraction=float(get("point_light_fraction", 1.0)),
        flux_reserved_ph_s=float(get("point_flux_reserved_ph_s")),
        flux_ph_s=_flux(get, start),
        frame=FramePlace(
            Path(str(get(f"{camera}_frame_file", ""))),
            str(get(f"{camera}_frame_dataset", "")),
            int(get(f"{camera}_frame_index", -1)),
        ),
        data=data,
    )


def _flux(get: Callable[[str], Any], start: dict[str, Any]) -> float:
    """Return the flux that was settled; in a run that does not tell it, what the ion chamber said after the exposure."""
    known = float(get("point_flux_ph_s"))
    if not math.isnan(known):
        return known
    about = start.get("dose", {})
    i0_na, reference_na, flux_ph_s = get("i0_current_na"), about.get("i0_reference_na"), about.get("flux_ph_s")
    return float(i0_na) / float(reference_na) * float(flux_ph_s) if reference_na and flux_ph_s else NAN


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _decisions(table: pd.DataFrame | None) -> Iterator[Decision]:
    for row in [] if table is None else table.to_dict("records"):
        try:
            inputs = json.loads(row.get("decision_inputs") or "{}")
        except ValueError:
            inputs = {}
        frame = int(row["decision_seq_num"])
        yield Decision(
            action=str(row["decision_action"]),
            reason=str(row["decision_reason"]),
            frame=frame,
            after=frame,
            spot=int(row["decision_spot"]),
            inputs=inputs,
            threshold=float(row["decision_threshold"]),
            time_s=float(row["time"]),
        )


def _verdicts(table: pd.DataFrame | None) -> dict[int, str]:
    if table is None or "analysis_verdict" not in table:
        return {}
    pairs = zip(table["analysis_seq_num"], table["analysis_verdict"], strict=True)
    return {int(number): str(verdict) for number, verdict in pairs}


def _here(
    run: Run,
    exposures: list[Exposure],
    rows: list[int],
    key: str,
    *,
    scratch: Path,
    progress: Callable[[str, int, int], None],
) -> list[Exposure]:
    """Return the exposures with their frames in files of this machine; `rows` of their streams are where the archive has them."""
    whole = {file: _is_whole(file) for file in {e.frame.file for e in exposures}}
    if all(e.frame.dataset and e.frame.index >= 0 and whole[e.frame.file] for e in exposures):
        return exposures
    import h5py

    from xbat_live.archive import ArchiveError

    file = scratch / FETCHED
    found: list[Exposure] = []
    stacks = {stream: run.frame_stack(stream, key, direct=False) for stream in {e.stream for e in exposures}}
    with h5py.File(file, "w") as store:
        for exposure, row in zip(exposures, rows, strict=True):
            try:
                frame = stacks[exposure.stream][row]
            except (ArchiveError, IndexError) as error:
                raise ReplayError(
                    f"run {run.uid[:8]}, frame {exposure.seq_num} of {exposure.stream}: {error}"
                ) from error
            if exposure.stream not in store:
                store.create_dataset(
                    exposure.stream,
                    (0, *frame.shape),
                    frame.dtype,
                    maxshape=(None, *frame.shape),
                    chunks=(1, *frame.shape),
                )
            dataset = store[exposure.stream]
            dataset.resize(len(dataset) + 1, axis=0)
            dataset[-1] = frame
            found.append(replace(exposure, frame=FramePlace(file, exposure.stream, len(dataset) - 1)))
            progress("frames fetched", len(found), len(exposures))
    return found


def _is_whole(file: Path) -> bool:
    from xbat_live.archive.whole_files import cut_off

    return file.is_file() and not cut_off(file)
