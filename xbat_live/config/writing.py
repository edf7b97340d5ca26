"""A configuration as an experiment file would say it: every number with its unit, so that it can be read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xbat_live.config.experiment import ExperimentConfig
from xbat_live.units import CRateQuantity, Quantity

_SECRET = {"api_key", "catalog", "streaming_cache"}  # the key, and addresses that hold passwords


def recorded_config(config: ExperimentConfig) -> dict[str, Any]:
    """Return plain data (JSON, TOML) that `make_config` turns into the same configuration again; secrets are left out."""
    return _section(config)


def _section(section: BaseModel) -> dict[str, Any]:
    told = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is not None and name not in _SECRET:
            told[field.alias or name] = _value(value, _annotation(field))
    return told


def _annotation(field: FieldInfo) -> Any:
    # pydantic takes the outermost Annotated apart
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _value(value: Any, annotation: Any) -> Any:
    if isinstance(value, BaseModel):
        return _section(value)
    if isinstance(value, dict):
        kind = _value_annotation(annotation)
        return {str(key): _value(item, kind) for key, item in value.items()}
    if isinstance(value, tuple | list):
        kinds = _item_annotations(annotation, len(value))
        return [_value(item, kind) for item, kind in zip(value, kinds, strict=True)]
    return str(value) if isinstance(value, Path) else _quantity(value, next(_units(annotation), None))


def _quantity(value: Any, unit: str | None) -> Any:
    if unit is None or isinstance(value, bool | str):
        return value
    if value == 0:
        return 0  # needs no unit
    import numpy as np  # here: `xbat --help` must be quick

    return f"{np.format_float_positional(value, trim='0') if unit == 'C' else repr(float(value))} {unit}"


def _item_annotations(annotation: Any, count: int) -> list[Any]:
    for kind in _alternatives(annotation):
        arguments = get_args(kind)
        if get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return [arguments[0]] * count
        if get_origin(kind) is tuple and len(arguments) == count:
            return list(arguments)
    return [None] * count


def _value_annotation(annotation: Any) -> Any:
    """Return the annotation of the values of a mapping."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    found = (_value_annotation(kind) for kind in get_args(annotation) if get_origin(annotation) is not tuple)
    return next((kind for kind in found if kind is not None), None)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, or the annotation itself, without what is annotated to them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) is tuple or not get_args(annotation):
        yield annotation
    else:
        for kind in get_args(annotation):
            yield from _alternatives(kind)


def _units(annotation: Any) -> Iterator[str]:
    """Yield the unit of a number with this annotation."""
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        yield from (item.unit for item in metadata if isinstance(item, Quantity))
        yield from ("C" for item in metadata if isinstance(item, CRateQuantity))
        yield from _units(kind)
    elif get_origin(annotation) is not tuple:
        for kind in get_args(annotation):
            yield from _units(kind)
