"""One typed configuration of an experiment: beamline, sample, dose, plan. TOML, with a unit on every number."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from xbat_live.units import CRateQuantity, Quantity

Seconds = Annotated[float, Quantity("s", minimum=0)]
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


class ConfigError(Exception):
    """A configuration that cannot be used; the message names file, key, value, unit and remedy."""


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
        Literal["stage", "camera", "mono", "potentiostat", "shutter", "attenuator", "i0", "ring"], str
    ] = Field(default_factory=dict)
    """Full prefix per device, for beamlines whose PVs do not share one."""
    channel_access: ChannelAccess = ChannelAccess()
    connection_timeout_s: Seconds = Field(5.0, alias="connection_timeout")


class BeamSection(_Section):
    """The photons: what flux means which dose."""

    flux_ph_s: Flux = Field(alias="flux")
    """Flux on the sample (before the cell) when the ion chamber reads `i0_reference`."""
    i0_reference_na: Nanoampere = Field(100.0, alias="i0_reference")
    profile: Literal["gaussian", "top_hat"] = "gaussian"
    size_um: tuple[PositiveMicrometres, PositiveMicrometres] = Field((30.0, 30.0), alias="size")
    """Width (x, y): full width at half maximum of `gaussian`, full width of `top_hat`."""
    order: int = Field(8, ge=2, le=32)
    """Order of the super-Gaussian; 2 is the ordinary Gaussian."""
    energy_ev: EnergyEv = Field(8562.0, alias="energy")


class CameraSection(_Section):
    """The detector."""

    pixel_size_um: PixelSize = Field(0.03324, alias="pixel_size")
    """Size of one unbinned pixel in the sample plane."""
    exposure_s: Exposure = Field(0.048, alias="exposure")
    roi: tuple[int, int, int, int] | None = None
    """Part of the sensor that is read: (min_y, min_x, size_y, size_x), pixels. Left out: the whole sensor."""
    directory: Path = Path("frames")
    """Folder for the HDF5 files; the IOC must see it under the same path."""
    dark_offset_counts: float = Field(100.0, ge=0)
    """Offset assumed when no dark frame was taken, counts."""


class SampleSection(_Section):
    """What is measured."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    """Name of the ledger: one sample, one name, for ever. Letters, digits, ``_ . + -``."""
    cell: str = "txm_nmc622"
    """Layer stack preset (`xbat config cells` lists them)."""
    layer: str = "cathode"
    material: str = "NMC622"
    """The material whose dose is limited, in `layer`."""
    size_um: tuple[PositiveMicrometres, PositiveMicrometres] = Field((200.0, 200.0), alias="size")
    """Outline (x, y) of the electrode, centred on stage (0, 0)."""
    edge: str = "Ni K"


class DoseSection(_Section):
    """What the sample may get."""

    limit_gy: DoseGy = Field(alias="limit")
    """Largest dose at any position of the sample. Compare the presets of `xbat config limits`."""
    rate_limit_gy_s: DoseRate | None = Field(None, alias="rate_limit")
    model: Literal["attenuation", "energy", "photo", "legacy_jousseaume"] = "attenuation"
    """Dose definition; literature thresholds are in `attenuation`."""
    sigma: float = Field(0.05, ge=0, le=1)
    """Relative standard uncertainty of a dose (1 sigma): flux, beam profile, and above all the repositioning jitter of the stage, which
    shifts the steep edges of neighbouring footprints against each other by more than can be known. It is kept free below the limit
    `k_sigma` times."""
    k_sigma: float = Field(2.0, ge=0, le=5)
    policy: Literal["relocate", "halt"] = "relocate"
    """What happens when the next exposure would exceed the limit."""
    guard_um: Micrometres = Field(2.0, alias="guard_distance")
    """Distance kept between the footprint of a new spot and dosed sample."""
    open_time_margin_s: Seconds = Field(0.25, alias="open_time_margin")
    """Shutter-open time reserved beyond the exposure; the shutter's own watchdog enforces the sum."""
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


class PlanSection(_Section):
    """What is done."""

    name: Literal["operando_txm_series", "xanes_series"] = "operando_txm_series"
    n_points: int = Field(56, ge=1, le=10_000_000)
    """Time points of the series (xanes_series: repeats of the spectrum)."""
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

    @model_validator(mode="after")
    def _energies(self) -> PlanSection:
        if self.name == "xanes_series" and not self.energies_ev:
            raise ValueError('xanes_series needs energies, e.g. energies = ["8320 eV", "8345 eV"]')
        return self


class ArchiveSection(_Section):
    """Where documents go. Frames stay in their HDF5 files and are read in place."""

    enabled: bool = True
    directory: Path = Path("archive")
    uri: str | None = None
    """A running Tiled server, e.g. http://127.0.0.1:8000; left out: `xbat run` starts one in `directory`."""
    api_key: str | None = Field(None, repr=False)


class ExperimentConfig(BaseSettings):
    """All of it. Precedence: command line > ``XBAT_...`` environment > file > default (``XBAT_DOSE__LIMIT="1 MGy"``)."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="XBAT_", env_nested_delimiter="__", frozen=True)

    sample: SampleSection
    beam: BeamSection
    dose: DoseSection
    beamline: BeamlineSection = BeamlineSection()
    camera: CameraSection = CameraSection()
    plan: PlanSection = PlanSection()
    protocol: tuple[ProtocolStep, ...] = ()
    archive: ArchiveSection = ArchiveSection()
    operator: str = ""
    base_directory: Path = Path()
    """Relative folders are below this one; default: the folder of the file."""

    def path(self, relative: Path) -> Path:
        """Return `relative` below the configuration's folder, absolute."""
        return (self.base_directory / relative).resolve()


def load_config(file: Path, overrides: dict[str, Any] | None = None) -> ExperimentConfig:
    """Read an experiment from a TOML file.

    Parameters
    ----------
    file
        TOML file; see ``xbat config init`` for a commented one.
    overrides
        Values by dotted key, e.g. ``{"dose.limit": "1 MGy"}``; they win over file and environment.

    Raises
    ------
    ConfigError
        File missing, no TOML, or a wrong key, value or unit. Every wrong key is named, with file, value and remedy.
    """
    try:
        content = tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file; write one with: xbat config init {file.name}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    content.setdefault("base_directory", str(file.resolve().parent))
    return make_config(content, source=str(file), overrides=overrides)


def make_config(
    content: dict[str, Any], *, source: str = "configuration", overrides: dict[str, Any] | None = None
) -> ExperimentConfig:
    """Validate `content` (as read from TOML); errors are told as of `source`. See `load_config`."""

    class FromFile(ExperimentConfig):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=content)

    try:
        return FromFile(**_nested(overrides or {}))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(source, item) for item in error.errors())) from error


def _nested(dotted: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *parents, leaf = key.split(".")
        section = nested
        for name in parents:
            section = section.setdefault(name, {})
        section[leaf] = value
    return nested


def _explain(source: str, item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(names))}"
        return f"{source}: {key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{source}: {key}: missing; it has no safe default (see: xbat config init)"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item.get("input"), dict) else f" = {item.get('input')!r}"
    return f"{source}: {key}{shown}: {message}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = ExperimentConfig
    for part in location:
        if isinstance(part, int):
            continue
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                inner = field.annotation
                model = inner if hasattr(inner, "model_fields") else ProtocolStep
                break
    return [field.alias or name for name, field in model.model_fields.items()]
