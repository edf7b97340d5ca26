"""Settings of the digital twin: one frozen record, built in code or from a TOML file.

A plain dataclass and not a pydantic model: the simulator has to answer within three seconds of its start, with imports.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SCENES", "TwinSettings"]

SCENES = ("txm", "rock")


@dataclass(frozen=True)
class TwinSettings:
    """What the twin simulates. Every length in um, energy in eV, time in s, unless the name says otherwise.

    Attributes
    ----------
    seed
        Seeds sample, instabilities and noise. Same seed and same calls: same frames.
    image_orientation
        How the X-ray camera is mounted: ``upright``, ``flip_x`` (columns reversed), ``flip_y``, ``rotate_90`` (counter-clockwise),
        ``rotate_180``, ``rotate_270`` or ``transpose``. Truth is in stage and sample axes whatever it is.
    pixel_size_um, sensor_yx
        Pixel at the sample in um and number of sensor pixels (rows, columns). Real frames (`frames`) override both.
    sample_size_um
        Electrode (x, y) in um, centred on sample coordinate (0, 0).
    flux_ph_s
        Photon flux of the whole beam in front of the cell, ph/s, at `ring_ma` and attenuator transmission 1.
    beam_fwhm_um, beam_order
        Super-Gaussian spot: ``exp(-ln2 (2|x|/fwhm)^order)`` along x times the same along y.
    energy_ev, time_scale
        Starting photon energy and twin seconds per laboratory second.
    vibration_probability, vibration_extent_px, vibration_line_fraction
        Share of sample frames blurred by vibration; range of the blur extent in px (``sqrt(12)`` times its standard
        deviation, the length of the equivalent line); share of them with a line kernel, the others swing sinusoidally.
    drift_um_per_min_yx
        Drift of the sample in um per minute of twin time (y, x).
    jitter_um_yx, backlash_um
        Standard deviation (y, x) of the position error drawn when a motor stops; lost motion on reversal.
    breathing_px
        Largest local displacement in px between state of charge 0 and 1 (zero mean over the electrode, zero at 0.5).
    psf_sigma_px, defocus_px_per_um
        Zone-plate blur in focus, and its growth per um of stage z (added in quadrature).
    ring_ma, ring_lifetime_h, ring_top_up_min
        Ring current after a top-up, its lifetime, twin minutes between top-ups.
    beam_drift_um
        Amplitude of the slow walk of the beam at the sample (twin hours).
    i0_na_per_ph_s
        Ion chamber: nA per ph/s.
    detection_efficiency, counts_per_photon
        Detected photons per photon behind the sample; counts per detected photon.
    dark_counts, read_noise_counts, dark_current_counts_s, fixed_pattern_rel
        Offset, read noise, thermal counts per s of a pixel, relative scatter of the pixel gain.
    saturation_counts
        Full scale of the camera.
    cell_preset, active_layer, active_material
        Layer stack of the cell, its active layer and material (`xbat_live.dose` presets). They decide about dose and
        the layers around the electrode; the electrode in the images is NMC622.
    damage_threshold_gy
        Dose in the active material (attenuation model) above which kinetics slow down by ``exp(-(D/threshold - 1))``.
    capacity_mah, initial_soc
        Nominal capacity of the cell and its state of charge (0 lithiated .. 1 charged) at the start.
    frames
        File or directory with recorded frames to play instead of the rendered electrode.
    scene
        ``txm``: the electrode under the X-ray microscope. ``rock``: full-field XAS imaging, see `xbat_live.sim.rock`; the
        monochromator sweeps, the dose delays the reaction from `damage_threshold_gy` on.
    damage_spread_um
        rock: standard deviation of the distance over which dose acts, um.
    dose_grid_um, soc_cell_um
        Pixel of the map of the true dose and of the local state of charge, um.
    foil_centre_um, foil_size_um
        rock: where the nickel foil is on the sample stage (x, y), um. Beside electrode and foil there is nothing in the beam.
    recording
        Tape of a recorded run to play (`xbat replay` writes it); what the twin would render and measure is then not used.
    playback_speed
        With `recording`: motors are so many times faster than life.
    optical_pixel_size_um, optical_sensor_yx
        Microscope: pixel at the sample in um and number of sensor pixels (rows, columns).
    optical_photons_px_s
        Microscope: detected photons per pixel and second from a white reference in the middle of the field, lamp at 1.
    optical_drift_um_per_min_yx, optical_jitter_um
        Microscope: drift of its holder in um per minute of twin time (y, x), beside that of the sample; standard
        deviation per axis of the position of each frame.
    optical_vibration_probability, optical_vibration_extent_px
        Microscope: as for the X-ray camera.
    optical_deformation_px
        Microscope: largest local displacement of the surface in px between state of charge 0 (none) and 1.
    """

    seed: int = 1
    image_orientation: str = "upright"
    pixel_size_um: float = 0.03324
    sensor_yx: tuple[int, int] = (1024, 1024)
    sample_size_um: tuple[float, float] = (200.0, 200.0)
    flux_ph_s: float = 1e10
    beam_fwhm_um: tuple[float, float] = (30.0, 30.0)
    beam_order: int = 8
    energy_ev: float = 8562.0
    time_scale: float = 1.0
    vibration_probability: float = 0.08
    vibration_extent_px: tuple[float, float] = (5.0, 14.0)
    vibration_line_fraction: float = 0.7
    drift_um_per_min_yx: tuple[float, float] = (5.2 / 840, 0.6 / 840)
    jitter_um_yx: tuple[float, float] = (0.05, 0.35)
    backlash_um: float = 0.04
    breathing_px: float = 1.0
    psf_sigma_px: float = 0.6
    defocus_px_per_um: float = 0.03
    ring_ma: float = 500.0
    ring_lifetime_h: float = 10.0
    ring_top_up_min: float = 10.0
    beam_drift_um: float = 0.15
    i0_na_per_ph_s: float = 1e-8
    detection_efficiency: float = 0.6
    counts_per_photon: float = 8.0
    dark_counts: float = 100.0
    read_noise_counts: float = 3.0
    dark_current_counts_s: float = 2.0
    fixed_pattern_rel: float = 0.01
    saturation_counts: int = 65535
    cell_preset: str = "txm_nmc622"
    active_layer: str = "cathode"
    active_material: str = "NMC622"
    damage_threshold_gy: float = 11e6
    capacity_mah: float = 1.0
    initial_soc: float = 0.05
    frames: Path | None = None
    scene: str = "txm"
    damage_spread_um: float = 0.0
    dose_grid_um: float = 0.5
    soc_cell_um: float = 2.0
    foil_centre_um: tuple[float, float] = (0.0, -5000.0)
    foil_size_um: tuple[float, float] = (6000.0, 1800.0)
    recording: Path | None = None
    playback_speed: float = 1.0
    optical_pixel_size_um: float = 0.56
    optical_sensor_yx: tuple[int, int] = (512, 640)
    optical_photons_px_s: float = 2e5
    optical_drift_um_per_min_yx: tuple[float, float] = (0.012, -0.007)
    optical_jitter_um: float = 0.08
    optical_vibration_probability: float = 0.05
    optical_vibration_extent_px: tuple[float, float] = (5.0, 12.0)
    optical_deformation_px: float = 1.5

    def __post_init__(self) -> None:
        for name, low, high, unit in _RANGES:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if not low <= item <= high:
                    raise ValueError(
                        f"twin setting {name} = {value} {unit}: must be within {low:g} .. {high:g} {unit}".replace(
                            " :", ":"
                        )
                    )
        if self.scene not in SCENES:
            raise ValueError(f"twin setting scene = {self.scene!r}: known are {', '.join(SCENES)}")
        for name in ("vibration_extent_px", "optical_vibration_extent_px"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                raise ValueError(f"twin setting {name} = {(smallest, largest)} px: give (smallest, largest)")

    @classmethod
    def from_mapping(cls, content: dict[str, Any], *, source: str = "twin settings") -> TwinSettings:
        """Build from keys and values as read from TOML.

        Raises
        ------
        ValueError
            Unknown key, wrong type or length, or value out of range; the message names `source`, key, value and remedy.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in content.items():
            if key not in fields:
                close = difflib.get_close_matches(key, fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(fields))}"
                raise ValueError(f"{source}: {key}: unknown twin setting; {hint}")
            values[key] = _convert(source, key, value, fields[key].default)
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def load(cls, file: Path) -> TwinSettings:
        """Read a TOML file: keys at its top level or in a table ``[twin]``. A relative `frames` starts at the file.

        Raises
        ------
        ValueError
            The file is missing, no TOML, or holds a wrong key or value.
        """
        try:
            content = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: not valid TOML: {error}") from error
        settings = cls.from_mapping(content.get("twin", content), source=str(file))
        paths = {name: getattr(settings, name) for name in _PATHS}
        return dataclasses.replace(settings, **{name: file.parent / path for name, path in paths.items() if path})


_PATHS = ("frames", "recording")

_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("seed", 0, 2**31 - 1, ""),
    ("pixel_size_um", 1e-3, 100.0, "um"),
    ("sensor_yx", 16, 8192, "px"),
    ("sample_size_um", 1.0, 20000.0, "um"),
    ("flux_ph_s", 0.0, 1e16, "ph/s"),
    ("beam_fwhm_um", 0.1, 5000.0, "um"),
    ("beam_order", 1, 64, ""),
    ("energy_ev", 1000.0, 60000.0, "eV"),
    ("time_scale", 0.0, 1e6, ""),
    ("vibration_probability", 0.0, 1.0, ""),
    ("vibration_extent_px", 0.0, 40.0, "px"),
    ("vibration_line_fraction", 0.0, 1.0, ""),
    ("jitter_um_yx", 0.0, 100.0, "um"),
    ("backlash_um", 0.0, 100.0, "um"),
    ("breathing_px", 0.0, 1.5, "px"),
    ("psf_sigma_px", 0.3, 5.0, "px"),
    ("defocus_px_per_um", 0.0, 10.0, "px/um"),
    ("ring_ma", 1e-3, 2000.0, "mA"),
    ("ring_lifetime_h", 1e-3, 1e6, "h"),
    ("ring_top_up_min", 1e-3, 1e6, "min"),
    ("detection_efficiency", 0.0, 1.0, ""),
    ("counts_per_photon", 1e-3, 1e4, "counts"),
    ("dark_counts", 0.0, 60000.0, "counts"),
    ("read_noise_counts", 0.0, 1e4, "counts"),
    ("fixed_pattern_rel", 0.0, 0.2, ""),
    ("saturation_counts", 255, 65535, "counts"),
    ("damage_threshold_gy", 1.0, 1e12, "Gy"),
    ("damage_spread_um", 0.0, 1e4, "um"),
    ("dose_grid_um", 0.05, 1e3, "um"),
    ("soc_cell_um", 0.5, 5e3, "um"),
    ("foil_size_um", 0.0, 1e5, "um"),
    ("capacity_mah", 1e-6, 1e6, "mAh"),
    ("initial_soc", 0.0, 1.0, ""),
    ("playback_speed", 1.0, 1e4, ""),
    ("optical_pixel_size_um", 0.05, 10.0, "um"),
    ("optical_sensor_yx", 16, 8192, "px"),
    ("optical_photons_px_s", 0.0, 1e12, "1/s"),
    ("optical_jitter_um", 0.0, 100.0, "um"),
    ("optical_vibration_probability", 0.0, 1.0, ""),
    ("optical_vibration_extent_px", 0.0, 40.0, "px"),
    ("optical_deformation_px", 0.0, 4.0, "px"),
)


def _convert(source: str, key: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`, which is what a TOML reader cannot know."""
    if key in _PATHS:
        return None if value is None else Path(value)
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            raise ValueError(f"{source}: {key} = {value!r}: needs {len(default)} numbers, e.g. {list(default)}")
        return tuple(_convert(source, key, item, like) for item, like in zip(value, default, strict=True))
    if isinstance(default, str):
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(default, float):
            return float(value)
        if float(value).is_integer():
            return int(value)
    raise ValueError(f"{source}: {key} = {value!r}: needs a {type(default).__name__}, e.g. {default!r}")
