"""What is known of a cube of full-field XAS, and of what the live analysis found in it: soft records for the streams, and plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ophyd import Component as Cpt

from xbat_live.devices.soft import SoftRecord, SoftSignal

_NAN = math.nan


@dataclass(frozen=True)
class CubeStart:
    """A cube that is being taken.

    Attributes
    ----------
    number
        Counts all cubes of a protocol, over all its runs, from 0.
    kind
        ``i0``, ``foil`` or ``sample``.
    place
        Label of the place on the sample; empty for `i0` and `foil`.
    file, dataset, first, first_captured, n_frames
        Where its frames will lie; see `xbat_live.devices.FrameRows`.
    exposure_s
        Of a frame, s.
    """

    number: int
    kind: str
    place: str
    file: Path
    dataset: str
    first: int
    first_captured: int
    n_frames: int
    exposure_s: float


@dataclass(frozen=True)
class CubeEnd:
    """What was delivered in a cube.

    Attributes
    ----------
    open_time_s
        Time the shutter was open, s.
    place_time_s
        Time that this place has been in the beam by now, s.
    flux_ph_s
        Flux in front of the cell, photons/s.
    """

    open_time_s: float
    place_time_s: float
    flux_ph_s: float


class CubeRecord(SoftRecord):
    """Which cube an Event is."""

    number = Cpt(SoftSignal, value=0)
    target = Cpt(SoftSignal, value="")
    phase = Cpt(SoftSignal, value="")
    place = Cpt(SoftSignal, value="")
    index = Cpt(SoftSignal, value=0)
    reverse = Cpt(SoftSignal, value=0)
    place_time_s = Cpt(SoftSignal, value=_NAN, units="s")


class XasRecord(SoftRecord):
    """What was found in one cube of the sample. `number` says in which."""

    number = Cpt(SoftSignal, value=0)
    place = Cpt(SoftSignal, value="")
    phase = Cpt(SoftSignal, value="")
    frames = Cpt(SoftSignal, value=0)
    masked = Cpt(SoftSignal, value=0)
    components = Cpt(SoftSignal, value=0)
    place_time_s = Cpt(SoftSignal, value=_NAN, units="s")
    low_rate_gy_s = Cpt(SoftSignal, value=_NAN, units="Gy/s")
    high_rate_gy_s = Cpt(SoftSignal, value=_NAN, units="Gy/s")
    low_dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    high_dose_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    low_progress = Cpt(SoftSignal, value=_NAN)
    high_progress = Cpt(SoftSignal, value=_NAN)
    low_edge_ev = Cpt(SoftSignal, value=_NAN, units="eV")
    high_edge_ev = Cpt(SoftSignal, value=_NAN, units="eV")
    low_fractions = Cpt(SoftSignal, value="[]")
    high_fractions = Cpt(SoftSignal, value="[]")
    r_factor = Cpt(SoftSignal, value=_NAN)
    threshold_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    threshold_low_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    threshold_high_gy = Cpt(SoftSignal, value=_NAN, units="Gy")
    alarm = Cpt(SoftSignal, value="")
    elapsed_s = Cpt(SoftSignal, value=_NAN, units="s")
