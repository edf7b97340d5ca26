"""The live page in headless Chromium: frames shown, latency from the acquisition to the screen, cost of the hub, viewers that sleep.

``python benchmarks/live_page.py [--seconds 10]``. Needs Debian's chromium; without it this says so and ends well.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "live"), str(ROOT / "tests" / "system")]

RATE_HZ, SIZE_PX = 10.0, 1024
SLEEPERS = 9


def produce(feed_path: Path, seconds: float) -> None:
    """Be the acquisition: documents, a map and 1024 x 1024 frames at 10 per second."""
    from pretend_run import EXPERIMENT, PretendRun

    from xbat_live.live.feed import LiveFeed
    from xbat_live.live.instruments import draw_map
    from xbat_live.live.previews import FrameView

    random = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    scene = 2500 + 900 * np.sin(x / 41) * np.cos(y / 37)
    frames = [random.poisson(scene).astype(np.uint16) for _ in range(8)]
    dose = np.zeros((200, 200))

    class Account:
        def dose_map(self) -> Any:
            axis = np.arange(-99.5, 100)
            return type("Map", (), {"dose_gy": dose, "x_um": axis, "y_um": axis})

    run = PretendRun(t0=time.time())
    with LiveFeed(feed_path) as feed:
        feed.show(experiment=EXPERIMENT)
        feed.watch_map(lambda: draw_map(Account()))
        for document in run.begin():
            feed(*document)
        due_s = time.monotonic()
        for n in range(int(seconds * RATE_HZ)):
            dose[60:90, 60:90] += 10.0
            for document in run.frame(dose_gy=1e3 * (n % 100)):
                feed(*document)
            facts = {"n": n + 1, "verdict": "accepted", "accepted": True, "energy_ev": 8562.0}
            feed.frame(FrameView(frames[n % len(frames)], "0/A", 0.03324, accepted=True, facts=facts))
            due_s += 1 / RATE_HZ
            time.sleep(max(due_s - time.monotonic(), 0))


class Process:
    """CPU time and memory of a process, from /proc."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch(page: Any, hub: Process, seconds: float) -> dict[str, float]:
    """Watch the page for `seconds` and return what it showed and cost."""
    page.page.evaluate("window.S.latencies.length = 0")
    frames, cpu_s, started_s = page.stats("frames"), hub.cpu_s(), time.monotonic()
    page.page.wait_for_timeout(1000 * seconds)
    elapsed_s = time.monotonic() - started_s
    latencies = sorted(page.stats("latencies"))
    return {
        "frames_per_s": (page.stats("frames") - frames) / elapsed_s,
        "p50_ms": latencies[len(latencies) // 2],
        "p95_ms": latencies[int(0.95 * len(latencies))],
        "hub_percent": 100 * (hub.cpu_s() - cpu_s) / elapsed_s,
        "hub_mb": hub.rss_mb(),
    }


def tell(title: str, found: dict[str, float]) -> None:
    """Print one line."""
    print(
        f"{title:34} shown {found['frames_per_s']:5.2f} f/s   paint latency p50 {found['p50_ms']:5.1f} ms, p95 {found['p95_ms']:5.1f} ms   "
        f"hub {found['hub_percent']:4.1f} % of a core, {found['hub_mb']:.0f} MB"
    )


def reference(page: Any) -> None:
    """Tell what nothing can save: one JPEG encoded here and decoded there."""
    from PIL import Image

    pixels = np.random.default_rng(2).integers(0, 255, (SIZE_PX, SIZE_PX), dtype=np.uint8)
    times_ms = []
    for _ in range(15):
        started_s, out = time.perf_counter(), io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=80)
        times_ms.append(1e3 * (time.perf_counter() - started_s))
    decoded_ms = page.page.evaluate(
        "async (bytes) => { const b = new Blob([new Uint8Array(bytes)], { type: 'image/jpeg' }); const t = [];"
        " for (let i = 0; i < 15; i += 1) { const s = performance.now(); (await createImageBitmap(b)).close();"
        " t.push(performance.now() - s); }"
        " return t; }",
        list(out.getvalue()),
    )
    print(
        f"{'reference: JPEG of pure noise':34} encoded in {min(times_ms):.1f} ms (median {statistics.median(times_ms):.1f}), "
        f"decoded in {min(decoded_ms):.1f} ms (median {statistics.median(decoded_ms):.1f}), {len(out.getvalue()) / 1e3:.0f} kB"
    )


def sleep_before(url: str, token: str, stop: threading.Event) -> None:
    """Take what comes and never acknowledge."""
    from websockets.sync.client import connect

    with connect(url.replace("http", "ws") + "live", compression=None, max_size=None) as socket:
        socket.send(json.dumps({"v": 1, "type": "auth", "token": token}))
        while not stop.is_set():
            try:
                socket.recv(timeout=0.5)
            except TimeoutError:
                continue


def previews(new_page: Any, seconds: float) -> None:
    """Measure one viewer, then ten of which nine never acknowledge."""
    from xbat_live.live.hub.launch import HubProcess

    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "run-1.feed"
        command = [sys.executable, __file__, "--produce", str(feed), "--seconds", str(4 * seconds + 60)]
        with HubProcess(Path(folder), port=0, feed=feed) as hub, subprocess.Popen(command) as producer:
            try:
                hub.wait_ready(10)
                page = new_page().open(hub.url_with_token())
                page.until(lambda: page.stats("frames") > 10)
                reference(page)
                process = Process(hub.pid)
                alone = watch(page, process, seconds)
                tell("1024x1024 at 10/s, one viewer", alone)
                stop = threading.Event()
                sleepers = [
                    threading.Thread(target=sleep_before, args=(hub.url, hub.tokens.viewer, stop))
                    for _ in range(SLEEPERS)
                ]
                for sleeper in sleepers:
                    sleeper.start()
                page.page.wait_for_timeout(1000)
                crowd = watch(page, process, seconds)
                tell("ten viewers, nine never acknowledge", crowd)
                print(f"{'':34} hub grew by {crowd['hub_mb'] - alone['hub_mb']:+.1f} MB in {seconds:g} s")
                stop.set()
                for sleeper in sleepers:
                    sleeper.join()
            finally:
                producer.kill()


def first_paint(new_page: Any) -> None:
    """Measure from the command to the address, and from there to the first paint."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XBAT_RUNTIME_DIR": folder, "PYTHONUNBUFFERED": "1"}
        command = [
            sys.executable,
            "-m",
            "xbat_live.cli.main",
            "demo",
            "--seconds",
            "5",
            "--port",
            "0",
            "--directory",
            f"{folder}/demo",
        ]
        started_s = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as demo:
            try:
                url = next(m[1] for line in demo.stdout if (m := re.search(r"(http://127\.0\.0\.1:\d+/#k=\S+)", line)))
                printed_s = time.monotonic() - started_s
                page = new_page()
                began_s = time.monotonic()
                page.open(url)
                paint_ms = page.until(
                    lambda: page.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
                )
                page.until(lambda: page.stats("connected"))
                connected_s = time.monotonic() - began_s
                print(
                    f"{'xbat demo':34} address printed after {printed_s:.2f} s, first paint {paint_ms / 1e3:.2f} s after it was opened, "
                    f"connected after {connected_s:.2f} s"
                )
            finally:
                demo.kill()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--produce", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        produce(options.produce, options.seconds)
        return
    if not shutil.which("chromium"):
        print("no browser here (apt-get install chromium): not measured")
        return
    from browser import browser

    with browser() as new_page:
        first_paint(new_page)
        previews(new_page, options.seconds)


if __name__ == "__main__":
    main()
