"""Reading an experiment file: precedence, and errors that name file, key, value and remedy."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from xbat_live.config.camera import CameraSection
from xbat_live.config.errors import ConfigError
from xbat_live.config.optical import OpticalSection
from xbat_live.config.sections import (
    ArchiveSection,
    BeamlineSection,
    BeamSection,
    DoseSection,
    LiveSection,
    PlanSection,
    ProtocolStep,
    SampleSection,
    WatchdogSection,
)
from xbat_live.config.xas import XasSection


class ExperimentConfig(BaseSettings):
    """All of it. Precedence: command line > ``XBAT_...`` environment > file > default (``XBAT_DOSE__LIMIT="1 MGy"``)."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="XBAT_", env_nested_delimiter="__", frozen=True)

    sample: SampleSection
    beam: BeamSection
    dose: DoseSection
    beamline: BeamlineSection = BeamlineSection()
    camera: CameraSection = CameraSection()
    optical: OpticalSection = OpticalSection()
    xas: XasSection = XasSection()
    plan: PlanSection = PlanSection()
    protocol: tuple[ProtocolStep, ...] = ()
    watchdog: WatchdogSection = WatchdogSection()
    archive: ArchiveSection = ArchiveSection()
    live: LiveSection = LiveSection()
    operator: str = ""
    base_directory: Path = Path()
    """Relative folders are below this one; default: the folder of the file."""

    @property
    def optical_directory(self) -> Path:
        """Folder of the microscope's frames, absolute."""
        return self.path(self.camera.directory if self.optical.directory is None else self.optical.directory)

    @property
    def uses_microscope(self) -> bool:
        """Whether the plan takes its frames with the microscope instead of the X-ray camera."""
        return self.plan.name == "optical_series"

    @property
    def sweeps(self) -> bool:
        """Whether the plan sweeps the energy while the camera takes frames."""
        return self.plan.name == "operando_ffi_xas"

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
    model: type[BaseModel] = ExperimentConfig
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        inner = _section_in(fields[part].annotation) if part in fields else None
        if inner is None:
            break
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field is, or is a sequence of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for item in get_args(annotation) if (found := _section_in(item)) is not None), None)
