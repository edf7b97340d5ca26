"""What the frame pipeline promises, on exact synthetic frames."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from frames_synthetic import Microscope

from xbat_live.imaging import FramePipeline, FrameVerdict

SHAPE = (327, 339)


@pytest.fixture(scope="module")
def microscope() -> Microscope:
    return Microscope(SHAPE, seed=3, photons=2000, contrast=1.0, n_flats=10)


@pytest.fixture
def pipeline(microscope: Microscope) -> FramePipeline:
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    return pipeline


def test_a_series_is_registered_and_its_blurred_frames_rejected(
    microscope: Microscope, pipeline: FramePipeline
) -> None:
    rng = np.random.default_rng(1)
    blurs = {4: (5.0, 3.0), 9: (14.0, 0.0), 13: (7.0, 90.0), 17: (5.0, -50.0), 21: (10.0, 10.0)}
    errors = []
    for i in range(26):
        drift = (5.0 * i, -1.0 * i)  # 125 px over the series: more than a third of the field, three keyframes
        shift = (drift[0] + rng.normal(0, 2), drift[1] + rng.normal(0, 6)) if i else (0.0, 0.0)
        extent_px, angle_deg = blurs.get(i, (0.0, 0.0))
        frame = microscope.expose(shift, extent_px, angle_deg, scale=rng.uniform(0.7, 1.3), contrast=1 - 0.01 * i)
        verdict = pipeline.process(frame, "spot 0")
        assert verdict.accepted == (i not in blurs), (i, verdict)
        if i in blurs:
            assert verdict.kind == "blurred"
            assert verdict.blur.extent_px == pytest.approx(extent_px, rel=0.25)
            assert abs((verdict.blur.angle_deg - angle_deg + 90) % 180 - 90) < 8
            assert verdict.located, "a blurred frame still tells where it is"
        errors.append(np.subtract(verdict.shift_yx_px, shift))
    assert np.sqrt(np.mean(np.square(errors))) < 0.1
    assert np.abs(errors).max() < 0.4
    assert verdict.keyframe_id >= 2


@pytest.mark.parametrize("extent_px", [5.0, 8.0, 14.0])
def test_a_blurred_first_frame_never_becomes_the_reference(
    microscope: Microscope, pipeline: FramePipeline, extent_px: float
) -> None:
    first = pipeline.process(microscope.expose((0, 0), extent_px, 5.0), "field")
    second = pipeline.process(microscope.expose((3, -4)), "field")
    assert (first.kind, second.kind) == ("blurred", "accepted")
    assert second.shift_yx_px == (0.0, 0.0), "the first accepted frame defines zero"


def test_a_blurred_reference_that_slipped_through_is_replaced_and_said_so(microscope: Microscope) -> None:
    # Blur in all directions leaves no anisotropy: the first frame cannot show it, the second does.
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    soft = dataclasses.replace(microscope, psf_sigma_px=2.2)
    assert pipeline.process(soft.expose(), "field").accepted
    sharp = pipeline.process(microscope.expose((2.0, 3.0)), "field")
    assert sharp.accepted
    assert sharp.reanchored
    assert "blurred" in sharp.reason
    assert np.abs(np.subtract(sharp.shift_yx_px, (2.0, 3.0))).max() < 0.3, "positions stay relative to the first frame"
    assert pipeline.process(soft.expose((4.0, 4.0)), "field").kind == "blurred"


@pytest.mark.parametrize(
    ("photons", "n_flats", "why"),
    [
        (
            200,
            1,
            "noise of the single flat is a static pattern as strong as shot noise: naive correlation locks to zero",
        ),
        (200, 10, "low dose: the noise floor must not be taken for blur"),
        (5000, 100, "high dose: nothing may break when there is almost no noise"),
    ],
)
def test_sharp_frames_pass_and_blurred_ones_do_not_at_any_dose(photons: float, n_flats: int, why: str) -> None:
    microscope = Microscope(SHAPE, seed=8, photons=photons, contrast=1.5, n_flats=n_flats)
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    rng = np.random.default_rng(2)
    for i in range(10):
        shift = tuple(rng.normal(0, 8, 2)) if i else (0.0, 0.0)
        verdict = pipeline.process(microscope.expose(shift, 10.0 if i == 6 else 0.0), "field")
        assert verdict.accepted == (i != 6), (why, i, verdict)
        assert np.abs(np.subtract(verdict.shift_yx_px, shift)).max() < 0.6, (why, i, verdict)


def test_exposure_and_ring_current_do_not_change_the_verdict(microscope: Microscope, pipeline: FramePipeline) -> None:
    pipeline.process(microscope.expose(), "field")
    extents = [
        pipeline.process(microscope.expose((1, 2), 8.0, scale=scale), "field", beam_scale=scale).blur.extent_px
        for scale in (0.3, 1.0, 3.0)
    ]
    assert max(extents) - min(extents) < 1.0


def test_counts_per_photon_do_not_matter(microscope: Microscope) -> None:
    # Same photons, counts and references times four: not one decision may hang on the gain of the camera.
    scores = []
    for gain in (1.0, 4.0):
        pipeline = FramePipeline(SHAPE, 0.03324)
        pipeline.set_dark(np.zeros(SHAPE))
        pipeline.set_flat((microscope.flat - microscope.dark) * gain)
        rng_frames = [dataclasses.replace(microscope, seed=5).expose((0.0, 0.0), blur) for blur in (0.0, 6.0)]
        verdicts = [pipeline.process((frame - microscope.dark).clip(1) * gain, "f") for frame in rng_frames]
        scores.append([verdict.blur.score for verdict in verdicts])
    assert scores[0] == pytest.approx(scores[1], rel=0.02, abs=0.2)


def test_fields_of_view_are_kept_apart(microscope: Microscope, pipeline: FramePipeline) -> None:
    other = Microscope(SHAPE, seed=4, photons=2000)
    other.illumination = microscope.illumination
    pipeline.process(microscope.expose(), "left")
    pipeline.process(other.expose(), "right")
    left, right = pipeline.process(microscope.expose((5, 1)), "left"), pipeline.process(other.expose((-3, 2)), "right")
    assert np.allclose(left.shift_yx_px, (5, 1), atol=0.1)
    assert np.allclose(right.shift_yx_px, (-3, 2), atol=0.1)


def test_another_sample_is_lost_and_not_registered(microscope: Microscope, pipeline: FramePipeline) -> None:
    other = Microscope(SHAPE, seed=12, photons=2000)
    other.illumination = microscope.illumination
    pipeline.process(microscope.expose(), "field")
    verdict = pipeline.process(other.expose(), "field")
    assert (verdict.kind, verdict.located) == ("lost", False)
    assert pipeline.process(microscope.expose((7, -7)), "field").accepted, "a lost frame leaves the reference alone"


def test_a_periodic_sample_is_ambiguous() -> None:
    y, x = np.mgrid[0:528, 0:540]
    grating = 0.5 + 0.3 * np.sin(2 * np.pi * x / 54) * np.sin(2 * np.pi * y / 52.8)
    microscope = Microscope(SHAPE, seed=1, photons=2000, scene=grating, margin_px=100)
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    pipeline.process(microscope.expose(), "grid")
    verdict = pipeline.process(microscope.expose((30.0, 60.0)), "grid")
    assert verdict.kind == "lost"
    assert not verdict.located


def test_an_empty_field_is_blank_also_behind_a_single_flat() -> None:
    # The noise of the flat is in every frame: an empty frame matches any reference at zero shift by that noise alone.
    microscope = Microscope(SHAPE, seed=6, photons=2000, n_flats=1)
    empty = dataclasses.replace(microscope, scene=np.zeros_like(microscope.scene))
    empty.illumination, empty.flat = microscope.illumination, microscope.flat
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    assert pipeline.process(empty.expose(), "field").kind == "blank"
    assert pipeline.process(microscope.expose(), "field").accepted
    assert pipeline.process(empty.expose(), "field").kind == "blank"


def test_half_a_field_in_one_jump(microscope: Microscope, pipeline: FramePipeline) -> None:
    wide = Microscope(SHAPE, seed=3, photons=2000, margin_px=180)
    pipeline.set_flat(wide.flat)
    pipeline.process(wide.expose(), "field")
    verdict = pipeline.process(wide.expose((-20.0, 160.3)), "field")
    assert not verdict.located or np.abs(np.subtract(verdict.shift_yx_px, (-20.0, 160.3))).max() < 0.5
    assert verdict.located


def test_without_references_it_works_and_says_what_was_assumed(microscope: Microscope) -> None:
    pipeline = FramePipeline(SHAPE, 0.03324, dark_offset=100.0)
    first = pipeline.process(microscope.expose(), "field")
    second = pipeline.process(microscope.expose((6.0, -9.0)), "field")
    assert "no flat yet" in first.reason
    assert "100 counts/px" in first.reason
    assert np.abs(np.subtract(second.shift_yx_px, (6.0, -9.0))).max() < 0.5


def test_a_verdict_is_plain_values(microscope: Microscope, pipeline: FramePipeline) -> None:
    for frame in (microscope.expose(), microscope.expose((1, 1)), np.zeros((3, 3))):
        verdict = pipeline.process(frame, "field")
        assert isinstance(verdict, FrameVerdict)
        json.dumps(dataclasses.asdict(verdict), allow_nan=False)


def test_memory_does_not_grow_with_the_number_of_fields(microscope: Microscope) -> None:
    pipeline = FramePipeline(SHAPE, 0.03324, max_fields=2)
    pipeline.set_flat(microscope.flat)
    frame = microscope.expose()
    for i in range(5):
        pipeline.process(frame + np.uint16(i), f"spot {i}")
    assert len(pipeline._fields) == 2


def test_reset_makes_the_next_frame_the_first(microscope: Microscope, pipeline: FramePipeline) -> None:
    pipeline.process(microscope.expose(), "field")
    pipeline.reset("field")
    assert pipeline.process(microscope.expose((9, 9)), "field").shift_yx_px == (0.0, 0.0)
