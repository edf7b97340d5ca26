"""Frames of a finished run, by field of view: which there are, where the stage stood, how they were registered; read one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xbat_live.archive.frame_table import frame_table
from xbat_live.archive.references import EXPOSURE_KEY, References, column
from xbat_live.archive.settings import ArchiveError

if TYPE_CHECKING:
    import pandas as pd

    from xbat_live.archive.run import Run

Float = NDArray[np.float64]
Image = NDArray[np.float32]

STAGE_KEYS = ("stage_y", "stage_x")
ENERGY_KEY = "mono_energy"
SHIFT_KEYS = ("shift_y_px", "shift_x_px")
SIGMA_KEYS = ("sigma_y_px", "sigma_x_px")


class AnalysisError(ArchiveError):
    """The analysis cannot be done; the message names the run, what is missing and the remedy."""


@dataclass(frozen=True, order=True)
class FieldKey:
    """One field of view: its frames are registered against one another, and against no other frames.

    Attributes
    ----------
    spot
        Spot on the sample, from 0.
    field
        Field of view, e.g. ``"A"``.
    energy_ev
        Photon energy, eV, to 0.1 eV; 0 where it is not recorded.
    """

    spot: int
    field: str
    energy_ev: float

    def __str__(self) -> str:
        energy = f", {self.energy_ev:g} eV" if self.energy_ev else ""
        return f"field {self.field}, spot {self.spot}{energy}"


@dataclass(frozen=True)
class FieldFrames:
    """The accepted frames of one field of view. Frame 1 is the first accepted one, as people count.

    Attributes
    ----------
    run_uid, key
        Which they are.
    seq_num
        ``seq_num`` of each frame's Event in ``primary``, shape (n,).
    time_s, exposure_s
        Unix time of each Event and exposure of its frame, shape (n,), s; NaN where the run does not tell the exposure.
    stage_yx_um
        Stage reading, shape (n, 2), um.
    shift_yx_px, sigma_yx_px
        Recorded content shift against frame 1 and its standard uncertainty, shape (n, 2), unbinned px; None where the run holds no
        verdicts.
    verdicts
        Number of frames of this field by verdict.
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    shape_yx
        Rows and columns of a frame, px.
    reflection
        True for the optical reflection microscope: particles are bright, their "optical density" is -log of the reflectance.
    """

    run_uid: str
    key: FieldKey
    seq_num: NDArray[np.int64]
    time_s: Float
    exposure_s: Float
    stage_yx_um: Float
    shift_yx_px: Float | None
    sigma_yx_px: Float | None
    verdicts: dict[str, int]
    pixel_size_um: float
    shape_yx: tuple[int, int]
    reflection: bool
    references: References = field(repr=False)
    _rows: NDArray[np.int64] = field(repr=False)
    _frames: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.seq_num)

    def frame(self, number: int) -> NDArray[Any]:
        """Read frame `number` (from 1), shape (ny, nx), counts.

        Raises
        ------
        AnalysisError
            There is no such frame.
        ArchiveError
            The file with the frames cannot be read by the archive.
        """
        if not 1 <= number <= len(self):
            raise AnalysisError(f"frame {number}: {self.key} has accepted frames 1 to {len(self)}")
        frame: NDArray[Any] = self._frames[int(self._rows[number - 1])]
        return frame

    def optical_density(self, number: int) -> Image:
        """Return the optical density of frame `number` (from 1), shape (ny, nx), float32.

        The same values as of ``run.frames(normalised=True)``; see `References.optical_density`.
        """
        return self.references.optical_density(
            self.frame(number),
            time_s=float(self.time_s[number - 1]),
            energy_ev=self.key.energy_ev,
            exposure_s=float(self.exposure_s[number - 1]),
        )


class RunFrames:
    """Fields of view of a run.

    Parameters
    ----------
    run
        From `xbat_live.open` or `xbat_live.archive.open_run`.
    pixel_size_um
        Unbinned pixel, um; by default as in the start document.

    Raises
    ------
    AnalysisError
        No frames, no pixel size, or Events and frames that do not belong together.
    """

    def __init__(self, run: Run, *, pixel_size_um: float | None = None) -> None:
        self.run = run
        name = f"run {run.uid[:8]}"
        if "primary" not in run.streams:
            raise AnalysisError(
                f"{name} has no frames: there is no stream 'primary' (plan {run.start.get('plan_name')})"
            )
        size_um = pixel_size_um if pixel_size_um is not None else run.start.get("pixel_size_um")
        if not isinstance(size_um, int | float) or not size_um > 0:
            raise AnalysisError(
                f"{name}: pixel size {size_um} um; the start document has no pixel_size_um above 0, give it"
            )
        self.pixel_size_um = float(size_um)
        self._frames = run.frame_stack("primary")
        frames = frame_table(run, "primary", len(self._frames))
        missing = [key for key in STAGE_KEYS if key not in frames]
        if missing:
            raise AnalysisError(
                f"{name}: Events without stage reading ({', '.join(missing)}); motion needs stage and image"
            )
        self.has_verdicts = SHIFT_KEYS[0] in frames
        self._table = _by_field(frames)

    @property
    def fields(self) -> dict[FieldKey, int]:
        """Accepted frames by field of view, most first."""
        accepted = self._table[self._table["accepted"]]
        counts = Counter(
            FieldKey(int(spot), str(name), float(energy))
            for spot, name, energy in zip(accepted["spot"], accepted["field"], accepted["energy"], strict=True)
        )
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def select(
        self, *, field: str | None = None, spot: int | None = None, energy_ev: float | None = None
    ) -> FieldFrames:
        """Return the field of view asked for; of several the one with most accepted frames.

        Raises
        ------
        AnalysisError
            There is none with an accepted frame.
        """
        known = self.fields
        fitting = [
            key
            for key in known
            if field in (None, key.field)
            and spot in (None, key.spot)
            and (energy_ev is None or abs(key.energy_ev - energy_ev) <= 0.05)
        ]
        if not fitting:
            wanted = [f"field {field}" if field else "", f"spot {spot}" if spot is not None else ""]
            wanted.append(f"{energy_ev:g} eV" if energy_ev is not None else "")
            what = " of " + ", ".join(filter(None, wanted)) if any(wanted) else ""
            verdicts = (
                ", ".join(f"{n} {name}" for name, n in Counter(self._table["verdict"]).items()) or "no frames at all"
            )
            have = "; ".join(f"{key}: {n}" for key, n in list(known.items())[:8])
            raise AnalysisError(
                f"run {self.run.uid[:8]}: no accepted frames{what} ({verdicts}). "
                + (f"There are {have}" if have else "")
            )
        return self._field(fitting[0])

    def _field(self, key: FieldKey) -> FieldFrames:
        table = self._table
        mine = table[(table["spot"] == key.spot) & (table["field"] == key.field) & (table["energy"] == key.energy_ev)]
        accepted = mine[mine["accepted"]].sort_values("time", kind="stable")
        shift = sigma = None
        if self.has_verdicts:
            shift, sigma = accepted[list(SHIFT_KEYS)].to_numpy(float), accepted[list(SIGMA_KEYS)].to_numpy(float)
        return FieldFrames(
            run_uid=self.run.uid,
            key=key,
            seq_num=accepted["seq_num"].to_numpy(np.int64),
            time_s=accepted["time"].to_numpy(float),
            exposure_s=accepted["exposure_s"].to_numpy(float),
            stage_yx_um=accepted[list(STAGE_KEYS)].to_numpy(float),
            shift_yx_px=shift,
            sigma_yx_px=sigma,
            verdicts={str(name): int(n) for name, n in Counter(mine["verdict"]).most_common()},
            pixel_size_um=self.pixel_size_um,
            shape_yx=(self._frames.shape[1], self._frames.shape[2]),
            reflection=self.run.start.get("plan_name") == "optical_series",
            references=References(self.run, ENERGY_KEY),
            _rows=accepted["row"].to_numpy(np.int64),
            _frames=self._frames,
        )


def _by_field(frames: pd.DataFrame) -> pd.DataFrame:
    """Return one row per frame with what the analysis needs; a frame without a shift is not accepted."""
    table = frames[["seq_num", "time", "row", "accepted", "verdict", *STAGE_KEYS]].copy()
    table["field"] = frames["point_field"].astype(str) if "point_field" in frames else "A"
    table["spot"] = frames["point_spot"].astype(int) if "point_spot" in frames else 0
    table["exposure_s"] = column(frames, EXPOSURE_KEY, np.nan)
    table["energy"] = frames[ENERGY_KEY].astype(float).round(1) if ENERGY_KEY in frames else 0.0
    if SHIFT_KEYS[0] in frames:
        for key in (*SHIFT_KEYS, *SIGMA_KEYS):
            table[key] = frames[key].astype(float)
        table["accepted"] &= np.isfinite(table[[*SHIFT_KEYS, *SIGMA_KEYS]].to_numpy()).all(1)
    return table
