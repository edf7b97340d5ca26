"""The sections of an experiment file; every number is written with its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xbat_live.units import CRateQuantity, Quantity

Seconds = Annotated[float, Quantity("s", minimum=0)]
PositiveSeconds = Annotated[float, Quantity("s", minimum=1e-4)]
LeadTime = Annotated[float, Quantity("s", minimum=0, maximum=0.5)]
Exposure = Annotated[float, Quantity("s", minimum=1e-4, maximum=600)]
Micrometres = Annotated[float, Quantity("um")]
PositiveMicrometres = Annotated[float, Quantity("um", minimum=1e-6)]
PixelSize = Annotated[float, Quantity("um", minimum=1e-3, maximum=100)]
EnergyEv = Annotated[float, Quantity("eV", minimum=1000, maximum=150_000)]
DoseGy = Annotated[float, Quantity("Gy", minimum=1e-3)]
DoseRate = Annotated[float, Quantity("Gy/s", minimum=1e-6)]
Flux = Annotated[float, Quantity("ph/s", minimum=1)]
Nanoampere = Annotated[float, Quantity("nA", minimum=1e-6)]
Volt = Annotated[float, Quantity("V", minimum=-10, maximum=10)]
CRate = Annotated[float, CRateQuantity()]
Milliampere = Annotated[float, Quantity("mA", minimum=1e-6)]
Degrees = Annotated[float, Quantity("deg", minimum=0, maximum=85)]
Density = Annotated[float, Quantity("g/cm**3", minimum=1e-3, maximum=25)]
Policy = Literal["halt", "relocate", "rest", "attenuate"]
Rectangle = tuple[Micrometres, Micrometres, Micrometres, Micrometres]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class ChannelAccess(_Section):
    """How Channel Access finds the IOCs. Left out: the ``EPICS_CA_*`` variables of the shell are used."""

    port: int | None = Field(None, ge=1024, le=65535)
    """Server port on this machine's loopback interface, as ``xbat sim`` prints it."""

    def environment(self) -> dict[str, str] | None:
        """Return the ``EPICS_CA_*`` variables that confine Channel Access to that port, or None for those of the shell.

        They are read once, when ophyd is first imported; see `xbat_live.devices.configure_channel_access`.
        """
        if self.port is None:
            return None
        return {
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": str(self.port),
            "EPICS_CA_REPEATER_PORT": str(self.port + 1),
            "EPICS_CA_MAX_ARRAY_BYTES": "20000000",
        }


class BeamlineSection(_Section):
    """Where the devices are."""

    prefix: str = "XBAT:"
    """PV prefix shared by all devices; single devices can be moved with `device_prefixes`."""
    device_prefixes: dict[
        Literal["stage", "camera", "mono", "potentiostat", "shutter", "attenuator", "i0", "ring", "optical"], str
    ] = Field(default_factory=dict)
    """Full prefix per device, for beamlines whose PVs do not share one."""
    channel_access: ChannelAccess = ChannelAccess()
    connection_timeout_s: Seconds = Field(5.0, alias="connection_timeout")


class BeamSection(_Section):
    """The photons: what flux means which dose."""

    flux_ph_s: Flux = Field(alias="flux")
    """Flux on the sample (before the cell) when the ion chamber reads `i0_reference`."""
    i0_reference_na: Nanoampere = Field(100.0, alias="i0_reference")
    ring_reference_ma: Milliampere | None = Field(None, alias="ring_reference")
    """Ring current at which `flux` was measured; lets the ring current stand in for an ion chamber that has died."""
    profile: Literal["gaussian", "top_hat", "measured"] = "gaussian"
    size_um: tuple[PositiveMicrometres, PositiveMicrometres] = Field((30.0, 30.0), alias="size")
    """Width (x, y): full width at half maximum of `gaussian`, full width of `top_hat`."""
    order: int = Field(8, ge=2, le=32)
    """Order of the super-Gaussian; 2 is the ordinary Gaussian."""
    flat_file: Path | None = Field(None, alias="flat")
    """profile = "measured": image without sample, dark already subtracted, as .npy."""
    flat_pixel_size_um: PixelSize | None = Field(None, alias="flat_pixel_size")
    """profile = "measured": pixel size of that image in the sample plane."""
    fraction_in_field: float = Field(1.0, gt=0, le=1)
    """profile = "measured": fraction of the whole beam that falls on the image; 1 only if verified."""
    energy_ev: EnergyEv = Field(8562.0, alias="energy")

    @model_validator(mode="after")
    def _flat(self) -> BeamSection:
        if self.profile == "measured" and (self.flat_file is None or self.flat_pixel_size_um is None):
            raise ValueError('profile "measured" needs flat (a .npy file) and flat_pixel_size, e.g. "0.65 um"')
        return self


class PartSection(_Section):
    """One material of a layer."""

    material: str = Field(min_length=1)
    """Name that dose is asked for, e.g. ``NMC622``."""
    formula: str | dict[str, float]
    """Chemical formula, or formula -> mass fraction for a mixture."""
    density_g_cm3: Density = Field(alias="density")
    fraction: float = Field(1.0, gt=0, le=1)
    """Volume fraction in its layer."""


class LayerSection(_Section):
    """One layer of a cell that does not ship with xbat_live."""

    name: str = Field(min_length=1)
    thickness_um: PositiveMicrometres = Field(alias="thickness")
    parts: tuple[PartSection, ...] = Field(min_length=1)


class SampleSection(_Section):
    """What is measured."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    """Name of the ledger: one sample, one name, for ever. Letters, digits, ``_ . + -``."""
    cell: str = "txm_nmc622"
    """Layer stack preset (`xbat config cells` lists them); not used when `layers` are given."""
    layers: tuple[LayerSection, ...] = ()
    """The stack in beam order, for a cell of your own."""
    tilt_deg: Degrees = Field(0.0, alias="tilt")
    """Angle between beam and the normal of the layers."""
    layer: str = "cathode"
    material: str = "NMC622"
    """The material whose dose is limited, in `layer`."""
    size_um: tuple[PositiveMicrometres, PositiveMicrometres] = Field((200.0, 200.0), alias="size")
    """Outline (x, y) of the electrode, centred on stage (0, 0)."""
    forbidden_um: tuple[Rectangle, ...] = Field((), alias="forbidden")
    """Zones (x0, x1, y0, y1) in sample coordinates that no footprint of a new spot may touch."""
    edge: str = "Ni K"


class LimitSection(_Section):
    """One more limit, beside ``dose.limit``: a preset by name, or one of your own."""

    preset: str | None = None
    """Name of a preset (`xbat config limits` lists them); the other keys then replace its values."""
    name: str = ""
    material: str | None = None
    """Default: that of the preset, else ``sample.material``."""
    layer: str | None = None
    """Default: ``sample.layer``."""
    limit_gy: DoseGy | None = Field(None, alias="limit")
    rate_gy_s: DoseRate | None = Field(None, alias="rate")
    window_s: Seconds | None = Field(None, alias="window")
    """With `rate`: the limit holds for the mean rate over any window of this length; left out: for the instantaneous rate."""
    advisory: bool | None = None
    """An advisory limit warns and never refuses."""
    protects: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _complete(self) -> LimitSection:
        if self.preset is None and (self.limit_gy is None) == (self.rate_gy_s is None):
            raise ValueError('a limit needs preset = "...", or either limit = "1 MGy" or rate = "1 kGy/s"')
        if self.window_s is not None and self.rate_gy_s is None and self.preset is None:
            raise ValueError("window belongs to a rate limit; give rate as well")
        return self


class DoseSection(_Section):
    """What the sample may get."""

    limit_gy: DoseGy = Field(alias="limit")
    """Largest dose at any position of the sample. Compare the presets of `xbat config limits`."""
    rate_limit_gy_s: DoseRate | None = Field(None, alias="rate_limit")
    limits: tuple[LimitSection, ...] = ()
    """Further limits, all in force at once; of several the binding one is named."""
    model: Literal["attenuation", "energy", "photo", "legacy_jousseaume"] = "attenuation"
    """Dose definition; literature thresholds are in `attenuation`."""
    sigma: float = Field(0.05, ge=0, le=1)
    """Relative standard uncertainty of a dose (1 sigma): flux, beam profile, and above all the repositioning jitter of the stage, which
    shifts the steep edges of neighbouring footprints against each other by more than can be known. It is kept free below the limit
    `k_sigma` times."""
    k_sigma: float = Field(2.0, ge=0, le=5)
    policy: Policy | tuple[Policy, ...] = "relocate"
    """What happens when the next exposure would exceed a limit; of several the first that helps: `attenuate` and `rest` help
    against rate limits, `relocate` against dose limits."""
    guard_um: Micrometres = Field(2.0, alias="guard_distance")
    """Distance kept between the footprint of a new spot and dosed sample."""
    open_time_margin_s: Seconds = Field(0.25, alias="open_time_margin")
    """Shutter-open time reserved beyond the exposure; the shutter's own watchdog enforces the sum."""
    lead_time_s: LeadTime = Field(0.06, alias="lead_time")
    """With a shutter that keeps the time of an opening itself, the camera integrates longer than the exposure by this, and the opening
    lies inside. It covers Channel Access, the blades, and what the detector needs from ``Acquire`` to really integrating; without
    beam it costs time and dark current, no dose. It grows by itself (up to 500 ms) when a frame lost light because it was too short."""
    grid_um: PositiveMicrometres | None = Field(None, alias="grid")
    """Pixel of the dose map; left out: 1 um, or a fiftieth of a beam that is wider than 50 um."""
    ledger_directory: Path = Path("ledger")


class ProtocolStep(_Section):
    """One step of the potentiostat, run in parallel with the frames."""

    mode: Literal["ocv", "galvanostatic", "hold"]
    c_rate_per_h: CRate | None = Field(None, alias="c_rate")
    discharge: bool = False
    hold_v: Volt | None = Field(None, alias="hold")
    cutoff_high_v: Volt = Field(4.9, alias="cutoff_high")
    cutoff_low_v: Volt = Field(2.8, alias="cutoff_low")
    duration_s: Seconds | None = Field(None, alias="duration")
    """The step also ends after this time; an `ocv` or `hold` step needs it."""

    @model_validator(mode="after")
    def _complete(self) -> ProtocolStep:
        if self.mode == "galvanostatic" and self.c_rate_per_h is None:
            raise ValueError('a galvanostatic step needs c_rate, e.g. c_rate = "C/12"')
        if self.mode == "hold" and self.hold_v is None:
            raise ValueError('a hold step needs hold, e.g. hold = "4.3 V"')
        if self.mode in ("ocv", "hold") and self.duration_s is None:
            raise ValueError(f'a {self.mode} step needs duration, e.g. duration = "3 h"')
        if self.cutoff_low_v >= self.cutoff_high_v:
            raise ValueError(f"cutoff_low {self.cutoff_low_v:g} V is not below cutoff_high {self.cutoff_high_v:g} V")
        return self


class WatchdogSection(_Section):
    """The guard process beside a run (`xbat guard`)."""

    enabled: bool = True
    """`xbat run` starts one, unless one watches this sample already."""
    grace_s: Seconds = Field(0.2, alias="grace")
    """How much longer than reserved the shutter may be open before the guard closes it."""


class StepSection(_Section):
    """One step of a `scripted_series`: flats, or frames of the sample, after the energy and the exposure were set."""

    flats: int | None = Field(None, ge=1, le=1000)
    """Number of flats, at ``plan.reference``."""
    frames: int | None = Field(None, ge=1, le=100_000)
    """Number of frames of the sample."""
    energy_ev: EnergyEv | None = Field(None, alias="energy")
    """Left out: as before."""
    exposure_s: Exposure | None = Field(None, alias="exposure")
    """Left out: as before; at first ``camera.exposure``."""
    at_um: tuple[Micrometres, Micrometres] = Field((0.0, 0.0), alias="at")
    """Of frames: offset (x, y) from the spot."""

    @model_validator(mode="after")
    def _complete(self) -> StepSection:
        if (self.flats is None) == (self.frames is None):
            raise ValueError(
                'a step takes either flats or frames, e.g. { frames = 3, energy = "8333 eV", exposure = "0.5 s" }'
            )
        return self


class PlanSection(_Section):
    """What is done."""

    name: Literal[
        "operando_txm_series",
        "xanes_series",
        "scripted_series",
        "move_every_scan",
        "graded_exposure",
        "intermittent_series",
        "attenuated_series",
        "fresh_spots_protocol",
        "operando_ffi_xas",
        "optical_series",
        "calibrate_stage",
    ] = "operando_txm_series"
    n_points: int = Field(56, ge=1, le=10_000_000)
    """Time points of the series (xanes_series: repeats of the spectrum; scripted_series: energies visited)."""
    period_s: Seconds = Field(900.0, alias="period")
    """From one point to the next."""
    duration_s: Seconds | None = Field(None, alias="duration")
    """Stop after this time, even if points are left."""
    spot_um: tuple[Micrometres, Micrometres] = Field((0.0, 0.0), alias="spot")
    """Stage position (x, y) of the first spot's first field of view."""
    fields_um: tuple[tuple[Micrometres, Micrometres], ...] = Field(((0.0, 0.0), (30.0, 0.0)), alias="fields")
    """Fields of view of a spot, offsets (x, y) from it."""
    reference_um: tuple[Micrometres, Micrometres] = Field((-250.0, 0.0), alias="reference")
    """Stage position with the sample out of the beam, for flats."""
    n_flats: int = Field(1, ge=1, le=1000)
    flat_ttl_s: Seconds = Field(0.0, alias="flat_time_to_live")
    """A flat older than this is taken anew before a point; 0 takes one at every point."""
    n_darks: int = Field(5, ge=0, le=1000)
    max_retakes: int = Field(1, ge=0, le=20)
    """How often one frame is retaken when it is rejected and the dose budget allows."""
    correct_drift: bool = True
    energies_ev: tuple[EnergyEv, ...] = Field((), alias="energies")
    """xanes_series: the energies."""
    steps: tuple[StepSection, ...] = ()
    """scripted_series: what is taken, in this order; `xbat import` makes them of a beamline's scan script."""

    area_um: Rectangle | None = Field(None, alias="area")
    """move_every_scan: rectangle (x0, x1, y0, y1) of the grid, sample coordinates."""
    step_um: tuple[PositiveMicrometres, PositiveMicrometres] | None = Field(None, alias="step")
    """move_every_scan: distance (x, y) of the positions, at least the beam's footprint. calibrate_stage: size of the moves."""
    n_repeats: int = Field(2, ge=1, le=100)
    """calibrate_stage: how often all moves are made; each time five frames."""
    revisit: bool = False
    """move_every_scan: go round the grid again when it is used up."""
    locations_um: tuple[tuple[Micrometres, Micrometres], ...] = Field((), alias="locations")
    """graded_exposure: sample coordinates (x, y), farther apart than the beam's footprint."""
    exposures_s: tuple[PositiveSeconds, ...] = Field((), alias="exposures")
    """graded_exposure: exposure per visit of each location; cut into frames no longer than ``camera.exposure``."""
    rest_s: Seconds = Field(0.0, alias="rest")
    """intermittent_series: least time with the shutter closed after every exposure."""
    transmission: float | None = Field(None, gt=0, le=1)
    """attenuated_series: transmission of the attenuator during the run."""
    keep_counts: bool = False
    """attenuated_series: exposures longer by 1 / transmission."""
    fresh: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")], ...] = ("A", "B")
    """fresh_spots_protocol: labels of the fresh spots."""
    fresh_guard_um: Micrometres | None = Field(None, alias="fresh_guard")
    """fresh_spots_protocol: least distance from a fresh footprint to a dosed pixel; left out: ``dose.guard_distance``."""
    n_ocv: int = Field(120, ge=0, le=1_000_000)
    """fresh_spots_protocol: frames at open circuit; operando_ffi_xas: cubes."""
    n_fresh: int = Field(120, ge=0, le=1_000_000)
    """fresh_spots_protocol: frames of every spot of the charged cell; operando_ffi_xas: cubes."""
    charge_rate_per_h: CRate = Field(0.25, alias="charge_rate")
    """fresh_spots_protocol, operando_ffi_xas: rate of the charge."""
    charge_to_v: Volt = Field(4.3, alias="charge_to")
    """fresh_spots_protocol: voltage that is charged to and held."""
    charge_timeout_s: Seconds = Field(28800.0, alias="charge_timeout")
    """fresh_spots_protocol: longest charge."""
    hold_s: Seconds = Field(10800.0, alias="hold")
    """fresh_spots_protocol: time at the voltage with the first spot irradiated."""

    @model_validator(mode="after")
    def _complete(self) -> PlanSection:
        needs = {
            "xanes_series": (bool(self.energies_ev), 'energies, e.g. energies = ["8320 eV", "8345 eV"]'),
            "scripted_series": (
                any(step.frames for step in self.steps),
                'steps with frames, e.g. steps = [{ flats = 10, energy = "8333 eV" }, { frames = 3 }]',
            ),
            "move_every_scan": (
                self.area_um is not None and self.step_um is not None,
                'area and step, e.g. area = ["-80 um", "80 um", "-80 um", "80 um"], step = ["45 um", "45 um"]',
            ),
            "graded_exposure": (
                len(self.locations_um) == len(self.exposures_s) > 0,
                'one exposure per location, e.g. locations = [["-60 um", "0 um"], ["60 um", "0 um"]], exposures = ["2.5 s", "98 s"]',
            ),
            "attenuated_series": (self.transmission is not None, "transmission, e.g. transmission = 0.1"),
        }
        given, what = needs.get(self.name, (True, ""))
        if not given:
            raise ValueError(f"{self.name} needs {what}")
        return self

    @property
    def visited_ev(self) -> tuple[float, ...]:
        """Photon energies that the plan sets, eV; empty when it sets none."""
        stepped = dict.fromkeys(step.energy_ev for step in self.steps if step.energy_ev is not None)
        return tuple(stepped) if self.name == "scripted_series" else self.energies_ev

    def positions_um(self) -> dict[str, tuple[float, float]]:
        """Return where the plan goes on the sample, by what names it in the file; positions that it finds itself are left out."""
        if self.name == "graded_exposure":
            return {f"plan.locations[{i}]": place for i, place in enumerate(self.locations_um)}
        if self.name == "move_every_scan" and self.area_um is not None:
            x0, x1, y0, y1 = self.area_um
            corners = ((x0, y0), (x1, y0), (x0, y1), (x1, y1))
            return {
                f"plan.area, corner {n + 1} + plan.fields[{i}]": (x + dx, y + dy)
                for i, (dx, dy) in enumerate(self.fields_um)
                for n, (x, y) in enumerate(corners)
            }
        if self.name == "scripted_series":
            x, y = self.spot_um
            offsets = {step.at_um: i for i, step in reversed(list(enumerate(self.steps))) if step.frames}
            return {f"plan.spot + plan.steps[{i}].at": (x + dx, y + dy) for (dx, dy), i in offsets.items()}
        if self.name == "optical_series":
            return {}  # the stage stays where it is
        if self.name in ("fresh_spots_protocol", "operando_ffi_xas", "calibrate_stage"):
            return {"plan.spot": self.spot_um}
        x, y = self.spot_um
        return {f"plan.spot + plan.fields[{i}]": (x + dx, y + dy) for i, (dx, dy) in enumerate(self.fields_um)}


class ArchiveSection(_Section):
    """Where documents go. Frames stay in their HDF5 files and are read in place."""

    enabled: bool = True
    directory: Path = Path("archive")
    uri: str | None = None
    """A running Tiled server, e.g. http://127.0.0.1:8000; left out: `xbat run` starts one in `directory`."""
    api_key: str | None = Field(None, repr=False)
    catalog: str | None = Field(None, repr=False)
    """PostgreSQL database of the archive, ``postgresql://USER:PASSWORD@HOST/DATABASE``, for a catalog that several servers and
    machines share; left out: SQLite in `directory`. Better in the variable ``XBAT_ARCHIVE__CATALOG`` than in a file."""
    streaming_cache: str | None = Field(None, repr=False)
    """Redis for live views, ``redis://HOST:6379/0``; left out: in the server's memory."""
    arrays: Path | None = None
    """Folder of long arrays and analyses; with a shared catalog a shared one. Left out: in `directory`."""
    profile: str = Field("xbat", pattern=r"^[A-Za-z0-9_-]*$")
    """Tiled profile that points to the archive while its server runs; empty: none is written."""


class LiveSection(_Section):
    """The live page of a run."""

    enabled: bool = True
    """`xbat run` serves one."""
    host: str = "127.0.0.1"
    """Where it listens. Anything but loopback is for a reverse proxy that does TLS: docs/how-to/watch-live.md."""
    port: int = Field(8750, ge=0, le=65535)
    """HTTP port; when it is taken, or 0, a free one."""
    origins: tuple[str, ...] = ()
    """Where a reverse proxy serves it, e.g. ``https://beamline.example.org``."""
