"""The blur limit, learnt from the sharp frames of the present conditions."""

from __future__ import annotations

import numpy as np

from xbat_live.imaging.blur import BlurHypotheses, KernelFit

FALSE_ALARM_SIGMA = 5.0
"""Spreads of the kernel of sharp frames between them and the limit: one needless retake in some thousand frames, tails included."""
PRIOR_FRAMES = 4.0
"""Weight of the limit assumed beforehand, in frames."""
MEMORY_FRAMES = 60.0
STEP_PX = 0.25


class BlurCalibration:
    """Learns how much the fitted kernel of sharp frames scatters and puts the blur limit where that scatter ends.

    A line of length L has the variance L**2 / 12. Kernels of accepted frames against their keyframe scatter by ``s`` around zero (noise,
    flat and sample change together: whatever the noise model misses is in it), so ``limit**2 / 12 = 5 s``. The limit assumed beforehand
    counts like four frames. The limit never falls below one binned pixel, which is what the spectra resolve, and never rises above the
    one assumed by more than half: blurred frames that slip through cannot talk it up.

    Parameters
    ----------
    assumed_limit_px
        Limit until frames were seen, unbinned px.
    resolution_px
        Least limit, unbinned px.
    """

    def __init__(self, assumed_limit_px: float, resolution_px: float) -> None:
        self.assumed_limit_px = assumed_limit_px
        self.least_px = min(resolution_px, assumed_limit_px)
        self.frames = 0
        self._weight = PRIOR_FRAMES
        self._sum = PRIOR_FRAMES * (assumed_limit_px**2 / 12 / FALSE_ALARM_SIGMA) ** 2
        self._hypotheses = BlurHypotheses(assumed_limit_px)

    @property
    def spread_px2(self) -> float:
        """Standard deviation of the kernel's largest variance over sharp frames, unbinned px squared."""
        return float(np.sqrt(self._sum / self._weight))

    @property
    def limit_px(self) -> float:
        """Blur extent from which a frame is rejected, unbinned px."""
        learnt = float(np.sqrt(12 * FALSE_ALARM_SIGMA * self.spread_px2))
        return float(np.clip(learnt, self.least_px, 1.5 * self.assumed_limit_px))

    @property
    def hypotheses(self) -> BlurHypotheses:
        """What a kernel may be, at the present limit (in steps of a quarter pixel)."""
        limit_px = self.limit_px
        if abs(limit_px - self._hypotheses.limit_px) > STEP_PX:
            self._hypotheses = BlurHypotheses(limit_px)
        return self._hypotheses

    def accept(self, fit: KernelFit) -> None:
        """Take in the kernel of an accepted frame, relative to what sharp frames show against its keyframe."""
        largest, smallest, _, _ = fit.principal()
        # Winsorised: one odd frame widens the spread by no more than one at three standard deviations.
        excess = min(max(abs(largest), abs(smallest)), 3 * self.spread_px2)
        keep = 1 - 1 / MEMORY_FRAMES if self._weight >= MEMORY_FRAMES else 1.0
        self._weight = keep * self._weight + 1
        self._sum = keep * self._sum + excess**2
        self.frames += 1
