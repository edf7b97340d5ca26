"""The mean flat: what the last frames say, in the memory of one."""

import numpy as np
import pytest

from xbat_live.callbacks.running_mean import RunningMean, same_light


def constant(value):
    return np.full((3, 4), value, np.uint16)


@pytest.mark.parametrize(
    ("values", "most", "expected"),
    [
        ([7], 8, 7.0),
        ([1, 2, 3, 4], 8, 2.5),  # fewer than `most`: the plain mean
        ([0] * 50 + [100] * 50, 8, 100.0),  # an old illumination is forgotten
    ],
)
def test_mean(values, most, expected):
    mean = RunningMean(most)
    for value in values:
        mean.add(constant(value))
    assert mean.mean == pytest.approx(np.full((3, 4), expected), abs=0.2)
    assert mean.mean.dtype == np.float32


def test_another_shape_starts_anew():
    mean = RunningMean(8)
    mean.add(constant(5))
    mean.add(np.full((2, 2), 9, np.uint16))
    assert mean.mean.tolist() == [[9.0, 9.0], [9.0, 9.0]]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((0.048, 100.0), (0.048, 100.0), True),
        ((0.048, 100.0), (0.048, 96.0), True),  # a ring between two injections
        ((0.048, 100.0), (0.048, 10.0), False),  # the attenuator went in
        ((0.048, 100.0), (0.3, 100.0), False),  # another exposure
        ((0.0, 0.0), (0.0, 0.0), True),  # nothing known: as ever
    ],
)
def test_flats_are_averaged_while_the_light_stays(one, other, same):
    """(exposure s, I0 nA): a mean over two illuminations is neither."""
    assert same_light(one, other) is same
