"""The section of the optical microscope."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from xbat_live.config.sections import Exposure, PixelSize, _Section


class OpticalSection(_Section):
    """The optical reflection microscope; only used by plan.name = "optical_series"."""

    pixel_size_um: PixelSize = Field(0.56, alias="pixel_size")
    """Size of one unbinned pixel in the sample plane."""
    exposure_s: Exposure = Field(0.02, alias="exposure")
    roi: tuple[int, int, int, int] | None = None
    """Part of the sensor that is read: (min_y, min_x, size_y, size_x), pixels. Left out: the whole sensor."""
    directory: Path | None = None
    """Folder for the HDF5 files; the IOC must see it under the same path. Left out: ``camera.directory``."""
    lamp: float = Field(1.0, gt=0, le=1)
    """Brightness of the lamp."""
    n_flats: int = Field(8, ge=0, le=1000)
    """Frames of the white reference at the start; 0 for a microscope without one, smooth illumination is assumed then."""
    dark_offset_counts: float = Field(100.0, ge=0)
    """Offset assumed when no dark frame was taken, counts."""
