"""A run as an analyst wants it: frames, verdicts, decisions, dose and electrochemistry, one line each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.archive.analyses import StoredAnalysis, list_analyses, open_analysis
from xbat_live.archive.cubes import Cubes, cubes_of
from xbat_live.archive.dose_maps import dose_map
from xbat_live.archive.electrochemistry import electrochemistry
from xbat_live.archive.frame_array import FrameSource, labelled, shifts_of
from xbat_live.archive.frame_stack import Frames, local_frames
from xbat_live.archive.frame_table import frame_table
from xbat_live.archive.references import EXPOSURE_KEY, References, column
from xbat_live.archive.settings import ArchiveError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True)
class Run:
    """One run in the archive.

    Attributes
    ----------
    uid
        Its name for ever.
    start, stop
        Documents; `stop` is empty while the run goes on.
    streams
        Names, e.g. ``("analysis", "dark", "decision", "flat", "primary")``.
    client
        Tiled's own client of the run, for everything else (``.documents()``, ``.validate()``).
    catalog
        Tiled's client of the archive the run is in.
    """

    uid: str
    start: dict[str, Any] = field(repr=False)
    stop: dict[str, Any] = field(repr=False)
    streams: tuple[str, ...]
    client: Any = field(repr=False)
    catalog: Any = field(default=None, repr=False)

    def frames(
        self,
        stream: str = "primary",
        *,
        accepted: bool = False,
        aligned: bool = False,
        normalised: bool = False,
        key: str | None = None,
    ) -> xr.DataArray:
        """Return the frames of `stream` with their coordinates, without reading any yet.

        Parameters
        ----------
        stream
            ``"primary"``, ``"flat"`` or ``"dark"``.
        accepted
            Leave out the frames that the live analysis rejected. Where nobody judged, all are accepted.
        aligned
            Undo the registered shift of each frame against the first accepted one of its spot, field of view and energy
            (cubic spline); NaN where the content was outside the frame. A frame that could not be registered is all NaN.
        normalised
            Optical density ``log(flat - dark) - log(frame - dark)``, with the mean dark and the 8 flats nearest in time of
            the same energy, brought to the exposure of the frame; without flats the negative logarithm of the counts.
        key
            Data key; needed only when there are several with frames.

        Returns
        -------
        xarray.DataArray
            Shape (frame, y, x); counts in the camera's dtype, or float32 when normalised or aligned. Along ``frame`` (its
            values are the Events' ``seq_num``): ``time`` (UTC), ``elapsed_s``, ``energy_ev``, stage and sample position in um,
            ``state_of_charge``, ``dose_gy``, ``verdict`` and more, as far as the run holds them; along ``y`` and ``x`` the
            distance from the middle of the frame, um. Every coordinate has ``units``. ``.values``, ``.load()`` or a
            reduction read; slices do not.

        Raises
        ------
        ArchiveError
            No such stream, no frames in it, or no shifts to align by.

        Examples
        --------
        >>> density = run.frames(accepted=True, aligned=True, normalised=True)  # doctest: +SKIP
        >>> density.sel(frame=12).plot()  # doctest: +SKIP
        >>> density.where(density.dose_gy < 50e3, drop=True).mean("frame")  # doctest: +SKIP
        """
        stack = self.frame_stack(stream, key)
        table = frame_table(self, stream, len(stack))
        if accepted:
            table = table[table["accepted"]].reset_index(drop=True)
        binning = self._binning(stream)
        source = FrameSource(
            frames=stack,
            rows=table["row"].to_numpy(np.int64),
            references=References(self) if normalised else None,
            time_s=table["time"].to_numpy(float),
            energy_ev=column(table, "mono_energy", 0.0),
            exposure_s=column(table, EXPOSURE_KEY, np.nan),
            shift_yx_px=shifts_of(table, binning, stack.shape[1:], uid=self.uid) if aligned else None,
        )
        size_um = self.start.get("pixel_size_um")
        attrs = {
            "units": "1" if normalised else "counts",
            "long_name": "optical density" if normalised else "counts of the camera",
            "run": self.uid,
            "stream": stream,
            "sample": str(self.start.get("sample", "")),
            "aligned": int(aligned),
        }
        return labelled(source, table, pixel_size_um=None if not size_um else size_um * binning[0], attrs=attrs)

    def frame_stack(self, stream: str = "primary", key: str | None = None, *, direct: bool = True) -> Frames:
        """Return the frames of `stream` as a plain array in the order of the Events, without reading any yet.

        They are read from the HDF5 file itself where it is on this machine, else through Tiled.

        Parameters
        ----------
        key
            Data key; needed only when there are several with frames.
        direct
            False: through Tiled even if the file is here.

        Raises
        ------
        ArchiveError
            No such stream or no frames in it, or several per Event.
        """
        node = self._stream(stream)
        data_keys = node.metadata["data_keys"]
        keys = [name for name in node.base if data_keys.get(name, {}).get("external") is not None]
        if key is None and len(keys) == 1:
            key = keys[0]
        if key not in keys:
            raise ArchiveError(
                f"run {self.uid[:8]}, stream {stream!r}: frames are under {keys or 'no key'}, asked for {key!r}"
            )
        array = node.base[key]
        if any(side != 1 for side in array.shape[1:-2]):
            raise ArchiveError(
                f"run {self.uid[:8]}, stream {stream!r}: {key} is of shape {array.shape}, several frames per Event; "
                f"read it with run.client[{stream!r}][{key!r}]"
            )
        shape = (array.shape[0], *array.shape[-2:])
        file = local_frames(array, shape, array.dtype) if direct else None
        return Frames(shape=shape, dtype=array.dtype, _array=array, _run=self.client, _file=file)

    def cubes(self, stream: str = "primary", key: str = "camera_image") -> Cubes:
        """Return the energy sweeps of `stream`, (Events, energies, ny, nx), without reading any yet.

        Raises
        ------
        ArchiveError
            No such stream or key, or no sweeps under it.
        """
        node = self._stream(stream)
        if key not in node.base:
            raise ArchiveError(f"run {self.uid[:8]}, stream {stream!r}: no key {key!r}")
        return cubes_of(self.client, node.base[key], f"run {self.uid[:8]}, stream {stream!r}: {key}")

    def events(self, stream: str = "primary") -> pd.DataFrame:
        """Return the values of a stream's Events.

        Returns
        -------
        pandas.DataFrame
            One row per Event; ``seq_num``, ``time`` (s, Unix) and a column per data key. Long arrays are not in it
            (``run.client[stream][key].read()``). Units are in ``.attrs["units"]`` by column.

        Raises
        ------
        ArchiveError
            No such stream.
        """
        import pandas as pd

        node = self._stream(stream)
        if "internal" not in node.base:
            return pd.DataFrame({"seq_num": [], "time": []})
        table: pd.DataFrame = node.base["internal"].read()
        table = table[[name for name in table.columns if not name.startswith("ts_")]]
        data_keys = node.metadata["data_keys"]
        table.attrs["units"] = {
            name: data_keys[name]["units"] for name in table.columns if data_keys.get(name, {}).get("units")
        }
        return table

    def analysis(self) -> pd.DataFrame:
        """Return the verdicts on the frames, one row per frame; empty when nothing was analysed. See `events`."""
        return self._optional("analysis")

    def decisions(self) -> pd.DataFrame:
        """Return what was decided and why, one row per decision; empty when there was none. See `events`."""
        return self._optional("decision")

    def electrochemistry(self, stream: str = "primary") -> xr.Dataset:
        """Return voltage, current, capacity, state of charge and mode of the cell at the time of every frame of `stream`.

        Returns
        -------
        xarray.Dataset
            Along ``frame`` with the coordinates of `frames`, so that both can be joined; units in ``attrs``. What was
            recorded in another stream (a monitor) is interpolated to the frames' time: linearly, modes as the last one told.

        Raises
        ------
        ArchiveError
            The run holds nothing of the potentiostat.
        """
        return electrochemistry(self, stream)

    def dose_map(self, material: str | None = None, layer: str | None = None) -> xr.DataArray:
        """Return the dose on the sample at the end of this run, everything before it included.

        Parameters
        ----------
        material, layer
            Of which; left out: the one whose dose was limited.

        Returns
        -------
        xarray.DataArray
            Shape (y, x), Gy, in sample coordinates (um); model, material and layer in ``attrs``.

        Raises
        ------
        ArchiveError
            The archive holds no map of it; the message names those there are, or the ledger.
        """
        return dose_map(self, material, layer)

    def analyses(self, kind: str) -> list[str]:
        """Return the names of the analyses of one kind (``"motion"``, ``"dose"``, ...) stored beside this run, oldest first."""
        return list_analyses(self.catalog, self.uid, kind)

    def stored(self, kind: str, name: str = "last") -> StoredAnalysis:
        """Open an analysis stored beside this run; see `xbat_live.archive.open_analysis`."""
        return open_analysis(self.catalog, self.uid, name, kind)

    def _binning(self, stream: str) -> tuple[int, int]:
        configuration = self._stream(stream).metadata.get("configuration", {})
        values = {key: value for device in configuration.values() for key, value in device.get("data", {}).items()}
        y, x = (next((int(v) for k, v in values.items() if k.endswith(f"_bin_{axis}")), 1) for axis in "yx")
        return max(y, 1), max(x, 1)

    def _optional(self, stream: str) -> pd.DataFrame:
        import pandas as pd

        return self.events(stream) if stream in self.streams else pd.DataFrame({"seq_num": [], "time": []})

    def _stream(self, stream: str) -> Any:
        if stream not in self.streams:
            raise ArchiveError(
                f"run {self.uid[:8]} has no stream {stream!r}; it has {', '.join(self.streams) or 'none'}"
            )
        return self.client[stream]


def open_run(client: Any, which: str | int = "last") -> Run:
    """Open a run of the archive.

    Parameters
    ----------
    client
        From `connect`.
    which
        ``"last"`` (by the time it began), a uid or its first characters (at least 5), or a scan number (the latest run of
        that number).

    Raises
    ------
    ArchiveError
        There is none, or the characters fit several.
    """
    import bluesky_tiled_plugins  # noqa: F401  (registers the clients of runs and streams)

    try:
        run = _latest(client) if which == "last" else client[which]
    except (KeyError, IndexError, ValueError) as error:
        what = "no runs yet" if which == "last" else f"no single run {which!r} ({error})"
        raise ArchiveError(f"the archive at {client.uri} has {what}") from error
    metadata = run.metadata
    if "start" not in metadata:
        raise ArchiveError(f"the archive at {client.uri} has no run {which!r}; that entry is something else")
    start = dict(metadata["start"])
    return Run(
        uid=start["uid"],
        start=start,
        stop=dict(metadata.get("stop") or {}),
        streams=tuple(run),
        client=run,
        catalog=client,
    )


def _latest(client: Any) -> Any:
    """Return the run that began last and is a measurement.

    The newest entry need not be one: analyses stand beside the runs, a repair inserts old runs, and replays are runs that say
    ``analysis_of``.
    """
    from tiled.queries import SpecsQuery

    runs = client.search(SpecsQuery(["BlueskyRun"])).sort(("start.time", -1)).values()
    for run in runs:
        if not run.metadata.get("start", {}).get("analysis_of"):
            return run
    raise IndexError("no run that is a measurement")
