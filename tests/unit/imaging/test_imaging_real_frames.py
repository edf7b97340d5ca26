"""The pipeline on real TXM frames (SSRL 6-2c, NCA particles); skipped where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from xbat_live.imaging import FramePipeline

ROOT = Path(os.environ.get("XBAT_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data") / "txm-ssrl-6-2c"
ENERGIES = ("08324.0", "08354.0")
COUNTS_VARIANCE = 0.21
"""Variance over mean of the counts, from pairs of flats."""

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"real frames are not at {ROOT} (set XBAT_SHARED_DATA)")


def _read(path: Path) -> NDArray[np.uint16]:
    olefile = pytest.importorskip("olefile")
    with olefile.OleFileIO(path) as container:
        raw = container.openstream("ImageData1/Image1").read()
    return np.frombuffer(raw, "<u2").reshape(1024, 1024)


@pytest.fixture(scope="module", params=ENERGIES)
def frames(request: pytest.FixtureRequest) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    flats = [_read(path) for path in sorted(ROOT.glob(f"*_ref_*{request.param}*.xrm"))]
    samples = [_read(path) for path in sorted(ROOT.glob(f"rep01_2016*{request.param}*.xrm"))]
    return np.stack(samples), np.mean(flats, axis=0, dtype=np.float32)


def _moved(
    frame: NDArray, flat: NDArray, shift_yx_px: tuple[float, float], blur_px: float = 0.0, angle_deg: float = 0.0
) -> NDArray:
    """Move and blur the sample, not the illumination: the transmission is transformed; blur removes noise, so some is added again."""
    margin = 64
    ratio = np.pad(np.clip(frame / np.maximum(flat, 20), 0, 3), margin, mode="reflect")
    fy, fx = fft.fftfreq(ratio.shape[0])[:, None], fft.rfftfreq(ratio.shape[1])[None, :]
    along = fx * np.cos(np.deg2rad(angle_deg)) + fy * np.sin(np.deg2rad(angle_deg))
    otf = np.exp(-2j * np.pi * (fy * shift_yx_px[0] + fx * shift_yx_px[1])) * np.sinc(along * blur_px)
    counts = fft.irfft2(fft.rfft2(ratio) * otf, ratio.shape)[margin:-margin, margin:-margin] * flat
    counts = np.clip(counts, 1, None)
    if blur_px:
        counts = counts + np.random.default_rng(1).normal(size=counts.shape) * np.sqrt(COUNTS_VARIANCE * counts)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def _pipeline(flat: NDArray) -> FramePipeline:
    pipeline = FramePipeline(flat.shape, 0.0312)
    pipeline.set_flat(flat)
    return pipeline


def test_real_frames_are_sharp_and_hold_still(frames: tuple[NDArray, NDArray]) -> None:
    samples, flat = frames
    pipeline = _pipeline(flat)
    for sample in samples:
        verdict = pipeline.process(sample, "fov", beam_scale=0.5 / 0.3)
        assert verdict.accepted, verdict
        assert np.abs(verdict.shift_yx_px).max() < 2.0


@pytest.mark.parametrize("shift", [(0.5, 0.5), (3.3, -7.6), (-12.2, 30.45), (40.4, 10.7)])
def test_known_shifts_of_real_frames_are_recovered(frames: tuple[NDArray, NDArray], shift: tuple[float, float]) -> None:
    samples, flat = frames
    pipeline = _pipeline(flat)
    pipeline.process(samples[0], "fov")
    still = pipeline.process(samples[1], "fov")
    moved = pipeline.process(_moved(samples[1], flat, shift), "fov")
    assert moved.located
    assert np.abs(np.subtract(moved.shift_yx_px, still.shift_yx_px) - shift).max() < 0.1


@pytest.mark.parametrize(("extent_px", "angle_deg"), [(5.0, 0.0), (5.0, 90.0), (7.0, 30.0), (14.0, 5.0)])
def test_blurred_real_frames_are_rejected(frames: tuple[NDArray, NDArray], extent_px: float, angle_deg: float) -> None:
    samples, flat = frames
    pipeline = _pipeline(flat)
    pipeline.process(samples[0], "fov")
    verdict = pipeline.process(_moved(samples[1], flat, (3.0, -8.0), extent_px, angle_deg), "fov")
    assert verdict.kind == "blurred"
    assert verdict.blur.extent_px == pytest.approx(extent_px, rel=0.2)
    assert abs((verdict.blur.angle_deg - angle_deg + 90) % 180 - 90) < 5


def test_a_blurred_real_first_frame_is_rejected(frames: tuple[NDArray, NDArray]) -> None:
    samples, flat = frames
    assert _pipeline(flat).process(_moved(samples[1], flat, (0.0, 0.0), 7.0), "fov").kind == "blurred"
