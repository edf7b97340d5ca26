"""Flats and darks of a finished run, chosen for each frame and read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.imaging import optical_density

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive.frame_stack import Frames
    from xbat_live.archive.run import Run

Image = NDArray[np.float32]

EXPOSURE_KEY, LIGHT_KEY = "point_exposure_s", "point_light_fraction"
MOST_DARKS = 32
NEAREST_FLATS = 8
"""As many as the live analysis averages: fewer put their own noise into the frames, more grow stale."""
MOST_MEAN_FLATS = 32
SAME_ENERGY_EV = 0.5
LEAST_LIGHT = 0.98
"""Part of its light that a flat must have got, as in the live analysis."""


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
        self._flats = self._stream("flat")
        self._darks = self._stream("dark")

    @property
    def n_flats(self) -> int:
        """Flats of the run that got their light."""
        return len(self._flats.row)

    @property
    def n_darks(self) -> int:
        """Darks of the run."""
        return len(self._darks.row)

    def dark(self, shape: tuple[int, int]) -> Image:
        """Return the mean of up to 32 darks, evenly chosen, shape (ny, nx), counts; zeros when the run has none."""
        if self._dark is None or self._dark.shape != shape:
            rows = _even(self._darks.row, MOST_DARKS)
            self._dark = _mean(self._darks.frames, rows) if rows else np.zeros(shape, np.float32)
        return self._dark

    def optical_density(self, frame: NDArray[Any], *, time_s: float, energy_ev: float, exposure_s: float) -> Image:
        """Return the optical density of one frame, ``log(flat - dark) - log(frame - dark)``.

        Parameters
        ----------
        frame
            Counts, shape (ny, nx).
        time_s, energy_ev
            Of the frame, for the choice of the flats: Unix time, s, and eV.
        exposure_s
            Of the frame, s; NaN where it is not known.

        Returns
        -------
        ndarray
            Shape (ny, nx), float32; without flats the negative logarithm of the counts above the dark.
        """
        shape = (frame.shape[0], frame.shape[1])
        flat = self.flat(time_s, energy_ev, exposure_s, shape)
        dark = self.dark(shape)
        return optical_density(frame, dark + 1 if flat is None else flat, dark)

    def flat(self, time_s: float, energy_ev: float, exposure_s: float, shape: tuple[int, int]) -> Image | None:
        """Return what the camera would have counted in `exposure_s` without sample: ``dark + rate * exposure_s``.

        The rate is that of the 8 flats nearest in time, of the same energy if there are such: their counts above the dark, over
        their exposure. Where an exposure is not known (of the frame, or of one of these flats) their counts are returned as they are.

        Returns
        -------
        ndarray or None
            Shape (ny, nx), counts; None when the run has no flats.
        """
        of_energy = self._of_energy(energy_ev)
        near = of_energy[np.argsort(np.abs(self._flats.time_s[of_energy] - time_s), kind="stable")[:NEAREST_FLATS]]
        near.sort()
        mean = self._mean_flat(tuple(int(row) for row in self._flats.row[near]))
        if mean is None:
            return None
        # Counts above the dark over all the time they were counted in: the weights that shot noise asks for.
        scale = exposure_s / float(self._flats.exposure_s[near].mean())
        if not (0 < scale < np.inf) or scale == 1:
            return mean
        dark = self.dark(shape)
        return dark + np.float32(scale) * (mean - dark)

    def mean_flat(self, energy_ev: float) -> Image | None:
        """Return the mean of up to 32 flats, evenly chosen over the run, counts as they are; None when the run has no flats."""
        return self._mean_flat(_even(self._flats.row[self._of_energy(energy_ev)], MOST_MEAN_FLATS))

    def _mean_flat(self, rows: tuple[int, ...]) -> Image | None:
        if not rows:
            return None
        if rows != self._flat_rows or self._flat is None:
            self._flat, self._flat_rows = _mean(self._flats.frames, rows), rows
        return self._flat

    def _of_energy(self, energy_ev: float) -> NDArray[np.int64]:
        same = np.abs(self._flats.energy_ev - energy_ev) <= SAME_ENERGY_EV
        return np.flatnonzero(same) if same.any() else np.arange(self.n_flats)

    def _stream(self, name: str) -> _Stream:
        events = self.run.events(name) if name in self.run.streams else ()
        if len(events) == 0:
            return _Stream(None, np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0))
        frames = self.run.frame_stack(name)
        n = min(len(frames), len(events))
        light = column(events, LIGHT_KEY, 1.0)[:n]
        row = np.flatnonzero(~(light < LEAST_LIGHT)) if name == "flat" else np.arange(n)
        return _Stream(
            frames,
            row,
            column(events, "time", np.nan)[row],
            column(events, self.energy_key, 0.0)[row],
            column(events, EXPOSURE_KEY, np.nan)[row],
        )


@dataclass(frozen=True)
class _Stream:
    """References of one kind: the stack, and row in it, Unix time, energy and exposure of each, shape (n,)."""

    frames: Frames | None
    row: NDArray[np.int64]
    time_s: NDArray[np.float64]
    energy_ev: NDArray[np.float64]
    exposure_s: NDArray[np.float64]


def column(table: pd.DataFrame, key: str, default: float) -> NDArray[np.float64]:
    """Return a column of numbers, shape (n,); `default` in every row when the table has no such column."""
    return table[key].to_numpy(float) if key in table else np.full(len(table), default)


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
