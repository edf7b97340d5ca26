"""One keyframe: a sharp, registered frame that others are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbat_live.imaging.band import mean_phase_ramp
from xbat_live.imaging.coarse import CoarseImage
from xbat_live.imaging.level import Crop, PairShift
from xbat_live.imaging.spectrum import Float, Float2D

MOST_BASELINE = 0.7
"""Unbinned px squared; a line of 2.9 px."""
MOST_AVERAGED = 8
MOST_CALIBRATED = 40


class Keyframe:
    """A sharp, registered frame that others are compared with.

    Attributes
    ----------
    od, weight
        Binned optical density and the weight (lit area), float32.
    position_yx
        Content shift of this frame against the first one, binned px.
    covariance
        Of `position_yx`, binned px squared, without the noise of this frame itself where that cancels (see `KeyframeChain`).
    identifier
        Counts up from 0.
    coarse
        Its image for the search.
    central
        Transform of the central crop; both see `ShiftEngine.prepare`.
    own_covariance
        What the noise of this frame adds to all that is measured against it, binned px squared; None: not known yet, or in `covariance`.
    """

    def __init__(self, identifier: int, od: Float2D, weight: Float2D, position_yx: Float, covariance: Float) -> None:
        self.identifier = identifier
        self.od = od
        self.weight = weight
        self.position_yx = position_yx
        self.covariance = covariance
        self.coarse: CoarseImage | None = None
        self.central: Crop | None = None
        self.own_covariance: Float | None = None
        self._kernel_sum: Float = np.zeros(3)
        self._kernel_count = 0
        self._waiting: list[PairShift] = []

    @property
    def kernel_baseline(self) -> Float:
        """Mean blur kernel (s_xx, s_xy, s_yy; px squared) of sharp frames against this one: what its own noise feigns.

        Shrunk towards zero and limited, so that a slow loss of focus is not taken for granted.
        """
        return np.clip(self._kernel_sum / (self._kernel_count + 3.0), -MOST_BASELINE, MOST_BASELINE)

    def calibrate(self, kernel: Float) -> None:
        """Take in the kernel fitted to an accepted frame."""
        if self._kernel_count >= MOST_CALIBRATED:
            self._kernel_sum *= 1 - 1 / MOST_CALIBRATED
            self._kernel_count -= 1
        self._kernel_sum = self._kernel_sum + kernel
        self._kernel_count += 1

    def covariance_of(self, pair: PairShift) -> Float:
        """Return the covariance of the position of a frame, its own noise left out, binned px squared."""
        if self.identifier > 0:
            return self.covariance + pair.covariance - pair.frame_covariance
        own = pair.covariance / 2 if self.own_covariance is None else self.own_covariance
        return self.covariance + own

    def absorb(self, pair: PairShift) -> None:
        """Average a sharp frame of the same material into the cached spectrum.

        Up to `MOST_AVERAGED` frames: less noise for registration and blur; then frozen, so that the template cannot walk away. They are
        taken in when they double the number, one, two and four at a time: the first ones matter most, and each time costs a fifth of a
        registration.
        """
        central = self.central
        if central is None or pair.reference is not central.polar or central.averaged >= MOST_AVERAGED:
            return
        self._waiting.append(pair)
        if len(self._waiting) < central.averaged:
            return
        taken, self._waiting = self._waiting, []
        if central.averaged == 1:
            # The frames averaged in are all aligned on the noise of the first: their mean lies off by that, half of this pair's error.
            self.own_covariance = pair.covariance / 2
        window, before, now = pair.window, central.averaged, central.averaged + len(taken)
        spectrum = central.spectrum * np.float32(before)
        for one in taken:
            spectrum += one.turned_spectrum()
        spectrum *= np.float32(1 / now)
        # Aligned on the sample, noise of the flat moves from frame to frame: it averages out at high frequencies first.
        central.places.extend(one.shift_yx for one in taken)
        static_phase = mean_phase_ramp(window.fy, window.fx, central.places)
        central.lag_yx = (before * central.lag_yx + sum(one.lag_yx for one in taken)) / now
        central.averaged = now
        polar = window.polar(spectrum)
        kept = static_phase.real**2
        kept += static_phase.imag**2
        static = pair.static_power * (window.polar_mean(kept) - window.noise_mean(kept))
        floor = np.maximum(polar.noise + static, polar.noise)
        central.replace_spectrum(spectrum, replace(polar, floor=floor), static_phase)
