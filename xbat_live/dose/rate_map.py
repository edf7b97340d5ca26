"""Dose-rate maps from images of the beam (Eqs. 1-3 of La Porta et al., LiNiO2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbat_live.dose.beam import Beam, check_flux
from xbat_live.dose.cross_sections import FloatArray, check_energy
from xbat_live.dose.i0_images import I0Images
from xbat_live.dose.profiles import CM2_PER_UM2, MeasuredProfile
from xbat_live.dose.rate_masks import DoseMasks, dose_masks
from xbat_live.dose.spectrum import Spectrum, normalised_weights
from xbat_live.dose.stack import LayerStack


def dose_rate_map(  # noqa: PLR0917 - the first six as in Eqs. 1-3, and then the pixel
    i0_cube: Any,
    energy_ev: npt.ArrayLike,
    beam: Beam,
    stack: LayerStack,
    layer_name: str,
    material_name: str,
    pixel_size_um: float | None = None,
    *,
    dark: npt.ArrayLike = 0.0,
    model: str = "attenuation",
    where: str = "mean",
    weights: npt.ArrayLike | None = None,
    flux_ph_s: npt.ArrayLike | None = None,
    fraction_in_field: float | None = None,
    harmonics: Mapping[int, float] | None = None,
    bin: int = 1,
    bad_pixels: npt.ArrayLike | None = None,
    hot_pixel_ratio: float | None = None,
) -> FloatArray:
    """Return the dose rate in one material on every pixel of an I0 image.

    Eq. 1: flux on a pixel = (counts of the pixel / counts of the image) x flux. Eq. 2: dose rate = flux on the pixel /
    pixel area x dose per fluence; the losses upstream are in the dose per fluence, so the flux is that in front of the
    stack. Eq. 3: mean over the images, weighted with the dwell time.

    Eq. 1 takes all of the flux to be in the image; when the beam overfills it, say so in `fraction_in_field`, or all
    rates come out too high.

    Parameters
    ----------
    i0_cube
        Images without sample: (n_energy, ny, nx), or (ny, nx) with a single energy, counts. Read one image at a time, so
        a memory map or an HDF5 data set will do.
    energy_ev
        Photon energy of each image, (n_energy,) or a number, eV.
    beam
        Its flux (photons/s, in front of the stack). Its shape is not used: that is in the images.
    stack, layer_name, material_name, model, where
        See `LayerStack.dose_per_fluence`.
    pixel_size_um
        Pixel size of the images in the sample plane, um. None: that of the beam, when it was measured (`Beam.measured`)
        with images of the same shape.
    dark
        Dark level, counts: a number, (ny, nx), or (n_energy, ny, nx).
    weights
        Dwell time per image, (n_energy,), any unit; None: equal (Eq. 3).
    flux_ph_s
        Flux at each energy, photons/s: a number or (n_energy,); None: that of the beam at all energies.
    fraction_in_field
        Fraction of the beam that falls on the image; None: that of a measured beam, else 1.
    harmonics
        Order -> fraction of all photons; see `Spectrum.with_harmonics`.
    bin
        Pixels along each side that are averaged into one of the map; rows and columns that do not fill one are left out.
    bad_pixels
        (ny, nx) bool: pixels to be replaced by their nearest neighbour.
    hot_pixel_ratio
        Replace pixels that are so many times brighter than the median around them; None (default): believe them all.

    Returns
    -------
    numpy.ndarray
        (ny // bin, nx // bin) float64, Gy/s; its pixels are ``bin * pixel_size_um`` wide. Never negative.

    Raises
    ------
    ValueError
        Shapes, energies or weights that do not fit together, one energy for many images, an unknown pixel size, pixels
        that are not finite, an image without photons, an impossible flux, an unknown layer, material or model.
    """
    _check_kinds(beam, stack)
    images = I0Images(i0_cube, dark, bad_pixels, hot_pixel_ratio)
    energies = np.atleast_1d(check_energy(energy_ev))
    if energies.shape != (images.count,):
        remedy = (
            "give the energy of each image, in eV; a scan is not evaluated at one energy" if energies.size == 1 else ""
        )
        raise ValueError(
            f"{images.count} I0 images, but energies of shape {np.shape(energy_ev)}; {remedy}".rstrip("; ")
        )
    pixel_um = resolved_pixel_size_um(pixel_size_um, beam, images.shape)
    fraction = _fraction_in_field(fraction_in_field, beam)
    dwell = normalised_weights(weights, images.count)
    flux = _flux(flux_ph_s, beam, images.count)
    if not (1 <= bin <= min(images.shape) and bin == int(bin)):
        raise ValueError(f"bin {bin} does not fit images of shape {images.shape}")
    gray_cm2 = _gray_cm2(stack, energies, harmonics or {}, layer_name, material_name, model, where)
    per_share = gray_cm2 * flux * dwell * (fraction / (pixel_um**2 * CM2_PER_UM2))
    rates = np.zeros(images.shape)
    for number in range(images.count):
        rates += images.share(number) * per_share[number]
    return np.maximum(_binned(rates, int(bin)), 0.0)


@dataclass(frozen=True, eq=False)
class DoseRateReport:
    """A dose-rate map with its histogram and masks.

    Attributes
    ----------
    rate_gy_s
        (ny, nx) float64, Gy/s.
    pixel_size_um
        Pixel size of the map in the sample plane, um.
    masks
        Intervals with histogram (counts, areas) and masks.
    layer, material, model
        Whose dose rate it is, and in which definition.
    """

    rate_gy_s: FloatArray
    pixel_size_um: float
    masks: DoseMasks
    layer: str
    material: str
    model: str

    @property
    def mean_gy_s(self) -> float:
        """Mean over the field, Gy/s."""
        return float(self.rate_gy_s.mean())

    @property
    def max_gy_s(self) -> float:
        """Largest rate of a pixel, Gy/s."""
        return float(self.rate_gy_s.max())

    @property
    def size_um(self) -> tuple[float, float]:
        """Size of the map (x, y), um."""
        return self.rate_gy_s.shape[1] * self.pixel_size_um, self.rate_gy_s.shape[0] * self.pixel_size_um

    def time_to_s(self, limit_gy: float) -> float:
        """Return the shutter-open time after which the first pixel reaches `limit_gy` (Gy), s.

        Raises
        ------
        ValueError
            A limit that is not positive.
        """
        if not limit_gy > 0:
            raise ValueError(f"limit {limit_gy:g} Gy is not positive")
        return limit_gy / self.max_gy_s if self.max_gy_s > 0 else float("inf")


def dose_rate_report(  # noqa: PLR0917 - as dose_rate_map
    i0_cube: Any,
    energy_ev: npt.ArrayLike,
    beam: Beam,
    stack: LayerStack,
    layer_name: str,
    material_name: str,
    pixel_size_um: float | None = None,
    *,
    step_gy_s: float = 300.0,
    start_gy_s: float = 0.0,
    **options: Any,
) -> DoseRateReport:
    """Return dose-rate map, histogram and masks of an I0 image in one call.

    Parameters
    ----------
    i0_cube, energy_ev, beam, stack, layer_name, material_name, pixel_size_um
        See `dose_rate_map`.
    step_gy_s, start_gy_s
        See `dose_masks`.
    **options
        The other options of `dose_rate_map`: dark, model, where, weights, flux_ph_s, ...

    Raises
    ------
    ValueError
        See `dose_rate_map` and `dose_masks`.
    """
    rates = dose_rate_map(i0_cube, energy_ev, beam, stack, layer_name, material_name, pixel_size_um, **options)
    shape = np.shape(i0_cube)[-2:]
    pixel_um = resolved_pixel_size_um(pixel_size_um, beam, (shape[0], shape[1])) * int(options.get("bin", 1))
    masks = dose_masks(rates, step_gy_s, start_gy_s=start_gy_s, pixel_size_um=pixel_um)
    model = str(options.get("model", "attenuation"))
    return DoseRateReport(rates, pixel_um, masks, layer_name, material_name, model)


def resolved_pixel_size_um(pixel_size_um: float | None, beam: Beam, shape: tuple[int, int]) -> float:
    """Return the pixel size of I0 images, um: the given one, else that of a beam measured with the same shape.

    Raises
    ------
    ValueError
        Unknown, or outside 0.001 .. 1000 um.
    """
    if pixel_size_um is None:
        profile = beam.profile
        if not isinstance(profile, MeasuredProfile):
            raise ValueError("the pixel size of the I0 images is unknown; give pixel_size_um, um in the sample plane")
        if profile.density_per_cm2.shape != shape:
            raise ValueError(
                f"the beam was measured with an image of shape {profile.density_per_cm2.shape}, these are {shape}; "
                "give pixel_size_um, um in the sample plane"
            )
        return profile.pixel_size_um
    if not 1e-3 <= pixel_size_um <= 1e3:
        raise ValueError(
            f"pixel size {pixel_size_um:g} um is outside 0.001 .. 1000 um; pixel sizes are in um in the sample plane "
            "(1.625e-6 m = 1.625 um)"
        )
    return float(pixel_size_um)


def _gray_cm2(
    stack: LayerStack,
    energies: FloatArray,
    harmonics: Mapping[int, float],
    *place: str,
) -> FloatArray:
    """Dose per fluence at each energy with its harmonics, Gy cm2 per photon; `place`: layer, material, model, where."""
    if not harmonics:
        return stack.dose_per_fluence(energies, *place)
    spectra = [Spectrum(energy).with_harmonics(harmonics) for energy in energies]
    return np.array([one.dose_per_fluence(stack, *place) for one in spectra])


def _check_kinds(beam: Beam, stack: LayerStack) -> None:
    if not isinstance(beam, Beam):
        raise ValueError(f"beam is a Beam, e.g. Beam.top_hat(1e12, size_um=(3280, 1210)), not {type(beam).__name__}")
    if not isinstance(stack, LayerStack):
        raise ValueError(f"stack is a LayerStack, not {type(stack).__name__}")


def _fraction_in_field(given: float | None, beam: Beam) -> float:
    if given is not None:
        if not 0 < given <= 1:
            raise ValueError(f"fraction of the beam in the field {given:g} is outside (0, 1]; write 0.8 for 80 %")
        return float(given)
    if isinstance(beam.profile, MeasuredProfile):
        return beam.profile.fraction_in_field
    return 1.0


def _flux(given: npt.ArrayLike | None, beam: Beam, count: int) -> FloatArray:
    flux = np.asarray(beam.flux_ph_s if given is None else given, dtype=np.float64)
    if flux.shape not in ((), (count,)):
        raise ValueError(f"flux_ph_s of shape {flux.shape} does not fit {count} I0 images")
    for value in np.unique(flux):
        check_flux(float(value))
    return np.broadcast_to(flux, (count,))


def _binned(image: FloatArray, size: int) -> FloatArray:
    rows, columns = image.shape[0] // size, image.shape[1] // size
    whole = image[: rows * size, : columns * size]
    return np.asarray(whole.reshape(rows, size, columns, size).mean(axis=(1, 3)))
