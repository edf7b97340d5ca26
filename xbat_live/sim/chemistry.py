"""Electrochemistry of the twin: potentiostat, open-circuit voltage, local state of charge, damage by dose.

State of charge is 0 lithiated (discharged) and 1 delithiated (charged). Current is positive on charge. Twin time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "MODES",
    "CellReading",
    "Electrode",
    "Potentiostat",
    "damage_rate_factor",
    "open_circuit_voltage",
    "overpotential",
]

MODES = ("OCV", "Galvanostatic", "Hold")

# Ni-rich layered oxide against lithium: plateau-less rise, steep at both ends so that any cut-off of a cycler is met.
_OCV_SOC = np.array([0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0])
_OCV_V = np.array([2.4, 3.30, 3.52, 3.60, 3.66, 3.73, 3.78, 3.84, 3.91, 4.0, 4.09, 4.18, 4.29, 4.38, 4.55, 5.2])
_KINETIC_V = 0.0514  # 2RT/F at 298 K
_EXCHANGE_C_RATE = 0.5  # exchange current of the whole electrode as a C-rate
_OHMIC_V_PER_C = 0.05
_MAX_C_RATE = 10.0
_STEP_SOC = 0.002  # largest change of the mean in one step: local kinetics stay first-order accurate
_HOLD_STEP_S = 5.0  # below the time constant of resistance times the steepest slope of the voltage
_RELAXATION_S = 7200.0  # lithium evens out between pristine particles at rest


def open_circuit_voltage(soc: float) -> float:
    """Open-circuit voltage in V of an NMC half cell at state of charge `soc` (0..1, clipped)."""
    return float(np.interp(soc, _OCV_SOC, _OCV_V))


def overpotential(c_rate: float) -> float:
    """Return the overpotential in V at `c_rate` (1/h, positive = charge): symmetric Butler-Volmer plus a resistance."""
    return _KINETIC_V * math.asinh(c_rate / (2 * _EXCHANGE_C_RATE)) + _OHMIC_V_PER_C * c_rate


def damage_rate_factor(dose_gy: npt.ArrayLike, threshold_gy: float) -> npt.NDArray[np.float64]:
    """Factor on the local reaction rate: 1 up to the threshold, ``exp(-(D/D_thr - 1))`` above (Gy, any shape)."""
    excess = np.maximum(np.asarray(dose_gy, dtype=np.float64) / threshold_gy - 1.0, 0.0)
    return np.exp(-excess)


class Electrode:
    """Local state of charge on square cells; its mean is the charge that passed.

    Parameters
    ----------
    size_um
        Electrode (x, y) in um.
    cell_um
        Cell edge in um.
    soc
        Starting state of charge.
    rng
        Draws the scatter of the local kinetics.
    """

    def __init__(self, size_um: tuple[float, float], cell_um: float, soc: float, rng: np.random.Generator) -> None:
        self.cell_um = cell_um
        self.shape = (max(1, round(size_um[1] / cell_um)), max(1, round(size_um[0] / cell_um)))
        self.soc = np.full(self.shape, float(soc))
        self.kinetics = np.exp(0.15 * rng.standard_normal(self.shape))
        self.throughput = 0.0

    @property
    def mean_soc(self) -> float:
        """State of charge of the whole electrode."""
        return float(self.soc.mean())

    def charge(self, delta_soc: float, rate_factor: npt.NDArray[np.float64]) -> None:
        """Pass charge: the mean changes by exactly `delta_soc` (within 0..1); slow cells take less of it.

        Parameters
        ----------
        delta_soc
            Change of the mean.
        rate_factor
            Local factor on the reaction rate, shape of the electrode, 0..1.
        """
        target = min(max(self.mean_soc + delta_soc, 0.0), 1.0)
        self.throughput += abs(target - self.mean_soc)
        rate = self.kinetics * np.maximum(rate_factor, 1e-9)
        for _ in range(50):
            missing = target - float(self.soc.mean())
            if abs(missing) < 1e-12:
                return
            room = np.minimum((1.0 - self.soc) if missing > 0 else self.soc, 0.05) * 20.0
            share = rate * room
            total = float(share.mean())
            if total <= 1e-15:
                break
            self.soc = np.clip(self.soc + missing * share / total, 0.0, 1.0)
        self.soc = np.clip(self.soc + (target - float(self.soc.mean())), 0.0, 1.0)

    def relax(self, duration_s: float, rate_factor: npt.NDArray[np.float64]) -> None:
        """Let cells exchange lithium for `duration_s`: all tend to the mean, slowly where the rate factor is small."""
        weight = rate_factor * -math.expm1(-duration_s / _RELAXATION_S)
        total = float(weight.mean())
        if total <= 0.0:
            return
        common = float((weight * self.soc).mean()) / total  # exchange among those that can: the mean stays put
        self.soc = self.soc + weight * (common - self.soc)


@dataclass(frozen=True)
class CellReading:
    """What the potentiostat reads, all at one moment."""

    voltage_v: float
    current_ma: float
    """Positive while charging."""
    capacity_mah: float
    """Charge since the start of the step, positive = charge."""
    soc: float
    """Mean state of charge, 0..1."""
    status: str
    """One of "Idle", "Running", "Done" (cut-off reached) or "Fault"."""


class Potentiostat:
    """Cycles the electrode in twin time. Every reading first integrates up to now. Thread-safe through `lock`.

    Parameters
    ----------
    electrode
        Holds the charge.
    capacity_mah
        Nominal capacity, mAh for state of charge 0 to 1.
    now_s
        Returns twin time in s; every read-back advances to it.
    rate_factor
        Returns the local damage factor, shape of the electrode.
    lock
        Held while the state changes; the twin's, as both callables read the twin.
    """

    def __init__(
        self,
        electrode: Electrode,
        capacity_mah: float,
        now_s: Callable[[], float],
        rate_factor: Callable[[], npt.NDArray[np.float64]],
        lock: threading.RLock | None = None,
    ) -> None:
        self._lock = lock or threading.RLock()
        self._electrode = electrode
        self._now_s = now_s
        self._rate_factor = rate_factor
        self.nominal_capacity_mah = capacity_mah
        self._mode = "OCV"
        self._status = "Idle"
        self._current_ma = 0.0
        self._set_current_ma = 0.0
        self._hold_v = 0.0
        self._cutoff_low_v = -math.inf
        self._cutoff_high_v = math.inf
        self._passed_mah = 0.0
        self._time_s = now_s()

    def start(
        self,
        mode: str,
        *,
        current_ma: float | None = None,
        c_rate: float | None = None,
        hold_voltage_v: float | None = None,
        cutoff_high_v: float = 4.9,
        cutoff_low_v: float = 2.8,
        capacity_mah: float | None = None,
    ) -> None:
        """Apply settings and run.

        Parameters
        ----------
        mode
            "OCV" (no current), "Galvanostatic" (constant current until a cut-off), "Hold" (constant voltage).
        current_ma, c_rate
            Galvanostatic current in mA, or as a C-rate in 1/h of the nominal capacity (used when `current_ma` is None);
            positive charges, negative discharges.
        hold_voltage_v
            Voltage of mode "Hold" in V.
        cutoff_high_v, cutoff_low_v
            Cell voltages in V at which a galvanostatic step ends with status "Done".
        capacity_mah
            New nominal capacity in mAh, for the C-rate and for the state of charge.

        Raises
        ------
        ValueError
            Unknown mode or a value the instrument cannot apply; status becomes "Fault".
        """
        with self._lock:
            self.advance()
            self._current_ma = 0.0
            self._status = "Fault"
            capacity = self.nominal_capacity_mah if capacity_mah is None else capacity_mah
            current = current_ma if current_ma is not None else (c_rate or 0.0) * capacity
            _check(mode, capacity, current, hold_voltage_v, (cutoff_low_v, cutoff_high_v))
            self.nominal_capacity_mah = capacity
            self._mode = mode
            self._set_current_ma = current
            self._hold_v = hold_voltage_v or 0.0
            self._cutoff_low_v, self._cutoff_high_v = cutoff_low_v, cutoff_high_v
            self._passed_mah = 0.0
            self._status = "Running"
            self._apply()

    def stop(self) -> None:
        """Switch the current off; status becomes "Idle"."""
        with self._lock:
            self.advance()
            self._mode = "OCV"
            self._current_ma = 0.0
            self._status = "Idle"

    @property
    def mode(self) -> str:
        """Running mode."""
        return self._mode

    def read(self) -> CellReading:
        """Read all at one moment: properties read one after another can have a step's end between them."""
        with self._lock:
            self.advance()
            return CellReading(
                self._voltage(), self._current_ma, self._passed_mah, self._electrode.mean_soc, self._status
            )

    @property
    def soc(self) -> float:
        """Mean state of charge, 0..1."""
        self.advance()
        return self._electrode.mean_soc

    def advance(self) -> None:
        """Integrate up to now in steps that change the mean state of charge by at most 0.002."""
        with self._lock:
            self._integrate(self._now_s())

    def _integrate(self, now_s: float) -> None:
        while self._time_s < now_s:
            left_s = now_s - self._time_s
            if self._current_ma == 0.0 or self._status != "Running":
                self._electrode.relax(left_s, self._rate_factor())
                self._time_s = now_s
                if self._status == "Running":
                    self._apply()
                    if self._current_ma == 0.0:
                        return
                continue
            per_s = self._current_ma / self.nominal_capacity_mah / 3600.0
            step_s = min(left_s, _STEP_SOC / abs(per_s))
            if self._mode == "Hold":
                step_s = min(step_s, _HOLD_STEP_S)
            factor = self._rate_factor()
            before = self._electrode.mean_soc
            self._electrode.charge(per_s * step_s, factor)
            self._electrode.relax(step_s, factor)
            self._passed_mah += (self._electrode.mean_soc - before) * self.nominal_capacity_mah
            self._time_s += step_s
            self._apply()
        self._time_s = max(self._time_s, now_s)

    def _c_rate(self) -> float:
        return self._current_ma / self.nominal_capacity_mah

    def _voltage(self) -> float:
        return open_circuit_voltage(self._electrode.mean_soc) + overpotential(self._c_rate())

    def _apply(self) -> None:
        """Set the current of the running mode, or end the step at its cut-off."""
        if self._mode == "Galvanostatic":
            self._current_ma = self._set_current_ma
            voltage = self._voltage()
            past_high = self._current_ma > 0 and voltage >= self._cutoff_high_v
            past_low = self._current_ma < 0 and voltage <= self._cutoff_low_v
            if past_high or past_low:
                self._current_ma = 0.0
                self._status = "Done"
        elif self._mode == "Hold":
            self._current_ma = self._current_for(self._hold_v)
        else:
            self._current_ma = 0.0

    def _current_for(self, voltage_v: float) -> float:
        """Return the current in mA that puts the cell at `voltage_v`: bisection of a monotonic function."""
        wanted = voltage_v - open_circuit_voltage(self._electrode.mean_soc)
        low, high = -_MAX_C_RATE, _MAX_C_RATE
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if overpotential(middle) < wanted else (low, middle)
        c_rate = (low + high) / 2
        return c_rate * self.nominal_capacity_mah if abs(c_rate) > 1e-4 else 0.0


def _check(
    mode: str, capacity_mah: float, current_ma: float, hold_v: float | None, cutoffs_v: tuple[float, float]
) -> None:
    """Refuse settings that the instrument cannot apply."""
    if mode not in MODES:
        raise ValueError(f"potentiostat mode {mode!r}: choose one of {', '.join(MODES)}")
    if not capacity_mah > 0:
        raise ValueError(f"nominal capacity {capacity_mah} mAh: must be > 0 mAh")
    largest_ma = _MAX_C_RATE * capacity_mah
    if mode == "Galvanostatic" and not 0 < abs(current_ma) <= largest_ma:
        raise ValueError(f"current {current_ma} mA: must be non-zero and at most {largest_ma:g} mA ({_MAX_C_RATE:g} C)")
    if mode == "Galvanostatic" and not cutoffs_v[0] < cutoffs_v[1]:
        raise ValueError(f"cut-offs {cutoffs_v[0]} V .. {cutoffs_v[1]} V: the low one must be below the high one")
    if mode == "Hold" and (hold_v is None or not 0.0 < hold_v < 6.0):
        raise ValueError(f"hold voltage {hold_v} V: must be within 0 .. 6 V")
