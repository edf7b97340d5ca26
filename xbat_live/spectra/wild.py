"""Samples that are no absorption (hot pixels, diamond reflections) in spectra of which nothing is known but that they are alike.

What pixels of one sample differ by, composition, thickness, background, energy shift, are few functions of energy; a sample far from the
best combination of these is wild. The functions come from some of the pixels, those without spikes.
"""

from __future__ import annotations

import numpy as np

from xbat_live.spectra.checks import Float32
from xbat_live.spectra.threads import in_threads

LIMIT_SIGMA = 7.0
MOST_WILD = 0.06
_PIXELS_AT_ONCE = 8192
_SAMPLE, _RUN, _LEAST_SAMPLE = 640, 4, 64
_FUNCTIONS, _PIXELS_PER_FUNCTION = 12, 8
_ROUNDS = 3
_POWERS = 3
_SPIKE_SIGMA = 8.0
_TOGETHER, _MANY = 6, 160
_ROWS_FOR_SCALE, _ENOUGH = 128, 192
_MAD = 1.4826
_MEAN_TO_SIGMA = float(np.sqrt(np.pi / 2))


def mended(flat: Float32, fine: slice) -> tuple[np.ndarray, Float32]:
    """Return the pixels that have wild samples, (m,), and their spectra with these samples replaced, (n, m).

    A pixel of which many samples would go is another spectrum, not a wild one: it is left as it is; so are pixels with gaps.

    Parameters
    ----------
    flat
        Spectra, ascending in energy, (n, pixels).
    fine
        Samples that matter one by one. Of many others the mean of a few is looked at first: there only what stands out of it matters.
    """
    functions = _functions(flat)
    nothing = np.zeros(0, np.int64), np.zeros((len(flat), 0), np.float32)
    if functions is None:
        return nothing
    few = _few(functions.T, fine)
    back = np.ascontiguousarray(np.linalg.qr(few)[0])
    onto = np.ascontiguousarray(back.T)
    every = max(len(few) // _ROWS_FOR_SCALE, 1)

    def suspicious(start: int) -> np.ndarray:
        part = _few(flat[:, start : start + _PIXELS_AT_ONCE], fine)
        rest = back @ (onto @ part)
        rest -= part
        highest = np.maximum(rest.max(0), -rest.min(0))
        scale = np.abs(rest[::every]).mean(0)
        return start + np.flatnonzero(highest > LIMIT_SIGMA * _MEAN_TO_SIGMA * scale + 1e-6)

    found = in_threads(suspicious, range(0, flat.shape[1], _PIXELS_AT_ONCE))
    pixels = np.concatenate(found)
    if not pixels.size:
        return nothing
    spectra = np.array(flat[:, pixels])
    wild = _wild(spectra, functions)
    kept = wild.any(0) & (wild.mean(0) <= MOST_WILD)
    pixels, spectra, wild = pixels[kept], spectra[:, kept], wild[:, kept]
    spectra[wild] = _expected(spectra, functions, wild)[wild]
    return pixels, spectra


def _few(spectra: Float32, fine: slice) -> Float32:
    """Return the samples of `fine` and, where there are many others, sums of `_TOGETHER` of these with the noise of one."""
    others = fine.start + len(spectra) - fine.stop
    if others < _MANY:
        return spectra
    # None is left out: what does not fill a sum joins the fine ones.
    low = fine.start - fine.start % _TOGETHER
    high = fine.stop + (len(spectra) - fine.stop) % _TOGETHER
    result = np.empty((high - low + (low + len(spectra) - high) // _TOGETHER, spectra.shape[1]), np.float32)
    sums = result[: -(high - low)]
    for more in range(_TOGETHER):
        before, after = spectra[more:low:_TOGETHER], spectra[high + more :: _TOGETHER]
        for place, side in ((sums[: len(before)], before), (sums[len(before) :], after)):
            np.copyto(place, side) if more == 0 else np.add(place, side, out=place)
    sums *= np.float32(1 / np.sqrt(_TOGETHER))
    result[len(sums) :] = spectra[low:high]
    return result


def _functions(flat: Float32) -> Float32 | None:
    """Return orthonormal functions of energy, (r, n), that most pixels are made of; None when there are too few pixels."""
    # Short runs of pixels, which memory delivers together; each beside the next one.
    every = max(flat.shape[1] * _RUN // _SAMPLE, _RUN + 1)
    runs = flat.shape[1] // every
    taken = flat[:, : runs * every].reshape(len(flat), runs, every)[:, :, : _RUN + 1]
    chosen, beside = (taken[:, :, n : n + _RUN].reshape(len(flat), -1) for n in (0, 1))
    whole = np.isfinite(chosen.sum(0)) & np.isfinite(beside.sum(0))
    if not whole.all():
        chosen, beside = chosen[:, whole], beside[:, whole]
    if chosen.shape[1] < _LEAST_SAMPLE or len(chosen) < 2 * _FUNCTIONS:
        return None
    # Against the pixel beside, which has nearly the same energy shift: what is left at an edge is no spike.
    bend = chosen - beside
    bend = np.abs(bend[1:-1] - 0.5 * (bend[:-2] + bend[2:]))
    bend /= _MAD * np.median(bend[:, :: max(bend.shape[1] // _ENOUGH, 1)], axis=1)[:, None] + 1e-9
    typical = np.median(bend[:: max(len(bend) // _ENOUGH, 1)], axis=0) * _MAD + 1e-9
    calm = chosen[:, bend.max(0) < _SPIKE_SIGMA * typical]
    rank = min(_FUNCTIONS, calm.shape[1] // _PIXELS_PER_FUNCTION)
    if rank < 3:
        return None
    calm = calm.astype(np.float64)  # singular values from 1e3 to 0.1
    basis = np.random.default_rng(0).standard_normal((len(calm), rank + 4))
    for _ in range(_POWERS):
        basis = np.linalg.qr(calm @ (calm.T @ basis))[0]
    left = np.linalg.svd(basis.T @ calm, full_matrices=False)[0]
    return np.ascontiguousarray((basis @ left[:, :rank]).T.astype(np.float32))


def _wild(spectra: Float32, functions: Float32) -> np.ndarray:
    """Return which samples are wild, (n, m); a wild one pulls the fit, so that it is found again without those found before."""
    wild = np.zeros(spectra.shape, bool)
    for _ in range(_ROUNDS):
        rest = np.abs(spectra - _expected(spectra, functions, wild))
        scale = np.where(wild, 0, rest).sum(0) / np.maximum((~wild).sum(0), 1) * _MEAN_TO_SIGMA
        # The wildest first: it makes its neighbours look wild as well.
        limit = np.maximum(LIMIT_SIGMA * scale + 1e-6, 0.3 * np.where(wild, 0, rest).max(0))
        more = (rest > limit) & ~wild
        if not more.any():
            break
        wild |= more
    return wild


def _expected(spectra: Float32, functions: Float32, wild: np.ndarray) -> Float32:
    """Return the best combination of the functions through the samples that are not wild, (n, m)."""
    if not wild.any():
        return functions.T @ (functions @ spectra)
    used = np.where(wild, 0, spectra)
    result = np.empty_like(spectra)
    products = (functions[:, None, :] * functions[None, :, :]).reshape(-1, len(spectra))
    rank = len(functions)
    for start in range(0, spectra.shape[1], _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        gone = (products @ wild[:, part].astype(np.float32)).T.reshape(-1, rank, rank)
        gram = np.eye(rank) * (1 + 1e-6) - gone
        solution = np.linalg.solve(gram, (functions @ used[:, part]).T[:, :, None].astype(np.float64))[:, :, 0]
        result[:, part] = functions.T @ solution.T.astype(np.float32)
    return result
