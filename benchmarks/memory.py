"""Resident memory of the acquisition process over a long run.

    python benchmarks/memory.py [FRAMES]

Bar: after 2,000 frames within 5 % of that after 200.
"""

from __future__ import annotations

import sys
import time

from _beamline import session
from _resident import resident_mb

from xbat_live.plans import operando_txm_series


def main(frames: int = 2000) -> None:
    """Run a series and print resident memory on the way."""
    with session() as running:
        marks: dict[int, float] = {}
        count = 0

        def look(name: str, doc: dict) -> None:
            nonlocal count
            if doc["data"].get("point_frame_type") == "Normal":
                count += 1
                if count in (200, frames // 2, frames):
                    marks[count] = resident_mb()

        running.run_engine.subscribe(look, "event")
        running.beamline.camera.prepare_frames(exposure_s=0.001, roi=running.config.camera.roi)
        start_s = time.perf_counter()
        running.run_engine(
            operando_txm_series(
                running.beamline,
                running.guard,
                running.analysis,
                lambda x, y: None,
                n_points=frames // 2,
                period_s=0.0,
                exposure_s=0.001,
                flat_ttl_s=60.0,
                max_retakes=0,
            )
        )
        elapsed_s = time.perf_counter() - start_s
        print(f"{count} frames in {elapsed_s:.0f} s ({count / elapsed_s:.1f} per second, archive on)")
        for number, megabytes in marks.items():
            print(f"after {number:5d} frames: {megabytes:7.1f} MB resident")
        print(f"growth from 200 to {frames}: {100 * (marks[frames] / marks[200] - 1):+.1f} %   (bar: 5 %)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
