"""The whole analysis of a field's motion: path with drift and jitter, and deformation between chosen pairs of frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbat_live import __version__
from xbat_live.analysis.deformation import PairFlow, flow_between, noise_floor_px
from xbat_live.analysis.displacement import LEAST_FRAMES, MotionPath, motion_path
from xbat_live.analysis.run_frames import AnalysisError, FieldFrames, FieldKey
from xbat_live.imaging import LiveRegistrar

Float = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Told what is done, how many steps are done, and of how many."""
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MotionAnalysis:
    """Motion of one field of view of a run.

    Attributes
    ----------
    run_uid, key
        What was analysed.
    pixel_size_um
        Unbinned pixel, um.
    seq_num
        ``seq_num`` in ``primary`` of the frames of `path`, shape (n,).
    verdicts
        Number of frames of the field by verdict, those left out too.
    path
        Displacement, drift, jitter.
    pairs
        Deformation between pairs of frames.
    first_od, last_od
        Optical density of the first and last frame used, shape (ny, nx), float32, as taken.
    reflection
        True for the reflection microscope, see `FieldFrames`.
    parameters
        What it was computed with, plain data.
    """

    run_uid: str
    key: FieldKey
    pixel_size_um: float
    seq_num: NDArray[np.int64]
    verdicts: dict[str, int]
    path: MotionPath
    pairs: tuple[PairFlow, ...]
    first_od: NDArray[np.float32]
    last_od: NDArray[np.float32]
    reflection: bool
    parameters: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return all numbers as plain data, units in the names."""
        return {
            "run_uid": self.run_uid,
            "field": self.key.field,
            "spot": self.key.spot,
            "energy_ev": self.key.energy_ev,
            "pixel_size_um": self.pixel_size_um,
            "verdicts": self.verdicts,
            "motion": self.path.summary(),
            "pairs": [pair.summary() for pair in self.pairs],
            "parameters": self.parameters,
        }


def parse_pairs(text: str) -> Pairs:
    """Read pairs of frame numbers like ``"3:13,13:35"``; ``"none"`` gives no pairs.

    Raises
    ------
    AnalysisError
        It is not written so, a number is 0, or the two are the same.
    """
    if text.strip() == "none":
        return ()
    pairs = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part)
        if found is None:
            raise AnalysisError(
                f"pairs {text!r}: {part.strip()!r} is no pair of frames; write e.g. 3:13,13:35, or none"
            )
        first, second = int(found[1]), int(found[2])
        if first == second or 0 in (first, second):
            raise AnalysisError(f"pairs {text!r}: {first}:{second} must be two different frames, counted from 1")
        pairs.append((first, second))
    return tuple(pairs)


def recorded_image_to_stage(start: Mapping[str, Any]) -> Float | None:
    """Return the 2x2 matrix from image to stage axes of a run's start document, which has it in (x, y), in (y, x); None without one."""
    recorded = start.get("image_to_stage")
    return None if recorded is None else np.array(recorded, float)[::-1, ::-1]


def analyse_motion(
    frames: FieldFrames,
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    register: bool = False,
    k: int = 5,
    n_regions: int = 10,
    smoothness: float = 1.0,
    image_to_stage: Any = None,
    progress: Progress = lambda what, done, total: None,
) -> MotionAnalysis:
    """Analyse the motion of one field of view. Two frames are in memory at a time.

    Parameters
    ----------
    frames
        From `RunFrames.select`.
    pairs
        Pairs of frame numbers, counted from 1 over the accepted frames of the field; by default first to middle and middle to last.
    register
        Register all frames anew, against the mean flat and by mean displacement (so that breathing of the electrode does not bias the
        path), instead of taking the shifts recorded during the run.
    k
        Regions of common motion.
    n_regions
        Random boxes of the convergence.
    smoothness
        Of the flow, see `optical_flow`.
    image_to_stage
        2x2 matrix from image (y, x) to stage (y, x) axes; by default they agree.
    progress
        Told how far it is.

    Raises
    ------
    AnalysisError
        Fewer than four accepted frames, a pair out of range, frames that have too little in common, or no recorded shifts.
    ArchiveError
        The frames cannot be read.
    """
    where = f"run {frames.run_uid[:8]}, {frames.key}"
    n = len(frames)
    chosen = _checked(pairs, n, where)
    if n < LEAST_FRAMES:
        verdicts = ", ".join(f"{count} {name}" for name, count in frames.verdicts.items())
        raise AnalysisError(
            f"{where}: {n} accepted frames ({verdicts}); drift and jitter are told apart from {LEAST_FRAMES} on. "
            "Choose another --field or --spot"
        )
    if register or frames.shift_yx_px is None or frames.sigma_yx_px is None:
        if not register:
            raise AnalysisError(
                f"{where}: the run holds no verdicts, hence no shifts; register its frames anew (--register)"
            )
        shift_px, sigma_px, located = _registered(frames, progress)
    else:
        shift_px, sigma_px, located = frames.shift_yx_px, frames.sigma_yx_px, np.ones(n, bool)
    if located.sum() < LEAST_FRAMES:
        raise AnalysisError(f"{where}: only {located.sum()} of {n} frames could be registered")
    try:
        path = motion_path(
            frames.time_s[located],
            shift_px[located],
            frames.stage_yx_um[located],
            pixel_size_um=frames.pixel_size_um,
            sigma_yx_px=sigma_px[located],
            image_to_stage=image_to_stage,
        )
        flows = []
        for i, (first, second) in enumerate(chosen):
            lost = [number for number in (first, second) if not located[number - 1]]
            if lost:
                raise AnalysisError(
                    f"{where}: frame {lost[0]} of pair {first}:{second} could not be registered; choose another"
                )
            progress(f"flow from frame {first} to {second}", i, len(chosen))
            flows.append(
                _pair(frames, shift_px, located, first, second, k=k, n_regions=n_regions, smoothness=smoothness)
            )
    except ValueError as error:
        raise AnalysisError(f"{where}: {error}") from error
    progress("flow", len(chosen), len(chosen))
    ends = (min(min(pair) for pair in chosen), max(max(pair) for pair in chosen)) if chosen else (1, n)
    return MotionAnalysis(
        run_uid=frames.run_uid,
        key=frames.key,
        pixel_size_um=frames.pixel_size_um,
        seq_num=frames.seq_num[located],
        verdicts=frames.verdicts,
        path=path,
        pairs=tuple(flows),
        first_od=frames.optical_density(ends[0]),
        last_od=frames.optical_density(ends[1]),
        reflection=frames.reflection,
        parameters={
            "xbat_live": __version__,
            "shifts": "registered anew" if register else "recorded",
            "pairs": [list(pair) for pair in chosen],
            "shown_frames": list(ends),
            "clusters": k,
            "box_regions": n_regions,
            "smoothness": smoothness,
            "particles": "bright" if frames.reflection else "dense",
            "image_to_stage": np.eye(2).tolist() if image_to_stage is None else np.asarray(image_to_stage).tolist(),
            "mask": "Otsu on the optical density",
            "flats": frames.references.n_flats,
            "darks": frames.references.n_darks,
        },
    )


def default_pairs(n: int) -> Pairs:
    """Return first to middle and middle to last of `n` frames."""
    middle = (1 + n) // 2
    return tuple(pair for pair in ((1, middle), (middle, n)) if pair[0] < pair[1])


def _checked(pairs: Sequence[tuple[int, int]] | None, n: int, where: str) -> Pairs:
    if pairs is None:
        return default_pairs(n)
    for first, second in pairs:
        if not (1 <= first <= n and 1 <= second <= n):
            raise AnalysisError(f"{where}: pair {first}:{second} is out of range, accepted frames are 1 to {n}")
    return tuple((first, second) for first, second in pairs)


def _registered(frames: FieldFrames, progress: Progress) -> tuple[Float, Float, NDArray[np.bool_]]:
    n, shape = len(frames), frames.shape_yx
    dark, flat = frames.references.dark(shape), frames.references.mean_flat(frames.key.energy_ev)
    if flat is None:
        # Even illumination as bright as the frames: their light is not judged against a flat that was never taken.
        flat = dark + max(float(np.median(frames.frame(1) - dark)), 1.0)
    registrar = LiveRegistrar(shape, flat, dark, frames.pixel_size_um, robust=True)
    shift, sigma, located = np.zeros((n, 2)), np.zeros((n, 2)), np.zeros(n, bool)
    for i in range(n):
        progress("registering frames", i, n)
        result = registrar.update(frames.frame(i + 1))
        shift[i], sigma[i], located[i] = result.shift_yx_px, result.sigma_yx_px, result.ok
    progress("registering frames", n, n)
    return shift, sigma, located


def _pair(
    frames: FieldFrames,
    shift_px: Float,
    located: NDArray[np.bool_],
    first: int,
    second: int,
    *,
    k: int,
    n_regions: int,
    smoothness: float,
) -> PairFlow:
    a, b = first - 1, second - 1
    reference = frames.optical_density(first)
    after = a + 1 if b > a else a - 1  # towards the other one: it exists
    floor_px = None
    if after != b and located[after]:
        floor_px = noise_floor_px(
            reference,
            frames.optical_density(after + 1),
            shift_px[after] - shift_px[a],
            smoothness=smoothness,
            reflection=frames.reflection,
        )
    return flow_between(
        reference,
        frames.optical_density(second),
        shift_yx_px=shift_px[b] - shift_px[a],
        pixel_size_um=frames.pixel_size_um,
        frames=(first, second),
        seq_num=(int(frames.seq_num[a]), int(frames.seq_num[b])),
        elapsed_s=float(frames.time_s[b] - frames.time_s[a]),
        reference_shift_yx_px=shift_px[a] - shift_px[0],
        k=k,
        n_regions=n_regions,
        smoothness=smoothness,
        floor_rms_px=floor_px,
        reflection=frames.reflection,
    )
