"""What tests of the dose account share: a cell, a beam, an account whose clocks can be turned."""

from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from xbat_live.dose import Beam, DoseAccount, DoseLimit, DoseTarget, ExposureRequest, Ledger, presets

STACK = presets.cell("txm_nmc622")
BEAM = Beam.gaussian(1e10, fwhm_um=(30, 30), order=8)
PRIMARY = DoseTarget("cathode", "NMC622")
FRAME_GY = 1e10 * 0.048 * BEAM.profile.peak_per_cm2 * STACK.dose_per_fluence(8562.0, "cathode", "NMC622")


@dataclass
class Clocks:
    """Time of a machine: a wall clock that can be set, a monotonic clock that restarts with the machine."""

    wall_s: float = 1.7e9
    up_s: float = 5000.0
    boot: int = 1

    @property
    def ledger(self):
        return {"wall": lambda: self.wall_s, "monotonic": lambda: self.up_s, "boot_id": f"boot {self.boot}"}

    def run(self, seconds):
        self.wall_s += seconds
        self.up_s += seconds

    def reboot(self, *, off_s):
        """Be off for some time, and up again for 20 s."""
        self.up_s, self.boot = 20.0, self.boot + 1
        self.wall_s += off_s + self.up_s


@contextmanager
def account(folder, limits=(), *, read_only=False, clocks=None, **options):
    settings = {"stack": STACK, "beam": BEAM, "limits": limits, "layer": "cathode", "material": "NMC622"}
    with Ledger(folder / "cell.sqlite", read_only=read_only, **({} if clocks is None else clocks.ledger)) as ledger:
        yield DoseAccount(ledger, **(settings | options))


def frame(x_um=0.0, y_um=0.0, **changes):
    base = {"x_um": x_um, "y_um": y_um, "energy_ev": 8562.0, "open_time_s": 0.048, "flux_ph_s": 1e10}
    return ExposureRequest(**(base | changes))


def expose(dose, request, **options):
    reservation = dose.reserve(request)
    return dose.settle(reservation.id, open_time_s=request.open_time_s, flux_ph_s=request.flux_ph_s, **options)


def limit(gy=1e6, name="limit", **options):
    return DoseLimit(name, options.pop("material", "NMC622"), limit_gy=gy, **options)


def rate(gy_s, window_s=None, name="rate", **options):
    return DoseLimit(name, options.pop("material", "NMC622"), rate_gy_s=gy_s, window_s=window_s, **options)


@pytest.fixture(scope="session")
def cell():
    """Return the helpers of this file."""
    return SimpleNamespace(
        stack=STACK,
        beam=BEAM,
        primary=PRIMARY,
        frame_gy=FRAME_GY,
        account=account,
        frame=frame,
        expose=expose,
        limit=limit,
        rate=rate,
        Clocks=Clocks,
    )
