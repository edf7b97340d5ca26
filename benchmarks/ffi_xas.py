"""Full-field XAS at the paper's settings against the IOCs: 580 frames of 2048 x 748 px at 53 per second, archive and live page on.

``python benchmarks/ffi_xas.py [--time-scale 200] [--focus far] [--folder DIR]``. Takes some minutes and some 1.8 GB of disk for each cube,
which are deleted at the end. The simulated cell charges, and dose delays its reaction, `--time-scale` times faster than life; frames and
sweeps keep the paper's pace. Printed: frames taken and lost, frame rate, dead time between cubes, how long after a cube its maps were
there, ledger against the dose that the simulated sample got, and when the dose threshold of the simulated cell was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xbat_live.archive import TiledServer, connect, open_run
from xbat_live.cli.services import free_tcp_port
from xbat_live.sim.environment import free_port
from xbat_live.sim.rock import rock_settings
from xbat_live.sim.server import SimulatorProcess

FRAMES, SWEEP_S, THRESHOLD_GY = 580, 10.94, 35e6
EXPERIMENT = """
[sample]
name = "lno"
cell = "lno_rock"
layer = "cathode"
material = "LiNiO2"
size = ["6000 um", "6000 um"]
[beam]
flux = "1.041e12 ph/s"
i0_reference = "100 nA"
ring_reference = "500 mA"
energy = "8400 eV"
size = ["{width} um", "{height} um"]
order = 2
[camera]
pixel_size = "1.625 um"
exposure = "18 ms"
[dose]
limit = "1 GGy"
policy = "halt"
grid = "26 um"
[plan]
name = "operando_ffi_xas"
spot = ["0 um", "0 um"]
reference = ["0 mm", "4.5 mm"]
fresh = ["A"]
n_ocv = 1
n_fresh = 1
n_darks = 2
charge_rate = "C/4"
charge_to = "4.3 V"
charge_timeout = "{charge_s} s"
hold = "0 s"
[xas]
start = "8266 eV"
stop = "8878 eV"
n_frames = 580
sweep = "10.94 s"
n_i0 = 1
n_foil = 1
repeat_references = false
foil = ["0 mm", "-5 mm"]
fresh = {{ A = ["0 mm", "1.9 mm"] }}
[beamline.channel_access]
port = {port}
[archive]
uri = "{uri}"
api_key = "{key}"
[live]
port = {page}
"""


def main() -> None:
    """Run the protocol and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-scale", type=float, default=200.0)
    parser.add_argument("--focus", choices=("far", "near"), default="far")
    parser.add_argument("--folder", type=Path, default=None, help="where the frames go; default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.focus, options.time_scale)


def measure(folder: Path, focus: str, time_scale: float) -> None:
    """Run the protocol in a folder of its own."""
    (folder / "frames").mkdir()
    port, settings = free_port(), rock_settings(focus, time_scale=time_scale)
    width, height = settings.beam_fwhm_um
    with (
        SimulatorProcess(settings, "XBAT:", port, folder / "twin") as simulator,
        TiledServer(folder / "archive", port=free_tcp_port(), readable_storage=[folder / "frames"]) as server,
    ):
        experiment = EXPERIMENT.format(
            width=width,
            height=height,
            charge_s=4 * 3600 / time_scale,
            port=port,
            uri=server.uri,
            key=server.api_key,
            page=free_tcp_port(),
        )
        (folder / "e.toml").write_text(experiment)
        begin_s, load = time.monotonic(), os.getloadavg()[0]
        command = [sys.executable, "-m", "xbat_live.cli.main", "run", str(folder / "e.toml"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run failed ({done.returncode}):\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        print(f"run of {time.monotonic() - begin_s:.0f} s, load before it {load:.1f}: {result['outcome']}")
        simulator.terminate()  # writes the truth
        client = connect(server.uri, server.api_key)
        report(open_run(client, "last"), folder, time_scale)
        client.context.close()


def report(run: Any, folder: Path, time_scale: float) -> None:
    """Print what is in the archive and in the files."""
    ends, wanted, taken = [], 0, 0
    for stream in ("i0", "foil", "primary"):
        events = run.events(stream)
        wanted += FRAMES * len(events)
        ends += [float(value) for value in events["time"]] if stream == "primary" else []
    gaps, rates, spread = [], [], []
    for file in (folder / "frames").glob("*.h5"):
        if "xas" in file.name:
            continue
        with h5py.File(file) as opened:
            attributes = opened["/entry/instrument/NDAttributes"]
            taken += sum(len(opened[f"/entry/data/{name}"]) for name in ("data", "flat"))
            unique = np.asarray(attributes["NDArrayUniqueId"])
            stamps = np.asarray(attributes["NDArrayTimeStamp"])
            assert (np.diff(unique) == 1).all()
        if len(stamps) < FRAMES:  # darks
            continue
        steps = np.diff(stamps)
        within = np.arange(1, len(stamps)) % FRAMES != 0
        rates.append(1 / float(np.median(steps[within])))
        spread += (1e3 * steps[within]).tolist()
        gaps += steps[(steps > 1.5 * SWEEP_S / FRAMES) & within].tolist()
    print(
        f"frames: {taken} in the file for {wanted} in Events, {len(gaps)} gaps within a cube, {np.mean(rates):.2f} a second"
    )
    print(
        "from frame to frame: "
        + ", ".join(f"{q} % {np.percentile(spread, q):.2f}" for q in (1, 25, 50, 75, 99))
        + " ms"
    )
    steps = np.diff(ends)
    print(f"cubes: {len(ends)} of the sample, one every {np.median(steps):.2f} s, of which {SWEEP_S:g} s are the sweep")
    xas = run.events("xas")
    took = np.asarray(xas["xas_elapsed_s"], float)
    late = [float(a) - max(e for e in ends if e <= a) for a in xas["time"]]
    print(
        f"maps: {np.median(took):.2f} s after a cube (most {took.max():.2f} s); in the run after {np.median(late):.2f} s"
    )
    found = np.asarray(xas["xas_threshold_gy"], float) * time_scale
    first = np.flatnonzero(np.isfinite(found))
    when = f"first in cube {first[0] + 1} of {len(found)}" if first.size else "NOT FOUND"
    values = " ".join("-" if np.isnan(value) else f"{value / 1e6:.1f}" for value in found)
    print(f"threshold of {THRESHOLD_GY / 1e6:g} MGy, {when}: {values} MGy")
    with np.load(folder / "twin" / "truth_dose.npz") as truth:
        got_gy = float(truth["dose_gy"].max())
    (maps,) = (folder / "frames").glob("xas-*.h5")
    with h5py.File(maps, "r", libver="latest", swmr=True) as opened:
        mapped_gy = max(float(np.nanquantile(one, 0.999)) for one in opened["dose_gy"])
    print(f"dose: highest of the maps {mapped_gy / got_gy:.4f} of it")
    print(
        f"dose: ledger {float(run.dose_map().max()) / got_gy:.4f} of what the simulated sample got ({got_gy / 1e3:.0f} kGy)"
    )


if __name__ == "__main__":
    main()
