"""The plans for a walk: the modules that are loaded already, or copies of them made without ophyd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import xbat_live
from xbat_live import devices
from xbat_live.forecast.standins import Record

_PLANS, _SETUP = "xbat_live.plans", "xbat_live.plan_setup"


@dataclass(frozen=True)
class PlanModules:
    """The modules that a walk needs.

    Attributes
    ----------
    plans, setup
        `xbat_live.plans` and `xbat_live.plan_setup`.
    every
        These, and all modules of the plans.
    """

    plans: Any
    setup: Any
    every: tuple[ModuleType, ...]


@dataclass(frozen=True)
class Timed:
    """Stands for `xbat_live.devices.OpenFor`."""

    seconds: float


class Step:
    """Stands for `xbat_live.devices.PotentiostatStep`."""

    def __init__(self, mode: str = "", *, c_rate_per_h: float | None = None, **settings: Any) -> None:
        self.mode, self.c_rate_per_h, self.settings = mode, c_rate_per_h, settings

    def __str__(self) -> str:
        return self.mode


def load_plans() -> PlanModules:
    """Return the plans.

    ophyd takes half a second to load, and starts Channel Access. A process that has loaded neither it nor the plans gets copies of
    the plans' modules in which the device classes are stand-ins; they are forgotten by `sys.modules`, so that a run that follows in
    the same process loads the plans as they are.
    """
    if "ophyd" in sys.modules or _PLANS in sys.modules:
        return _loaded()
    with _stand_in_classes():
        loaded = _loaded()
    for module in loaded.every:
        sys.modules.pop(module.__name__, None)
    for name in (_PLANS, _SETUP):
        vars(xbat_live).pop(name.rpartition(".")[2], None)
    return loaded


def _loaded() -> PlanModules:
    setup, plans = import_module(_SETUP), import_module(_PLANS)
    every = [
        module
        for name, module in list(sys.modules.items())
        if name in (_PLANS, _SETUP) or name.startswith(f"{_PLANS}.")
    ]
    return PlanModules(plans, setup, tuple(every))


@contextmanager
def _stand_in_classes() -> Iterator[None]:
    """Let `xbat_live.devices` have stand-ins for its classes, which it otherwise loads when asked for."""
    for name in devices.__all__:
        setattr(devices, name, _stand_in(name))
    try:
        yield
    finally:
        for name in devices.__all__:
            delattr(devices, name)


def _stand_in(name: str) -> type:
    from xbat_live.devices.energy_sweep import EnergySweep

    known: dict[str, type] = {"OpenFor": Timed, "PotentiostatStep": Step, "EnergySweep": EnergySweep}
    if name in known:
        return known[name]
    base = Record if name.endswith("Record") else Exception if name.endswith("Error") else object
    return type(name, (base,), {"__doc__": f"Stands for `xbat_live.devices.{name}`."})
