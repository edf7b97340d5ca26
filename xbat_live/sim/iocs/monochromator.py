"""The monochromator: motor records Energy (eV) and Bragg (deg) on one mechanism, coupled both ways."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .motion import Axis
from .motor import MotorRecord, MotorSettings
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

SI111_SPACING_ANGSTROM = 3.1356
HC_EV_ANGSTROM = 12398.419843  # CODATA 2018
ENERGY_LIMITS_EV = (7000.0, 12000.0)
ENCODER = "MonoBragg"
_TRAVEL_EV = (6900.0, 12200.0)
_SWEEP_DEG_S = 2.0


def bragg_deg(energy_ev: float) -> float:
    """Bragg angle of Si(111), first order.

    Parameters
    ----------
    energy_ev : float
        Photon energy, eV.

    Returns
    -------
    float
        Angle, deg: asin(hc / (2 d E)).
    """
    return math.degrees(math.asin(HC_EV_ANGSTROM / (2 * SI111_SPACING_ANGSTROM * energy_ev)))


def energy_ev(angle_deg: float) -> float:
    """Photon energy that Si(111) reflects in first order.

    Parameters
    ----------
    angle_deg : float
        Bragg angle, deg, between 0 and 90.

    Returns
    -------
    float
        Energy, eV.
    """
    return HC_EV_ANGSTROM / (2 * SI111_SPACING_ANGSTROM * math.sin(math.radians(angle_deg)))


class Monochromator:
    """The mechanism with its two records.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``XBAT:MONO:``.
    twin : Twin
        Gets `set_energy` at every readback.
    worker : TwinWorker
        Runs those calls.
    start_ev : float
        Energy at the start, eV.
    sweeping : bool
        A channel-cut crystal on a goniometer: the angle is the axis, whose speed is set; the energy follows. Otherwise the energy is.
    """

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, start_ev: float, sweeping: bool = False) -> None:
        self._sweeping = sweeping
        speed = twin.settings.playback_speed
        low_deg, high_deg = bragg_deg(ENERGY_LIMITS_EV[1]), bragg_deg(ENERGY_LIMITS_EV[0])
        if sweeping:
            travel = (bragg_deg(_TRAVEL_EV[1]), bragg_deg(_TRAVEL_EV[0]))
            self.axis = Axis(position=bragg_deg(start_ev), velocity=_SWEEP_DEG_S, acceleration_s=0.02, travel=travel)
        else:
            self.axis = Axis(position=start_ev, velocity=200.0 * speed, acceleration_s=0.02 / speed, travel=_TRAVEL_EV)
        of_energy, of_angle = (energy_ev, bragg_deg), (bragg_deg, energy_ev)
        energy: dict[str, Any] = dict(zip(("from_axis", "to_axis"), of_energy, strict=True)) if sweeping else {}
        bragg: dict[str, Any] = {} if sweeping else dict(zip(("from_axis", "to_axis"), of_angle, strict=True))
        self.records = [
            MotorRecord(
                prefix + "Energy",
                axis=self.axis,
                settings=MotorSettings("eV", 3, ENERGY_LIMITS_EV, "photon energy", 1.0),
                **energy,
            ),
            MotorRecord(
                prefix + "Bragg",
                axis=self.axis,
                settings=MotorSettings("deg", 6, (low_deg, high_deg), "Bragg angle, Si(111)", 0.001),
                **bragg,
            ),
        ]
        twin.follow_energy(self.energy_at)

        async def moved(position: float, moving: bool) -> None:
            worker.post(twin.set_energy, energy_ev(position) if sweeping else position)
            if not moving:
                worker.prepare(twin.prepare)

        self.axis.listen(moved)

    def energy_at(self, time_s: float) -> float:
        """Photon energy, eV, at `time_s` of `time.monotonic`."""
        position = self.axis.position_at(time_s)
        return energy_ev(position) if self._sweeping else position

    def attributes_at(self, time_s: float) -> dict[str, float]:
        """Return what a detector's IOC keeps with a frame exposed around `time_s`: the encoder of the Bragg angle, deg."""
        position = self.axis.position_at(time_s)
        return {ENCODER: position if self._sweeping else bragg_deg(position)}
