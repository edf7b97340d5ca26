"""What an account says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from xbat_live.dose.exposure import FloatArray, FootprintDose
from xbat_live.dose.limits import DoseLimit


@dataclass(frozen=True)
class LimitState:
    """How near an exposure comes to a limit.

    Attributes
    ----------
    limit
        The limit.
    now, would_be
        Largest value on the sample inside the beam's reach, now and after the exposure, in the unit of the limit, with
        the uncertainty that is kept free. `now` of an instantaneous rate is 0.
    fraction
        `would_be` as a fraction of the limit; above 1 the exposure is refused (an advisory limit warns).
    """

    limit: DoseLimit
    now: float
    would_be: float
    fraction: float


@dataclass(frozen=True)
class AccountStatus:
    """State of an account at a place, or of the whole sample.

    Attributes
    ----------
    dose_gy
        Largest dose of the primary target, Gy, reservations included.
    rate_gy_s
        Largest instantaneous rate, Gy/s: of the exposure asked for; without one the largest there ever was.
    windowed_rate_gy_s
        Largest mean rate, Gy/s, in the window of the tightest windowed limit on the primary target, or of 60 s.
    limit_fraction
        The largest fraction of any limit that refuses, reached now; 0 without limits.
    binding_limit
        Name of the limit that binds first; empty without limits.
    exposures_left
        How many such exposures may follow (without a request: such as the last one on the sample), `UNLIMITED` when
        nothing limits them.
    degraded
        Why the flux of the last exposure is not as good as it should be; empty when it is.
    percentile_gy
        99.9th percentile of the primary target's dose, Gy.
    """

    dose_gy: float
    rate_gy_s: float
    windowed_rate_gy_s: float
    limit_fraction: float
    binding_limit: str
    exposures_left: int
    degraded: str
    percentile_gy: float = 0.0


@dataclass(frozen=True)
class SpotDose:
    """What one spot was given.

    Attributes
    ----------
    x_um, y_um
        Centre, sample coordinate, um: mean over its exposures, weighted by photons.
    exposures
        Number of exposures that were settled or found unreserved.
    open_time_s, photons
        Sums over them: s, photons.
    dose_gy
        Largest dose of the primary target in the footprint there, Gy, whoever gave it.
    doses
        Mean, 99.9th percentile and peak in the footprint, per target in the order of `DoseAccount.targets`.
    run_uid, spot, label
        Run, number of the spot in it (None: not told), and label of its exposures.
    """

    x_um: float
    y_um: float
    exposures: int
    open_time_s: float
    photons: float
    dose_gy: float
    doses: tuple[FootprintDose, ...]
    run_uid: str
    spot: int | None
    label: str

    def as_dict(self) -> dict[str, object]:
        """Return the spot as plain data (JSON)."""
        return {**vars(self), "doses": [vars(dose) for dose in self.doses]}


@dataclass(frozen=True)
class RateMap:
    """Dose rate on the sample.

    Attributes
    ----------
    rate_gy_s
        (ny, nx) float64, Gy/s.
    x_um, y_um
        Sample coordinates of the pixel centres, (nx,) and (ny,), um.
    """

    rate_gy_s: FloatArray
    x_um: FloatArray
    y_um: FloatArray


@dataclass(frozen=True)
class OpenTimeMap:
    """Time the beam was on each place of the sample.

    Attributes
    ----------
    open_time_s
        (ny, nx) float64, s; a pixel counts while it has more than 1e-3 of the beam's peak intensity.
    x_um, y_um
        Sample coordinates of the pixel centres, (nx,) and (ny,), um.
    """

    open_time_s: FloatArray
    x_um: FloatArray
    y_um: FloatArray
