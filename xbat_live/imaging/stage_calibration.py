"""How image axes lie against stage axes, from the image shifts that known moves of the stage cause.

The content of an upright image moves by minus the move of the stage (docs/explanation/decisions/0005-coordinates.md). A camera that
is mirrored or rotated against the stage shows another motion; a correction with the wrong sign would then run away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CalibrationError", "StageCalibration", "fit_stage_calibration"]

_Matrix = NDArray[np.float64]

LEAST_FRAMES = 6
"""Two more than the four unknowns of each axis: offset, drift per frame and two matrix elements."""
LARGEST_SIGMA = 0.25
"""Largest standard uncertainty of a matrix element: the sign of a determinant of 1 is then beyond doubt."""
LEAST_DETERMINANT = 0.1
SCALE_TOLERANCE = 0.2
"""Largest relative difference between the pixel size found and the one configured."""
SHEAR_TOLERANCE = 0.2
N_SIGMA = 3.0
LOST_MOTION = 0.02
"""Part of a move that a stage may lose to backlash without the matrix being in doubt."""
OUTLIER_RATIO = 3.0
"""One frame that multiplies the scatter so much is no chance: below 1 % for 11 frames with normal errors."""
_SAME_PLACE = 0.1  # two positions nearer than this fraction of the widest move are one place
_SNAP_DEG = 3.0


class CalibrationError(ValueError):
    """The moves and shifts do not determine how the camera is mounted; the message says why and what to do."""


@dataclass(frozen=True)
class StageCalibration:
    """Image axes against stage axes.

    Attributes
    ----------
    matrix
        Shape (2, 2), dimensionless: a shift of the content by (x, y) um in the image is one by ``matrix @ (x, y)`` um in stage
        axes. The identity for an upright image; the configuration's ``camera.image_to_stage``.
    sigma
        Standard uncertainty of each element, shape (2, 2).
    residual_um
        Rms difference of the shifts from what the matrix says, um in the image.
    n_frames
        Frames used.
    """

    matrix: _Matrix
    sigma: _Matrix
    residual_um: float
    n_frames: int

    @property
    def determinant(self) -> float:
        """Of `matrix`, dimensionless; negative when the image is mirrored."""
        return float(np.linalg.det(self.matrix))

    @property
    def determinant_sigma(self) -> float:
        """Standard uncertainty of `determinant`, dimensionless, elements taken as independent."""
        cofactors = self.matrix[::-1, ::-1]
        return float(np.sqrt(np.sum((cofactors * self.sigma) ** 2)))

    @property
    def handedness(self) -> int:
        """1, or -1 for a mirrored image."""
        return 1 if self.determinant > 0 else -1

    @property
    def scale(self) -> float:
        """Pixel size found over pixel size configured, dimensionless: the root of the determinant's size."""
        return math.sqrt(abs(self.determinant))

    @property
    def rotation_deg(self) -> float:
        """Angle of image x, after a mirrored image was mirrored in x, from stage x towards stage y; -180 to 180 deg.

        That of the orthogonal matrix nearest to `matrix` (Procrustes problem; Schoenemann 1966).
        """
        rotation = _nearest_orthogonal(self.matrix) @ np.diag([float(self.handedness), 1.0])
        return math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))

    @property
    def rotation_sigma_deg(self) -> float:
        """Standard uncertainty of `rotation_deg`, deg."""
        return math.degrees(float(np.sqrt(np.mean(self.sigma**2) / 2)) / self.scale)

    @property
    def rigid(self) -> _Matrix:
        """Rotation or mirroring nearest to `matrix`, shape (2, 2): what to configure.

        A camera has one pixel size and no shear, so that only angle and handedness are taken from the fit; an angle that does not
        differ from a quarter turn by more than its uncertainty is that quarter turn.
        """
        angle_deg = self.rotation_deg
        quarter_deg = 90.0 * round(angle_deg / 90.0)
        if abs(angle_deg - quarter_deg) <= max(_SNAP_DEG, 2 * self.rotation_sigma_deg):
            angle_deg = quarter_deg
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        rounded = np.round(np.array([[c, -s], [s, c]]) @ np.diag([float(self.handedness), 1.0]), 4)
        return np.asarray(rounded + 0.0)  # no -0.0

    @property
    def orientation(self) -> str:
        """In words: ``identity``, ``rotated by 90 deg``, ``mirrored in x``, ..."""
        rigid = self.rigid
        for words, matrix in _SIMPLE:
            if np.array_equal(rigid, np.array(matrix)):
                return words
        angle_deg = math.degrees(math.atan2(rigid[1, 0] * self.handedness, rigid[0, 0] * self.handedness))
        return f"{'mirrored in x, then ' if self.handedness < 0 else ''}rotated by {angle_deg:.1f} deg"

    def toml(self) -> str:
        """Return the line for the section ``[camera]`` of the experiment file."""
        rows = ", ".join("[" + ", ".join(f"{value:g}" for value in row) + "]" for row in self.rigid)
        return f"image_to_stage = [{rows}]"


_SIMPLE = (
    ("identity", [[1.0, 0.0], [0.0, 1.0]]),
    ("rotated by 90 deg", [[0.0, -1.0], [1.0, 0.0]]),
    ("rotated by 180 deg", [[-1.0, 0.0], [0.0, -1.0]]),
    ("rotated by -90 deg", [[0.0, 1.0], [-1.0, 0.0]]),
    ("mirrored in x", [[-1.0, 0.0], [0.0, 1.0]]),
    ("mirrored in y", [[1.0, 0.0], [0.0, -1.0]]),
    ("x and y exchanged", [[0.0, 1.0], [1.0, 0.0]]),
    ("x and y exchanged and reversed", [[0.0, -1.0], [-1.0, 0.0]]),
)


def fit_stage_calibration(
    stage_xy_um: ArrayLike, shift_yx_px: ArrayLike, sigma: ArrayLike, pixel_size_um: float
) -> StageCalibration:
    """Fit the matrix from image to stage axes to frames taken at different positions of the stage.

    Linear least squares of ``shift = offset + drift * frame number - matrix^-1 @ stage``, so that a steady drift during the moves
    does not count. Where positions were visited more than once, the scatter between the visits (repositioning error of the stage,
    which the image does see) is found from them.

    Parameters
    ----------
    stage_xy_um
        Stage readings (x, y), shape (n, 2), um, in the order and at the pace of the frames.
    shift_yx_px
        Registered shifts of the content against one common frame, shape (n, 2) as (y, x), unbinned px.
    sigma
        Standard uncertainty of the shifts, a number or shape (n, 2) as (y, x), px.
    pixel_size_um
        Unbinned pixel in the sample plane, um, above 0.

    Raises
    ------
    CalibrationError
        Too few frames, moves along one line or too small for their scatter, a determinant near 0, shifts that do not fit one matrix
        (rms residual above 3 sigma, repositioning and 2 % of lost motion included), a scale that differs from the pixel size by more
        than 20 %, or a shear.
    ValueError
        Arrays of another shape, or not finite; a pixel size that is not above 0.
    """
    if not pixel_size_um > 0:
        raise ValueError(f"pixel_size_um = {pixel_size_um} um: must be above 0 um")
    stage = np.asarray(stage_xy_um, float)
    shift_um = np.asarray(shift_yx_px, float)[..., ::-1] * pixel_size_um
    if stage.ndim != 2 or stage.shape[1] != 2 or shift_um.shape != stage.shape:
        raise ValueError(f"stage {stage.shape} and shifts {shift_um.shape}: both must have the shape (n, 2)")
    sigma_um = np.broadcast_to(np.asarray(sigma, float), stage.shape)[:, ::-1] * pixel_size_um
    if not (np.isfinite(stage).all() and np.isfinite(shift_um).all() and np.isfinite(sigma_um).all()):
        raise ValueError("stage positions, shifts and sigma must be finite")
    n = len(stage)
    if n < LEAST_FRAMES:
        raise CalibrationError(f"{n} usable frames; at least {LEAST_FRAMES} are needed: more repeats (plan.n_repeats)")
    moves = stage - stage.mean(axis=0)
    spread = np.linalg.svd(moves, compute_uv=False)
    if spread[0] == 0 or spread[1] < 0.1 * spread[0]:
        raise CalibrationError("the stage moved along one line only; moves along x and y are needed")
    design = np.column_stack([np.ones(n), np.arange(n) - (n - 1) / 2, moves])
    solution, _, rank, _ = np.linalg.lstsq(design, shift_um, rcond=None)
    if rank < design.shape[1]:
        raise CalibrationError("the moves cannot be told from a steady drift; visit the positions in another order")
    residuals = shift_um - design @ solution
    scatter_um = np.sqrt(np.sum(residuals**2, axis=0) / max(n - design.shape[1], 1))
    lost_um = LOST_MOTION * float(np.abs(moves).max())
    expected_um = np.sqrt(np.mean(sigma_um**2, axis=0) + _between_visits(stage, residuals) ** 2 + lost_um**2)
    if (scatter_um > N_SIGMA * expected_um).any():
        raise CalibrationError(
            f"the shifts do not fit one matrix: rms residual ({scatter_um[0]:.3f}, {scatter_um[1]:.3f}) um in image x, y, more than "
            f"{N_SIGMA:g} times the ({expected_um[0]:.3f}, {expected_um[1]:.3f}) um expected; registered on the right structure?"
        )
    _check_outlier(design, shift_um, residuals, math.hypot(float(np.mean(sigma_um)), lost_um))
    answer = solution[2:].T  # content (x, y) per stage (x, y)
    covariance = np.linalg.inv(design.T @ design)[2:, 2:]
    variance = np.maximum(scatter_um, expected_um) ** 2
    answer_sigma = np.sqrt(np.outer(variance, np.diag(covariance)))
    if answer_sigma.max() > LARGEST_SIGMA:
        raise CalibrationError(
            f"the moves are too small for their scatter: uncertainty {answer_sigma.max():.2f} of the matrix, at most {LARGEST_SIGMA:g}; "
            "larger moves (plan.step) or more repeats (plan.n_repeats)"
        )
    determinant = float(np.linalg.det(answer))
    if abs(determinant) < LEAST_DETERMINANT:
        raise CalibrationError(
            f"determinant {determinant:+.3f}: the image does not follow the stage in every direction; do both motors move, "
            "and is the structure not periodic?"
        )
    matrix = -np.linalg.inv(answer)
    sigma_matrix = np.sqrt(np.einsum("ki,jl,ml,i,jm->kl", matrix**2, matrix, matrix, variance, covariance))
    found = StageCalibration(matrix, sigma_matrix, float(np.sqrt(np.mean(residuals**2))), n)
    _check_shape(found, pixel_size_um)
    return found


def _check_outlier(design: _Matrix, shift_um: _Matrix, residuals_um: _Matrix, sigma_um: float) -> None:
    """Raise when all frames but one agree far better than all: that one was registered on something else."""
    freedom = len(design) - design.shape[1] - 1
    with_all_um = math.sqrt(np.sum(residuals_um**2) / (freedom + 1) / 2)
    for left_out in range(len(design)):
        kept = np.arange(len(design)) != left_out
        solution = np.linalg.lstsq(design[kept], shift_um[kept], rcond=None)[0]
        without_um = math.sqrt(np.sum((shift_um[kept] - design[kept] @ solution) ** 2) / max(freedom, 1) / 2)
        if with_all_um > OUTLIER_RATIO * max(without_um, sigma_um):
            raise CalibrationError(
                f"the shifts do not fit one matrix because of frame {left_out + 1}: rms residual {with_all_um:.3f} um with it and "
                f"{without_um:.3f} um without; it was registered on something else. Another spot or smaller moves (plan.spot, plan.step)"
            )


def _check_shape(found: StageCalibration, pixel_size_um: float) -> None:
    """Raise when the matrix is not a rotation or mirroring at the configured scale."""
    if abs(found.scale - 1) > SCALE_TOLERANCE:
        raise CalibrationError(
            f"the image moves as with pixels of {found.scale * pixel_size_um:.4g} um, {100 * (found.scale - 1):+.0f} % off the "
            f"configured {pixel_size_um:.4g} um (at most {100 * SCALE_TOLERANCE:.0f} %): check camera.pixel_size and binning"
        )
    shear = np.abs(found.matrix / found.scale - _nearest_orthogonal(found.matrix))
    if (shear > np.maximum(SHEAR_TOLERANCE, N_SIGMA * found.sigma)).any():
        raise CalibrationError(
            f"the matrix {np.round(found.matrix, 3).tolist()} is neither a rotation nor a mirroring (off by {shear.max():.2f}): "
            "do both stage axes move as far as they say?"
        )


def _between_visits(stage_um: _Matrix, residuals_um: _Matrix) -> _Matrix:
    """Return the standard deviation (x, y), um, of residuals between visits of one place; 0 when nothing was visited twice."""
    reach_um = _SAME_PLACE * float(np.ptp(stage_um, axis=0).max())
    squares, freedom = np.zeros(2), 0
    left = np.arange(len(stage_um))
    while len(left):
        near = np.hypot(*(stage_um[left] - stage_um[left[0]]).T) <= reach_um
        visits = residuals_um[left[near]]
        squares += np.sum((visits - visits.mean(axis=0)) ** 2, axis=0)
        freedom += len(visits) - 1
        left = left[~near]
    return np.asarray(np.sqrt(squares / freedom) if freedom else squares)


def _nearest_orthogonal(matrix: _Matrix) -> _Matrix:
    """Return the orthogonal matrix nearest to `matrix` (polar decomposition), of the same handedness."""
    u, _, vt = np.linalg.svd(matrix)
    return np.asarray(u @ vt)
