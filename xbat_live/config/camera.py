"""The section of the X-ray camera."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import Field, field_validator

from xbat_live.config.sections import Exposure, PixelSize, _Section

DETERMINANT = (0.5, 2.0)


class CameraSection(_Section):
    """The detector."""

    pixel_size_um: PixelSize = Field(0.03324, alias="pixel_size")
    """Size of one unbinned pixel in the sample plane."""
    exposure_s: Exposure = Field(0.048, alias="exposure")
    roi: tuple[int, int, int, int] | None = None
    """Part of the sensor that is read: (min_y, min_x, size_y, size_x), pixels. Left out: the whole sensor."""
    image_to_stage: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    """How the camera is mounted: rows of the 2x2 matrix from image (x, y) to stage (x, y). ``[[1, 0], [0, 1]]`` is upright,
    ``[[-1, 0], [0, 1]]`` mirrored in x. The plan ``calibrate_stage`` measures it. Used for the drift, which the stage follows, and for
    sample coordinates."""
    directory: Path = Path("frames")
    """Folder for the HDF5 files; the IOC must see it under the same path."""
    dark_offset_counts: float = Field(100.0, ge=0)
    """Offset assumed when no dark frame was taken, counts."""

    @field_validator("image_to_stage")
    @classmethod
    def _mounting(cls, matrix: tuple[tuple[float, float], tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        (a, b), (c, d) = matrix
        if not all(math.isfinite(value) for value in (a, b, c, d)):
            raise ValueError('image_to_stage must be finite; measure it: plan.name = "calibrate_stage"')
        determinant = a * d - b * c
        low, high = DETERMINANT
        if not low <= abs(determinant) <= high:
            raise ValueError(
                f"its determinant is {determinant:.3g}, must be within {low:g} .. {high:g} (mirrored: -{high:g} .. -{low:g}): it is a "
                "rotation or mirroring, the scale is camera.pixel_size"
            )
        return matrix
