"""Runs as an analyst wants them: frames, events, verdicts, decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xbat_live.archive.settings import ArchiveError
from xbat_live.archive.upload import explain, why_unreadable

if TYPE_CHECKING:
    import pandas as pd

_STACK = 4  # dimensions of what Tiled serves: (event, frame of the event, y, x)


@dataclass(frozen=True)
class Frames:
    """Frames of a stream, read when they are indexed.

    ``frames[3]`` is the frame of the fourth Event, (ny, nx); ``frames[2:5]`` is (3, ny, nx);
    ``frames[:, y0:y1, x0:x1]`` reads only that part of each frame.

    Attributes
    ----------
    shape
        (number of Events, ny, nx).
    dtype
        As in the file, e.g. uint16.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    _array: Any = field(repr=False)
    _run: Any = field(repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read from the server; see the class.

        Raises
        ------
        ArchiveError
            The server cannot read the file: it is missing, damaged or outside the server's readable_storage.
        """
        import httpx

        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, int | np.integer) and not -len(self) <= first < len(self):
            raise IndexError(f"frame {first}: there are {len(self)}")
        inner = (0,) if len(self._array.shape) == _STACK else ()
        try:
            return np.asarray(self._array[(first, *inner, *rest)])
        except httpx.HTTPStatusError as error:
            reason = why_unreadable(self._run) or explain(error)
            raise ArchiveError(f"the archive cannot read these frames: {reason}") from error


@dataclass(frozen=True)
class RunView:
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
    """

    uid: str
    start: dict[str, Any] = field(repr=False)
    stop: dict[str, Any] = field(repr=False)
    streams: tuple[str, ...]
    client: Any = field(repr=False)

    def frames(self, stream: str = "primary", key: str | None = None) -> Frames:
        """Return the frames of `stream`, without reading any yet.

        Parameters
        ----------
        key
            Data key; needed only when there are several with frames.

        Raises
        ------
        ArchiveError
            No such stream or no frames in it.
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
        shape = (array.shape[0], *array.shape[-2:])
        return Frames(shape=shape, dtype=array.dtype, _array=array, _run=self.client)

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

    def _optional(self, stream: str) -> pd.DataFrame:
        import pandas as pd

        return self.events(stream) if stream in self.streams else pd.DataFrame({"seq_num": [], "time": []})

    def _stream(self, stream: str) -> Any:
        if stream not in self.streams:
            raise ArchiveError(
                f"run {self.uid[:8]} has no stream {stream!r}; it has {', '.join(self.streams) or 'none'}"
            )
        return self.client[stream]


def open_run(client: Any, which: str | int = "last") -> RunView:
    """Open a run of the archive.

    Parameters
    ----------
    client
        From `connect`.
    which
        ``"last"``, a uid or its first characters, or a scan number (the latest run of that number).

    Raises
    ------
    ArchiveError
        There is none, or the characters fit several.
    """
    import bluesky_tiled_plugins  # noqa: F401  (registers the clients of runs and streams)

    try:
        run = client[-1 if which == "last" else which]
        if which == "last" and "start" not in run.metadata:
            # The newest entry need not be a run: analyses stand beside the runs.
            from tiled.queries import SpecsQuery

            run = client.search(SpecsQuery(["BlueskyRun"])).values().last()
    except (KeyError, IndexError, ValueError) as error:
        what = "no runs yet" if which == "last" else f"no single run {which!r} ({error})"
        raise ArchiveError(f"the archive at {client.uri} has {what}") from error
    metadata = run.metadata
    start = dict(metadata["start"])
    return RunView(uid=start["uid"], start=start, stop=dict(metadata.get("stop") or {}), streams=tuple(run), client=run)
