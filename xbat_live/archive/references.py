"""Flats and darks of a finished run, chosen for each frame and read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xbat_live.archive.frame_stack import Frames
    from xbat_live.archive.run import Run

Image = NDArray[np.float32]

MOST_DARKS = 32
NEAREST_FLATS = 8
"""As many as the live analysis averages: fewer put their own noise into the frames, more grow stale."""
MOST_MEAN_FLATS = 32
SAME_ENERGY_EV = 0.5


@dataclass
class References:
    """Flats and darks of a run. One mean dark and one mean flat are in memory, never a stack.

    Parameters
    ----------
    run
        The run; streams ``flat`` and ``dark`` may be missing.
    energy_key
        Event data key of the photon energy, eV.
    """

    run: Run
    energy_key: str = "mono_energy"
    _dark: Image | None = field(default=None, repr=False)
    _flat: Image | None = field(default=None, repr=False)
    _flat_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._flat_frames, self._flat_times_s, self._flat_energies_ev = self._stream("flat")
        self._dark_frames, _, _ = self._stream("dark")

    @property
    def n_flats(self) -> int:
        """Flats of the run."""
        return len(self._flat_times_s)

    @property
    def n_darks(self) -> int:
        """Darks of the run."""
        return 0 if self._dark_frames is None else len(self._dark_frames)

    def dark(self, shape: tuple[int, int]) -> Image:
        """Return the mean of up to 32 darks, evenly chosen, shape (ny, nx), counts; zeros when the run has none."""
        if self._dark is None or self._dark.shape != shape:
            rows = _even(np.arange(self.n_darks), MOST_DARKS)
            self._dark = _mean(self._dark_frames, rows) if rows else np.zeros(shape, np.float32)
        return self._dark

    def flat(self, time_s: float, energy_ev: float) -> Image | None:
        """Return the mean of the 8 flats nearest in time, of the same energy if there are such, shape (ny, nx), counts.

        None when the run has no flats.
        """
        rows = self._of_energy(energy_ev)
        near = rows[np.argsort(np.abs(self._flat_times_s[rows] - time_s), kind="stable")[:NEAREST_FLATS]]
        return self._mean_flat(tuple(sorted(int(row) for row in near)))

    def mean_flat(self, energy_ev: float) -> Image | None:
        """Return the mean of up to 32 flats, evenly chosen over the run; otherwise as `flat`."""
        return self._mean_flat(_even(self._of_energy(energy_ev), MOST_MEAN_FLATS))

    def _mean_flat(self, rows: tuple[int, ...]) -> Image | None:
        if not rows:
            return None
        if rows != self._flat_rows or self._flat is None:
            self._flat, self._flat_rows = _mean(self._flat_frames, rows), rows
        return self._flat

    def _of_energy(self, energy_ev: float) -> NDArray[np.int64]:
        rows = np.arange(self.n_flats)
        same = np.abs(self._flat_energies_ev - energy_ev) <= SAME_ENERGY_EV
        return rows[same] if same.any() else rows

    def _stream(self, name: str) -> tuple[Frames | None, NDArray[np.float64], NDArray[np.float64]]:
        none = np.empty(0)
        if name not in self.run.streams:
            return None, none, none
        events = self.run.events(name)
        if len(events) == 0:
            return None, none, none
        frames = self.run.frame_stack(name)
        n = min(len(frames), len(events))
        energies = events.get(self.energy_key)
        energies_ev = np.zeros(n) if energies is None else np.asarray(energies, float)[:n]
        return frames, np.asarray(events["time"], float)[:n], energies_ev


def _even(rows: NDArray[np.int64], most: int) -> tuple[int, ...]:
    if len(rows) == 0:
        return ()
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return tuple(int(row) for row in rows[chosen])


def _mean(frames: Any, rows: tuple[int, ...]) -> Image:
    total = np.zeros(frames.shape[-2:], np.float64)
    for row in rows:
        total += frames[row]
    mean: Image = (total / len(rows)).astype(np.float32)
    return mean
