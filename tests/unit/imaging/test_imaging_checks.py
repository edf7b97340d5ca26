"""Bad frames: each is named, none raises, none becomes the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from frames_synthetic import Microscope

from xbat_live.imaging import FramePipeline, check_frame

SHAPE = (327, 339)


@pytest.fixture(scope="module")
def microscope() -> Microscope:
    return Microscope(SHAPE, seed=3, photons=2000)


def _with(change: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], np.ndarray]:
    def changed(frame: np.ndarray) -> np.ndarray:
        copy = frame.copy()
        change(copy)
        return copy

    return changed


def _nan(frame: np.ndarray) -> np.ndarray:
    bad = frame.astype(float)
    bad[5, 7] = np.nan
    return bad


BAD = [
    ("wrong shape", lambda f: f[:-2], "region changed behind the analysis' back"),
    ("wrong shape", lambda f: f[None], "a stack of one is not a frame"),
    ("wrong dtype", lambda f: f.astype(complex), "not counts"),
    ("nan", _nan, "one NaN spoils every transform"),
    ("nan", lambda f: np.where(f == f.max(), np.inf, f.astype(float)), "as infinity does"),
    ("saturated", _with(lambda f: f.__setitem__((slice(0, 40), slice(0, 40)), 65535)), "more than 0.1 % at full scale"),
    ("shutter closed", lambda f: np.full_like(f, 101), "only dark counts"),
    ("shutter closed", np.zeros_like, "a camera that reads nothing"),
    ("underexposed", lambda f: (100 + 0.03 * (f - 100.0)).astype(np.uint16), "beam almost gone"),
    ("dead rows", _with(lambda f: f.__setitem__(slice(100, 110), 100)), "rows without light"),
    ("dead rows", _with(lambda f: f.__setitem__(slice(200, None), 0)), "transfer cut short"),
    ("dead rows", _with(lambda f: f.__setitem__(slice(50, 54), 9000)), "rows stuck at one value"),
]


@pytest.mark.parametrize(("kind", "spoil", "why"), BAD, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(BAD)])
def test_bad_frames_are_named(
    microscope: Microscope, kind: str, spoil: Callable[[np.ndarray], np.ndarray], why: str
) -> None:
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    pipeline.set_flat(microscope.flat)
    bad = spoil(microscope.expose())
    as_first = pipeline.process(bad, "field")
    assert (as_first.kind, as_first.accepted) == (kind, False), why
    assert pipeline.process(microscope.expose(), "field").shift_yx_px == (0.0, 0.0)
    as_later = pipeline.process(bad, "field")
    assert (as_later.kind, as_later.accepted, as_later.located) == (kind, False, False), why
    assert as_later.reason
    assert pipeline.process(microscope.expose((4, 4)), "field").accepted


def test_a_repeated_frame_is_a_duplicate_even_from_a_reused_buffer(microscope: Microscope) -> None:
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_flat(microscope.flat)
    buffer = microscope.expose()
    assert pipeline.process(buffer, "field").accepted
    assert pipeline.process(buffer.copy(), "field").kind == "duplicate"
    buffer[:] = microscope.expose()
    assert pipeline.process(buffer, "field").accepted, "new content in the same memory is a new frame"


def test_a_few_hot_or_saturated_pixels_are_no_reason_to_expose_again(microscope: Microscope) -> None:
    frame = microscope.expose()
    frame[3:6, 100:104] = 65535
    assert check_frame(frame, microscope.dark, microscope.flat).ok


def test_check_frame_alone_agrees(microscope: Microscope) -> None:
    frame = microscope.expose()
    assert check_frame(frame, microscope.dark, microscope.flat).ok
    assert check_frame(frame, microscope.dark, microscope.flat, previous=frame).kind == "duplicate"
    assert check_frame(np.zeros_like(frame), microscope.dark, microscope.flat).kind == "shutter closed"


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (np.ones((4, 4)), "expected \\(327, 339\\) px"),
        (np.full(SHAPE, np.nan), "NaN"),
        (np.full(SHAPE, 100.0), "shutter"),
    ],
)
def test_unusable_flats_are_refused(microscope: Microscope, flat: np.ndarray, message: str) -> None:
    pipeline = FramePipeline(SHAPE, 0.03324)
    pipeline.set_dark(microscope.dark)
    with pytest.raises(ValueError, match=message):
        pipeline.set_flat(flat)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (20, 400), "pixel_size_um": 0.03}, "at least 32"),
        ({"shape": SHAPE, "pixel_size_um": 0.0}, "above 0 um"),
        ({"shape": SHAPE, "pixel_size_um": 0.03, "bin": 0}, "at least 1"),
    ],
)
def test_impossible_geometry_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FramePipeline(**arguments)
