"""The graphite electrode in visible light: flakes that change brightness with lithiation, moved by deformation.

The surface is a periodic map in sample coordinates (index ``j`` is at ``j * pixel``, period 1024 px), so that the
microscope finds electrode wherever the stage is. Nothing is made before the first frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .instabilities import seeded
from .render import PAD_PX, Transmission
from .settings import TwinSettings
from .truth import Roi

__all__ = ["GraphiteSurface", "SurfaceState", "graphite_reflectance"]

_Float32 = npt.NDArray[np.float32]

_PERIOD_PX = 1024
_FLAKE_STREAM, _TEXTURE_STREAM, _PLATE_STREAM = 101, 103, 107
_FLAKE_SPACING_UM = 11.0
_FLAKE_RADIUS_UM = 6.5
_PLATE_SPACING_UM = 30.0
_PLATE_EDGE_UM = 5.0
_PSF_SIGMA_UM = 0.385  # 0.21 wavelength / NA, 550 nm, NA 0.3 (Sun et al. 2025: 10x objective)
_PIXEL_APERTURE_PX = 0.29  # standard deviation of a pixel's width
_REACH_PX = 4  # of the spline beyond the deformation
_BINDER_REFLECTANCE = 0.05
# white-light brightness of graphite from empty (grey) over stages 3 (dark blue) and 2 (red) to 1 (gold)
_LITHIATION = np.array([0.0, 0.2, 0.35, 0.5, 0.65, 0.85, 1.0])
_BRIGHTNESS = np.array([0.17, 0.15, 0.15, 0.21, 0.25, 0.33, 0.36])


def graphite_reflectance(lithiation: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the reflectance (0..1) of graphite in white light at a local state of charge of 0..1."""
    return np.interp(lithiation, _LITHIATION, _BRIGHTNESS)


@dataclass(frozen=True)
class SurfaceState:
    """What a noise-free image depends on: sample coordinate (y, x) in um under the field centre, state of charge."""

    position_yx_um: tuple[float, float]
    soc: float


@dataclass(frozen=True)
class _Maps:
    """Float32 (1024, 1024) each: relative brightness, share of graphite, lag of lithiation, displacement of unit peak."""

    albedo: _Float32
    graphite: _Float32
    lag: _Float32
    move_y: _Float32
    move_x: _Float32


class GraphiteSurface:
    """Renders the surface on the sensor. Not thread-safe: the microscope holds its lock.

    Parameters
    ----------
    settings
        Seed, pixel, sensor and deformation of the microscope.
    """

    def __init__(self, settings: TwinSettings) -> None:
        self._settings = settings
        self._pixel_um = settings.optical_pixel_size_um

    def image(self, state: SurfaceState, roi: Roi) -> Transmission:
        """Return the reflectance (0..1) on `roi`, with a border so that it can be blurred."""
        from scipy import ndimage

        sensor, amplitude_px = self._settings.optical_sensor_yx, self.deformation_px(state.soc)
        reach = _REACH_PX + math.ceil(abs(amplitude_px))
        axes, indices = [], []
        for centre_um, first, size, count in zip(
            state.position_yx_um, (roi.min_y, roi.min_x), (roi.size_y, roi.size_x), sensor, strict=True
        ):
            start = centre_um / self._pixel_um + first - (count - 1) / 2 - PAD_PX
            whole = math.floor(start)
            length = size + 2 * PAD_PX
            axes.append(np.arange(length) + (start - whole + reach))
            indices.append((whole - reach + np.arange(length + 2 * reach + 1)) % _PERIOD_PX)
        window, maps = np.ix_(*indices), self._maps
        lithiation = np.clip(state.soc + maps.lag[window], 0.0, 1.0)
        graphite = maps.graphite[window]
        surface = graphite * graphite_reflectance(lithiation) + (1.0 - graphite) * _BINDER_REFLECTANCE
        surface *= maps.albedo[window]
        sigma_px = math.hypot(_PSF_SIGMA_UM / self._pixel_um, _PIXEL_APERTURE_PX)
        surface = ndimage.gaussian_filter(surface, sigma_px, mode="nearest", truncate=4.0)
        inner = np.ix_(*(index[reach : reach + len(axis)] for index, axis in zip(indices, axes, strict=True)))
        rows = axes[0][:, None] - amplitude_px * maps.move_y[inner]
        columns = axes[1][None, :] - amplitude_px * maps.move_x[inner]
        seen = ndimage.map_coordinates(surface, [rows, columns], order=3, mode="nearest", output=np.float32)
        return Transmission(np.maximum(seen, 0.0), (roi.size_y, roi.size_x))

    def deformation_px(self, soc: float) -> float:
        """Return the largest local displacement at state of charge `soc`, px."""
        return self._settings.optical_deformation_px * soc

    def displacement_px(self, state: SurfaceState, roi: Roi) -> tuple[_Float32, _Float32]:
        """Return the true local displacement of the content (y, x) on `roi` against state of charge 0, px."""
        indices = [
            (round(centre_um / self._pixel_um - (count - 1) / 2) + first + np.arange(size)) % _PERIOD_PX
            for centre_um, first, size, count in zip(
                state.position_yx_um,
                (roi.min_y, roi.min_x),
                (roi.size_y, roi.size_x),
                self._settings.optical_sensor_yx,
                strict=True,
            )
        ]
        window, amplitude_px = np.ix_(*indices), np.float32(self.deformation_px(state.soc))
        return amplitude_px * self._maps.move_y[window], amplitude_px * self._maps.move_x[window]

    @cached_property
    def _maps(self) -> _Maps:
        """Flakes painted over one another, grains on them; lithiation lags between flakes and over the field."""
        shape = (_PERIOD_PX, _PERIOD_PX)
        albedo, graphite, lag = np.ones(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._paint_flakes(albedo, graphite, lag)
        rng = seeded(self._settings.seed, _TEXTURE_STREAM)
        for sigma_px, relative in ((0.7, 0.16), (2.5, 0.10)):
            albedo *= np.exp(relative * _smooth_noise(rng, sigma_px))
        lag += 0.08 * _smooth_noise(rng, 40.0)
        edge_px = _PLATE_EDGE_UM / self._pixel_um
        move = [_smoothed(component, edge_px) for component in self._plates()]
        peak = float(np.hypot(*move).max())
        return _Maps(albedo, graphite, lag, *((component / peak).astype(np.float32) for component in move))

    def _paint_flakes(self, albedo: _Float32, graphite: _Float32, lag: _Float32) -> None:
        """Paint one elliptic flake per cell of a jittered grid, in random order."""
        rng = seeded(self._settings.seed, _FLAKE_STREAM)
        cells = max(2, round(_PERIOD_PX * self._pixel_um / _FLAKE_SPACING_UM))
        pitch_px = _PERIOD_PX / cells
        for cell in rng.permutation(cells * cells):
            jitter, angle = rng.uniform(-0.35, 0.35, 2), rng.uniform(0.0, math.pi)
            centre = (np.array(divmod(int(cell), cells)) + 0.5 + jitter) * pitch_px
            radius = _FLAKE_RADIUS_UM / self._pixel_um * math.exp(0.3 * float(rng.standard_normal()))
            slender, tone, late = rng.uniform(0.55, 1.0), rng.uniform(0.7, 1.5), 0.10 * float(rng.standard_normal())
            facet = rng.uniform(-0.25, 0.25, 2)
            reach = math.ceil(radius) + 2
            rows, columns = (np.arange(-reach, reach + 1) + round(float(value)) for value in centre)
            dy, dx = rows[:, None] - centre[0], columns[None, :] - centre[1]
            along = dy * math.sin(angle) + dx * math.cos(angle)
            across = (dy * math.cos(angle) - dx * math.sin(angle)) / slender
            # a soft rim, so that the map is not aliased
            cover = np.clip(radius - np.hypot(along, across) + 0.5, 0.0, 1.0).astype(np.float32)
            window = np.ix_(rows % _PERIOD_PX, columns % _PERIOD_PX)
            shade = np.clip(tone * (1.0 + (facet[0] * dy + facet[1] * dx) / radius), 0.4, 2.0)
            for target, value in ((albedo, shade), (graphite, 1.0), (lag, late)):
                target[window] += cover * (value - target[window])

    def _plates(self) -> tuple[_Float32, _Float32]:
        """Return displacements (y, x) constant on plates (the nearest of scattered points), float32 (1024, 1024) each.

        Neighbouring regions move as wholes and against each other, as Sun et al. (2025) saw on graphite.
        """
        from scipy.spatial import cKDTree

        rng = seeded(self._settings.seed, _PLATE_STREAM)
        count = max(4, round((_PERIOD_PX * self._pixel_um / _PLATE_SPACING_UM) ** 2))
        coarse = _PERIOD_PX // 4
        tree = cKDTree(rng.uniform(0.0, coarse, (count, 2)), boxsize=coarse)
        grid = np.stack(np.meshgrid(np.arange(coarse), np.arange(coarse), indexing="ij"), axis=-1)
        _, nearest = tree.query(grid.reshape(-1, 2), workers=1)
        motion = rng.standard_normal((2, count), dtype=np.float32)
        maps = [np.kron(values[nearest].reshape(coarse, coarse), np.ones((4, 4), np.float32)) for values in motion]
        return maps[0], maps[1]


def _smooth_noise(rng: np.random.Generator, sigma_px: float) -> _Float32:
    """Return a periodic random field of unit rms, float32 (1024, 1024)."""
    field = _smoothed(rng.standard_normal((_PERIOD_PX, _PERIOD_PX), dtype=np.float32), sigma_px)
    return field / field.std()


def _smoothed(field: _Float32, sigma_px: float) -> _Float32:
    """Return a periodic field blurred by a Gaussian, without its mean."""
    import scipy.fft

    fy, fx = np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])[None, :]
    factor = -2 * math.pi**2 * sigma_px**2
    spectrum = scipy.fft.rfft2(field)
    spectrum *= np.exp(factor * fy**2).astype(np.float32) * np.exp(factor * fx**2).astype(np.float32)
    spectrum[0, 0] = 0.0
    smooth: _Float32 = scipy.fft.irfft2(spectrum, s=field.shape)
    return smooth
