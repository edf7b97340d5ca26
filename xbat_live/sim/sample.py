"""The electrode: overlapping polydisperse NMC spheres with cracks in a porous matrix, as maps of projected thickness.

The map lives on the pixel grid in sample coordinates (index ``j`` is at ``j * pixel_size_um``) and is made in tiles
where the beam goes. Its samples define a band-limited function: a phase ramp renders any sub-pixel position.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbat_live.sim.instabilities import seeded
from xbat_live.sim.settings import TwinSettings

__all__ = ["ElectrodeSample", "Particles"]

_Float32 = npt.NDArray[np.float32]

_PARTICLE_STREAM = 3
_TEXTURE_STREAM = 5
_TILE_PX = 256
_TILES_KEPT = 300  # 150 MB
_SPACING_UM = 5.2
_MEDIAN_RADIUS_UM = 2.75
_RADIUS_RANGE_UM = (1.5, 6.0)
_MAX_CRACKS = 4


@dataclass(frozen=True)
class Particles:
    """Secondary particles: centres and radii in um; cracks (offset/radius, direction, width in um, depth 0..1)."""

    y_um: npt.NDArray[np.floating]
    x_um: npt.NDArray[np.floating]
    radius_um: npt.NDArray[np.floating]
    crack_offset: npt.NDArray[np.float64]
    crack_angle: npt.NDArray[np.float64]
    crack_width_um: npt.NDArray[np.floating]
    crack_depth: npt.NDArray[np.float64]


class ElectrodeSample:
    """Projected thickness of the electrode, generated lazily. Not thread-safe: one renderer uses it.

    Parameters
    ----------
    settings
        Seed, size and pixel size are used.
    """

    def __init__(self, settings: TwinSettings) -> None:
        self._seed = settings.seed
        self._pixel_um = settings.pixel_size_um
        self._half_um = (settings.sample_size_um[1] / 2, settings.sample_size_um[0] / 2)
        self._tiles: OrderedDict[tuple[int, int], tuple[_Float32, _Float32]] = OrderedDict()
        self._cache: dict[str, object] = {}

    @property
    def particles(self) -> Particles:
        """All particles of the electrode."""
        if "particles" not in self._cache:
            self._cache["particles"] = self._place_particles()
        particles = self._cache["particles"]
        assert isinstance(particles, Particles)
        return particles

    def window(self, first_y: int, first_x: int, ny: int, nx: int) -> tuple[_Float32, _Float32]:
        """Return NMC thickness and the part of it that open cracks take away, each float32 (ny, nx) in um.

        Parameters
        ----------
        first_y, first_x
            Grid index of the first row and column (may be negative; 0 is the centre of the electrode).
        """
        thickness = np.empty((ny, nx), np.float32)
        cracks = np.empty((ny, nx), np.float32)
        for tile_y in range(first_y // _TILE_PX, (first_y + ny - 1) // _TILE_PX + 1):
            for tile_x in range(first_x // _TILE_PX, (first_x + nx - 1) // _TILE_PX + 1):
                tile = self._tile(tile_y, tile_x)
                y0, x0 = tile_y * _TILE_PX - first_y, tile_x * _TILE_PX - first_x
                rows = slice(max(y0, 0), min(y0 + _TILE_PX, ny))
                columns = slice(max(x0, 0), min(x0 + _TILE_PX, nx))
                source = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
                thickness[rows, columns] = tile[0][source]
                cracks[rows, columns] = tile[1][source]
        return thickness, cracks

    def coverage(self, y_um: npt.NDArray[np.floating], x_um: npt.NDArray[np.floating]) -> tuple[_Float32, _Float32]:
        """Return the outline as factors of rows and columns: 0 outside, 1 inside, edge 0.1 um; their product covers."""
        rows, columns = (
            np.clip((half - np.abs(axis)) / 0.1 + 0.5, 0.0, 1.0).astype(np.float32)
            for half, axis in zip(self._half_um, (y_um, x_um), strict=True)
        )
        return rows, columns

    def _place_particles(self) -> Particles:
        """One particle per cell of a jittered grid: no field is empty, projections overlap."""
        rng = seeded(self._seed, _PARTICLE_STREAM)
        ny, nx = (max(1, round(2 * half / _SPACING_UM)) for half in self._half_um)
        grid_y, grid_x = np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij")
        count = ny * nx
        place = rng.uniform(0.08, 0.92, (2, count))
        y_um = (grid_y.ravel() + place[0]) * (2 * self._half_um[0] / ny) - self._half_um[0]
        x_um = (grid_x.ravel() + place[1]) * (2 * self._half_um[1] / nx) - self._half_um[1]
        radius = np.clip(_MEDIAN_RADIUS_UM * np.exp(0.36 * rng.standard_normal(count)), *_RADIUS_RANGE_UM)
        cracked = np.arange(_MAX_CRACKS) < rng.integers(0, _MAX_CRACKS + 1, count)[:, None]
        shape = (count, _MAX_CRACKS)
        return Particles(
            y_um,
            x_um,
            radius,
            rng.uniform(-0.6, 0.6, shape),
            rng.uniform(0, math.pi, shape),
            rng.uniform(0.04, 0.14, shape),
            np.where(cracked, rng.uniform(0.25, 0.9, shape), 0.0),
        )

    def _textures(self) -> tuple[_Float32, _Float32, _Float32]:
        """Periodic textures of unit rms: grains and pores in particles, matrix, waviness (smooth) for crack paths."""
        if "textures" not in self._cache:
            rng = seeded(self._seed, _TEXTURE_STREAM)
            pixels_per_um = 1.0 / self._pixel_um
            grains = _texture(rng, 1024, ((0.022, 0.8), (0.06, 0.6), (0.2, 0.5)), pixels_per_um, 1.6)
            matrix = _texture(rng, 900, ((0.025, 0.8), (0.08, 0.6), (0.4, 0.6)), pixels_per_um, 1.3)
            wavy = _texture(rng, 720, ((0.3, 0.6), (0.9, 1.0)), pixels_per_um, 0.0)
            self._cache["textures"] = (grains, matrix, wavy)
        textures = self._cache["textures"]
        assert isinstance(textures, tuple)
        return textures

    def _tile(self, tile_y: int, tile_x: int) -> tuple[_Float32, _Float32]:
        key = (tile_y, tile_x)
        tile = self._tiles.get(key)
        if tile is None:
            tile = self._make_tile(tile_y, tile_x)
            self._tiles[key] = tile
            if len(self._tiles) > _TILES_KEPT:
                self._tiles.popitem(last=False)
        else:
            self._tiles.move_to_end(key)
        return tile

    def _make_tile(self, tile_y: int, tile_x: int) -> tuple[_Float32, _Float32]:
        index_y = np.arange(_TILE_PX) + tile_y * _TILE_PX
        index_x = np.arange(_TILE_PX) + tile_x * _TILE_PX
        y_um, x_um = index_y * self._pixel_um, index_x * self._pixel_um
        thickness = np.zeros((_TILE_PX, _TILE_PX), np.float32)
        cracks = np.zeros_like(thickness)
        rows, columns = self.coverage(y_um, x_um)
        if not rows.any() or not columns.any():
            return thickness, cracks
        grains, matrix, wavy = (t[np.ix_(index_y % t.shape[0], index_x % t.shape[1])] for t in self._textures())
        for i in self._touching(y_um, x_um):
            self._add_particle(i, (y_um, x_um), wavy, thickness, cracks)
        # Pores along a thickness t scatter as sqrt(t); between particles lie binder and debris of broken particles.
        inside = np.sqrt(thickness)
        thickness += 0.23 * inside * grains
        thickness += np.maximum(matrix - 0.1, 0.0) * (0.8 / (1.0 + inside))
        np.maximum(thickness, 0.0, out=thickness)
        np.minimum(cracks, thickness, out=cracks)
        cover = rows[:, None] * columns
        thickness *= cover
        cracks *= cover
        return thickness, cracks

    def _touching(self, y_um: npt.NDArray[np.floating], x_um: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        p = self.particles
        dy = np.maximum(y_um[0] - p.y_um, p.y_um - y_um[-1])
        dx = np.maximum(x_um[0] - p.x_um, p.x_um - x_um[-1])
        return np.flatnonzero((dy < p.radius_um * 1.05) & (dx < p.radius_um * 1.05))

    def _add_particle(
        self,
        i: np.intp,
        axes_um: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]],
        wavy: _Float32,
        thickness: _Float32,
        cracks: _Float32,
    ) -> None:
        """Add sphere `i` to a tile; cracks are thin sheets through it, seen edge-on along a wavy line."""
        p = self.particles
        radius = float(p.radius_um[i])
        box = []
        for axis_um, centre_um in zip(axes_um, (p.y_um[i], p.x_um[i]), strict=True):
            box.append(slice(*np.searchsorted(axis_um, (centre_um - 1.05 * radius, centre_um + 1.05 * radius))))
        region = (box[0], box[1])
        dy = (axes_um[0][box[0]] - p.y_um[i]).astype(np.float32)[:, None]
        dx = (axes_um[1][box[1]] - p.x_um[i]).astype(np.float32)[None, :]
        # A wavy rim: secondary particles are agglomerates, not ideal spheres.
        square = np.float32(radius**2) * (1.0 + 0.035 * wavy[region]) - dy * dy - dx * dx
        chord = 2.0 * np.sqrt(np.maximum(square, 0.0))
        thickness[region] += chord
        for offset, angle, width_um, depth in zip(
            p.crack_offset[i], p.crack_angle[i], p.crack_width_um[i], p.crack_depth[i], strict=True
        ):
            if depth == 0.0:
                continue
            ny, nx = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            distance = dy * ny + dx * nx + (0.14 * wavy[region] - np.float32(offset * radius))
            cracks[region] += np.float32(depth) * chord * np.exp(-np.square(distance / np.float32(width_um)))


def _texture(
    rng: np.random.Generator, size: int, scales: tuple[tuple[float, float], ...], pixels_per_um: float, sharpness: float
) -> _Float32:
    """Periodic random field (size, size) of unit rms: noise at `scales` (sigma um, weight), squashed to grains."""
    import scipy.fft

    fy = scipy.fft.fftfreq(size)[:, None]
    fx = scipy.fft.rfftfreq(size)[None, :]
    square = (fy * fy + fx * fx).astype(np.float32)
    noise = scipy.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    gain = np.zeros_like(square)
    for sigma_um, weight in scales:
        sigma = sigma_um * pixels_per_um
        gain += np.float32(weight * sigma) * np.exp(np.float32(-2 * math.pi**2 * sigma**2) * square)
    gain[0, 0] = 0.0
    field = scipy.fft.irfft2(noise * gain, s=(size, size))
    field /= field.std()
    if sharpness:
        field = np.tanh(sharpness * field)
        field -= field.mean()
        field /= field.std()
    return field.astype(np.float32)
