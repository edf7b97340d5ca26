"""Moving an image by a fraction of a pixel, or onto other pixels, without making or losing a photon."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CHUNK = 32_768
"""Pixels worked on at a time: what fits the processor's cache. Whole images at a time would cost four times as long."""


def pad_for_shift(kernel: FloatArray) -> FloatArray:
    """Return `kernel` (ny, nx) in the middle of zeros, (ny + 6, nx + 2), as `shift_padded` wants it."""
    return np.pad(kernel, ((3, 3), (1, 1)))


def unpad(padded: FloatArray) -> FloatArray:
    """Return a copy of the kernel inside what `pad_for_shift` returned."""
    return padded[3:-3, 1:-1].copy()


def shift_padded(
    padded: FloatArray, rows: float, columns: float, scale: float = 1.0, out: FloatArray | None = None
) -> FloatArray:
    """Move a kernel by a fraction of a pixel: every pixel is split over its neighbours, so the sum is kept.

    Only additions and multiplications of single numbers in a fixed order, without BLAS: the result is the same to the
    last bit on every machine, as replaying a ledger needs it.

    Parameters
    ----------
    padded
        The kernel as `pad_for_shift` returns it, C-contiguous.
    rows, columns
        Shift, pixels, each within [-1, 1].
    scale
        Factor on the result.
    out
        Where to write the result, C-contiguous; None: a new array.

    Returns
    -------
    numpy.ndarray
        (ny + 2, nx + 2) float64 for a kernel of (ny, nx), with the same middle pixel.

    Raises
    ------
    ValueError
        A shift of more than a pixel.
    """
    if not (abs(rows) <= 1 and abs(columns) <= 1):
        raise ValueError(f"sub-pixel shift ({rows:g}, {columns:g}) is larger than a pixel")
    width = padded.shape[1]
    result = np.empty((padded.shape[0] - 4, width)) if out is None else out
    # In memory a neighbour in y is `width` numbers away and one in x a single number; the rim of zeros makes wrapping
    # from one row to the next harmless.
    source, target = padded.reshape(-1), result.reshape(-1)
    back_y = width if rows > 0 else -width
    back_x = 1 if columns > 0 else -1
    stay_y, move_y = (1 - abs(rows)) * scale, abs(rows) * scale
    stay_x, move_x = 1 - abs(columns), abs(columns)
    first, second = np.empty(_CHUNK + 2), np.empty(_CHUNK + 2)
    for start in range(0, target.size, _CHUNK):
        size = min(_CHUNK, target.size - start)
        begin, end = start + 2 * width - 1, start + 2 * width + size + 1  # one number more on either side
        tall, other = first[: size + 2], second[: size + 2]
        np.multiply(source[begin:end], stay_y, out=tall)
        np.multiply(source[begin - back_y : end - back_y], move_y, out=other)
        np.add(tall, other, out=tall)
        part = target[start : start + size]
        np.multiply(tall[1:-1], stay_x, out=part)
        np.multiply(tall[1 - back_x : size + 1 - back_x], move_x, out=other[:size])
        np.add(part, other[:size], out=part)
    return result


def shift_bilinear(kernel: FloatArray, rows: float, columns: float, scale: float = 1.0) -> FloatArray:
    """Move a kernel (ny, nx) by a fraction of a pixel, see `shift_padded`; it keeps its shape when it stays in place."""
    if rows == 0 and columns == 0:
        return kernel * scale
    return shift_padded(pad_for_shift(kernel), rows, columns, scale)


def resample_area(image: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Return area-weighted means of an image on other pixels, both centred on the same point.

    Parameters
    ----------
    image
        (ny, nx) float64, on pixels of size 1.
    rows, columns
        Edges of the new pixels along y and x, increasing, in pixels of the image from its centre.

    Returns
    -------
    numpy.ndarray
        (rows - 1, columns - 1) float64; what lies outside the image counts as 0.
    """
    along_y = _average_rows(image, rows)
    return np.ascontiguousarray(_average_rows(np.ascontiguousarray(along_y.T), columns).T)


def _average_rows(image: FloatArray, edges: FloatArray) -> FloatArray:
    """Area-weighted means of rows; one addition after the other rather than a matrix product, see `shift_padded`."""
    position = np.clip(edges + image.shape[0] / 2, 0.0, image.shape[0])
    result = np.zeros((edges.size - 1, image.shape[1]))
    for number, (low, high, width) in enumerate(zip(position, position[1:], np.diff(edges), strict=False)):
        for row in range(math.floor(low), math.ceil(high)):
            result[number] += image[row] * ((min(high, row + 1) - max(low, row)) / width)
    return result
