"""The dose from which on the beam changes what happens: where a curve of fraction against dose leaves its plateau.

How a fraction falls behind the threshold is not known beforehand: at once or gradually, for ever or to an end. All of these are tried and
weighted by how well each describes the data (Bayesian model averaging; plateau, its slow trend, and height of the fall are integrated
out, Gull 1988), so that the interval has in it that the shape is not known. It is no fit of one formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import Float
from xbat_live.spectra.dose_curve import fraction_against_dose

LEAST_POINTS = 6
DROP = 0.02
COVERAGE = 0.95
_MOST_POINTS, _BINS = 160, 96
_COARSE, _FINE = 32, 36
_BELOW = 3.0  # how far below the lowest dose thresholds are tried
_WIDTHS = (0.06, 0.12, 0.25)  # of a rounded knee, of the threshold
_POWERS = (2.0, 3.0, 4.0, 6.0, 10.0)  # of a gradual fall
_REACH = (0.08, 0.13, 0.2, 0.3, 0.45, 0.7, 1.1, 2.0, 30.0)  # dose within which it falls, of the highest dose
_SECOND_REACH = 0.4
_TREND = 0.05  # of the range of values: what the plateau may change by itself
_SHARP = 0.7  # odds of a sharp knee before the data are seen
_HEIGHT = 2.0  # of the range: how high a fall may be
_LEAST_HALF_WIDTH = 0.05  # a threshold is not better defined when the shape of the fall is not known
_SURE = 5.0  # of the log of the odds against no fall
_NEGLIGIBLE = 12.0  # of the log of the odds against the best
_ROUNDS = 3
_WILD_SIGMA, _WILD_AT_FIRST = 4.5, 6.0
_NEIGHBOURS = 7
_DOSES = 601
_MAD = 1.4826


@dataclass(frozen=True)
class Threshold:
    """A dose threshold, or why there is none.

    Attributes
    ----------
    value_gy
        Where the fall begins: the knee when it is sharp, the dose at which the fall has reached `drop` when it is gradual; between both
        when the data do not tell. NaN when the data hold none.
    interval_gy
        Holds the threshold with a probability of 95 %, read as the knee or as the dose at which the fall has reached `drop`; at least 5 %
        to each side. Open, ``(low, inf)`` or ``(0, high)``, when the threshold is outside the data; NaN when nothing can be said.
    reason
        Empty, or why there is no value.
    points
        Points that count; wild ones do not.
    """

    value_gy: float
    interval_gy: tuple[float, float]
    reason: str = ""
    points: int = 0

    @property
    def found(self) -> bool:
        """Whether there is a value."""
        return bool(np.isfinite(self.value_gy))


@dataclass(frozen=True)
class _Curve:
    """A checked curve, ascending in dose, wild points with weight 0; what the priors are measured in."""

    dose: Float
    values: Float
    weight: Float
    spread: float

    def with_weight(self, weight: Float) -> _Curve:
        return _Curve(self.dose, self.values, weight, self.spread)


@dataclass(frozen=True)
class _Shape:
    """How a fraction falls behind a knee at T: sharp, rounded by `width` times T, or gradual with a `power`."""

    reach_gy: float
    width: float = 0.0
    power: float = 0.0

    @property
    def sharp(self) -> bool:
        """Whether the knee is the threshold, and not how far it has fallen."""
        return self.width == 0 and self.power == 0

    def fall(self, dose: Float, knee: Float) -> Float:
        """Return two columns that the fall is made of, (m, n, 2), at doses (n,) for knees (m,); 0 at no dose."""
        if self.power > 0:  # log-logistic, a fiftieth at the knee
            ratio = (dose / knee[:, None]) ** self.power / 49.0
            one = ratio / (1 + ratio)
            return np.stack([one, np.zeros_like(one)], axis=2)
        above = dose - knee[:, None]
        if self.width > 0:
            width = self.width * knee[:, None]
            above = width * np.logaddexp(0.0, above / width)
        beyond = np.maximum(above, 0.0) / self.reach_gy
        return np.stack([-np.expm1(-beyond), -np.expm1(-beyond / _SECOND_REACH)], axis=2)


@dataclass(frozen=True)
class _Models:
    """Descriptions of a curve, (m,) each: knee, number of the shape, log of the odds; coefficients (m, 5) and curves (m, n)."""

    shapes: list[_Shape]
    knee: Float
    shape: np.ndarray
    log_odds: Float
    solution: Float
    scales: Float
    fitted: Float


def dose_threshold(
    dose_gy: ArrayLike, fraction: ArrayLike, sigma: ArrayLike, *, drop: float = DROP, coverage: float = COVERAGE
) -> Threshold:
    """Return the dose above which `fraction` falls.

    Parameters
    ----------
    dose_gy, fraction
        The curve, or single pixels, (n,) or any shape; NaN is left out. See `fraction_against_dose`.
    sigma
        Standard uncertainty of `fraction`, the same shape or one number. Too small ones are corrected from what the best description
        leaves; where it is 0 (all pixels at the limit of 1) the median of the others is taken.
    drop
        Fall that counts, in the unit of `fraction`: 0.02 of a fraction. Less in all is no threshold.
    coverage
        Probability of the interval.

    Returns
    -------
    Threshold
        Without a value, and with a reason, when the curve does not fall, or falls from the lowest dose on.

    Raises
    ------
    ValueError
        Shapes that do not fit, sigma or drop not positive, negative dose, coverage not between 0 and 1.
    """
    if not (drop > 0 and 0 < coverage < 1):
        raise ValueError(
            f"drop {drop:g}, coverage {coverage:g}: a positive number, and one between 0 and 1, are needed"
        )
    curve = _checked(dose_gy, fraction, sigma)
    different = np.unique(curve.dose).size
    if different < LEAST_POINTS:
        return Threshold(
            np.nan,
            (np.nan, np.nan),
            f"{different} different doses: at least {LEAST_POINTS} are needed",
            curve.dose.size,
        )
    lowest, highest = float(curve.dose[curve.dose > 0][0]), float(curve.dose[-1])
    coarse = np.geomspace(lowest / _BELOW, highest, _COARSE)
    for _ in range(_ROUNDS):
        models, scale = _weigh(curve, coarse)
        weight = _without_wild(curve, models)
        if ((weight > 0) == (curve.weight > 0)).all():
            break
        curve = curve.with_weight(weight)
    models = _refined(curve, models, coarse)
    points = int((curve.weight > 0).sum())
    odds = _log_mean(models.log_odds) - _without_fall(curve, scale)
    if not odds > _SURE:
        return _no_fall(curve, scale, drop, points)
    height = _height(models)
    if height < drop:
        reason = f"it falls by {height:.2g} up to the highest dose, {curve.dose[-1]:.3g} Gy: less than {drop:g}"
        return Threshold(np.nan, (float(curve.dose[-1]), np.inf), reason, points)
    return _told(models, curve, drop, coverage, points)


def _checked(dose_gy: ArrayLike, fraction: ArrayLike, sigma: ArrayLike) -> _Curve:
    dose, values = np.asarray(dose_gy, np.float64), np.asarray(fraction, np.float64)
    noise = np.asarray(sigma, np.float64)
    if values.shape != dose.shape or noise.shape not in ((), dose.shape):
        raise ValueError(
            f"dose_gy of shape {dose.shape}, fraction of {values.shape}, sigma of {noise.shape}: one shape is needed (sigma may be one "
            "number)"
        )
    dose, values, noise = dose.ravel(), values.ravel(), np.broadcast_to(noise, dose.shape).ravel()
    good = np.isfinite(dose) & np.isfinite(values) & np.isfinite(noise)
    dose, values, noise = dose[good], values[good], noise[good]
    if dose.size and (noise.min() < 0 or noise.max() <= 0 or dose.min() < 0):
        raise ValueError(
            f"sigma from {noise.min():g}, dose_gy from {dose.min():g}: sigma must be positive, dose (Gy) must not be negative"
        )
    if (noise == 0).any():  # all pixels at the limit of what a fraction can be: not known better than elsewhere
        noise = np.where(noise == 0, np.median(noise[noise > 0]), noise)
    order = np.argsort(dose, kind="stable")
    dose, values, noise = dose[order], values[order], noise[order]
    if dose.size > _MOST_POINTS:
        dose, values, noise = _averaged(dose, values, noise)
    spread = float(np.ptp(np.quantile(values, (0.05, 0.95)))) if dose.size else 0.0
    curve = _Curve(dose, values, 1 / noise if dose.size else noise, max(spread, 1e-12))
    return curve.with_weight(_without_lone(curve)) if dose.size > 2 * _NEIGHBOURS else curve


def _averaged(dose: Float, values: Float, noise: Float) -> tuple[Float, Float, Float]:
    """Return averages of points of like dose, each of many points: equal numbers in each, so that no dose is left out."""
    parts = np.array_split(np.arange(dose.size), _BINS)
    limits = np.unique([dose[part[0]] for part in parts] + [dose[-1]])
    curve = fraction_against_dose(values, dose, bins=limits, least_pixels=1)
    typical = np.sqrt(np.interp(curve.dose_gy, dose, noise**2) / np.maximum(curve.count, 1))
    return curve.dose_gy, curve.fraction, np.maximum(curve.sigma, typical)


def _without_lone(curve: _Curve) -> Float:
    """Return the weights without points far from the median of their neighbours."""
    half = _NEIGHBOURS // 2
    padded = np.pad(curve.values, half, mode="reflect", reflect_type="odd")
    rest = (
        curve.values - np.median(np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS), axis=1)
    ) * curve.weight
    scale = max(1.0, _MAD * float(np.median(np.abs(rest))))
    return np.where(np.abs(rest) > _WILD_AT_FIRST * scale, 0.0, curve.weight)


def _without_wild(curve: _Curve, models: _Models) -> Float:
    """Return the weights without points far from the best description; those that were left out for less come back."""
    rest = curve.values - models.fitted[int(np.argmax(models.log_odds))]
    noise = np.where(curve.weight > 0, curve.weight, np.median(curve.weight[curve.weight > 0]))
    scale = max(1.0, _MAD * float(np.median(np.abs(rest * noise))))
    weight = np.where(np.abs(rest * noise) > _WILD_SIGMA * scale, 0.0, noise)
    return weight if (weight > 0).sum() >= max(LEAST_POINTS, 0.7 * weight.size) else curve.weight


def _shapes(highest_gy: float) -> list[_Shape]:
    reaches = [reach * highest_gy for reach in _REACH]
    rounded = [_Shape(reach, width) for width in _WIDTHS for reach in reaches[::2]]
    return [_Shape(reach) for reach in reaches] + rounded + [_Shape(0.0, power=power) for power in _POWERS]


def _weigh(curve: _Curve, knees: Float, scale: float | None = None) -> tuple[_Models, float]:
    """Return descriptions with all knees and shapes, and the factor on sigma that the best one needs.

    Columns: plateau, two for its trend up to the knee, two for the fall behind it. Linear with Gaussian priors, so their integral is
    known.
    """
    shapes = _shapes(float(curve.dose[-1]))
    designs, scales = [], []
    for shape in shapes:
        fall = shape.fall(curve.dose, knees)
        height = np.maximum(fall[:, -1], 1e-300)
        under = np.minimum(curve.dose / knees[:, None], 1.0)
        share = float(shape.sharp)  # a trend and a gradual fall cannot be told apart
        trend = np.stack([np.ones_like(under), share * under, share * under**2], axis=2)
        designs.append(np.concatenate([trend, -fall / height[:, None]], axis=2))
        scales.append(height)
    design, height = np.concatenate(designs), np.concatenate(scales)
    knee, number = np.tile(knees, len(shapes)), np.repeat(np.arange(len(shapes)), len(knees))
    widths = curve.spread * np.array([np.inf, _TREND, _TREND, _HEIGHT, _HEIGHT])
    if scale is None:
        _, squares, _ = _integrated(curve, design, widths, 1.0)
        scale = float(np.sqrt(max(1.0, squares.min() / max(int((curve.weight > 0).sum()) - 6, 1))))
    solution, _, log_odds = _integrated(curve, design, widths, scale)
    sharp = np.array([shape.sharp for shape in shapes])
    shares = np.where(sharp, _SHARP / sharp.sum(), (1 - _SHARP) / (~sharp).sum())
    falls = (solution[:, 3] / height[:, 0] + solution[:, 4] / (height[:, 1] * _SECOND_REACH) > 0) & (
        solution[:, 3] + solution[:, 4] > 0
    )
    log_odds = np.where(falls, log_odds + np.log(shares[number] * len(shapes)), -np.inf)
    fitted = np.einsum("mnc,mc->mn", design, solution)
    return _Models(shapes, knee, number, log_odds, solution, height, fitted), scale


def _integrated(curve: _Curve, design: Float, widths: Float, scale: float) -> tuple[Float, Float, Float]:
    """Return coefficients (m, c), chi squared with `scale` 1 (m,), and the log of the probability of the data (m,) up to a constant."""
    weight = curve.weight / scale
    weighted = design * weight[:, None]
    data = curve.values * weight
    gram = weighted.transpose(0, 2, 1) @ weighted
    precision = np.where(np.isinf(widths), 0.0, 1 / widths**2)
    full = gram + np.diag(precision + 1e-12 * gram[:, 0, 0].max())
    right = np.einsum("mnc,n->mc", weighted, data)
    solution = np.linalg.solve(full, right[:, :, None])[:, :, 0]
    rest = data - np.einsum("mnc,mc->mn", weighted, solution)
    squares = np.einsum("mn,mn->m", rest, rest)
    prior = (precision * solution**2).sum(1)
    occam = np.linalg.slogdet(full)[1] - np.log(precision[precision > 0]).sum()
    return solution, squares * scale**2, -(squares + prior + occam) / 2


def _refined(curve: _Curve, models: _Models, knees: Float) -> _Models:
    """Return the descriptions on a narrower grid of knees, where the odds are."""
    for _ in range(_ROUNDS):
        likely = models.knee[models.log_odds > models.log_odds.max() - _NEGLIGIBLE]
        if not likely.size:
            break
        step = knees[1] / knees[0]
        low, high = float(likely.min()) / step, float(likely.max()) * step
        knees = np.geomspace(low, min(high, float(curve.dose[-1])), _FINE)
        models, _ = _weigh(curve, knees)
        if likely.max() / likely.min() > step ** (len(knees) / 4):
            break
    return models


def _without_fall(curve: _Curve, scale: float) -> float:
    """Return the log of the probability of the data when there is a plateau with its trend, and no more."""
    under = curve.dose / curve.dose[-1]
    design = np.stack([np.ones_like(under), under, under**2], axis=1)[None]
    widths = curve.spread * np.array([np.inf, _TREND, _TREND])
    return float(_integrated(curve, design, widths, scale)[2][0])


def _log_mean(log_odds: Float) -> float:
    highest = float(log_odds.max())
    return highest + float(np.log(np.mean(np.exp(log_odds - highest)))) if np.isfinite(highest) else -np.inf


def _height(models: _Models) -> float:
    """Return by how much the values fall up to the highest dose."""
    odds = np.exp(models.log_odds - models.log_odds.max())
    return float(odds @ models.solution[:, 3:].sum(1) / odds.sum())


def _no_fall(curve: _Curve, scale: float, drop: float, points: int) -> Threshold:
    third = max(curve.dose.size // 3, 2)
    low, high = (float(np.sum(part**2)) for part in (curve.weight[:third], curve.weight[-third:]))
    unsure = scale * float(np.sqrt(1 / low + 1 / high))
    highest = float(curve.dose[-1])
    if unsure < drop / 2:
        return Threshold(np.nan, (highest, np.inf), f"no fall up to the highest dose, {highest:.3g} Gy", points)
    return Threshold(
        np.nan,
        (0.0, np.inf),
        f"no fall beyond the noise: a fall of {drop:g} would not be seen (sigma {unsure:.2g})",
        points,
    )


def _told(models: _Models, curve: _Curve, drop: float, coverage: float, points: int) -> Threshold:
    likely = np.flatnonzero(models.log_odds > models.log_odds.max() - _NEGLIGIBLE)
    odds = np.exp(models.log_odds[likely] - models.log_odds.max())
    knee = models.knee[likely]
    steps = np.unique(models.knee)
    half = np.sqrt(steps[1] / steps[0])
    fallen = np.empty(likely.size)
    fine = np.linspace(0.0, float(curve.dose[-1]), _DOSES)
    for number in np.unique(models.shape[likely]):
        chosen = models.shape[likely] == number
        rows = likely[chosen]
        fall = models.shapes[number].fall(fine, models.knee[rows]) / models.scales[rows][:, None]
        reached = np.einsum("mnc,mc->mn", fall, models.solution[rows, 3:]) >= drop
        fallen[chosen] = np.where(reached.any(1), fine[reached.argmax(1)], fine[-1])
    sharp = np.array([shape.sharp for shape in models.shapes])[models.shape[likely]]
    threshold = np.where(sharp, knee, fallen)
    tail = (1 - coverage) / 2
    low = _quantile(np.minimum(knee, fallen), odds, tail) / half
    high = min(_quantile(np.maximum(knee, fallen), odds, 1 - tail) * half, float(curve.dose[-1]))
    value = _quantile(threshold, odds, 0.5)
    low, high = min(low, value * (1 - _LEAST_HALF_WIDTH)), max(high, value * (1 + _LEAST_HALF_WIDTH))
    plateau = float(np.unique(curve.dose[curve.weight > 0])[1])
    if value < plateau:
        return Threshold(
            np.nan,
            (0.0, float(high)),
            f"it falls from the lowest dose on, {curve.dose[0]:.3g} Gy: no plateau is seen",
            points,
        )
    return Threshold(value, (low, float(high)), "", points)


def _quantile(values: Float, odds: Float, share: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(odds[order])
    middle = (total - odds[order] / 2) / total[-1]
    return float(np.interp(share, middle, values[order]))
