"""Blocks of modes of a half plane: what registration has to touch, and the moments from which a correlation peak is climbed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xbat_live.imaging.spectrum import Complex2D, CropWindow, Float

MOST_SAMPLED = 8000
"""Modes from which the scatter of phases is measured, about."""


class Band:
    """The modes of a half plane below a radius, as one contiguous block: all that registration has to touch.

    Parameters
    ----------
    window
        Geometry of the whole half plane.
    radius
        Cycles per binned px.
    """

    def __init__(self, window: CropWindow, radius: float) -> None:
        ny, nx = window.shape
        rows = int(np.ceil(radius * ny)) + 1
        columns = min(int(np.ceil(radius * nx)) + 1, len(window.fx))
        self._blocks: tuple[tuple[slice, slice], ...] = (
            (slice(0, rows), slice(0, columns)),
            (slice(ny - rows + 1, ny), slice(0, columns)),
        )
        if 2 * rows - 1 >= ny:
            self._blocks = ((slice(0, ny), slice(0, columns)),)
        self.columns = columns
        fy = np.concatenate([window.fy[block[0]] for block in self._blocks])
        self.fy, self.fx, self.multiplicity = fy, window.fx[:columns], window.multiplicity[:columns]
        # Powers of the frequencies, for moments: columns 1, f, f^2
        self._powers_y = np.stack([np.ones_like(self.fy), self.fy, self.fy**2], 1).astype(np.float64)
        powers_x = np.stack([np.ones_like(self.fx), self.fx, self.fx**2], 1)
        self._counted_x = powers_x * self.multiplicity[:, None]
        self.radial_index = self.take(window.radial_index)
        self._sampled = slice(0, columns, max(1, len(self.fy) * columns // MOST_SAMPLED))
        self._sampled_fx = self.fx[self._sampled]
        self._sampled_share = self.multiplicity[self._sampled] ** 2 * np.float32(self._sampled.step)
        self._sampled_powers = powers_x[self._sampled] * self._sampled_share[:, None]

    def phase(self, shift_yx: Float) -> Complex2D:
        """Return ``exp(2 pi i f . shift)`` at all modes."""
        return phase_ramp(self.fy, self.fx, shift_yx)

    def moments(self, values: Complex2D, shift_yx: Float | tuple[float, float]) -> NDArray[np.complex128]:
        """Return ``M[i, j] = sum fy^i fx^j v exp(2 pi i f . shift)`` for i, j in 0, 1, 2 over the full plane.

        Two small matrix products: value, gradient and curvature of a correlation peak for the cost of reading the modes once.
        """
        by_column = (self._counted_x * _turns(self.fx, shift_yx[1])[:, None]).astype(np.complex64)
        by_row = self._powers_y * _turns(self.fy, shift_yx[0])[:, None]
        result: NDArray[np.complex128] = by_row.T @ (values @ by_column)
        return result

    def take(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the block of a spectrum-shaped array, contiguous."""
        return np.concatenate([values[block] for block in self._blocks])

    def scatter(self, values: Complex2D, window: CropWindow) -> Complex2D:
        """Return a half plane that is `values` in the block and zero elsewhere."""
        half = np.zeros((window.shape[0], len(window.fx)), np.complex64)
        top = 0
        for block in self._blocks:
            rows = half[block].shape[0]
            half[block] = values[top : top + rows]
            top += rows
        return half

    def scatter_of_phases(self, values: Complex2D, shift_yx: Float) -> tuple[Float, float]:
        """Return ``S[i, j] = sum m^2 fy^i fx^j Im(v e)^2`` with ``e = exp(2 pi i f . shift)``, and ``sum m^2 Re(v e)^2``.

        m is the multiplicity of a mode in the half plane (1 or 2). Of larger blocks every n-th column is looked at.
        """
        turned = phase_ramp(self.fy, self._sampled_fx, shift_yx)
        turned *= values[:, self._sampled]
        imaginary, real = np.square(turned.imag), np.square(turned.real)
        moments: Float = self._powers_y.T @ (imaginary @ self._sampled_powers)
        return moments, float(np.add.reduce(real, axis=0) @ self._sampled_share)


def phase_ramp(fy: NDArray[np.float32], fx: NDArray[np.float32], shift_yx: Float) -> Complex2D:
    """Return ``exp(2 pi i f . shift)`` on the grid of two axes of frequencies."""
    by_row, by_column = _turns(fy, shift_yx[0]).astype(np.complex64), _turns(fx, shift_yx[1]).astype(np.complex64)
    phase: Complex2D = by_row[:, None] * by_column
    return phase


def mean_phase_ramp(fy: NDArray[np.float32], fx: NDArray[np.float32], shifts_yx: Sequence[Float]) -> Complex2D:
    """Return the mean of `phase_ramp` over shifts: one matrix product."""
    by_row = np.stack([_turns(fy, y) for y, _ in shifts_yx], 1).astype(np.complex64)
    by_column = np.stack([_turns(fx, x) for _, x in shifts_yx]).astype(np.complex64)
    phase: Complex2D = by_row @ by_column
    phase *= np.float32(1 / len(shifts_yx))
    return phase


def _turns(frequency: NDArray[np.float32], shift: float) -> NDArray[np.complex128]:
    """Return ``exp(2 pi i f shift)``, in float64: whole turns would cost float32 its digits."""
    turns: NDArray[np.complex128] = np.exp(np.complex128(2j * np.pi * shift) * frequency)
    return turns
