"""Deformation between two frames: rigid part taken off, flow, regions, compass, differential map, representative box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from xbat_live.imaging import (
    BoxConvergence,
    FlowClusters,
    FlowStatistics,
    box_convergence,
    cluster_flow,
    difference_map,
    flow_statistics,
    mean_displacement,
    optical_flow,
)

Float = NDArray[np.float64]
Image = NDArray[np.float32]

LEAST_OVERLAP_PX = 64
MASK_SIGMA_PX = 2.0
LEAST_MASK = 0.05
NEEDLES = 400
ABOVE_NOISE = 1.5


@dataclass(frozen=True)
class Compass:
    """Needles of the compass plot: the flow at places of a regular grid on the particles.

    Attributes
    ----------
    place_yx_px
        Where, in the cut of the pair, shape (n, 2), px.
    amplitude_px, direction_deg
        Length and direction (from +column towards +row), shape (n,).
    cluster
        Region each belongs to, shape (n,).
    """

    place_yx_px: NDArray[np.int64]
    amplitude_px: Float
    direction_deg: Float
    cluster: NDArray[np.int16]


@dataclass(frozen=True)
class PairFlow:
    """Motion within the electrode between two frames of one field of view.

    Images and flow cover the cut both frames have in common, in the pixels of the first of them.

    Attributes
    ----------
    frames
        Numbers of the two, counted from 1 over the accepted frames of the field.
    seq_num
        Their ``seq_num`` in ``primary``.
    elapsed_s
        Time between them, s.
    origin_yx_px
        Where the cut begins, counted in pixels of the field's first accepted frame: the same for the same place of the sample.
    pixel_size_um
        um per px.
    rigid_shift_yx_px, sigma_rigid_yx_px
        Shift of the second frame's content as a whole and its standard error, px; it is not in `flow`.
    strain
        Mean gradient of the flow, [[dy/dy, dy/dx], [dx/dy, dx/dx]].
    reference_od, moving_od
        Optical density of the first frame, and of the second moved back by whole pixels, shape (ny, nx), float32.
    mask
        Particles: where the smoothed optical density of the first frame is above Otsu's threshold, shape (ny, nx).
    flow
        Displacement left after the rigid shift, (dy, dx), shape (2, ny, nx), float32, px.
    difference
        Second minus first frame after the rigid shift, shape (ny, nx), float32; positive where material appeared.
    statistics, clusters, convergence, compass
        Of `flow` on `mask`.
    floor_rms_px
        Root mean square of the flow from the first frame to the next one in time: what noise (and the motion of one interval) alone
        makes; None when the pair is that pair.
    reflection
        Particles are bright; the densities are -log of the reflectance.
    """

    frames: tuple[int, int]
    seq_num: tuple[int, int]
    elapsed_s: float
    origin_yx_px: tuple[float, float]
    pixel_size_um: float
    rigid_shift_yx_px: tuple[float, float]
    sigma_rigid_yx_px: tuple[float, float]
    strain: tuple[tuple[float, float], tuple[float, float]]
    reference_od: Image
    moving_od: Image
    mask: NDArray[np.bool_]
    flow: NDArray[np.float32]
    difference: Image
    statistics: FlowStatistics
    clusters: FlowClusters
    convergence: BoxConvergence
    compass: Compass
    floor_rms_px: float | None
    reflection: bool = False

    @property
    def name(self) -> str:
        """``"3-13"``."""
        return f"{self.frames[0]}-{self.frames[1]}"

    @property
    def above_noise(self) -> bool | None:
        """Whether the flow is clearly stronger than that between neighbours in time; None when there are none to compare with."""
        return None if self.floor_rms_px is None else self.statistics.rms_px > ABOVE_NOISE * self.floor_rms_px

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain data, units in the names; None where there is none."""
        statistics, clusters, pixel_um = self.statistics, self.clusters, self.pixel_size_um
        floor_um = None if self.floor_rms_px is None else self.floor_rms_px * pixel_um
        return {
            "frames": list(self.frames),
            "seq_num": list(self.seq_num),
            "elapsed_min": self.elapsed_s / 60,
            "rigid_shift_y_px": self.rigid_shift_yx_px[0],
            "rigid_shift_x_px": self.rigid_shift_yx_px[1],
            "strain_yy": self.strain[0][0],
            "strain_xx": self.strain[1][1],
            "particle_fraction": float(self.mask.mean()),
            "mean_amplitude_um": statistics.mean_amplitude_um,
            "rms_amplitude_um": statistics.rms_um,
            "noise_floor_rms_um": floor_um,
            "above_noise": self.above_noise,
            "mean_direction_deg": _number(statistics.mean_direction_deg),
            "direction_spread_deg": _number(statistics.direction_spread_deg),
            "clusters": [
                {
                    "fraction": float(fraction),
                    "y_um": float(centre[0]) * pixel_um,
                    "x_um": float(centre[1]) * pixel_um,
                    "spread_um": float(spread) * pixel_um,
                }
                for fraction, centre, spread in zip(
                    clusters.fraction, clusters.centres_yx_px, clusters.spread_px, strict=True
                )
            ],
            "representative_box_um": self.convergence.representative_um,
        }


def flow_between(
    reference_od: ArrayLike,
    moving_od: ArrayLike,
    *,
    shift_yx_px: ArrayLike,
    pixel_size_um: float,
    frames: tuple[int, int] = (1, 2),
    seq_num: tuple[int, int] = (1, 2),
    elapsed_s: float = 0.0,
    reference_shift_yx_px: ArrayLike = (0.0, 0.0),
    k: int = 5,
    n_regions: int = 10,
    smoothness: float = 1.0,
    floor_rms_px: float | None = None,
    reflection: bool = False,
) -> PairFlow:
    """Return how the electrode deformed from one frame to the other.

    The second frame is moved back by the registered shift in whole pixels (nothing is interpolated), the flow of what both have in common
    is found, and its mean displacement, all areas counting alike, is taken off as the rest of the rigid shift.

    Parameters
    ----------
    reference_od, moving_od
        Optical density, shape (ny, nx).
    shift_yx_px
        Registered shift of the second frame's content against the first, (dy, dx) px.
    pixel_size_um
        um per px.
    frames, seq_num, elapsed_s, floor_rms_px
        For the record; see `PairFlow`.
    reference_shift_yx_px
        Shift of the first of the two against the field's first accepted frame, px.
    k
        Regions.
    n_regions
        Random boxes of the convergence.
    smoothness
        Factor on the smoothness of the flow, see `optical_flow`.
    reflection
        Particles are bright (low density), as in the reflection microscope.

    Raises
    ------
    ValueError
        Shapes that differ, or too little in common.
    """
    reference, moving, whole, origin = overlap(reference_od, moving_od, shift_yx_px)
    total = optical_flow(reference, moving, search_shift=False, smoothness=smoothness)
    mask = particle_mask(reference, reflection=reflection)
    rigid = mean_displacement(total)
    rest = np.asarray(rigid.shift_yx_px, np.float32)
    flow = total - rest[:, None, None]
    clusters = cluster_flow(flow, k, mask=mask)
    begin = np.asarray(origin) - np.asarray(reference_shift_yx_px, float)
    return PairFlow(
        frames=frames,
        seq_num=seq_num,
        elapsed_s=elapsed_s,
        origin_yx_px=(float(begin[0]), float(begin[1])),
        pixel_size_um=pixel_size_um,
        rigid_shift_yx_px=(float(whole[0] + rest[0]), float(whole[1] + rest[1])),
        sigma_rigid_yx_px=rigid.sigma_yx_px,
        strain=rigid.strain,
        reference_od=reference,
        moving_od=moving,
        mask=mask,
        flow=flow,
        difference=difference_map(reference, moving, shift_yx_px=rest),
        statistics=flow_statistics(flow, mask=mask, pixel_size_um=pixel_size_um),
        clusters=clusters,
        convergence=box_convergence(flow, n_regions=n_regions, mask=mask, pixel_size_um=pixel_size_um),
        compass=_compass(flow, mask, clusters),
        floor_rms_px=floor_rms_px,
        reflection=reflection,
    )


def noise_floor_px(
    reference_od: ArrayLike,
    next_od: ArrayLike,
    shift_yx_px: ArrayLike,
    *,
    smoothness: float = 1.0,
    reflection: bool = False,
) -> float:
    """Return the root mean square amplitude, px, of the flow on particles between neighbours in time, rigid shift taken off.

    Densities have the shape (ny, nx), the registered shift (2,) in px; for the rest and the errors see `flow_between`.
    """
    reference, moving, _, _ = overlap(reference_od, next_od, shift_yx_px)
    total = optical_flow(reference, moving, search_shift=False, smoothness=smoothness)
    rest = np.asarray(mean_displacement(total).shift_yx_px, np.float32)
    mask = particle_mask(reference, reflection=reflection)
    return flow_statistics(total - rest[:, None, None], mask=mask).rms_px


def overlap(
    reference: ArrayLike, moving: ArrayLike, shift_yx_px: ArrayLike
) -> tuple[Image, Image, tuple[int, int], tuple[int, int]]:
    """Cut two frames to what both show, the second moved back by whole pixels.

    Returns
    -------
    reference, moving
        Cuts, one shape, float32.
    whole_yx_px
        Whole pixels the second was moved back by.
    origin_yx_px
        First row and column of the cut in the first frame.

    Raises
    ------
    ValueError
        Shapes that differ, or less than 64 px in common along an axis.
    """
    first, second = np.asarray(reference, np.float32), np.asarray(moving, np.float32)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"flow: frames of shape {first.shape} and {second.shape} px, expected two of one shape")
    ny, nx = first.shape
    dy, dx = (int(np.rint(value)) for value in np.asarray(shift_yx_px, float))
    if min(ny - abs(dy), nx - abs(dx)) < LEAST_OVERLAP_PX:
        raise ValueError(
            f"flow: frames of {ny} x {nx} px, shifted by ({dy}, {dx}) px, have less than {LEAST_OVERLAP_PX} px in common; "
            "choose frames nearer in time"
        )
    top, left = max(0, -dy), max(0, -dx)
    height, width = ny - abs(dy), nx - abs(dx)
    cut = first[top : top + height, left : left + width]
    back = second[top + dy : top + dy + height, left + dx : left + dx + width]
    return np.ascontiguousarray(cut), np.ascontiguousarray(back), (dy, dx), (top, left)


def particle_mask(od: Image, *, reflection: bool = False) -> NDArray[np.bool_]:
    """Return where particles are: the smoothed density, shape (ny, nx), above Otsu's threshold (Otsu 1979), below it with `reflection`.

    Everywhere when that would be under 5 % of the frame.
    """
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(-od if reflection else od, MASK_SIGMA_PX)
    mask: NDArray[np.bool_] = smooth > threshold_otsu(smooth)
    return mask if mask.mean() >= LEAST_MASK else np.ones_like(mask)


def _compass(flow: NDArray[np.float32], mask: NDArray[np.bool_], clusters: FlowClusters) -> Compass:
    """Take needles from a square grid, about 400 of them."""
    step = max(1, int(np.sqrt(mask.sum() / NEEDLES)))
    grid = np.zeros_like(mask)
    grid[step // 2 :: step, step // 2 :: step] = True
    place = np.argwhere(grid & mask)
    if len(place) == 0:
        place = np.argwhere(mask)[:1]
    rows, columns = place.T
    dy, dx = flow[:, rows, columns].astype(float)
    return Compass(place, np.hypot(dy, dx), np.rad2deg(np.arctan2(dy, dx)), clusters.labels[rows, columns])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
