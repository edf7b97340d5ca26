"""Time of the live path on one frame, beside one FFT and scikit-image's registration in the same run.

Usage: ``python benchmarks/live_path.py [--frames 30]``. Figures depend on the machine and its load: compare columns of one run only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from scipy import fft  # noqa: E402
from skimage.registration import phase_cross_correlation  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "imaging"))
from frames_synthetic import Microscope  # noqa: E402

from xbat_live.imaging import FramePipeline, LiveRegistrar, optical_density  # noqa: E402


def times_ms(function: Callable[[np.ndarray], object], frames: Iterable[np.ndarray]) -> np.ndarray:
    """Return the time of each call, ms."""
    taken = []
    for frame in frames:
        start = time.perf_counter()
        function(frame)
        taken.append(1e3 * (time.perf_counter() - start))
    return np.array(taken)


def measure(shape: tuple[int, int], n_frames: int, bins: tuple[int, ...]) -> None:
    """Print one table."""
    microscope = Microscope(shape, seed=1, photons=1000)
    rng = np.random.default_rng(0)
    shifts = [np.array([2.8 * i, 0.0]) + rng.normal(0, 1, 2) * (2, 12) for i in range(n_frames)]
    frames = [microscope.expose(tuple(shift)) for shift in shifts]
    od = [optical_density(frame, microscope.flat, microscope.dark) for frame in frames[:6]]
    single = frames[0].astype(np.float32)
    rows: list[tuple[str, np.ndarray, str]] = [
        ("one float32 scipy.fft.rfft2", times_ms(lambda _: fft.rfft2(single, workers=1), frames), "")
    ]
    rows.append(
        (
            "skimage phase_cross_correlation u100",
            times_ms(lambda moving: phase_cross_correlation(od[0], moving, upsample_factor=100), od[1:]),
            "",
        )
    )
    for factor in bins:
        pipeline = FramePipeline(shape, 0.03324, bin=factor)
        pipeline.set_dark(microscope.dark)
        pipeline.set_flat(microscope.flat)
        verdicts = [pipeline.process(frame, "field") for frame in frames[:2]]
        taken = times_ms(lambda frame, p=pipeline, v=verdicts: v.append(p.process(frame, "field")), frames[2:])
        errors = [np.subtract(v.shift_yx_px, s - shifts[0]) for v, s in zip(verdicts, shifts, strict=True)]
        rows.append(
            (
                f"FramePipeline, bin {factor}",
                taken,
                f"rms {np.sqrt(np.mean(np.square(errors))):.4f} px, {sum(v.accepted for v in verdicts)} accepted",
            )
        )
        registrar = LiveRegistrar(shape, microscope.flat, microscope.dark, 0.03324, bin=factor)
        registrar.update(frames[0])
        rows.append((f"LiveRegistrar, bin {factor}", times_ms(registrar.update, frames[1:]), ""))
    reference_ms = float(np.median(rows[0][1]))
    print(f"\n{shape[0]} x {shape[1]}, {n_frames} frames, load {os.getloadavg()[0]:.1f}")
    for name, taken, note in rows:
        print(
            f"  {name:38s} median {np.median(taken):8.2f} ms  min {taken.min():8.2f} ms"
            f"  = {np.median(taken) / reference_ms:6.2f} rfft2  {note}"
        )


def main() -> None:
    """Measure both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=30)
    arguments = parser.parse_args()
    measure((654, 678), arguments.frames, (1, 2, 4))
    measure((2048, 2048), min(arguments.frames, 10), (2, 4))


if __name__ == "__main__":
    main()
