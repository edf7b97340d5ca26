"""Faults in a run on real parts: what fails, how it is told, that nothing hangs, and that the shutter is closed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess

import numpy as np
import pytest
from faults_support import experiment, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

HANG_S = 15.0  # the bound of issue 2: a run on a dead IOC has failed by then


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """One simulator for the tests that do not harm it."""
    with experiment(tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@pytest.fixture
def own(tmp_path):
    """A simulator of its own, for the tests that end it."""
    with experiment(tmp_path) as own:
        yield own


def closed(bench) -> bool:
    return bench.pv("SH:Status") == "Closed"


# --- before the beam opens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            '[plan]\nspot = ["9000 um", "0 um"]',
            ["plan.spot", "9000 µm", "-5000 to 5000 µm"],
        ),  # outside the stage's limits
        ('[plan]\nspot = ["95 um", "0 um"]', ["off the sample", "200 x 200 µm"]),  # second field beside the electrode
        ('[plan]\nreference = ["-100 um", "0 um"]', ["plan.reference", "still meets the sample"]),
        ('[plan]\nname = "xanes_series"\nenergies = ["20 keV"]', ["plan.energies", "20000 eV", "12000 eV"]),
    ],
)
def test_positions_and_energies_out_of_range(bench, more, told):
    text = bench.write(n_points=1).read_text()
    head, _, _ = text.partition("[plan]")
    bench.file.write_text(
        head + more + f"\n[beamline.channel_access]\nport = {bench.simulator.port}\n[archive]\nenabled = false\n"
    )
    done = bench.run()
    assert done.returncode == 2, done.stderr
    for part in told:
        assert part in done.stderr
    assert closed(bench)


def test_a_limit_below_one_frame(bench):
    bench.write(limit="100 Gy")
    openings = bench.pv("SH:OpenCount_RBV")
    done = bench.run()
    assert done.returncode == 2
    assert "NO-GO: a single exposure may come to" in done.stderr
    assert "dose limit of 100 Gy" in done.stderr
    assert "--override-dose" in done.stderr
    assert bench.pv("SH:OpenCount_RBV") == openings  # the shutter did not move
    assert closed(bench)


def test_a_missing_pv_is_named_with_the_addresses_searched(bench):
    bench.write()
    done = bench.run("--set", "beamline.prefix=WRONG:", "--set", "beamline.connection_timeout=2 s")
    assert done.returncode == 3
    assert "WRONG:SH:" in done.stderr
    assert "WRONG:TXM:" in done.stderr
    assert "127.0.0.1" in done.stderr


def test_an_unusable_frame_folder(bench):
    bench.write()
    (bench.folder / "blocked").write_text("a file, not a folder")
    done = bench.run("--set", "camera.directory=blocked/frames")
    assert done.returncode == 2
    assert "camera.directory" in done.stderr
    assert "blocked" in done.stderr


def test_a_second_run_on_the_same_sample_is_refused(bench):
    bench.write()
    process = bench.start()
    try:
        bench.wait_for_exposures(
            bench.counts().get("settle", 0) + 2 if (bench.folder / "ledger").exists() else 2, process
        )
        second = bench.run()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert second.returncode == 1
    assert "ledger" in second.stderr
    assert str(process.pid) in second.stderr


# --- the operator ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_closes_the_shutter_and_ends_the_run(tmp_path, times):
    with experiment(tmp_path) as bench:
        bench.write(exposure="300 ms")
        process = bench.start()
        bench.wait_for_exposures(3, process)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        output, errors = finish(process)
        assert process.returncode == 130, errors
        assert "shutter closed" in errors
        assert json.loads(output.splitlines()[-1])["exit_status"] in (
            "success",
            "abort",
        )  # the run is closed, and its result printed
        assert closed(bench)
        counts = bench.counts()
    assert counts["reserve"] == counts["settle"] + counts.get("void", 0)  # nothing is left open in the ledger


def finish(process, timeout_s=60):
    """What the process printed; one that hangs is ended with the stacks of its threads in the message."""
    try:
        return process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER prints the stacks
        _, errors = process.communicate(timeout=10)
        pytest.fail(f"hangs: {errors}")


# --- things that die ---------------------------------------------------------------------------------------------------------------


def test_ioc_killed_in_a_run(own):
    own.write(exposure="300 ms")
    process = own.start()
    own.wait_for_exposures(3, process)
    own.simulator.kill()
    output, errors = process.communicate(timeout=HANG_S)  # no hang
    assert process.returncode == 1, errors
    assert json.loads(output.splitlines()[-1])["exit_status"] == "fail"
    assert "shutter" in errors  # that the closing could not be confirmed is told


def test_acquisition_killed_in_an_exposure(own):
    """SIGKILL: the guard closes the shutter and settles that exposure with what was delivered, and the next start goes on."""
    own.write(exposure="2 s", n_points=1000)
    process = own.start()
    own.wait_for_exposures(1, process)
    wait_until(lambda: own.counts()["reserve"] > own.counts()["settle"] and own.pv("SH:Status") == "Open", 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: closed(own), 30)
    wait_until(lambda: own.counts()["reserve"] == own.counts()["settle"], 30)
    own.put("TRUTH:Flush", 1)
    with np.load(own.folder / "twin" / "truth_dose.npz") as truth:
        true_gy = truth["dose_gy"].max()
    assert true_gy * 0.95 <= peak_gy(own) <= true_gy * 1.05  # within the model's tolerance
    own.write(exposure="48 ms", n_points=2)
    assert own.run().returncode == 0
    assert closed(own)


def peak_gy(bench) -> float:
    from xbat_live.config import load_config
    from xbat_live.dose import Ledger
    from xbat_live.dose_setup import make_account

    config = load_config(bench.file)
    with Ledger.for_sample(bench.folder / "ledger", config.sample.name, read_only=True) as ledger:
        return float(make_account(config, ledger).dose_map().dose_gy.max())


def test_disk_full_in_a_run(own):
    """The IOC cannot write any more: the run fails, names the file, and the shutter is closed."""
    own.write()
    process = own.start()
    own.wait_for_exposures(3, process)
    (file,) = (own.folder / "frames").glob("*.h5")
    size = file.stat().st_size
    resource.prlimit(own.simulator.pid, resource.RLIMIT_FSIZE, (size, size))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert file.name in errors
    assert closed(own)


def test_tiled_killed_in_a_run(own):
    """The run does not notice; what Tiled lacks is in the backup."""
    from xbat_live.archive import TiledServer
    from xbat_live.cli.services import free_tcp_port

    (own.folder / "frames").mkdir()
    server = TiledServer(own.folder / "archive", port=free_tcp_port(), readable_storage=[own.folder / "frames"])
    with server:
        own.write(n_points=25, archive=True)
        process = own.start("--set", f"archive.uri={server.uri}", "--set", f"archive.api_key={server.api_key}")
        own.wait_for_exposures(8, process)
        server.kill()
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["exit_status"] == "success"
    backup = "\n".join(path.read_text() for path in (own.folder / "archive" / "backup").rglob("*.jsonl"))
    assert result["uid"] in backup
    assert '"stop"' in backup


def test_a_stuck_shutter_ends_the_run(own):
    """A shutter that does not confirm is unknown, which counts as open; no further exposure is made."""
    own.write()
    process = own.start()
    own.wait_for_exposures(3, process)
    own.put("SH:Fault", "Stuck")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "not confirmed" in errors
