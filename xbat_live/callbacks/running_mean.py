"""Flats and darks averaged as they come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIGHT_CHANGE = 0.2


class RunningMean:
    """Mean of frames that forgets: each weighs like one of the last `most`. Its memory is one frame, however many come.

    Attributes
    ----------
    count
        Frames taken in.
    mean
        Their mean, shape (ny, nx) float32, counts; empty before the first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.mean: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def add(self, frame: NDArray[np.uint16]) -> None:
        """Take in one frame; one of another shape starts anew."""
        if frame.shape != self.mean.shape:
            self.count, self.mean = 0, np.zeros(frame.shape, np.float32)
        self.count += 1
        mean = frame - self.mean  # a new array: what was handed out as mean stays what it was
        mean *= np.float32(1 / min(self.count, self.most))
        mean += self.mean
        self.mean = mean


def same_light(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return True when exposure and I0 differ by less than `LIGHT_CHANGE`: what a ring does between two injections."""
    return all(abs(a - b) <= LIGHT_CHANGE * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))
