"""Energy calibration of every pixel from a foil cube: one template for all pixels, its shift in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from xbat_live.spectra.checks import Float, Float32, Mask, checked_cube, checked_spectrum_energies, tell_masked
from xbat_live.spectra.edge import ascending
from xbat_live.spectra.shifted import ShiftedReferences
from xbat_live.spectra.surface import smooth_surface
from xbat_live.spectra.template import Template, first_inflection, fit_template, group_means
from xbat_live.spectra.threads import single_blas
from xbat_live.spectra.windows import edge_of, mean_spectrum

NI_K_EV = 8333.0
REACH_EV = 60.0
LEAST_FRAMES = 12
LEAST_FINITE = 0.8
LEAST_JUMP_SIGMA = 8.0
MOST_SHIFT_EV = 100.0
LIMIT_SIGMA = 6.0
_MEAN_TO_SIGMA = float(np.sqrt(np.pi / 2))
_MOST_NOISE = 3.0
_ROUNDS = 4
_CENTRAL = 0.2
_MOST_START_EV = 20.0
_MARGIN_EV = 1.0
_BIN_EV = 0.01
_TABLE_EV = 0.1
_MOST_TEMPLATE_PIXELS = 24576


@dataclass(frozen=True, eq=False)
class ShiftMap:
    """Energy shift of every pixel: ``true_energy = energy_ev + shift_ev``.

    Attributes
    ----------
    shift_ev, sigma_ev
        Shift and its standard uncertainty, (ny, nx) float64, eV.
    masked
        Pixels whose own foil spectrum cannot be used, (ny, nx): they have the smooth surface of the others, or NaN when there is none.
    first_inflection_ev
        Nominal energy of the foil's first inflection in the middle (median) of the field, eV.
    """

    shift_ev: Float
    sigma_ev: Float
    masked: Mask
    first_inflection_ev: float

    @property
    def masked_count(self) -> int:
        """Number of masked pixels."""
        return int(self.masked.sum())


def calibrate_energy(foil_cube: ArrayLike, energy_ev: ArrayLike, edge_ev: float = NI_K_EV) -> ShiftMap:
    """Return the energy shift that puts the foil's first inflection at `edge_ev` in every pixel.

    All pixels see the same foil. Its spectrum is found from all of them together, finer than the energy steps, and its first inflection
    from that; the shift of a pixel is that of the whole edge (least squares with its own background and jump), which is several times
    surer than the inflection of a single noisy spectrum, and not biased by smoothing it. Frames whose light walked are recognised by
    being off in all pixels alike. Where the shifts follow a smooth surface within their noise, they are drawn towards it.

    Parameters
    ----------
    foil_cube
        Absorbance of the foil, (n_energy, ny, nx), any order of energy.
    energy_ev
        Nominal energies, (n_energy,), eV.
    edge_ev
        True energy of the first inflection, eV; Ni: 8333.

    Raises
    ------
    ValueError
        No edge or no inflection in the energies, an inflection more than 100 eV away from `edge_ev`, too few energies, no usable pixel.
    """
    values = checked_cube(foil_cube, "foil_cube")
    energies = checked_spectrum_energies(energy_ev, len(values))
    shape = (values.shape[1], values.shape[2])
    values, energies = ascending(values, energies)
    flat = values.reshape(len(values), -1)
    e0 = edge_of(mean_spectrum(flat), energies)
    inside = np.flatnonzero(np.abs(energies - e0) <= REACH_EV)
    if inside.size < LEAST_FRAMES:
        raise ValueError(
            f"{inside.size} energies within {REACH_EV:g} eV of the foil's edge at {e0:g} eV: at least {LEAST_FRAMES} are needed"
        )
    near = slice(int(inside[0]), int(inside[-1]) + 1)
    foil, live = _usable(flat[near], energies[near], e0)
    fit = _Foil(foil, energies[near], e0)
    with single_blas():
        fit.run()
    inflection, sigma_inflection = first_inflection(fit.template, float(energies[near][0]) + 5, e0 + REACH_EV / 2)
    if abs(inflection - edge_ev) > MOST_SHIFT_EV:
        raise ValueError(
            f"the foil's first inflection is at {inflection:.1f} eV (nominal), {abs(inflection - edge_ev):.0f} eV from {edge_ev:g} eV: "
            "another element's foil, or another edge energy?"
        )
    shift, sigma = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    middle = float(np.median(fit.shift))
    shift[live] = fit.shift + (edge_ev - inflection)
    sigma[live] = fit.sigma
    smooth = smooth_surface(shift.reshape(shape), sigma.reshape(shape))
    masked = ~live.reshape(shape) | smooth.outlier
    tell_masked(
        "calibrate_energy", int(masked.sum()), masked.size, "no usable foil spectrum; the smooth surface is taken"
    )
    return ShiftMap(smooth.values, np.hypot(smooth.sigma, sigma_inflection), masked, inflection - middle)


def _usable(foil: Float32, energies: Float, e0: float) -> tuple[Float32, Mask]:
    """Return the spectra near the edge of the pixels that have one, single gaps bridged, and which pixels those are."""
    finite = np.isfinite(foil)
    whole: Mask = np.asarray(finite.all(0))
    live: Mask = whole | np.asarray(finite.mean(0) >= LEAST_FINITE)
    with np.errstate(invalid="ignore"):
        before, after = foil[energies < e0 - 15], foil[energies > e0 + 20]
        if min(len(before), len(after)) < 2:
            raise ValueError(
                f"energies {energies[0]:g} to {energies[-1]:g} eV do not reach 15 eV before and 20 eV after the foil's edge at {e0:g} eV"
            )
        jump = np.nanmean(np.where(np.isfinite(after), after, np.nan)[:, live], axis=0)
        jump = jump - np.nanmean(np.where(np.isfinite(before), before, np.nan)[:, live], axis=0)
        noise = np.nanmedian(np.abs(np.diff(before[:, live], axis=0)), axis=0) * (1.4826 / np.sqrt(2))
        good = (
            (jump > LEAST_JUMP_SIGMA * noise / np.sqrt(len(before))) & (jump > 0.1 * np.nanmedian(jump)) & (jump > 1e-4)
        )
    live[np.flatnonzero(live)[~good]] = False
    if not live.any():
        raise ValueError(
            f"no pixel of {live.size} shows the foil's edge: dark, saturated, NaN, or no foil in the beam; take the foil cube again"
        )
    chosen = np.array(foil[:, live])
    for column in np.flatnonzero(~whole[live]):
        gap = ~np.isfinite(chosen[:, column])
        chosen[gap, column] = np.interp(energies[gap], energies[~gap], chosen[~gap, column])
    return chosen, live


class _Foil:
    """Alternates between the template from the shifts and the shifts from the template."""

    def __init__(self, foil: Float32, energies: Float, e0: float) -> None:
        self._foil, self._energies = foil, energies
        self._x = (energies - e0) / REACH_EV
        self.shift = _start(foil, energies, e0)
        pixels = foil.shape[1]
        self.sigma = np.zeros(pixels)
        before, after = foil[energies < e0 - 15].mean(0), foil[energies > e0 + 20].mean(0)
        self._line = np.stack([before, np.zeros(pixels)]).astype(np.float64)
        self._jump = np.maximum(after - before, 1e-6).astype(np.float64)
        own = np.median(np.abs(np.diff(foil[energies < e0 - 15], axis=0)), axis=0) * 1.4826 / np.sqrt(2)
        self._noise = float(np.median(own))
        self._own_noise = own / self._jump  # of every pixel, in units of its jump
        self.template: Template

    def run(self) -> None:
        """Fill `shift`, `sigma` and `template`."""
        for number in range(_ROUNDS):
            # First from pixels of about one shift: the start is a few per cent off in scale, and template and shifts would keep that.
            self._fit_template(_CENTRAL if number == 0 else 1.0)
            self._fit_shifts(bridge=number > 0)
        self._fit_template()

    def _fit_template(self, share: float = 1.0) -> None:
        # Pixels at the beam's rim, with little light and a shift that is mostly noise, would spoil the template for all.
        calm = self._own_noise <= _MOST_NOISE * np.median(self._own_noise)
        low, high = np.quantile(self.shift[calm], [0.5 - share / 2, 0.5 + share / 2])
        part = np.flatnonzero((self.shift >= low) & (self.shift <= high) & calm)
        part = part[:: max(1, -(-part.size // _MOST_TEMPLATE_PIXELS))]
        line = self._line[:, part].astype(np.float32)
        spectra = self._foil[:, part] - line[0]
        spectra -= np.multiply.outer(self._x.astype(np.float32), line[1])
        spectra /= self._jump[part].astype(np.float32)
        centred = self.shift[part]
        means, shifts, counts = group_means(spectra, centred)
        noise = max(self._noise / float(np.median(self._jump)), 1e-6)
        self.template = fit_template(means, self._energies, shifts, counts, noise)

    def _fit_shifts(self, *, bridge: bool) -> None:
        energies, template = self._energies, self.template
        low, high = float(self.shift.min()) - _MARGIN_EV, float(self.shift.max()) + _MARGIN_EV
        grid = np.arange(energies[0] + low, energies[-1] + high + _TABLE_EV, _TABLE_EV)
        ends = template.spline.t[0], template.spline.t[-1]
        basis = ShiftedReferences(template.spline(np.clip(grid, *ends))[None], grid, low, high)
        rows = np.column_stack([np.ones_like(energies), self._x, basis.functions(energies)])
        data = self._foil - np.multiply.outer(template.frame_offsets, self._jump).astype(np.float32)
        gram, sums = rows.T @ rows, (rows.T.astype(np.float32) @ data).astype(np.float64)
        for _ in range(4):
            self._newton(basis, gram, sums)
        fitted = self._coefficients(basis, gram, sums)
        rest = data - rows.astype(np.float32) @ fitted.astype(np.float32)
        scale = np.abs(rest).mean(0) * np.float32(_MEAN_TO_SIGMA)
        if bridge:  # samples that are no absorption take the fitted value from now on
            wild = np.abs(rest) > LIMIT_SIGMA * scale
            wild[:, wild.mean(0) > 1 - LEAST_FINITE] = False
            if wild.any():
                self._foil[wild] -= rest[wild]
                rest[wild] = 0
        freedom = max(len(energies) - 4, 1)
        noise = np.sqrt(np.einsum("np,np->p", rest, rest) / freedom)
        self._noise = float(np.median(noise))
        self.sigma = noise * self._unit_sigma
        self._own_noise = noise / self._jump

    def _newton(self, basis: ShiftedReferences, gram: Float, sums: Float) -> None:
        """One Gauss-Newton step in shift and jump, exact at the centres of narrow bins."""
        b, u = slice(0, 2), slice(2, None)
        inverse = np.linalg.inv(gram[b, b])
        reduced = gram[u, u] - gram[u, b] @ inverse @ gram[b, u]
        rest = sums[u] - gram[u, b] @ inverse @ sums[b]
        steps = np.rint(self.shift / _BIN_EV).astype(np.int64)
        used, which = np.unique(steps, return_inverse=True)
        centres: Float = np.asarray(used * _BIN_EV, np.float64)
        value = basis.weights(centres)[:, 0]
        delta = _BIN_EV / 2
        slope = (basis.weights(centres + delta)[:, 0] - basis.weights(centres - delta)[:, 0]) / (2 * delta)
        pair = np.stack([value, slope], 1)  # (bins, 2, rank)
        small = np.linalg.inv(pair @ reduced @ pair.transpose(0, 2, 1))
        moments = np.stack([_gathered(pair[:, row], which, rest) for row in range(2)])
        jump = small[which, 0, 0] * moments[0] + small[which, 0, 1] * moments[1]
        moved = small[which, 1, 0] * moments[0] + small[which, 1, 1] * moments[1]
        self._jump = np.maximum(jump, 1e-6)
        step = np.clip(moved / self._jump, -0.5, 0.5)
        self.shift = np.clip(centres[which] + step, basis.low_ev + 0.1, basis.high_ev - 0.1)
        self._unit_sigma = np.sqrt(np.maximum(small[which, 1, 1], 0)) / self._jump

    def _coefficients(self, basis: ShiftedReferences, gram: Float, sums: Float) -> Float:
        steps = np.rint(self.shift / _BIN_EV).astype(np.int64)
        used, which = np.unique(steps, return_inverse=True)
        value = basis.weights(np.asarray(used * _BIN_EV, np.float64))[:, 0]
        functions = value[which].T * self._jump
        self._line = np.linalg.inv(gram[:2, :2]) @ (sums[:2] - gram[:2, 2:] @ functions)
        return np.concatenate([self._line, functions])


def _gathered(rows: Float, which: np.ndarray, values: Float) -> Float:
    """Return ``sum_r rows[which, r] * values[r]``."""
    total = np.zeros(values.shape[1])
    for number in range(rows.shape[1]):
        total += rows[:, number][which] * values[number]
    return total


def _start(foil: Float32, energies: Float, e0: float) -> Float:
    """Shifts against the median pixel from the area under the normalised edge: good to a few tenths of an eV."""
    before, after = foil[energies < e0 - 15].mean(0), foil[energies > e0 + 20].mean(0)
    jump = np.maximum(after - before, 1e-6)
    inside = (energies > e0 - 25) & (energies < e0 + 30)
    area = np.trapezoid((foil[inside] - before) / jump, energies[inside], axis=0)
    shift = np.nan_to_num(area - np.median(area))
    wild = np.abs(shift) > _MOST_START_EV
    shift[wild] = 0.0
    # A spectrum moved to lower nominal energy has a larger area and a positive shift.
    result: Float = shift.astype(np.float64)
    return result
