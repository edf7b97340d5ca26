"""Dust, or a flat that no longer fits: what stays with the sensor while the sample moves.

It is in the keyframe and in the frame alike, so that their correlation has a peak at no shift at all, and where the sample has moved a
second, lower one. A sample that did not move has one peak, in which all that is above the noise agrees.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from xbat_live.imaging.level import PairShift
from xbat_live.imaging.spectrum import N_ANGULAR, Float

NO_SHIFT_PX = 1.5
"""Binned px within which a shift may be that of the sensor."""
IN_DOUBT, NOT_BELIEVED = 0.975, 0.95
"""Agreement below which a second peak is looked for, with the uncertainty `within` where there is none, and below which a shift that
may be the sensor's is not believed. Sharp frames of one sample have 0.996 to 1.007, those of a real microscope 0.985 to 0.991."""
LEAST_PX = 2.5
"""Binned px by which two peaks must be apart to be two."""
LEAST_HEIGHT = 7.0
"""Standard deviations of the second peak; the highest of some ten thousand px without one has 4.5."""
WIDEST = 0.45
"""Of a side: farther away the crops have too little in common."""
ABOVE_NOISE = 20.0
"""Signal over noise of what is compared: the noise of real cameras is not white, and this makes it count for little."""


def agreement(pair: PairShift) -> float:
    """Return how much of what is above the noise in both frames agrees at their shift: 1 for one rigid sample.

    The mean coherence ``C / sqrt(P1 P2)`` over the polar bins where signal is well above the noise, over what two copies of one signal S
    with noise of their own have, ``sqrt(S1 S2 / (P1 P2))``. 1, too, where no bin is so far above the noise.
    """
    expected = _compared(pair)
    total = float(expected.sum())
    return float((pair.cross * _share(pair))[expected > 0].sum()) / total if total > 0 else 1.0


def _share(pair: PairShift) -> Float:
    share: Float = pair.window.modes / np.sqrt(np.maximum(pair.frame.power * pair.reference.power, 1e-30))
    return share


def _compared(pair: PairShift) -> Float:
    """Return what every polar bin would add to the agreement of one signal, 0 where noise is not far below it."""
    signal = [np.maximum(polar.signal(), 0) for polar in (pair.frame, pair.reference)]
    used = (signal[0] > ABOVE_NOISE * pair.frame.noise) & (signal[1] > ABOVE_NOISE * pair.reference.noise)
    compared: Float = np.sqrt(signal[0] * signal[1]) * _share(pair) * used
    return compared


def explained(pair: PairShift, tiles_yx: Float) -> float:
    """Return the agreement that a sample would have whose tiles moved by `tiles_yx`, shape (n, 2), binned px: below 1 where it deformed.

    The mean of ``exp(2 pi i f . (u - shift))`` over the tiles' displacements u, weighted as in `agreement`.
    """
    edges = pair.window.radial_edges
    angle = np.arange(N_ANGULAR) * np.pi / N_ANGULAR
    frequency = np.sqrt(edges[1:] * edges[:-1])[:, None, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    apart = tiles_yx - pair.shift_yx
    coherence = np.cos(2 * np.pi * frequency @ apart.T).mean(-1)
    weight = _compared(pair)
    total = float(weight.sum())
    return float((weight * coherence).sum()) / total if total > 0 else 1.0


def within(agrees: float) -> Float:
    """Return the covariance, shape (2, 2), binned px squared, of a shift that what stays with the sensor may pull towards none.

    Measured on dust that takes 0.2 to 0.7 of the light: 0.25 to 0.5 px with an agreement of 0.97.
    """
    return np.eye(2) * NO_SHIFT_PX**2 * max(1 - agrees, 0.0)


def second_shift(pair: PairShift) -> Float | None:
    """Return where the correlation has another peak beside that of a pair at no shift (shape (2,), binned px, whole), or None.

    What one peak explains is taken off first, with the frame's own structure: the autocorrelation of the reference, scaled to the height
    that every ring of frequencies has at no shift.
    """
    window = pair.window
    both = np.sqrt(np.maximum(window.radial_mean(pair.frame.power) * window.radial_mean(pair.reference.power), 1e-30))
    signal = [np.maximum(window.radial_mean(polar.signal()), 0) for polar in (pair.frame, pair.reference)]
    coherence = np.minimum(np.sqrt(signal[0] * signal[1]) / both, 1.0)
    cross = pair.spectrum * pair.conjugate
    own = pair.conjugate.real**2 + pair.conjugate.imag**2
    share = window.radial_sums(cross.real) / np.maximum(window.radial_sums(own), 1e-30)
    weight = np.append(coherence / both, 0.0).astype(np.float32)[window.radial_index]
    explained = np.append(np.maximum(share, 0), 0.0).astype(np.float32)[window.radial_index] * own
    surface = fft.irfft2(weight * (cross - explained), window.shape, workers=window.workers)
    spread = float(np.sqrt(pair.mode_correlation * float((coherence**2 * window.radial_modes).sum())))
    ny, nx = window.shape
    y, x = np.abs(fft.fftfreq(ny))[:, None], np.abs(fft.fftfreq(nx))[None, :]
    surface[(np.hypot(y * ny, x * nx) < LEAST_PX) | (y > WIDEST) | (x > WIDEST)] = -np.inf
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    if not float(surface[row, column]) * ny * nx > LEAST_HEIGHT * spread:
        return None
    return np.array([float(row - ny if row > ny // 2 else row), float(column - nx if column > nx // 2 else column)])
