"""A past run as a replay needs it: its exposures in order, its decisions, the cell; wherever it was read from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRAME_TYPES = {"primary": "Normal", "flat": "FlatField", "dark": "Background"}
STREAMS = {frame_type: stream for stream, frame_type in FRAME_TYPES.items()}
NAN = math.nan


class ReplayError(Exception):
    """A run that cannot be replayed; the message says why, and what would help."""


@dataclass(frozen=True)
class FramePlace:
    """Where a recorded frame is.

    Attributes
    ----------
    file, dataset, index
        HDF5 file, dataset (n, ny, nx) and row.
    """

    file: Path
    dataset: str
    index: int


@dataclass(frozen=True)
class Exposure:
    """One recorded exposure.

    Attributes
    ----------
    number
        Place in the order of recording, from 0, over all streams.
    stream, seq_num
        ``primary``, ``flat`` or ``dark``, and the number of its Event there.
    time_s
        Of the Event, Unix time, s.
    elapsed_s
        When its time point was begun, s since the first one; NaN when that was not recorded.
    point, field, spot, attempt
        What the plan called it.
    stage_um, setpoint_um
        Stage reading (x, y) and where the stage was sent, um.
    energy_ev
        Photon energy, eV.
    exposure_s, open_time_s, light_fraction
        Exposure, shutter-open time by its counter, s, and part of the light that the camera got.
    flux_reserved_ph_s, flux_ph_s
        Flux that was reserved, headroom included, and flux that was settled, photons/s; NaN when not recorded.
    frame
        Where it is.
    data
        The Event's data.
    """

    number: int
    stream: str
    seq_num: int
    time_s: float
    point: int
    field: str
    spot: int
    attempt: int
    stage_um: tuple[float, float]
    setpoint_um: tuple[float, float]
    energy_ev: float
    exposure_s: float
    open_time_s: float
    frame: FramePlace
    elapsed_s: float = NAN
    light_fraction: float = 1.0
    flux_reserved_ph_s: float = NAN
    flux_ph_s: float = NAN
    data: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """One decision, recorded or of a replay.

    Attributes
    ----------
    action, reason, inputs, threshold
        As in the stream ``decision``.
    frame
        Frames of the sample that its run had taken by then.
    after
        Recorded frame (``seq_num`` in ``primary``) that was played last; for a recorded decision the same as `frame`.
    spot
        Spot on the sample.
    time_s
        Unix time, s; of the recording.
    fidelity
        What the frames were that it rests on: ``recorded``, ``moved``, ``stand-in``.
    """

    action: str
    reason: str
    frame: int
    after: int
    spot: int = 0
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    threshold: float = NAN
    time_s: float = NAN
    fidelity: str = "recorded"


@dataclass(frozen=True)
class Recording:
    """A past run.

    Attributes
    ----------
    start, stop
        Its documents; `stop` is empty when it has none.
    exposures
        In the order of recording; `Exposure.number` is the index.
    decisions
        In the order of recording.
    verdicts
        ``analysis_verdict`` by `seq_num` of the frame.
    source
        Where it was read from, for people.
    notes
        What is not as it should be, for people.
    frames_alone
        It was made of frames and their headers: so was its configuration, with what an experiment file says.
    """

    start: dict[str, Any] = dataclasses.field(repr=False)
    stop: dict[str, Any] = dataclasses.field(repr=False)
    exposures: tuple[Exposure, ...] = dataclasses.field(repr=False)
    decisions: tuple[Decision, ...] = dataclasses.field(repr=False)
    verdicts: dict[int, str] = dataclasses.field(default_factory=dict, repr=False)
    source: str = ""
    notes: tuple[str, ...] = ()
    frames_alone: bool = False

    @property
    def uid(self) -> str:
        """Of the run."""
        return str(self.start.get("uid", ""))

    @property
    def begin_s(self) -> float:
        """Unix time of the first time point, s: the latest that agrees with all Events."""
        latest = min((e.time_s - e.elapsed_s for e in self.of_points() if not math.isnan(e.elapsed_s)), default=NAN)
        return latest if not math.isnan(latest) else min((e.time_s for e in self.exposures), default=0.0)

    @property
    def duration_s(self) -> float:
        """From the first to the last document, s."""
        times = [float(self.start.get("time", NAN)), *(e.time_s for e in self.exposures)]
        times += [float(self.stop["time"])] if self.stop else []
        known = [value for value in times if not math.isnan(value)]
        return max(known) - min(known) if known else 0.0

    @property
    def frames(self) -> int:
        """Frames of the sample."""
        return sum(e.stream == "primary" for e in self.exposures)

    def of_points(self) -> Iterator[Exposure]:
        """Yield the exposures that belong to time points: all but the darks."""
        return (e for e in self.exposures if e.stream != "dark")

    @property
    def elapsed_at_end_s(self) -> float:
        """When the series looked at its clock for the last time, s since the first point; NaN when that was not recorded."""
        ends = [d.inputs.get("elapsed_s", NAN) for d in self.decisions if d.action == "end"]
        return float(ends[-1]) if ends else NAN
