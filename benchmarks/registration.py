"""Speed and accuracy of registration and blur screen beside the references, in one run, on exact synthetic frames.

Usage: ``python benchmarks/registration.py [--quick] [--seed 5] [--only accuracy] [--drawn]``. Two generators that share no code: frames
from a periodic canvas and, with ``--drawn``, particles drawn as formulas, with other shapes, noise and beam. scikit-image is a
dependency; pystackreg is measured when it is installed (``pip install pystackreg``). Everything runs in one thread and is timed by its
processor time, which other programs change less than wall time; still, compare lines of one run only. The bars are those of the table
"Speed and accuracy" in the plan of the imaging part.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from scipy import fft  # noqa: E402
from scipy.stats import rankdata  # noqa: E402
from skimage.registration import phase_cross_correlation  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "imaging"))
from frames_drawn import DrawnMicroscope  # noqa: E402
from frames_synthetic import Microscope  # noqa: E402

from xbat_live.imaging import FramePipeline, LiveRegistrar, optical_density  # noqa: E402

try:
    from pystackreg import StackReg
except ImportError:
    STACKREG = None
    print("pystackreg is not installed: pip install pystackreg to compare with it")
else:
    STACKREG = StackReg(StackReg.TRANSLATION)

CROP, FULL = (654, 678), (2048, 2048)
DRIFT_PX, JITTER_PX = 156.0, 13.0
PIXEL_UM = 0.03324
BARS_PX = {200: 0.07, 1000: 0.025, 10000: 0.010}
EXTENTS_PX = (1.5, 2.0, 3.0, 5.0, 8.0)
TRANSFORM, OWN, PIPELINE = "scipy rfft2 float32", "LiveRegistrar bin 2 (flat and log included)", "FramePipeline bin"
RAW, FLATTENED, PYSTACKREG = "skimage, raw uint16", "skimage, float32 density", "pystackreg, float32 density"
Generator = type[Microscope] | type[DrawnMicroscope]


@dataclass(frozen=True)
class Series:
    """Frames with their true shifts against the first, px."""

    microscope: Microscope | DrawnMicroscope
    frames: list[np.ndarray]
    shifts_px: np.ndarray


def series(
    shape: tuple[int, int],
    photons: float,
    n_frames: int,
    seed: int,
    drift_px: float = DRIFT_PX,
    generator: Generator = Microscope,
) -> Series:
    """Return a drifting, jittering series with the fixed pattern, dust and a flat of ten exposures."""
    gain = min(8.0, 40000 / photons)
    microscope = generator(shape, seed=seed, photons=photons, counts_per_photon=gain, margin_px=120)
    rng = np.random.default_rng(seed)
    shifts = rng.normal(0, JITTER_PX, (n_frames, 2))
    shifts[:, 0] += np.linspace(0, drift_px, n_frames)
    frames = [microscope.expose((float(y), float(x))) for y, x in shifts]
    return Series(microscope, frames, shifts - shifts[0])


def milliseconds(function: Callable[[np.ndarray], object], frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return the processor time of each call, ms."""
    taken = []
    for frame in frames:
        start = time.thread_time()
        function(frame)
        taken.append(1e3 * (time.thread_time() - start))
    return np.array(taken)


def warm(function: Callable[[np.ndarray], object], frame: np.ndarray) -> np.ndarray:
    """Return the processor times of the second and third call: the first one pays for memory that the others find there, ms."""
    return milliseconds(function, [frame] * 3)[1:]


def line(name: str, value: str, bar: str, good: bool) -> None:
    """Print one line of the table."""
    print(f"  {name:58s} {value:46s} bar {bar:16s} {'holds' if good else 'DOES NOT HOLD'}", flush=True)


def accuracy(
    shape: tuple[int, int],
    photons: int,
    n_frames: int,
    seed: int,
    bar_px: float,
    generator: Generator,
    factor: int = 2,
) -> None:
    """Register one series and print its errors."""
    data = series(shape, photons, n_frames, seed, DRIFT_PX if shape == CROP else 60.0, generator)
    registrar = LiveRegistrar(shape, data.microscope.flat, data.microscope.dark, PIXEL_UM, bin=factor)
    results = [registrar.update(frame) for frame in data.frames]
    errors = np.array([r.shift_yx_px for r in results]) - data.shifts_px
    sigma = np.array([r.sigma_yx_px for r in results])
    good = np.array([r.ok for r in results])
    rms = np.sqrt(np.mean(errors[good][1:] ** 2, axis=0))
    wrong = int((np.abs(errors[good]) > 1).any(1).sum())
    scaled = float(np.sqrt(np.mean((errors[good][1:] / sigma[good][1:]) ** 2)))
    name = f"{shape[0]}x{shape[1]} {photons} ph bin {factor}, {n_frames} frames"
    line(
        f"{name}: rms y, x px; outliers; not located",
        f"{rms[0]:.4f} {rms[1]:.4f}; {wrong}; {int((~good).sum())}",
        f"{bar_px:g} px; 0",
        bool(rms.max() <= bar_px and not wrong and good.all()),
    )
    line(f"{name}: rms(error / sigma)", f"{scaled:.2f}", "0.7-1.4", 0.7 <= scaled <= 1.4)


def speed(shape: tuple[int, int], n_frames: int, rounds: int, seed: int, stackreg_bar: float) -> None:
    """Print times of this package and of the references on the same frames."""
    data = series(shape, 1000, n_frames, seed)
    flat, dark, frames = data.microscope.flat, data.microscope.dark, data.frames
    single = frames[0].astype(np.float32)
    od = [optical_density(frame, flat, dark) for frame in frames[: rounds + 1]]

    def registered() -> np.ndarray:
        registrar = LiveRegistrar(shape, flat, dark, PIXEL_UM)
        registrar.update(frames[0])
        return milliseconds(registrar.update, frames[1:])

    def processed(factor: int) -> np.ndarray:
        pipeline = FramePipeline(shape, PIXEL_UM, bin=factor)
        pipeline.set_dark(dark)
        pipeline.set_flat(flat)
        pipeline.process(frames[0], "field")
        return milliseconds(lambda f: pipeline.process(f, "field"), frames[1:])

    # In turns: a machine that others use has slow minutes, which must not fall on one of them only.
    measured: dict[str, list[np.ndarray]] = {}
    for i in range(1, rounds + 1):
        turns: dict[str, Callable[[], np.ndarray]] = {
            TRANSFORM: lambda: milliseconds(lambda _: fft.rfft2(single, workers=1), frames[:9]),
            OWN: registered,
            RAW: lambda i=i: warm(lambda f: phase_cross_correlation(frames[0], f, upsample_factor=100), frames[i]),
            FLATTENED: lambda i=i: warm(lambda m: phase_cross_correlation(od[0], m, upsample_factor=100), od[i]),
            f"{PIPELINE} 2": lambda: processed(2),
            f"{PIPELINE} 4": lambda: processed(4),
        }
        if STACKREG is not None:
            turns[PYSTACKREG] = lambda i=i: warm(lambda m: STACKREG.register(od[0], m), od[i])
        for name, turn in turns.items():
            measured.setdefault(name, []).append(turn())
    table = {name: np.concatenate(taken) for name, taken in measured.items()}
    print(f"  {shape[0]}x{shape[1]}: load {os.getloadavg()[0]:.1f}; processor times are median / mean / min, ms")
    for name, taken in table.items():
        print(f"    {name:46s} {np.median(taken):8.2f} / {taken.mean():8.2f} / {taken.min():8.2f}")

    def ratio(reference: str, ours: str) -> tuple[str, float]:
        theirs, mine = table[reference], table[ours]
        by_median = float(np.median(theirs) / np.median(mine))
        text = f"{by_median:.1f}x median, {theirs.mean() / mine.mean():.1f}x mean, {theirs.min() / mine.min():.1f}x min"
        return text, by_median

    bars = {RAW: 20.0, FLATTENED: 20.0} | ({PYSTACKREG: stackreg_bar} if PYSTACKREG in table else {})
    for name, bar in bars.items():
        text, value = ratio(name, OWN)
        line(f"{shape[0]}x{shape[1]} against {name}", text, f">= {bar:g}x", value >= bar)
    text, value = ratio(f"{PIPELINE} 2", TRANSFORM)
    line(f"{shape[0]}x{shape[1]} pipeline bin 2 over one rfft2", text, "<= 2.5x", value <= 2.5)
    if shape == FULL:
        median = float(np.median(table[f"{PIPELINE} 4"]))
        line("2048x2048 pipeline bin 4", f"{median:.1f} ms", "<= 12 ms quiet", median <= 12)


def auc(blurred: np.ndarray, sharp: np.ndarray) -> float:
    """Return the probability that a blurred frame scores above a sharp one."""
    ranks = rankdata(np.concatenate([blurred, sharp]))[: len(blurred)]
    return float((ranks.sum() - len(blurred) * (len(blurred) + 1) / 2) / (len(blurred) * len(sharp)))


def blur(photons: float, mixed: bool, seeds: Sequence[int], per_extent: int, generator: Generator) -> None:
    """Print how well blurred frames are told from sharp ones within a stream."""
    aucs: dict[float, list[float]] = {extent: [] for extent in EXTENTS_PX}
    angles, rejected, n_sharp = [], 0, 0
    for seed in seeds:
        microscope = generator(CROP, seed=seed, photons=photons, margin_px=120)
        rng = np.random.default_rng([seed, 7])
        plan = [0.0] * 19 + [extent for extent in EXTENTS_PX for _ in range(per_extent)]
        rng.shuffle(plan)
        pipeline = FramePipeline(CROP, PIXEL_UM)
        pipeline.set_dark(microscope.dark)
        pipeline.set_flat(microscope.flat)
        pipeline.process(microscope.expose(), "field")
        scores: dict[float, list[float]] = {0.0: [], **{extent: [] for extent in EXTENTS_PX}}
        for i, extent in enumerate(plan):
            scale = float(np.exp(rng.uniform(np.log(0.3), np.log(3)))) if mixed else 1.0
            angle = float(rng.uniform(-90, 90))
            shift = (float(rng.normal(1.5 * i, 4)), float(rng.normal(0, JITTER_PX)))
            frame = microscope.expose(shift, extent, angle, scale=scale, contrast=1 - 0.003 * i)
            verdict = pipeline.process(frame, "field", beam_scale=scale)
            scores[extent].append(verdict.blur.score if verdict.located else -50.0)
            if extent == 0:
                rejected += not verdict.accepted
                n_sharp += 1
            elif extent >= 5 and verdict.blur.is_blurred:
                angles.append(abs((verdict.blur.angle_deg - angle + 90) % 180 - 90))
        for extent in EXTENTS_PX:
            aucs[extent].append(auc(np.array(scores[extent]), np.array(scores[0.0])))
    means = {extent: float(np.mean(values)) for extent, values in aucs.items()}
    text = " ".join(f"{means[extent]:.3f}" for extent in EXTENTS_PX)
    title = f"blur {photons:g} ph {'0.3-3x dose' if mixed else 'constant dose'}"
    low = photons < 500
    good = min(means[e] for e in EXTENTS_PX if e >= (5 if low else 3)) >= 0.98 and (low or means[2.0] >= 0.85)
    bar = "5 px .98" if low else "3 px .98, 2 .85"
    line(f"{title}: AUC {'/'.join(f'{e:g}' for e in EXTENTS_PX)} px", text, bar, good)
    print(f"    sharp frames rejected {rejected} of {n_sharp}")
    if angles:
        rms, worst = float(np.sqrt(np.mean(np.square(angles)))), max(angles)
        line(f"{title}: direction from 5 px, rms / worst", f"{rms:.1f} / {worst:.1f} deg", "<= 5 deg rms", rms <= 5)


def main() -> None:
    """Print the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--drawn", action="store_true", help="accuracy and blur on the other generator")
    parser.add_argument("--only", choices=("accuracy", "speed", "blur"), default=None)
    arguments = parser.parse_args()
    quick, seed = arguments.quick, arguments.seed
    generator: Generator = DrawnMicroscope if arguments.drawn else Microscope
    if arguments.only in (None, "speed"):
        print("Speed")
        speed(CROP, 16 if quick else 30, 3 if quick else 7, seed, 60.0)
        speed(FULL, 7 if quick else 12, 2 if quick else 3, seed, 80.0)
    if arguments.only in (None, "accuracy"):
        print("Accuracy")
        for photons, bar_px in BARS_PX.items():
            accuracy(CROP, photons, 20 if quick else 56, seed, bar_px, generator)
        for factor in (2, 4):
            accuracy(FULL, 1000, 6 if quick else 12, seed, 0.010 if factor == 2 else 0.02, generator, factor)
    if arguments.only in (None, "blur"):
        print("Blur")
        seeds = range(seed, seed + (1 if quick else 3))
        for photons, mixed in ((1000.0, False), (1000.0, True), (200.0, False)):
            blur(photons, mixed, seeds, 4 if quick else 6, generator)


if __name__ == "__main__":
    main()
