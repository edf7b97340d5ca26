"""The cubes of an `operando_ffi_xas` protocol, over all runs that it took, in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.analysis.run_frames import AnalysisError
from xbat_live.archive import ArchiveError, open_run
from xbat_live.archive.cubes import Cubes
from xbat_live.archive.run import Run

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

SAMPLE, I0, FOIL = "primary", "i0", "foil"
_MOST_RUNS = 100


@dataclass(frozen=True, eq=False)
class Cube:
    """One energy sweep.

    Attributes
    ----------
    number
        Counts all cubes of the protocol, references included.
    stream
        ``primary`` (the sample), ``i0`` or ``foil``.
    phase
        Of the protocol, e.g. ``ocv``, ``charge``, ``end C``, ``end A``.
    place
        ``C``, the label of a fresh spot, or empty.
    time_s
        Unix time of its Event, s.
    place_time_s
        Time that the place has been in the beam, this cube included, s.
    voltage_v, state_of_charge
        Of the cell; NaN where the run does not tell.
    """

    number: int
    stream: str
    phase: str
    place: str
    time_s: float
    place_time_s: float
    voltage_v: float
    state_of_charge: float
    energy_ev: Float
    _cubes: Cubes
    _row: int

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yield the frames (ny, nx), counts, one per energy."""
        return self._cubes.frames(self._row)


@dataclass(frozen=True)
class ProtocolCubes:
    """All cubes of a protocol, ascending in their number.

    Attributes
    ----------
    run
        The run that was asked for.
    run_uids
        The runs that hold the cubes, the first one first.
    missing
        Runs that the protocol began in and that are not in this archive.
    unfinished
        Runs that have no stop document: what they took last may not be here.
    """

    run: Run
    run_uids: tuple[str, ...]
    missing: tuple[str, ...]
    unfinished: tuple[str, ...]
    cubes: tuple[Cube, ...]
    _runs: tuple[Run, ...]

    def dark(self) -> Float32 | None:
        """Return the mean of the darks, (ny, nx), counts; None when no run has any."""
        total, count = None, 0
        for run in self._runs:
            if not _has_frames(run, "dark"):
                continue
            stack = run.frame_stack("dark")
            for number in range(len(stack)):
                frame = np.asarray(stack[number], np.float64)
                total, count = (frame if total is None else total + frame), count + 1
        return None if total is None else np.asarray(total / count, np.float32)


def protocol_cubes(run: Run) -> ProtocolCubes:
    """Find the cubes of `run` and of the runs that it goes on from.

    Raises
    ------
    AnalysisError
        It holds no energy sweeps of the sample.
    """
    runs, missing = _chain(run)
    found = (cube for one in runs for stream in (I0, FOIL, SAMPLE) for cube in _cubes_of(one, stream))
    cubes = sorted(found, key=lambda cube: cube.number)
    if not any(cube.stream == SAMPLE for cube in cubes):
        raise AnalysisError(
            f"run {run.uid[:8]} ({run.start.get('plan_name', 'unknown plan')}) holds no energy sweeps of the sample; "
            "`xbat analyse xas` needs a run of operando_ffi_xas (`xbat ls --plan operando_ffi_xas`)"
        )
    return ProtocolCubes(
        run,
        tuple(one.uid for one in runs),
        tuple(missing),
        tuple(one.uid for one in runs if not one.stop),
        tuple(cubes),
        tuple(runs),
    )


def _chain(run: Run) -> tuple[list[Run], list[str]]:
    runs, missing = [run], []
    while (before := runs[0].start.get("resumes")) and len(runs) < _MOST_RUNS:
        try:
            runs.insert(0, open_run(run.catalog, str(before)))
        except ArchiveError:
            missing.append(str(before))
            break
    return runs, missing


def _has_frames(run: Run, stream: str) -> bool:
    """Whether frames of a stream have arrived: one that was declared before its run was killed has none."""
    return stream in run.streams and any(
        value.get("external")
        for key, value in run.client[stream].metadata["data_keys"].items()
        if key in run.client[stream].base
    )


def _cubes_of(run: Run, stream: str) -> Iterator[Cube]:
    if not _has_frames(run, stream):
        return
    events = run.events(stream)
    if events.empty:
        return
    cubes = run.cubes(stream)
    energies = np.asarray(run.client[stream]["cube_energy_ev"].read(), np.float64)
    for row, (_, event) in enumerate(events.iterrows()):
        yield Cube(
            number=int(event["cube_number"]),
            stream=stream,
            phase=str(event["cube_phase"]),
            place=str(event["cube_place"]),
            time_s=float(event["time"]),
            place_time_s=float(event["cube_place_time_s"]),
            voltage_v=float(event.get("potentiostat_voltage_v", np.nan)),
            state_of_charge=float(event.get("potentiostat_soc", np.nan)),
            energy_ev=energies[row],
            _cubes=cubes,
            _row=row,
        )
