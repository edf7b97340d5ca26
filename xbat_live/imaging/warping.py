"""Use of a flow: non-rigid registration, and the map of what appeared and disappeared between two frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from xbat_live.imaging.flow import Flow, check_flow, check_pair, optical_flow
from xbat_live.imaging.flow_pyramid import filled
from xbat_live.imaging.spectrum import Float2D


class RegisteredFrame(NamedTuple):
    """A moving frame brought onto its reference.

    Attributes
    ----------
    warped
        Moving image in the frame of the reference, shape (ny, nx), float32; NaN where its content was outside.
    flow
        Shape (2, ny, nx), float32, px.
    """

    warped: Float2D
    flow: Flow


def warp(image: ArrayLike, flow: ArrayLike, *, order: int = 3) -> Float2D:
    """Return the moving image in the frame of the reference, ``image((y, x) + flow)``.

    Parameters
    ----------
    image
        Shape (ny, nx); NaN allowed.
    flow
        Shape (2, ny, nx), (dy, dx) in px as from `optical_flow`, or (2,) for a shift of the whole frame.
    order
        Of the spline: 0 nearest (for labels), 1 linear, 3 cubic.

    Returns
    -------
    ndarray
        Shape (ny, nx), float32. NaN where (y, x) + flow is outside the image, where the flow is NaN, and where a NaN pixel of the image
        takes part.

    Raises
    ------
    ValueError
        Image not 2-D, a flow of another shape, nothing but NaN, or an order other than 0 to 5.
    """
    source = np.asarray(image, np.float32)
    if source.ndim != 2 or source.size == 0:
        raise ValueError(f"warp: image of shape {source.shape}, expected (ny, nx); warp a stack frame by frame")
    if order not in range(6):
        raise ValueError(f"warp: spline order {order}, expected 0 to 5")
    vector = np.asarray(flow, np.float32)
    if vector.shape == (2,):
        vector = np.broadcast_to(vector[:, None, None], (2, *source.shape))
    vector = check_flow(vector, source.shape)
    ny, nx = source.shape
    at = np.mgrid[0:ny, 0:nx] + vector.astype(np.float64)
    # A hair of rounding must not cost the border rows.
    slack = 1e-4
    inside = (at[0] >= -slack) & (at[0] <= ny - 1 + slack) & (at[1] >= -slack) & (at[1] <= nx - 1 + slack)
    bad = ~np.isfinite(source)
    if bad.any():
        if bad.all():
            raise ValueError("warp: image holds nothing but NaN; was the frame lost?")
        source = filled(source)[0]
    result: Float2D = ndimage.map_coordinates(
        source, np.where(inside, at, 0.0), output=np.float32, order=order, mode="nearest"
    )
    if bad.any():
        inside &= ndimage.map_coordinates(bad.astype(np.float32), np.where(inside, at, 0.0), order=1) < 1e-3
    result[~inside] = np.nan
    return result


def register_nonrigid(
    reference_od: ArrayLike,
    moving_od: ArrayLike,
    *,
    finest_bin: int = 2,
    smoothness: float = 1.0,
    workers: int = 1,
) -> RegisteredFrame:
    """Return the moving frame brought onto the reference, and the flow it took (that of `optical_flow`, see there for its sources).

    Parameters
    ----------
    reference_od, moving_od
        Optical density, shape (ny, nx), at least 16 x 16 px; NaN marks pixels that do not count.
    finest_bin
        Unbinned px per px of the finest level of the flow.
    smoothness
        Factor on the smoothness of the flow.
    workers
        Threads of the transforms.

    Returns
    -------
    RegisteredFrame
        Image (ny, nx) and flow (2, ny, nx), px.

    Raises
    ------
    ValueError
        As `optical_flow`.
    """
    flow = optical_flow(reference_od, moving_od, finest_bin=finest_bin, smoothness=smoothness, workers=workers)
    return RegisteredFrame(warp(moving_od, flow), flow)


def difference_map(
    reference_od: ArrayLike,
    moving_od: ArrayLike,
    *,
    flow: ArrayLike | None = None,
    shift_yx_px: ArrayLike | None = None,
) -> Float2D:
    """Return moving minus reference: positive where material appeared, negative where it disappeared (Sun et al. 2025, Fig. 4b).

    Parameters
    ----------
    reference_od, moving_od
        Optical density, shape (ny, nx); NaN allowed.
    flow
        Shape (2, ny, nx), px: taken out first, so that the map shows what is left after all motion (cracks, phase change).
    shift_yx_px
        (dy, dx) of the whole frame, px, taken out instead: the map shows the motion of particles within the electrode.

    Returns
    -------
    ndarray
        Shape (ny, nx), float32, in the unit of the images and the frame of the reference; NaN where one of them is missing.

    Raises
    ------
    ValueError
        Shapes that differ, both `flow` and `shift_yx_px` given, or nothing but NaN.
    """
    reference, moving = check_pair(reference_od, moving_od, "difference map")
    if flow is not None and shift_yx_px is not None:
        raise ValueError("difference map: give flow or shift_yx_px, not both; the flow holds the shift already")
    if flow is None and shift_yx_px is not None:
        shift = np.asarray(shift_yx_px, np.float32)
        if shift.shape != (2,):
            raise ValueError(f"difference map: shift_yx_px of shape {shift.shape}, expected (dy, dx) in px")
        flow = shift
    if flow is not None:
        moving = warp(moving, flow)
    difference: Float2D = moving - reference
    return difference
