"""What the sample looked like, kept from run to run: a first frame that shows it again tells where the sample is by now."""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbat_live.callbacks.tracking import Recognised, Vector
from xbat_live.imaging import LiveRegistrar, optical_density

logger = logging.getLogger(__name__)

FORMAT = 1
MOST = 48
EVERY_S = 60.0
BIN = 2
REACH = 0.55
"""How far apart the centres of two frames may be expected to show the same place, fraction of the field."""
SAME_ENERGY_EV = 3.0
SAME_CAMERA = 0.1
"""Difference of two orientation matrices that are one: a calibration is good to some percent."""
LEAST_CONFIDENCE = 0.6
_COUNTS = 2e4
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile)
_UNUSUAL = re.compile(r"[^A-Za-z0-9._+-]+")

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Landmark:
    """Where a frame was taken; the frame itself stays on disk until it is compared.

    Attributes
    ----------
    path
        File with its optical density, (ny, nx) float16, binned `BIN` times.
    shape
        (ny, nx) of that.
    pixel_size_um
        Of the unbinned frame, um.
    energy_ev
        Photon energy, eV.
    sample_yx_um, sigma_um
        Sample coordinate in its centre, shape (2,), and its standard uncertainty, um.
    """

    path: Path
    shape: tuple[int, int]
    pixel_size_um: float
    energy_ev: float
    sample_yx_um: Vector
    sigma_um: float
    image_to_stage: Vector
    """The camera's orientation that it was registered with, 2x2."""


class Landmarks:
    """Landmarks of one sample in a folder beside its ledger; losing them loses no dose, only the sample's place.

    Parameters
    ----------
    folder
        Made when something is kept.
    pixel_size_um
        Unbinned pixel in the sample plane, um.
    image_to_stage
        2x2 matrix from image (y, x) to stage (y, x) axes.
    """

    def __init__(self, folder: Path, pixel_size_um: float, image_to_stage: Vector) -> None:
        self.folder = folder
        self._pixel_um, self._image_to_stage = pixel_size_um, np.asarray(image_to_stage, float)
        self._kept_s: dict[str, float] = {}
        self._prefix = uuid.uuid4().hex[:8]
        self._known: list[Landmark] | None = None

    @property
    def camera_was_turned(self) -> bool:
        """True when the last run took the camera to be mounted otherwise: what it registered as drift was something else."""
        earlier = self._earlier()
        return bool(earlier) and not self._same_camera(earlier[0])

    def recognise(
        self, frame: ArrayLike, flat: ArrayLike, dark: ArrayLike, energy_ev: float, expected_yx_um: Vector
    ) -> Recognised | None:
        """Return where a frame was taken when an earlier run has seen the place.

        Parameters
        ----------
        frame, flat, dark
            (ny, nx), counts.
        energy_ev
            Photon energy, eV; frames of another energy are not compared.
        expected_yx_um
            Where it is thought to be, sample coordinate in its centre, shape (2,), um.

        Returns
        -------
        Recognised or None
            None: no landmark there, or none that fits beyond doubt.
        """
        od = _binned(optical_density(frame, flat, dark))
        field_um = np.array(od.shape) * BIN * self._pixel_um
        near = [
            landmark
            for landmark in self._earlier()
            if self._same_camera(landmark)
            and abs(landmark.energy_ev - energy_ev) <= SAME_ENERGY_EV
            and landmark.shape == od.shape
            and np.isclose(landmark.pixel_size_um, self._pixel_um, rtol=1e-3)
            and (np.abs(landmark.sample_yx_um - expected_yx_um) <= REACH * field_um).all()
        ]
        near.sort(key=lambda landmark: float(np.linalg.norm(landmark.sample_yx_um - expected_yx_um)))
        for landmark in near[:3]:
            if (found := self._compare(landmark, od)) is not None:
                return found
        return None

    def keep(
        self,
        place: str,
        frame: ArrayLike,
        flat: ArrayLike,
        dark: ArrayLike,
        *,
        energy_ev: float,
        sample_yx_um: Vector,
        sigma_um: float,
    ) -> None:
        """Keep the newest good frame of a place of this run: the first at once, then one in `EVERY_S` seconds.

        Trouble with the disk is logged and does not disturb the run.
        """
        now_s = time.monotonic()
        if now_s - self._kept_s.get(place, -np.inf) < EVERY_S:
            return
        self._kept_s[place] = now_s
        self._earlier()  # before there are any of this run
        od = _binned(optical_density(frame, flat, dark))
        facts = {
            "format": FORMAT,
            "pixel_size_um": self._pixel_um,
            "energy_ev": energy_ev,
            "sample_yx_um": np.asarray(sample_yx_um, float),
            "sigma_um": float(sigma_um),
            "image_to_stage": self._image_to_stage,
        }
        try:
            self._write(place, od, facts)
        except OSError as error:
            logger.warning("%s: the view of the sample was not kept for the next run: %s", self.folder, error)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _same_camera(self, landmark: Landmark) -> bool:
        return bool(np.allclose(landmark.image_to_stage, self._image_to_stage, atol=SAME_CAMERA))

    def _compare(self, landmark: Landmark, od: Image) -> Recognised | None:
        """Register a frame on a landmark: a feature moves by (centre of the landmark - centre of the frame) / pixel."""
        try:
            with landmark.path.open("rb") as file, np.load(file) as data:
                before = data["od"].astype(np.float32)
        except _UNREADABLE as error:
            logger.warning("%s: not a view of the sample, left out: %s", landmark.path, error)
            return None
        shape = (od.shape[0], od.shape[1])
        light, none = np.full(shape, _COUNTS, np.float32), np.zeros(shape, np.float32)
        registrar = LiveRegistrar(shape, light, none, BIN * self._pixel_um, bin=1)
        registrar.update(_COUNTS * np.exp(-before))
        result = registrar.update(_COUNTS * np.exp(-od))
        if not result.ok or result.confidence < LEAST_CONFIDENCE:
            return None
        pixel_um = BIN * self._pixel_um
        shift_um = self._image_to_stage @ np.asarray(result.shift_yx_px) * pixel_um
        sigma_um = float(np.linalg.norm(result.sigma_yx_px)) * pixel_um
        return Recognised(landmark.sample_yx_um - shift_um, float(np.hypot(sigma_um, landmark.sigma_um)))

    def _earlier(self) -> list[Landmark]:
        """Landmarks of earlier runs, the newest first; looked up once."""
        if self._known is None:
            paths = sorted(self.folder.glob("*.npz"), key=lambda item: item.stat().st_mtime, reverse=True)
            self._known = [landmark for path in paths if (landmark := _facts_of(path)) is not None]
        return self._known

    def _write(self, place: str, od: Image, facts: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._prefix}-{_UNUSUAL.sub('_', place)}.npz"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, od=od.astype(np.float16), shape=od.shape, **facts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        newest_first = sorted(self.folder.glob("*.npz"), key=lambda item: item.stat().st_mtime, reverse=True)
        for old in newest_first[MOST:]:
            old.unlink(missing_ok=True)


def _facts_of(path: Path) -> Landmark | None:
    try:
        with path.open("rb") as file, np.load(file) as data:
            if int(data["format"]) != FORMAT:
                return None
            return Landmark(
                path,
                (int(data["shape"][0]), int(data["shape"][1])),
                float(data["pixel_size_um"]),
                float(data["energy_ev"]),
                data["sample_yx_um"].astype(float),
                float(data["sigma_um"]),
                data["image_to_stage"].astype(float),
            )
    except _UNREADABLE as error:
        logger.warning("%s: not a view of the sample, left out: %s", path, error)
        return None


def _binned(od: NDArray[np.float32]) -> Image:
    ny, nx = (size // BIN * BIN for size in od.shape)
    blocks = od[:ny, :nx].reshape(ny // BIN, BIN, nx // BIN, BIN)
    mean: Image = blocks.mean(axis=(1, 3), dtype=np.float32)
    return mean
