"""I0 images: where the photons of a beam fall on the field of view (Eq. 1 of the LiNiO2 paper)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.dose.cross_sections import FloatArray

logger = logging.getLogger(__name__)

_DARK_EXCESS = 0.5
"""Negative counts, as a fraction of the positive ones, from which on the dark field is taken for a wrong one."""
_HOT_WINDOW_PX = 5


class I0Images:
    """Images of a beam without sample, one per energy, as shares of all photons in the field.

    Parameters
    ----------
    cube
        (n, ny, nx) or (ny, nx), counts; anything that gives images by index (array, memory map, HDF5 data set): they are
        read one at a time.
    dark
        Dark level, counts: a number, an image (ny, nx) or one image per energy.
    bad_pixels
        (ny, nx) bool: pixels that are not to be believed; they take the value of the nearest good one.
    hot_pixel_ratio
        Pixels that are so many times brighter than the median around them (in the mean of all images) are bad as well.
        None: no such search.

    Raises
    ------
    ValueError
        Shapes that do not fit; only bad pixels; a ratio not above 1.
    """

    def __init__(
        self,
        cube: Any,
        dark: npt.ArrayLike = 0.0,
        bad_pixels: npt.ArrayLike | None = None,
        hot_pixel_ratio: float | None = None,
    ) -> None:
        self._cube = cube if hasattr(cube, "shape") else np.asarray(cube)
        shape = tuple(int(size) for size in self._cube.shape)
        if len(shape) not in (2, 3) or 0 in shape:
            raise ValueError(f"I0 is an image (ny, nx) or a cube (n_energy, ny, nx), not an array of shape {shape}")
        self.shape: tuple[int, int] = (shape[-2], shape[-1])
        self.count = 1 if len(shape) == 2 else shape[0]
        self._dark = np.asarray(dark, dtype=np.float64)
        if self._dark.shape not in ((), self.shape, (self.count, *self.shape)) or not np.isfinite(self._dark).all():
            raise ValueError(
                f"dark of shape {self._dark.shape} does not fit I0 images of shape {self.shape}, or is not finite; "
                "give a number, an image, or one image per energy"
            )
        self._bad = np.zeros(self.shape, dtype=bool) if bad_pixels is None else np.asarray(bad_pixels, dtype=bool)
        if self._bad.shape != self.shape or self._bad.all():
            raise ValueError(f"bad_pixels of shape {self._bad.shape} does not fit {self.shape}, or leaves no pixel")
        self._saturated = False
        self._nearest = self._find_nearest()
        if hot_pixel_ratio is not None:
            self._bad = self._bad | self._find_hot(hot_pixel_ratio)
            self._nearest = self._find_nearest()

    def share(self, number: int) -> FloatArray:
        """Return what part of the photons in the field falls on each pixel of an image, (ny, nx), of sum 1.

        Counts below the dark level are noise; they stay, so that noise in unlit parts does not dilute the beam.

        Raises
        ------
        ValueError
            Not finite, no photons, or a dark level far above the image.
        """
        image = self._counts(number)
        which = f"I0 image {number}" if self.count > 1 else "the I0 image"
        total = float(image.sum())
        if not total > 0:
            raise ValueError(
                f"{which} holds no photons above the dark level; was the shutter closed, or are they swapped?"
            )
        below = -float(image[image < 0].sum())
        if below > _DARK_EXCESS * (total + below):
            raise ValueError(
                f"{which}: counts below the dark level come to {below:.3g}, those above to {total + below:.3g}; "
                "the dark level does not belong to this image"
            )
        return image / total

    def _counts(self, number: int) -> FloatArray:
        raw = np.asarray(self._cube if self._cube.ndim == 2 else self._cube[number])
        if not self._saturated and np.issubdtype(raw.dtype, np.integer) and (raw == np.iinfo(raw.dtype).max).any():
            self._saturated = True  # said once, not for every image of a scan
            logger.warning("I0 image %d has saturated pixels; the largest dose rate comes out too low", number)
        image = raw.astype(np.float64) - (self._dark[number] if self._dark.ndim == 3 else self._dark)
        if self._nearest is not None:
            image[self._bad] = image[self._nearest]
        wrong = ~np.isfinite(image)
        if wrong.any():
            row, column = (int(index[0]) for index in np.nonzero(wrong))
            raise ValueError(
                f"I0 image {number}: {np.count_nonzero(wrong)} pixels are not finite, the first at row {row}, column {column}; "
                "mark them in bad_pixels"
            )
        return image

    def _find_nearest(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
        if not self._bad.any():
            return None
        from scipy import ndimage

        rows, columns = ndimage.distance_transform_edt(self._bad, return_distances=False, return_indices=True)
        return rows[self._bad], columns[self._bad]

    def _find_hot(self, ratio: float) -> npt.NDArray[np.bool_]:
        if not ratio > 1:
            raise ValueError(f"hot_pixel_ratio {ratio:g} must be above 1: times the median of the neighbours")
        from scipy import ndimage

        mean = np.zeros(self.shape)
        for number in range(self.count):
            mean += self._counts(number) / self.count
        around = ndimage.median_filter(mean, size=_HOT_WINDOW_PX, mode="nearest")
        hot: npt.NDArray[np.bool_] = (mean > ratio * around) & (mean > 0)
        if hot.any():
            logger.info("%d hot pixels replaced by their neighbours", np.count_nonzero(hot))
        return hot
