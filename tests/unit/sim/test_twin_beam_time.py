"""Dose, shutter, time scale and truth files of the twin."""

import dataclasses
import json

import numpy as np
import pytest

from xbat_live.sim.cell import Cell
from xbat_live.sim.exposure import ShutterLog
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi
from xbat_live.sim.twin import Twin

QUIET = TwinSettings(
    sensor_yx=(64, 64),
    jitter_um_yx=(0.0, 0.0),
    backlash_um=0.0,
    drift_um_per_min_yx=(0.0, 0.0),
    beam_drift_um=0.0,
    ring_lifetime_h=1e6,
)
ROI = Roi(0, 0, 64, 64)


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def peak_rate_gy_s(settings):
    """Flux over the effective area of the super-Gaussian (29.6 um square for 30 um, order 8) times dose per fluence."""
    from math import gamma, log, prod

    area_um2 = prod(
        f * gamma(1 + 1 / settings.beam_order) / log(2) ** (1 / settings.beam_order) for f in settings.beam_fwhm_um
    )
    return settings.flux_ph_s / (area_um2 * 1e-8) * Cell(settings).dose_per_fluence(settings.energy_ev)


def test_dose_is_flux_times_open_time_times_dose_per_fluence(clock):
    twin = Twin(QUIET, clock)
    twin.open_shutter(clock.now_s)
    clock.now_s += 0.048
    twin.close_shutter(clock.now_s)
    assert twin.peak_dose_gy() == pytest.approx(0.048 * peak_rate_gy_s(QUIET), rel=0.01)
    assert twin.peak_dose_gy() == pytest.approx(9151.7, rel=0.05), "case P16, for a 30 um top hat"
    assert twin.open_time_s == pytest.approx(0.048)


def test_dose_runs_while_the_shutter_is_open_and_ends_at_its_stamp(clock):
    twin = Twin(QUIET, clock)
    twin.open_shutter(clock.now_s)
    clock.now_s += 2.0
    assert twin.peak_dose_gy() == pytest.approx(2.0 * peak_rate_gy_s(QUIET), rel=0.01)
    twin.close_shutter(clock.now_s - 1.0)  # the stamp of the hardware counts, not the call
    assert twin.peak_dose_gy() == pytest.approx(1.0 * peak_rate_gy_s(QUIET), rel=0.01)
    assert twin.open_time_s == pytest.approx(1.0)
    assert not twin.shutter_open


@pytest.mark.parametrize("transmission", [0.0, 0.1, 1.0])
def test_attenuator_scales_dose_and_ion_chamber(clock, transmission):
    twin = Twin(QUIET, clock)
    twin.set_attenuation(transmission)
    twin.open_shutter(clock.now_s)
    clock.now_s += 1.0
    twin.close_shutter(clock.now_s)
    assert twin.peak_dose_gy() == pytest.approx(transmission * peak_rate_gy_s(QUIET), rel=0.01)
    expected_na = transmission * QUIET.flux_ph_s * QUIET.i0_na_per_ph_s
    assert twin.i0_na() == pytest.approx(expected_na, rel=0.01)


def test_moving_with_open_shutter_spreads_the_dose(clock):
    twin = Twin(QUIET, clock)
    twin.set_stage("x", -50.0, False)
    twin.open_shutter(clock.now_s)
    for x_um in np.linspace(-50.0, 50.0, 11):
        clock.now_s += 0.1
        twin.set_stage("x", float(x_um), x_um < 50.0)
    twin.close_shutter(clock.now_s)
    dose, y_um, x_axis = twin.dose_map()
    row = dose[np.argmin(abs(y_um))]
    middle = row[(x_axis > -20) & (x_axis < 20)]
    assert middle.std() / middle.mean() < 0.02
    assert dose.sum() * 0.25 == pytest.approx(
        1.1 * QUIET.flux_ph_s * Cell(QUIET).dose_per_fluence(8562.0) * 1e8, rel=0.02
    )


def test_sample_out_of_the_beam_takes_no_dose(clock):
    twin = Twin(QUIET, clock)
    twin.set_stage("x", 160.0, False)
    twin.open_shutter(clock.now_s)
    clock.now_s += 100.0
    twin.close_shutter(clock.now_s)
    assert twin.peak_dose_gy() == 0.0


def test_dose_falls_on_the_true_position(clock):
    settings = dataclasses.replace(QUIET, drift_um_per_min_yx=(1.0, 0.0), time_scale=60.0, jitter_um_yx=(0.0, 3.0))
    twin = Twin(settings, clock)
    clock.now_s += 10.0  # ten twin minutes: 10 um
    twin.set_stage("x", 20.0, True)
    twin.set_stage("x", 20.0, False)
    x_um, y_um = twin.position_um()
    assert y_um == pytest.approx(-10.0)
    assert x_um != 20.0
    twin.open_shutter(clock.now_s)
    clock.now_s += 0.001
    twin.close_shutter(clock.now_s)
    dose, y_axis, x_axis = twin.dose_map()
    assert dose.sum(axis=1) @ y_axis / dose.sum() == pytest.approx(y_um, abs=0.05)
    assert dose.sum(axis=0) @ x_axis / dose.sum() == pytest.approx(x_um, abs=0.05)


def test_damage_shows_in_the_local_state_of_charge(clock):
    settings = dataclasses.replace(QUIET, damage_threshold_gy=1e5, time_scale=3600.0)
    twin = Twin(settings, clock)
    twin.open_shutter(clock.now_s)
    clock.now_s += 1e-6 + 3e5 / peak_rate_gy_s(QUIET)  # three times the threshold
    twin.close_shutter(clock.now_s)
    twin.potentiostat.start("Galvanostatic", c_rate=0.5)
    clock.now_s += 1.0
    soc = twin.soc_map()
    assert soc[48:52, 48:52].mean() < soc[:20].mean() - 0.1
    assert soc.mean() == pytest.approx(twin.potentiostat.soc, abs=1e-9)


def test_time_scale_changes_without_a_jump(clock):
    twin = Twin(QUIET, clock)
    clock.now_s += 10.0
    assert twin.twin_time_s() == pytest.approx(10.0)
    twin.set_time_scale(900.0)
    assert twin.twin_time_s() == pytest.approx(10.0)
    clock.now_s += 2.0
    assert twin.twin_time_s() == pytest.approx(1810.0)
    with pytest.raises(ValueError, match="time scale"):
        twin.set_time_scale(-1.0)


def test_photons_arrive_only_while_the_shutter_is_open(clock):
    twin = Twin(QUIET, clock)
    start_s = clock.now_s
    twin.open_shutter(start_s + 0.06)
    twin.close_shutter(start_s + 0.2)
    clock.now_s += 0.2
    frame = twin.expose(start_s, start_s + 0.1, ROI)
    assert frame.truth.open_time_s == pytest.approx(0.04)
    whole = twin.expose(start_s + 0.06, start_s + 0.1, ROI)
    assert frame.truth.photons_per_px == pytest.approx(whole.truth.photons_per_px)


def test_shutter_log_counts_every_interval_once():
    log = ShutterLog()
    for start_s in (0.0, 1.0, 2.0):
        assert log.open(start_s)
        assert not log.open(start_s + 0.1), "already open"
        assert log.close(start_s + 0.5)
        assert not log.close(start_s + 0.6)
    assert log.total_s(10.0) == pytest.approx(1.5)
    assert log.overlap_s(0.25, 2.25) == pytest.approx(0.25 + 0.5 + 0.25)
    log.open(3.0)
    assert log.overlap_s(2.9, 3.4) == pytest.approx(0.4)
    assert log.total_s(4.0) == pytest.approx(2.5)


def test_truth_files(clock, tmp_path):
    twin = Twin(dataclasses.replace(QUIET, jitter_um_yx=(0.1, 0.3)), clock)
    twin.set_stage("x", 3.0, True)
    twin.set_stage("x", 3.0, False)
    twin.open_shutter(clock.now_s)
    clock.now_s += 0.1
    twin.close_shutter(clock.now_s)
    twin.expose(clock.now_s - 0.1, clock.now_s, ROI)
    twin.expose(clock.now_s, clock.now_s, ROI, (1, 1), "Background")
    twin.write_truth(tmp_path / "truth")
    lines = [json.loads(line) for line in (tmp_path / "truth" / "truth.jsonl").read_text().splitlines()]
    assert [line["frame_number"] for line in lines] == [0, 1]
    assert [line["frame_type"] for line in lines] == ["Normal", "Background"]
    first = lines[0]
    assert first["x_um"] == pytest.approx(first["stage_x_um"] + first["jitter_x_um"] - first["drift_x_um"])
    assert first["jitter_x_um"] != 0.0
    with np.load(tmp_path / "truth" / "truth_dose.npz") as maps:
        assert maps["dose_gy"].shape == (maps["y_um"].size, maps["x_um"].size)
        assert maps["dose_gy"].max() == pytest.approx(twin.peak_dose_gy())


@pytest.mark.parametrize(
    ("call", "part"), [(lambda t: t.set_stage("phi", 0.0, False), "phi"), (lambda t: t.set_attenuation(1.5), "0 .. 1")]
)
def test_wrong_values_are_refused(clock, call, part):
    with pytest.raises(ValueError, match=part):
        call(Twin(QUIET, clock))
