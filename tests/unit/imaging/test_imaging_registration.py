"""Registration and correction: invariants that hold for any shift."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from frames_synthetic import Microscope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import windows

from xbat_live.imaging import BlurScreen, LiveRegistrar, optical_density
from xbat_live.imaging.correction import Corrector, bin_sum
from xbat_live.imaging.registration import ShiftEngine
from xbat_live.imaging.spectrum import fast_even_length, tukey

SHAPE = (160, 176)
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shifts = st.tuples(st.floats(-40, 40), st.floats(-40, 40))


@pytest.fixture(scope="module")
def microscope() -> Microscope:
    return Microscope(SHAPE, seed=2, photons=20000, counts_per_photon=2.0, n_flats=100, n_dust=8)


def _registrar(microscope: Microscope) -> LiveRegistrar:
    return LiveRegistrar(SHAPE, microscope.flat, microscope.dark, 0.03324)


@QUICK
@given(shift=shifts)
def test_a_shift_there_is_minus_the_shift_back(microscope: Microscope, shift: tuple[float, float]) -> None:
    a, b = microscope.expose(), microscope.expose(shift)
    there, back = _registrar(microscope), _registrar(microscope)
    there.update(a)
    back.update(b)
    forth, reverse = there.update(b), back.update(a)
    assert forth.ok
    assert reverse.ok
    assert np.allclose(forth.shift_yx_px, np.negative(reverse.shift_yx_px), atol=0.25)
    assert np.allclose(forth.shift_yx_px, shift, atol=0.25)


@QUICK
@given(dy=st.integers(-30, 30), dx=st.integers(-30, 30))
def test_a_rolled_scene_is_found_at_whole_pixels(dy: int, dx: int) -> None:
    rng = np.random.default_rng(0)
    scene = 10000 * Microscope(SHAPE, seed=2, margin_px=0).transmission()
    registrar = LiveRegistrar(SHAPE, np.full(SHAPE, 10000.0), np.zeros(SHAPE), 0.03324)
    registrar.update(rng.poisson(scene))
    result = registrar.update(rng.poisson(np.roll(scene, (dy, dx), (0, 1))))
    assert result.ok
    # A field of only 80 x 88 binned px: single particles at its edge weigh more than noise.
    assert np.allclose(result.shift_yx_px, (dy, dx), atol=0.25)


def test_sigma_tells_the_error() -> None:
    microscope = Microscope((327, 339), seed=9, photons=500)
    registrar = LiveRegistrar((327, 339), microscope.flat, microscope.dark, 0.03324)
    registrar.update(microscope.expose())
    rng = np.random.default_rng(0)
    scaled = []
    for _ in range(12):
        shift = rng.normal(0, 8, 2)
        result = registrar.update(microscope.expose(tuple(shift)))
        scaled.append((np.array(result.shift_yx_px) - shift) / result.sigma_yx_px)
    assert 0.5 < np.sqrt(np.mean(np.square(scaled))) < 2.0


def test_a_shift_is_not_pulled_to_where_the_window_lies() -> None:
    # Few large particles that the window's edge cuts: displaced by half a binned px it pulls the maximum along.
    shape = (654, 678)
    y, x = np.mgrid[0:972, 0:972]
    rng = np.random.default_rng(1)
    scene = sum(
        np.sqrt(np.clip(1 - ((y - a) ** 2 + (x - b) ** 2) / r**2, 0, None))
        for a, b, r in zip(rng.uniform(0, 972, 14), rng.uniform(0, 972, 14), rng.uniform(90, 200, 14), strict=True)
    )
    few = Microscope(shape, seed=1, photons=1e4, counts_per_photon=3.0, scene=scene, n_dust=0, margin_px=150)
    corrector = Corrector(shape, 2)
    corrector.set_dark(few.dark)
    corrector.set_flat(few.flat)
    engine = ShiftEngine(corrector.binned_shape, 2)
    level, weight = engine.fine, corrector.weight
    reference = level.reference(level.central, corrector.correct(few.expose()).od, weight, level.margin)
    for shift in ((0.9, 0.0), (-0.8, 0.9), (0.0, -0.9)):
        od, start = corrector.correct(few.expose(shift)).od, np.array(shift) / 2
        as_it_lies = level.register(level.central, reference, weight, level.margin, od, (0, 0), start, 8)
        displaced = level.register(level.central, reference, weight, level.margin, od, (0, 0), start, 8, start)
        assert as_it_lies is not None
        assert displaced is not None
        assert as_it_lies.pull_px > 0.002 > 4 * displaced.pull_px, "there is something to correct"
        left = np.abs(as_it_lies.shift_yx - displaced.shift_yx).max()
        assert left < 0.25 * as_it_lies.pull_px


def test_positions_do_not_walk_over_many_keyframes() -> None:
    microscope = Microscope((327, 339), seed=5, photons=2000, margin_px=170)
    registrar = LiveRegistrar((327, 339), microscope.flat, microscope.dark, 0.03324)
    registrar.update(microscope.expose())
    path = [(0.0, 12.0 * i) for i in range(1, 14)] + [(0.0, 156.0 - 12.0 * i) for i in range(1, 14)]
    for shift in path:
        result = registrar.update(microscope.expose(shift))
        assert result.ok
        assert np.abs(np.subtract(result.shift_yx_px, shift)).max() < 0.25
    assert result.keyframe_id == 0, "back at the start it is the first keyframe that counts"


def test_blur_screen_follows_a_given_shift(microscope: Microscope) -> None:
    screen = BlurScreen(SHAPE, microscope.flat, microscope.dark, 0.05)
    assert not screen.update(microscope.expose()).is_blurred
    blurred = screen.update(microscope.expose((5.0, -8.0), 9.0, 30.0), shift_yx_px=(5.0, -8.0))
    assert blurred.is_blurred
    assert blurred.kind == "directional"
    assert blurred.extent_um == pytest.approx(blurred.extent_px * 0.05)
    assert blurred.angle_deg == pytest.approx(30, abs=6)


@given(
    od=st.floats(0.0, 3.0),
    more=st.floats(0.0, 2.0),
    beam=st.floats(1e3, 6e4),
)
def test_optical_density_is_additive(od: float, more: float, beam: float) -> None:
    flat, dark = np.full((4, 4), beam + 10), np.full((4, 4), 10.0)
    once = optical_density(beam * np.exp(-od) + dark, flat, dark)
    both = optical_density(beam * np.exp(-od - more) + dark, flat, dark)
    assert once.dtype == np.float32
    assert np.allclose(both - once, more, atol=1e-3)
    assert np.allclose(once, od, atol=1e-3)


def test_optical_density_needs_one_shape_and_stays_finite_without_light() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        optical_density(np.ones((2, 2)), np.ones((2, 3)), 0)
    assert np.isfinite(optical_density(np.zeros((2, 2)), np.full((2, 2), 100.0), 10.0)).all()


@given(ny=st.integers(2, 20), nx=st.integers(2, 20), factor=st.integers(1, 4), seed=st.integers(0, 9))
def test_binning_keeps_every_count_of_whole_blocks(ny: int, nx: int, factor: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 65535, (ny * factor, nx * factor), dtype=np.uint16)
    expected = frame.astype(float).reshape(ny, factor, nx, factor).sum((1, 3))
    assert np.allclose(bin_sum(frame, factor), expected)


@given(length=st.integers(2, 5000))
def test_fast_lengths_are_even_and_close(length: int) -> None:
    fast = fast_even_length(length)
    assert fast % 2 == 0
    assert 0.8 * length - 2 <= fast <= length


@given(length=st.integers(2, 300), flank=st.floats(0.01, 0.5))
def test_the_window_is_that_of_scipy(length: int, flank: float) -> None:
    assert np.allclose(tukey(length, flank), windows.tukey(length, 2 * flank), atol=1e-6)


def test_what_only_tests_need_is_not_imported_with_the_package() -> None:
    # scipy.signal and scipy.stats cost every process start some tenths of a second.
    heavy = ("scipy.signal", "scipy.stats", "scipy.cluster", "skimage")
    code = f"import sys, xbat_live.imaging; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
