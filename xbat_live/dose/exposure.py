"""What is asked of, and answered by, the dose account."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xbat_live.dose.beam import check_flux
from xbat_live.dose.cross_sections import MAX_ENERGY_EV, MIN_ENERGY_EV, check_energy
from xbat_live.dose.limits import DoseLimit, LimitKind

_NUMBERS = ("x_um", "y_um", "energy_ev", "open_time_s", "flux_ph_s")
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExposureRequest:
    """An exposure before it happens.

    Attributes
    ----------
    x_um, y_um
        SAMPLE coordinate under the beam's centre (stage position minus drift), um.
    energy_ev
        Photon energy, eV.
    open_time_s
        Time the shutter may be open (not the camera's exposure time), s.
    flux_ph_s
        Flux on the sample, photons/s.
    run_uid, label
        Kept with the record.
    on_sample
        False for an exposure beside the sample: recorded, neither deposited nor limited.
    spot
        Number of the spot of its run, or None; exposures of one run and spot are reported together.
    energies_ev
        Energies of a sweep during the opening, eV, equally long at each; their mean dose per photon counts, `energy_ev` is their mean.
        Empty: `energy_ev` all the time.

    Raises
    ------
    ValueError
        Not finite, negative, or an energy outside the tables.
    """

    x_um: float
    y_um: float
    energy_ev: float
    open_time_s: float
    flux_ph_s: float
    run_uid: str = ""
    label: str = ""
    on_sample: bool = True
    spot: int | None = None
    energies_ev: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.energies_ev:
            energies = np.asarray(self.energies_ev, dtype=np.float64)
            check_energy(energies)
            object.__setattr__(self, "energies_ev", tuple(energies.tolist()))
            object.__setattr__(self, "energy_ev", float(energies.mean()))
        for name in _NUMBERS:
            # SQLite would store a numpy.float32 as a blob, and -0.0 as 0
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        object.__setattr__(self, "on_sample", bool(self.on_sample))
        object.__setattr__(self, "spot", None if self.spot is None else int(self.spot))
        if not MIN_ENERGY_EV <= self.energy_ev <= MAX_ENERGY_EV:
            check_energy(self.energy_ev)  # it is for arrays, and slow
        check_flux(self.flux_ph_s)
        check_open_time(self.open_time_s)
        for axis, value in (("x", self.x_um), ("y", self.y_um)):
            if not abs(value) <= 1e6:
                raise ValueError(
                    f"sample coordinate {axis} = {value:g} um is outside -1e6 .. 1e6 um; positions are in um"
                )

    @property
    def photons(self) -> float:
        """Photons on the sample."""
        return self.flux_ph_s * self.open_time_s

    def with_delivery(self, open_time_s: float, flux_ph_s: float) -> ExposureRequest:
        """Return the same exposure with another shutter-open time, s, and flux, photons/s."""
        return replace(self, open_time_s=open_time_s, flux_ph_s=flux_ph_s)


def check_open_time(open_time_s: float) -> None:
    """Check a shutter-open time, s.

    Raises
    ------
    ValueError
        Negative or not finite.
    """
    if not 0 <= open_time_s < math.inf:
        raise ValueError(f"shutter-open time {open_time_s:g} s is not possible; expected 0 s or more")


@dataclass(frozen=True)
class PriorDose:
    """Dose that a sample got before, elsewhere: uniform over a rectangle in sample coordinates.

    Attributes
    ----------
    x_um, y_um, size_um
        Centre and size (x, y), um.
    dose_gy
        Dose, Gy.
    reason
        Where, when, how it is known.

    Raises
    ------
    ValueError
        No reason, or impossible numbers.
    """

    x_um: float
    y_um: float
    size_um: tuple[float, float]
    dose_gy: float
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("a dose given before is entered only with a reason: where, when, how it is known")
        for name in ("x_um", "y_um", "dose_gy"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "size_um", (float(self.size_um[0]), float(self.size_um[1])))
        if not 0 < self.dose_gy < math.inf:
            raise ValueError(f"a dose of {self.dose_gy:g} Gy given before is not possible; expected more than 0 Gy")
        inside = abs(self.x_um) <= 1e6 and abs(self.y_um) <= 1e6
        if not (inside and all(1e-3 <= size <= 1e6 for size in self.size_um)):
            raise ValueError(
                f"rectangle of {self.size_um} um at ({self.x_um:g}, {self.y_um:g}) um is not possible; sizes are in um"
            )


@dataclass(frozen=True)
class Reservation:
    """An exposure that was granted and is on disk.

    Attributes
    ----------
    id
        Record number in the ledger.
    request
        What was asked.
    peak_before_gy, peak_after_gy
        Largest dose of the sample inside the beam's reach now, and after the exposure if it takes all that was asked,
        Gy.
    limit_name, limit_gy
        The dose limit that will bind first; empty and NaN when there is none.
    warnings
        What to tell the user: a limit passed 50 or 80 %, an advisory limit exceeded.
    """

    id: int
    request: ExposureRequest
    peak_before_gy: float
    peak_after_gy: float
    limit_name: str
    limit_gy: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settlement:
    """What an exposure gave.

    Attributes
    ----------
    reservation_id
        The reservation it ended; for an unreserved exposure the number of its own record.
    open_time_s, flux_ph_s
        Shutter-open time, s, and flux on the sample, photons/s.
    delivered_gy
        Peak dose of this exposure on the sample, Gy.
    peak_total_gy
        Largest dose of the sample inside the beam's reach now, Gy.
    exceeds_reservation
        True when more was delivered than had been reserved.
    """

    reservation_id: int
    open_time_s: float
    flux_ph_s: float
    delivered_gy: float
    peak_total_gy: float
    exceeds_reservation: bool = False


@dataclass(frozen=True)
class FootprintDose:
    """Dose inside the beam's footprint at a position, on the sample.

    Attributes
    ----------
    mean_gy, percentile_gy, peak_gy
        Mean, 99.9th percentile and largest value, Gy.
    """

    mean_gy: float
    percentile_gy: float
    peak_gy: float


@dataclass(frozen=True)
class DoseMap:
    """Dose on the sample.

    Attributes
    ----------
    dose_gy
        (ny, nx) float64, Gy.
    x_um, y_um
        Sample coordinates of the pixel centres, (nx,) and (ny,), um.
    """

    dose_gy: FloatArray
    x_um: FloatArray
    y_um: FloatArray


class DoseRefused(Exception):  # noqa: N818
    """An exposure would exceed a limit; nothing was reserved and the shutter must not open.

    Attributes
    ----------
    limit
        The binding limit.
    would_be_gy, limit_gy
        What it would come to, with the uncertainty kept free, and the limit; in `unit`.
    unit
        ``Gy``, or ``Gy/s`` for a rate limit.
    kind
        ``dose``, ``rate`` or ``windowed rate``. After a refusal for the last one alone, waiting helps; see
        `DoseAccount.time_until_allowed_s`.
    x_um, y_um
        Sample coordinate of the exposure, um.
    flux_ph_s
        Flux that was to be reserved, photons/s.
    """

    def __init__(
        self, limit: DoseLimit, would_be_gy: float, x_um: float, y_um: float, message: str, *, flux_ph_s: float
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.would_be_gy = would_be_gy
        self.limit_gy = limit.value
        self.unit = limit.unit
        self.kind: LimitKind = limit.kind
        self.x_um = x_um
        self.y_um = y_um
        self.flux_ph_s = flux_ph_s
