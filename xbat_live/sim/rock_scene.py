"""Frames of full-field XAS imaging: few spectra times maps on blocks of 4 x 4 pixels, noise from a pool, 53 frames a second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbat_live.sim.cell import Cell
from xbat_live.sim.imager import Shot
from xbat_live.sim.instabilities import seeded
from xbat_live.sim.optics import BeamProfile, bin_sum
from xbat_live.sim.render import SceneState
from xbat_live.sim.rock import component_fractions, component_spectra, foil_spectrum
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi

__all__ = ["RockImager"]

_Float32 = npt.NDArray[np.float32]

BLOCK_PX = 4
_STREAM = 83
_SHIFT_BINS = 96
_JUMP, _BACKGROUND = 0.5, 0.35  # optical density of the electrode
_FOIL_JUMP, _FOIL_BACKGROUND = 1.0, 0.25
_SLOPE = -2.8
_TABLE_EV = (8200.0, 8960.0, 0.05)
_GLITCHES_EV = ((8421.0, 0.05, 1.2), (8702.0, 0.07, 1.6))
_HOT_PER_PX = 6e-6
_POOL_EXTRA_PX = (37, 41)


@dataclass(frozen=True)
class _Field:
    """What the field of view shows, on blocks of pixels, flat (n,)."""

    region: tuple[Roi, tuple[float, float], int]
    beam: _Float32
    sample: _Float32
    foil: _Float32
    fractions: _Float32


class RockImager:
    """Camera in front of electrode, foil or nothing, whatever the stage has put there.

    The true energy at a pixel is that of the encoder plus a shift, which varies over the field (vertical dispersion of the beam): see
    `energy_shift_ev`. Frames within `_REFRESH` sample states share the maps; only spectra and noise are made for each frame.
    """

    def __init__(self, settings: TwinSettings, cell: Cell, beam: BeamProfile) -> None:
        self._settings, self._cell, self._beam = settings, cell, beam
        rows, columns = (math.ceil(size / BLOCK_PX) for size in settings.sensor_yx)
        y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
        self.energy_shift_ev: _Float32 = (0.8 + 1.6 * y + 0.15 * x + 0.2 * y * y).astype(np.float32)
        """True minus encoder energy on blocks of pixels, (rows, columns), eV."""
        low, high = float(self.energy_shift_ev.min()), float(self.energy_shift_ev.max())
        self._bins_ev = np.linspace(low, high, _SHIFT_BINS)
        self._bin = np.rint((self.energy_shift_ev - low) / (high - low) * (_SHIFT_BINS - 1)).astype(np.intp)
        self._table_ev = np.arange(*_TABLE_EV)
        self._spectra = np.vstack([component_spectra(self._table_ev), foil_spectrum(self._table_ev)])
        self._depths: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
        self._field: _Field | None = None
        self._state_of_field: tuple[object, ...] = ()
        rng = seeded(settings.seed, _STREAM)
        shape = tuple(n * BLOCK_PX + extra for n, extra in zip((rows, columns), _POOL_EXTRA_PX, strict=True))
        self._pool: _Float32 = rng.standard_normal(shape, dtype=np.float32)
        self._buffer: _Float32 | None = None
        hot = max(1, round(_HOT_PER_PX * math.prod(settings.sensor_yx)))
        self._hot = tuple(rng.integers(0, size, hot) for size in settings.sensor_yx)
        self._phases = rng.uniform(0, 2 * math.pi, 6)

    # -- Imager

    def expose(self, state: SceneState, shot: Shot) -> tuple[npt.NDArray[np.uint16], float]:
        """See `xbat_live.sim.imager.Imager`."""
        settings = self._settings
        signal = self._signal(state, shot)
        gain = np.float32(settings.counts_per_photon)
        mean = gain * signal + np.float32(settings.dark_counts)
        sigma = np.sqrt(gain * gain * signal + np.float32(settings.read_noise_counts**2))
        image = self._noisy(mean, sigma, shot.number)
        roi = shot.roi
        top, left = roi.min_y % BLOCK_PX, roi.min_x % BLOCK_PX
        image = image[top : top + roi.size_y, left : left + roi.size_x]
        if shot.bin_yx != (1, 1):
            image = np.minimum(bin_sum(image.astype(np.float32), shot.bin_yx), 65535.0).astype(np.uint16)
        if shot.open_s > 0:
            self._light_hot_pixels(image, shot)
        return np.ascontiguousarray(image), float(signal.mean())

    def expected_counts(self, state: SceneState, shot: Shot) -> _Float32:
        """See `xbat_live.sim.imager.Imager`."""
        signal = self._signal(state, shot) * np.float32(self._settings.counts_per_photon)
        whole = np.kron(signal, np.ones((BLOCK_PX, BLOCK_PX), np.float32))
        roi = shot.roi
        top, left = roi.min_y % BLOCK_PX, roi.min_x % BLOCK_PX
        return bin_sum(whole[top : top + roi.size_y, left : left + roi.size_x], shot.bin_yx)

    def prepare(self, state: SceneState, shot: Shot) -> None:
        """See `xbat_live.sim.imager.Imager`."""
        self._signal(state, shot)

    # -- inside

    def _signal(self, state: SceneState, shot: Shot) -> _Float32:
        """Return the mean number of detected photons per pixel on blocks of pixels."""
        field = self._see(state, shot)
        settings, energy_ev = self._settings, state.energy_ev
        rows, columns = self._blocks(shot.roi)
        bins = self._bin[rows, columns].ravel()
        at = (energy_ev + self._bins_ev - _TABLE_EV[0]) / _TABLE_EV[2]
        index = np.clip(np.rint(at).astype(np.intp), 0, self._table_ev.size - 1)
        spectra = self._spectra[:, index].astype(np.float32)  # (components and foil, bins)
        absorbance = np.einsum("kn,kn->n", field.fractions, spectra[:-1].take(bins, axis=1))
        decline = np.float32((energy_ev / 8333.0) ** _SLOPE)
        absorbance = field.sample * (np.float32(_BACKGROUND) * decline + np.float32(_JUMP) * absorbance)
        absorbance += (field.sample > 0) * np.float32(self._cell_depth(energy_ev))
        if field.foil.any():
            foil = spectra[-1].take(bins)
            absorbance += field.foil * (np.float32(_FOIL_BACKGROUND) * decline + np.float32(_FOIL_JUMP) * foil)
        photons = settings.flux_ph_s * settings.detection_efficiency * settings.pixel_size_um**2
        photons *= shot.relative_flux * shot.open_s * _delivered(energy_ev)
        signal = np.exp(-absorbance) * field.beam * np.float32(photons)
        return signal.reshape(rows.stop - rows.start, columns.stop - columns.start)

    def _cell_depth(self, energy_ev: float) -> float:
        if self._depths is None:
            energies = np.arange(_TABLE_EV[0], _TABLE_EV[1], 8.0)
            self._depths = energies, np.array([self._cell.optical_depth(float(energy)) for energy in energies])
        return float(np.interp(energy_ev, *self._depths))

    def _blocks(self, roi: Roi) -> tuple[slice, slice]:
        return (
            slice(roi.min_y // BLOCK_PX, math.ceil((roi.min_y + roi.size_y) / BLOCK_PX)),
            slice(roi.min_x // BLOCK_PX, math.ceil((roi.min_x + roi.size_x) / BLOCK_PX)),
        )

    def _see(self, state: SceneState, shot: Shot) -> _Field:
        """Return the maps of the field of view; made anew when the stage, the beam or the sample has changed."""
        offset = (round(shot.beam_offset_yx_um[0], 1), round(shot.beam_offset_yx_um[1], 1))
        region = (shot.roi, (round(state.position_yx_um[0], 1), round(state.position_yx_um[1], 1)), 0)
        known = (region, offset, id(state.soc_map))
        if self._field is None or self._state_of_field != known:
            self._field, self._state_of_field = self._make_field(state, shot, region), known
        return self._field

    def _make_field(self, state: SceneState, shot: Shot, region: tuple[Roi, tuple[float, float], int]) -> _Field:
        settings = self._settings
        rows, columns = self._blocks(shot.roi)
        step_um = BLOCK_PX * settings.pixel_size_um
        places = []  # of the blocks from the centre of the field
        for blocks, sensor in zip((rows, columns), settings.sensor_yx, strict=True):
            places.append((np.arange(blocks.start, blocks.stop) + 0.5) * step_um - sensor * settings.pixel_size_um / 2)
        along = [
            self._beam.along(axis, place - offset)
            for axis, place, offset in zip("yx", places, shot.beam_offset_yx_um, strict=True)
        ]
        beam = np.outer(*along)
        y_um, x_um = (place + centre for place, centre in zip(places, state.position_yx_um, strict=True))
        size_x, size_y = settings.sample_size_um
        sample = np.outer(np.abs(y_um) <= size_y / 2, np.abs(x_um) <= size_x / 2).astype(np.float64)
        p = self._phases
        waves = np.add.outer(
            np.sin(y_um / 310 + p[0]) + np.sin(y_um / 97 + p[1]), np.sin(x_um / 420 + p[2]) + np.sin(x_um / 83 + p[3])
        )
        sample *= 1.0 + 0.012 * waves
        (foil_x, foil_y), (width, height) = settings.foil_centre_um, settings.foil_size_um
        foil = np.outer(np.abs(y_um - foil_y) <= height / 2, np.abs(x_um - foil_x) <= width / 2)
        progress = state.soc_map
        index = [
            np.clip(np.rint(axis_um / settings.dose_grid_um + (count - 1) / 2).astype(int), 0, count - 1)
            for axis_um, count in zip((y_um, x_um), progress.shape, strict=True)
        ]
        fractions = component_fractions(progress[np.ix_(*index)]).reshape(3, -1)
        flat = (beam.ravel(), sample.ravel(), foil.ravel(), fractions)
        return _Field(region, *(np.ascontiguousarray(part, dtype=np.float32) for part in flat))

    def _noisy(self, mean: _Float32, sigma: _Float32, number: int) -> npt.NDArray[np.uint16]:
        """Return counts with noise: ``mean + sigma n`` in two passes, the second one rounds."""
        rows, columns = mean.shape
        shape = (rows, BLOCK_PX, columns * BLOCK_PX)
        if self._buffer is None or self._buffer.shape != shape:
            self._buffer = np.empty(shape, np.float32)
        rng = seeded(self._settings.seed, _STREAM, number)
        first, second = (int(rng.integers(0, extra)) for extra in _POOL_EXTRA_PX)
        pool = self._pool[first : first + rows * BLOCK_PX, second : second + columns * BLOCK_PX].reshape(shape)
        # Blocks are widened along the rows first: loops over four pixels each would take twice as long.
        wide_sigma, wide_level = (np.repeat(part, BLOCK_PX, axis=1)[:, None, :] for part in (sigma, mean))
        wide_level += np.float32(0.5)
        np.multiply(pool, wide_sigma, out=self._buffer)
        full = float(self._settings.saturation_counts)
        image = np.empty(shape, np.uint16)
        spread = 6 * float(sigma.max())
        if float(mean.max()) + spread > full or float(mean.min()) - 6 * float(sigma.min()) < 0:
            self._buffer += wide_level
            np.clip(self._buffer, 0.0, full, out=self._buffer)
            np.copyto(image, self._buffer, casting="unsafe")
        else:
            np.add(self._buffer, wide_level, out=image, casting="unsafe")
        return image.reshape(rows * BLOCK_PX, columns * BLOCK_PX)

    def _light_hot_pixels(self, image: npt.NDArray[np.uint16], shot: Shot) -> None:
        if shot.bin_yx != (1, 1):
            return
        roi = shot.roi
        y, x = self._hot[0] - roi.min_y, self._hot[1] - roi.min_x
        inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
        image[y[inside], x[inside]] = self._settings.saturation_counts


def _delivered(energy_ev: float) -> float:
    """Flux behind the monochromator over its nominal value: a slope and two crystal glitches."""
    value = 1.0 - 0.15 * (energy_ev - 8390.0) / 612.0
    for at_ev, depth, width_ev in _GLITCHES_EV:
        value *= 1.0 - depth * math.exp(-(((energy_ev - at_ev) / width_ev) ** 2))
    return value
