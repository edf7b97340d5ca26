"""Fractions of known components in every pixel: joint least squares on raw absorbance, nothing normalised, nothing resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import (
    Float,
    Float32,
    Mask,
    checked_cube,
    checked_energies,
    checked_references,
    checked_shift,
    checked_spectrum_energies,
    log,
    tell_masked,
)
from xbat_live.spectra.moments import Moments
from xbat_live.spectra.second_look import SecondLook
from xbat_live.spectra.shifted import ShiftedReferences, shift_bins
from xbat_live.spectra.solving import determined, solve
from xbat_live.spectra.threads import single_blas

FRAMES_AT_ONCE = 16
LEAST_JUMP_SIGMA = 4.0
LEAST_BEFORE, LEAST_AFTER = 2, 3
LEAST_REFERENCE_JUMP = 0.2
MISFIT_RATIO = 2.0


@dataclass(frozen=True, eq=False)
class FractionMaps:
    """Fractions of the components.

    Attributes
    ----------
    fractions
        (k, ny, nx) float64: at least 0, their sum 1. NaN where masked.
    jump
        Edge jump, the sum of the amounts, absorbance, (ny, nx). NaN where masked.
    r_factor
        Sum of squared residuals over the sum of squares of the absorbance above its background, (ny, nx); all finite samples count,
        rejected ones too, so that a glitch is seen here. NaN where masked.
    sigma
        Standard uncertainty of the fractions from the residual noise, without the constraint, (k, ny, nx), at most 1: before the edge
        nothing is known. NaN where masked.
    masked
        Pixels that are not told: dark, without edge, without energy shift, (ny, nx).
    rejected
        Samples left out as glitches in each pixel, (ny, nx) int32.
    frames, dropped_frames
        Frames that count, and that do not: energy outside the references, or unreadable as a whole.
    frame_offsets
        Absorbance that all pixels of a frame have in common and no reference explains, taken out, (frames,): the beam's intensity
        between I0 and sample.
    misfit
        Residual of the mean spectrum over what noise would leave of it, root mean square: about 1 when the references describe the sample.
        None for partial maps and when too few frames count.
    """

    fractions: Float
    jump: Float
    r_factor: Float
    sigma: Float
    masked: Mask
    rejected: np.ndarray
    frames: int
    dropped_frames: int
    frame_offsets: Float
    misfit: float | None = None

    @property
    def masked_count(self) -> int:
        """Number of masked pixels."""
        return int(self.masked.sum())


def fit_fractions(
    absorbance_cube: ArrayLike,
    energy_ev: ArrayLike,
    references: ArrayLike,
    shift_ev: ArrayLike | None = None,
    *,
    references_energy_ev: ArrayLike | None = None,
) -> FractionMaps:
    """Return the fraction of every reference in every pixel.

    Minimises ``sum_i (A_i - b0 - b1 E_i - sum_k a_k mu_k(E_i + shift))^2`` with ``a_k >= 0``; the fractions are
    ``a_k / sum(a)``. Background and jump are fitted together with the fractions: normalising first extrapolates the noise of a pixel's
    own pre-edge over hundreds of eV.

    Parameters
    ----------
    absorbance_cube
        (n_energy, ny, nx), not normalised. NaN samples are left out; the frames may be in any order of energy.
    energy_ev
        Nominal energies of the frames, (n_energy,), eV.
    references
        Spectra of the pure components, (k, n), normalised to a jump of 1, against true energy.
    shift_ev
        ``true_energy = energy_ev + shift_ev``, (ny, nx) or a `ShiftMap`; None: 0. NaN masks a pixel.
    references_energy_ev
        Energies of the references, (n,), eV; None: `energy_ev`.

    Raises
    ------
    ValueError
        Shapes that do not fit together; energies that do not reach from before to after the edge; references that are the same or
        cannot be told apart at these energies; no pixel that can be fitted.
    """
    cube = checked_cube(absorbance_cube, "absorbance_cube")
    energies = checked_spectrum_energies(energy_ev, len(cube))
    stream = StreamingFractions(
        energies, references, shift_ev, references_energy_ev=references_energy_ev, shape=(cube.shape[1], cube.shape[2])
    )
    stream.take(cube, energies)
    return stream.result()


class StreamingFractions:
    """`fit_fractions` while the cube is being taken: sums grow with every frame, maps can be had at any time.

    Parameters
    ----------
    energy_ev
        Planned energies (n,), eV; None when they are unknown (then `references_energy_ev` is needed). The frames' own energies, given
        with each of them, are what is fitted.
    references, shift_ev, references_energy_ev
        As in `fit_fractions`.
    shape
        (ny, nx) of the frames; None: that of `shift_ev`, or of the first frame.
    keep_frames
        Whether the frames are kept until `result`, which looks through them for glitches. Without, `result` is `maps`.

    Raises
    ------
    ValueError
        As `fit_fractions`.
    """

    def __init__(
        self,
        energy_ev: ArrayLike | None,
        references: ArrayLike,
        shift_ev: ArrayLike | None = None,
        *,
        references_energy_ev: ArrayLike | None = None,
        shape: tuple[int, int] | None = None,
        keep_frames: bool = True,
    ) -> None:
        planned = None if energy_ev is None else checked_energies(energy_ev)
        self._references, self._references_energy = checked_references(references, planned, references_energy_ev)
        self._planned = planned
        self._shift_given = shift_ev
        self._keep = keep_frames
        self._shape: tuple[int, int] | None = None
        if shape is None and shift_ev is not None:
            given = np.shape(getattr(shift_ev, "shift_ev", shift_ev))
            shape = (given[0], given[1]) if len(given) == 2 else None
        if shape is not None:
            self._begin(shape)

    def update(self, frame: ArrayLike, energy_ev: float) -> None:
        """Take one absorbance frame, (ny, nx), at its measured nominal energy, eV.

        Raises
        ------
        ValueError
            Another shape than the frames before, an energy that is not finite.
        """
        image = np.asarray(frame, np.float32)
        if image.ndim != 2 or 0 in image.shape:
            raise ValueError(f"frame of shape {image.shape}, expected (ny, nx)")
        energy = float(checked_energies([float(energy_ev)])[0])
        if self._shape is None:
            self._begin((image.shape[0], image.shape[1]))
        if image.shape != self._shape:
            raise ValueError(f"frame of {image.shape} px, the frames before had {self._shape} px")
        self._waiting[self._held] = image.ravel()
        self._energies[self._held] = energy
        self._held += 1
        if self._held == FRAMES_AT_ONCE:
            self._flush()

    def take(self, cube: Float32, energy_ev: Float) -> None:
        """Take a whole checked cube, (n, ny, nx), at once."""
        flat = cube.reshape(len(cube), -1)
        self._flush()
        for start in range(0, len(flat), FRAMES_AT_ONCE):
            self._add(flat[start : start + FRAMES_AT_ONCE], energy_ev[start : start + FRAMES_AT_ONCE], copied=True)

    def maps(self) -> FractionMaps:
        """Return the maps of the frames so far: `result` when all planned ones are there, before that without the second look.

        Before the second look glitches and the beam's walk are still in the maps; sigma tells what they are worth otherwise.

        Raises
        ------
        ValueError
            No frame yet.
        """
        self._flush()
        if self._planned is not None and self._taken >= self._planned.size:
            return self.result()
        return self._told(final=False)

    def result(self) -> FractionMaps:
        """Return the maps of the frames so far as `fit_fractions` gives them: without glitches, with R-factor, checked.

        Raises
        ------
        ValueError
            As `fit_fractions`.
        """
        self._flush()
        self._check_energies()
        with single_blas():
            return self._told(final=True)

    @property
    def frames(self) -> int:
        """Frames taken, those that do not count included."""
        return self._taken + self._held

    def _begin(self, shape: tuple[int, int]) -> None:
        self._shape = (int(shape[0]), int(shape[1]))
        shift = checked_shift(self._shift_given, self._shape)
        self._no_shift: Mask = np.isnan(shift)
        if self._no_shift.all():
            raise ValueError("shift map: NaN in every pixel; was the foil in the beam?")
        low, high = float(np.nanmin(shift)), float(np.nanmax(shift))
        self._bins, self._which = shift_bins(np.where(self._no_shift, low, shift))
        basis = ShiftedReferences(self._references, self._references_energy, low, high)
        span = self._references_energy if self._planned is None else self._planned
        centre, scale = float(span.mean()), max(float(np.ptp(span)) / 2, 1.0)
        planned = None if self._planned is None else self._planned.size
        self._moments = Moments(basis, shift.size, centre, scale, planned)
        self._waiting: Float32 = np.empty((FRAMES_AT_ONCE, shift.size), np.float32)
        self._energies: Float = np.empty(FRAMES_AT_ONCE)
        self._held = self._taken = 0
        self._kept: list[Float32] = []
        self._used_energies: list[float] = []

    def _flush(self) -> None:
        if self._shape is None:
            raise ValueError("no frame yet")
        if self._held:
            self._add(self._waiting[: self._held], self._energies[: self._held], copied=False)
            self._held = 0

    def _add(self, block: Float32, energies: Float, *, copied: bool) -> None:
        used = self._moments.add(block, energies)
        self._taken += len(block)
        self._used_energies.extend(energies[used])
        if self._keep:
            kept = block if used.all() and copied else block[used] if not used.all() else block.copy()
            self._kept.append(kept)

    def _check_energies(self) -> None:
        used = np.array(self._used_energies)
        low, high = self._moments.basis.low_ev, self._moments.basis.high_ev
        if used.size == 0:
            raise ValueError(
                f"none of {self.frames} frames can be used: their energies are outside the references "
                f"({self._references_energy[0]:g} to {self._references_energy[-1]:g} eV), or they are dark, saturated or NaN"
            )
        for number, spectrum in enumerate(self._references):
            if float(np.ptp(spectrum)) < LEAST_REFERENCE_JUMP:
                raise ValueError(
                    f"reference {number} has no edge (it spans {float(np.ptp(spectrum)):.3g}): a spectrum from before to after the edge, "
                    "normalised to a jump of 1, is needed"
                )
            edge = _half_height_ev(spectrum, self._references_energy)
            before, after = int((used + low < edge).sum()), int((used + high > edge).sum())
            if before < LEAST_BEFORE or after < LEAST_AFTER:
                raise ValueError(
                    f"energies {used.min():g} to {used.max():g} eV have {before} frames before and {after} after the edge of "
                    f"reference {number} at {edge:g} eV: at least {LEAST_BEFORE} and {LEAST_AFTER} are needed; are the energies "
                    "(and the references') in eV, and of this edge?"
                )
        if not determined(self._moments, self._moments.basis.weights(self._bins[:1])).all():
            raise ValueError(
                f"the {len(self._references)} references cannot be told apart at these {used.size} energies: "
                f"{_alike(self._references)}; leave one out, or take more energies near the edge"
            )

    def _told(self, *, final: bool) -> FractionMaps:
        assert self._shape is not None
        moments, shape = self._moments, self._shape
        if moments.frames == 0:
            raise ValueError("no frame that counts yet")
        k = moments.basis.count
        rejected = np.zeros(moments.pixels, np.int32)
        offsets, misfit = np.zeros(moments.frames), None
        if final and self._keep:
            found = SecondLook(moments, self._kept, self._bins, self._which).look()
            solution, rejected, offsets, misfit = found.solution, found.rejected, found.offsets, found.misfit
            left, variance, signal = found.squares, found.variance, found.signal
        else:
            solution = solve(moments, self._bins, self._which)
            left = np.maximum(_beyond_background(moments) - solution.explained, 0.0)
            signal = left + solution.explained
            variance = left / np.maximum(solution.samples - k - 2, 1)
        jump = solution.amounts.sum(0)
        sigma_jump = np.sqrt(np.maximum(variance * solution.row_sums.sum(0), 0))
        masked = moments.dead | self._no_shift
        known = moments.frames > k + 2
        if final:
            no_edge = ~masked & ~(jump > LEAST_JUMP_SIGMA * sigma_jump)
            no_edge |= ~masked & ~(jump > 1e-6)
            masked = masked | no_edge
            _tell(masked, moments.dead, self._no_shift, no_edge, misfit)
            if masked.all():
                raise ValueError(
                    f"no pixel of {masked.size} can be fitted: {int(moments.dead.sum())} dark or not finite, "
                    f"{int(self._no_shift.sum())} without energy shift, {int(no_edge.sum())} without an edge"
                )
        with np.errstate(invalid="ignore", divide="ignore"):
            fractions = np.where(jump > 0, solution.amounts / jump, 1.0 / k)
            spread = solution.spread - 2 * fractions * solution.row_sums + fractions**2 * solution.row_sums.sum(0)
            sigma = np.sqrt(np.maximum(spread * variance, 0)) / np.where(jump > 0, jump, np.nan)
            sigma = np.minimum(np.nan_to_num(sigma, nan=1.0, posinf=1.0), 1.0) if known else np.ones_like(fractions)
            r_factor = left / np.where(signal > 0, signal, np.nan)
        fractions[:, masked] = sigma[:, masked] = np.nan
        return FractionMaps(
            fractions.reshape(k, *shape),
            np.where(masked, np.nan, jump).reshape(shape),
            np.where(masked, np.nan, r_factor).reshape(shape),
            sigma.reshape(k, *shape),
            masked.reshape(shape),
            rejected.reshape(shape),
            moments.frames,
            moments.dropped_frames,
            offsets,
            misfit,
        )


def _beyond_background(moments: Moments) -> Float:
    """Sum of squares that a straight line leaves, per pixel."""
    gram = moments.gram[:2, :2]
    sums = moments.sums[:2].astype(np.float64)
    line = np.linalg.pinv(gram) @ sums
    result: Float = moments.square - (line * sums).sum(0)
    return np.maximum(result, 0.0)


def _half_height_ev(spectrum: Float, energies: Float) -> float:
    """Energy at which a reference first reaches half of its highest value above its lowest."""
    level = float(spectrum[0] + (np.median(spectrum[-max(len(spectrum) // 4, 1) :]) - spectrum[0]) / 2)
    above = spectrum > level if spectrum[-1] > spectrum[0] else spectrum < level
    return float(energies[int(np.argmax(above))])


def _alike(references: Float) -> str:
    if len(references) == 1:
        return "it is a straight line there"
    correlation = np.corrcoef(references) - 2 * np.eye(len(references))
    first, second = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    return f"{min(first, second)} and {max(first, second)} are the most alike (correlation {correlation[first, second]:.6f})"


def _tell(masked: Mask, dead: Mask, no_shift: Mask, no_edge: Mask, misfit: float | None) -> None:
    why = f"{int(dead.sum())} dark or not finite, {int(no_shift.sum())} without energy shift, {int(no_edge.sum())} without an edge"
    tell_masked("fit_fractions", int(masked.sum()), masked.size, why)
    if misfit is not None and misfit > MISFIT_RATIO:
        log.warning(
            "fit_fractions: the mean spectrum is missed by %.1f times what noise explains: is a reference missing, or the energy "
            "calibration off?",
            misfit,
        )
