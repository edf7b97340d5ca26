"""Metadata of a run, built from the plan's bound arguments and the objects in use, never typed by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from xbat_live.devices import TxmBeamline
from xbat_live.plans.guard import DoseGuard
from xbat_live.versions import versions

_PACKAGES = ("bluesky", "ophyd", "bluesky-tiled-plugins", "numpy", "scipy", "xraydb")

_OBJECTS = ("beamline", "guard", "analysis", "choose_spot", "md")


def bound_arguments(local_names: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's arguments from its ``locals()`` at the start, without the objects it works with."""
    return {name: value for name, value in local_names.items() if name not in _OBJECTS}


def run_metadata(
    plan_name: str, arguments: dict[str, Any], beamline: TxmBeamline, guard: DoseGuard, md: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the start document's metadata.

    Parameters
    ----------
    arguments
        The plan's arguments by name.
    md
        From the user; wins over what is made here.
    """
    return {
        "plan_name": plan_name,
        "plan_args": plain(arguments),
        "detectors": [beamline.camera.name],
        "motors": [beamline.stage.x.name, beamline.stage.y.name],
        "hints": {"dimensions": [(["time"], "primary")]},
        "dose": plain(guard.describe()),
        "versions": versions(*_PACKAGES),
        **(md or {}),
    }


def plain(value: Any) -> Any:
    """Return `value` as plain data (JSON)."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return str(value)
