"""What the potentiostat told, on the time base of the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.archive.frame_array import frame_coordinates
from xbat_live.archive.frame_table import frame_table
from xbat_live.archive.settings import ArchiveError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from xbat_live.archive.run import Run

_PREFIX = "potentiostat_"
_NAMES = {
    "voltage_v": ("V", "cell voltage"),
    "current_ma": ("mA", "current, positive charges the cell"),
    "capacity_mah": ("mAh", "charge since the step was started"),
    "soc": ("1", "mean state of charge, 0 to 1"),
    "mode": ("", "mode of the potentiostat"),
    "status": ("", "status of the potentiostat"),
}


def electrochemistry(run: Run, stream: str) -> xr.Dataset:
    """See `xbat_live.archive.Run.electrochemistry`."""
    import xarray as xr

    table = frame_table(run, stream, len(run.frame_stack(stream)))
    found = {name: table[_PREFIX + name].to_numpy() for name in _NAMES if _PREFIX + name in table}
    elsewhere = [name for name in run.streams if name != stream]
    for name in _NAMES:
        if name not in found and (values := _from_another(run, elsewhere, _PREFIX + name, table)) is not None:
            found[name] = values
    if not found:
        raise ArchiveError(f"run {run.uid[:8]} holds nothing of the potentiostat (no data key {_PREFIX}...)")
    variables = {}
    for name, values in found.items():
        unit, meaning = _NAMES[name]
        plain = values if np.issubdtype(values.dtype, np.number) else values.astype(str)
        variables["state_of_charge" if name == "soc" else name] = (
            "frame",
            plain,
            {"units": unit, "long_name": meaning},
        )
    coordinates = {name: value for name, value in frame_coordinates(table).items() if name not in variables}
    return xr.Dataset(variables, coords=coordinates, attrs={"run": run.uid, "sample": str(run.start.get("sample", ""))})


def _from_another(run: Run, streams: list[str], key: str, table: pd.DataFrame) -> np.ndarray | None:
    at_s = table["time"].to_numpy(float)
    for stream in streams:
        if key not in run.client[stream].metadata.get("data_keys", {}):
            continue
        events = run.events(stream)
        if key not in events or len(events) == 0:
            continue
        events = events.sort_values("time", kind="stable")
        time_s, values = events["time"].to_numpy(float), events[key].to_numpy()
        if np.issubdtype(values.dtype, np.number):
            return np.asarray(np.interp(at_s, time_s, values.astype(float)))
        last_told: np.ndarray[Any, Any] = values[np.clip(np.searchsorted(time_s, at_s, side="right") - 1, 0, None)]
        return last_told
    return None
