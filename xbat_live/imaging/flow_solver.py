"""The linear system of one optical flow step: local 2 x 2 normal equations tied to their neighbours by smoothness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float2D = NDArray[np.float32]
Float3D = NDArray[np.float32]

MOST_STEPS = 40
TOLERANCE = 1e-2
"""Relative residual at which to stop; the next warp corrects what is left."""


def solve_smooth(normal: Float3D, right: Float3D, start: Float3D, sliding: Float2D, strain: Float2D) -> Float3D:
    """Solve ``(N - div c grad) u = r`` by conjugate gradients with 2 x 2 block preconditioning.

    Parameters
    ----------
    normal
        (yy, yx, xx) of the normal matrix of every px, shape (3, ny, nx), non-negative definite.
    right
        Right-hand side, shape (2, ny, nx).
    start
        Flow to begin with, shape (2, ny, nx), px; the smoothness weights are those of its gradient.
    sliding
        Gradient e, px/px, in ``c = 1 / (strain sqrt(|grad u|^2 + e^2))``, shape (ny, nx).
    strain
        Typical gradient the smoothness allows, px/px, shape (ny, nx).

    Returns
    -------
    ndarray
        Flow u, shape (2, ny, nx), float32, px. The borders are free (no flux of smoothness).
    """
    down, along = _differences(start)
    tie_y = (1 / (strain[1:] * np.sqrt((down**2).sum(0) + sliding[1:] ** 2))).astype(np.float32)
    tie_x = (1 / (strain[:, 1:] * np.sqrt((along**2).sum(0) + sliding[:, 1:] ** 2))).astype(np.float32)
    diagonal = np.zeros_like(normal[0])
    diagonal[:-1] += tie_y
    diagonal[1:] += tie_y
    diagonal[:, :-1] += tie_x
    diagonal[:, 1:] += tie_x
    yy, yx, xx = normal
    block_yy, block_xx = yy + diagonal, xx + diagonal
    determinant = np.maximum(block_yy * block_xx - yx * yx, np.float32(1e-30))

    def apply(u: Float3D) -> Float3D:
        result = np.stack([yy * u[0] + yx * u[1], yx * u[0] + xx * u[1]])
        flux_y, flux_x = _differences(u)
        flux_y *= tie_y
        flux_x *= tie_x
        result[:, :-1] -= flux_y
        result[:, 1:] += flux_y
        result[:, :, :-1] -= flux_x
        result[:, :, 1:] += flux_x
        return result

    def precondition(r: Float3D) -> Float3D:
        return np.stack([(block_xx * r[0] - yx * r[1]) / determinant, (block_yy * r[1] - yx * r[0]) / determinant])

    u = start.astype(np.float32, copy=True)
    residual = right - apply(u)
    direction = precondition(residual)
    energy = float(np.vdot(residual, direction))
    # Relative to what deforms: a common shift of many px must not loosen the tolerance.
    common_y, common_x = (np.float32(component.mean()) for component in start)
    scale = right - np.stack([yy * common_y + yx * common_x, yx * common_y + xx * common_x])
    enough = TOLERANCE**2 * float(np.vdot(scale, precondition(scale)))
    for _ in range(MOST_STEPS):
        if energy <= enough:
            break
        image = apply(direction)
        length = np.float32(energy / max(float(np.vdot(direction, image)), 1e-30))
        u += length * direction
        residual -= length * image
        conditioned = precondition(residual)
        previous, energy = energy, float(np.vdot(residual, conditioned))
        direction = conditioned + np.float32(energy / previous) * direction
    return u


def _differences(u: Float3D) -> tuple[Float3D, Float3D]:
    return u[:, 1:] - u[:, :-1], u[:, :, 1:] - u[:, :, :-1]
