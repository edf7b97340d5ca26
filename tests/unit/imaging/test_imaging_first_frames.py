"""What all others are measured against: a first frame that is none is not taken, alone or in the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from frames_drawn import DrawnMicroscope, Particle

from xbat_live.imaging import BlurScreen, FramePipeline, LiveRegistrar

SHAPE = (327, 339)
SHIFTS = [(0.0, 0.0), (3.0, -6.0), (-4.5, 8.0)]


@pytest.fixture(scope="module")
def microscope() -> DrawnMicroscope:
    return DrawnMicroscope(SHAPE, seed=4, photons=1000.0, size_px=(4.0, 30.0))


def _closed(microscope: DrawnMicroscope) -> np.ndarray:
    return microscope.dark.astype(np.uint16)


def _empty(microscope: DrawnMicroscope) -> np.ndarray:
    return np.rint(microscope._detect(microscope.light)).astype(np.uint16)


def _half_read(microscope: DrawnMicroscope) -> np.ndarray:
    frame = microscope.expose()
    frame[:150] = 0
    return frame


BAD = {
    "shutter closed": (_closed, "shutter closed"),
    "empty field": (_empty, "no structure"),
    "half of the rows": (_half_read, "rows without signal"),
    "NaN": (lambda m: np.full(m.shape, np.nan), "NaN"),
    "another region": (lambda m: np.zeros((10, 10), np.uint16), "expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_registrar_begins_with_the_first_good_frame(name: str, microscope: DrawnMicroscope) -> None:
    make, reason = BAD[name]
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.033)
    refused = registrar.update(make(microscope))
    assert not refused.ok
    assert reason in refused.reason
    for shift in SHIFTS:
        result = registrar.update(microscope.expose(shift))
        assert result.ok
        assert np.allclose(result.shift_yx_px, shift, atol=0.2)


@pytest.mark.parametrize("name", BAD)
def test_the_blur_screen_begins_with_the_first_good_frame(name: str, microscope: DrawnMicroscope) -> None:
    make, reason = BAD[name]
    screen = BlurScreen(SHAPE, microscope.flat, microscope.dark, 0.033)
    for _ in range(2):  # as first frame, and between good ones
        result = screen.update(make(microscope))
        assert result.reason.startswith("blur not judged")
        assert not result.is_blurred
        if screen._reference is None:
            assert reason in result.reason
        assert not screen.update(microscope.expose(SHIFTS[1])).is_blurred
        assert screen.update(microscope.expose(SHIFTS[2], 8.0, 30.0)).is_blurred


def test_a_shift_that_is_no_number_is_searched_for_and_one_to_nowhere_is_not_believed(
    microscope: DrawnMicroscope,
) -> None:
    screen = BlurScreen(SHAPE, microscope.flat, microscope.dark, 0.033)
    screen.update(microscope.expose())
    assert screen.update(microscope.expose(SHIFTS[2], 8.0, 30.0), (np.nan, 0.0)).is_blurred
    elsewhere = DrawnMicroscope(SHAPE, seed=9, photons=1000.0, size_px=(4.0, 30.0))
    assert "nothing in common" in screen.update(elsewhere.expose(), (0.0, 0.0)).reason


def _aligned(seed: int, photons: float) -> DrawnMicroscope:
    """A microscope with flakes three times as long as wide, within 15 degrees of one direction: sharp, but not alike in all directions."""
    microscope = DrawnMicroscope(SHAPE, seed=seed, photons=photons)
    rng = np.random.default_rng(seed)
    microscope.particles = [
        Particle(
            centre_yx=(float(y), float(x)),
            half_px=(18.0 * scale, 6.0 * scale),
            angle=float(np.deg2rad(rng.normal(20, 15))),
            power=2.0,
            dome=0.4,
            density=float(rng.uniform(0.1, 0.5)),
            grain=np.zeros((0, 3)),
            crack=None,
        )
        for y, x, scale in zip(
            rng.uniform(-40, SHAPE[0] + 40, 160),
            rng.uniform(-40, SHAPE[1] + 40, 160),
            rng.uniform(0.6, 1.4, 160),
            strict=True,
        )
    ]
    return microscope


@pytest.mark.parametrize("photons", [200.0, 1000.0])
def test_flakes_in_one_direction_are_sharp_from_the_second_frame_on(photons: float) -> None:
    sample = _aligned(2, photons)
    screen = BlurScreen(SHAPE, sample.flat, sample.dark, 0.033)
    pipeline = FramePipeline(SHAPE, 0.033)
    pipeline.set_dark(sample.dark)
    pipeline.set_flat(sample.flat)
    frames = [sample.expose(shift) for shift in [*SHIFTS, (6.0, 2.0)]]
    assert [screen.update(frame).is_blurred for frame in frames] == [True, False, False, False]
    assert [pipeline.process(frame, "field").accepted for frame in frames] == [False, True, True, True]


def test_vibration_is_not_taken_for_structure() -> None:
    microscope = DrawnMicroscope(SHAPE, seed=6, photons=1000.0, size_px=(4.0, 30.0))
    screen = BlurScreen(SHAPE, microscope.flat, microscope.dark, 0.033)
    for extent_px, angle_deg in ((9.0, 10.0), (12.0, 70.0), (8.0, -50.0), (11.0, 20.0)):
        assert screen.update(microscope.expose((1.0, 2.0), extent_px, angle_deg)).is_blurred
    assert not screen.update(microscope.expose((2.0, 0.0))).is_blurred
