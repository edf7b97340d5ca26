"""Regions of a flow: clusters that move together, and how large a box must be to stand for the whole electrode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.flow_statistics import direction_deg, vectors_of

Float = NDArray[np.float64]

MOST_SAMPLES = 20_000
STARTS = 6
STEPS = 60


@dataclass(frozen=True)
class FlowClusters:
    """Areas of common motion, largest first.

    Attributes
    ----------
    labels
        Cluster of each pixel, shape (ny, nx), int16; -1 where the flow does not count.
    centres_yx_px
        Mean vector of each cluster, shape (k, 2), (dy, dx) px.
    fraction
        Share of the counted pixels, shape (k,), falling, sums to 1.
    spread_px
        Root mean square distance of a cluster's vectors from its mean, shape (k,), px.
    """

    labels: NDArray[np.int16]
    centres_yx_px: Float
    fraction: Float
    spread_px: Float


@dataclass(frozen=True)
class BoxConvergence:
    """How the mean motion of random boxes approaches that of the whole field.

    Attributes
    ----------
    box_sizes_px
        Side of the boxes, shape (n,), px.
    mean_amplitude_px
        Mean amplitude in each box, shape (n, n_regions), px; NaN where nothing in the box counts.
    mean_direction_deg
        Direction of the mean vector in each box, shape (n, n_regions), deg.
    amplitude_deviation_px, direction_deviation_deg
        Root mean square over the regions of the deviation from the whole field, shape (n,), px and deg.
    whole_amplitude_px, whole_direction_deg
        Of the whole field.
    representative_px
        Smallest box size from which on both deviations stay within the tolerances, px; None when no size does.
    representative_um
        The same in um; None without a pixel size.
    """

    box_sizes_px: NDArray[np.int64]
    mean_amplitude_px: Float
    mean_direction_deg: Float
    amplitude_deviation_px: Float
    direction_deviation_deg: Float
    whole_amplitude_px: float
    whole_direction_deg: float
    representative_px: int | None
    representative_um: float | None


def cluster_flow(
    flow: ArrayLike,
    k: int = 5,
    *,
    mask: ArrayLike | None = None,
    position_weight: float = 0.0,
    seed: int = 0,
) -> FlowClusters:
    """Return clusters of common motion by k-means (Sun et al. 2025, Fig. 4f: five).

    The features of a pixel are its vector (dy, dx) in px, and, times `position_weight`, its place (y, x) scaled so that the longer side
    of the frame is as wide as four standard deviations of the flow: 0 clusters motion alone, 1 asks for compact areas as well. k-means++
    starts and Lloyd steps run on at most 20,000 pixels, evenly spaced; all pixels then go to the nearest centre. The same flow and seed
    give the same labels; clusters are numbered by falling area, equal ones by rising direction.

    Parameters
    ----------
    flow
        Shape (2, ny, nx), px; NaN is not counted.
    k
        Clusters, 1 to 1000. Fewer come back when the flow has fewer different vectors.
    mask
        Pixels to count (particles), shape (ny, nx), bool.
    position_weight
        Weight of the place, 0 or more.
    seed
        Of the starts.

    Raises
    ------
    ValueError
        Not a flow, nothing left to count, or `k` or `position_weight` out of range.
    """
    if not 1 <= k <= 1000:
        raise ValueError(f"flow clusters: k = {k}, expected 1 to 1000")
    if not position_weight >= 0:
        raise ValueError(f"flow clusters: position_weight {position_weight} must be 0 or more")
    vectors, used = vectors_of(flow, mask)
    features = vectors - vectors.mean(0)
    if position_weight:
        width = float(np.sqrt((features**2).sum(1).mean()))
        place = np.argwhere(used) * (position_weight * 4 * width / max(used.shape))
        features = np.concatenate([features, place - place.mean(0)], 1)
    sample = features[:: -(-len(features) // MOST_SAMPLES)]
    generator = np.random.default_rng(seed)
    runs = [_k_means(sample, k, generator) for _ in range(STARTS)]
    centres = min(runs, key=lambda run: run[1])[0]
    found = _nearest(features, centres)[0]
    counts = np.bincount(found, minlength=len(centres))
    names = np.flatnonzero(counts)
    means = np.stack(
        [np.bincount(found, weights=v, minlength=len(centres))[names] / counts[names] for v in vectors.T], 1
    )
    order = np.lexsort((direction_deg(means), -counts[names]))
    rank = np.zeros(len(centres), np.int16)
    rank[names[order]] = np.arange(len(names))
    labels = np.full(used.shape, -1, np.int16)
    labels[used] = rank[found]
    means = means[order]
    square = ((vectors - means[labels[used]]) ** 2).sum(1)
    fraction = counts[names][order] / len(vectors)
    spread = np.sqrt(np.bincount(labels[used], weights=square) / counts[names][order])
    return FlowClusters(labels, means, fraction, spread)


def _k_means(sample: Float, k: int, generator: np.random.Generator) -> tuple[Float, float]:
    """Return centres and the sum of squared distances of one k-means++ start followed to rest."""
    centres = sample[[generator.integers(len(sample))]]
    distance = ((sample - centres[0]) ** 2).sum(1)
    while len(centres) < k and distance.sum() > 0:
        chosen = sample[generator.choice(len(sample), p=distance / distance.sum())]
        centres = np.vstack([centres, chosen])
        distance = np.minimum(distance, ((sample - chosen) ** 2).sum(1))
    for _ in range(STEPS):
        label = _nearest(sample, centres)[0]
        counts = np.bincount(label, minlength=len(centres))
        sums = np.stack([np.bincount(label, weights=v, minlength=len(centres)) for v in sample.T], 1)
        new = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        if np.array_equal(new, centres):
            break
        centres = new
    return centres, float(_nearest(sample, centres)[1].sum())


def box_convergence(
    flow: ArrayLike,
    box_sizes_px: Sequence[int] | None = None,
    n_regions: int = 10,
    *,
    mask: ArrayLike | None = None,
    seed: int = 0,
    amplitude_tolerance: float = 0.1,
    direction_tolerance_deg: float = 15.0,
    pixel_size_um: float | None = None,
) -> BoxConvergence:
    """Return how the mean motion in growing boxes approaches that of the field (Sun et al. 2025, Figs 4i and 4j).

    Boxes grow about `n_regions` random centres; near the border they are pushed inwards. Boxes comparable to the field overlap and agree
    for that reason alone: by default they end at half the shorter side.

    Parameters
    ----------
    flow
        Shape (2, ny, nx), px; NaN is not counted.
    box_sizes_px
        Rising sides, px, at most the shorter side of the field; by default 12 of them, logarithmic from 8 px.
    n_regions
        Random boxes (the paper takes ten).
    mask
        Pixels to count, shape (ny, nx), bool.
    seed
        Of the centres.
    amplitude_tolerance
        Deviation of the mean amplitude that a representative box may have, as part of the whole field's.
    direction_tolerance_deg
        The same for the direction, deg.
    pixel_size_um
        um per px, for `representative_um`.

    Raises
    ------
    ValueError
        Not a flow, nothing left to count, sizes that do not fit or do not rise, or fewer than 1 region.
    """
    vectors, used = vectors_of(flow, mask)
    ny, nx = used.shape
    if n_regions < 1:
        raise ValueError(f"box convergence: {n_regions} regions, at least 1")
    sizes = _default_sizes(min(ny, nx)) if box_sizes_px is None else np.asarray(box_sizes_px, np.int64)
    if sizes.ndim != 1 or not sizes.size or sizes[0] < 1 or sizes[-1] > min(ny, nx) or (np.diff(sizes) <= 0).any():
        raise ValueError(
            f"box convergence: sizes {sizes.tolist()} px must rise and lie within 1 and the shorter side, {min(ny, nx)} px"
        )
    whole = vectors.mean(0)
    whole_amplitude, whole_direction = float(np.hypot(*vectors.T).mean()), float(direction_deg(whole))
    maps = np.zeros((4, ny, nx))
    maps[:, used] = np.stack([np.ones(len(vectors)), vectors[:, 0], vectors[:, 1], np.hypot(*vectors.T)])
    sums = np.pad(maps, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    generator = np.random.default_rng(seed)
    # Centres on what counts: a box about an empty pore says nothing of particles.
    centres = np.argwhere(used)[generator.integers(len(vectors), size=n_regions)]
    amplitude, direction = np.full((2, len(sizes), n_regions), np.nan)
    for i, size in enumerate(sizes):
        top, left = np.clip(centres - size // 2, 0, np.array([ny, nx]) - size).T
        box = (
            sums[:, top + size, left + size]
            - sums[:, top, left + size]
            - sums[:, top + size, left]
            + sums[:, top, left]
        )
        count = np.where(box[0] > 0.5, box[0], np.nan)
        amplitude[i] = box[3] / count
        direction[i] = direction_deg((box[1:3] / count).T)
    turn = (direction - whole_direction + 180) % 360 - 180
    off = np.sqrt(np.nanmean((amplitude - whole_amplitude) ** 2, 1))
    turned = np.sqrt(np.nanmean(turn**2, 1))
    good = (off <= amplitude_tolerance * whole_amplitude) & (turned <= direction_tolerance_deg)
    settled = np.flatnonzero(np.logical_and.accumulate(good[::-1])[::-1])
    size_px = int(sizes[settled[0]]) if settled.size else None
    return BoxConvergence(
        sizes,
        amplitude,
        direction,
        off,
        turned,
        whole_amplitude,
        whole_direction,
        size_px,
        None if size_px is None or pixel_size_um is None else size_px * pixel_size_um,
    )


def _default_sizes(shorter_px: int) -> NDArray[np.int64]:
    largest = max(shorter_px // 2, 1)
    return np.unique(np.round(np.geomspace(min(8, largest), largest, 12)).astype(np.int64))


def _nearest(features: Float, centres: Float) -> tuple[NDArray[np.intp], Float]:
    """Return the index of every row's nearest centre (the first of several) and the square of the distance to it.

    As `scipy.cluster.vq.vq`, whose import takes longer than this.
    """
    columns = np.ascontiguousarray(features.T)
    index = np.zeros(len(features), np.intp)
    least = np.full(len(features), np.inf)
    for i, centre in enumerate(centres):
        square = np.square(columns - centre[:, None]).sum(0)
        closer = square < least
        index[closer] = i
        np.minimum(least, square, out=least)
    return index, least
