"""Moving images by parts of a pixel: no photon is made or lost, and the result is the same on every machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbat_live.dose import Beam
from xbat_live.dose.subpixel import pad_for_shift, resample_area, shift_bilinear, shift_padded

quick = settings(max_examples=40, deadline=None)
shifts = st.floats(-1, 1)


def split_over_four(kernel, rows, columns):
    """The definition: each pixel's number goes to four pixels."""
    result = np.zeros((kernel.shape[0] + 2, kernel.shape[1] + 2))
    for to_y, part_y in ((0, 1 - abs(rows)), (int(np.sign(rows)), abs(rows))):
        for to_x, part_x in ((0, 1 - abs(columns)), (int(np.sign(columns)), abs(columns))):
            target = result[1 + to_y : 1 + to_y + kernel.shape[0], 1 + to_x : 1 + to_x + kernel.shape[1]]
            target += kernel * part_y * part_x
    return result


@quick
@given(rows=shifts, columns=shifts, shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), scale=st.floats(1e-9, 1e9))
def test_a_shift_splits_every_pixel_over_its_neighbours(rows, columns, shape, scale):
    kernel = np.random.default_rng(1).random(shape)
    moved = shift_padded(pad_for_shift(kernel), rows, columns, scale)
    np.testing.assert_allclose(moved, split_over_four(kernel, rows, columns) * scale, rtol=1e-12, atol=1e-15 * scale)


@pytest.mark.parametrize(("rows", "columns"), [(0.3, -0.7), (-0.5, 0.5), (1.0, 0.0), (0.0, -1.0), (1e-9, -1e-9)])
def test_a_large_kernel_keeps_its_sum(rows, columns):
    kernel = np.random.default_rng(2).random((513, 401))  # several chunks, the last one not full
    moved = shift_bilinear(kernel, rows, columns)
    assert moved.sum() == pytest.approx(kernel.sum(), rel=1e-12)
    np.testing.assert_allclose(moved, split_over_four(kernel, rows, columns), rtol=1e-12, atol=1e-15)
    assert (moved >= 0).all()


def test_in_place_it_stays_as_it_is():
    kernel = np.random.default_rng(3).random((5, 7))
    assert (shift_bilinear(kernel, 0, 0, 2.0) == kernel * 2.0).all()


def test_more_than_a_pixel_is_refused():
    with pytest.raises(ValueError, match=r"sub-pixel shift \(1.5, 0\) is larger than a pixel"):
        shift_bilinear(np.ones((3, 3)), 1.5, 0)


@quick
@given(
    shape=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    pixel=st.floats(0.2, 5),
    shift_y=st.floats(-3, 3),
    shift_x=st.floats(-3, 3),
)
def test_resampling_keeps_every_photon_that_falls_on_the_new_pixels(shape, pixel, shift_y, shift_x):
    image = np.random.default_rng(4).random(shape)
    rows, columns = (
        np.arange(-np.ceil(size / 2 / pixel) - 5, np.ceil(size / 2 / pixel) + 6) * pixel + shift
        for size, shift in zip(shape, (shift_y, shift_x), strict=True)
    )
    outside = abs(shift_y) > 5 * pixel or abs(shift_x) > 5 * pixel
    new = resample_area(image, rows, columns)
    if not outside:
        assert new.sum() * pixel**2 == pytest.approx(image.sum(), rel=1e-12)
    assert new.max() <= image.max() * (1 + 1e-12)


def test_the_same_pixels_give_the_same_image():
    image = np.random.default_rng(5).random((9, 7))
    edges = np.arange(10) - 4.5, np.arange(8) - 3.5
    assert (resample_area(image, *edges) == image).all()


def test_to_the_last_bit():
    """A ledger replayed on another machine gives the same map: each pixel is one fixed sequence of operations."""
    kernel = np.random.default_rng(6).random((7, 5))
    rows, columns, scale = 0.3125, -0.7, 3.3e-11
    source = np.pad(kernel, 2).tolist()
    expected = [
        [
            (source[i + 1][j + 1] * ((1 - rows) * scale) + source[i][j + 1] * (rows * scale)) * (1 + columns)
            + (source[i + 1][j + 2] * ((1 - rows) * scale) + source[i][j + 2] * (rows * scale)) * -columns
            for j in range(7)
        ]
        for i in range(9)
    ]
    assert shift_bilinear(kernel, rows, columns, scale).tolist() == expected


def test_a_kernel_is_the_callers_own():
    profile = Beam.measured(1e10, np.random.default_rng(7).random((20, 30)), 0, pixel_size_um=1.0).profile
    for offset in ((0.2, 0.1), (0.0, 0.0)):
        first = profile.kernel(1.0, offset)
        before = first.copy()
        first *= 2.0
        assert (profile.kernel(1.0, offset) == before).all()
