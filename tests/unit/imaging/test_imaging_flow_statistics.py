"""Numbers taken from flows: compass, clusters, representative box, rigid shift."""

from __future__ import annotations

import numpy as np
import pytest
from flow_scenes import add_plates, deform_pair, smooth_field
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xbat_live.imaging import (
    box_convergence,
    cluster_flow,
    flow_statistics,
    mean_displacement,
    optical_flow,
)

SHAPE = (90, 120)


def uniform(dy: float, dx: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.ones((2, *shape)) * np.reshape((dy, dx), (2, 1, 1))


def rough(shape: tuple[int, int] = (200, 220), seed: int = 0, grain_px: float = 4.0) -> np.ndarray:
    """Return a mean motion (1, 2) px with grains of random motion, rms about 1.5 px an axis."""
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    grains = np.stack([ndimage.gaussian_filter(item, grain_px, mode="wrap") for item in noise])
    return uniform(1.0, 2.0, shape) + 1.5 * grains / grains.std()


def plates() -> tuple[np.ndarray, np.ndarray]:
    """Return a flow of four areas of known vectors, with their labels by falling area."""
    labels = np.zeros(SHAPE, int)
    labels[:, 60:] = 1
    labels[50:, :60] = 2
    labels[60:, 90:] = 3
    vectors = np.array([[0.0, 2.0], [-2.0, 0.0], [3.0, -1.0], [0.5, -3.0]])
    order = np.argsort(-np.bincount(labels.ravel()))
    rank = np.empty(4, int)
    rank[order] = np.arange(4)
    return np.moveaxis(vectors[labels], -1, 0), rank[labels]


@pytest.mark.parametrize(
    ("dy", "dx", "angle_deg"),
    [
        (0.0, 2.0, 0.0),  # to the right
        (2.0, 0.0, 90.0),  # downwards, rows count down
        (0.0, -2.0, 180.0),
        (-2.0, 0.0, -90.0),
        (1.0, 1.0, 45.0),
    ],
)
def test_direction_is_from_column_towards_row(dy: float, dx: float, angle_deg: float) -> None:
    found = flow_statistics(uniform(dy, dx), pixel_size_um=0.5)
    assert found.mean_direction_deg == pytest.approx(angle_deg, abs=1e-4)
    assert found.resultant == pytest.approx(1.0)
    assert found.direction_spread_deg == pytest.approx(0.0, abs=0.1)
    assert found.mean_amplitude_px == pytest.approx(np.hypot(dy, dx))
    assert found.rms_um == pytest.approx(0.5 * np.hypot(dy, dx))
    assert found.mean_yx_um == pytest.approx((0.5 * dy, 0.5 * dx))
    assert found.percentiles_px[50.0] == pytest.approx(np.hypot(dy, dx))
    assert found.direction_fraction.max() == 1.0
    assert found.direction_amplitude_px.max() == pytest.approx(np.hypot(dy, dx))


@given(st.integers(0, 100))
def test_histograms_are_probabilities(seed: int) -> None:
    found = flow_statistics(rough((40, 50), seed))
    assert (found.amplitude_density * np.diff(found.amplitude_edges_px)).sum() == pytest.approx(1.0)
    assert found.direction_fraction.sum() == pytest.approx(1.0)
    assert found.mean_amplitude_px <= found.rms_px
    # Needles times shares give back the mean amplitude.
    assert (found.direction_fraction * found.direction_amplitude_px).sum() == pytest.approx(
        found.mean_amplitude_px, rel=1e-2
    )


def test_circular_spread_is_that_of_the_wrapped_normal() -> None:
    angle = np.random.default_rng(0).normal(175.0, 20.0, SHAPE)  # across the cut at 180 deg
    found = flow_statistics(np.stack([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))]))
    assert found.mean_direction_deg == pytest.approx(175.0, abs=1.0)
    assert found.direction_spread_deg == pytest.approx(20.0, rel=0.03)


def test_a_flow_that_does_not_move_has_no_direction() -> None:
    found = flow_statistics(np.zeros((2, *SHAPE)))
    assert np.isnan(found.mean_direction_deg)
    assert np.isnan(found.direction_spread_deg)
    assert found.resultant == 0.0
    assert found.direction_fraction.sum() == 0.0
    assert found.mean_amplitude_um is None


def test_nan_and_mask_are_left_out() -> None:
    flow = uniform(0.0, 1.0)
    flow[:, :10] = np.nan
    flow[:, 50:] = 7.0
    mask = np.ones(SHAPE, bool)
    mask[50:] = False
    found = flow_statistics(flow, mask=mask)
    assert found.n_px == 40 * 120
    assert found.mean_yx_px == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize(
    ("flow", "options", "message"),
    [
        (np.zeros(SHAPE), {}, r"expected \(2, ny, nx\)"),
        (np.zeros((3, *SHAPE)), {}, r"expected \(2, ny, nx\)"),
        (np.full((2, *SHAPE), np.nan), {}, "nothing but NaN"),
        (uniform(1, 1), {"mask": np.zeros(SHAPE, bool)}, "no pixel"),
        (uniform(1, 1), {"mask": np.ones((3, 3), bool)}, "the flow has"),
        (uniform(1, 1), {"pixel_size_um": 0.0}, "pixel size 0.0 um"),
        (uniform(1, 1), {"n_direction_bins": 0}, "at least 1"),
        (uniform(1, 1), {"percentiles": (101,)}, "0 to 100"),
        (uniform(1, 1), {"largest_amplitude_px": -1.0}, "-1.0 px"),
    ],
)
def test_bad_statistics_are_refused(flow: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_statistics(flow, **options)


def test_clusters_are_the_plates() -> None:
    flow, labels = plates()
    noisy = flow + np.random.default_rng(1).normal(0, 0.2, flow.shape)
    found = cluster_flow(noisy, 4)
    assert (found.labels == labels).mean() > 0.999
    assert found.fraction.sum() == pytest.approx(1.0)
    assert (np.diff(found.fraction) <= 0).all()
    assert found.spread_px == pytest.approx([0.2 * np.sqrt(2)] * 4, rel=0.1)
    for name in range(4):
        assert found.centres_yx_px[name] == pytest.approx(flow[:, labels == name].mean(1), abs=0.02)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(-20, 20), st.floats(-20, 20), st.sampled_from([0.5, 1.0, 3.0]))
def test_clusters_do_not_depend_on_seed_shift_or_scale(seed: int, dy: float, dx: float, factor: float) -> None:
    flow, labels = plates()
    found = cluster_flow(factor * flow + uniform(dy, dx), 4, seed=seed)
    assert np.array_equal(found.labels, labels)


def test_clusters_repeat_exactly() -> None:
    first, second = (cluster_flow(rough(), seed=7) for _ in range(2))
    assert np.array_equal(first.labels, second.labels)
    assert len(first.fraction) == 5  # as in the paper


def test_fewer_motions_than_clusters_and_masked_pixels() -> None:
    flow, _ = plates()
    assert len(cluster_flow(flow, 9).fraction) == 4
    assert len(cluster_flow(np.zeros((2, *SHAPE)), 5).fraction) == 1
    flow[:, :, :20] = np.nan
    found = cluster_flow(flow, 3)
    assert (found.labels[:, :20] == -1).all()
    assert (found.labels[:, 20:] >= 0).all()


def test_place_makes_areas_compact() -> None:
    flow = rough()

    def pieces(weight: float) -> int:
        labels = cluster_flow(flow, 5, position_weight=weight).labels
        return sum(ndimage.label(labels == name)[1] for name in range(5))

    assert pieces(2.0) < 0.3 * pieces(0.0)


@pytest.mark.parametrize(("k", "weight", "message"), [(0, 0.0, "k = 0"), (-2, 0.0, "k = -2"), (5, -1.0, "-1.0")])
def test_bad_clusters_are_refused(k: int, weight: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_flow(uniform(1, 1), k, position_weight=weight)


@settings(max_examples=15)
@given(st.integers(0, 200))
def test_deviation_falls_with_box_size(seed: int) -> None:
    found = box_convergence(rough(seed=seed), [4, 16, 64, 128], n_regions=30, seed=seed)
    assert (np.diff(found.amplitude_deviation_px) < 0).all()
    assert (np.diff(found.direction_deviation_deg) < 0).all()


def test_representative_box_grows_with_the_grain() -> None:
    fine, coarse = (box_convergence(rough(grain_px=g), n_regions=10, pixel_size_um=0.56) for g in (2.0, 6.0))
    assert fine.representative_px is not None
    assert coarse.representative_px is None or coarse.representative_px > fine.representative_px
    assert fine.representative_um == pytest.approx(0.56 * fine.representative_px)
    assert fine.box_sizes_px[-1] == 100
    assert fine.mean_amplitude_px.shape == (len(fine.box_sizes_px), 10)


def test_white_noise_of_boxes_falls_as_one_over_side() -> None:
    flow = uniform(0.0, 50.0, (256, 256)) + np.random.default_rng(0).normal(size=(2, 256, 256))
    found = box_convergence(flow, [4, 32], n_regions=400)
    assert found.amplitude_deviation_px[0] / found.amplitude_deviation_px[1] == pytest.approx(8.0, rel=0.25)
    assert found.amplitude_deviation_px[0] == pytest.approx(0.25, rel=0.15)


def test_the_whole_field_is_its_own_representative() -> None:
    found = box_convergence(rough((80, 80)), [80])
    assert found.amplitude_deviation_px[0] == pytest.approx(0.0, abs=1e-6)
    assert found.representative_px == 80
    assert box_convergence(uniform(1, 1), [2, 8]).representative_px == 2


def test_boxes_about_masked_areas_use_what_counts() -> None:
    flow = rough()
    flow[:, 50:90, 60:120] = np.nan
    found = box_convergence(flow, [3, 30])
    assert np.isfinite(found.mean_amplitude_px).all()


@pytest.mark.parametrize(
    ("sizes", "regions", "message"),
    [
        ([], 10, "must rise"),
        ([8, 4], 10, "must rise"),
        ([0, 4], 10, "must rise"),
        ([4, 500], 10, "shorter side, 90 px"),
        ([4], 0, "0 regions"),
    ],
)
def test_bad_boxes_are_refused(sizes: list[int], regions: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_convergence(uniform(1, 1), sizes, regions)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-0.03, 0.03), st.floats(-0.03, 0.03))
def test_expansion_does_not_shift(dy: float, dx: float, by_y: float, by_x: float) -> None:
    # Half the frame masked: a plain mean would take the expansion for a shift.
    y, x = np.mgrid[0:90, 0:120].astype(float)
    flow = np.stack([dy + by_y * (y - 44.5), dx + by_x * (x - 59.5)])
    flow[:, :, 70:] = np.nan
    found = mean_displacement(flow, tile_px=15)
    assert found.shift_yx_px == pytest.approx((dy, dx), abs=1e-3)
    assert found.strain[0][0] == pytest.approx(by_y, abs=1e-4)
    assert found.strain[1][1] == pytest.approx(by_x, abs=1e-4)


def test_a_runaway_area_is_voted_out() -> None:
    flow = uniform(1.0, -2.0) + np.random.default_rng(0).normal(0, 0.1, (2, *SHAPE))
    flow[:, :30, :40] += 15.0
    found = mean_displacement(flow, tile_px=10)
    assert found.shift_yx_px == pytest.approx((1.0, -2.0), abs=0.03)
    assert found.inlier_fraction < 0.95
    plain = flow.mean((1, 2))
    assert abs(plain[0] - 1.0) > 1.0


def test_vectors_of_tiles_may_be_given_directly() -> None:
    tiles = uniform(0.5, 0.25, (6, 7))
    tiles[:, 2, 3] = 9.0
    for model in ("affine", "constant"):
        found = mean_displacement(tiles, tile_px=1, model=model)
        assert found.shift_yx_px == pytest.approx((0.5, 0.25), abs=1e-6)
        assert found.n_tiles == 42
    assert mean_displacement(tiles[:, :1, :1], tile_px=1).shift_yx_px == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize("finest_bin", [2, 8])
def test_breathing_electrode_is_not_taken_for_drift(finest_bin: int) -> None:
    # imaging.md 3: correlation weighs by structure and misses the mean displacement by 0.25-0.4 px.
    backward = add_plates(smooth_field((320, 340), 3, scale_px=70.0, peak_px=3.0), 3)
    scene = deform_pair((320, 340), 3, photons=1000.0, backward=backward)
    flow = optical_flow(scene.reference_od, scene.moving_od, finest_bin=finest_bin)
    found = mean_displacement(flow)
    assert np.abs(np.subtract(found.shift_yx_px, scene.flow.mean((1, 2)))).max() < 0.15


@pytest.mark.parametrize(("options", "message"), [({"tile_px": 0}, "tile_px 0"), ({"model": "mean"}, "'mean'")])
def test_bad_mean_displacement_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_displacement(uniform(1, 1), **options)
