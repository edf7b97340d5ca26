"""From the scene to counts: the simulated camera and the one that plays recorded frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xbat_live.sim.cell import Cell
from xbat_live.sim.detector import digitise, expose_counts, read_noise
from xbat_live.sim.instabilities import Vibration, seeded
from xbat_live.sim.optics import BeamProfile, SensorPattern, bin_mean, bin_sum, crop
from xbat_live.sim.render import ElectrodeScene, SceneState, Transmission
from xbat_live.sim.settings import TwinSettings
from xbat_live.sim.truth import Roi

__all__ = ["Imager", "RecordedImager", "Shot", "SimulatedImager", "make_imager"]

_Float32 = npt.NDArray[np.float32]

_FRAME_STREAM = 61
_BEAM_TOLERANCE_PX = 0.25


@dataclass(frozen=True)
class Shot:
    """One exposure: region, binning, photons of the whole beam and how they were spread in time and place.

    Attributes
    ----------
    relative_flux
        Flux over its nominal value (ring current, attenuator).
    exposure_s, open_s
        Exposure of the camera and the part of it with the shutter open, s.
    beam_offset_yx_um
        Beam centre relative to the field centre.
    """

    number: int
    roi: Roi
    bin_yx: tuple[int, int]
    exposure_s: float
    open_s: float
    relative_flux: float
    beam_offset_yx_um: tuple[float, float]
    vibration: Vibration


class Imager(Protocol):
    """A camera looking at a scene. Not thread-safe: the twin holds its render lock."""

    def expose(self, state: SceneState, shot: Shot) -> tuple[npt.NDArray[np.uint16], float]:
        """Return the frame (rows, columns) and the mean number of detected photons per pixel."""

    def expected_counts(self, state: SceneState, shot: Shot) -> _Float32:
        """Noise-free counts without dark, float32 (rows, columns)."""

    def prepare(self, state: SceneState, shot: Shot) -> None:
        """Fill every cache that an exposure of `shot` needs."""


class SimulatedImager:
    """Camera in front of the rendered electrode.

    Parameters
    ----------
    settings, cell
        The twin's.
    """

    def __init__(self, settings: TwinSettings, cell: Cell, beam: BeamProfile) -> None:
        self._settings = settings
        self._beam = beam
        self._scene = ElectrodeScene(settings, cell)
        self._pattern = SensorPattern(settings, settings.sensor_yx)
        self._flat: tuple[Roi, tuple[float, float], _Float32] | None = None
        self._share: tuple[Transmission, tuple[float, float], tuple[int, int], _Float32] | None = None
        self._sensor: tuple[Roi, tuple[int, int], _Float32, _Float32, _Float32] | None = None

    def expose(self, state: SceneState, shot: Shot) -> tuple[npt.NDArray[np.uint16], float]:
        """See `Imager`."""
        rng = seeded(self._settings.seed, _FRAME_STREAM, shot.number)
        gain, offset, current = self._sensor_maps(shot)
        dark = offset + current * np.float32(shot.exposure_s)
        sigma = self._settings.read_noise_counts
        if shot.open_s <= 0 or shot.relative_flux <= 0:
            counts = dark + read_noise(dark.shape, sigma, rng)
            return digitise(counts, self._settings.saturation_counts), 0.0
        photons = self._photons(state, shot)
        counts = expose_counts(photons, gain, dark, sigma, rng)
        return digitise(counts, self._settings.saturation_counts), float(photons[::4, ::4].mean())

    def expected_counts(self, state: SceneState, shot: Shot) -> _Float32:
        """See `Imager`."""
        return self._photons(state, shot) * self._sensor_maps(shot)[0]

    def prepare(self, state: SceneState, shot: Shot) -> None:
        """See `Imager`."""
        self._sensor_maps(shot)
        photons = self._photons(state, shot)
        sample = np.ascontiguousarray(photons[:8, :8])
        for level in (1.0, 1000.0):  # tables of both kinds of noise
            expose_counts(np.full_like(sample, level), np.ones_like(sample), sample, 1.0, np.random.default_rng(0))

    def _photons(self, state: SceneState, shot: Shot) -> _Float32:
        """Return the expected detected photons per (binned) pixel."""
        beam_photons = np.float32(self._settings.flux_ph_s * shot.relative_flux * shot.open_s)
        image = self._scene.transmission(state, shot.roi)
        if shot.vibration.extent_px > 0:
            seen = np.maximum(image.blurred(shot.vibration), 0.0)
            return bin_sum(self._flat_share(shot) * seen, shot.bin_yx) * beam_photons
        cached = self._share
        if cached is None or cached[0] is not image or cached[2] != shot.bin_yx or self._beam_moved(cached[1], shot):
            share = bin_sum(self._flat_share(shot) * image.sharp, shot.bin_yx)
            cached = self._share = (image, shot.beam_offset_yx_um, shot.bin_yx, share)
        return cached[3] * beam_photons

    def _flat_share(self, shot: Shot) -> _Float32:
        """Return detected photons per pixel and photon of the beam, without sample."""
        if self._flat is None or self._flat[0] != shot.roi or self._beam_moved(self._flat[1], shot):
            pixel_um, roi = self._settings.pixel_size_um, shot.roi
            axes = [
                (first + np.arange(count) - (sensor - 1) / 2) * pixel_um - offset_um
                for first, count, sensor, offset_um in zip(
                    (roi.min_y, roi.min_x),
                    (roi.size_y, roi.size_x),
                    self._settings.sensor_yx,
                    shot.beam_offset_yx_um,
                    strict=True,
                )
            ]
            share = self._beam.density(axes[0], axes[1])
            share *= crop(self._pattern.dust, roi)
            share *= np.float32(pixel_um**2 * self._settings.detection_efficiency)
            self._flat = (roi, shot.beam_offset_yx_um, share)
        return self._flat[2]

    def _beam_moved(self, old_yx_um: tuple[float, float], shot: Shot) -> bool:
        moved_um = max(abs(a - b) for a, b in zip(old_yx_um, shot.beam_offset_yx_um, strict=True))
        return moved_um > _BEAM_TOLERANCE_PX * self._settings.pixel_size_um

    def _sensor_maps(self, shot: Shot) -> tuple[_Float32, _Float32, _Float32]:
        """Return gain, offset and dark current of the region, binned on the chip: one offset per read pixel."""
        if self._sensor is None or self._sensor[:2] != (shot.roi, shot.bin_yx):
            gain, offset = (
                bin_mean(crop(m, shot.roi), shot.bin_yx) for m in (self._pattern.gain, self._pattern.offset)
            )
            current = bin_sum(crop(self._pattern.dark_current, shot.roi), shot.bin_yx)
            gain, offset, current = (np.ascontiguousarray(m) for m in (gain, offset, current))
            self._sensor = (shot.roi, shot.bin_yx, gain, offset, current)
        return self._sensor[2:]


class RecordedImager:
    """Camera that plays recorded frames; see `RecordedScene`."""

    def __init__(self, settings: TwinSettings, scene: RecordedSceneLike) -> None:
        self._settings = settings
        self._scene = scene

    def expose(self, state: SceneState, shot: Shot) -> tuple[npt.NDArray[np.uint16], float]:
        """See `Imager`."""
        settings = self._settings
        rng = seeded(settings.seed, _FRAME_STREAM, shot.number)
        shape = (shot.roi.size_y // shot.bin_yx[0], shot.roi.size_x // shot.bin_yx[1])
        counts = read_noise(shape, settings.read_noise_counts, rng) + np.float32(settings.dark_counts)
        photons = 0.0
        if shot.open_s > 0 and shot.relative_flux > 0:
            signal = self._signal(state, shot, rng)
            photons = max(float(signal.mean()) / self._scene.counts_per_photon, 0.0)
            counts += signal
        return digitise(counts, settings.saturation_counts), photons

    def expected_counts(self, state: SceneState, shot: Shot) -> _Float32:
        """See `Imager`; the recorded noise is in it."""
        return self._signal(state, shot, None)

    def prepare(self, state: SceneState, shot: Shot) -> None:
        """See `Imager`."""
        self._signal(state, shot, np.random.default_rng(0))

    def _signal(self, state: SceneState, shot: Shot, rng: np.random.Generator | None) -> _Float32:
        image = self._scene.transmission(state, shot.roi)
        seen = np.maximum(image.blurred(shot.vibration), 0.0) if shot.vibration.extent_px > 0 else image.sharp
        return bin_sum(self._scene.counts(seen, state, shot.roi, shot.open_s * shot.relative_flux, rng), shot.bin_yx)


class RecordedSceneLike(Protocol):
    """What `RecordedImager` needs of a recording."""

    @property
    def counts_per_photon(self) -> float:
        """Gain of the recording."""

    def transmission(self, state: SceneState, roi: Roi) -> Transmission:
        """See `Scene`."""

    def counts(
        self, transmission: _Float32, state: SceneState, roi: Roi, open_time_s: float, rng: np.random.Generator | None
    ) -> _Float32:
        """Return counts without dark; no fresh noise when `rng` is None."""


def make_imager(settings: TwinSettings, cell: Cell, beam: BeamProfile) -> tuple[TwinSettings, Imager]:
    """Return the camera that `settings` ask for, and the settings with its sensor and pixel size.

    Raises
    ------
    ValueError
        `settings.frames` cannot be played; the message names the file and what was expected. Or `settings.image_orientation` is
        impossible with this sensor.
    """
    settings, imager = _make_upright(settings, cell, beam)
    if settings.image_orientation == "upright":
        return settings, imager
    from xbat_live.sim.orientation import OrientedImager

    return settings, OrientedImager(imager, settings.image_orientation, settings.sensor_yx)


def _make_upright(settings: TwinSettings, cell: Cell, beam: BeamProfile) -> tuple[TwinSettings, Imager]:
    if settings.frames is None and settings.scene == "rock":
        from xbat_live.sim.rock_scene import RockImager

        return settings, RockImager(settings, cell, beam)
    if settings.frames is None:
        return settings, SimulatedImager(settings, cell, beam)
    from xbat_live.sim.playback import RecordedFrames, RecordedScene, scene_settings

    frames = RecordedFrames(settings.frames)
    settings = scene_settings(settings, frames)
    return settings, RecordedImager(settings, RecordedScene(settings, frames))
