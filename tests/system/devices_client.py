"""Client side of ``test_devices_on_ioc.py``: one process, because Channel Access is configured once per process.

``python devices_client.py SCENARIO PORT WORK_DIRECTORY IOC_PID`` prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xbat_live.devices import configure_channel_access, set_default_timeouts
from xbat_live.sim.environment import channel_access_environment


def connect(port: int, work: Path) -> Any:
    """Return the connected beamline."""
    configure_channel_access(channel_access_environment(port))
    set_default_timeouts()
    from xbat_live.devices import build_beamline

    beamline = build_beamline(frame_directory=work / "frames")
    beamline.wait_for_connection(10)
    return beamline


def series(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """A run with darks, flats and frames, and an orphan frame in between; compare documents with the file."""
    del work, pid
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp
    from bluesky import RunEngine

    from xbat_live.devices import PotentiostatStep, Roi

    camera, shutter = beamline.camera, beamline.shutter
    camera.prepare_frames(exposure_s=0.002, roi=Roi(100, 200, 60, 80))

    def orphan() -> None:
        camera.cam.acquire.put(1, wait=True, use_complete=True, timeout=5)

    @bpp.stage_decorator([camera, shutter])
    @bpp.run_decorator(md={})
    def plan() -> Any:
        yield from bps.abs_set(beamline.potentiostat, PotentiostatStep("galvanostatic", c_rate_per_h=1 / 12), wait=True)
        yield from bps.mv(beamline.stage.x, 5.0, beamline.stage.y, -5.0, beamline.mono.energy, 8560.0)
        for kind, stream in (
            ("Background", "dark"),
            ("FlatField", "flat"),
            ("Normal", "primary"),
            ("orphan", ""),
            ("Normal", "primary"),
        ):
            if kind == "orphan":
                orphan()
                continue
            yield from bps.abs_set(camera.frame_type, kind, wait=True)
            if kind != "Background":
                yield from bps.abs_set(shutter, "Open", wait=True)
            yield from bps.trigger(camera, wait=True)
            yield from bps.abs_set(shutter, "Closed", wait=True)
            yield from bps.create(name=stream)
            for device in (camera, beamline.stage, beamline.mono, beamline.i0, beamline.ring, shutter):
                yield from bps.read(device)
            yield from bps.save()

    documents: list[tuple[str, dict[str, Any]]] = []
    RunEngine({}, context_managers=[])(plan(), lambda name, doc: documents.append((name, doc)))
    events = [doc["data"] for name, doc in documents if name == "event"]
    with h5py.File(events[0]["camera_frame_file"], "r", locking=False) as file:
        lengths = {key: file[f"/entry/data/{key}"].shape for key in ("data", "flat", "dark")}
    descriptor = next(doc for name, doc in documents if name == "descriptor" and doc["name"] == "primary")
    return {
        "rows": [[event["camera_frame_dataset"], event["camera_frame_index"]] for event in events],
        "lengths": lengths,
        "units": {key: value.get("units") for key, value in descriptor["data_keys"].items()},
        "shape": descriptor["data_keys"]["camera_image"]["shape"],
        "status": beamline.potentiostat.status.get(),
        "shutter": shutter.status.get(),
        "open_time_s": shutter.open_time_s.get(),
        "x_um": beamline.stage.x.position,
        "sensor": [int(s.get()) for s in (beamline.camera.cam.size_y, beamline.camera.cam.size_x)],
        "exit_status": documents[-1][1]["exit_status"],
    }


def pixels(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """The frame on disk is readable when the trigger is done, the file still open; many triggers never hang."""
    del work, pid
    camera = beamline.camera
    camera.prepare_frames(exposure_s=0.001)
    camera.stage()
    try:
        camera.trigger().wait(timeout=10)
        address = camera.last_frame
        with h5py.File(address.file, "r", swmr=True, locking=False) as file:
            frame = file[address.dataset][address.index]
        for _ in range(100):
            camera.trigger().wait(timeout=10)
    finally:
        camera.unstage()
    return {
        "dtype": str(frame.dtype),
        "shape": frame.shape,
        "mean": float(np.mean(frame)),
        "last": camera.frame_index.get(),
    }


def killed(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """The IOC dies during an exposure, with a move under way: everything ends soon, and says why."""
    del work
    camera, shutter = beamline.camera, beamline.shutter
    camera.prepare_frames(exposure_s=20.0)
    camera.stage()
    shutter.set("Open").wait(timeout=5)
    move = beamline.mono.energy.set(7500.0)
    trigger = camera.trigger()
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    result: dict[str, Any] = {}
    for name, status in (("trigger", trigger), ("move", move)):
        try:
            status.wait(timeout=10)
        except Exception as error:
            result[name] = f"{type(error).__name__}: {error}"
    result["failed_after_s"] = time.monotonic() - started
    started = time.monotonic()
    _eventually(lambda: not shutter.command.connected)  # until then a command can be sent into the void
    result["is_open"] = shutter.is_open
    result["close_now"] = shutter.close_now()
    shutter.unstage()
    camera.unstage()
    result["unstaged_after_s"] = time.monotonic() - started
    return result


def frozen(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """The IOC stops answering without closing its connection: clean-up takes seconds, not minutes."""
    del work
    camera = beamline.camera
    camera.stage()
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    camera.unstage()
    return {"unstaged_after_s": time.monotonic() - started}


def folder(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """A frame folder that cannot be used: the error says which, and why; the settings are restored."""
    del pid
    from xbat_live.devices import FrameWriteError

    (work / "file").write_text("in the way")
    camera = beamline.camera
    before = camera.cam.image_mode.get()
    result = {}
    for directory in (work / "file" / "frames", work / ("x" * 200) / ("y" * 200)):
        camera.frame_directory = directory
        try:
            camera.stage()
        except FrameWriteError as error:
            result[str(directory)] = str(error)
    result["restored"] = camera.cam.image_mode.get() == before
    camera.frame_directory = work / "frames"
    camera.stage()
    camera.trigger().wait(timeout=10)
    camera.unstage()
    result["afterwards"] = int(camera.frame_index.get())
    return result


def shutter(beamline: Any, work: Path, pid: int) -> dict[str, Any]:
    """Commands from a foreign thread, the watchdog, and the report for the doctor."""
    del work, pid
    from xbat_live.devices import connection_report

    device = beamline.shutter
    device.set("Open").wait(timeout=5)
    thread = threading.Thread(target=device.close_now)
    thread.start()
    thread.join(5)
    closed = _eventually(lambda: not device.is_open)
    device.max_open_s.set(0.05).wait(timeout=5)
    device.set("Open").wait(timeout=5)
    tripped = _eventually(lambda: not device.is_open)
    report = {line.pv: line for line in connection_report(beamline)}
    line = report["XBAT:MONO:Energy.VAL"]
    return {
        "closed_from_thread": closed,
        "closed_by_watchdog": tripped,
        "trips": device.watchdog_trips.get(use_monitor=False),
        "last_open_s": device.last_open_time_s.get(),
        "all_connected": all(item.connected for item in report.values()),
        "energy": [line.units, line.lower, line.upper, line.writable],
        "slowest_ms": max(item.ms for item in report.values()),
    }


def _eventually(condition: Any, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def main() -> None:
    """Run one scenario."""
    scenario, port, work, pid = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    with contextlib.redirect_stdout(sys.stderr):
        result = globals()[scenario](connect(port, work), work, pid)
    json.dump(result, sys.stdout, default=float)
    sys.stdout.flush()
    os._exit(0)  # a dead IOC leaves libca threads that make a normal exit slow


if __name__ == "__main__":
    main()
