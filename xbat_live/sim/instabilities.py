"""What moves and wobbles at a real instrument: drift, motor errors, vibration, breathing, storage ring, beam position.

Everything is a function of the seed and of a count or of twin time, so that a run can be repeated exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from xbat_live.sim.settings import TwinSettings

__all__ = [
    "Breathing",
    "MotorError",
    "Vibration",
    "beam_offset_um",
    "drift_um",
    "ring_current_ma",
    "seeded",
    "vibration_of_frame",
]

_Float32 = npt.NDArray[np.float32]

_VIBRATION_STREAM = 54
_JITTER_STREAM = 23
_BREATHING_STREAM = 29
_BEAM_STREAM = 31
_BEAM_PERIODS_H = (2.3, 7.9, 3.1, 11.3)
_ALONG_X_SHARE = 0.8
_ALONG_X_DEG = 15.0
_SINE_TO_LINE = math.sqrt(1.5)  # sqrt(12) sigma of a sine of unit peak-to-peak amplitude: sqrt(12) / (2 sqrt 2)


def seeded(seed: int, *stream: int) -> np.random.Generator:
    """Return an independent generator for (seed, stream...): SFC64, the quickest of numpy's."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *stream])))


def drift_um(settings: TwinSettings, twin_time_s: float) -> tuple[float, float]:
    """Drift (y, x) of the sample in um at twin time `twin_time_s`: linear, as gravity pulls."""
    minutes = twin_time_s / 60.0
    return settings.drift_um_per_min_yx[0] * minutes, settings.drift_um_per_min_yx[1] * minutes


def ring_current_ma(settings: TwinSettings, twin_time_s: float) -> float:
    """Storage-ring current in mA: exponential decay since the last top-up."""
    since_s = twin_time_s % (settings.ring_top_up_min * 60.0)
    return settings.ring_ma * math.exp(-since_s / (settings.ring_lifetime_h * 3600.0))


def beam_offset_um(settings: TwinSettings, twin_time_s: float) -> tuple[float, float]:
    """Beam centre (y, x) in um relative to the field centre: two slow sines per axis, zero at the start."""
    angle = 2 * math.pi * twin_time_s / 3600.0
    waves = [
        math.sin(angle / period_h + phase) - math.sin(phase)
        for period_h, phase in zip(_BEAM_PERIODS_H, _beam_phases(settings.seed), strict=True)
    ]
    amplitude_um = settings.beam_drift_um
    return amplitude_um * (0.4 * waves[0] + 0.6 * waves[1]), amplitude_um * (0.4 * waves[2] + 0.6 * waves[3])


@cache
def _beam_phases(seed: int) -> tuple[float, ...]:
    return tuple(seeded(seed, _BEAM_STREAM).uniform(0, 2 * math.pi, len(_BEAM_PERIODS_H)).tolist())


class MotorError:
    """Position error of one motor: drawn anew each time it stops, plus half the lost motion towards where it came from.

    Parameters
    ----------
    seed, axis
        Choose the sequence of draws.
    sigma_um, backlash_um
        Standard deviation of the repositioning error and lost motion on reversal, um.
    """

    def __init__(self, seed: int, axis: int, sigma_um: float, backlash_um: float) -> None:
        self._seed, self._axis = seed, axis
        self._sigma_um, self._backlash_um = sigma_um, backlash_um
        self._stops = 0
        self._direction = 0.0
        self._jitter_um = 0.0

    def moved(self, change_um: float) -> None:
        """Remember the direction of travel."""
        if change_um:
            self._direction = math.copysign(1.0, change_um)

    def stopped(self) -> None:
        """Draw a new repositioning error."""
        self._stops += 1
        rng = seeded(self._seed, _JITTER_STREAM, self._axis, self._stops)
        self._jitter_um = float(rng.normal(0.0, self._sigma_um))

    @property
    def error_um(self) -> float:
        """True position minus read-back, um."""
        return self._jitter_um - 0.5 * self._backlash_um * self._direction


@dataclass(frozen=True)
class Vibration:
    """Motion of the image during one exposure.

    Attributes
    ----------
    extent_px
        ``sqrt(12)`` times the standard deviation of the motion, px; the full length of a line kernel. 0: none.
    angle_deg
        Direction from +columns towards +rows, -90..90.
    kind
        "line" (uniform along a line) or "sine" (sinusoidal swing).
    """

    extent_px: float
    angle_deg: float
    kind: str

    def transfer(self, fy: npt.NDArray[np.floating], fx: npt.NDArray[np.floating]) -> _Float32:
        """Fourier transfer function at frequencies `fy` (ny, 1) and `fx` (1, nx) in cycles/px, float32 (ny, nx)."""
        angle = math.radians(self.angle_deg)
        along = np.abs(fy * math.sin(angle) + fx * math.cos(angle)) * self.extent_px
        if self.kind == "line":
            return np.sinc(along).astype(np.float32)
        swing = np.sin((np.arange(128) + 0.5) * (math.pi / 256))
        argument = np.linspace(0.0, float(along.max()) + 1e-6, 2048)
        bessel = np.cos(math.pi / _SINE_TO_LINE * np.outer(argument, swing)).mean(axis=1)  # J0(pi f A)
        return np.interp(along, argument, bessel).astype(np.float32)


def vibration_of_frame(settings: TwinSettings, sample_index: int) -> Vibration:
    """Vibration during sample frame `sample_index`: depends on seed and index only, not on time."""
    rng = seeded(settings.seed, _VIBRATION_STREAM, sample_index)
    hit, length, along_x, direction, kind = rng.random(5).tolist()
    if hit >= settings.vibration_probability:
        return Vibration(0.0, 0.0, "line")
    low, high = settings.vibration_extent_px
    angle = _ALONG_X_DEG * (2 * direction - 1) if along_x < _ALONG_X_SHARE else 90.0 * (2 * direction - 1)
    return Vibration(low + length * (high - low), angle, "line" if kind < settings.vibration_line_fraction else "sine")


class Breathing:
    """Displacement of the material with state of charge: smooth waves of 5 to 9 um, averaging out over a field.

    The displacement is ``breathing_px * (soc - 0.5) * pattern`` with a pattern of unit peak, in px of content shift.
    """

    _WAVES = 6

    def __init__(self, settings: TwinSettings) -> None:
        rng = seeded(settings.seed, _BREATHING_STREAM)
        self._amplitude_px = settings.breathing_px
        self._pixel_um = settings.pixel_size_um
        shape = (2, self._WAVES)
        length_um, direction = rng.uniform(5.0, 9.0, shape), rng.uniform(0, 2 * math.pi, shape)
        self._ky = 2 * math.pi / length_um * np.sin(direction)
        self._kx = 2 * math.pi / length_um * np.cos(direction)
        self._phase = rng.uniform(0, 2 * math.pi, shape)

    def scale_px(self, soc: float) -> float:
        """Factor on the pattern in px at mean state of charge `soc`."""
        return self._amplitude_px * (soc - 0.5)

    def pattern(self, y_um: npt.NDArray[np.floating], x_um: npt.NDArray[np.floating]) -> tuple[_Float32, _Float32]:
        """Return the pattern (y, x), float32 (len(y_um), len(x_um)) each, at sample coordinates in um; unit peak."""
        components = []
        for ky, kx, phase in zip(self._ky, self._kx, self._phase, strict=True):
            along_y = np.outer(y_um, ky) + phase
            along_x = np.outer(x_um, kx)
            left = np.hstack([np.sin(along_y), np.cos(along_y)]).astype(np.float32)
            right = np.hstack([np.cos(along_x), np.sin(along_x)]).astype(np.float32)
            components.append((left @ right.T) * np.float32(0.35 * math.sqrt(2.0 / self._WAVES)))
        return components[0], components[1]
