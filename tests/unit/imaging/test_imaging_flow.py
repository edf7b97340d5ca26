"""Optical flow and warping against scenes whose displacement is known exactly."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from flow_scenes import FlowPair, add_plates, deform_pair, smooth_field
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from xbat_live.imaging import difference_map, optical_flow, register_nonrigid, warp

SMALL = (160, 180)


@cache
def texture(shape: tuple[int, int] = SMALL, seed: int = 0) -> np.ndarray:
    """Return a periodic band-limited image, standard deviation 1."""
    image = np.random.default_rng(seed).normal(size=shape)
    image = ndimage.gaussian_filter(image, 2.5, mode="wrap")
    return image / image.std()


def moved(image: np.ndarray, shift_yx_px: tuple[float, float]) -> np.ndarray:
    """Return a periodic image with its content moved, exact in Fourier space."""
    return fft.ifft2(ndimage.fourier_shift(fft.fft2(image), shift_yx_px)).real


@cache
def pair(photons: float | None, seed: int = 6) -> FlowPair:
    return deform_pair((240, 260), seed, photons=photons)


@pytest.mark.parametrize(
    ("photons", "bar_px"),
    [
        # The bar is OpenCV's DIS (fast) on the same pair; zero flow is off by 1.63 px. benchmarks/flow.py measures both in one run.
        (200.0, 0.519),
        (1000.0, 0.419),
        (10000.0, 0.326),
        (None, 0.304),
    ],
)
def test_plates_and_swelling_are_found(photons: float | None, bar_px: float) -> None:
    scene = pair(photons)
    zero = scene.error(np.zeros_like(scene.flow))
    flow = optical_flow(scene.reference_od, scene.moving_od)
    assert flow.shape == (2, 240, 260)
    assert flow.dtype == np.float32
    assert scene.error(flow) < bar_px < zero / 3


def test_full_size_frame_of_the_beamline() -> None:
    # DIS fast: 0.222 px on this pair, zero flow 1.69 px; here 0.191 px.
    scene = deform_pair((654, 678), 4, photons=1000.0)
    assert scene.error(optical_flow(scene.reference_od, scene.moving_od)) < 0.21


@pytest.mark.parametrize(
    ("gradient", "most_px"),
    [
        # What all of the field does alike is not what smoothness is against: 0.12, 0.15 and 0.16 px where it was.
        ([[0.0, 0.0], [0.0, 0.0]], 0.09),  # at rest
        ([[0.008, 0.0], [0.0, 0.008]], 0.105),  # swelling
        ([[0.0, 0.012], [-0.012, 0.0]], 0.105),  # turning
    ],
)
def test_a_field_that_moves_alike_is_seen_to(gradient: list[list[float]], most_px: float) -> None:
    shape = (240, 260)
    place = np.mgrid[0 : shape[0], 0 : shape[1]] - (np.array(shape)[:, None, None] - 1) / 2
    scene = deform_pair(shape, 8, photons=1000.0, backward=np.einsum("ij,jyx->iyx", gradient, place))
    assert scene.error(optical_flow(scene.reference_od, scene.moving_od)) < most_px


def test_a_plate_moves_as_one_and_its_surroundings_stay() -> None:
    plate = add_plates(np.zeros((2, *SMALL)), 3, n_plates=1, size_px=70.0)
    scene = deform_pair(SMALL, 8, photons=None, backward=plate)
    flow = optical_flow(scene.reference_od, scene.moving_od)
    inside = ndimage.binary_erosion(np.hypot(*scene.flow) > 0.9 * np.hypot(*scene.flow).max(), iterations=8)
    outside = ndimage.binary_erosion(np.hypot(*scene.flow) < 1e-3, iterations=12)
    assert np.abs(flow[:, inside].mean(1) - scene.flow[:, inside].mean(1)).max() < 0.15
    assert np.median(np.hypot(*flow[:, outside])) < 0.03


@settings(max_examples=8, deadline=None)
@given(st.floats(-12, 12), st.floats(-12, 12), st.integers(0, 3))
def test_flow_of_a_moved_image_is_the_shift(dy: float, dx: float, seed: int) -> None:
    image = texture(seed=seed)
    flow = optical_flow(image, moved(image, (dy, dx)))
    inner = flow[:, 30:-30, 30:-30]
    assert np.abs(np.median(inner, axis=(1, 2)) - (dy, dx)).max() < 0.02
    assert np.hypot(inner[0] - dy, inner[1] - dx).mean() < 0.06


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 50), st.floats(0.5, 3.5))
def test_warp_undoes_the_flow(seed: int, peak_px: float) -> None:
    backward = smooth_field(SMALL, seed, peak_px=peak_px, scale_px=30.0)
    scene = deform_pair(SMALL, 8, photons=None, backward=backward)
    back = warp(scene.moving_od, scene.flow)
    seen = np.isfinite(back)
    assert seen.mean() > 0.9
    assert np.abs(back - scene.reference_od)[seen].mean() < 2e-3
    found = register_nonrigid(scene.reference_od, scene.moving_od)
    left = np.nanmean(np.abs(found.warped - scene.reference_od))
    assert left < 0.6 * np.abs(scene.moving_od - scene.reference_od).mean()


def test_exchanging_the_frames_turns_the_flow() -> None:
    scene = deform_pair(SMALL, 8, photons=None, backward=smooth_field(SMALL, 1, scale_px=40.0, peak_px=2.0))
    there = optical_flow(scene.reference_od, scene.moving_od)
    back = optical_flow(scene.moving_od, scene.reference_od)
    there_and_back = there + np.stack([warp(component, there) for component in back])
    assert np.nanmean(np.hypot(*there_and_back)) < 0.12


@pytest.mark.parametrize(
    ("seed", "photons", "bar_px"),
    [
        # Gradients of 0.05 to 0.08 px/px, five times those of a frame of the beamline: DIS fast on the same pair, in turn the better before
        # smoothness followed the flow.
        (2, 200.0, 0.714),
        (8, None, 0.348),
        (1, 10000.0, 0.565),
    ],
)
def test_strong_gradients_are_not_smoothed_away(seed: int, photons: float | None, bar_px: float) -> None:
    scene = deform_pair(SMALL, seed, photons=photons)
    assert scene.error(optical_flow(scene.reference_od, scene.moving_od)) < bar_px


@pytest.mark.parametrize("shift", [(48.0, -35.0), (-61.5, 20.25)])
def test_a_large_common_shift_is_found_first(shift: tuple[float, float]) -> None:
    scene = deform_pair(
        (240, 260), 2, photons=2000.0, backward=np.ones((2, 240, 260)) * np.reshape(shift, (2, 1, 1)), margin=70
    )
    flow = optical_flow(scene.reference_od, scene.moving_od)
    assert np.abs(np.median(flow, axis=(1, 2)) - shift).max() < 0.15
    stays = optical_flow(scene.reference_od, scene.moving_od, search_shift=False)
    assert np.isfinite(stays).all()


def test_contrast_and_brightness_may_change_between_frames() -> None:
    # Charge state and beam change optical density; that is not motion.
    scene = pair(10000.0)
    plain = scene.error(optical_flow(scene.reference_od, scene.moving_od))
    tilt = np.linspace(-0.2, 0.2, 260, dtype=np.float32)
    changed = scene.error(optical_flow(scene.reference_od, 1.3 * scene.moving_od + 0.4 + tilt))
    assert changed < plain + 0.05


def test_identical_frames_do_not_move() -> None:
    image = texture()
    assert np.abs(optical_flow(image, image)).max() < 1e-4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.ones(SMALL), np.ones(SMALL)),
        (np.zeros(SMALL), np.zeros(SMALL)),
        (np.ones(SMALL), texture()),  # an empty frame
        (texture(), np.zeros(SMALL)),
    ],
)
def test_images_without_structure_give_zero(first: np.ndarray, second: np.ndarray) -> None:
    assert np.array_equal(optical_flow(first, second), np.zeros((2, *SMALL)))


def test_pure_noise_is_finite_and_small() -> None:
    rng = np.random.default_rng(0)
    flow = optical_flow(rng.normal(size=SMALL), rng.normal(size=SMALL))
    assert np.isfinite(flow).all()
    assert np.hypot(*flow).mean() < 4


def test_masked_pixels_do_not_count() -> None:
    scene = pair(10000.0)
    reference, moving = scene.reference_od.copy(), scene.moving_od.copy()
    reference[60:110, 80:150] = np.nan
    moving[150:190, 20:60] = np.nan
    moving[:, -4:] = np.nan
    flow = optical_flow(reference, moving)
    assert np.array_equal(np.isnan(flow[0]), np.isnan(reference))
    assert scene.error(flow) < scene.error(optical_flow(scene.reference_od, scene.moving_od)) + 0.05
    # Garbage beneath the mask would have been followed.
    reference[60:110, 80:150] = 50.0
    assert scene.error(optical_flow(reference, moving)) > scene.error(flow)


def test_the_unit_of_the_images_does_not_matter() -> None:
    scene = pair(1000.0)
    once = optical_flow(scene.reference_od, scene.moving_od)
    scaled = optical_flow(1000 * scene.reference_od, 1000 * scene.moving_od)
    assert np.abs(once - scaled).mean() < 1e-2


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (np.zeros((50, 50)), np.zeros((50, 51)), {}, "one shape"),
        (np.zeros((3, 50, 50)), np.zeros((3, 50, 50)), {}, r"two images \(ny, nx\)"),
        (np.zeros((12, 50)), np.zeros((12, 50)), {}, "too small"),
        (np.zeros((40, 40)), np.zeros((40, 40)), {"finest_bin": 8}, "bin less"),
        (np.full((50, 50), np.nan), np.zeros((50, 50)), {}, "reference image holds nothing but NaN"),
        (np.zeros((50, 50)), np.full((50, 50), np.inf), {}, "moving image holds infinite"),
        (np.zeros((50, 50)), np.zeros((50, 50)), {"smoothness": 0.0}, "smoothness 0.0 above 0"),
        (np.zeros((50, 50)), np.zeros((50, 50)), {"finest_bin": 0}, "finest_bin 0"),
        (np.zeros((50, 50)), np.zeros((50, 50)), {"iterations": 0}, "iterations 0"),
    ],
)
def test_bad_pairs_are_refused(first: np.ndarray, second: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optical_flow(first, second, **options)


def test_warp_by_whole_pixels_is_exact_and_nan_outside() -> None:
    image = texture().astype(np.float32)
    back = warp(image, (3, -2))
    assert np.allclose(back[:-3, 2:], image[3:, :-2], atol=1e-5)
    assert np.isnan(back[-3:]).all()
    assert np.isnan(back[:, :2]).all()
    assert np.array_equal(warp(image, np.zeros((2, *SMALL)), order=0), image)


def test_warp_keeps_nan_where_it_is() -> None:
    image = texture().copy()
    image[20, 30] = np.nan
    bad = np.argwhere(np.isnan(warp(image, (5, 7))[:-5, :-7]))
    assert bad.tolist() == [[15, 23]]
    flow = np.zeros((2, *SMALL))
    flow[:, 40, 50] = np.nan
    assert np.argwhere(np.isnan(warp(texture(), flow))).tolist() == [[40, 50]]


@pytest.mark.parametrize(
    ("image", "flow", "order", "message"),
    [
        (np.zeros((2, 30, 30)), np.zeros((2, 30, 30)), 3, "frame by frame"),
        (np.zeros((30, 30)), np.zeros((2, 30, 31)), 3, "the image has"),
        (np.zeros((30, 30)), np.zeros((30, 30)), 3, r"expected \(2, ny, nx\)"),
        (np.zeros((30, 30)), np.full((2, 30, 30), np.nan), 3, "nothing but NaN"),
        (np.full((30, 30), np.nan), np.zeros((2, 30, 30)), 3, "nothing but NaN"),
        (np.zeros((30, 30)), np.zeros((2, 30, 30)), 6, "order 6"),
    ],
)
def test_bad_warps_are_refused(image: np.ndarray, flow: np.ndarray, order: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp(image, flow, order=order)


def test_difference_map_shows_motion_or_what_is_left_of_it() -> None:
    scene = pair(None)
    raw = difference_map(scene.reference_od, scene.moving_od)
    assert np.allclose(raw, scene.moving_od - scene.reference_od)
    shift = scene.flow.mean((1, 2))
    by_shift = difference_map(scene.reference_od, scene.moving_od, shift_yx_px=shift)
    by_flow = difference_map(scene.reference_od, scene.moving_od, flow=scene.flow)
    assert np.nanstd(by_flow) < 0.1 * np.nanstd(by_shift)
    # Something that appears is positive and stays when the motion is taken out.
    crack = scene.moving_od.copy()
    crack[100:110, 100:140] += 0.5
    assert np.nanmax(difference_map(scene.reference_od, crack, flow=scene.flow)) > 0.4


def test_difference_map_refuses_two_motions() -> None:
    image = texture()
    with pytest.raises(ValueError, match="not both"):
        difference_map(image, image, flow=np.zeros((2, *SMALL)), shift_yx_px=(0, 0))
    with pytest.raises(ValueError, match=r"expected \(dy, dx\)"):
        difference_map(image, image, shift_yx_px=(0, 0, 0))
