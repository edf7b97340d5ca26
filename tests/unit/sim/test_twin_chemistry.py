"""Electrochemistry: charge is conserved, cut-offs end a step, dose slows the reaction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbat_live.sim.chemistry import (
    Electrode,
    Potentiostat,
    damage_rate_factor,
    open_circuit_voltage,
    overpotential,
)


class Bench:
    """A cell whose time is set by hand."""

    def __init__(self, soc=0.1, factor=1.0):
        self.time_s = 0.0
        self.electrode = Electrode((40.0, 20.0), 2.0, soc, np.random.default_rng(3))
        self.factor = np.broadcast_to(np.asarray(factor, float), self.electrode.shape)
        self.cell = Potentiostat(self.electrode, 2.0, lambda: self.time_s, lambda: self.factor)


@pytest.mark.parametrize(
    ("dose_gy", "factor", "reason"),
    [
        (0.0, 1.0, "pristine"),
        (11e6, 1.0, "at the threshold nothing has happened yet"),
        (22e6, np.exp(-1), "twice the threshold: one e-fold"),
        (55e6, np.exp(-4), "D/D_thr - 1 = 4"),
    ],
)
def test_damage_slows_down_above_the_threshold(dose_gy, factor, reason):
    assert damage_rate_factor(dose_gy, 11e6) == pytest.approx(factor), reason


def test_voltage_rises_with_charge_and_current():
    volts = [open_circuit_voltage(s) for s in np.linspace(0, 1, 50)]
    assert np.all(np.diff(volts) > 0)
    assert open_circuit_voltage(0.0) < 2.8
    assert open_circuit_voltage(1.0) > 4.9, "the cut-offs of the paper (2.8-4.9 V) are always met"
    assert overpotential(0.0) == 0.0
    assert overpotential(1.0) == -overpotential(-1.0) > 0


def test_galvanostatic_charge_is_current_times_time():
    bench = Bench()
    bench.cell.start("Galvanostatic", current_ma=0.5, cutoff_high_v=4.9)
    bench.time_s = 3600.0
    assert bench.cell.read().capacity_mah == pytest.approx(0.5)
    assert bench.cell.soc == pytest.approx(0.1 + 0.5 / 2.0)
    assert (bench.cell.read().status, bench.cell.read().current_ma) == ("Running", 0.5)
    assert bench.cell.read().voltage_v > open_circuit_voltage(bench.cell.soc)


def test_result_does_not_depend_on_how_often_it_is_read():
    often, once = Bench(), Bench()
    for bench in (often, once):
        bench.cell.start("Galvanostatic", c_rate=1.0)
    for minute in range(1, 31):
        often.time_s = 60.0 * minute
        often.cell.advance()
    once.time_s = 1800.0
    assert often.cell.soc == pytest.approx(once.cell.soc, abs=1e-9)
    assert np.abs(often.electrode.soc - once.electrode.soc).max() < 0.01


@pytest.mark.parametrize(("c_rate", "bound"), [(0.5, 4.3), (-0.5, 3.0)])
def test_cut_off_ends_the_step_without_overshoot(c_rate, bound):
    bench = Bench(soc=0.5)
    bench.cell.start("Galvanostatic", c_rate=c_rate, cutoff_high_v=4.3, cutoff_low_v=3.0)
    bench.time_s = 10 * 3600.0
    assert (bench.cell.read().status, bench.cell.read().current_ma) == ("Done", 0.0)
    assert abs(open_circuit_voltage(bench.cell.soc) + overpotential(c_rate) - bound) < 0.12


def test_a_reading_is_of_one_moment_however_fast_time_runs():
    bench = Bench()
    clock_s = iter(range(0, 100_000, 60))  # a minute passes at every look at the clock
    bench.cell = Potentiostat(bench.electrode, 2.0, lambda: float(next(clock_s)), lambda: bench.factor)
    bench.cell.start("Galvanostatic", current_ma=2.0, cutoff_high_v=4.3)
    readings = [bench.cell.read() for _ in range(100)]
    assert {r.status for r in readings} == {"Running", "Done"}
    assert {(r.status, r.current_ma) for r in readings} == {("Running", 2.0), ("Done", 0.0)}
    assert all(r.voltage_v > open_circuit_voltage(r.soc) for r in readings if r.status == "Running")


def test_hold_settles_at_the_voltage():
    bench = Bench(soc=0.5)
    bench.cell.start("Hold", hold_voltage_v=4.2)
    bench.time_s = 1.0
    assert bench.cell.read().current_ma > 0
    bench.time_s = 5 * 3600.0
    assert bench.cell.read().voltage_v == pytest.approx(4.2, abs=0.01)
    assert abs(bench.cell.read().current_ma) < 0.05


@pytest.mark.parametrize(
    ("mode", "options", "part"),
    [
        ("Potentiostatic", {}, "choose one of OCV, Galvanostatic, Hold"),
        ("Galvanostatic", {"current_ma": 0.0}, "mA"),
        ("Galvanostatic", {"current_ma": 1e3}, "at most 20 mA"),
        ("Galvanostatic", {"current_ma": 1.0, "cutoff_low_v": 5.0}, "5.0 V"),
        ("Hold", {"hold_voltage_v": 60.0}, "60.0 V"),
        ("OCV", {"capacity_mah": 0.0}, "mAh"),
    ],
)
def test_refused_settings_fault_and_say_why(mode, options, part):
    bench = Bench()
    with pytest.raises(ValueError, match=part):
        bench.cell.start(mode, **options)
    assert (bench.cell.read().status, bench.cell.read().current_ma) == ("Fault", 0.0)


@given(
    steps=st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_charge_is_conserved_whatever_the_damage(steps, seed):
    rng = np.random.default_rng(seed)
    electrode = Electrode((20.0, 20.0), 2.0, 0.5, rng)
    factor = np.where(rng.random(electrode.shape) < 0.3, 1e-3, 1.0)
    mean = 0.5
    for delta in steps:
        electrode.charge(delta, factor)
        mean = min(max(mean + delta, 0.0), 1.0)
        electrode.relax(100.0, factor)
        assert electrode.mean_soc == pytest.approx(mean, abs=1e-9)
        assert electrode.soc.min() >= 0.0
        assert electrode.soc.max() <= 1.0


def test_damaged_spot_lags_behind():
    bench = Bench(soc=0.1)
    damaged = np.zeros(bench.electrode.shape, bool)
    damaged[3:6, 3:6] = True
    bench.factor = np.where(damaged, 0.1, 1.0)
    bench.cell.start("Galvanostatic", c_rate=0.5)
    bench.time_s = 3600.0
    bench.cell.advance()
    gain = bench.electrode.soc - 0.1
    assert gain[damaged].mean() < 0.25 * gain[~damaged].mean()
