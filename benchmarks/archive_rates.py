"""What the archive costs a run, how fast documents reach Tiled, and how fast frames come back.

    python benchmarks/archive_rates.py [POINTS]

The same series (two exposures of 48 ms a point, live verdicts) by turns with and without the archive. Bars: dead time with the archive
at most 1.05 times that without; ``run.frames()[...]`` at 0.8 times the rate of h5py, or more.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from _beamline import Session, session

from xbat_live.archive import connect, open_run
from xbat_live.callbacks import DoseBackstop
from xbat_live.engine import make_run_engine
from xbat_live.plans import operando_txm_series

EXPOSURE_S = 0.048
ROUNDS = 8


def main(points: int = 15) -> None:
    with session() as running:
        archive = running.archive
        assert archive is not None
        bare = make_run_engine()
        bare.subscribe(lambda name, doc: setattr(running.guard, "run_uid", doc["uid"]), "start")
        bare.subscribe(DoseBackstop(running.beamline.shutter.close_now, limit_gy=running.config.dose.limit_gy))
        bare.subscribe(running.analysis)
        series(running, bare, 5)  # the first run warms everything
        dead_s: dict[str, list[float]] = {"archive off": [], "archive on": []}
        uids, ingest, drain = [], [], []
        for _ in range(ROUNDS):
            dead_s["archive off"] += series(running, bare, points)[0]
            begun_s, before = time.perf_counter(), archive.archived
            times, uid = series(running, running.run_engine, points)
            dead_s["archive on"] += times
            ended_s, then, left = time.perf_counter(), archive.archived, archive.backlog
            ingest.append((then - before) / (ended_s - begun_s))
            while archive.backlog:
                time.sleep(0.01)
            drain.append(left / (time.perf_counter() - ended_s) if left else 0.0)
            uids.append(uid)
        medians = {name: statistics.median(times) for name, times in dead_s.items()}
        for name, median in medians.items():
            p95 = statistics.quantiles(dead_s[name], n=20)[-1]
            print(
                f"{name:>12}: dead time {1e3 * median:6.1f} ms median, {1e3 * p95:6.1f} ms p95, {len(dead_s[name])} exposures"
            )
        print(f"{'ratio':>12}: {medians['archive on'] / medians['archive off']:.3f}   (bar: 1.05)")
        print(f"{'ingest':>12}: {statistics.median(ingest):.0f} documents/s during the run")
        print(f"{'drain':>12}: {statistics.median(drain):.0f} documents/s after it")
        client = connect(running.config.archive.uri, running.config.archive.api_key)
        reading(open_run(client, uids[-1]))
        client.context.close()


def series(running: Session, engine: Any, points: int) -> tuple[list[float], str]:
    """Run the series; return the times from frame to frame without the exposure, s, and the uid."""
    stamps: list[float] = []
    uids: list[str] = []
    streams: dict[str, str] = {}

    def look(name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            uids.append(doc["uid"])
        elif name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        elif name == "event" and streams[doc["descriptor"]] == "primary":
            stamps.append(time.perf_counter())

    token = engine.subscribe(look)
    running.beamline.camera.prepare_frames(exposure_s=EXPOSURE_S, roi=running.config.camera.roi)
    engine(
        operando_txm_series(
            running.beamline,
            running.guard,
            running.analysis,
            lambda x, y: None,
            n_points=points,
            period_s=0.0,
            exposure_s=EXPOSURE_S,
            flat_ttl_s=600.0,
            max_retakes=0,
            fields_um=((0.0, 0.0), (0.5, 0.0)),
        )
    )
    engine.unsubscribe(token)
    return [after - before - EXPOSURE_S for before, after in pairwise(stamps)], uids[0]


def reading(run: Any, repeats: int = 9) -> None:
    """Read all frames one by one, in blocks and through Tiled; print rates beside those of h5py.

    By turns, and medians of single reads: on a busy machine a read that was interrupted says nothing.
    """
    frames, stack = run.frames(), run.frame_stack()
    local = stack.local
    assert local is not None
    rows = np.arange(local.rows.start, local.rows.stop) if isinstance(local.rows, slice) else np.asarray(local.rows)
    n, each_mb = len(frames), frames.nbytes / 1e6 / len(frames)
    with h5py.File(local.path, "r") as file:
        data = file[local.dataset]

        def ten(i: int) -> tuple[int, int]:
            return min(i, n - 10), min(i, n - 10) + 10

        ways: dict[str, tuple[Any, Any, int]] = {
            "frames[...]": (lambda i: frames[...].values, lambda i: data[int(rows[0]) : int(rows[-1]) + 1], n),
            "frames[i]": (lambda i: frames[i].values, lambda i: data[int(rows[i])], 1),
            "frames[i : i + 10]": (
                lambda i: frames[slice(*ten(i))].values,
                lambda i: data[int(rows[ten(i)[0]]) : int(rows[ten(i)[1] - 1]) + 1],
                10,
            ),
            "frame_stack()[i]": (lambda i: stack[i], lambda i: data[int(rows[i])], 1),
        }
        for name, (ours, plain, count) in ways.items():
            times: dict[str, list[float]] = {"ours": [], "h5py": []}
            for _ in range(repeats):
                for i in range(0, n, count):
                    for who, read, which in (("ours", ours, i), ("h5py", plain, (i + n // 2) % n)):  # none from a cache
                        begun_s = time.perf_counter()
                        read(which)
                        times[who].append(time.perf_counter() - begun_s)
            middle = {who: statistics.median(taken) for who, taken in times.items()}
            print(
                f"  {name:>18}: {count * each_mb / middle['ours']:6.0f} MB/s, h5py {count * each_mb / middle['h5py']:6.0f} MB/s, "
                f"ratio {middle['h5py'] / middle['ours']:.2f} (bar: 0.8)"
            )
    through = run.frame_stack(direct=False)
    begun_s = time.perf_counter()
    for i in range(min(n, 20)):
        through[i]
    each_s = (time.perf_counter() - begun_s) / min(n, 20)
    print(f"  {'through Tiled':>18}: {each_mb / each_s:6.0f} MB/s, {1 / each_s:.0f} frames/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
