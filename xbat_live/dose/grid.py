"""A map on the sample that grows with the area visited."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbat_live.dose.subpixel import pad_for_shift, shift_padded

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """Map pixels with rows ``row0 <= row < row1`` and columns likewise; column c covers ``c*p <= x < (c+1)*p``."""

    row0: int
    row1: int
    col0: int
    col1: int

    @classmethod
    def around(cls, x_um: float, y_um: float, size_um: tuple[float, float], pixel_um: float) -> Window:
        """Return all pixels that a rectangle of `size_um` (x, y) centred on (x, y), um, touches."""
        half_x, half_y = size_um[0] / 2, size_um[1] / 2
        slack = 1e-9  # a rectangle that ends on a pixel's edge does not touch the next one
        return cls(
            math.floor((y_um - half_y) / pixel_um + slack),
            math.ceil((y_um + half_y) / pixel_um - slack),
            math.floor((x_um - half_x) / pixel_um + slack),
            math.ceil((x_um + half_x) / pixel_um - slack),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, 0 when empty."""
        return max(self.row1 - self.row0, 0), max(self.col1 - self.col0, 0)

    @property
    def empty(self) -> bool:
        """True when there is no pixel in it."""
        return 0 in self.shape

    def intersect(self, other: Window) -> Window:
        """Return the pixels in both; may be empty."""
        return Window(
            max(self.row0, other.row0),
            min(self.row1, other.row1),
            max(self.col0, other.col0),
            min(self.col1, other.col1),
        )

    def grown(self, pixels: int) -> Window:
        """Return the window with `pixels` more on every side."""
        return Window(self.row0 - pixels, self.row1 + pixels, self.col0 - pixels, self.col1 + pixels)

    def union(self, other: Window) -> Window:
        """Return the smallest window with the pixels of both."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Window(
            min(self.row0, other.row0),
            max(self.row1, other.row1),
            min(self.col0, other.col0),
            max(self.col1, other.col1),
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Return the slices of this window in an array that covers `outer`."""
        return slice(self.row0 - outer.row0, self.row1 - outer.row0), slice(
            self.col0 - outer.col0, self.col1 - outer.col0
        )


class DoseGrid:
    """Dose on square pixels in sample coordinates, kept in tiles that exist only where something was deposited.

    Parameters
    ----------
    pixel_um
        Pixel size, um; at most a fifth of the beam's width for peaks to be right within 2 %.
    tile_px
        Tile size, pixels.
    """

    def __init__(self, pixel_um: float, tile_px: int = 128) -> None:
        if not 1e-3 <= pixel_um <= 1e4:
            raise ValueError(f"map pixel {pixel_um:g} um is outside 1e-3 .. 1e4 um")
        self.pixel_um = float(pixel_um)
        self._tile_px = tile_px
        self._tiles: dict[tuple[int, int], FloatArray] = {}
        self._touched = Window(0, 0, 0, 0)
        self._padded = self._patch = np.empty((0, 0))

    @property
    def window(self) -> Window:
        """Smallest window with all pixels that were touched; empty when nothing was deposited."""
        return self._touched

    @property
    def nbytes(self) -> int:
        """Memory of the tiles, bytes."""
        return sum(tile.nbytes for tile in self._tiles.values())

    def locate(self, x_um: float, y_um: float) -> tuple[int, int, float, float]:
        """Return row and column of the pixel with (x, y), um, and the offset (x, y) from its centre, um."""
        row, column = math.floor(y_um / self.pixel_um), math.floor(x_um / self.pixel_um)
        return row, column, x_um - (column + 0.5) * self.pixel_um, y_um - (row + 0.5) * self.pixel_um

    def deposit(self, x_um: float, y_um: float, kernel_per_cm2: FloatArray, gray_cm2: float) -> Window:
        """Add ``kernel * gray_cm2`` with the kernel's middle at (x, y).

        A position between pixel centres splits every pixel over its neighbours, so that no photon is lost or made;
        with a kernel that was computed for the offset, use `locate`, `place` and `add`.

        Parameters
        ----------
        x_um, y_um
            Sample coordinate of the kernel's middle, um.
        kernel_per_cm2
            (ny, nx) float64, odd shape, 1/cm2, as of `Beam.kernel`.
        gray_cm2
            Photons times dose per fluence, Gy cm2.

        Returns
        -------
        Window
            Pixels that were touched.
        """
        row, column, offset_x, offset_y = self.locate(x_um, y_um)
        if self._padded.shape != (kernel_per_cm2.shape[0] + 6, kernel_per_cm2.shape[1] + 2):
            self._padded = pad_for_shift(
                kernel_per_cm2
            )  # kept: new memory at every deposit would cost more than the sums
            self._patch = np.empty((kernel_per_cm2.shape[0] + 2, kernel_per_cm2.shape[1] + 2))
        self._padded[3:-3, 1:-1] = kernel_per_cm2
        shift = offset_y / self.pixel_um, offset_x / self.pixel_um
        patch = shift_padded(self._padded, *shift, gray_cm2, out=self._patch)
        window = self.place(row, column, patch.shape)
        self.add(window, patch)
        return window

    @staticmethod
    def place(row: int, column: int, shape: tuple[int, ...]) -> Window:
        """Return the window of an odd-shaped patch whose middle is the pixel (row, column)."""
        row0, col0 = row - shape[0] // 2, column - shape[1] // 2
        return Window(row0, row0 + shape[0], col0, col0 + shape[1])

    def add(self, window: Window, patch_gy: FloatArray) -> None:
        """Add a patch, (ny, nx) Gy, to the pixels of `window`; tiles come into being as needed."""
        self._touched = self._touched.union(window)
        for key, part in self._parts(window):
            tile = self._tiles.get(key)
            if tile is None:
                tile = self._tiles[key] = np.zeros((self._tile_px, self._tile_px))
            tile[part.within(self._tile_window(key))] += patch_gy[part.within(window)]

    def patch(self, window: Window) -> FloatArray:
        """Return the dose on the pixels of `window`, (ny, nx) float64, Gy: a copy, 0 where nothing was deposited."""
        result = np.zeros(window.shape)
        for key, part in self._parts(window):
            tile = self._tiles.get(key)
            if tile is not None:
                result[part.within(window)] = tile[part.within(self._tile_window(key))]
        return result

    def _tile_window(self, key: tuple[int, int]) -> Window:
        size = self._tile_px
        return Window(key[0] * size, (key[0] + 1) * size, key[1] * size, (key[1] + 1) * size)

    def _parts(self, window: Window) -> Iterator[tuple[tuple[int, int], Window]]:
        if window.empty:
            return
        size = self._tile_px
        for tile_row in range(window.row0 // size, (window.row1 - 1) // size + 1):
            for tile_column in range(window.col0 // size, (window.col1 - 1) // size + 1):
                key = (tile_row, tile_column)
                yield key, window.intersect(self._tile_window(key))
