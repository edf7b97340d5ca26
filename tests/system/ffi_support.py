"""A protocol of energy sweeps on a small simulated electrode: what the tests of `operando_ffi_xas` share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path


def start(folder, *changes):
    arguments = [item for change in changes for item in ("--set", change)]
    return subprocess.Popen(
        [sys.executable, "-m", "xbat_live.cli.main", "run", str(folder / "e.toml"), "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "", "XBAT_RUNTIME_DIR": str(folder / "rt")},
    )


def state_of(folder):
    file = folder / "ledger" / "lno.protocol.json"
    return json.loads(file.read_text()) if file.exists() else {}


@contextmanager
def simulated_electrode(folder):
    """Simulated beamline and Tiled for the experiment in `folder`; yields both, and the options of `start`."""
    from archive_fixtures import free_port as free_tcp_port

    from xbat_live.archive import TiledServer
    from xbat_live.sim.environment import free_port
    from xbat_live.sim.rock import rock_settings
    from xbat_live.sim.server import SimulatorProcess

    shutil.copy(Path(__file__).with_name("ffi_xas.toml"), folder / "e.toml")
    (folder / "frames").mkdir()
    port = free_port()
    settings = rock_settings(
        "far",
        sensor_yx=(64, 96),
        pixel_size_um=10.0,
        sample_size_um=(1200.0, 800.0),
        beam_fwhm_um=(400.0, 200.0),
        counts_per_photon=0.01,
        dose_grid_um=10.0,
        jitter_um_yx=(0.0, 0.0),
        beam_drift_um=0.0,
        foil_centre_um=(0.0, -1400.0),
        foil_size_um=(2000.0, 900.0),
        time_scale=1000.0,
    )
    with (
        SimulatorProcess(settings, "XBAT:", port, folder / "twin") as simulator,
        TiledServer(folder / "archive", port=free_tcp_port(), readable_storage=[folder / "frames"]) as server,
    ):
        options = (f"beamline.channel_access.port={port}", f"archive.uri={server.uri}")
        yield simulator, server, (*options, f"archive.api_key={server.api_key}")


def dose_of(folder):
    """Highest dose around the irradiated spot: in the ledger, and what the simulated sample got, Gy."""
    import numpy as np

    from xbat_live.config import load_config
    from xbat_live.dose_setup import open_account

    with open_account(load_config(folder / "e.toml")) as account:
        counted = account.dose_map()
        assert not account.unsettled
    with np.load(folder / "twin" / "truth_dose.npz") as truth:
        got_gy = truth["dose_gy"][:, np.abs(truth["x_um"]) < 300]
    return counted.dose_gy[:, np.abs(counted.x_um) < 300].max(), got_gy.max()
