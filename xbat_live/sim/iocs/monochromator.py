"""The monochromator: motor records Energy (eV) and Bragg (deg) on one mechanism, coupled both ways."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .motion import Axis
from .motor import MotorRecord, MotorSettings
from .worker import TwinWorker

if TYPE_CHECKING:
    from ..twin import Twin

SI111_SPACING_ANGSTROM = 3.1356
HC_EV_ANGSTROM = 12398.419843  # CODATA 2018
ENERGY_LIMITS_EV = (7000.0, 12000.0)
_TRAVEL_EV = (6900.0, 12200.0)


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
    """Energy axis with its two records.

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
    """

    def __init__(self, prefix: str, *, twin: Twin, worker: TwinWorker, start_ev: float) -> None:
        self.axis = Axis(position=start_ev, velocity=200.0, acceleration_s=0.02, travel=_TRAVEL_EV)
        low_deg, high_deg = bragg_deg(ENERGY_LIMITS_EV[1]), bragg_deg(ENERGY_LIMITS_EV[0])
        self.records = [
            MotorRecord(
                prefix + "Energy",
                axis=self.axis,
                settings=MotorSettings("eV", 3, ENERGY_LIMITS_EV, "photon energy", 1.0),
            ),
            MotorRecord(
                prefix + "Bragg",
                axis=self.axis,
                settings=MotorSettings("deg", 6, (low_deg, high_deg), "Bragg angle, Si(111)", 0.001),
                from_axis=bragg_deg,
                to_axis=energy_ev,
            ),
        ]

        async def moved(position: float, moving: bool) -> None:
            worker.post(twin.set_energy, position)
            if not moving:
                worker.prepare(twin.prepare)

        self.axis.listen(moved)
