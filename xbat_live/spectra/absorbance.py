"""From camera counts to absorbance: binning, Beer-Lambert, and the same frame by frame with the logarithm of I0 kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.imaging.correction import bin_sum
from xbat_live.spectra.checks import Float, Float32, checked_cube, checked_energies, tell_masked

_SAME_EV = 0.5


def bin_frames(cube: ArrayLike, factor: int) -> Float32:
    """Return means over `factor` x `factor` pixels.

    Parameters
    ----------
    cube
        Counts or any other values, (ny, nx) or (n, ny, nx), any real dtype.
    factor
        Pixels along each side; rows and columns that do not fill a block are cut off.

    Returns
    -------
    ndarray
        float32, (n, ny // factor, nx // factor) (or without n). A block that holds a saturated pixel (65535 of uint16) or
        NaN is NaN: the mean of what is left would not be the mean of the same area in another frame.

    Raises
    ------
    ValueError
        A factor that does not fit.
    """
    frames = np.asarray(cube)
    if frames.ndim not in (2, 3):
        raise ValueError(f"frames of shape {frames.shape}: expected (ny, nx) or (n, ny, nx)")
    if factor != int(factor) or not 1 <= factor <= min(frames.shape[-2:]):
        raise ValueError(f"binning {factor} x {factor} does not fit frames of {frames.shape[-2:]} px")
    if frames.ndim == 2:
        return _bin_frame(frames, int(factor))
    binned = np.empty((len(frames), frames.shape[1] // factor, frames.shape[2] // factor), np.float32)
    for number, frame in enumerate(frames):
        binned[number] = _bin_frame(frame, int(factor))
    return binned


def absorbance(i0: ArrayLike, sample: ArrayLike, dark: ArrayLike) -> Float32:
    """Return ``-ln((sample - dark) / (i0 - dark))`` (Beer-Lambert).

    Parameters
    ----------
    i0
        Counts without sample, (n_energy, ny, nx); (ny, nx) when one image is to serve all energies.
    sample
        Counts with sample, (n_energy, ny, nx) or (ny, nx).
    dark
        Counts without beam: a number, (ny, nx), or of the shape of `sample`.

    Returns
    -------
    ndarray
        Shape of `sample`, float32, dimensionless. NaN where there is no light (counts not above the dark), where a count is
        not finite or, for uint16, saturated. How many is logged; ``np.isnan(result).sum()`` counts them.

    Raises
    ------
    ValueError
        Shapes that do not fit together, a dark or an I0 that is not finite anywhere, no light in any pixel of I0.
    """
    counts, beam, offset = np.asarray(sample), np.asarray(i0), np.asarray(dark, np.float32)
    if counts.ndim not in (2, 3) or beam.shape not in (counts.shape, counts.shape[-2:]):
        raise ValueError(
            f"absorbance: i0 of shape {beam.shape} and sample of shape {counts.shape}: one I0 image per energy (or a single "
            "image) with the region and binning of the sample is needed; take an I0 cube again"
        )
    if offset.ndim and offset.shape not in (counts.shape, counts.shape[-2:], (1, *counts.shape[-2:])):
        raise ValueError(f"absorbance: dark of shape {offset.shape} for frames of {counts.shape}")
    if not np.isfinite(offset).any():
        raise ValueError("absorbance: the dark is not finite")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        open_beam = _light(beam, offset if offset.ndim < 3 or beam.ndim == 3 else offset[0])
        if not (open_beam > 0).any():
            raise ValueError("absorbance: i0 is nowhere above the dark; was the shutter open, is there a beam?")
        light = _light(counts, offset)
        np.log(open_beam, out=open_beam)
        np.log(light, out=light)
        result: Float32 = np.subtract(open_beam, light, out=light)
    bad = ~np.isfinite(result)
    result[bad] = np.nan
    tell_masked("absorbance", int(bad.sum()), bad.size, "no light, saturated or not finite (per energy)")
    return result


class FrameAbsorbance:
    """Absorbance of single raw frames against an I0 cube whose logarithm is kept.

    Parameters
    ----------
    i0
        Mean I0 cube, binned, counts, (n, ny, nx).
    energy_ev
        Its energies, (n,).
    dark
        Binned dark counts: a number or (ny, nx).
    bin_factor
        Binning of the frames that will come.

    Raises
    ------
    ValueError
        As `absorbance`.
    """

    def __init__(self, i0: ArrayLike, energy_ev: ArrayLike, dark: ArrayLike = 0.0, *, bin_factor: int = 1) -> None:
        beam = checked_cube(i0, "i0")
        energies = checked_energies(energy_ev, len(beam), what="I0 frames")
        order = np.argsort(energies, kind="stable")
        self._energy: Float = energies[order]
        self._dark = np.asarray(dark, np.float32)
        if self._dark.ndim and self._dark.shape != beam.shape[1:]:
            raise ValueError(f"dark of shape {self._dark.shape} for binned frames of {beam.shape[1:]} px")
        self._log = np.empty_like(beam)
        with np.errstate(invalid="ignore", divide="ignore"):
            for place, number in enumerate(order):
                np.log(_light(beam[number], self._dark), out=self._log[place])
        self._log[~np.isfinite(self._log)] = np.nan
        if np.isnan(self._log).all():
            raise ValueError("absorbance: i0 is nowhere above the dark; was the shutter open, is there a beam?")
        self.bin_factor = int(bin_factor)
        self.shape = beam.shape[1:]

    def covers(self, energy_ev: float) -> bool:
        """Whether there is I0 at an energy, eV, or within half an eV (or one step) of it."""
        step = max(_SAME_EV, float(self._energy[-1] - self._energy[0]) / max(len(self._energy) - 1, 1))
        return bool(self._energy[0] - step <= energy_ev <= self._energy[-1] + step)

    def __call__(self, frame: ArrayLike, energy_ev: float) -> Float32:
        """Return the absorbance of one raw frame, float32 (ny, nx); NaN where there is no light.

        Log I0 is interpolated between its two neighbours in energy.

        Raises
        ------
        ValueError
            A frame of another shape, or an energy more than half an eV (or one step) outside the I0 cube.
        """
        binned = bin_frames(frame, self.bin_factor)
        if binned.shape != self.shape:
            raise ValueError(f"frame of {binned.shape} px after binning, I0 has {self.shape} px")
        binned -= self._dark
        with np.errstate(invalid="ignore", divide="ignore"):
            np.log(binned, out=binned)
        result = np.subtract(self._log_i0(float(energy_ev)), binned, out=binned)
        if not np.isfinite(float(result.sum(dtype=np.float64))):
            result[~np.isfinite(result)] = np.nan
        return result

    def _log_i0(self, energy_ev: float) -> Float32:
        energies = self._energy
        after = int(np.searchsorted(energies, energy_ev))
        low, high = max(after - 1, 0), min(after, len(energies) - 1)
        if not self.covers(energy_ev):
            raise ValueError(
                f"no I0 at {energy_ev:g} eV: the I0 cube covers {energies[0]:g} to {energies[-1]:g} eV; take it over the range "
                "of the sample"
            )
        width = energies[high] - energies[low]
        share = 0.0 if width <= 0 else float(np.clip((energy_ev - energies[low]) / width, 0, 1))
        if share < 1e-3:
            return self._log[low]
        if share > 1 - 1e-3:
            return self._log[high]
        between: Float32 = self._log[low] * np.float32(1 - share)
        between += self._log[high] * np.float32(share)
        return between


def _light(counts: NDArray[Any], dark: NDArray[Any]) -> Float32:
    light = np.subtract(counts, dark, dtype=np.float32)
    if counts.dtype == np.uint16:
        light[counts == np.iinfo(np.uint16).max] = np.nan
    light[light <= 0] = np.nan
    return light


def _bin_frame(frame: NDArray[Any], factor: int) -> Float32:
    binned = bin_sum(frame, factor) if factor > 1 else frame.astype(np.float32)
    binned *= np.float32(1.0 / factor**2)
    full = np.iinfo(np.uint16).max
    if frame.dtype == np.uint16 and frame.max() == full:
        ny, nx = binned.shape
        saturated = frame[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor) == full
        binned[saturated.any((1, 3))] = np.nan
    return binned
