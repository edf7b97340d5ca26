"""Soft devices behind what the software itself knows: the point of a plan, the verdict on a frame, a decision.

They are ordinary ophyd devices, so that a plan reads them into ordinary Events: ``primary`` (point, dose), ``analysis``,
``decision``, ``spots``.
"""

from __future__ import annotations

import math
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, Signal


class SoftSignal(Signal):
    """A signal without hardware that has a unit.

    Parameters
    ----------
    value
        First value; its type (int, float or str) is that of the data key for ever.
    units
        Unit of the data key; empty for a text or a plain number.
    """

    def __init__(self, *, name: str, value: float | str, units: str = "", **kwargs: Any) -> None:
        super().__init__(name=name, value=value, **kwargs)
        self._units = units
        self._type = type(value)
        self.first = value

    @property
    def units(self) -> str:
        """Unit of the value."""
        return self._units

    def put(self, value: Any, **kwargs: Any) -> None:
        """Set the value, converted to the type of the first one (a bool becomes 0 or 1, None a NaN)."""
        if value is None and self._type is float:
            value = math.nan
        super().put(self._type(value), **kwargs)

    def describe(self) -> dict[str, Any]:
        """Return the data key, with its unit."""
        described: dict[str, Any] = super().describe()
        if self._units:
            described[self.name]["units"] = self._units
        return described


class SoftRecord(Device):
    """A device made of `SoftSignal` only."""

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)

    def fill(self, **values: Any) -> None:
        """Set several fields; those left out keep their values.

        Raises
        ------
        ValueError
            Unknown field, or a value of the wrong kind. Nothing is set then.
        """
        unknown = sorted(set(values) - set(self.component_names))
        if unknown:
            raise ValueError(
                f"{self.name}: unknown field {', '.join(unknown)}; known: {', '.join(self.component_names)}"
            )
        converted = {}
        for field, value in values.items():
            try:
                kind = getattr(self, field)._type  # noqa: SLF001
                converted[field] = math.nan if value is None and kind is float else kind(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{self.name}: {field} = {value!r}: {error}") from error
        for field, value in converted.items():
            getattr(self, field).put(value)

    def reset(self) -> None:
        """Set all fields back to what they were at the start, so that nothing of an earlier record stays."""
        for field in self.component_names:
            signal = getattr(self, field)
            signal.put(signal.first)

    def values(self) -> dict[str, float | int | str]:
        """Return all fields by name."""
        return {field: getattr(self, field).get() for field in self.component_names}


_NAN = math.nan
ENDLESS = 10**9
"""Stands for a number of exposures without end."""


class PointRecord(SoftRecord):
    """What an exposure is and what it cost."""

    index = Cpt(SoftSignal, value=0)
    elapsed_s = Cpt(SoftSignal, value=_NAN, units="s")
    field = Cpt(SoftSignal, value="")
    spot = Cpt(SoftSignal, value=0)
    attempt = Cpt(SoftSignal, value=0)
    frame_type = Cpt(SoftSignal, value="")
    exposure_s = Cpt(SoftSignal, value=_NAN, units="s")
    target_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    target_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    sample_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    sample_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    open_time_s = Cpt(SoftSignal, value=_NAN, units="s")
    light_fraction = Cpt(SoftSignal, value=_NAN)
    flux_reserved_ph_s = Cpt(SoftSignal, value=_NAN, units="ph/s")
    flux_ph_s = Cpt(SoftSignal, value=_NAN, units="ph/s")
    dose_reserved_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    dose_delivered_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")


class AnalysisRecord(SoftRecord):
    """The verdict on one frame and what was learnt from it. `seq_num` and `stream` say which frame."""

    seq_num = Cpt(SoftSignal, value=0)
    stream = Cpt(SoftSignal, value="primary")
    field = Cpt(SoftSignal, value="")
    spot = Cpt(SoftSignal, value=0)
    verdict = Cpt(SoftSignal, value="")
    accepted = Cpt(SoftSignal, value=0)
    reason = Cpt(SoftSignal, value="")
    shift_y_px = Cpt(SoftSignal, value=_NAN, units="px")
    shift_x_px = Cpt(SoftSignal, value=_NAN, units="px")
    sigma_y_px = Cpt(SoftSignal, value=_NAN, units="px")
    sigma_x_px = Cpt(SoftSignal, value=_NAN, units="px")
    confidence = Cpt(SoftSignal, value=_NAN)
    keyframe_id = Cpt(SoftSignal, value=-1)
    blur_score = Cpt(SoftSignal, value=_NAN)
    blur_extent_px = Cpt(SoftSignal, value=_NAN, units="px")
    blur_extent_um = Cpt(SoftSignal, value=_NAN, units="um")
    blur_angle_deg = Cpt(SoftSignal, value=_NAN, units="deg")
    blur_kind = Cpt(SoftSignal, value="")
    sample_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    sample_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    drift_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    drift_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    drift_rate_y_um_min = Cpt(SoftSignal, value=_NAN, units="um/min")
    drift_rate_x_um_min = Cpt(SoftSignal, value=_NAN, units="um/min")
    jitter_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    jitter_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    jitter_rms_y_um = Cpt(SoftSignal, value=_NAN, units="um")
    jitter_rms_x_um = Cpt(SoftSignal, value=_NAN, units="um")
    dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    dose_fraction = Cpt(SoftSignal, value=_NAN)
    open_time_s = Cpt(SoftSignal, value=_NAN, units="s")
    elapsed_ms = Cpt(SoftSignal, value=_NAN, units="ms")


class DecisionRecord(SoftRecord):
    """One decision: what was done, why, from which inputs (a JSON object), against which threshold, by which code."""

    action = Cpt(SoftSignal, value="")
    reason = Cpt(SoftSignal, value="")
    seq_num = Cpt(SoftSignal, value=0)
    spot = Cpt(SoftSignal, value=0)
    inputs = Cpt(SoftSignal, value="{}")
    threshold = Cpt(SoftSignal, value=_NAN)
    code_version = Cpt(SoftSignal, value="")


class OperatorRecord(SoftRecord):
    """One command of an operator and what became of it, or a change of the run's state (``command`` is ``state`` then)."""

    command = Cpt(SoftSignal, value="")
    arguments = Cpt(SoftSignal, value="{}")
    who = Cpt(SoftSignal, value="")
    via = Cpt(SoftSignal, value="")
    ok = Cpt(SoftSignal, value=0)
    message = Cpt(SoftSignal, value="")
    state = Cpt(SoftSignal, value="")
    request_id = Cpt(SoftSignal, value="")
    received_s = Cpt(SoftSignal, value=_NAN, units="s")


class DoseRecord(SoftRecord):
    """What the dose account says where the beam is now: readable in any plan, kept up to date by the dose guard.

    ``exposures_left`` is how often the present exposure would still be granted, `ENDLESS` when no limit applies.
    """

    dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    rate_gy_s = Cpt(SoftSignal, value=_NAN, units="Gy/s")
    windowed_rate_gy_s = Cpt(SoftSignal, value=_NAN, units="Gy/s")
    limit_fraction = Cpt(SoftSignal, value=_NAN)
    exposures_left = Cpt(SoftSignal, value=ENDLESS)
    binding_limit = Cpt(SoftSignal, value="")
    degraded = Cpt(SoftSignal, value="")

    def __init__(self, prefix: str = "", *, name: str = "dose", **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.dose_gy.name = f"{self.name}_gy"  # not dose_dose_gy

    def fill(self, **values: Any) -> None:
        """Set several fields; see `SoftRecord.fill`. More exposures than `ENDLESS` are that many."""
        if "exposures_left" in values:
            values["exposures_left"] = min(int(values["exposures_left"]), ENDLESS)
        super().fill(**values)


class SpotRecord(SoftRecord):
    """What one spot of the sample has received in a run. ``doses`` is a JSON object: dose by target, Gy."""

    number = Cpt(SoftSignal, value=0)
    label = Cpt(SoftSignal, value="")
    x_um = Cpt(SoftSignal, value=_NAN, units="um")
    y_um = Cpt(SoftSignal, value=_NAN, units="um")
    exposures = Cpt(SoftSignal, value=0)
    open_time_s = Cpt(SoftSignal, value=_NAN, units="s")
    dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    doses = Cpt(SoftSignal, value="{}")
