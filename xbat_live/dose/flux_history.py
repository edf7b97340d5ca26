"""The flux over time: which reading is believed, and its mean over an exposure. Pure; knows no device and no wall clock."""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal

Source = Literal["i0", "ring", "maximum"]

PLAUSIBLE = 0.2
"""An ion chamber below this fraction of what the ring current lets expect is taken for dead."""
STEP = 0.05
"""Two neighbouring samples that differ by more hide a step between them; the higher one is counted."""
STALE_S = 3.0

_SOURCES: tuple[Source, ...] = ("i0", "ring", "maximum")
_REASON = {1: "ring current", 2: "last maximum"}
_TOLD_SHARE = 0.02  # a shorter part of an interval is not worth a flag
_SMOOTHING = 0.2  # of the remembered maximum: one spike of the chamber must not stay for ever
_SETTLED = 5  # readings until what was learnt from the chamber is used
_LEAST_RING_MA = 1.0
_LEAST_TRANSMISSION = 1e-3  # below, the chamber's noise would be blown up
_SAME_REL, _SAME_S = 0.01, 0.02  # a sample so close to the one before it says nothing new
_MOST_SAMPLES = 60_000
_DROPPED = 10_000


@dataclass(frozen=True)
class FluxCalibration:
    """Photons per second for a reading of the ion chamber.

    Attributes
    ----------
    flux_ph_s
        Flux before the cell when the chamber reads `i0_reference_na`, photons/s.
    i0_reference_na
        That reading, nA.
    """

    flux_ph_s: float
    i0_reference_na: float

    def flux(self, i0_na: float) -> float:
        """Return the flux in photons/s for a chamber current in nA; never negative."""
        return max(self.flux_ph_s * i0_na / self.i0_reference_na, 0.0)


@dataclass(frozen=True)
class FluxMean:
    """A flux, and whether it can be relied on.

    Attributes
    ----------
    flux_ph_s
        Photons/s on the sample while the shutter is open.
    degraded
        Empty, or why the number is only the best that could be had: ``ring current``, ``last maximum``,
        ``stale for 3.2 s``, ``step between two samples``, ``no reading yet``; several are joined by ``; ``.
    """

    flux_ph_s: float
    degraded: str = ""


class FluxModel:
    """Flux from ion chamber, ring current and attenuator: the first of the three that can be believed.

    The chamber (upstream of the shutter, downstream of the attenuator) is believed when it reads at least `plausible` of
    what the ring current lets expect; so a beam that is lost in the ring counts as no flux, a chamber that has died does
    not. Otherwise flux is proportional to ring current and transmission; without a ring current the highest flux so far
    counts. Thread-safe.

    Parameters
    ----------
    calibration
        Ion chamber to flux.
    ring_reference_ma
        Ring current at which `calibration` holds, mA. None: learnt from the chamber while it works.
    plausible
        See `PLAUSIBLE`.

    Raises
    ------
    ValueError
        A calibration or reference that is not positive and finite.
    """

    def __init__(
        self, calibration: FluxCalibration, *, ring_reference_ma: float | None = None, plausible: float = PLAUSIBLE
    ) -> None:
        for name, value in (
            ("flux_ph_s", calibration.flux_ph_s),
            ("i0_reference_na", calibration.i0_reference_na),
            ("ring_reference_ma", 1.0 if ring_reference_ma is None else ring_reference_ma),
        ):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value:g} is not a positive, finite reference")
        self.calibration, self.plausible = calibration, plausible
        self._given_per_ma = None if ring_reference_ma is None else calibration.flux_ph_s / ring_reference_ma
        self._highest_ph_s = calibration.flux_ph_s  # both at transmission 1
        self._learnt_per_ma = 0.0
        self._smooth: tuple[float, float] | None = None
        self._readings = 0
        self._lock = threading.Lock()

    def flux(self, i0_na: float | None, ring_ma: float | None, transmission: float | None) -> tuple[float, Source]:
        """Return the flux on the sample, photons/s, and where it comes from.

        Parameters
        ----------
        i0_na, ring_ma, transmission
            Readings, nA, mA and fraction; None or NaN when there is none. An unknown transmission counts as 1.
        """
        transmission = _finite(transmission)
        open_share = 1.0 if transmission is None else min(max(transmission, 0.0), 1.0)
        i0_na, ring_ma = _finite(i0_na), _finite(ring_ma)
        chamber_ph_s = None if i0_na is None else self.calibration.flux(i0_na)
        with self._lock:
            by_ring = self._by_ring(ring_ma, open_share)
            expected = self._highest_ph_s * open_share if by_ring is None else by_ring
            if chamber_ph_s is not None and chamber_ph_s >= self.plausible * expected:
                self._learn(chamber_ph_s, ring_ma, open_share)
                return chamber_ph_s, "i0"
        return (expected, "maximum") if by_ring is None else (by_ring, "ring")

    def _by_ring(self, ring_ma: float | None, open_share: float) -> float | None:
        per_ma = self._given_per_ma
        if per_ma is None and self._readings >= _SETTLED and self._learnt_per_ma > 0:
            per_ma = self._learnt_per_ma
        if per_ma is None or ring_ma is None:
            return None
        return per_ma * max(ring_ma, 0.0) * open_share

    def _learn(self, chamber_ph_s: float, ring_ma: float | None, open_share: float) -> None:
        if open_share < _LEAST_TRANSMISSION or chamber_ph_s <= 0:
            return
        full_ph_s = chamber_ph_s / open_share
        per_ma = full_ph_s / ring_ma if ring_ma is not None and ring_ma > _LEAST_RING_MA else 0.0
        before = self._smooth or (full_ph_s, per_ma)
        if not before[1]:
            before = (before[0], per_ma)
        smooth = tuple(old + _SMOOTHING * (new - old) for old, new in zip(before, (full_ph_s, per_ma), strict=True))
        self._smooth = (smooth[0], smooth[1] if per_ma else before[1])
        self._readings += bool(per_ma)
        self._highest_ph_s = max(self._highest_ph_s, self._smooth[0])
        self._learnt_per_ma = max(self._learnt_per_ma, self._smooth[1])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class FluxHistory:
    """Samples of the flux by a monotonic clock, and their time-weighted mean. Thread-safe, bounded in memory.

    Between samples the flux is interpolated; across a step (see `STEP`) the higher of the two counts, since it is not known
    when it happened. Before the first and after the last sample that one holds, for `stale_s`; after that the highest flux
    of the history counts.

    Parameters
    ----------
    fallback_ph_s
        What counts while there is no sample at all, photons/s.
    stale_s
        Age of a sample up to which it is believed, s.
    """

    def __init__(self, *, fallback_ph_s: float, stale_s: float = STALE_S) -> None:
        self.fallback_ph_s, self.stale_s = float(fallback_ph_s), float(stale_s)
        self._times, self._fluxes, self._ranks = array("d"), array("d"), bytearray()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many samples are kept."""
        return len(self._times)

    def add(self, t_s: float, flux_ph_s: float, source: Source) -> None:
        """Note that the flux is `flux_ph_s` photons/s at monotonic time `t_s`; one before the last sample counts as then.

        Raises
        ------
        ValueError
            Time or flux not finite, or a negative flux.
        """
        if not (math.isfinite(t_s) and 0 <= flux_ph_s < math.inf):
            raise ValueError(f"flux {flux_ph_s:g} ph/s at {t_s:g} s: both must be finite, the flux not negative")
        rank = _SOURCES.index(source)
        with self._lock:
            if self._times:
                t_s = max(t_s, self._times[-1])
                same = abs(flux_ph_s - self._fluxes[-1]) <= _SAME_REL * self._fluxes[-1] and rank == self._ranks[-1]
                if same and t_s - self._times[-1] < _SAME_S:
                    return
            if len(self._times) >= _MOST_SAMPLES:
                del self._times[:_DROPPED], self._fluxes[:_DROPPED], self._ranks[:_DROPPED]
            self._times.append(t_s)
            self._fluxes.append(flux_ph_s)
            self._ranks.append(rank)

    def current(self, now_s: float) -> FluxMean:
        """Return the flux at monotonic time `now_s`."""
        return self.mean(now_s, now_s)

    def mean(self, t0_s: float, t1_s: float) -> FluxMean:
        """Return the time-weighted mean from `t0_s` to `t1_s`, monotonic, s.

        Raises
        ------
        ValueError
            `t1_s` is before `t0_s`, or one is not finite.
        """
        if not (math.isfinite(t0_s) and math.isfinite(t1_s) and t0_s <= t1_s):
            raise ValueError(f"flux from {t0_s:g} s to {t1_s:g} s: the end is before the start, or not finite")
        with self._lock:
            if not self._times:
                return FluxMean(self.fallback_ph_s, "no reading yet")
            tally = _Tally(t1_s - t0_s, self.stale_s)
            self._walk(t0_s, t1_s, tally)
        return tally.result()

    def _walk(self, t0_s: float, t1_s: float, tally: _Tally) -> None:
        """Cut [t0, t1] at the samples and hand each piece to `tally`."""
        times, fluxes, ranks = self._times, self._fluxes, self._ranks
        first_s, last_s = times[0], times[-1]
        if t0_s < first_s:
            tally.hold(min(t1_s, first_s) - t0_s, fluxes[0], ranks[0], stale_s=first_s - t0_s)
        low = max(bisect_right(times, t0_s) - 1, 0)
        high = min(bisect_left(times, t1_s), len(times) - 1)
        for i in range(low, high):
            tally.between(
                (times[i], times[i + 1]),
                (fluxes[i], fluxes[i + 1]),
                max(ranks[i], ranks[i + 1]),
                (max(t0_s, times[i]), min(t1_s, times[i + 1])),
            )
        if t0_s == t1_s and first_s <= t0_s <= last_s and not tally.pieces:  # exactly at a sample
            tally.hold(0.0, fluxes[low], ranks[low])
        if t1_s > last_s:
            believed_until_s = last_s + self.stale_s
            start_s = max(t0_s, last_s)
            if start_s <= believed_until_s:
                tally.hold(min(t1_s, believed_until_s) - start_s, fluxes[-1], ranks[-1])
            if t1_s > believed_until_s:
                highest = max(fluxes)
                tally.hold(t1_s - max(start_s, believed_until_s), highest, ranks[-1], stale_s=t1_s - last_s)


class _Tally:
    """Sums up the pieces of an interval, and what is to be said about it."""

    def __init__(self, total_s: float, stale_s: float) -> None:
        self._total_s, self._stale_s = total_s, stale_s
        self._photons = 0.0
        self._point: float | None = None
        self._by_rank = [0.0, 0.0, 0.0]
        self._longest_stale_s = 0.0
        self._doubtful_photons, self._doubtful_s = 0.0, 0.0
        self.pieces = 0

    def hold(self, duration_s: float, flux_ph_s: float, rank: int, *, stale_s: float = 0.0) -> None:
        """Add a piece with a flux that is only held."""
        if stale_s > self._stale_s:
            self._longest_stale_s = max(self._longest_stale_s, stale_s)
        self._add(duration_s, flux_ph_s, rank)

    def between(
        self, at_s: tuple[float, float], flux: tuple[float, float], rank: int, part_s: tuple[float, float]
    ) -> None:
        """Add the part `part_s` of the piece between two samples."""
        gap_s, duration_s = at_s[1] - at_s[0], part_s[1] - part_s[0]
        higher = max(flux)
        middle_s = sum(part_s) / 2
        share = (middle_s - at_s[0]) / gap_s if gap_s > 0 else 0.5
        linear = flux[0] + share * (flux[1] - flux[0])
        if gap_s > self._stale_s:
            self._longest_stale_s = max(self._longest_stale_s, gap_s)
            self._add(duration_s, higher, rank)
        elif abs(flux[1] - flux[0]) > STEP * higher:
            self._doubtful_photons += (higher - min(flux)) * duration_s
            self._doubtful_s += duration_s
            self._add(duration_s, higher, rank)
        else:
            self._add(duration_s, linear, rank)

    def _add(self, duration_s: float, flux_ph_s: float, rank: int) -> None:
        self.pieces += 1
        self._photons += duration_s * flux_ph_s
        self._by_rank[rank] += duration_s
        if self._total_s == 0:
            self._point = max(self._point or 0.0, flux_ph_s)
            self._by_rank[rank] = 1.0

    def result(self) -> FluxMean:
        """Return mean and flags."""
        total_s = self._total_s or 1.0
        flux = self._photons / total_s if self._point is None else self._point
        reasons = [_REASON[rank] for rank in (1, 2) if self._by_rank[rank] > _TOLD_SHARE * total_s]
        if self._longest_stale_s > 0:
            reasons.append(f"stale for {self._longest_stale_s:.1f} s")
        if self._doubtful_s > _TOLD_SHARE * total_s and self._doubtful_photons > STEP * self._photons:
            reasons.append("step between two samples")
        return FluxMean(flux, "; ".join(reasons))


__all__ = ["PLAUSIBLE", "FluxCalibration", "FluxHistory", "FluxMean", "FluxModel", "Source"]
