"""The twin's part when the simulated beamline plays a recorded run: readings and frames are those of the exposure that is cued."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xbat_live.sim.chemistry import CellReading
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.tape import Tape, TapedExposure
from xbat_live.sim.truth import Frame, Roi
from xbat_live.sim.twin import Twin

__all__ = ["PlayedTwin", "make_twin"]

_LOOK_AHEAD = 8  # exposures whose stage position is known before they are cued
_SAME_UM = 1e-3


class PlayedPotentiostat:
    """Reads what the recorded one read; takes any step."""

    def __init__(self, capacity_mah: float) -> None:
        self.nominal_capacity_mah = capacity_mah
        self.readings: dict[str, Any] = {}
        self.status = "Idle"

    def start(self, mode: str, **settings: Any) -> None:
        """Run a step, whose readings are the recorded ones."""
        del settings
        self.readings["mode"], self.status = mode, "Running"

    def stop(self) -> None:
        """End a step."""
        self.status = "Idle"

    def advance(self) -> None:
        """Do nothing: the recording tells what becomes of the cell."""

    def read(self) -> CellReading:
        """Read all at one moment."""
        voltage_v, current_ma, capacity_mah = (
            float(self.readings.get(name, 0.0)) for name in ("voltage_v", "current_ma", "capacity_mah")
        )
        return CellReading(voltage_v, current_ma, capacity_mah, self.soc, self.status)

    @property
    def soc(self) -> float:
        """State of charge, 0 to 1."""
        return float(self.readings.get("soc", 0.0))


class PlayedTwin(Twin):
    """A twin that has nothing of its own to show: it plays a tape.

    Parameters
    ----------
    settings
        With `recording`.

    Raises
    ------
    ValueError
        The tape cannot be played.
    """

    def __init__(self, settings: TwinSettings, clock: Callable[[], float] = time.monotonic) -> None:
        assert settings.recording is not None  # `make_twin` chose this class because of it
        self.tape = Tape(settings.recording)
        super().__init__(
            replace(settings, sensor_yx=self.tape.shape, energy_ev=self.tape.energy_ev, sample_size_um=(10.0, 10.0)),
            clock,
        )
        self.potentiostat = PlayedPotentiostat(settings.capacity_mah)  # type: ignore[assignment]
        self.cued: TapedExposure | None = None
        self._number = -1
        self._transmission = 1.0
        self._picture = np.zeros(self.tape.shape, np.uint16)

    def cue(self, number: int, shift_yx_px: tuple[float, float]) -> None:
        """Make ready to play exposure `number`, its picture moved by `shift_yx_px`.

        Raises
        ------
        ValueError
            No such exposure, or its frame cannot be read.
        """
        if not 0 <= number < len(self.tape.exposures):
            raise ValueError(f"exposure {number}: the tape has {len(self.tape.exposures)}")
        picture = self.tape.frame(number, shift_yx_px)
        exposure = self.tape.exposures[number]
        with self._lock:
            self._picture, self.cued, self._number = picture, exposure, max(self._number, number)
            self.potentiostat.readings = dict(exposure.cell)  # type: ignore[attr-defined]

    def expose(
        self, start_s: float, end_s: float, roi: Roi, bin_yx: tuple[int, int] = (1, 1), frame_type: str = "Normal"
    ) -> Frame:
        """Return the picture that was cued, without beam or stage having a say."""
        with self._lock:
            if self.cued is not None and self.cued.step_follows:
                self.potentiostat.status = "Done"  # type: ignore[attr-defined]
            picture = self._picture
        rows, columns = slice(roi.min_y, roi.min_y + roi.size_y), slice(roi.min_x, roi.min_x + roi.size_x)
        frame = super().expose(start_s, end_s, Roi(0, 0, 16, 16), (1, 1), frame_type)
        return Frame(np.ascontiguousarray(picture[rows, columns][:: bin_yx[0], :: bin_yx[1]]), frame.truth)

    def prepare(self) -> None:
        """Do nothing: pictures are read when they are cued."""

    def rest_um(self, axis: str, target_um: float) -> float:
        """Return what an axis ("x", "y") reads that has come to rest at `target_um`: what it read for one of the coming exposures."""
        index = "xy".find(axis)
        if index < 0:
            return target_um
        first = max(self._number, 0)
        for exposure in self.tape.exposures[first : first + _LOOK_AHEAD]:
            if abs(exposure.setpoint_um[index] - target_um) < _SAME_UM:
                return exposure.stage_um[index]
        return target_um

    def set_attenuation(self, transmission: float) -> None:
        """See `Twin`."""
        super().set_attenuation(transmission)
        self._transmission = transmission

    def i0_na(self) -> float:
        """Ion chamber as recorded, at the attenuator's present transmission, nA."""
        exposure = self._present()
        return _or_zero(exposure.i0_na) * self._transmission / max(exposure.transmission, 1e-12)

    def ring_ma(self) -> float:
        """Ring current as recorded, mA."""
        return _or_zero(self._present().ring_ma)

    def _present(self) -> TapedExposure:
        return self.cued or self.tape.exposures[0]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def make_twin(settings: TwinSettings) -> Twin:
    """Return the twin that `settings` ask for: the physical one, or one that plays a recorded run."""
    return Twin(settings) if settings.recording is None else PlayedTwin(settings)
