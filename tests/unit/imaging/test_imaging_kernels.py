"""Frames sorted by blur kernel, and blur undone class by class."""

from __future__ import annotations

import numpy as np
import pytest
from frames_synthetic import Microscope
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from xbat_live.imaging import BlurKernel, BlurResult, BlurScreen, classify_by_kernel, deconvolve
from xbat_live.imaging.blur import NOT_JUDGED

SHARP = BlurResult(-3.0, 0.4, 0.01, 12.0, "sharp", False, "as sharp as the reference")


def blurred(extent_px: float, angle_deg: float = 0.0, kind: str = "directional") -> BlurResult:
    return BlurResult(5.0, extent_px, 0.03324 * extent_px, angle_deg, kind, True, "blurred")


def test_frames_are_sorted_by_kind_direction_and_extent() -> None:
    results = [
        SHARP,
        blurred(7.0, 3.0),
        blurred(7.5, -4.0),
        blurred(7.0, 88.0),
        blurred(7.0, -89.0),  # the same direction as 91 deg
        blurred(20.0, 2.0),
        blurred(6.0, 0.0, "isotropic"),
        NOT_JUDGED,
        blurred(4.0, 45.0),
        blurred(4.0, -44.0),
    ]
    found = classify_by_kernel(results)
    assert [(c.name, c.frames) for c in found.classes] == [
        ("sharp", (0,)),
        ("directional 0 deg 5-10 px", (1, 2)),
        ("directional 0 deg over 10 px", (5,)),
        ("directional 45 deg under 5 px", (8,)),
        ("directional 90 deg 5-10 px", (3, 4)),
        ("directional -45 deg under 5 px", (9,)),
        ("isotropic 5-10 px", (6,)),
        ("not judged", (7,)),
    ]
    assert found.of(2).angle_deg == pytest.approx(-0.5)
    assert found.of(2).extent_px == pytest.approx(7.25)
    assert found.of(4).angle_deg == pytest.approx(89.5)
    assert found.of(0).kernel is None
    assert found.of(6).kernel == BlurKernel(6.0, 0.0, "isotropic")
    assert np.isnan(found.of(6).angle_deg)


@given(
    st.lists(
        st.tuples(
            st.floats(0.6, 60), st.floats(-90, 90, exclude_min=True), st.sampled_from(["directional", "isotropic"])
        ),
        max_size=20,
    ),
    st.integers(1, 9),
)
def test_every_frame_is_in_one_class_of_its_kind(blurs: list[tuple[float, float, str]], n_directions: int) -> None:
    results = [blurred(*blur) for blur in blurs]
    found = classify_by_kernel(results, n_directions=n_directions)
    assert sorted(i for c in found.classes for i in c.frames) == list(range(len(results)))
    for i, result in enumerate(results):
        group = found.of(i)
        assert group.kind == result.kind
        assert i in group.frames
        if group.kind == "directional":
            off = (group.angle_deg - result.angle_deg + 90) % 180 - 90
            assert abs(off) <= 180 / n_directions + 1e-6
            assert -90 < group.angle_deg <= 90


def test_no_edges_give_one_class_for_all_extents() -> None:
    found = classify_by_kernel([blurred(3.0), blurred(30.0)], extent_edges_px=())
    assert [c.name for c in found.classes] == ["directional 0 deg"]
    assert classify_by_kernel([]).classes == ()


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ([SHARP], {"n_directions": 0}, "0 directions"),
        ([SHARP], {"extent_edges_px": (5.0, 5.0)}, "must rise"),
        ([SHARP], {"extent_edges_px": (0.0,)}, "must rise"),
        ([blurred(5.0, 0.0, "sharp")], {}, "frame 0 is blurred, but of kind 'sharp'"),
    ],
)
def test_bad_classes_are_refused(results: list[BlurResult], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classify_by_kernel(results, **options)


@given(st.floats(2, 40), st.floats(-90, 90))
def test_line_kernel_has_its_extent_and_direction(extent_px: float, angle_deg: float) -> None:
    image = BlurKernel(extent_px, angle_deg).image()
    half = image.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    angle = np.deg2rad(angle_deg)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert image.sum() == pytest.approx(1.0)
    assert (image * along).sum() == pytest.approx(0.0, abs=1e-9)
    # Bilinear weights add at most a quarter px squared.
    assert 0 <= (image * along**2).sum() - extent_px**2 / 12 < 0.26
    assert (image * across**2).sum() < 0.26


def test_round_kernel_has_the_spread_of_the_line() -> None:
    image = BlurKernel(12.0, kind="isotropic").image()
    offset = np.arange(image.shape[0]) - image.shape[0] // 2
    assert (image.sum(0) * offset**2).sum() == pytest.approx(12.0, rel=0.01)


@pytest.mark.parametrize(
    ("method", "extent_px", "angle_deg", "photons"),
    [
        ("wiener", 7.0, 0.0, 1000.0),  # the paper's blur is along x
        ("wiener", 10.0, 30.0, 1000.0),
        ("wiener", 14.0, 0.0, 5000.0),
        ("wiener", 9.0, 0.0, 200.0),  # little light: the balance must follow
        ("richardson-lucy", 10.0, 30.0, 5000.0),  # has no regularisation but its few iterations
        ("richardson-lucy", 14.0, 0.0, 5000.0),
    ],
)
def test_deconvolution_brings_the_frame_nearer_to_the_sharp_one(
    method: str, extent_px: float, angle_deg: float, photons: float
) -> None:
    microscope = Microscope((200, 220), 5, photons=photons, vignette=0.0, n_dust=0, fixed_pattern=0.0)
    truth = microscope.transmission()
    frame = (microscope.expose((0, 0), extent_px, angle_deg) - microscope.dark) / (microscope.flat - microscope.dark)
    found = deconvolve(frame, BlurKernel(extent_px, angle_deg), method=method, source="run 3, frame 7")
    assert error(found.image, truth) < 0.85 * error(frame, truth)
    assert found.method == method
    assert found.source == "run 3, frame 7"
    assert found.image.shape == truth.shape
    assert found.image.dtype == np.float32


def error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(ndimage.gaussian_filter(image - truth, 1.0)[20:-20, 20:-20].std())


def test_the_verdict_of_the_blur_screen_is_enough() -> None:
    microscope = Microscope((256, 256), 5, photons=5000.0, vignette=0.0, n_dust=0)
    screen = BlurScreen((256, 256), microscope.flat, microscope.dark, 0.03324)
    results = [screen.update(microscope.expose()) for _ in range(2)]
    frame = microscope.expose((0, 0), 9.0, 0.0)
    results.append(screen.update(frame))
    classes = classify_by_kernel(results)
    group = classes.of(2)
    assert group.kind == "directional"
    assert group.kernel is not None
    light = (frame - microscope.dark) / (microscope.flat - microscope.dark)
    by_class, by_result = deconvolve(light, group), deconvolve(light, results[2])
    assert np.array_equal(by_class.image, by_result.image)
    truth = microscope.transmission()
    assert error(by_class.image, truth) < 0.8 * error(light, truth)
    with pytest.raises(ValueError, match="no blur to undo"):
        deconvolve(light, classes.of(0))
    with pytest.raises(ValueError, match="judged sharp"):
        deconvolve(light, results[0])


def test_constant_frame_stays_constant() -> None:
    for method in ("wiener", "richardson-lucy"):
        found = deconvolve(np.full((60, 70), 3.0), BlurKernel(5.0), method=method)
        assert found.image == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (np.zeros((2, 50, 50)), {}, "frame by frame"),
        (np.full((50, 50), np.nan), {}, "holds NaN"),
        (np.ones((50, 50)), {"method": "blind"}, "'blind'"),
        (np.ones((50, 50)), {"iterations": 0}, "iterations 0"),
        (np.ones((50, 50)), {"balance": 0.0}, "balance 0.0"),
        (np.ones((6, 50)), {}, "smaller than the kernel"),
        (-np.ones((50, 50)), {"method": "richardson-lucy"}, "intensities above 0"),
    ],
)
def test_bad_deconvolution_is_refused(frame: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deconvolve(frame, BlurKernel(8.0), **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [((0.0, 0.0), "extent 0.0 px"), ((5.0, np.nan), "angle nan"), ((5.0, 0.0, "sharp"), "kind 'sharp'")],
)
def test_bad_kernels_are_refused(values: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlurKernel(*values)
