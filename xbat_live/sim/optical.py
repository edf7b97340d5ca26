"""The optical reflection microscope beside the X-ray microscope: same twin time, same cell, same stage, no dose."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .detector import digitise, expose_counts
from .instabilities import Vibration, seeded, vibration_of_frame
from .optical_scene import GraphiteSurface, SurfaceState
from .optics import SensorPattern, bin_mean, bin_sum, crop
from .truth import Roi

if TYPE_CHECKING:
    from .twin import Twin

__all__ = ["TRUTH_FILE", "OpticalFrame", "OpticalMicroscope", "OpticalTruth"]

_Float32 = npt.NDArray[np.float32]

TRUTH_FILE = "truth_optical.jsonl"
WHITE_REFLECTANCE = 0.95
_OTHER_SEED = 0x5EED  # its dust, noise and vibration are not those of the X-ray camera
_FRAME_STREAM, _JITTER_STREAM = 109, 113
_COUNTS_PER_PHOTON = 4.0
_VIGNETTING = 0.35  # light lost in the corners
_TILT = 0.15  # of the illumination over the field


@dataclass(frozen=True)
class OpticalTruth:
    """Truth of one frame of the microscope.

    Attributes
    ----------
    frame_number, sample_index
        Counts every frame from 0; counts frames of type "Normal" that show the lit sample, from 0, -1 for the others.
    x_um, y_um
        Sample coordinate under the field centre: a feature at sample coordinate ``s`` is seen at
        ``centre + (s - (x, y)) / pixel``, beside the deformation.
    drift_x_um, drift_y_um, jitter_x_um, jitter_y_um
        Drift of sample and microscope together; random position of this frame.
    blur_extent_px, blur_angle_deg, blurred
        Vibration, as in `FrameTruth`.
    deformation_px
        Largest local displacement of the surface against state of charge 0.
    lamp, reference
        Lamp 0..1, and whether the white reference was in the light path.
    photons_per_px
        Mean detected photons per (binned) pixel, before noise.
    """

    frame_number: int
    sample_index: int
    time_unix: float
    twin_time_s: float
    frame_type: str
    x_um: float
    y_um: float
    drift_x_um: float
    drift_y_um: float
    jitter_x_um: float
    jitter_y_um: float
    blur_extent_px: float
    blur_angle_deg: float
    blurred: bool
    soc_mean: float
    deformation_px: float
    lamp: float
    reference: bool
    exposure_s: float
    photons_per_px: float


@dataclass(frozen=True)
class OpticalFrame:
    """One frame, uint16 (rows, columns), with its truth."""

    image: npt.NDArray[np.uint16]
    truth: OpticalTruth


class OpticalMicroscope:
    """Camera of the reflection microscope. Methods may be called from any thread.

    It looks at the graphite electrode of the twin's cell from the other side; the cell sits on the X-ray microscope's
    stage, so that a stage move moves this image as well. A frame changes nothing in the twin: visible light is no dose.

    Parameters
    ----------
    twin
        Clock, stage, drift and state of charge.
    """

    def __init__(self, twin: Twin) -> None:
        settings = twin.settings
        self._twin = twin
        self._settings = dataclasses.replace(
            settings,
            seed=settings.seed ^ _OTHER_SEED,
            vibration_probability=settings.optical_vibration_probability,
            vibration_extent_px=settings.optical_vibration_extent_px,
            counts_per_photon=_COUNTS_PER_PHOTON,
        )
        self._lock = threading.Lock()  # held for moments: Channel Access waits for it
        self._render_lock = threading.Lock()
        self._surface = GraphiteSurface(self._settings)
        self._pattern = SensorPattern(self._settings, self.sensor_yx)
        self._lamp, self._reference = 1.0, False
        self._frames_taken = self._sample_frames = 0
        self._log: list[OpticalTruth] = []

    @property
    def sensor_yx(self) -> tuple[int, int]:
        """Rows and columns of the sensor."""
        return self._twin.settings.optical_sensor_yx

    def set_lamp(self, level: float) -> None:
        """Brightness of the lamp from now on, 0..1.

        Raises
        ------
        ValueError
            Outside 0..1.
        """
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"lamp {level}: must be within 0 .. 1")
        with self._lock:
            self._lamp = float(level)

    def set_reference(self, inside: bool) -> None:
        """Swing the white reference into the light path or out of it."""
        with self._lock:
            self._reference = bool(inside)

    def expose(
        self, start_s: float, end_s: float, roi: Roi, bin_yx: tuple[int, int] = (1, 1), frame_type: str = "Normal"
    ) -> OpticalFrame:
        """Return the frame of an exposure from `start_s` to `end_s` (laboratory clock); see `Twin.expose`.

        Raises
        ------
        ValueError
            Region outside the sensor, or binning larger than it.
        """
        rows, columns = self.sensor_yx
        inside = 0 <= roi.min_y <= rows - roi.size_y and 0 <= roi.min_x <= columns - roi.size_x
        if not inside or min(bin_yx) < 1 or roi.size_y < bin_yx[0] or roi.size_x < bin_yx[1]:
            raise ValueError(f"{roi} px with binning {bin_yx}: must lie within the sensor of {rows}x{columns} px")
        with self._lock:
            lamp, reference = self._lamp, self._reference
            number, index = self._frames_taken, -1
            self._frames_taken += 1
            if frame_type == "Normal" and lamp > 0 and not reference:
                index = self._sample_frames
                self._sample_frames += 1
        truth, state, vibration = self._look((number, index), frame_type, (lamp, reference), end_s - start_s)
        with self._render_lock:
            light = self._light(roi)
            if truth.reference:
                photons = light * np.float32(WHITE_REFLECTANCE)
            else:
                image = self._surface.image(state, roi)
                photons = light * (np.maximum(image.blurred(vibration), 0.0) if truth.blurred else image.sharp)
            photons *= np.float32(self._settings.optical_photons_px_s * truth.lamp * truth.exposure_s)
            photons = bin_sum(photons, bin_yx)
            counts = self._counts(photons, roi, bin_yx, truth)
        truth = dataclasses.replace(truth, photons_per_px=float(photons.mean()))
        with self._lock:
            self._log.append(truth)
        return OpticalFrame(counts, truth)

    def displacement_px(self, truth: OpticalTruth, roi: Roi) -> tuple[_Float32, _Float32]:
        """Return the true deformation (y, x) on `roi` in a frame, px; for tests."""
        with self._render_lock:
            return self._surface.displacement_px(SurfaceState((truth.y_um, truth.x_um), truth.soc_mean), roi)

    def write_truth(self, directory: Path) -> None:
        """Write ``truth_optical.jsonl`` (a line per frame) into `directory`; nothing when no frame was taken.

        Raises
        ------
        OSError
            The directory cannot be written.
        """
        with self._lock:
            frames = sorted(self._log, key=lambda frame: frame.frame_number)
        lines = "".join(json.dumps(dataclasses.asdict(frame)) + "\n" for frame in frames)
        if lines:
            directory.mkdir(parents=True, exist_ok=True)
            partial = directory / (TRUTH_FILE + ".part")
            partial.write_text(lines)
            partial.replace(directory / TRUTH_FILE)

    def _look(
        self, numbers: tuple[int, int], frame_type: str, light: tuple[float, bool], exposure_s: float
    ) -> tuple[OpticalTruth, SurfaceState, Vibration]:
        """Return what a frame sees: `numbers` of frame and sample frame, `light` of lamp and reference."""
        twin, settings, (number, index) = self._twin, self._settings, numbers
        vibration = vibration_of_frame(settings, index) if index >= 0 else Vibration(0.0, 0.0, "line")
        twin_s, soc = twin.twin_time_s(), twin.potentiostat.soc
        at_x, at_y = twin.position_um()  # with the sample's own drift
        drift_x, drift_y = twin.drift_um()
        own_y, own_x = (rate * twin_s / 60.0 for rate in settings.optical_drift_um_per_min_yx)
        draws = seeded(settings.seed, _JITTER_STREAM, number).standard_normal(2).tolist()
        jitter_y, jitter_x = (settings.optical_jitter_um * draw for draw in draws)
        state = SurfaceState((at_y - own_y - jitter_y, at_x - own_x - jitter_x), soc)
        truth = OpticalTruth(
            frame_number=number,
            sample_index=index,
            time_unix=time.time(),
            twin_time_s=twin_s,
            frame_type=frame_type,
            x_um=state.position_yx_um[1],
            y_um=state.position_yx_um[0],
            drift_x_um=drift_x + own_x,
            drift_y_um=drift_y + own_y,
            jitter_x_um=jitter_x,
            jitter_y_um=jitter_y,
            blur_extent_px=vibration.extent_px,
            blur_angle_deg=vibration.angle_deg,
            blurred=vibration.extent_px > 0,
            soc_mean=soc,
            deformation_px=self._surface.deformation_px(soc),
            lamp=light[0],
            reference=light[1],
            exposure_s=max(exposure_s, 0.0),
            photons_per_px=0.0,
        )
        return truth, state, vibration

    def _counts(
        self, photons: _Float32, roi: Roi, bin_yx: tuple[int, int], truth: OpticalTruth
    ) -> npt.NDArray[np.uint16]:
        """Return the noisy frame."""
        settings, pattern = self._settings, self._pattern
        gain, offset = (bin_mean(crop(m, roi), bin_yx) for m in (pattern.gain, pattern.offset))
        dark = offset + bin_sum(crop(pattern.dark_current, roi), bin_yx) * np.float32(truth.exposure_s)
        rng = seeded(settings.seed, _FRAME_STREAM, truth.frame_number)
        counts = expose_counts(photons, gain, dark, settings.read_noise_counts, rng)
        return digitise(counts, settings.saturation_counts)

    def _light(self, roi: Roi) -> _Float32:
        """Return the light on `roi`, 1 in the middle of an ideal field: vignetting, a tilt, dust."""
        return crop(self._illumination, roi)

    @cached_property
    def _illumination(self) -> _Float32:
        rows, columns = self.sensor_yx
        y = np.linspace(-1.0, 1.0, rows, dtype=np.float32)[:, None]
        x = np.linspace(-1.0, 1.0, columns, dtype=np.float32)[None, :]
        angle = float(seeded(self._settings.seed, _JITTER_STREAM).uniform(0.0, 2 * math.pi))
        light = 1.0 - np.float32(_VIGNETTING / 2) * (y * y + x * x)
        light += np.float32(_TILT * math.sin(angle)) * y + np.float32(_TILT * math.cos(angle)) * x
        return light * self._pattern.dust
