"""What the live analysis of energy sweeps knows: I0, foil, energy shifts, dose rates, component spectra; and what a cube says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.callbacks.xas_references import GrowingReferences, mask_spectra
from xbat_live.dose import DoseMasks
from xbat_live.spectra import (
    FrameAbsorbance,
    ShiftMap,
    StreamingFractions,
    bin_frames,
    calibrate_energy,
    edge_energy_map,
)

logger = logging.getLogger(__name__)

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_LEAST_PIXELS = 0.002
_LOWEST_RATE = 0.08
_LEAST_COVERED = 0.75


@dataclass(frozen=True)
class XasSettings:
    """What the live analysis is told.

    Attributes
    ----------
    rate_masks
        Makes intervals of dose rate (Gy/s) from I0: mean cube (n, ny, nx), energies (n,), binned dark.
    spacing_angstrom
        Of the monochromator's crystal.
    bin
        Pixels added along each axis.
    foil_edge_ev
        True energy of the foil's first inflection, eV.
    pre_edge_ev, post_edge_ev
        Windows for normalising mask averages, eV.
    components
        Number of component spectra.
    references
        Energies (n,), eV, and spectra (k, n) of the components; None: found from the data.
    dark_counts
        Assumed until darks were taken.
    """

    rate_masks: Callable[[Float32, Float, Float32], DoseMasks]
    spacing_angstrom: float = 3.1356
    bin: int = 4
    foil_edge_ev: float = 8333.0
    pre_edge_ev: tuple[float, float] = (8270.0, 8318.0)
    post_edge_ev: tuple[float, float] = (8410.0, 8870.0)
    components: int = 3
    references: tuple[Float, Float] | None = None
    dark_counts: float = 100.0


@dataclass
class _Mean:
    """Mean of cubes of one kind."""

    total: Float32
    energy_ev: Float
    cubes: int = 1

    def add(self, cube: Float32, energy_ev: Float) -> None:
        """Take in one more; the energies of a sweep differ by less than a step from those of another."""
        if cube.shape != self.total.shape:
            self.total, self.energy_ev, self.cubes = cube, energy_ev, 1
            return
        self.total += cube
        self.energy_ev = (self.energy_ev * self.cubes + energy_ev) / (self.cubes + 1)
        self.cubes += 1

    @property
    def mean(self) -> Float32:
        """The mean."""
        return self.total / np.float32(self.cubes)


@dataclass
class CubeMaps:
    """Maps of one cube of the sample, (ny, nx) each, fractions (k, ny, nx); NaN where masked or not known yet."""

    fractions: Float
    r_factor: Float
    edge_ev: Float
    edge_sigma_ev: Float
    progress: Float
    components: int
    masked: int


@dataclass
class XasState:
    """Everything but threads and files; used from one thread."""

    settings: XasSettings
    dark: Float32 | None = None
    shift: ShiftMap | None = None
    masks: DoseMasks | None = None
    references: GrowingReferences = field(init=False)
    _i0: _Mean | None = None
    _foil: _Mean | None = None
    _absorbance: FrameAbsorbance | None = None

    def __post_init__(self) -> None:
        self.references = GrowingReferences(
            self.settings.components, self.settings.pre_edge_ev, self.settings.post_edge_ev, self.settings.references
        )

    # -- references ---------------------------------------------------------------------------------------------------

    def take_dark(self, frame: npt.NDArray[Any]) -> None:
        """Take in the mean of the dark frames, counts."""
        self.dark = np.asarray(bin_frames(np.asarray(frame, np.float32), self.settings.bin), np.float32)
        self._absorbance = None

    def take_i0(self, cube: Float32, energy_ev: Float, *, anew: bool) -> None:
        """Take in a binned cube without sample; `anew` forgets those before."""
        self._i0 = _added(None if anew else self._i0, cube, energy_ev)
        self._absorbance = self.masks = None

    def take_foil(self, cube: Float32, energy_ev: Float, *, anew: bool) -> None:
        """Take in a binned cube of the foil."""
        self._foil = _added(None if anew else self._foil, cube, energy_ev)
        self.shift = None

    def binned(self, frame: npt.NDArray[np.uint16]) -> Float32:
        """Return a raw frame, binned."""
        return np.asarray(bin_frames(frame, self.settings.bin), np.float32)

    @property
    def absorbance(self) -> FrameAbsorbance:
        """Absorbance of raw frames against I0.

        Raises
        ------
        ValueError
            No I0 yet.
        """
        if self._absorbance is None:
            if self._i0 is None:
                raise ValueError(
                    "no I0 cube has been taken: no absorbance; take one with nothing in the beam (xas.n_i0)"
                )
            mean = self._i0.mean
            self._absorbance = FrameAbsorbance(
                mean, self._i0.energy_ev, self._dark_like(mean), bin_factor=self.settings.bin
            )
        return self._absorbance

    def calibrate(self) -> ShiftMap:
        """Return the energy shift of every pixel, from the foil.

        Raises
        ------
        ValueError
            No foil or I0 cube yet, or no edge in it.
        """
        if self.shift is None:
            if self._foil is None:
                raise ValueError(
                    "no foil cube has been taken: no pixel has an energy; take one with the foil in the beam"
                )
            if self._i0 is None:
                raise ValueError("no I0 cube has been taken: the foil has no absorbance; take I0 first (xas.n_i0)")
            beam = self._i0.mean
            absorbance = FrameAbsorbance(beam, self._i0.energy_ev, self._dark_like(beam))
            pairs = zip(self._foil.mean, self._foil.energy_ev, strict=True)
            covered = [
                (frame, float(at)) for frame, at in pairs if absorbance.covers(float(at))
            ]  # sweeps differ at the ends
            if len(covered) < _LEAST_COVERED * len(self._foil.energy_ev):
                raise ValueError(
                    f"I0 was taken at {len(covered)} of the {len(self._foil.energy_ev)} energies of the foil; take it over the same range"
                )
            foil = np.stack([absorbance(frame, at) for frame, at in covered])
            self.shift = calibrate_energy(foil, np.array([at for _, at in covered]), self.settings.foil_edge_ev)
        return self.shift

    def rates(self) -> DoseMasks:
        """Return dose rates (Gy/s, energy average) and their intervals, from I0.

        Raises
        ------
        ValueError
            No I0 cube yet.
        """
        if self.masks is None:
            if self._i0 is None:
                raise ValueError("no I0 cube has been taken: no dose-rate map")
            mean = self._i0.mean
            self.masks = self.settings.rate_masks(mean, self._i0.energy_ev, self._dark_like(mean))
        return self.masks

    # -- a cube of the sample -------------------------------------------------------------------------------------------

    def streaming(self) -> StreamingFractions | None:
        """Return the accumulator for a cube that begins; None while no component spectra are known."""
        known = self.references.known
        if known is None:
            return None
        energy_ev, spectra = known
        shift = self.calibrate()
        return StreamingFractions(None, spectra, shift.shift_ev, references_energy_ev=energy_ev, keep_frames=False)

    def learn(self, cube: Float32, energy_ev: Float) -> None:
        """Add the mask averages of a cube to what component spectra are found from."""
        if self.references.given:
            return
        masks = self.rates()
        grid, spectra, counts = mask_spectra(cube, energy_ev, masks.labels, self.calibrate().shift_ev)
        lit = masks.centres_gy_s >= _LOWEST_RATE * masks.edges_gy_s[-1]
        self.references.add(grid, spectra[lit[: len(spectra)]], counts[lit[: len(counts)]])

    def maps(self, cube: Float32, energy_ev: Float, stream: StreamingFractions | None) -> CubeMaps:
        """Return the maps of a complete cube."""
        shift = self.calibrate()
        edges = edge_energy_map(cube, energy_ev, shift.shift_ev)
        shape = edges.edge_ev.shape
        k = self.settings.components
        fractions = np.full((k, *shape), np.nan)
        r_factor = progress = np.full(shape, np.nan)
        count, masked = 0, int(np.isnan(edges.edge_ev).sum())
        if stream is not None:
            found = stream.result()
            count = found.fractions.shape[0]
            fractions[:count] = found.fractions
            r_factor = found.r_factor
            masked = found.masked_count
            steps = np.arange(count) / max(count - 1, 1)
            progress = np.tensordot(steps, found.fractions, axes=1)
        return CubeMaps(fractions, r_factor, edges.edge_ev, edges.sigma_ev, progress, count, masked)

    def extremes(self) -> tuple[int, int]:
        """Return the intervals of dose rate that stand for low and high dose: populated, the low one not in the dark."""
        masks = self.rates()
        least = max(_LEAST_PIXELS * masks.labels.size, 4)
        highest = float(masks.edges_gy_s[-1])
        populated = [
            number
            for number, count in enumerate(masks.counts)
            if count >= least and masks.centres_gy_s[number] >= _LOWEST_RATE * highest
        ]
        return (populated[0], populated[-1]) if populated else (0, len(masks) - 1)

    def _dark_like(self, image: Float32) -> Float32:
        if self.dark is not None and self.dark.shape == image.shape[1:]:
            return self.dark
        return np.full(image.shape[1:], self.settings.dark_counts, np.float32)


def _added(mean: _Mean | None, cube: Float32, energy_ev: Float) -> _Mean:
    if mean is None:
        return _Mean(cube, energy_ev)
    mean.add(cube, energy_ev)
    return mean


def within(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> float:
    """Return the mean of the finite values in a mask; NaN when there are none."""
    inside = np.asarray(values, np.float64)[mask]
    inside = inside[np.isfinite(inside)]
    return float(inside.mean()) if inside.size else math.nan
