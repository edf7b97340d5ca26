"""The coarse search: short ways give what the long ones give."""

from __future__ import annotations

import numpy as np
import pytest
from frames_synthetic import Microscope
from scipy import ndimage

from xbat_live.imaging import coarse, optical_density
from xbat_live.imaging.band import mean_phase_ramp, phase_ramp
from xbat_live.imaging.coarse import Candidate, CoarseImage, CoarseSearch
from xbat_live.imaging.correction import STRIP_PX, bin_sum

SHAPE = (320, 340)


def _lattice(period_px: float, moved_px: float) -> np.ndarray:
    y, x = np.arange(SHAPE[0])[:, None] - moved_px, np.arange(SHAPE[1])[None, :]
    return (0.4 + 0.3 * np.cos(2 * np.pi * y / period_px) * np.cos(2 * np.pi * x / period_px)).astype(np.float32)


def _scene(shift_yx_px: tuple[float, float], seed: int = 3) -> np.ndarray:
    microscope = Microscope(SHAPE, seed=seed, photons=1000.0, margin_px=200)
    return optical_density(microscope.expose(shift_yx_px), microscope.flat, microscope.dark)


def _noise() -> np.ndarray:
    return np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


# Two images, and whether one place only is looked at; None: it may be either.
PAIRS = {
    "the same field": (lambda: (_scene((0, 0)), _scene((3.0, -5.0))), True),
    "far": (lambda: (_scene((0, 0)), _scene((90.0, -70.0))), None),
    "half a field": (lambda: (_scene((0, 0)), _scene((160.0, 0.0))), None),
    "another sample": (lambda: (_scene((0, 0)), _scene((0, 0), seed=8)), False),
    "a lattice, where many shifts fit": (lambda: (_lattice(40, 0), _lattice(40, 6)), False),
    "noise only": (lambda: (_scene((0, 0)), _noise()), False),
}


def _candidates(pair: tuple[np.ndarray, np.ndarray]) -> list[Candidate]:
    search = CoarseSearch(SHAPE)
    weight = np.ones(SHAPE, np.float32)
    reference, moved = (search.prepare(od, weight) for od in pair)
    return search.candidates(reference, moved)


@pytest.mark.parametrize("name", PAIRS)
def test_a_peak_that_stands_alone_is_the_one_that_a_search_of_all_would_find(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, alone = PAIRS[name]
    pair = make()
    quick = _candidates(pair)
    monkeypatch.setattr(coarse, "_stands_alone", lambda *_: False)
    thorough = _candidates(pair)
    assert [c.shift_yx for c in quick] == [c.shift_yx for c in thorough]
    assert [c.correlation for c in quick] == pytest.approx([c.correlation for c in thorough])
    if alone is not None:
        assert (len(quick) == 1) == alone


@pytest.mark.parametrize(
    ("other_yx", "height", "alone"),
    [
        ((40, 40), 0.3, False),  # a rival far away
        ((40, 40), 0.1, True),  # below the limit
        ((17, 20), 0.3, False),  # a maximum of its own on the slope
        ((21, 22), 0.9, True),  # the peak's own neighbour: its maximum lies between pixels
    ],
)
def test_what_stands_beside_a_peak(other_yx: tuple[int, int], height: float, alone: bool) -> None:
    surface = np.zeros((60, 60), np.float32)
    surface[20, 21] = 1.0
    surface[other_yx] = height
    assert coarse._stands_alone(surface, 20, 21, 0.2) is alone


def test_the_slope_of_a_wide_peak_is_no_rival_and_a_peak_at_the_border_is_not_trusted() -> None:
    y, x = np.ogrid[:60, :60]
    wide = np.exp(-((y - 20) ** 2 + (x - 21) ** 2) / (2 * 2.0**2)).astype(np.float32)
    assert wide[20, 24] > 0.2
    assert coarse._stands_alone(wide, 20, 21, 0.2)
    assert not coarse._stands_alone(np.roll(wide, -18, 0), 2, 21, 0.2)


def test_what_is_searched_is_free_of_its_local_mean() -> None:
    search = CoarseSearch(SHAPE)
    od = _scene((0, 0))
    made: CoarseImage = search.prepare(od, np.ones(SHAPE, np.float32))
    small = bin_sum(od, search.factor) / search.factor**2
    expected = small - ndimage.uniform_filter(small, min(search.shape) // 4)
    assert np.allclose(made.image, expected - expected.mean(), atol=2e-6)
    padded = np.fft.rfft2(made.image * search._taper, search._padded)
    assert np.allclose(made.spectrum, padded, atol=1e-4 * np.abs(padded).max())


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("highest", [20_000, 65_535])
def test_binning_in_strips_loses_no_row(factor: int, highest: int) -> None:
    rows = 3 * STRIP_PX // 512 // factor * factor + 3 * factor
    frame = np.random.default_rng(1).integers(0, highest, (rows, 512), dtype=np.uint16, endpoint=True)
    expected = frame.reshape(rows // factor, factor, 512 // factor, factor).sum((1, 3), dtype=np.int64)
    assert (bin_sum(frame, factor) == expected).all()


def test_the_mean_phase_of_several_places_is_the_mean_of_their_phases() -> None:
    fy, fx = np.fft.fftfreq(32).astype(np.float32), np.fft.rfftfreq(30).astype(np.float32)
    places = [np.zeros(2), np.array([3.3, -120.7]), np.array([-0.5, 14.0])]
    expected = np.mean([phase_ramp(fy, fx, place) for place in places], axis=0)
    assert np.allclose(mean_phase_ramp(fy, fx, places), expected, atol=1e-6)
