"""Kill a run at random moments, many times, and compare the ledger with what the simulated sample really got.

``make torture`` does it 300 times; the tests do it a few times. After every kill (SIGKILL to the whole process group of ``xbat
run``; every third time to its guard process as well):

- the dose in the ledger is not below the twin's, within the model's tolerance;
- it is above it by no more than one reservation per kill;
- the sample is nowhere above its limit, and the shutter closes.

The sample drifts at the pace of the laboratory; ``--time-scale 600`` lets it drift by tens of micrometres between the first run and
the last, most of it between the runs.

The twin computes its dose from photons and times inside the IOC process and knows nothing of the ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from faults_support import Experiment, experiment, wait_until

from xbat_live.config import load_config
from xbat_live.dose import DoseAccount, Ledger, LedgerError
from xbat_live.dose_setup import make_account
from xbat_live.sim.environment import channel_access_environment

TOLERANCE = 0.03  # dose model on a 1 um map against the twin's own, with the stage's repositioning jitter
SAMPLE_UM = 500
LIMIT_GY = 2e6
LATEST_KILL_S = 3.0
KILLS_PER_SPOT = 25
SAMPLE_SECTION = f'size = ["{SAMPLE_UM} um", "{SAMPLE_UM} um"]'


@dataclass(frozen=True)
class Doses:
    """Sum over the sample, Gy um2, and peak, Gy."""

    total_gy_um2: float
    peak_gy: float


@dataclass
class Tally:
    """What the kills came to; doses relative to the twin's total at the end."""

    kills: int = 0
    kills_with_open_shutter: int = 0
    guards_killed: int = 0
    exposures: int = 0
    left_reservations: int = 0
    ledger_over_twin: float = 0.0
    least_ledger_over_twin: float = 1e9
    most_surplus_reservations_per_kill: float = 0.0
    peak_over_limit: float = 0.0
    slowest_closing_s: float = 0.0


class Torture:
    """One sample on one simulated beamline, and its tormentor."""

    def __init__(self, bench: Experiment, seed: int) -> None:
        self.bench, self.random, self.tally = bench, random.Random(seed), Tally()
        os.environ.update(channel_access_environment(bench.simulator.port))
        import epics

        names = ("SH:Status", "SH:OpenCount_RBV", "TRUTH:Flush")
        self.status, self.openings, self.flush = (epics.PV(bench.simulator.prefix + name) for name in names)
        assert all(pv.wait_for_connection(10) for pv in (self.status, self.openings, self.flush))
        bench.write(exposure="150 ms", limit=f"{LIMIT_GY} Gy", n_points=500, lead_time="60 ms")
        text = bench.file.read_text().replace('name = "fault-cell"', f'name = "fault-cell"\n{SAMPLE_SECTION}')
        self.text = text.replace(
            "[plan]", f'[plan]\nreference = ["-{SAMPLE_UM} um", "0 um"]\ncorrect_drift = false\nmax_retakes = 0'
        )
        # a loaded machine may need long to connect: what is tortured is not that
        self.text = self.text.replace("[beamline.", '[beamline]\nconnection_timeout = "30 s"\n[beamline.', 1)
        self.go_to_next_spot()
        self.config = load_config(bench.file)

    def go_to_next_spot(self) -> None:
        """Start the next runs elsewhere every `KILLS_PER_SPOT` kills, when the last spot is near its limit.

        A run that finds its spot used up goes to a fresh one, and leaves it used: with one spot for all, the sample would be used up.
        """
        row, column = divmod(self.tally.kills // KILLS_PER_SPOT, 4)
        x_um, y_um = -200 + 110 * column, -200 + 80 * (row % 6)
        self.bench.file.write_text(self.text.replace("[plan]", f'[plan]\nspot = ["{x_um} um", "{y_um} um"]'))

    def once(self) -> None:
        """Start a run, kill it at a random moment after its first reservation, and compare."""
        self.go_to_next_spot()
        process = self.bench.start("--override-dose", "torture")
        try:
            begun = self._records() + 1
            wait_until(lambda: self._ended(process) or self._records() > begun, 60)
            time.sleep(self.random.uniform(0, LATEST_KILL_S))
            open_then = self.status.get(as_string=True) != "Closed"
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        self.tally.kills += 1
        self.tally.kills_with_open_shutter += open_then
        if self.tally.kills % 3 == 0:
            self.tally.guards_killed += kill_guards(self.bench.folder)
        self._wait_closed()
        self.compare()

    def compare(self) -> None:
        """Compare ledger and twin.

        Raises
        ------
        AssertionError
            A promise is broken; the message says by how much.
        """
        with Ledger.for_sample(
            self.config.path(self.config.dose.ledger_directory), self.config.sample.name, read_only=True
        ) as ledger:
            account = make_account(self.config, ledger)
            ours, left = doses_of(account), account.unsettled
            one = max(self._one_reservation_gy_um2(account), 1.0)
        self.flush.put(1, wait=True, timeout=30)
        with np.load(self.bench.folder / "twin" / "truth_dose.npz") as truth:
            pixel_um = float(truth["x_um"][1] - truth["x_um"][0])
            twin = Doses(float(truth["dose_gy"].sum()) * pixel_um**2, float(truth["dose_gy"].max()))
        tally = self.tally
        ratio = ours.total_gy_um2 / max(twin.total_gy_um2, 1.0)
        surplus = (ours.total_gy_um2 - twin.total_gy_um2) / one
        tally.ledger_over_twin, tally.left_reservations = ratio, len(left)
        tally.least_ledger_over_twin = min(tally.least_ledger_over_twin, ratio)
        tally.most_surplus_reservations_per_kill = max(tally.most_surplus_reservations_per_kill, surplus / tally.kills)
        tally.peak_over_limit = max(tally.peak_over_limit, twin.peak_gy / LIMIT_GY)
        tally.exposures = int(self.openings.get())
        assert ratio >= 1 - TOLERANCE, f"kill {tally.kills}: the ledger holds {ratio:.4f} of the dose that was given"
        assert surplus <= tally.kills + TOLERANCE * twin.total_gy_um2 / one, (
            f"kill {tally.kills}: {surplus:.2f} reservations too much"
        )
        assert twin.peak_gy <= LIMIT_GY, (
            f"kill {tally.kills}: the sample got {twin.peak_gy:.4g} Gy, its limit is {LIMIT_GY:.4g} Gy"
        )

    def _one_reservation_gy_um2(self, account: DoseAccount) -> float:
        beam, exposure_s = self.config.beam, self.config.camera.exposure_s + self.config.dose.open_time_margin_s
        stack = account.stack
        per_photon_gy_cm2 = stack.dose_per_fluence(beam.energy_ev, account.layer, account.material, account.model)
        return beam.flux_ph_s * exposure_s * float(per_photon_gy_cm2) * 1e8

    def _records(self) -> int:
        try:
            return self.bench.counts().get("reserve", 0)
        except LedgerError:
            return 0

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> bool:
        assert process.poll() is None, f"the run ended by itself: {process.communicate()}"
        return False

    def _wait_closed(self) -> None:
        start_s = time.monotonic()
        wait_until(lambda: self.status.get(as_string=True) == "Closed", 20)
        self.tally.slowest_closing_s = max(self.tally.slowest_closing_s, time.monotonic() - start_s)


def doses_of(account: DoseAccount) -> Doses:
    """Return sum and peak of an account's map."""
    dose = account.dose_map()
    pixel_um = float(dose.x_um[1] - dose.x_um[0])
    on_sample = (np.abs(dose.y_um) <= SAMPLE_UM / 2)[:, None] & (np.abs(dose.x_um) <= SAMPLE_UM / 2)[None, :]
    values = dose.dose_gy[on_sample]
    return Doses(float(values.sum()) * pixel_um**2, float(values.max()))


def kill_guards(folder: Path) -> int:
    """Kill the guard processes that watch the experiment in `folder`; return how many there were."""
    killed = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "xbat_live.watchdog" in arguments and any(argument.startswith(str(folder)) for argument in arguments):
            os.kill(int(entry.name), signal.SIGKILL)
            killed += 1
    return killed


def torture(folder: Path, *, kills: int, seed: int, time_scale: float = 1.0, show: bool = False) -> Tally:
    """Kill `kills` runs; see the module."""
    size_um = (float(SAMPLE_UM), float(SAMPLE_UM))
    with experiment(folder, sample_size_um=size_um, seed=seed, time_scale=time_scale) as bench:
        tormentor = Torture(bench, seed)
        for number in range(kills):
            tormentor.once()
            if show and (number + 1) % 10 == 0:
                sys.stderr.write(f"{number + 1:4d} of {kills} kills  {json.dumps(asdict(tormentor.tally))}\n")
        kill_guards(bench.folder)
    return tormentor.tally


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time-scale", type=float, default=1.0, help="drift this much faster than life")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="xbat-torture-"))
    try:
        tally = torture(folder, kills=options.kills, seed=options.seed, time_scale=options.time_scale, show=True)
    except BaseException:
        sys.stderr.write(f"ledger, frames and the twin's truth are kept in {folder}\n")
        raise
    shutil.rmtree(folder)
    sys.stdout.write(json.dumps(asdict(tally), indent=1) + "\n")


if __name__ == "__main__":
    main()
