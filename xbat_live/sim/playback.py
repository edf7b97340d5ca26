"""Real recorded frames in place of the rendered electrode: transmission from sample and reference frames."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xbat_live.recordings import Recording, find_recordings
from xbat_live.sim.render import PAD_PX, SceneState, ShiftedWindow, Transmission, first_index_px
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi

__all__ = ["RecordedFrames", "RecordedScene", "scene_settings"]

_Float32 = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

_WINDOWS_KEPT = 4
_REFERENCES_KEPT = 12
_FLOOR_SHARE = 0.02  # of the reference's median: keeps dark corners from blowing up the ratio
_SMOOTH_PX = 60.0


class RecordedFrames:
    """The recorded frames of a file or directory: what is there, and the images when needed.

    Parameters
    ----------
    path
        See `find_recordings` for formats and errors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        recordings = find_recordings(path)
        self.shape = recordings[0].shape
        self.pixel_size_um = recordings[0].pixel_size_um
        self.samples = [r for r in recordings if not r.is_reference]
        self._references = [r for r in recordings if r.is_reference]
        if not self.samples:
            raise ValueError(
                f"{path}: holds only reference frames; expected sample frames too (file names without 'ref')"
            )
        if not self._references:
            logger.warning("%s: no reference frames; a heavily smoothed sample frame takes their place", path)
        self._loaded: OrderedDict[Recording, _Float32] = OrderedDict()

    def sample_group(self, energy_ev: float) -> list[Recording]:
        """Sample frames of the recorded energy nearest to `energy_ev`, in recorded order."""
        return _nearest(self.samples, energy_ev)

    def transmission(self, recording: Recording) -> _Float32:
        """Sample frame over the mean reference of its energy, both per second of exposure, float32 (rows, columns)."""
        rate = self._rate(recording)
        mean = self._mean_reference(recording)
        floor = np.float32(_FLOOR_SHARE * np.median(mean))
        return np.clip((rate + floor) / (mean + floor), 0.0, 4.0).astype(np.float32)

    def reference_rate(self, energy_ev: float, draw: int) -> _Float32:
        """Return a reference frame in counts/s at the recorded energy nearest to `energy_ev`, chosen by `draw`."""
        group = _nearest(self._references, energy_ev)
        if not group:
            return self._mean_reference(self.sample_group(energy_ev)[0])
        return self._rate(group[draw % len(group)])

    def exposure_s(self, energy_ev: float) -> float:
        """Exposure of the reference frames (or of the sample frames where there are none), s."""
        group = _nearest(self._references, energy_ev) or self.sample_group(energy_ev)
        return _exposure_s(group[0])

    @cached_property
    def counts_per_photon(self) -> float:
        """Gain from two frames of one scene: half the variance of their difference over their mean; 1 without two."""
        group = _nearest(self._references, self.samples[0].energy_ev)
        if len(group) < 2:
            return 1.0
        first, second = (r.read() for r in group[:2])
        middle = tuple(slice(n // 4, n - n // 4) for n in self.shape)
        a, b = first[middle], second[middle]
        mean = float((a + b).mean()) / 2
        difference = a - b * (a.mean() / b.mean())
        spread = float(np.percentile(np.abs(difference), 68.27))
        return max(spread**2 / 2 / max(mean, 1.0), 1e-3)

    def _rate(self, recording: Recording) -> _Float32:
        image = self._loaded.get(recording)
        if image is None:
            image = recording.read() / np.float32(_exposure_s(recording))
            self._loaded[recording] = image
            if len(self._loaded) > _REFERENCES_KEPT:
                self._loaded.popitem(last=False)
        return image

    def _mean_reference(self, recording: Recording) -> _Float32:
        group = _nearest(self._references, recording.energy_ev)
        key = Recording(self._path, -1, self.shape, kind="flat", energy_ev=recording.energy_ev)
        if key not in self._means:
            if group:
                mean = np.zeros(self.shape, np.float32)
                for reference in group:
                    mean += self._rate(reference)
                mean /= len(group)
            else:
                from scipy.ndimage import gaussian_filter

                mean = gaussian_filter(self._rate(recording), _SMOOTH_PX, mode="nearest") * np.float32(1.5)
            self._means[key] = mean
        return self._means[key]

    @cached_property
    def _means(self) -> dict[Recording, _Float32]:
        return {}


def _exposure_s(recording: Recording) -> float:
    """Exposure, s; 1 where the file does not tell."""
    return recording.exposure_s or 1.0


def _nearest(recordings: list[Recording], energy_ev: float | None) -> list[Recording]:
    """Those of `recordings` at the energy nearest to `energy_ev`; all, if energies are not known."""
    known = [r.energy_ev for r in recordings if r.energy_ev is not None]
    if energy_ev is None or not known:
        return recordings
    best = min(known, key=lambda e: abs(e - energy_ev))
    return [r for r in recordings if r.energy_ev == best]


@dataclass(frozen=True)
class _Key:
    recording: Recording
    origin: tuple[int, int]
    shape: tuple[int, int]


class RecordedScene:
    """Plays the recorded transmission, mirrored beyond its borders, within the outline of the twin's sample.

    Successive sample frames play the recorded sample frames in turn, so each has its own recorded noise.
    What moved between the recorded frames moves here as well, on top of the twin's truth (0.7 px in the SSRL set).

    Parameters
    ----------
    settings
        With pixel size and sensor of the recording.
    frames
        The recording.
    """

    def __init__(self, settings: TwinSettings, frames: RecordedFrames) -> None:
        self._settings = settings
        self._frames = frames
        self._windows: OrderedDict[_Key, ShiftedWindow] = OrderedDict()

    @property
    def counts_per_photon(self) -> float:
        """Gain of the recording."""
        return self._frames.counts_per_photon

    def transmission(self, state: SceneState, roi: Roi) -> Transmission:
        """See `Scene`."""
        pixel_um = self._settings.pixel_size_um
        first = first_index_px(state, roi, self._settings.sensor_yx, pixel_um)
        shape = (roi.size_y, roi.size_x)
        group = self._frames.sample_group(state.energy_ev)
        outside = []
        for start, count, size_um in zip(first, shape, self._settings.sample_size_um[::-1], strict=True):
            axis_um = (start - PAD_PX + np.arange(ShiftedWindow.length(count))) * pixel_um
            outside.append(np.clip((np.abs(axis_um) - size_um / 2) / 0.1 + 0.5, 0.0, 1.0).astype(np.float32))
        inside = (1 - outside[0])[:, None] * (1 - outside[1])
        if not inside.any():
            return Transmission(np.ones_like(inside), shape)
        image = self._window(group[state.sample_index % len(group)], first, roi).read(first)
        np.maximum(image, 0.0, out=image)
        image -= 1.0
        image *= inside
        image += 1.0
        return Transmission(image, shape)

    def counts(
        self, transmission: _Float32, state: SceneState, roi: Roi, open_time_s: float, rng: np.random.Generator | None
    ) -> _Float32:
        """Return counts without dark, float32: `transmission` times a reference frame drawn by `rng`, scaled in time.

        Without `rng` the first reference frame is taken and no noise is added.

        `open_time_s` includes the attenuator and the ring current relative to their nominal values. When the scaled
        exposure is shorter than the recorded one, the photon noise that scaling has averaged away is put back.
        """
        reference = self._frames.reference_rate(state.energy_ev, 0 if rng is None else int(rng.integers(0, 1 << 30)))
        counts = reference[roi.min_y : roi.min_y + roi.size_y, roi.min_x : roi.min_x + roi.size_x] * transmission
        counts *= np.float32(open_time_s)
        share = open_time_s / self._frames.exposure_s(state.energy_ev)
        if rng is not None and share < 1.0:
            missing = np.sqrt(np.maximum(counts, 0.0) * np.float32(self._frames.counts_per_photon * (1.0 - share)))
            counts += missing * rng.standard_normal(counts.shape, dtype=np.float32)
        return counts

    def _window(self, recording: Recording, first: tuple[float, float], roi: Roi) -> ShiftedWindow:
        for key, window in self._windows.items():
            if key.recording == recording and window.holds(first, roi):
                self._windows.move_to_end(key)
                return window
        origin, shape = ShiftedWindow.geometry(first, roi)
        source = self._frames.transmission(recording)
        rows, columns = (
            _mirror(start + np.arange(count) + length // 2, length)
            for start, count, length in zip(origin, shape, source.shape, strict=True)
        )
        window = ShiftedWindow(origin, source[np.ix_(rows, columns)])
        self._windows[_Key(recording, origin, shape)] = window
        while len(self._windows) > _WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return window


def _mirror(index: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Return indices of a sequence continued by its mirror images."""
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def scene_settings(settings: TwinSettings, frames: RecordedFrames) -> TwinSettings:
    """Return settings with the sensor and, where the recording tells it, the pixel size of `frames`."""
    rows, columns = frames.shape
    pixel_um = frames.pixel_size_um or settings.pixel_size_um
    return replace(settings, sensor_yx=(rows, columns), pixel_size_um=pixel_um)
