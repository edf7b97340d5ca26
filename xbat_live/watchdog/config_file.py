"""An experiment written back into a file, with a unit on every number, for a process that was not given the original."""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from xbat_live.config import ExperimentConfig, make_config
from xbat_live.units import CRateQuantity, Quantity

_SECTIONS = ("sample", "beam", "dose", "beamline", "watchdog")  # what a dose depends on; no keys of archives


def write_config(config: ExperimentConfig, file: Path) -> Path:
    """Write what the guard needs of `config` to a JSON file that `read_config` reads back.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    content: dict[str, Any] = {name: as_written(getattr(config, name)) for name in _SECTIONS}
    content["base_directory"] = str(config.path(Path()))
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(file)
    return file


def read_config(file: Path) -> ExperimentConfig:
    """Read a file of `write_config`; what is in it wins over environment variables.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    OSError, ValueError
        The file cannot be read, or is no JSON.
    """
    return make_config({}, source=str(file), overrides=json.loads(file.read_text()))


def as_written(value: Any, annotation: Any = None, metadata: tuple[Any, ...] = ()) -> Any:  # noqa: PLR0911 - one per kind
    """Return `value` as it would stand in an experiment file: quantities as strings with their unit."""
    if value is None:
        return None
    for item in metadata:
        if isinstance(item, Quantity):
            return f"{value!r} {item.unit}"
        if isinstance(item, CRateQuantity):
            return f"{value!r}C"
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        written = {
            field.alias or name: as_written(getattr(value, name), field.annotation, tuple(field.metadata))
            for name, field in fields.items()
        }
        return {name: item for name, item in written.items() if item is not None}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return as_written(value, arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        choices = [choice for choice in arguments if choice is not NoneType]
        wanted = [choice for choice in choices if (get_origin(choice) is tuple) == isinstance(value, tuple)]
        return as_written(value, (wanted or choices)[0])
    if isinstance(value, tuple | list):
        kinds = arguments if origin is tuple and Ellipsis not in arguments else arguments[:1] * len(value)
        return [as_written(item, kind) for item, kind in zip(value, kinds or (None,) * len(value), strict=True)]
    if isinstance(value, dict):
        return {key: as_written(item, arguments[1] if arguments else None) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
