"""Pictures of frames: the grey says what the counts say, the content stands still, a difference is a difference."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from xbat_live.live.feed import Pace
from xbat_live.live.previews import LARGEST_PX, FrameView, Previews, moved, power_spectrum


def scene(shift_yx=(0, 0), shape=(120, 160)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - shift_yx[0], x - shift_yx[1]
    return (3000 - 1500 * np.exp(-((y - 60) ** 2 + (x - 80) ** 2) / 300)).astype(np.uint16)


def view(frame, **more) -> FrameView:
    flat = np.full(frame.shape, 3100, np.float32)
    return FrameView(frame, "0/A", 0.5, flat=flat, dark=np.full(frame.shape, 100, np.float32), **more)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)


def density(header: dict, jpeg: bytes) -> np.ndarray:
    return header["low"] + pixels(jpeg) / 255 * (header["high"] - header["low"])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8, np.int32, np.float32])
def test_grey_follows_the_counts_whatever_their_type(dtype):
    frame = np.linspace(10, 250, 64 * 64).reshape(64, 64).astype(dtype)
    header, jpeg = Previews().render(FrameView(frame, "k", 1.0), "raw")
    assert np.abs(density(header, jpeg) - frame).mean() < 3
    assert header["unit"] == "counts"


def test_aligned_views_stand_still():
    previews = Previews()
    first = density(*previews.render(view(scene()), "aligned"))
    then = density(*previews.render(view(scene((7, -11)), shift_yx_px=(7.0, -11.0), accepted=True), "aligned"))
    inner = np.s_[20:100, 20:140]
    assert np.abs(first - then)[inner].mean() < 0.03
    assert np.ptp(first[inner]) > 0.5
    unmoved = density(*previews.render(view(scene((7, -11))), "aligned"))
    assert np.abs(first - unmoved)[inner].mean() > 0.04  # not the picture of the frame before


def test_a_difference_shows_what_changed_and_nothing_else():
    previews = Previews()
    previews.remember(view(scene(), accepted=True))
    changed = scene((3, 4))
    changed[80:100, 20:40] = 1500
    header, jpeg = previews.render(view(changed, shift_yx_px=(3.0, 4.0)), "difference")
    picture = pixels(jpeg)
    redness = picture[..., 0] - picture[..., 2]
    assert redness[85:92, 22:30].mean() > 100  # absorbs more: red
    assert np.abs(redness[20:70, 40:120]).mean() < 12  # no other change, the shift included
    assert header["low"] == -header["high"]


def test_a_difference_without_a_reference_says_so():
    header, _ = Previews().render(view(scene()), "difference")
    assert "no accepted frame" in header["note"]


def test_only_accepted_frames_become_the_reference():
    previews = Previews()
    previews.remember(view(scene((30, 30))))
    previews.remember(view(scene(), accepted=True))
    header, _ = previews.render(view(scene(), accepted=True), "difference")
    assert header["high"] < 1e-3


def test_large_frames_are_binned_and_the_scale_says_so():
    header, jpeg = Previews().render(FrameView(np.full((2100, 3000), 7, np.uint16), "k", 0.1), "raw")
    assert max(pixels(jpeg).shape) <= LARGEST_PX
    assert header["pixel_um"] == pytest.approx(0.3)
    assert (header["full_ny"], header["full_nx"]) == (2100, 3000)


@pytest.mark.parametrize(
    "frame", [np.zeros((32, 32), np.uint16), np.full((1, 1), 5, np.uint16), np.full((40, 30), np.nan, np.float32)]
)
@pytest.mark.parametrize("what", ["raw", "aligned", "difference", "fft"])
def test_dull_frames_are_pictures_as_well(frame, what):
    assert Previews().render(FrameView(frame, "k", 1.0), what)[1][:2] == b"\xff\xd8"


def previews_of(camera_s: list[float], *, late_s: dict[int, float]) -> list[tuple[float, float]]:
    """When the previews of a camera's frames are begun, and how long after the newest frame; `late_s`: the machine was busy."""
    pace, begun, at_s, number = Pace(0.1), [], 0.0, 0
    while number < len(camera_s):
        at_s = max(at_s, camera_s[number])
        at_s += pace.wait_s(at_s) + late_s.get(len(begun), 0.0)
        newest = max(n for n, came_s in enumerate(camera_s) if came_s <= at_s)
        pace.take(at_s)
        begun.append((at_s, at_s - camera_s[newest]))
        number = newest + 1
    return begun


@pytest.mark.parametrize(
    ("late_s", "why"),
    [
        ({}, "a quiet machine"),
        ({10: 0.06}, "one hiccup: the next frame is not late any more"),
        (dict.fromkeys(range(10, 60, 3), 0.08), "many: they do not add up"),
    ],
)
def test_a_hiccup_does_not_make_all_later_previews_late(late_s, why):
    begun = previews_of([0.1 * n for n in range(80)], late_s=late_s)
    waited = [lag_s for number, (_, lag_s) in enumerate(begun) if number not in late_s]
    assert max(waited) < 1e-6, why


@pytest.mark.parametrize("rate_hz", [10.0, 13.0, 30.0, 200.0])
def test_previews_are_ten_per_second_whatever_the_camera(rate_hz):
    begun = [at_s for at_s, _ in previews_of([n / rate_hz for n in range(int(10 * rate_hz))], late_s={7: 0.3})]
    for start_s in begun:
        assert sum(start_s <= at_s < start_s + 1.0 for at_s in begun) <= 11
    assert len(begun) >= 95


def test_an_unknown_view_is_refused():
    with pytest.raises(ValueError, match="known: raw"):
        Previews().render(view(scene()), "x-ray")


@pytest.mark.parametrize("shift", [(0.2, -0.3), (500.0, 0.0), (float("nan"), 0.0), None])
def test_moving_by_nothing_too_much_or_unknown(shift):
    image = np.ones((5, 6))
    result = moved(image, shift)
    assert result.shape == image.shape
    assert np.isnan(result).all() == (shift == (500.0, 0.0))


def test_the_spectrum_has_a_fringe_where_it_belongs():
    y, _ = np.mgrid[:256, :256]
    spectrum = power_spectrum(1000 + 100 * np.sin(2 * np.pi * y / 16))
    assert np.unravel_index(spectrum.argmax(), spectrum.shape) in [(128 - 16, 128), (128 + 16, 128)]
