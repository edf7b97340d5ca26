"""Shapes of a beam: where the photons go, per photon, on the sample."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import gamma as gamma_function
from scipy.special import gammainc

from xbat_live.dose.subpixel import pad_for_shift, resample_area, shift_padded, unpad

FloatArray = npt.NDArray[np.float64]

FOOTPRINT_FRACTION = 1e-3
"""A beam's footprint ends where its intensity falls below this fraction of its peak."""
_TRUNCATION = 1e-5
MAX_KERNEL_PIXELS = 4_000_000
CM2_PER_UM2 = 1e-8


class Profile(Protocol):
    """What the account needs to know of a beam's shape."""

    @property
    def fwhm_um(self) -> tuple[float, float]:
        """Full width at half maximum (x, y), um."""
        ...

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Full width (x, y) down to 1e-3 of the peak, um."""
        ...

    @property
    def peak_per_cm2(self) -> float:
        """Photons per cm2 at the peak, per photon, 1/cm2."""
        ...

    def kernel(self, grid_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
        """Return pixel means, 1/cm2, odd shape, of the profile `offset_um` (x, y) off the middle pixel's centre."""
        ...

    def fraction_within(self, size_um: tuple[float, float]) -> float:
        """Return the part of all photons in a centred rectangle of `size_um` (x, y), um."""
        ...

    def record(self) -> tuple[str, bytes | None]:
        """Return the definition as (JSON, array data) for the ledger; `profile_from_record` builds it again."""
        ...


def _check_size(size_um: tuple[float, float], what: str) -> None:
    for axis, value in zip("xy", size_um, strict=True):
        if not 1e-3 <= value <= 1e5:
            raise ValueError(
                f"{what} along {axis} is {value:g} um, outside 1e-3 .. 1e5 um; sizes are in um (1 mm = 1000 um)"
            )


def _separable_kernel(along_x: FloatArray, along_y: FloatArray, grid_um: float) -> FloatArray:
    """Photon-conserving kernel from the photons per pixel of each axis (normalised here), 1/cm2."""
    kernel: FloatArray = np.outer(along_y / along_y.sum(), along_x / (along_x.sum() * grid_um**2 * CM2_PER_UM2))
    return kernel


def _edges(half_extent_um: float, grid_um: float, offset_um: float) -> FloatArray:
    """Pixel edges relative to the beam's centre, um; odd number of pixels."""
    if not grid_um > 0:
        raise ValueError(f"grid pixel {grid_um:g} um must be positive")
    half = math.ceil((half_extent_um + abs(offset_um)) / grid_um - 0.5)
    if (2 * half + 1) ** 2 > MAX_KERNEL_PIXELS:
        raise ValueError(
            f"a beam of {2 * half_extent_um:g} um on a grid of {grid_um:g} um needs {2 * half + 1} pixels across; "
            f"use a coarser grid, e.g. {half_extent_um / 500:.2g} um"
        )
    return (np.arange(-half, half + 2, dtype=np.float64) - 0.5) * grid_um - offset_um


@dataclass(frozen=True)
class SuperGaussian:
    """``exp(-ln2 (2|x|/fwhm)^order)`` along x times the same along y; order 2 is the ordinary Gaussian.

    Attributes
    ----------
    fwhm_um
        Full width at half maximum (x, y), um.
    order
        Exponent, 2 .. 64; larger is flatter.
    """

    fwhm_um: tuple[float, float]
    order: float = 2.0

    def __post_init__(self) -> None:
        _check_size(self.fwhm_um, "beam width (FWHM)")
        if not 2 <= self.order <= 64:
            raise ValueError(
                f"order {self.order:g} of a super-Gaussian is outside 2 .. 64; "
                "it is the exponent, 2 is the ordinary Gaussian"
            )

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Full width (x, y) down to 1e-3 of the peak, um."""
        factor = self._half_widths(FOOTPRINT_FRACTION)
        return self.fwhm_um[0] * factor, self.fwhm_um[1] * factor

    @property
    def peak_per_cm2(self) -> float:
        """Photons per cm2 at the peak, per photon of the whole (untruncated) beam, 1/cm2."""
        width = gamma_function(1 + 1 / self.order) / math.log(2) ** (1 / self.order)
        return float(1 / (self.fwhm_um[0] * self.fwhm_um[1] * CM2_PER_UM2 * width**2))

    def kernel(self, grid_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
        """See `Profile.kernel`. Exact integrals over the pixels, normalised to one photon within 1e-5 of the peak."""
        factor = self._half_widths(_TRUNCATION) / 2
        photons = []
        for width_um, shift_um in zip(self.fwhm_um, offset_um, strict=True):
            edges = _edges(width_um * factor, grid_um, shift_um)
            inside = gammainc(1 / self.order, math.log(2) * (2 * np.abs(edges) / width_um) ** self.order)
            photons.append(np.diff(np.sign(edges) * inside))
        return _separable_kernel(photons[0], photons[1], grid_um)

    def fraction_within(self, size_um: tuple[float, float]) -> float:
        """Return the part of all photons in a centred rectangle of `size_um` (x, y), um."""
        parts = zip(size_um, self.fwhm_um, strict=True)
        return math.prod(float(gammainc(1 / self.order, math.log(2) * (a / b) ** self.order)) for a, b in parts)

    def record(self) -> tuple[str, bytes | None]:
        """See `Profile.record`."""
        return json.dumps({"kind": "super_gaussian", "fwhm_um": list(self.fwhm_um), "order": self.order}), None

    def _half_widths(self, fraction: float) -> float:
        return float((math.log(1 / fraction) / math.log(2)) ** (1 / self.order))


@dataclass(frozen=True)
class TopHat:
    """Uniform over a rectangle.

    Attributes
    ----------
    size_um
        Full width (x, y), um.
    """

    size_um: tuple[float, float]

    def __post_init__(self) -> None:
        _check_size(self.size_um, "beam size")

    @property
    def fwhm_um(self) -> tuple[float, float]:
        """Full width at half maximum (x, y), um."""
        return self.size_um

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Full width (x, y), um."""
        return self.size_um

    @property
    def peak_per_cm2(self) -> float:
        """Photons per cm2, per photon, 1/cm2."""
        return 1 / (self.size_um[0] * self.size_um[1] * CM2_PER_UM2)

    def kernel(self, grid_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
        """See `Profile.kernel`. Pixels on the rim count by the part that is covered."""
        photons = []
        for width_um, shift_um in zip(self.size_um, offset_um, strict=True):
            edges = _edges(width_um / 2, grid_um, shift_um)
            photons.append(np.diff(np.clip(edges, -width_um / 2, width_um / 2)))
        return _separable_kernel(photons[0], photons[1], grid_um)

    def fraction_within(self, size_um: tuple[float, float]) -> float:
        """Return the part of all photons in a centred rectangle of `size_um` (x, y), um."""
        return math.prod(min(a / b, 1.0) for a, b in zip(size_um, self.size_um, strict=True))

    def record(self) -> tuple[str, bytes | None]:
        """See `Profile.record`."""
        return json.dumps({"kind": "top_hat", "size_um": list(self.size_um)}), None


@dataclass(frozen=True)
class MeasuredProfile:
    """A beam as a flat-field image shows it.

    Attributes
    ----------
    density_per_cm2
        Photons per cm2 per photon of the whole beam, (ny, nx) float64, 1/cm2; its integral is the fraction of the
        beam in the field.
    pixel_size_um
        Pixel size in the sample plane, um.
    """

    density_per_cm2: FloatArray = field(compare=False, repr=False)
    pixel_size_um: float
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        density = np.ascontiguousarray(self.density_per_cm2, dtype=np.float64)
        density.setflags(write=False)
        object.__setattr__(self, "density_per_cm2", density)
        object.__setattr__(self, "digest", hashlib.sha256(density.tobytes() + repr(density.shape).encode()).hexdigest())

    @classmethod
    def from_images(
        cls, flat: npt.ArrayLike, dark: npt.ArrayLike, pixel_size_um: float, fraction_in_field: float
    ) -> MeasuredProfile:
        """Normalise ``flat - dark``; see `Beam.measured`."""
        lit, unlit = np.asarray(flat, dtype=np.float64), np.asarray(dark, dtype=np.float64)
        if unlit.shape not in ((), lit.shape):
            raise ValueError(f"flat field {lit.shape} and dark field {unlit.shape} differ in shape")
        image = lit - unlit
        if image.ndim != 2 or min(image.shape) < 2:
            raise ValueError(f"a flat field has two dimensions, this one has shape {image.shape}")
        if not np.isfinite(image).all():
            raise ValueError("flat or dark field holds values that are not finite")
        if not 1e-4 <= pixel_size_um <= 1e4:
            raise ValueError(
                f"pixel size {pixel_size_um:g} um is outside 1e-4 .. 1e4 um; pixel sizes are in um (33 nm = 0.033 um)"
            )
        if not 0 < fraction_in_field <= 1:
            raise ValueError(f"fraction of the beam in the field {fraction_in_field:g} is outside (0, 1]")
        image = np.maximum(image, 0.0)
        total = float(image.sum())
        if not total > 0:
            raise ValueError("flat minus dark holds no photons; are the two images swapped, or was the shutter closed?")
        return cls(image * (fraction_in_field / (total * pixel_size_um**2 * CM2_PER_UM2)), float(pixel_size_um))

    @property
    def fraction_in_field(self) -> float:
        """Fraction of the whole beam that falls on the image."""
        return float(self.density_per_cm2.sum() * self.pixel_size_um**2 * CM2_PER_UM2)

    @property
    def fwhm_um(self) -> tuple[float, float]:
        """Extent (x, y) of what is above half the maximum, um."""
        return self._extent(0.5)

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Extent (x, y) of what is above 1e-3 of the maximum, um, as if symmetric about the image's centre."""
        return self._extent(FOOTPRINT_FRACTION, centred=True)

    @property
    def peak_per_cm2(self) -> float:
        """Photons per cm2 in the brightest pixel, per photon of the whole beam, 1/cm2."""
        return float(self.density_per_cm2.max())

    def kernel(self, grid_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
        """See `Profile.kernel`. Area-weighted; an offset splits every pixel over its neighbours and keeps the sum."""
        padded = _resampled(self, float(grid_um))
        if offset_um[0] == 0 and offset_um[1] == 0:
            return unpad(padded)
        return shift_padded(padded, offset_um[1] / grid_um, offset_um[0] / grid_um)

    def fraction_within(self, size_um: tuple[float, float]) -> float:
        """Return the part of all photons in a centred rectangle of `size_um` (x, y), um; pixels whose centre is inside count whole."""
        inside = []
        for count, length_um in zip(self.density_per_cm2.shape, size_um[::-1], strict=True):
            inside.append(2 * np.abs(np.arange(count) - (count - 1) / 2) * self.pixel_size_um <= length_um)
        return float(self.density_per_cm2[np.ix_(*inside)].sum() * self.pixel_size_um**2 * CM2_PER_UM2)

    def record(self) -> tuple[str, bytes | None]:
        """See `Profile.record`."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, density_per_cm2=self.density_per_cm2)
        return json.dumps(
            {"kind": "measured", "pixel_size_um": self.pixel_size_um, "digest": self.digest}
        ), buffer.getvalue()

    def _extent(self, fraction: float, *, centred: bool = False) -> tuple[float, float]:
        above = self.density_per_cm2 >= fraction * self.density_per_cm2.max()
        widths = []
        for axis in (0, 1):
            hit = np.flatnonzero(above.any(axis=axis))
            first, last, size = int(hit[0]), int(hit[-1]) + 1, above.shape[1 - axis]
            pixels = 2 * max(size / 2 - first, last - size / 2) if centred else last - first
            widths.append(pixels * self.pixel_size_um)
        return widths[0], widths[1]


def profile_from_record(definition: str, data: bytes | None) -> Profile:
    """Build a profile again from what `Profile.record` returned.

    Raises
    ------
    ValueError
        Unknown kind of profile, or a measured one without data.
    """
    content = json.loads(definition)
    kind = content.get("kind")
    if kind == "super_gaussian":
        return SuperGaussian((content["fwhm_um"][0], content["fwhm_um"][1]), content["order"])
    if kind == "top_hat":
        return TopHat((content["size_um"][0], content["size_um"][1]))
    if kind == "measured" and data is not None:
        with np.load(io.BytesIO(data)) as arrays:
            return MeasuredProfile(arrays["density_per_cm2"], content["pixel_size_um"])
    raise ValueError(f"beam profile of unknown kind {kind!r}; it was written by a newer version or is damaged")


def profile_id(profile: Profile) -> str:
    """Return a short hash of a profile's definition."""
    return hashlib.sha256(profile.record()[0].encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def _resampled(profile: MeasuredProfile, grid_um: float) -> FloatArray:
    """Area-weighted mean of a measured profile on pixels of `grid_um`, odd shape, padded for shifts, read-only."""
    rows, columns = (
        _edges(size * profile.pixel_size_um / 2, grid_um, 0.0) / profile.pixel_size_um
        for size in profile.density_per_cm2.shape
    )
    padded = pad_for_shift(resample_area(profile.density_per_cm2, rows, columns))
    padded.setflags(write=False)
    return padded
