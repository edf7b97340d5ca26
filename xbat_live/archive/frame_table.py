"""One row per frame: what its Event says, joined with its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xbat_live.archive.settings import ArchiveError

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive.run import Run

UNJUDGED = "unjudged"
_VERDICTS = {
    "analysis_verdict": "verdict",
    "analysis_accepted": "accepted",
    "analysis_shift_y_px": "shift_y_px",
    "analysis_shift_x_px": "shift_x_px",
    "analysis_sigma_y_px": "sigma_y_px",
    "analysis_sigma_x_px": "sigma_x_px",
    "analysis_sample_y_um": "registered_y_um",
    "analysis_sample_x_um": "registered_x_um",
}


@dataclass(frozen=True)
class Column:
    """A coordinate of the frames: its name, the data keys it may come from (the first that is there), unit and meaning."""

    name: str
    keys: tuple[str, ...]
    unit: str
    meaning: str


COLUMNS = (
    Column("energy_ev", ("mono_energy",), "eV", "photon energy"),
    Column("exposure_s", ("point_exposure_s",), "s", "exposure time"),
    Column("stage_x_um", ("stage_x",), "um", "stage reading"),
    Column("stage_y_um", ("stage_y",), "um", "stage reading"),
    Column("stage_z_um", ("stage_z",), "um", "stage reading"),
    Column("angle_deg", ("stage_theta",), "deg", "rotation of the sample"),
    Column(
        "sample_x_um", ("registered_x_um", "point_sample_x_um"), "um", "sample coordinate in the middle of the frame"
    ),
    Column(
        "sample_y_um", ("registered_y_um", "point_sample_y_um"), "um", "sample coordinate in the middle of the frame"
    ),
    Column("state_of_charge", ("potentiostat_soc",), "1", "mean state of charge of the cell, 0 to 1"),
    Column("voltage_v", ("potentiostat_voltage_v",), "V", "cell voltage"),
    Column("dose_gy", ("point_dose_gy",), "Gy", "highest dose in the footprint after the frame"),
    Column("shift_y_px", ("shift_y_px",), "px", "registered shift of the content, unbinned pixels"),
    Column("shift_x_px", ("shift_x_px",), "px", "registered shift of the content, unbinned pixels"),
    Column("point", ("point_index",), "", "time point of the series, from 0"),
    Column("spot", ("point_spot",), "", "spot on the sample, from 0"),
    Column("field", ("point_field",), "", "field of view"),
    Column("attempt", ("point_attempt",), "", "0 for the first exposure, 1, 2, ... for retakes"),
    Column("verdict", ("verdict",), "", "verdict of the live analysis"),
    Column("accepted", ("accepted",), "", "whether the frame is fit for analysis"),
)


def frame_table(run: Run, stream: str, n_frames: int) -> pd.DataFrame:
    """Return one row per frame of `stream`: ``row`` of the frame, ``seq_num``, ``time`` (Unix, s), the Event's values, and the verdict.

    A point that was rewound has two Events of one number: the later one counts, as bluesky says.

    Raises
    ------
    ArchiveError
        Events and frames of a finished run do not belong together.
    """
    import pandas as pd

    events = run.events(stream)
    if len(events) == 0:  # frames alone, as a fly scan may write them
        events = pd.DataFrame({"seq_num": np.arange(1, n_frames + 1), "time": np.full(n_frames, np.nan)})
    if len(events) != n_frames and run.stop:
        raise ArchiveError(
            f"run {run.uid[:8]}, stream {stream!r}: {len(events)} Events but {n_frames} frames; try `xbat archive repair`"
        )
    table = events.iloc[:n_frames].reset_index(drop=True)  # while it goes on, one may be ahead of the other
    table["row"] = np.arange(len(table))
    table = table.drop_duplicates("seq_num", keep="last")
    return _with_verdicts(table, run.analysis(), stream).reset_index(drop=True)


def _with_verdicts(table: pd.DataFrame, verdicts: pd.DataFrame, stream: str) -> pd.DataFrame:
    if "analysis_seq_num" not in verdicts or len(verdicts) == 0:
        return table.assign(verdict=UNJUDGED, accepted=True)  # nobody judged: nothing is rejected
    if "analysis_stream" in verdicts:
        verdicts = verdicts[verdicts["analysis_stream"] == stream]
        if len(verdicts) == 0:
            return table.assign(verdict=UNJUDGED, accepted=True)
    columns = {old: new for old, new in _VERDICTS.items() if old in verdicts}
    judged = verdicts[["analysis_seq_num", *columns]].rename(columns={"analysis_seq_num": "seq_num", **columns})
    joined = table.merge(judged.drop_duplicates("seq_num", keep="last"), on="seq_num", how="left")
    joined["verdict"] = joined["verdict"].fillna(UNJUDGED)
    joined["accepted"] = joined["accepted"].astype(float).fillna(0.0) > 0
    return joined
