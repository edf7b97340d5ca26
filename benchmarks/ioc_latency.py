"""Latency of the simulated IOCs, beside bare numpy + h5py in the same run.

Prints: time from process start to readiness; trigger to done for 1 ms exposures of 654x678 px written to HDF5 (by put
completion, and by the monitor of Acquire_RBV, as SafeSingleTrigger waits for it); readings meanwhile; lateness of the
shutter watchdog meanwhile; and the same frame written with h5py alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np

from xbat_live.sim.environment import channel_access_environment, free_port
from xbat_live.sim.server import SimulatorProcess
from xbat_live.sim.settings import TwinSettings

SHAPE_YX = (654, 678)
EXPOSURE_S = 0.001


def summary(times_s: list[float]) -> str:
    ordered = sorted(times_s)
    p95_s = ordered[int(0.95 * (len(ordered) - 1))]
    median_ms, p95_ms, max_ms = (1e3 * value for value in (statistics.median(ordered), p95_s, ordered[-1]))
    return f"median {median_ms:6.2f} ms   p95 {p95_ms:6.2f} ms   max {max_ms:6.2f} ms"


def bare_write(directory: Path, count: int) -> list[float]:
    """Time the reference: noise on a frame with numpy, SWMR write and flush with h5py."""
    rng = np.random.default_rng(1)
    expected = np.full(SHAPE_YX, 20000.0, np.float32)
    times_s = []
    with h5py.File(directory / "reference.h5", "w", libver="latest") as file:
        data = file.create_dataset("data", (0, *SHAPE_YX), np.uint16, maxshape=(None, *SHAPE_YX), chunks=(1, *SHAPE_YX))
        file.swmr_mode = True
        for n in range(count):
            start_s = time.perf_counter()
            frame = (expected + 140 * rng.standard_normal(SHAPE_YX, dtype=np.float32)).astype(np.uint16)
            data.resize(n + 1, axis=0)
            data[n] = frame
            file.flush()
            times_s.append(time.perf_counter() - start_s)
    return times_s


def by_put_completion(epics: ModuleType, prefix: str, count: int) -> list[float]:
    acquire = epics.PV(prefix + "CAM:cam1:Acquire", auto_monitor=False)
    acquire.wait_for_connection(10)
    times_s = []
    for _ in range(count):
        done = threading.Event()
        start_s = time.perf_counter()
        acquire.put(1, callback=lambda done=done, **_: done.set())
        if not done.wait(10):
            raise TimeoutError("no put completion within 10 s")
        times_s.append(time.perf_counter() - start_s)
    return times_s


def by_monitor(epics: ModuleType, prefix: str, count: int) -> list[float]:
    done = threading.Event()
    acquire = epics.PV(prefix + "CAM:cam1:Acquire", auto_monitor=False)
    state = {"old": 0}

    def changed(value: int, **_: object) -> None:
        old, state["old"] = state["old"], value
        if old == 1 and value == 0:
            done.set()

    watched = epics.PV(prefix + "CAM:cam1:Acquire_RBV", callback=changed)
    acquire.wait_for_connection(10)
    watched.wait_for_connection(10)
    time.sleep(0.2)
    times_s = []
    for _ in range(count):
        done.clear()
        start_s = time.perf_counter()
        acquire.put(1, wait=False)
        if not done.wait(10):
            raise TimeoutError("Acquire_RBV did not fall within 10 s")
        times_s.append(time.perf_counter() - start_s)
    watched.clear_callbacks()
    return times_s


def gets_while_acquiring(epics: ModuleType, prefix: str, count: int) -> list[float]:
    epics.caput(prefix + "CAM:cam1:ImageMode", "Continuous", wait=True, timeout=10)
    epics.caput(prefix + "CAM:cam1:Acquire", 1, wait=False)
    pv = epics.PV(prefix + "SH:OpenTime_RBV", auto_monitor=False)
    pv.wait_for_connection(10)
    times_s = []
    for _ in range(count):
        start_s = time.perf_counter()
        pv.get(use_monitor=False)
        times_s.append(time.perf_counter() - start_s)
        time.sleep(0.005)
    epics.caput(prefix + "CAM:cam1:Acquire", 0, wait=True, timeout=10)
    epics.caput(prefix + "CAM:cam1:ImageMode", "Single", wait=True, timeout=10)
    return times_s


def watchdog_delays(epics: ModuleType, prefix: str, count: int) -> list[float]:
    """Time between the stamps of Open and Closed, less MaxOpen, while the camera renders frames."""
    limit_s = 0.05
    stamps: list[tuple[float, int]] = []
    status = epics.PV(
        prefix + "SH:Status", form="time", callback=lambda value, timestamp, **_: stamps.append((timestamp, value))
    )
    status.wait_for_connection(10)
    for pv, value in {"SH:MaxOpen": limit_s, "CAM:cam1:ImageMode": "Continuous"}.items():
        epics.caput(prefix + pv, value, wait=True, timeout=10)
    epics.caput(prefix + "CAM:cam1:Acquire", 1, wait=False)
    time.sleep(0.2)
    stamps.clear()
    for _ in range(count):
        epics.caput(prefix + "SH:Cmd", 1, wait=True, timeout=10)
        time.sleep(2 * limit_s)
    epics.caput(prefix + "CAM:cam1:Acquire", 0, wait=True, timeout=10)
    status.clear_callbacks()
    return [
        closed_s - opened_s - limit_s for (opened_s, _), (closed_s, _) in zip(stamps[::2], stamps[1::2], strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    port, prefix = free_port(), "BENCH:"
    os.environ.update(channel_access_environment(port))
    import epics  # reads the environment

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        start_s = time.perf_counter()
        with SimulatorProcess(TwinSettings(), prefix, port, directory / "sim"):
            print(f"ready after                        {time.perf_counter() - start_s:6.2f} s")
            settings = {
                "CAM:cam1:SizeX": SHAPE_YX[1],
                "CAM:cam1:SizeY": SHAPE_YX[0],
                "CAM:cam1:AcquireTime": EXPOSURE_S,
                "CAM:image1:EnableCallbacks": 0,
                "CAM:HDF1:FilePath": name,
                "CAM:HDF1:Capture": 1,
                "SH:MaxOpen": 0,
                "ATT:Transmission": 1e-3,
                "SH:Cmd": 1,
            }
            for pv, value in settings.items():
                epics.caput(prefix + pv, value, wait=True, timeout=10)
            by_put_completion(epics, prefix, 5)
            print("trigger->done, put completion     ", summary(by_put_completion(epics, prefix, count)))
            print("trigger->done, Acquire_RBV monitor", summary(by_monitor(epics, prefix, count)))
            print(
                "frames on disk                    ",
                epics.PV(prefix + "CAM:HDF1:NumCaptured_RBV").get(use_monitor=False),
            )
            print("get of a PV, camera running       ", summary(gets_while_acquiring(epics, prefix, count)))
            epics.caput(prefix + "SH:Cmd", 0, wait=True, timeout=10)
            print("shutter watchdog: late by         ", summary(watchdog_delays(epics, prefix, 20)))
        print("bare numpy noise + h5py write     ", summary(bare_write(directory, count)))
        print(
            f"(exposure {EXPOSURE_S * 1e3:g} ms, {SHAPE_YX[0]}x{SHAPE_YX[1]} px, {count} frames; target 15 ms median)"
        )


if __name__ == "__main__":
    main()
