"""What a flow says in numbers: amplitudes, directions (compass), and the rigid shift that deformation does not bias.

Directions are angles in the image from +column (x) towards +row (y), -180 < angle <= 180 deg, as those of blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.flow import check_flow

Float = NDArray[np.float64]


@dataclass(frozen=True)
class FlowStatistics:
    """Distribution of a flow's amplitude and direction.

    Attributes
    ----------
    n_px
        Pixels counted.
    mean_yx_px
        Mean vector (dy, dx), px.
    mean_amplitude_px, rms_px
        Mean and root mean square of the amplitude, px.
    percentiles_px
        Percentage to amplitude, px.
    amplitude_edges_px
        Bin edges, shape (n + 1,), px.
    amplitude_density
        Probability per px in each bin, shape (n,); what lies above the last edge is not in it.
    mean_direction_deg
        Circular mean of the directions; NaN when nothing moves.
    direction_spread_deg
        Circular standard deviation ``sqrt(-2 ln R)`` (Mardia); NaN when nothing moves.
    resultant
        R, length of the mean unit vector: 1 all in one direction, 0 none preferred.
    direction_edges_deg
        Bin edges from -180 to 180, shape (m + 1,), deg.
    direction_fraction
        Share of the moving pixels in each bin, shape (m,), sums to 1 (0 when nothing moves).
    direction_amplitude_px
        Mean amplitude in each bin (length of the compass needle), shape (m,), px; 0 where empty.
    pixel_size_um
        um per px, None when not known.
    """

    n_px: int
    mean_yx_px: tuple[float, float]
    mean_amplitude_px: float
    rms_px: float
    percentiles_px: dict[float, float]
    amplitude_edges_px: Float
    amplitude_density: Float
    mean_direction_deg: float
    direction_spread_deg: float
    resultant: float
    direction_edges_deg: Float
    direction_fraction: Float
    direction_amplitude_px: Float
    pixel_size_um: float | None = None

    @property
    def mean_amplitude_um(self) -> float | None:
        """Mean amplitude, um; None without a pixel size."""
        return None if self.pixel_size_um is None else self.mean_amplitude_px * self.pixel_size_um

    @property
    def rms_um(self) -> float | None:
        """Root mean square amplitude, um; None without a pixel size."""
        return None if self.pixel_size_um is None else self.rms_px * self.pixel_size_um

    @property
    def mean_yx_um(self) -> tuple[float, float] | None:
        """Mean vector (dy, dx), um; None without a pixel size."""
        if self.pixel_size_um is None:
            return None
        return self.mean_yx_px[0] * self.pixel_size_um, self.mean_yx_px[1] * self.pixel_size_um


@dataclass(frozen=True)
class MeanDisplacement:
    """Rigid part of a flow.

    Attributes
    ----------
    shift_yx_px
        Displacement of the frame's centre, (dy, dx) px.
    sigma_yx_px
        Standard error from the scatter of tiles about the fit, px.
    strain
        Gradient of the fitted field, [[dy/dy, dy/dx], [dx/dy, dx/dx]], px/px; zeros for ``model="constant"``.
    inlier_fraction
        Share of the weight that the tiles kept.
    n_tiles
        Tiles used.
    """

    shift_yx_px: tuple[float, float]
    sigma_yx_px: tuple[float, float]
    strain: tuple[tuple[float, float], tuple[float, float]]
    inlier_fraction: float
    n_tiles: int


def vectors_of(flow: ArrayLike, mask: ArrayLike | None = None) -> tuple[Float, NDArray[np.bool_]]:
    """Return the counted vectors (n, 2) as float64 px, and where they are, (ny, nx).

    Raises
    ------
    ValueError
        Not a flow, a mask of another shape, or nothing left to count.
    """
    field = check_flow(flow)
    used: NDArray[np.bool_] = np.asarray(np.isfinite(field).all(0))
    if mask is not None:
        chosen = np.asarray(mask)
        if chosen.shape != used.shape:
            raise ValueError(f"flow mask: shape {chosen.shape} px, the flow has {used.shape} px")
        used &= chosen.astype(bool)
    if not used.any():
        raise ValueError("flow mask: no pixel with a finite flow is left; widen the mask")
    return field[:, used].T.astype(np.float64), used


def direction_deg(vectors: Float) -> Float:
    """Return the direction of vectors (..., 2) = (dy, dx), -180 < angle <= 180 deg, from +column towards +row."""
    angle: Float = np.rad2deg(np.arctan2(vectors[..., 0], vectors[..., 1]))
    return np.where(angle <= -180.0, 180.0, angle)


def flow_statistics(
    flow: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    pixel_size_um: float | None = None,
    n_amplitude_bins: int = 50,
    n_direction_bins: int = 36,
    largest_amplitude_px: float | None = None,
    still_px: float = 1e-3,
    percentiles: Sequence[float] = (5, 25, 50, 75, 95),
) -> FlowStatistics:
    """Return amplitude and direction histograms and their means (Sun et al. 2025, Figs 3j, 3k, 4c, 4d, 4g, 4h).

    Parameters
    ----------
    flow
        Shape (2, ny, nx), px; NaN is not counted.
    mask
        Pixels to count (particles, say), shape (ny, nx), bool.
    pixel_size_um
        um per px; gives the results in um as well.
    n_amplitude_bins, n_direction_bins
        Bins of the histograms.
    largest_amplitude_px
        Last edge of the amplitude histogram; the largest amplitude when None. Give it to compare flows.
    still_px
        Vectors no longer than this have no direction, px.
    percentiles
        Of the amplitude, 0 to 100.

    Raises
    ------
    ValueError
        Not a flow, nothing left to count, or bins, pixel size or percentiles out of range.
    """
    if n_amplitude_bins < 1 or n_direction_bins < 1:
        raise ValueError(f"flow statistics: {n_amplitude_bins} and {n_direction_bins} bins, at least 1 each")
    if pixel_size_um is not None and not pixel_size_um > 0:
        raise ValueError(f"flow statistics: pixel size {pixel_size_um} um must be above 0")
    if largest_amplitude_px is not None and not largest_amplitude_px > 0:
        raise ValueError(f"flow statistics: largest amplitude {largest_amplitude_px} px must be above 0")
    if any(not 0 <= p <= 100 for p in percentiles):
        raise ValueError(f"flow statistics: percentiles {tuple(percentiles)} must be within 0 to 100")
    vectors, _ = vectors_of(flow, mask)
    amplitude = np.hypot(vectors[:, 0], vectors[:, 1])
    top = largest_amplitude_px or float(amplitude.max()) or 1.0
    counts, edges = np.histogram(amplitude, bins=n_amplitude_bins, range=(0.0, top))
    moving = amplitude > still_px
    bins = np.linspace(-180.0, 180.0, n_direction_bins + 1)
    angles = direction_deg(vectors[moving])
    seen = np.histogram(angles, bins=bins)[0]
    length = np.histogram(angles, bins=bins, weights=amplitude[moving])[0]
    mean_direction, spread, resultant = float("nan"), float("nan"), 0.0
    if moving.any():
        mean_direction, resultant = circular_mean(vectors[moving] / amplitude[moving, None])
        spread = float(np.rad2deg(np.sqrt(-2 * np.log(max(resultant, 1e-300)))))
    mean = vectors.mean(0)
    values: list[float] = np.percentile(amplitude, list(percentiles)).tolist() if len(percentiles) else []
    return FlowStatistics(
        n_px=len(vectors),
        mean_yx_px=(float(mean[0]), float(mean[1])),
        mean_amplitude_px=float(amplitude.mean()),
        rms_px=float(np.sqrt((amplitude**2).mean())),
        percentiles_px={float(p): float(v) for p, v in zip(percentiles, values, strict=True)},
        amplitude_edges_px=edges,
        amplitude_density=counts / (len(vectors) * np.diff(edges)),
        mean_direction_deg=mean_direction,
        direction_spread_deg=spread,
        resultant=resultant,
        direction_edges_deg=bins,
        direction_fraction=seen / max(int(moving.sum()), 1),
        direction_amplitude_px=length / np.maximum(seen, 1),
        pixel_size_um=pixel_size_um,
    )


def circular_mean(vectors: Float) -> tuple[float, float]:
    """Return the direction (deg) of the mean of vectors (n, 2) = (dy, dx), and the length of that mean (at most 1 for unit vectors)."""
    mean = vectors.mean(0)
    return float(direction_deg(mean)), float(min(np.hypot(mean[0], mean[1]), 1.0))


def mean_displacement(
    flow: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    tile_px: int = 48,
    model: str = "affine",
) -> MeanDisplacement:
    """Return the rigid shift of a frame whose content deforms, all areas counting alike.

    Correlation weighs areas by their structure, so an electrode that breathes shifts its answer towards the strongest particles: by 0.25
    to 0.4 px for 1 % of strain over a field of 300 px. Here tiles of equal area vote, by a fit of shift and gradient from which runaway
    tiles (over 6 sigma) are left out; the shift is that of the frame's centre, so a uniform expansion does not move it, even where part
    of the frame is masked.

    Parameters
    ----------
    flow
        Shape (2, ny, nx), px; NaN is not counted. A flow of ``finest_bin=8`` will do. For tiles measured otherwise, one vector a tile and
        ``tile_px=1``: the gradient is then per tile.
    mask
        Pixels to count, shape (ny, nx), bool.
    tile_px
        Side of a tile, px; at most half the shorter side is used.
    model
        ``affine`` (shift and gradient) or ``constant``.

    Raises
    ------
    ValueError
        Not a flow, nothing left to count, `tile_px` under 1, or another `model`.
    """
    if tile_px < 1:
        raise ValueError(f"mean displacement: tile_px {tile_px} px must be at least 1")
    if model not in ("affine", "constant"):
        raise ValueError(f"mean displacement: model {model!r}, expected 'affine' or 'constant'")
    vectors, used = vectors_of(flow, mask)
    ny, nx = used.shape
    side = max(1, min(tile_px, min(ny, nx) // 2))
    rows, columns = np.nonzero(used)
    across = -(-nx // side)
    tile = rows // side * across + columns // side
    counts = np.bincount(tile)
    kept = counts >= 0.25 * side**2
    if not kept.any():
        kept = counts > 0
    area = counts[kept].astype(float)

    def mean_of(values: Float) -> Float:
        result: Float = np.bincount(tile, weights=values, minlength=counts.size)[kept] / area
        return result

    seen = np.stack([mean_of(v) for v in vectors.T], 1)
    at = np.stack([mean_of(rows - (ny - 1) / 2), mean_of(columns - (nx - 1) / 2)], 1)
    basis = np.concatenate([np.ones((len(seen), 1)), at if model == "affine" and len(seen) >= 6 else at[:, :0]], 1)
    share = np.ones(len(seen))
    fit = np.zeros((basis.shape[1], 2))
    for step in range(12):
        root = np.sqrt(area * share)[:, None]
        new = np.linalg.lstsq(basis * root, seen * root, rcond=None)[0]
        done = step > 0 and bool(np.abs(new - fit)[0].max() < 1e-5)
        fit = new
        distance = np.hypot(*(seen - basis @ fit).T)
        # Deformation is no outlier: full vote up to 4 sigma, none from 6. The median length of a vector in two axes is 1.177 sigma.
        sigma = max(float(np.median(distance)) / 1.177, 1e-6)
        share = np.clip((6 - distance / sigma) / 2, 0, 1)
        if done or share.sum() < basis.shape[1]:
            break
    weight = area * share / max(float((area * share).sum()), 1e-12)
    error = np.sqrt((weight[:, None] ** 2 * (seen - basis @ fit) ** 2).sum(0))
    strain = fit[1:3].T if len(fit) == 3 else np.zeros((2, 2))
    return MeanDisplacement(
        (float(fit[0, 0]), float(fit[0, 1])),
        (float(error[0]), float(error[1])),
        ((float(strain[0, 0]), float(strain[0, 1])), (float(strain[1, 0]), float(strain[1, 1]))),
        float((area * share).sum() / area.sum()),
        len(seen),
    )
