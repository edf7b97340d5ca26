"""Resident memory of the frame analysis over a long stream: pipeline, registrar, blur screen and drift model together.

    python benchmarks/imaging_memory.py [FRAMES]

Small frames (96 x 96 px) that drift through five fields of view, change energy and exposure, are blurred, lost or blank now and then, so
that everything that can be kept is. Bar: after all frames within 2 % of that after the first ten thousand (what is kept for each of 16
conditions is complete after 16,000; of a shorter run: of that after the first thousand).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "imaging"))
from _resident import resident_mb  # noqa: E402
from frames_synthetic import Microscope, particles  # noqa: E402

from xbat_live.imaging import BlurScreen, DriftModel, FramePipeline, LiveRegistrar  # noqa: E402

SHAPE, PIXEL_UM = (96, 96), 0.03324
PLACES, FIELDS, REMEMBERED = 60, 5, 3


def main(frames: int = 10_000) -> None:
    """Stream frames and print resident memory on the way."""
    rng = np.random.default_rng(0)
    scene = particles((250, 250), 2, radius_px=(3.0, 14.0))
    microscope = Microscope(SHAPE, seed=2, photons=2000.0, margin_px=77, scene=scene)
    path = 24 * np.sin(2 * np.pi * np.arange(PLACES) / PLACES)
    sharp = [microscope.transmission((float(y), float(x))) for y, x in zip(path, rng.normal(0, 4, PLACES), strict=True)]
    blurred = microscope.transmission((0.0, 0.0), 9.0, 30.0)
    foreign = Microscope(SHAPE, seed=9, margin_px=80).transmission()
    pipeline = FramePipeline(SHAPE, PIXEL_UM, bin=1, max_fields=REMEMBERED)
    pipeline.set_dark(microscope.dark)
    registrar = LiveRegistrar(SHAPE, microscope.flat, microscope.dark, PIXEL_UM, bin=1)
    screen, drift = BlurScreen(SHAPE, microscope.flat, microscope.dark, PIXEL_UM), DriftModel()
    marks = [mark for mark in (1_000, 10_000, 100_000, 1_000_000) if mark < frames] + [frames]
    resident: dict[int, float] = {}
    located, start = 0, time.thread_time()
    for i in range(frames):
        if i % 1000 == 0:
            microscope.retake_flat()
            pipeline.set_flat(microscope.flat)
            pipeline.set_conditions(8300.0 + i // 1000 % 30, 0.01 * (1 + i // 1000 % 4))
        kind = rng.integers(50)
        seen = {0: blurred, 1: foreign, 2: np.ones(SHAPE)}.get(int(kind), sharp[i % PLACES])
        counts = microscope.counts_per_photon * rng.poisson(microscope.photons * microscope.illumination * seen)
        frame = np.clip(counts + microscope.dark_level, 0, 65535).astype(np.uint16)
        verdict = pipeline.process(frame, f"field {i // 700 % FIELDS}")
        located += verdict.located
        if i % 2:
            result = registrar.update(frame)
            drift.update(float(i), np.multiply(result.shift_yx_px, PIXEL_UM), np.multiply(result.sigma_yx_px, PIXEL_UM))
        if i % 10 == 0:
            screen.update(frame)
        if i + 1 in marks:
            resident[i + 1] = resident_mb()
            spent = time.thread_time() - start
            print(
                f"after {i + 1:7d} frames: {resident[i + 1]:7.1f} MB resident, {1e3 * spent / (i + 1):.2f} ms each",
                flush=True,
            )
    first = 10_000 if frames > 10_000 else marks[0]
    growth = resident[frames] / resident[first] - 1
    print(f"growth from {first} to {frames}: {100 * growth:+.1f} %   (bar: 2 %)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
