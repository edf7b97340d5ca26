"""Dead time per point of a guarded step scan, with and without analysis and archive, in one run.

    python benchmarks/dead_time.py [POINTS]

Bar: with analysis and archive at most 1.3 times the same scan without callbacks.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise

import bluesky.plans as bp
from _beamline import Session, session
from bluesky import RunEngine

from xbat_live.plans import dose_guard_wrapper

EXPOSURE_S = 0.001


def main(points: int = 60) -> None:
    """Alternate both scans, so that load of the machine hits them alike, and print medians."""
    with session() as running:
        bare = RunEngine({}, context_managers=[], call_returns_result=True)
        results: dict[str, list[float]] = {"no callbacks": [], "analysis and archive": []}
        for _ in range(4):
            results["no callbacks"] += scan(bare, running, points)
            results["analysis and archive"] += scan(running.run_engine, running, points)
    medians = {name: statistics.median(times) - EXPOSURE_S for name, times in results.items()}
    for name, dead_s in medians.items():
        p95 = statistics.quantiles(results[name], n=20)[-1] - EXPOSURE_S
        print(
            f"{name:>22}: dead time per point {1e3 * dead_s:6.1f} ms median, {1e3 * p95:6.1f} ms p95, {len(results[name])} points"
        )
    print(f"{'ratio':>22}: {medians['analysis and archive'] / medians['no callbacks']:.2f}   (bar: 1.3)")


def scan(engine: RunEngine, running: Session, points: int) -> list[float]:
    """Return the time from Event to Event, s."""
    stamps: list[float] = []
    token = engine.subscribe(lambda name, doc: stamps.append(time.perf_counter()), "event")
    camera, guard, beamline = running.beamline.camera, running.guard, running.beamline
    camera.prepare_frames(exposure_s=EXPOSURE_S, roi=running.config.camera.roi)
    engine(dose_guard_wrapper(bp.scan([camera], beamline.stage.x, 0, 3, points), guard, beamline))
    engine.unsubscribe(token)
    return [after - before for before, after in pairwise(stamps)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
