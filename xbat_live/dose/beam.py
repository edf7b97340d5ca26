"""A beam: its flux and its shape."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy.typing as npt

from xbat_live.dose.profiles import FloatArray, MeasuredProfile, Profile, SuperGaussian, TopHat

MAX_FLUX_PH_S = 1e18


def check_flux(flux_ph_s: float, *, allow_zero: bool = True) -> None:
    """Check a flux.

    Parameters
    ----------
    flux_ph_s
        Photons/s.
    allow_zero
        Whether no beam is a possible value.

    Raises
    ------
    ValueError
        Negative, not finite, or beyond any source (1e18 photons/s).
    """
    if not (0 <= flux_ph_s <= MAX_FLUX_PH_S and (allow_zero or flux_ph_s > 0)):
        low = "0" if allow_zero else "above 0"
        raise ValueError(f"flux {flux_ph_s:g} photons/s is not possible; expected {low} .. {MAX_FLUX_PH_S:g} photons/s")


@dataclass(frozen=True)
class Beam:
    """A beam.

    Attributes
    ----------
    flux_ph_s
        Reference flux on the sample, photons/s.
    profile
        Its shape.
    """

    flux_ph_s: float
    profile: Profile

    def __post_init__(self) -> None:
        check_flux(self.flux_ph_s, allow_zero=False)

    @classmethod
    def gaussian(cls, flux_ph_s: float, fwhm_um: tuple[float, float], order: float = 2) -> Beam:
        """Return a (super-)Gaussian beam.

        Parameters
        ----------
        flux_ph_s
            Photons/s.
        fwhm_um
            Full width at half maximum (x, y), um.
        order
            Exponent: 2 is the ordinary Gaussian, 8 nearly a top hat with soft rim.

        Raises
        ------
        ValueError
            Impossible flux, size or order.
        """
        return cls(float(flux_ph_s), SuperGaussian(_pair(fwhm_um), float(order)))

    @classmethod
    def top_hat(cls, flux_ph_s: float, size_um: tuple[float, float]) -> Beam:
        """Return a beam that is uniform over a rectangle of `size_um` (x, y), um. See `gaussian` for errors."""
        return cls(float(flux_ph_s), TopHat(_pair(size_um)))

    @classmethod
    def measured(
        cls,
        flux_ph_s: float,
        flat: npt.ArrayLike,
        dark: npt.ArrayLike,
        pixel_size_um: float,
        fraction_in_field: float = 1.0,
    ) -> Beam:
        """Return a beam with the shape of a flat-field image.

        Parameters
        ----------
        flux_ph_s
            Flux of the whole beam, photons/s.
        flat, dark
            Images without sample, (ny, nx), with and without beam, counts; `dark` may be a number.
        pixel_size_um
            Pixel size in the sample plane, um.
        fraction_in_field
            Fraction of the whole beam that falls on the image; 1 only if verified, a smaller value for a beam that
            overfills it.

        Raises
        ------
        ValueError
            Not a finite image with photons, or impossible numbers.
        """
        return cls(float(flux_ph_s), MeasuredProfile.from_images(flat, dark, pixel_size_um, fraction_in_field))

    @property
    def footprint_um(self) -> tuple[float, float]:
        """Full width (x, y) down to 1e-3 of the peak intensity, um."""
        return self.profile.footprint_um

    @property
    def fwhm_um(self) -> tuple[float, float]:
        """Full width at half maximum (x, y), um."""
        return self.profile.fwhm_um

    @property
    def peak_flux_density(self) -> float:
        """Flux density at the peak, photons/(s cm2)."""
        return self.flux_ph_s * self.profile.peak_per_cm2

    def kernel(self, grid_um: float, offset_um: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
        """Return the photons per cm2 on each pixel of a map, per photon.

        Parameters
        ----------
        grid_um
            Pixel of the map, um.
        offset_um
            Beam centre (x, y) relative to the centre of the middle pixel, um; within one pixel.

        Returns
        -------
        numpy.ndarray
            (ny, nx) float64, both odd, 1/cm2. Its sum times the pixel area is 1 (a measured profile: the fraction in
            the field) whatever the offset.

        Raises
        ------
        ValueError
            A grid far too fine for the beam.
        """
        return self.profile.kernel(grid_um, offset_um)

    def fluence_map(self, open_time_s: float, grid_um: float) -> FloatArray:
        """Return photons/cm2 on each pixel after `open_time_s` seconds at the reference flux; see `kernel`.

        Raises
        ------
        ValueError
            A time that is negative or not finite, a grid far too fine for the beam.
        """
        if not 0 <= open_time_s < math.inf:
            raise ValueError(f"shutter-open time {open_time_s:g} s is not possible; expected 0 s or more")
        return self.kernel(grid_um) * (self.flux_ph_s * open_time_s)

    def as_dict(self) -> dict[str, object]:
        """Return flux and shape as plain data (JSON); a measured profile by its hash."""
        return {"flux_ph_s": self.flux_ph_s, **json.loads(self.profile.record()[0])}


def _pair(size_um: tuple[float, float]) -> tuple[float, float]:
    try:
        along_x, along_y = size_um
    except (TypeError, ValueError):
        raise ValueError(f"beam size {size_um!r}: give two numbers, (x, y), um") from None
    return float(along_x), float(along_y)
