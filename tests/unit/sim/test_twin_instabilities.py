"""Instabilities: sizes, directions, reproducibility."""

import dataclasses

import numpy as np
import pytest

from xbat_live.sim.instabilities import (
    Breathing,
    MotorError,
    Vibration,
    beam_offset_um,
    drift_um,
    ring_current_ma,
    vibration_of_frame,
)
from xbat_live.sim.settings import TwinSettings

SETTINGS = TwinSettings()


def test_drift_is_that_of_the_paper():
    y_um, x_um = drift_um(SETTINGS, 840 * 60.0)
    assert y_um == pytest.approx(5.2)
    assert x_um == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("minutes", "current_ma", "reason"),
    [
        (0.0, 500.0, "full"),
        (9.0, 500 * np.exp(-9 / 600), "decays with 10 h"),
        (10.0, 500.0, "topped up"),
        (1234567 * 10.0 + 5.0, 500 * np.exp(-5 / 600), "for ever"),
    ],
)
def test_ring_decays_and_is_topped_up(minutes, current_ma, reason):
    assert ring_current_ma(SETTINGS, minutes * 60.0) == pytest.approx(current_ma, rel=1e-6), reason


def test_beam_starts_centred_and_stays_near():
    assert beam_offset_um(SETTINGS, 0.0) == (0.0, 0.0)
    path = np.array([beam_offset_um(SETTINGS, 600.0 * i) for i in range(200)])
    assert 0.05 < np.abs(path).max() < 2 * SETTINGS.beam_drift_um + 1e-9


def test_default_seed_has_a_blurred_frame_early():
    extents = [vibration_of_frame(SETTINGS, i).extent_px for i in range(13)]
    assert max(extents[4:]) >= 5.0
    assert max(extents[:4]) == 0.0, "the first keyframe must be sharp"


def test_vibration_statistics():
    drawn = [v for i in range(4000) if (v := vibration_of_frame(SETTINGS, i)).extent_px > 0]
    assert 0.06 < len(drawn) / 4000 < 0.10
    assert all(5.0 <= v.extent_px <= 14.0 for v in drawn)
    assert 0.75 < np.mean([abs(v.angle_deg) <= 15 for v in drawn]) < 0.95
    assert {v.kind for v in drawn} == {"line", "sine"}


@pytest.mark.parametrize("kind", ["line", "sine"])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, -60.0])
def test_extent_is_sqrt12_times_the_standard_deviation_along_the_angle(kind, angle_deg):
    """Near zero frequency a kernel acts as 1 - 2 pi^2 f^2 sigma^2, whatever its shape."""
    extent, f = 9.0, 0.004
    vibration = Vibration(extent, angle_deg, kind)
    along = np.deg2rad(angle_deg)
    value = vibration.transfer(np.array([[f * np.sin(along)]]), np.array([[f * np.cos(along)]]))[0, 0]
    sigma = np.sqrt((1 - value) / (2 * np.pi**2 * f**2))
    assert sigma * np.sqrt(12) == pytest.approx(extent, rel=0.02)
    across = vibration.transfer(np.array([[0.3 * np.cos(along)]]), np.array([[-0.3 * np.sin(along)]]))[0, 0]
    assert across == pytest.approx(1.0, abs=1e-3)


def test_stop_draws_a_new_error_and_backlash_follows_direction():
    motor = MotorError(1, 0, 0.35, 0.0)
    errors = []
    for _ in range(400):
        motor.stopped()
        errors.append(motor.error_um)
    assert np.std(errors) == pytest.approx(0.35, rel=0.15)
    assert len(set(errors)) == 400
    backlash = MotorError(1, 0, 0.0, 0.04)
    backlash.moved(5.0)
    forward = backlash.error_um
    backlash.moved(-5.0)
    assert backlash.error_um - forward == pytest.approx(0.04)


def test_breathing_is_zero_at_half_charge_and_averages_out_over_a_field():
    breathing = Breathing(SETTINGS)
    assert breathing.scale_px(0.5) == 0.0
    assert breathing.scale_px(1.0) - breathing.scale_px(0.0) == SETTINGS.breathing_px
    axis = np.arange(654) * SETTINGS.pixel_size_um
    for corner_um in (-90.0, -20.0, 33.0, 70.0):
        for component in breathing.pattern(corner_um + axis, corner_um + axis):
            assert 0.5 < np.abs(component).max() < 1.5
            assert abs(component.mean()) < 0.2


def test_seed_decides():
    other = dataclasses.replace(SETTINGS, seed=2)
    assert vibration_of_frame(SETTINGS, 5) == vibration_of_frame(SETTINGS, 5)
    assert [vibration_of_frame(SETTINGS, i) for i in range(60)] != [vibration_of_frame(other, i) for i in range(60)]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"sed": 3}, "did you mean 'seed'"),
        ({"flux_ph_s": "much"}, "needs a float"),
        ({"sensor_yx": [1024]}, "needs 2 numbers"),
        ({"energy_ev": 8.5}, "1000 .. 60000 eV"),
        ({"vibration_extent_px": [9, 5]}, "smallest, largest"),
    ],
)
def test_wrong_settings_name_key_and_remedy(content, part):
    with pytest.raises(ValueError, match=part) as caught:
        TwinSettings.from_mapping(content, source="twin.toml")
    assert "twin.toml" in str(caught.value)


def test_settings_from_toml(tmp_path):
    file = tmp_path / "twin.toml"
    file.write_text('[twin]\nseed = 7\nflux_ph_s = 1000000000\nsensor_yx = [512, 640]\nframes = "recorded"\n')
    settings = TwinSettings.load(file)
    assert settings.seed == 7
    assert settings.flux_ph_s == 1e9
    assert settings.sensor_yx == (512, 640)
    assert settings.frames == tmp_path / "recorded"
