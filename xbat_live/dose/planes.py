"""Several quantities on the same pixels of the sample, in tiles that exist only where something was deposited."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xbat_live.dose.grid import FloatArray, Window

TILE_PX = 128
TileKey = tuple[int, int]


class Planes:
    """Planes of float64 values, 0 where nothing was written; memory grows with the area touched.

    Parameters
    ----------
    count
        Number of planes.
    tile_px
        Tile size, pixels.
    """

    def __init__(self, count: int, tile_px: int = TILE_PX) -> None:
        self.count = count
        self.tiles: dict[TileKey, FloatArray] = {}
        self.touched = Window(0, 0, 0, 0)
        self._size = tile_px

    @property
    def nbytes(self) -> int:
        """Memory of the tiles, bytes."""
        return sum(tile.nbytes for tile in self.tiles.values())

    def clear(self) -> None:
        """Forget everything."""
        self.tiles.clear()
        self.touched = Window(0, 0, 0, 0)

    def parts(self, window: Window) -> Iterator[tuple[FloatArray, tuple[slice, slice]]]:
        """Return, tile by tile, a writable view (count, ny, nx) of the pixels of `window`, and where they are in it."""
        known = self.touched
        if not (
            known.row0 <= window.row0
            and window.row1 <= known.row1
            and known.col0 <= window.col0
            and window.col1 <= known.col1
        ):
            self.touched = known.union(window)
        for key, inside, source in self._split(window):
            tile = self.tiles.get(key)
            if tile is None:
                tile = self.tiles[key] = np.zeros((self.count, self._size, self._size))
            yield tile[:, inside[0], inside[1]], source

    def read(self, window: Window, plane: int) -> FloatArray:
        """Return a copy of one plane on the pixels of `window`, (ny, nx)."""
        result = np.zeros(window.shape)
        for key, inside, source in self._split(window):
            tile = self.tiles.get(key)
            if tile is not None:
                result[source] = tile[plane][inside]
        return result

    def _split(self, window: Window) -> Iterator[tuple[TileKey, tuple[slice, slice], tuple[slice, slice]]]:
        if window.empty:
            return
        size = self._size
        for tile_row in range(window.row0 // size, (window.row1 - 1) // size + 1):
            top = tile_row * size
            row0, row1 = max(window.row0, top), min(window.row1, top + size)
            for tile_column in range(window.col0 // size, (window.col1 - 1) // size + 1):
                left = tile_column * size
                col0, col1 = max(window.col0, left), min(window.col1, left + size)
                yield (
                    (tile_row, tile_column),
                    (slice(row0 - top, row1 - top), slice(col0 - left, col1 - left)),
                    (
                        slice(row0 - window.row0, row1 - window.row0),
                        slice(col0 - window.col0, col1 - window.col0),
                    ),
                )
