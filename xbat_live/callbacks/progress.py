"""What a person wants to know of a running series, gathered from its documents."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bluesky.callbacks import CallbackBase


@dataclass
class RunState:
    """The run so far.

    Attributes
    ----------
    points, n_points
        Present time point, from 1, and how many are planned.
    verdicts
        Number of frames by verdict.
    dose_gy, dose_limit_gy
        Highest dose in the last frame's footprint, and the limit, Gy.
    with_beam
        False for a plan of the microscope, whose frames are no dose.
    drift_yx_um
        Registered drift, um.
    shutter
        Where the shutter was found after the run.
    decisions
        (seconds since start, action, reason), without routine ones.
    """

    uid: str = ""
    plan_name: str = ""
    sample: str = ""
    points: int = 0
    n_points: int = 0
    frames: int = 0
    flats: int = 0
    darks: int = 0
    spot: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    dose_gy: float = 0.0
    dose_limit_gy: float = float("nan")
    with_beam: bool = True
    drift_yx_um: tuple[float, float] = (0.0, 0.0)
    voltage_v: float = float("nan")
    soc: float = float("nan")
    decisions: list[tuple[float, str, str]] = field(default_factory=list)
    exit_status: str = ""
    reason: str = ""
    shutter: str = "unknown"
    started_s: float = field(default_factory=time.monotonic)

    @property
    def rejected(self) -> int:
        """Frames that were not accepted."""
        return sum(count for verdict, count in self.verdicts.items() if verdict != "accepted")

    def count(self, action: str) -> int:
        """Return how often a decision was taken."""
        return sum(1 for _, name, _ in self.decisions if name == action)


class RunProgress(CallbackBase):
    """Keeps a `RunState` up to date and tells `changed` after every document that changed it."""

    def __init__(self, changed: Callable[[RunState, str], None] = lambda state, what: None) -> None:
        super().__init__()
        self.state = RunState()
        self._changed = changed
        self._streams: dict[str, str] = {}

    def start(self, doc: dict[str, Any]) -> None:
        """Begin a new run."""
        arguments = doc.get("plan_args", {})
        self.state = RunState(
            uid=doc["uid"],
            plan_name=doc.get("plan_name", ""),
            sample=str(doc.get("sample", "")),
            n_points=int(arguments.get("n_points", 0)),
        )
        self._changed(self.state, "start")

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Remember which stream a descriptor is of."""
        self._streams[doc["uid"]] = doc["name"]

    def event(self, doc: dict[str, Any]) -> dict[str, Any]:
        """Take in one Event."""
        state, data, stream = self.state, doc["data"], self._streams[doc["descriptor"]]
        if stream == "primary":
            state.frames += 1
            state.points = int(data["point_index"]) + 1
            state.spot = int(data["point_spot"])
            state.voltage_v = float(data.get("potentiostat_voltage_v", state.voltage_v))
            state.soc = float(data.get("potentiostat_soc", state.soc))
        elif stream == "flat":
            state.flats += 1
        elif stream == "dark":
            state.darks += 1
        elif stream == "analysis":
            state.verdicts[str(data["analysis_verdict"])] += 1
            fraction = float(data["analysis_dose_fraction"])
            state.with_beam = not math.isnan(fraction)
            if state.with_beam:
                state.dose_gy = float(data["analysis_dose_gy"])
                state.dose_limit_gy = state.dose_gy / fraction if fraction else state.dose_limit_gy
            state.drift_yx_um = (float(data["analysis_drift_y_um"]), float(data["analysis_drift_x_um"]))
        elif stream == "decision":
            elapsed_s = time.monotonic() - state.started_s
            state.decisions.append((elapsed_s, str(data["decision_action"]), str(data["decision_reason"])))
        self._changed(state, stream)
        return doc

    def stop(self, doc: dict[str, Any]) -> None:
        """Note how the run ended."""
        self.state.exit_status = doc["exit_status"]
        self.state.reason = doc.get("reason", "")
        self._changed(self.state, "stop")
