"""Where the sample was against the stage over a run: displacement, split into drift and jitter, with histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.motion import separate_drift

Float = NDArray[np.float64]

LEAST_FRAMES = 4
MOST_BINS = 40


@dataclass(frozen=True)
class Histogram:
    """Counts of values of one axis.

    Attributes
    ----------
    edges_um
        Bin edges, shape (m + 1,), um.
    counts
        Frames in each bin, shape (m,).
    """

    edges_um: Float
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class MotionPath:
    """Motion of the sample against the stage as one field of view saw it; arrays are (n, 2), (y, x).

    Attributes
    ----------
    time_s
        Since the first frame, shape (n,), s.
    image_shift_yx_px, sigma_yx_px
        Content shift against the first frame and its standard uncertainty, unbinned px.
    stage_yx_um
        Stage reading, um.
    displacement_yx_um
        Displacement of the sample against the stage since the first frame, um: image shift plus what the stage moved.
    drift_yx_um, sigma_drift_yx_um
        Slow part of it and its standard uncertainty, um. Not 0 at the first frame, which has jitter of its own.
    jitter_yx_um
        Displacement minus slow part, um.
    rate_yx_um_per_min
        Rate of the slow part, um/min.
    net_drift_yx_um, mean_rate_yx_um_per_min
        Slow part from first to last frame, um, and over the time between, um/min.
    jitter_rms_yx_um
        Standard deviation of `jitter_yx_um`, um.
    jitter_sigma_yx_um
        Estimated standard deviation of the jitter, corrected for what the slow part took up of it, um.
    displacement_histogram_yx, jitter_histogram_yx
        One per axis.
    """

    time_s: Float
    image_shift_yx_px: Float
    sigma_yx_px: Float
    stage_yx_um: Float
    displacement_yx_um: Float
    drift_yx_um: Float
    sigma_drift_yx_um: Float
    jitter_yx_um: Float
    rate_yx_um_per_min: Float
    net_drift_yx_um: tuple[float, float]
    mean_rate_yx_um_per_min: tuple[float, float]
    jitter_rms_yx_um: tuple[float, float]
    jitter_sigma_yx_um: tuple[float, float]
    displacement_histogram_yx: tuple[Histogram, Histogram]
    jitter_histogram_yx: tuple[Histogram, Histogram]

    @property
    def duration_min(self) -> float:
        """Time from first to last frame, min."""
        return float(self.time_s[-1] / 60)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain data, units in the names."""
        moved = np.ptp(self.displacement_yx_um, axis=0)
        return {
            "frames": len(self.time_s),
            "duration_min": self.duration_min,
            "net_drift_y_um": self.net_drift_yx_um[0],
            "net_drift_x_um": self.net_drift_yx_um[1],
            "sigma_net_drift_y_um": float(np.hypot(*self.sigma_drift_yx_um[[0, -1], 0])),
            "sigma_net_drift_x_um": float(np.hypot(*self.sigma_drift_yx_um[[0, -1], 1])),
            "drift_rate_y_um_per_min": self.mean_rate_yx_um_per_min[0],
            "drift_rate_x_um_per_min": self.mean_rate_yx_um_per_min[1],
            "jitter_sigma_y_um": self.jitter_sigma_yx_um[0],
            "jitter_sigma_x_um": self.jitter_sigma_yx_um[1],
            "jitter_rms_y_um": self.jitter_rms_yx_um[0],
            "jitter_rms_x_um": self.jitter_rms_yx_um[1],
            "displacement_range_y_um": float(moved[0]),
            "displacement_range_x_um": float(moved[1]),
        }


def motion_path(
    time_s: ArrayLike,
    shift_yx_px: ArrayLike,
    stage_yx_um: ArrayLike,
    *,
    pixel_size_um: float,
    sigma_yx_px: ArrayLike | None = None,
    image_to_stage: ArrayLike | None = None,
) -> MotionPath:
    """Split the motion of one field of view into drift and jitter.

    A feature is seen at ``(s0 - p + d) / pixel``, with the stage at p and the sample displaced by d against it; hence the displacement
    since the first frame is ``shift * pixel + (p - p0)``, also where the stage followed the drift. `separate_drift` splits it.

    Parameters
    ----------
    time_s
        Times of the frames, shape (n,), s, ascending; n of at least 4.
    shift_yx_px, sigma_yx_px
        Content shift against the first frame and its standard uncertainty, shape (n, 2), px.
    stage_yx_um
        Stage reading, shape (n, 2), um.
    pixel_size_um
        um per px.
    image_to_stage
        2x2 matrix from image (y, x) to stage (y, x) axes; by default they agree.

    Raises
    ------
    ValueError
        Fewer than four frames, wrong shapes, values that are not finite, or times that do not ascend.
    """
    times, shift_px, stage = np.asarray(time_s, float), np.asarray(shift_yx_px, float), np.asarray(stage_yx_um, float)
    n = len(times)
    if n < LEAST_FRAMES:
        raise ValueError(f"drift and jitter: {n} frames, at least {LEAST_FRAMES} are needed to tell them apart")
    if shift_px.shape != (n, 2) or stage.shape != (n, 2):
        raise ValueError(f"drift and jitter: shifts {shift_px.shape} and stage {stage.shape}, expected ({n}, 2) each")
    sigma_px = np.zeros_like(shift_px) if sigma_yx_px is None else np.asarray(sigma_yx_px, float)
    matrix = np.eye(2) if image_to_stage is None else np.asarray(image_to_stage, float)
    shift_px = shift_px - shift_px[0]
    displacement = shift_px @ matrix.T * pixel_size_um + (stage - stage[0])
    elapsed_s = times - times[0]
    parts = separate_drift(elapsed_s, displacement, sigma_px * pixel_size_um)
    drift = parts.drift_yx_um
    net = drift[-1] - drift[0]
    rate = net / (elapsed_s[-1] / 60)
    rms = parts.jitter_yx_um.std(0)
    return MotionPath(
        time_s=elapsed_s,
        image_shift_yx_px=shift_px,
        sigma_yx_px=sigma_px,
        stage_yx_um=stage,
        displacement_yx_um=displacement,
        drift_yx_um=drift,
        sigma_drift_yx_um=parts.sigma_drift_yx_um,
        jitter_yx_um=parts.jitter_yx_um,
        rate_yx_um_per_min=parts.rate_um_per_min_yx,
        net_drift_yx_um=(float(net[0]), float(net[1])),
        mean_rate_yx_um_per_min=(float(rate[0]), float(rate[1])),
        jitter_rms_yx_um=(float(rms[0]), float(rms[1])),
        jitter_sigma_yx_um=parts.jitter_sigma_yx_um,
        displacement_histogram_yx=(_histogram(displacement[:, 0]), _histogram(displacement[:, 1])),
        jitter_histogram_yx=(_histogram(parts.jitter_yx_um[:, 0]), _histogram(parts.jitter_yx_um[:, 1])),
    )


def _histogram(values_um: Float) -> Histogram:
    """Bins by Freedman and Diaconis, but at least the root of the number of frames and at most 40."""
    low, high = float(values_um.min()), float(values_um.max())
    width = 2 * float(np.subtract(*np.percentile(values_um, [75, 25]))) / len(values_um) ** (1 / 3)
    least = int(np.ceil(np.sqrt(len(values_um))))
    n = int(np.clip(np.ceil((high - low) / width), least, MOST_BINS)) if width > 0 else least
    counts, edges = np.histogram(values_um, bins=n, range=(low, high) if high > low else (low - 1e-3, high + 1e-3))
    return Histogram(edges, counts.astype(np.int64))
